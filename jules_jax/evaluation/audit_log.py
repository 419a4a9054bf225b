"""Audit log: recorded episodes in one Parquet file that is enough to play them again.

Schema version 1. A line is a step: `episode` and `step` (both from 0), every field of `StepRecord`,
and, as `bar_*`, the table row that the step executed in. The file's metadata holds, as JSON under
`jules_jax.audit`, the schema version, the resolved configuration, and what else an episode starts
from. Values keep their types bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax import lax
from numpy.typing import ArrayLike, NDArray

from jules_jax import config as configuration
from jules_jax.agent.policy import Policy
from jules_jax.config import Config
from jules_jax.env.observation import observe
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.record import StepRecord
from jules_jax.env.transition import EnvState, initial_state, transition
from jules_jax.errors import InputError
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.twin import Disagreement, compare, replay
from jules_jax.market.table import NUM_MARKET_ENTRIES, MarketData, Row, read_row

SCHEMA_VERSION = 1
METADATA_KEY = b"jules_jax.audit"
FIELDS = tuple(field.name for field in dataclasses.fields(StepRecord))
BAR_COLUMNS = (
    *(f"bar_{name}" for name in Row._fields[:-1]),
    *(f"bar_market_{entry}" for entry in range(NUM_MARKET_ENTRIES)),
)
COLUMNS = ("episode", "step", *FIELDS, *BAR_COLUMNS)

Array = NDArray[Any]


@dataclass(frozen=True)
class AuditLog:
    """N episodes of up to T steps, as NumPy arrays.

    record: `[N, T]`; zeros in all fields of all steps after an episode's termination.
    bars: `[N, T+1, C]` float32, the table rows read, the start row first (`market.table.Row`);
    after a termination its bar is repeated.
    start_rows, symbols: `[N]` int32, as numbered in the table that the episodes were played on.
    progress: share of training done. source: where the prices come from, in words.
    """

    record: StepRecord
    bars: Array
    start_rows: Array
    symbols: Array
    config: Config
    progress: float
    bar_seconds: int
    source: str


def script() -> Policy:
    """The policy that plays a list of actions: its parameters, `[N, T]` int32."""

    def act(
        actions: jax.Array, keys: jax.Array, t: jax.Array, obs: jax.Array, first: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del keys, obs, first
        return t + 1, actions[:, t]

    return Policy("script", lambda actions, lanes: jnp.int32(0), act)


def record_episodes(
    policy: Policy,
    policy_params: Any,
    config: Config,
    market: MarketData,
    starts: Starts,
    key: jax.Array,
    *,
    progress: float = 1.0,
    source: str = "",
) -> AuditLog:
    """Plays one episode from every start and keeps every observable of every step.

    For the same policy, starts and key these are the episodes of `backtest.run_episodes`.
    """
    config = config.at(progress)  # the numbers played with: what a replay is to use
    env_params = make_params(config, market, progress=progress)
    rows, symbols = jnp.asarray(starts.row), jnp.asarray(starts.symbol)
    played = _play(policy, policy_params, env_params, rows, symbols, key)
    ended = np.cumsum(played.terminated, axis=1) - played.terminated > 0
    record = _map_fields(lambda values: np.where(ended, values.dtype.type(0), values), played)
    offsets = np.arange(config.max_steps_in_episode + 1)
    bars = np.asarray(market.rows[np.asarray(starts.row)[:, None] + offsets])
    return AuditLog(
        record=record,
        bars=_hold_last(bars, (~ended).sum(axis=1)),
        start_rows=np.asarray(starts.row, np.int32),
        symbols=np.asarray(starts.symbol, np.int32),
        config=config,
        progress=progress,
        bar_seconds=market.bar_seconds,
        source=source,
    )


@partial(jax.jit, static_argnums=0)
def _play(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    key: jax.Array,
) -> StepRecord:
    """Records `[N, T]`; steps after a termination included."""
    lanes, table = rows.shape[0], env_params.market.rows

    def start(row_index: jax.Array, symbol: jax.Array) -> tuple[EnvState, jax.Array]:
        row = read_row(table, row_index)
        state = initial_state(row, row_index, symbol, env_params)
        return state, observe(state, row, env_params)

    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, jax.Array, StepRecord]:
        row = read_row(table, state.row + 1)
        state, record = transition(state, row, action, env_params)
        return state, observe(state, row, env_params), record

    def body(loop: Any, t: jax.Array) -> tuple[Any, StepRecord]:
        state, obs, first, carry = loop
        keys = jax.random.split(jax.random.fold_in(key, t), lanes)
        carry, action = policy.act(policy_params, keys, carry, obs, first)
        state, obs, record = jax.vmap(step)(state, action)
        return (state, obs, jnp.zeros_like(first), carry), record

    states, obs = jax.vmap(start)(rows, symbols)
    loop = (states, obs, jnp.ones(lanes, bool), policy.initial_carry(policy_params, lanes))
    _, record = lax.scan(body, loop, jnp.arange(env_params.max_steps_in_episode))
    by_lane: StepRecord = jax.tree.map(lambda values: values.swapaxes(0, 1), record)
    return by_lane


def _map_fields(function: Any, record: StepRecord) -> StepRecord:
    return StepRecord(**{name: function(np.asarray(getattr(record, name))) for name in FIELDS})


def _hold_last(bars: Array, steps: Array) -> Array:
    """Bars `[N, T+1, C]` with the last one of each episode's `steps` `[N]` repeated after it."""
    index = np.minimum(np.arange(bars.shape[1]), steps[:, None])
    held: Array = np.take_along_axis(bars, index[:, :, None], axis=1)
    return held


