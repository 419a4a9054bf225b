"""The audit of a training run: every step of some of its lanes, written as it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.agent.devices import gathered
from jules_jax.env.params import EnvParams
from jules_jax.evaluation import audit
from jules_jax.evaluation.audit import LaneWriter, Rollout
from jules_jax.training import processes, provenance
from jules_jax.training.market import Market

DIRECTORY = "audit"
"""In the run's directory."""


def lanes_of(settings: config.Config) -> int:
    """Lanes that are audited: `monitor.audit` of all."""
    return audit.lanes_of(settings.monitor.audit, settings.num_envs)


def watch(state: Any, info: dict[str, Any]) -> dict[str, Any]:
    """What the audit takes of a step: its record, and what its episode drew for itself."""
    return {"record": info["record"], "numbers": state.numbers}


@dataclass(frozen=True)
class Taken:
    """What an update did in the audited lanes, on the device."""

    update: int
    progress: float
    rollout: Rollout
    times: NDArray[np.int64] | None  # of the table's bars then, UTC nanoseconds


class Auditor:
    """Takes what every update did in the audited lanes, and writes it; nothing of none.

    A context manager. after: the update that the run goes on from; what was written of later ones
    is cut off.
    """

    def __init__(
        self, run_dir: Path, settings: config.Config, market: Market, *, after: int = 0
    ) -> None:
        self._lanes, self._market = lanes_of(settings), market
        self._writer: LaneWriter | None = None
        if self._lanes and processes.is_first():
            drawn = [one.key for one in settings.randomise if not one.key.startswith("simulator.")]
            facts = audit.Facts(
                kind="training",
                run=run_dir.name,
                config=settings,
                bar_seconds=market.data.bar_seconds,
                source=settings.market.data or f"simulated paths, {settings.simulator.preset}",
                symbols=market.recorded.symbols if market.recorded else (),
                data=market.fingerprint,
                numbers=tuple(drawn),
                revision=provenance.revision(),
                code=audit.code_hash(),
                device=jax.local_devices()[0].device_kind,
            )
            directory = run_dir / DIRECTORY
            self._writer = LaneWriter(directory, facts, self._lanes, after=after)

    def __enter__(self) -> Auditor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer:
            self._writer.__exit__(kind, error, trace)

    def take(self, update: int, progress: float, watched: Any, params: EnvParams) -> Taken | None:
        """What an update did; its table rows are read before the next update moves them."""
        if not self._lanes:
            return None
        rollout = _rollout(watched, params.market.rows, self._lanes)
        if jax.process_count() > 1:  # lanes of others, too
            rollout = gathered(rollout)
        return Taken(update, progress, rollout, self._market.times())

    def write(self, taken: Taken | None) -> None:
        """Has what was taken written."""
        if self._writer and taken:
            self._writer.add(taken.update, taken.progress, taken.rollout, taken.times)

    def end_part(self) -> None:
        """Before a checkpoint: what was written so far can be gone on from."""
        if self._writer:
            self._writer.end_part()


@partial(jax.jit, static_argnames="lanes")
def _rollout(watched: Any, table: jax.Array, lanes: int) -> Rollout:
    kept = jax.tree.map(lambda leaf: leaf[:, :lanes], watched)
    record, numbers = kept.seen["record"], kept.seen["numbers"]
    bars, start_bars = table[record.row], table[record.row - 1]
    return Rollout(record, kept.first, kept.obs, kept.logits, kept.value, bars, start_bars, numbers)
