"""The registry: one line for every run ever started, in `runs/registry.jsonl`, append-only.

It is the trial count that an honest Sharpe ratio needs (Bailey, López de Prado 2014): a run that
failed, was interrupted or was deleted still counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jules_jax.errors import InputError

FILE = "registry.jsonl"
PLACES = ("name", "runs_dir", "checkpoint_dir", "devices")
"""Of a config, what says where it runs and not what."""

Line = dict[str, Any]


def config_hash(config: dict[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of a resolved config, as canonical JSON, less `PLACES`."""
    kept = {key: value for key, value in config.items() if key not in PLACES}
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def check(runs_dir: Path) -> None:
    """Raises `OSError` where the registry in an existing `runs_dir` cannot be written."""
    path = runs_dir / FILE
    existed = path.exists()
    with open(path, "a", encoding="utf-8"):
        pass
    if not existed:
        path.unlink()


def append(runs_dir: Path, event: str, run: str, **details: Any) -> None:
    """Adds a line: `event` (started, finished, …) of `run`, with the time and `details`.

    It begins anew after a line that was torn off. Raises `InputError` where it cannot be written.
    """
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"time": moment, "event": event, "run": run, **details})
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with open(runs_dir / FILE, "ab+") as file:
            begin = b"" if _is_ended(file) else b"\n"
            file.write(begin + line.encode() + b"\n")
    except OSError as error:
        raise InputError(f"{runs_dir / FILE} cannot be written: {error.strerror}") from None


def _is_ended(file: Any) -> bool:
    """Whether the last line of a file is whole; so it is of an empty one."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def read(runs_dir: Path, *, say: Callable[[str], None] | None = None) -> list[Line]:
    """Every line ever added that can be read; empty where there is no registry yet.

    `say` is told of lines that are passed over: torn off by a kill or a full disk, or edited.
    """
    lines = _lines(runs_dir)
    found = [line for line in lines if line is not None]
    if say and len(found) < len(lines):
        torn = len(lines) - len(found)
        say(f"{runs_dir / FILE}: {torn} of its lines cannot be read, and are passed over")
    return found


def _lines(runs_dir: Path) -> list[Line | None]:
    path = runs_dir / FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return [_line(line) for line in text.splitlines() if line.strip()]


def _line(text: bytes) -> Line | None:
    """A line with time, event and run; None where it has not."""
    try:
        line: Line = json.loads(text)
        datetime.fromisoformat(line["time"])
        named = isinstance(line["event"], str) and isinstance(line["run"], str)
    except (ValueError, TypeError, KeyError):
        return None
    return line if named else None
