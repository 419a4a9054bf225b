"""Ledger: what a policy did and earned, by account, by session and by time of day.

Sums are kept on the device while a chunk of accounts plays, so memory does not grow with the number
of steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jules_jax.agent.policy import Policy
from jules_jax.env import fills
from jules_jax.env.metrics import MAXIMUM, step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.record import StepRecord
from jules_jax.env.transition import EnvState, transition
from jules_jax.env.observation import observe
from jules_jax.evaluation import backtest
from jules_jax.evaluation.prices import Chunk
from jules_jax.market.table import read_row

BUCKET_MINUTES = 30
"""Of the time of day that P&L is told by."""
POINTS = 400
"""Of an equity curve that are kept."""
CURVES = 4096
"""Accounts whose equity curves are kept."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Ledger:
    """N accounts of one policy, D sessions of each.

    sums: `[N, D]` float64 by name: those of `env.metrics.step_metrics` and of `measures`, dollars,
    counts and reward units. by_time: `[K]` likewise, of all accounts and sessions, by half hours
    since the open. equity: `[M, P]` of the first M accounts at the steps `points` `[P]`, in units of
    initial capital. final_equity, drawdown (the deepest below the equity's own peak, a share of it):
    `[N]`. liquidation: `[N]` dollars that closing what is held at the end would cost.
    """

    sums: dict[str, Array]
    by_time: dict[str, Array]
    equity: Array
    points: Array
    final_equity: Array
    drawdown: Array
    liquidation: Array

    def totals(self, name: str) -> Array:
        """A sum over each account's whole life, `[N]`."""
        total: Array = self.sums[name].sum(axis=1)
        return total


def measures(record: StepRecord) -> dict[str, jax.Array]:
    """What is summed of a step besides `step_metrics`; won and lost in units of initial capital."""
    voluntary = (record.quantity != 0) & ~record.forced
    return {
        "reward": record.reward,
        "steps": jnp.ones_like(record.reward),
        "trip/closed": record.trip_closed,
        "trip/profitable": record.trip_closed & (record.trip_pnl > 0),
        "trip/won": jnp.where(record.trip_closed, jnp.maximum(record.trip_pnl, 0.0), 0.0),
        "trip/lost": jnp.where(record.trip_closed, jnp.maximum(-record.trip_pnl, 0.0), 0.0),
        "trade/reversals": record.alternation & voluntary,
        "trade/locked_steps": record.locked,
    }


def keep(policy: Policy, policy_params: Any, chunk: Chunk) -> Ledger:
    """Plays every account of a chunk to its end."""
    env_params = make_params(chunk.config, chunk.market)
    starts, slots = chunk.starts, chunk.complete.shape[1]
    times = int(chunk.minute.max()) // BUCKET_MINUTES + 1
    time = (chunk.minute // BUCKET_MINUTES).astype(np.int32)
    slot = chunk.session * times + time
    assert starts.steps is not None
    played = _play(
        policy, policy_params, env_params,
        *map(jnp.asarray, (starts.row, starts.symbol, starts.steps, slot, chunk.before * times)),
        chunk.key, slots * times,
    )  # fmt: skip
    sums, curve, final, deepest, cost = jax.device_get(played)
    shape = len(starts.row), slots, times
    by_slot = {name: each.astype(np.float64).reshape(shape) for name, each in sums.items()}
    points = np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int))
    return Ledger(
        sums={name: each.sum(axis=2) for name, each in by_slot.items()},
        by_time={name: each.sum(axis=(0, 1)) for name, each in by_slot.items()},
        equity=curve[points, :CURVES].T,
        points=points + 1,
        final_equity=final,
        drawdown=deepest,
        liquidation=cost,
    )