def write(log: AuditLog, path: Path) -> None:
    """Writes the file whole or not at all; raises `InputError` where it cannot be written."""
    live = np.asarray(log.record.time) > 0
    episode, step = np.nonzero(live)
    columns: dict[str, Array] = {"episode": episode.astype(np.int32), "step": step.astype(np.int32)}
    columns |= {name: np.asarray(getattr(log.record, name))[live] for name in FIELDS}
    columns |= dict(zip(BAR_COLUMNS, log.bars[:, 1:][live].T, strict=True))
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "config": configuration.to_dict(log.config),
        "steps": live.shape[1],
        "start_rows": log.start_rows.tolist(),
        "symbols": log.symbols.tolist(),
        "start_bars": log.bars[:, 0].tolist(),
        "progress": log.progress,
        "bar_seconds": log.bar_seconds,
        "source": log.source,
    }
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    partial_path = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            table,
            partial_path,
            compression="zstd",
            use_dictionary=False,  # dictionaries would not tell NaNs apart
            use_byte_stream_split=[n for n, c in columns.items() if c.dtype.kind == "f"],
            write_page_checksum=True,
        )
        partial_path.replace(path)
    except OSError as error:
        raise InputError(f"cannot write audit file {path}: {error.strerror or error}") from None


def read(path: Path) -> AuditLog:
    """The log in a file; raises `InputError` unless it is a whole one of this schema version."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an audit file")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError):
        raise InputError(f"{path} is damaged or no Parquet file, expected an audit file") from None
    facts = _read_metadata(path, table.schema.metadata or {})
    columns = _read_columns(path, table)
    try:
        return _assemble(columns, facts)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: metadata and columns do not fit each other ({error!r})"
        ) from None


def _read_metadata(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(metadata[METADATA_KEY])
        version = facts["schema_version"]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} has no audit metadata, expected an audit file") from None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: audit schema version is {version}, expected {SCHEMA_VERSION}")
    return facts


def _read_columns(path: Path, table: pa.Table) -> dict[str, Array]:
    """Columns by name, checked to be numbers and to be the steps of whole episodes in order."""
    columns = {}
    for name in COLUMNS:
        if name not in table.column_names:
            raise InputError(f"{path} has no column {name}, expected those of schema version 1")
        column = table.column(name)
        values = column.to_numpy()
        if column.null_count or values.dtype.kind not in "biuf":
            raise InputError(f"{path}: column {name} is {column.type} with gaps, expected numbers")
        columns[name] = values
    episode, step = columns["episode"], columns["step"]
    begins = np.diff(episode, prepend=-1) != 0
    number = np.cumsum(begins) - 1
    lines = np.arange(len(episode))
    position = lines - np.maximum.accumulate(np.where(begins, lines, 0))
    wrong = np.flatnonzero((episode != number) | (step != position))
    if wrong.size:
        line = wrong[0]
        raise InputError(
            f"{path} line {line} is episode {episode[line]} step {step[line]}, "
            f"expected episode {number[line]} step {position[line]}"
        )
    return columns


def _assemble(columns: Mapping[str, Array], facts: Mapping[str, Any]) -> AuditLog:
    episode, step = columns["episode"], columns["step"]
    start_rows = np.asarray(facts["start_rows"], np.int32)
    episodes, steps = len(start_rows), int(facts["steps"])
    counts = np.bincount(episode, minlength=episodes)
    if len(counts) > episodes or counts.min() < 1:
        raise InputError(f"{np.count_nonzero(counts)} episodes, expected {episodes}")

    def fill(values: Array) -> Array:
        lanes = np.zeros((episodes, steps), values.dtype)
        lanes[episode, step] = values
        return lanes

    record: dict[str, Any] = {name: fill(columns[name]) for name in FIELDS}
    bars = np.zeros((episodes, steps + 1, len(BAR_COLUMNS)), np.float32)
    bars[:, 0] = np.asarray(facts["start_bars"], np.float32)
    bars[episode, step + 1] = np.stack([columns[name] for name in BAR_COLUMNS], axis=-1)
    return AuditLog(
        record=StepRecord(**record),
        bars=_hold_last(bars, counts),
        start_rows=start_rows,
        symbols=np.asarray(facts["symbols"], np.int32),
        config=configuration.load(facts["config"]),
        progress=float(facts["progress"]),
        bar_seconds=int(facts["bar_seconds"]),
        source=str(facts["source"]),
    )


def rederive(log: AuditLog, *, nudge: ArrayLike = 0.0) -> StepRecord:
    """The record `[N, T]` that the float64 twin makes of the log's bars and requests.

    `nudge` is the twin's.
    """
    episodes, rows, width = log.bars.shape
    first, config = np.arange(episodes) * rows, log.config
    with np.errstate(all="ignore"):  # what a damaged bar leads to is compared, not warned of
        twin = replay(
            log.bars.reshape(-1, width),
            first,
            np.asarray(log.record.request) + 1,
            account=config.account,
            fills=config.fills,
            safeguards=config.safeguards,
            reward=config.reward,
            progress=log.progress,
            bar_seconds=log.bar_seconds,
            symbols=log.symbols,
            nudge=nudge,
        )
    shift = np.where(twin.time > 0, (log.start_rows - first)[:, None], 0)
    return dataclasses.replace(twin, row=twin.row + shift)


def first_disagreement(log: AuditLog) -> Disagreement | None:
    """Where the record first disagrees with the float64 twin (`lane` is the episode), or None.

    Requests and bars are what the twin starts from; everything else must follow from them. An
    episode whose equity came closer to the edge between two sizes than float32 rounds its costs
    may go either way there, and counts as agreeing if it agrees with the twin nudged across.
    """
    twin, capital = rederive(log), log.config.account.initial_capital
    while (first := compare(log.record, twin, initial_capital=capital)) is not None:
        nudged = _agreeing_nudged(_episode(log, first.lane), _lane(twin, first.lane), first.step)
        if nudged is None:
            return first
        for name in FIELDS:
            getattr(twin, name)[first.lane] = getattr(nudged, name)[0]
    return None


def _lane(record: StepRecord, lane: int) -> StepRecord:
    return _map_fields(lambda values: values[[lane]], record)


def _episode(log: AuditLog, lane: int) -> AuditLog:
    return dataclasses.replace(
        log,
        record=_lane(log.record, lane),
        bars=log.bars[[lane]],
        start_rows=log.start_rows[[lane]],
        symbols=log.symbols[[lane]],
    )


def _agreeing_nudged(episode: AuditLog, twin: StepRecord, step: int) -> StepRecord | None:
    """The twin of one episode, nudged by the rounding of its costs, if that one agrees."""
    capital = episode.config.account.initial_capital
    costs = [getattr(twin, name)[0, : step + 1] for name in FIELDS if name.startswith("cost_")]
    rounding = np.finfo(np.float32).eps * np.abs(costs).sum() / capital
    for nudge in (-rounding, rounding):
        nudged = rederive(episode, nudge=nudge)
        if compare(episode.record, nudged, initial_capital=capital) is None:
            return nudged
    return None
