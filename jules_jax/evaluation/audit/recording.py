"""Recording: whole episodes of a policy with everything an audit keeps of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jules_jax.agent.policy import Policy
from jules_jax.config import Config
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.record import StepRecord
from jules_jax.evaluation.audit.columns import FIELDS, Array
from jules_jax.evaluation.audit.writing import Writer, is_live
from jules_jax.evaluation.backtest import Starts, Step, fold
from jules_jax.market.table import MarketData

CHUNK_STEPS = 2**18
"""Steps that are played at a time, at most: some hundred MiB of records."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Played:
    """N episodes, `[N, T, …]`; steps after a termination included.

    logits, values: None where the policy does not `judge`.
    """

    record: StepRecord
    observations: jax.Array  # [N, T, 12]
    logits: jax.Array | None  # [N, T, 3]
    values: jax.Array | None


def script() -> Policy:
    """The policy that plays a list of actions: its parameters, `[N, T]` int32."""

    def act(
        actions: jax.Array, keys: jax.Array, t: jax.Array, obs: jax.Array, first: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del keys, obs, first
        return t + 1, actions[:, t]

    return Policy("script", lambda actions, lanes: jnp.int32(0), act)


def play(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    starts: Starts,
    key: jax.Array,
    *,
    lane: Array | None = None,
    of: int = 0,
) -> Played:
    """One episode from every start; of steps after its own `starts.steps` the `time` is 0.

    For the same policy, starts and key these are the episodes of `backtest.run_episodes`; `lane`
    and `of` are those of `backtest.fold`.
    """
    rows, symbols = jnp.asarray(starts.row), jnp.asarray(starts.symbol)
    some = jnp.arange(len(rows)) if lane is None else jnp.asarray(lane)
    played: Played = _play(
        policy, policy_params, env_params, rows, symbols, key, some, of or len(rows)
    )
    return until(played, starts)


def until(played: Played, starts: Starts) -> Played:
    """The episodes with a `time` of 0 in what comes after each one's own `starts.steps`."""
    if starts.steps is None:
        return played
    time = jnp.where(played.record.time <= starts.steps[:, None], played.record.time, 0)
    return replace(played, record=replace(played.record, time=time))


def seen(policy: Policy, policy_params: Any, step: Step) -> Played:
    """What is kept of a step `[N, …]`."""
    logits = values = None
    if policy.judge is not None:
        logits, values = policy.judge(policy_params, step.carry, step.obs, step.first)
    return Played(step.record, step.obs, logits, values)


def by_lane(played: Played) -> Played:
    """From `[T, N, …]` to `[N, T, …]`."""
    swapped: Played = jax.tree.map(lambda values: values.swapaxes(0, 1), played)
    return swapped


@partial(jax.jit, static_argnums=(0, 7))
def _play(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    key: jax.Array,
    lane: jax.Array,
    of: int,
) -> Played:
    def keep(kept: None, step: Step) -> tuple[None, Played]:
        return kept, seen(policy, policy_params, step)

    _, played = fold(
        policy, policy_params, env_params, rows, symbols, key, keep, None, lane=lane, of=of
    )
    return by_lane(played)


def whole(record: StepRecord) -> StepRecord:
    """Records `[N, T]` as NumPy arrays, zeros in all fields of all steps after a termination."""
    arrays = {name: np.asarray(getattr(record, name)) for name in FIELDS}
    live = is_live(arrays["time"], arrays["terminated"])
    fields: dict[str, Any] = {
        name: np.where(live, values, values.dtype.type(0)) for name, values in arrays.items()
    }
    return StepRecord(**fields)


def read_bars(market: MarketData, start_rows: Array, steps: int) -> jax.Array:
    """The table rows that episodes read, `[N, T + 1, C]`, the start row first."""
    last = market.rows.shape[0] - 1  # of an episode that ends early, rows after its end
    index = np.minimum(np.asarray(start_rows)[:, None] + np.arange(steps + 1), last)
    return market.rows[jnp.asarray(index)]


def record_episodes(
    writer: Writer,
    policy: Policy,
    policy_params: Any,
    config: Config,
    market: MarketData,
    starts: Starts,
    key: jax.Array,
    *,
    times: Array | None = None,
    progress: float = 1.0,
    trained: bool = True,
    chunk: int | None = None,
) -> Played:
    """Plays one episode from every start, a chunk at a time, and adds them all to an audit.

    Memory is bounded by the chunk: `chunk` episodes, by default as many as make `CHUNK_STEPS`.
    However they are divided, they are the episodes of `backtest.run_episodes`. A bar on a terminal
    shows how far it is. Returns those of the first chunk.

    Args:
      writer: of an audit whose facts' config is `config.at(progress)`.
      policy: what decides; `policy_params` are its own.
      policy_params: of the policy.
      config: of the environment; schedules are read at `progress`.
      market: what is played on.
      starts: where.
      key: of the draws.
      times: `[R]` int64, UTC nanoseconds at which the table's bars begin; None: there are none.
      progress: share of training done.
      trained: whether the weights of the audit's checkpoint decide.
      chunk: episodes played at a time; where there are fewer, some are played twice and left out,
        so that all calls of one size share a compiled program.
    """
    env_params = make_params(config, market, progress=progress)
    count = len(starts.row)
    chunk = chunk or min(chunk_of(config), count)
    shown: Played | None = None
    with tqdm(
        total=count, desc=f"audit of {policy.name}", unit=" episodes", leave=False, disable=None
    ) as bar:
        for first in range(0, count, chunk):
            some = slice(first, min(first + chunk, count))
            index = np.minimum(np.arange(first, first + chunk), count - 1)
            filled = starts.some(index)
            of = chunk * -(-count // chunk)
            played = play(policy, policy_params, env_params, filled, key, lane=index, of=of)
            kept: Played = jax.tree.map(lambda leaf, n=some.stop - first: leaf[:n], played)
            add(
                writer, kept, policy.name, market, starts.row[some], starts.symbol[some],
                times=times, progress=progress, trained=trained,
            )  # fmt: skip
            bar.update(some.stop - first)
            shown = shown or kept
    assert shown is not None, "there is a start"
    return shown


def chunk_of(config: Config) -> int:
    """Episodes that make `CHUNK_STEPS`, at least one."""
    return max(CHUNK_STEPS // config.max_steps_in_episode, 1)


def add(
    writer: Writer,
    played: Played,
    policy: str,
    market: MarketData,
    start_rows: Array,
    symbols: Array,
    *,
    times: Array | None = None,
    progress: float = 1.0,
    trained: bool = True,
) -> None:
    """Adds episodes that were played on `market` to an audit; arguments as of `record_episodes`."""
    steps = played.observations.shape[1]
    timestamps = None
    if times is not None:
        rows = np.asarray(start_rows)[:, None] + np.arange(steps + 1)
        timestamps = np.asarray(times, np.int64)[np.minimum(rows, len(times) - 1)]
    writer.add_episodes(
        played.record,
        policy=policy,
        bars=read_bars(market, start_rows, steps),
        observations=played.observations,
        logits=played.logits,
        values=played.values,
        timestamps=timestamps,
        start_rows=np.asarray(start_rows),
        symbols=np.asarray(symbols),
        progress=progress,
        trained=trained,
    )


def lanes_of(asked: float, available: int) -> int:
    """How many of those there are an audit keeps: below 1 a share, rounded up, else a number."""
    if asked <= 0:
        return 0
    wanted = math.ceil(asked * available) if asked < 1 else int(asked)
    return min(wanted, available)
