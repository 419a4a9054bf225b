"""The audit of a training run: some of its lanes, over all updates, as rows of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jules_jax.errors import InputError
from jules_jax.evaluation.audit import manifest
from jules_jax.evaluation.audit.columns import (
    BAR_COLUMNS,
    FIELDS,
    LOGIT_COLUMNS,
    OBSERVATION_COLUMNS,
    Array,
    Columns,
    number_column,
)
from jules_jax.evaluation.audit.manifest import Facts, Manifest
from jules_jax.evaluation.audit.writing import PART_ROWS, Writer, chosen, split, words

POLICY = "in training"
Place = tuple[int, int] | None
"""Episode and steps of it so far; None where its beginning was not recorded."""


class Rollout(NamedTuple):
    """What is recorded of an update, arrays `[T, K, …]`.

    record: `StepRecord`. bars, start_bars: `[T, K, C]`, the table rows that the steps executed in
    and those before them. numbers: what the episodes drew for themselves, by dotted key.
    """

    record: Any
    first: Any
    observations: Any
    logits: Any
    values: Any
    bars: Any
    start_bars: Any
    numbers: Mapping[str, Any]


class LaneWriter:
    """Writes lanes of a training run; a context manager.

    The weights change from update to update, so no checkpoint is named, and `progress` is the one
    that each step was played with. Episodes go on over updates, and over the run's resumptions; one
    whose beginning was not recorded is left out.

    Args:
      directory: of the audit. What is there of the run so far goes on.
      facts: of the audit, where there is none yet.
      lanes: K.
      after: the update that the run goes on from; later ones are cut off.
    """

    def __init__(self, directory: Path, facts: Facts, lanes: int, *, after: int = 0) -> None:
        begun = cut(directory, after) if (directory / manifest.FILE).exists() else None
        self._writer = Writer(directory, facts, begun=begun)
        last = begun.of("steps")[-1] if begun and begun.of("steps") else None
        places = last.lanes if last else ()
        self._places: list[Place] = [*places, *[None] * lanes][:lanes]
        self._progress = last.progress if last else 0.0
        self._episodes = begun.rows("episodes") if begun else 0
        self._update = after

    def __enter__(self) -> LaneWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            self.end_part()
        except InputError:
            if kind is None:  # else it would hide what went wrong first
                raise
        finally:
            self._writer.__exit__(kind, *rest)

    def add(
        self, update: int, progress: float, rollout: Rollout, times: Array | None = None
    ) -> None:
        """Adds what update number `update` (from 1), played at `progress`, did in the lanes.

        times: `[R]` int64, UTC nanoseconds at which the table's bars begin; None: there are none.
        """
        if self._writer.rows_of_part >= PART_ROWS:
            self.end_part()
        before, episodes, begun_at = list(self._places), self._episodes, self._progress
        first = np.asarray(rollout.first).T
        number, step = _positions(first, before, episodes)
        self._places = [
            (int(n), int(s) + 1) if n >= 0 else None
            for n, s in zip(number[:, -1], step[:, -1], strict=True)
        ]
        self._episodes += int(first.sum())
        self._update, self._progress = update, progress
        facts = self._writer.manifest.facts
        self._writer.add(
            lambda: (
                _steps(facts, rollout, number, step, progress, times),
                _beginnings(facts, rollout, number, progress, begun_at, times),
            )
        )

    def end_part(self) -> None:
        """Ends a part, so that the trail can be cut after the newest update."""
        self._writer.end_part(self._update, self._progress, tuple(self._places))


def cut(directory: Path, after: int) -> Manifest:
    """Removes the parts with updates past `after`, and what was never ended; the manifest then."""
    found, _ = manifest.read(directory)
    kept = tuple(part for part in found.parts if (part.update or 0) <= after)
    cut_off = Manifest(found.facts, kept)
    manifest.write(cut_off, directory)
    names = {part.file for part in kept}
    for path in [*directory.glob("*.parquet"), *directory.glob("*.partial")]:
        if path.name not in names:
            path.unlink()
    return cut_off


def _positions(first: Array, before: list[Place], episodes: int) -> tuple[Array, Array]:
    """Episode and step `[K, T]` of each step; −1 where the episode's beginning is not recorded."""
    steps = first.shape[1]
    begun = np.cumsum(first.ravel()).reshape(first.shape) + episodes - 1
    inside = np.cumsum(first, axis=1) > 0
    since = np.maximum.accumulate(np.where(first, np.arange(steps), -1), axis=1)
    open_episode = np.array([-1 if place is None else place[0] for place in before])
    open_steps = np.array([0 if place is None else place[1] for place in before])
    number = np.where(inside, begun, open_episode[:, None])
    step = np.arange(steps) - since  # since is −1 before the first beginning
    step = np.where(inside, step, step - 1 + open_steps[:, None])
    return number.astype(np.int32), step.astype(np.int32)


def _by_lane(values: Any) -> Array:
    """`[T, K, …]` as `[K, T, …]`."""
    return np.asarray(values).swapaxes(0, 1)


def _times_of(rows: Array, times: Array | None) -> Array:
    return np.zeros(len(rows), np.int64) if times is None else np.asarray(times, np.int64)[rows]


def _named(facts: Facts, symbols: Array) -> Columns:
    unique, place = np.unique(symbols, return_inverse=True)
    named = words({"run": facts.run, "policy": POLICY, "checkpoint": ""}, len(symbols))
    return named | {"symbol_name": chosen([facts.symbol(int(n)) for n in unique], place)}


def _steps(
    facts: Facts,
    rollout: Rollout,
    number: Array,
    step: Array,
    progress: float,
    times: Array | None,
) -> Columns:
    known = number >= 0
    record = {name: _by_lane(getattr(rollout.record, name))[known] for name in FIELDS}
    count = int(known.sum())
    columns = _named(facts, record["symbol"])
    columns |= {
        "episode": number[known],
        "step": step[known],
        "timestamp_ns": _times_of(record["row"], times),
        "progress": np.full(count, progress),
    }
    columns |= record
    columns |= split(BAR_COLUMNS, _by_lane(rollout.bars)[known])
    columns |= split(OBSERVATION_COLUMNS, _by_lane(rollout.observations)[known])
    columns |= split(LOGIT_COLUMNS, _by_lane(rollout.logits)[known])
    return columns | {"value": _by_lane(rollout.values)[known]}


def _beginnings(
    facts: Facts,
    rollout: Rollout,
    number: Array,
    progress: float,
    begun_at: float,
    times: Array | None,
) -> Columns:
    """Rows of the episodes whose first step is in the rollout.

    One whose first step is the rollout's was begun by the update before, at its progress.
    """
    first = _by_lane(rollout.first).astype(bool)
    lane, step = np.nonzero(first)
    record = rollout.record
    symbols, start_rows = _by_lane(record.symbol)[first], _by_lane(record.row)[first] - np.int32(1)
    columns = _named(facts, symbols)
    columns |= {
        "episode": number[first],
        "lane": lane.astype(np.int32),
        "symbol": symbols,
        "start_row": start_rows,
        "start_timestamp_ns": _times_of(start_rows, times),
        "start_time": _by_lane(record.time)[first] - np.int32(1),
        "steps": np.zeros(len(lane), np.int32),
        "progress": np.where(step == 0, begun_at, progress),
    }
    columns |= split(BAR_COLUMNS, _by_lane(rollout.start_bars)[first])
    drawn = {key: _by_lane(rollout.numbers[key])[first] for key in facts.numbers}
    return columns | {number_column(key): values for key, values in drawn.items()}
