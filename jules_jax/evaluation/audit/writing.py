"""Writing an audit: rows are hashed and written as they come, part by part, by a thread of its own.

`Writer` takes rows of both tables. `add_episodes` are whole episodes of an evaluation;
`training_lanes.LaneWriter` makes rows of the rollouts of a training run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jules_jax.errors import InputError
from jules_jax.evaluation.audit import chain, manifest
from jules_jax.evaluation.audit.columns import (
    BAR_COLUMNS,
    FIELDS,
    HASH,
    LOGIT_COLUMNS,
    OBSERVATION_COLUMNS,
    Array,
    Columns,
    of_table,
)
from jules_jax.evaluation.audit.manifest import TABLES, Facts, Manifest, Part

GROUP_ROWS = 2**16
"""Rows that are hashed, compressed and written at a time, at most."""
PART_ROWS = 2**22
"""Steps after which another part begins."""
QUEUED = 2
"""Chunks that wait to be written before whoever adds another one waits too."""


class Writer:
    """Writes the audit of `facts` into a directory; a context manager.

    With a `begun` manifest it goes on with what is there. Left in good order it is complete; left
    by an error its last part ends where it is. Raises `InputError` where there is an audit already
    or where it cannot be written.
    """

    def __init__(self, directory: Path, facts: Facts, *, begun: Manifest | None = None) -> None:
        self.directory = directory
        if begun is None and (directory / manifest.FILE).exists():
            raise InputError(f"{directory} has an audit already, expected another directory")
        self.manifest = Manifest(facts) if begun is None else begun
        self._tables: dict[str, _Table] = {}
        self._thread = ThreadPoolExecutor(1, "audit")
        self._queue: list[Future[None]] = []
        self._counts: dict[str, int] = {}
        self._told(self._begin)

    def _begin(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        manifest.write(dataclasses.replace(self.manifest, complete=False), self.directory)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            self.close(complete=kind is None)
        except InputError:
            if kind is None:  # else it would hide what went wrong first
                raise

    def add(self, rows: Callable[[], tuple[Columns, Columns]]) -> None:
        """Has `rows` called by the writing thread, and the steps and episodes it returns written.

        So what it takes to fetch them from the device and to lay them out is done there, too.
        """

        def write() -> None:
            steps, episodes = rows()
            self._write("steps", steps)
            self._write("episodes", episodes)

        while len(self._queue) >= QUEUED:
            self._finish_oldest()
        self._queue.append(self._thread.submit(write))

    def add_episodes(
        self,
        record: Any,
        *,
        policy: str,
        bars: Any,
        observations: Any,
        logits: Any = None,
        values: Any = None,
        timestamps: Array | None = None,
        start_rows: Array,
        symbols: Array,
        progress: float = 1.0,
        trained: bool = True,
    ) -> None:
        """N whole episodes of up to T steps, as `recording.play` gives them; numbered as they come.

        Args:
          record: `StepRecord` `[N, T]`; steps after a termination, and those of `time` 0, are left
            out.
          policy: its name; its episodes are numbered from 0.
          bars: `[N, T + 1, C]` float32, the table rows read, the start row first.
          observations: `[N, T, 12]`, what each request was made on.
          logits: `[N, T, 3]`; None where the policy has none: they are NaN then, as `values` are.
          values: `[N, T]`.
          timestamps: `[N, T + 1]` int64, UTC nanoseconds at which the bars begin; None where they
            have no time: 0 then.
          start_rows: `[N]`, the table rows of the first decisions.
          symbols: `[N]`.
          progress: share of training that schedules were read at.
          trained: whether the weights of the audit's checkpoint decide.
        """
        first = self._counts.get(policy, 0)
        self._counts[policy] = first + len(start_rows)
        facts = self.manifest.facts

        def rows() -> tuple[Columns, Columns]:
            arrays = {name: np.asarray(getattr(record, name)) for name in FIELDS}
            table_rows = np.asarray(bars)
            live = is_live(arrays["time"], arrays["terminated"])
            checkpoint = facts.checkpoint_hash if trained else ""
            named = {"run": facts.run, "policy": policy, "checkpoint": checkpoint}
            names = [facts.symbol(int(number)) for number in symbols]
            lane, step = np.nonzero(live)
            times = np.zeros(live.shape, np.int64) if timestamps is None else timestamps[:, 1:]
            steps: Columns = words(named, len(lane)) | {"symbol_name": chosen(names, lane)}
            steps |= {
                "episode": (first + lane).astype(np.int32),
                "step": step.astype(np.int32),
                "timestamp_ns": times[live],
                "progress": np.full(len(lane), progress),
            }
            steps |= {name: played(values, live) for name, values in arrays.items()}
            steps |= split(BAR_COLUMNS, played(table_rows[:, 1:], live))
            steps |= split(OBSERVATION_COLUMNS, played(np.asarray(observations), live))
            unknown = np.full(live.shape, np.nan, np.float32)
            thought = np.stack([unknown] * 3, -1) if logits is None else np.asarray(logits)
            steps |= split(LOGIT_COLUMNS, played(thought, live))
            steps["value"] = (unknown if values is None else np.asarray(values))[live]
            count = len(start_rows)
            begun: Columns = words(named, count) | {"symbol_name": chosen(names, np.arange(count))}
            begun |= {
                "episode": first + np.arange(count, dtype=np.int32),
                "lane": np.arange(first, first + count, dtype=np.int32),
                "symbol": np.asarray(symbols, np.int32),
                "start_row": np.asarray(start_rows, np.int32),
                "start_timestamp_ns": (
                    np.zeros(count, np.int64) if timestamps is None else timestamps[:, 0]
                ),
                "start_time": np.zeros(count, np.int32),
                "steps": live.sum(axis=1).astype(np.int32),
                "progress": np.full(count, progress),
            }
            return steps, begun | split(BAR_COLUMNS, table_rows[:, 0])

        self.add(rows)

    def end_part(
        self,
        update: int | None = None,
        progress: float = 0.0,
        lanes: tuple[tuple[int, int] | None, ...] = (),
    ) -> None:
        """Ends the part that is being written, if any; all that was added is on disk then.

        update, progress, lanes: see `Part`.
        """
        while self._queue:
            self._finish_oldest()
        self._told(lambda: self._end_part(update, progress, lanes))

    @property
    def rows_of_part(self) -> int:
        """Steps in the part that is being written, so far."""
        return self._tables["steps"].rows if "steps" in self._tables else 0

    def close(self, *, complete: bool = True) -> Manifest:
        """Ends the last part and writes the manifest."""
        try:
            self.end_part()
            if complete:
                self.manifest = dataclasses.replace(self.manifest, complete=True)
                self._told(lambda: manifest.write(self.manifest, self.directory))
        finally:
            self._thread.shutdown()
            for table in self._tables.values():
                table.abandon()
        return self.manifest

    def _finish_oldest(self) -> None:
        self._told(self._queue.pop(0).result)

    def _told(self, do: Callable[[], None]) -> None:
        try:
            do()
        except OSError as error:
            raise InputError(
                f"cannot write audit {self.directory}: {error.strerror or error}"
            ) from None

    def _write(self, table: str, columns: Columns) -> None:
        """Rows of one table; in an evaluation a part ends by itself."""
        count = len(columns["episode"])
        if not count:
            return
        if table not in self._tables:
            number = len({part.file.partition("-")[2] for part in self.manifest.parts})
            self._tables[table] = _Table(
                table, self.directory, self._part_number(number), self.manifest
            )
        self._tables[table].write(columns, count)
        of_evaluation = self.manifest.facts.kind == "evaluation"
        if table == "episodes" and of_evaluation and self.rows_of_part >= PART_ROWS:
            self._end_part(None, 0.0, ())

    def _part_number(self, ended: int) -> int:
        """The number of the part under way, the same for both tables."""
        return next((table.number for table in self._tables.values()), ended)

    def _end_part(
        self, update: int | None, progress: float, lanes: tuple[tuple[int, int] | None, ...]
    ) -> None:
        tables = [self._tables.pop(name) for name in TABLES if name in self._tables]
        if not tables:
            return
        for table in tables:
            table.close()
        parts = [table.part(update, progress, lanes) for table in tables]
        self.manifest = dataclasses.replace(self.manifest, parts=(*self.manifest.parts, *parts))
        manifest.write(self.manifest, self.directory)


class _Table:
    """A file of rows of one table while it is written; it has its name only once it is whole."""

    def __init__(self, table: str, directory: Path, number: int, begun: Manifest) -> None:
        self.table, self.number, self.rows = table, number, 0
        self.types = of_table(table, begun.facts.numbers)
        self.path = directory / f"{table}-{number:05}.parquet"
        self.first, self.last = b"", begun.last_hash(table)
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._writer = pq.ParquetWriter(
            self._partial,
            schema_of(self.types),
            compression="lz4",
            use_dictionary=[name for name, kind in self.types.items() if kind == "text"],
            use_byte_stream_split=[n for n, kind in self.types.items() if kind[1] == "f"],
            write_statistics=[name for name in ("policy", "episode", "step") if name in self.types],
            write_page_checksum=True,
        )  # other columns without dictionaries: those would not tell NaNs apart

    def write(self, columns: Columns, count: int) -> None:
        """Rows in groups, each hashed and then written."""
        for start in range(0, count, GROUP_ROWS):
            some = {name: columns[name][start : start + GROUP_ROWS] for name in self.types}
            hashes = chain.extend(self.last, some, self.types)
            self.first, self.last = self.first or hashes[0], hashes[-1]
            some[HASH] = pa.array(hashes, pa.binary(chain.SIZE))
            self._writer.write_table(pa.table(some, schema=schema_of(self.types)))
            self.rows += len(hashes)

    def close(self) -> None:
        self._writer.close()
        self._partial.replace(self.path)

    def abandon(self) -> None:
        self._writer.close()
        self._partial.unlink(missing_ok=True)

    def part(
        self, update: int | None, progress: float, lanes: tuple[tuple[int, int] | None, ...]
    ) -> Part:
        return Part(
            self.path.name, self.table, self.rows, self.first.hex(), self.last.hex(),
            update, progress, lanes,
        )  # fmt: skip


ARROW = {
    "text": pa.dictionary(pa.int32(), pa.string()),
    "<i4": pa.int32(),
    "<i8": pa.int64(),
    "<f4": pa.float32(),
    "<f8": pa.float64(),
    "|b1": pa.bool_(),
}


def schema_of(types: dict[str, str]) -> pa.Schema:
    """The Arrow schema of a table, with its hashes."""
    fields = [pa.field(name, ARROW[kind], nullable=False) for name, kind in types.items()]
    return pa.schema([*fields, pa.field(HASH, pa.binary(chain.SIZE), nullable=False)])


def is_live(time: Array, terminated: Array) -> Array:
    """Steps `[N, T]` that were played: up to a termination, and of a `time` other than 0."""
    live: Array = (np.cumsum(terminated, axis=1) - terminated == 0) & (time > 0)
    return live


def played(values: Array, live: Array) -> Array:
    """Of `[N, T, …]` the steps that were, `[n, …]`."""
    return values.reshape(-1, *values.shape[2:]) if live.all() else values[live]


def words(named: dict[str, str], count: int) -> Columns:
    """Columns of one text each."""
    return {name: chosen([word], np.zeros(count, np.int32)) for name, word in named.items()}


def chosen(texts: list[str], place: Array) -> Any:
    """A column of the texts at these places."""
    known: dict[str, int] = {}
    codes = np.array([known.setdefault(text, len(known)) for text in texts], np.int32)
    codes = codes[place] if len(codes) else np.zeros(0, np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(known), pa.string()))


def split(names: tuple[str, ...], values: Array) -> Columns:
    """Columns of `[n, len(names)]`, each of them contiguous."""
    return dict(zip(names, np.ascontiguousarray(values.T), strict=True))
