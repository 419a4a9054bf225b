"""Reading an audit: its parts as rows, and its rows as episodes, a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jules_jax.env.record import StepRecord
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
from jules_jax.evaluation.audit.manifest import Manifest, Part

READ_ROWS = 2**16
BATCH_STEPS = 2**17
"""Steps of the episodes that are looked at together, at most."""

Name = tuple[str, int]
"""Policy and episode."""


class Damaged(Exception):
    """A part that cannot be read, told in one sentence."""


def read_part(directory: Path, part: Part, types: Mapping[str, str]) -> Iterator[Columns]:
    """The rows of a part, some at a time; raises `Damaged`."""
    path = directory / part.file
    if not path.is_file():
        raise Damaged("is missing")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_schema(file.schema_arrow, types)
            for batch in file.iter_batches(READ_ROWS, columns=[*types, HASH]):
                yield _columns(batch, types)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise Damaged(f"is damaged or no Parquet file ({reason})") from None


def _check_schema(schema: pa.Schema, types: Mapping[str, str]) -> None:
    for name, kind in {**types, HASH: "hash"}.items():
        if name not in schema.names:
            raise Damaged(f"has no column {name}")
        found = schema.field(name).type
        if kind == "text":
            fits = pa.types.is_dictionary(found) or pa.types.is_string(found)
        elif kind == "hash":
            fits = pa.types.is_fixed_size_binary(found) or pa.types.is_binary(found)
        else:
            fits = found == pa.from_numpy_dtype(np.dtype(kind))
        if not fits:
            raise Damaged(f"has a column {name} of {found}, expected {kind}")


def _columns(batch: pa.RecordBatch, types: Mapping[str, str]) -> Columns:
    columns: Columns = {}
    for name, kind in {**types, HASH: "hash"}.items():
        column = batch.column(name)
        if column.null_count:
            raise Damaged(f"has gaps in column {name}")
        if kind == "hash":
            columns[name] = column.to_pylist()
        elif kind == "text":
            dictionary = pa.types.is_dictionary(column.type)
            columns[name] = column if dictionary else column.dictionary_encode()
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns


@dataclass(frozen=True)
class Episodes:
    """N episodes of up to T steps, padded with zeros; shapes of arrays as below.

    bars: `[N, T + 1, C]`, the start row first; after an episode's end its last bar is repeated.
    """

    policy: str
    checkpoint: str
    numbers_of: Array  # [N], the episodes' own
    live: Array  # [N, T] bool
    record: StepRecord  # [N, T]
    bars: Array
    observations: Array  # [N, T, 12]
    logits: Array  # [N, T, 3]
    values: Array  # [N, T]
    progress: Array  # [N, T]
    timestamps: Array  # [N, T]
    starts: Columns  # `columns.EPISODES`, [N] each
    symbol_names: tuple[str, ...]

    def name(self, lane: int) -> str:
        """What a sentence calls an episode."""
        return f"{self.policy}, episode {self.numbers_of[lane]}"


def episodes(
    directory: Path,
    manifest: Manifest,
    *,
    skip: set[Name] | None = None,
    first: int | None = None,
) -> Iterator[Episodes]:
    """All episodes whose rows are there without a gap, in batches of one policy each.

    Memory is bounded by the episodes that are open at a time, and a row for each episode. The names
    of those left out are added to `skip`. first: so many of each policy; None: all. Raises
    `Damaged`.
    """
    skip = set() if skip is None else skip
    beginnings = read_beginnings(directory, manifest)
    waiting: list[tuple[Name, Columns]] = []
    for name, rows in _whole(directory, manifest, first):
        if name not in beginnings or not _in_order(rows):
            skip.add(name)
            continue
        length = max([len(rows["step"]), *(len(r["step"]) for _, r in waiting)])
        if waiting and (waiting[0][0][0] != name[0] or (len(waiting) + 1) * length > BATCH_STEPS):
            yield _batch(waiting, beginnings, manifest)
            waiting = []
        waiting.append((name, rows))
    if waiting:
        yield _batch(waiting, beginnings, manifest)


def read_beginnings(directory: Path, manifest: Manifest) -> dict[Name, Columns]:
    """The row of `episodes` of every episode."""
    types = of_table("episodes", manifest.facts.numbers)
    found: dict[Name, Columns] = {}
    for part in manifest.of("episodes"):
        for rows in read_part(directory, part, types):
            policies = rows["policy"].to_pylist()
            names = rows["symbol_name"].to_pylist()
            for place, policy in enumerate(policies):
                one = {n: rows[n][place] for n, kind in types.items() if kind != "text"}
                found[policy, int(rows["episode"][place])] = one | {"symbol_name": names[place]}
    return found


def _in_order(rows: Columns) -> bool:
    return bool(np.array_equal(rows["step"], np.arange(len(rows["step"]))))


def _whole(
    directory: Path, manifest: Manifest, first: int | None = None
) -> Iterator[tuple[Name, Columns]]:
    """The rows of one episode after the other, each as soon as no more of them can follow."""
    types = of_table("steps")
    numbers = [name for name, kind in types.items() if kind != "text"]
    pieces: dict[Name, list[Columns]] = {}
    training = manifest.facts.kind == "training"
    for part in manifest.of("steps"):
        for rows in read_part(directory, part, types):
            for name, piece in _runs(rows, numbers):
                if first is not None and name[1] >= first:
                    continue
                if not training:  # an evaluation's are written one after the other
                    for other in [other for other in pieces if other != name]:
                        yield other, _joined(pieces.pop(other))
                pieces.setdefault(name, []).append(piece)
                ended = piece["terminated"][-1] or (
                    piece["time"][-1] >= manifest.facts.config.max_steps_in_episode
                )
                if training and ended:
                    yield name, _joined(pieces.pop(name))
    for name in list(pieces):
        yield name, _joined(pieces.pop(name))


def _runs(rows: Columns, numbers: list[str]) -> Iterator[tuple[Name, Columns]]:
    """Stretches of rows of one episode."""
    policy, episode = rows["policy"], rows["episode"]
    codes = policy.indices.to_numpy()
    changes = (np.diff(codes) != 0) | (np.diff(episode) != 0)
    edges = [0, *(np.flatnonzero(changes) + 1), len(episode)]
    words = policy.dictionary.to_pylist()
    checkpoints = rows["checkpoint"]
    for begin, end in itertools.pairwise(edges):
        piece: Columns = {name: rows[name][begin:end] for name in numbers}
        piece["checkpoint"] = checkpoints[int(begin)].as_py()
        yield (words[codes[begin]], int(episode[begin])), piece


def _joined(pieces: list[Columns]) -> Columns:
    if len(pieces) == 1:
        return pieces[0]
    return {
        name: pieces[0][name]
        if name == "checkpoint"
        else np.concatenate([piece[name] for piece in pieces])
        for name in pieces[0]
    }


def _batch(
    waiting: list[tuple[Name, Columns]], beginnings: Mapping[Name, Columns], manifest: Manifest
) -> Episodes:
    lengths = np.array([len(rows["step"]) for _, rows in waiting])
    live = np.arange(lengths.max()) < lengths[:, None]
    starts = [beginnings[name] for name, _ in waiting]

    def fill(column: str) -> Array:
        first = waiting[0][1][column]
        filled = np.zeros(live.shape, first.dtype)
        filled[live] = np.concatenate([rows[column] for _, rows in waiting])
        return filled

    def stack(columns: tuple[str, ...]) -> Array:
        return np.stack([fill(column) for column in columns], axis=-1)

    begun = np.array([[start[name] for name in BAR_COLUMNS] for start in starts], np.float32)
    bars = np.concatenate([begun[:, None], stack(BAR_COLUMNS)], axis=1)
    index = np.minimum(np.arange(bars.shape[1]), lengths[:, None])
    record: dict[str, Any] = {name: fill(name) for name in FIELDS}
    keys = [name for name in starts[0] if name != "symbol_name"]
    return Episodes(
        policy=waiting[0][0][0],
        checkpoint=waiting[0][1]["checkpoint"],
        numbers_of=np.array([name[1] for name, _ in waiting]),
        live=live,
        record=StepRecord(**record),
        bars=np.take_along_axis(bars, index[:, :, None], axis=1),
        observations=stack(OBSERVATION_COLUMNS),
        logits=stack(LOGIT_COLUMNS),
        values=fill("value"),
        progress=fill("progress"),
        timestamps=fill("timestamp_ns"),
        starts={name: np.array([start[name] for start in starts]) for name in keys},
        symbol_names=tuple(str(start["symbol_name"]) for start in starts),
    )
