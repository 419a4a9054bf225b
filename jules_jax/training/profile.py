"""Profiling: a `jax.profiler` trace of a few updates of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jules_jax.errors import InputError

FIRST, LAST = 2, 3
"""The updates traced, from 1: the first one also fills caches, two show what repeats."""


class Profile:
    """Traces updates `FIRST` to `LAST` into a directory: call `before` and `after` each update."""

    def __init__(self, directory: Path, updates: int) -> None:
        """Makes the directory.

        Raises `InputError` where it cannot be written, or where the run is over before `FIRST`.
        """
        if updates < FIRST:
            raise InputError(f"--profile traces from update {FIRST} on, and the run has {updates}")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            probe = directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(f"--profile {directory} cannot be written: {error.strerror}") from None
        self.directory = directory
        self._last = min(LAST, updates)

    def before(self, update: int) -> None:
        """Starts the trace where `update` (from 1) is the first to be traced."""
        if update == FIRST:
            jax.profiler.start_trace(self.directory)

    def after(self, update: int, result: Any) -> bool:
        """Ends the trace once `result` of the last traced update is there; says whether it did."""
        if update != self._last:
            return False
        jax.block_until_ready(result)
        jax.profiler.stop_trace()
        return True