def joined(ledgers: Iterable[Ledger]) -> Ledger:
    """The ledger of all accounts, chunk after chunk."""
    parts = list(ledgers)

    def accounts(of: str) -> Array:
        return np.concatenate([getattr(part, of) for part in parts])

    names = parts[0].sums
    return Ledger(
        sums={name: np.concatenate([part.sums[name] for part in parts]) for name in names},
        by_time={name: np.sum([part.by_time[name] for part in parts], axis=0) for name in names},
        equity=accounts("equity")[:CURVES],
        points=parts[0].points,
        final_equity=accounts("final_equity"),
        drawdown=accounts("drawdown"),
        liquidation=accounts("liquidation"),
    )


@partial(jax.jit, static_argnums=(0, 9))
def _play(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    steps: jax.Array,
    slot: jax.Array,
    before: jax.Array,
    key: jax.Array,
    slots: int,
) -> tuple[Any, ...]:
    """Sums `[N, slots]` by name, equity `[T, N]`, and what is left at the end, `[N]` each.

    slot `[R]` is where a table row's step is summed, counted from `before` `[N]`.
    """
    lanes, table = rows.shape[0], env_params.market.rows
    lane = jnp.arange(lanes)

    def step(state: EnvState, action: jax.Array) -> tuple[Any, ...]:
        row = read_row(table, state.row + 1)
        state, record = transition(state, row, action, env_params)
        measured = {**step_metrics(record), **measures(record)}
        kept = {name: value for name, value in measured.items() if not name.endswith(MAXIMUM)}
        return state, observe(state, row, env_params), record.terminated, record.equity, kept

    def body(loop: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        state, obs, first, carry, over, sums, (equity, peak, deepest) = loop
        keys = jax.random.split(jax.random.fold_in(key, t), lanes)
        carry, action = policy.act(policy_params, keys, carry, obs, first)
        now, obs, terminated, worth, measured = jax.vmap(step)(state, action)
        values = jnp.stack([measured[name].astype(jnp.float32) for name in sorted(measured)], -1)
        where = jnp.clip(slot[now.row] - before, 0, slots - 1)
        sums = sums.at[lane, where].add(jnp.where(over[:, None], 0.0, values))
        equity = jnp.where(over, equity, worth)
        peak = jnp.maximum(peak, equity)
        deepest = jnp.maximum(deepest, (peak - equity) / peak)
        state = jax.tree.map(lambda a, b: jnp.where(over, a, b), state, now)
        over = over | terminated | (t + 1 >= steps)
        loop = state, obs, jnp.zeros_like(first), carry, over, sums, (equity, peak, deepest)
        return loop, equity

    states, obs = backtest.begin(rows, symbols, env_params)
    shapes = jax.eval_shape(jax.vmap(step), states, jnp.zeros(lanes, jnp.int32))[4]
    names = sorted(shapes)
    sums = jnp.zeros((lanes, slots, len(names)), jnp.float32)
    no, one = jnp.zeros(lanes, bool), jnp.ones(lanes, jnp.float32)
    carry = policy.initial_carry(policy_params, lanes)
    loop = (states, obs, ~no, carry, no, sums, (one, one, jnp.zeros_like(one)))
    loop, curve = lax.scan(body, loop, jnp.arange(env_params.max_steps_in_episode))
    states, *_, sums, (equity, _, deepest) = loop
    cost = jax.vmap(partial(_liquidation, env_params=env_params))(states)
    by_name = {name: sums[:, :, place] for place, name in enumerate(names)}
    return by_name, curve, equity, deepest, cost


def _liquidation(state: EnvState, env_params: EnvParams) -> jax.Array:
    """Dollars that trading what is held at the last close would cost, on the book as it stands."""
    row = read_row(env_params.market.rows, state.row)
    held = state.holding.position.astype(jnp.float32) * row.quantity_step
    market = fills.liquidity(row, row.close, env_params.fills)
    costs = fills.trade_costs(
        -held, held, row.close, market, state.book, state.kyle_lambda, env_params.fills
    )
    return jnp.where(held != 0, costs.total(), 0.0)
