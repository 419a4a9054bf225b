"""Backtest: whole episodes of a policy, all lanes at once, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jules_jax.agent.policy import Policy
from jules_jax.env.episodes import advance
from jules_jax.env.metrics import accumulate, step_metrics
from jules_jax.env.observation import observe
from jules_jax.env.params import EnvParams
from jules_jax.env.record import StepRecord
from jules_jax.env.transition import EnvState, initial_state
from jules_jax.market.table import read_row

Measure = Callable[[StepRecord], dict[str, jax.Array]]
"""What an episode gathers of a step: float32 scalars by name, see `env.metrics.step_metrics`."""


@dataclass(frozen=True)
class Starts:
    """Where episodes begin: `row`, `symbol` and `cluster`, `[N]` int32 each.

    Episodes of one cluster see the same prices (in part), so they count as one observation in
    standard errors. steps: `[N]` int32, how long each lasts; None: as long as the environment says.
    """

    row: np.ndarray
    symbol: np.ndarray
    cluster: np.ndarray
    steps: np.ndarray | None = None

    def some(self, chosen: Any) -> Starts:
        """Those that an index of an array `[N]` chooses."""
        steps = None if self.steps is None else self.steps[chosen]
        return Starts(self.row[chosen], self.symbol[chosen], self.cluster[chosen], steps)


def one_per_stretch(episodes: np.ndarray, count: int, seed: int | Sequence[int]) -> Starts:
    """`count` episodes, going round the stretches `[I, 3]`, each at a uniform start in its own."""
    stretch = np.arange(count) % len(episodes)
    symbol, first, last = episodes[stretch].T
    draws = np.random.default_rng(seed).random(count)
    row = first + np.floor(draws * (last - first + 1)).astype(np.int64)
    return Starts(row.astype(np.int32), symbol.astype(np.int32), stretch.astype(np.int32))


def without_overlap(episodes: np.ndarray, count: int, max_steps: int) -> Starts:
    """Episodes one after the other in every stretch, repeated (other draws) until `count`.

    On recorded bars there are only so many episodes that share no bar; each is a cluster, played
    equally often, at least `count` times in all.
    """
    pairs = [
        (row, symbol)
        for symbol, first, last in episodes
        for row in range(int(first), int(last) + 1, max_steps + 1)
    ]
    rounds = -(-count // len(pairs))
    cluster = np.arange(rounds * len(pairs)) % len(pairs)
    row, symbol = np.asarray(pairs, np.int32)[cluster].T
    return Starts(row, symbol, cluster.astype(np.int32))


def run_episodes(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    starts: Starts,
    key: jax.Array,
    *,
    measure: Measure = step_metrics,
) -> dict[str, np.ndarray]:
    """Plays one episode from every start; returns `[N]` arrays by name.

    `reward`, `length`, `max_drawdown`, `final_equity` and what the episode gathers of `measure`.
    Steps after a termination count for nothing.
    """
    rows, symbols = jnp.asarray(starts.row), jnp.asarray(starts.symbol)
    totals = _run(policy, policy_params, env_params, rows, symbols, key, measure)
    return {name: np.asarray(values) for name, values in totals.items()}


def run_numbers(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    starts: Starts,
    key: jax.Array,
    numbers: Mapping[str, Sequence[float]],
    *,
    measure: Measure = step_metrics,
) -> dict[str, np.ndarray]:
    """`run_episodes` under K values of numbers of the environment at once: `[K, N]` by name.

    numbers: K values each by dotted key, such as `account.initial_capital`. All are one compiled
    program, and see the same prices and draws.
    """
    rows, symbols = jnp.asarray(starts.row), jnp.asarray(starts.symbol)
    points = {name: jnp.asarray(values, jnp.float32) for name, values in numbers.items()}
    totals = _run_numbers(policy, policy_params, env_params, rows, symbols, key, points, measure)
    return {name: np.asarray(values) for name, values in totals.items()}


@partial(jax.jit, static_argnames=("policy", "measure"))
def _run_numbers(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    key: jax.Array,
    points: dict[str, jax.Array],
    measure: Measure,
) -> dict[str, jax.Array]:
    def at(point: dict[str, jax.Array]) -> dict[str, jax.Array]:
        under = env_params.with_numbers(point)
        sums: dict[str, jax.Array] = _run(policy, policy_params, under, rows, symbols, key, measure)
        return sums

    played: dict[str, jax.Array] = jax.vmap(at)(points)
    return played


@partial(jax.jit, static_argnames=("policy", "measure"))
def _run(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    key: jax.Array,
    measure: Measure,
) -> dict[str, jax.Array]:
    def measured(record: StepRecord) -> dict[str, jax.Array]:
        return {"reward": record.reward, "length": jnp.ones_like(record.reward), **measure(record)}

    def keep(kept: Any, step: Step) -> tuple[Any, None]:
        over, sums, deepest, equity = kept
        now = measured(step.record)
        sums = accumulate(sums, {name: jnp.where(over, 0.0, value) for name, value in now.items()})
        deepest = jnp.where(over, deepest, jnp.maximum(deepest, step.record.drawdown))
        equity = jnp.where(over, equity, step.record.equity)
        return (over | step.record.terminated, sums, deepest, equity), None

    names = jax.eval_shape(measured, record_shapes(rows, symbols, env_params))
    zero = jnp.zeros(rows.shape[0], jnp.float32)
    kept = (zero > 0, dict.fromkeys(names, zero), zero, jnp.ones_like(zero))
    kept, _ = fold(policy, policy_params, env_params, rows, symbols, key, keep, kept)
    _, sums, deepest, equity = kept
    return {**sums, "max_drawdown": deepest, "final_equity": equity}


class Step(NamedTuple):
    """One step of N lanes: what was decided on, and what came of it, `[N, ...]` each."""

    carry: Any  # of the policy, before it looks
    obs: jax.Array
    first: jax.Array
    state: EnvState  # after the step
    record: StepRecord


def fold(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    key: jax.Array,
    keep: Callable[[Any, Step], tuple[Any, Any]],
    kept: Any,
    *,
    lane: jax.Array | None = None,
    of: int = 0,
) -> tuple[Any, Any]:
    """One episode from each of `rows` `[N]`, as part of a program; `keep(kept, step)` looks on.

    Returns what is kept at last, and what `keep` gave of every step, `[T, ...]`. Whoever looks on,
    the same policy, starts and key are the same episodes. Lanes whose episode has ended go on:
    it is for `keep` to leave that out. Where these are some lanes of more that play apart, `lane`
    `[N]` says which of how many: they draw what they draw among them all.
    """
    lanes = rows.shape[0]

    def body(loop: Any, t: jax.Array) -> tuple[Any, Any]:
        state, obs, first, carry, kept = loop
        keys = jax.random.split(jax.random.fold_in(key, t), of or lanes)
        keys = keys if lane is None else keys[lane]
        after, action = policy.act(policy_params, keys, carry, obs, first)
        state, following, record = jax.vmap(partial(_advance, env_params=env_params))(state, action)
        kept, given = keep(kept, Step(carry, obs, first, state, record))
        return (state, following, jnp.zeros_like(first), after, kept), given

    states, obs = begin(rows, symbols, env_params)
    carry = policy.initial_carry(policy_params, lanes)
    loop = (states, obs, jnp.ones(lanes, bool), carry, kept)
    loop, given = lax.scan(body, loop, jnp.arange(env_params.max_steps_in_episode))
    return loop[-1], given


def _advance(
    state: EnvState, action: jax.Array, env_params: EnvParams
) -> tuple[EnvState, jax.Array, StepRecord]:
    obs, state, _, _, info = advance(state, action, env_params)
    return state, obs, info["record"]


def record_shapes(rows: jax.Array, symbols: jax.Array, env_params: EnvParams) -> StepRecord:
    """Shapes and types of the records `[N]` of a step."""

    def first_step(rows: jax.Array, symbols: jax.Array) -> StepRecord:
        states, _ = begin(rows, symbols, env_params)
        actions = jnp.zeros(rows.shape, jnp.int32)
        return jax.vmap(partial(_advance, env_params=env_params))(states, actions)[2]

    shapes: StepRecord = jax.eval_shape(first_step, rows, symbols)
    return shapes


def begin(rows: jax.Array, symbols: jax.Array, env_params: EnvParams) -> tuple[EnvState, jax.Array]:
    """States and observations `[N]` of episodes that begin at `rows`."""

    def start(row_index: jax.Array, symbol: jax.Array) -> tuple[EnvState, jax.Array]:
        row = read_row(env_params.market.rows, row_index)
        state = initial_state(row, row_index, symbol, env_params)
        return state, observe(state, row, env_params)

    begun: tuple[EnvState, jax.Array] = jax.vmap(start)(rows, symbols)
    return begun


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepLog:
    """What is read of every step of whole episodes, `[N, T]` each; see `StepRecord`.

    Money is in reward units but for the P&L, in dollars; penalties are 0 or less. Equity, its
    peak and trough are in units of initial capital.
    """

    played: jax.Array  # bool: a step of the episode, not after its end
    reward: jax.Array
    equity_change: jax.Array
    action_change: jax.Array
    same_action: jax.Array
    drawdown: jax.Array
    gross_pnl: jax.Array
    net_pnl: jax.Array
    equity: jax.Array
    equity_peak: jax.Array
    trough: jax.Array
    exposed: jax.Array  # bool: ends with a position
    hard_breach: jax.Array  # bool
    escaped: jax.Array  # bool
    matters: jax.Array  # bool: what was asked for could have an effect
    entropy: jax.Array  # nats, of what the action was drawn from
    minute: jax.Array  # of the session, of the bar executed in


def step_log(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    key: jax.Array,
) -> StepLog:
    """Every step of one episode from each of `rows` `[N]`, as part of a program.

    For the same policy, starts and key these are the episodes of `run_episodes`.
    """
    none = jnp.zeros(rows.shape[0], jnp.float32)

    def keep(over: jax.Array, step: Step) -> tuple[jax.Array, StepLog]:
        entropy = none
        if policy.entropy is not None:
            entropy = policy.entropy(policy_params, step.carry, step.obs, step.first)
        minute = read_row(env_params.market.rows, step.state.row).minute
        log = _read(step.record, ~over, entropy, minute)
        return over | step.record.terminated, log

    _, log = fold(policy, policy_params, env_params, rows, symbols, key, keep, none > 0)
    by_lane: StepLog = jax.tree.map(lambda values: values.swapaxes(0, 1), log)
    return by_lane


def _read(record: StepRecord, played: jax.Array, entropy: jax.Array, minute: jax.Array) -> StepLog:
    return StepLog(
        played=played,
        reward=record.reward,
        equity_change=record.reward_equity_change,
        action_change=record.reward_action_change,
        same_action=record.reward_same_action,
        drawdown=record.reward_drawdown,
        gross_pnl=record.price_pnl,
        net_pnl=record.net_pnl,
        equity=record.equity,
        equity_peak=record.equity_peak,
        trough=record.trough,
        exposed=record.position != 0,
        hard_breach=record.hard_breach,
        escaped=record.escaped,
        matters=record.action_matters & (record.volume > 0),
        entropy=entropy,
        minute=minute,
    )


def mean_and_error(values: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """Mean of the clusters' means, and its standard error.

    The error is NaN with fewer than two clusters.
    """
    _, index = np.unique(cluster, return_inverse=True)
    means = np.bincount(index, values) / np.bincount(index)
    error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
    return float(means.mean()), float(error)
