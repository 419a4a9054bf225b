"""Ledger: what a policy did and earned, by account, by session and by time of day.

Sums are kept on the device while a chunk of accounts plays, so memory does not grow with the number
of steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jules_jax.agent.policy import Policy
from jules_jax.env import fills
from jules_jax.env.metrics import MAXIMUM, step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.record import StepRecord
from jules_jax.env.transition import EnvState
from jules_jax.evaluation import backtest
from jules_jax.evaluation.audit import recording
from jules_jax.evaluation.audit.recording import Played
from jules_jax.evaluation.backtest import Step
from jules_jax.evaluation.prices import Chunk
from jules_jax.market.table import read_row

BUCKET_MINUTES = 30
"""Of the time of day that P&L is told by."""
POINTS = 400
"""Of an equity curve that are kept."""
CURVES = 4096
"""Accounts whose equity curves are kept."""

NET = "pnl/net"

Array = NDArray[Any]
Record = Callable[[int, Played], None]
"""Told the place of a policy among those that play, and every step of its accounts, `[N, T, …]`."""


@dataclass(frozen=True)
class Ledger:
    """N accounts of one policy, D sessions of each.

    sums: `[N, D]` float64 by name, or `[N, 1]` of the whole life where `keep` was not asked for
    sessions, but for the net P&L: those of `env.metrics.step_metrics` and of `measures`, dollars,
    counts and reward units. by_time: `[K]` likewise, of all accounts and sessions, by half hours
    since the open. equity: `[M, P]` of the first M accounts at the steps `points` `[P]`, in units
    of initial capital. final_equity, drawdown (the deepest below the equity's own peak, a share of
    it): `[N]`. liquidation: `[N]` dollars that closing what is held at the end would cost.
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


def keep(
    policies: Sequence[Policy],
    policies_params: Sequence[Any],
    chunk: Chunk,
    *,
    sessions_apart: bool = True,
    curves: int = CURVES,
    record: Record | None = None,
) -> list[Ledger]:
    """Plays every account of a chunk to its end: each policy's, side by side in one program.

    sessions_apart: whether all sums are kept by session, not the net P&L's alone. curves: accounts
    whose equity curve is kept, at most. record: for who wants every step, too: memory for them all
    is then needed.
    """
    env_params = make_params(chunk.config, chunk.market)
    starts, (count, sessions) = chunk.starts, chunk.complete.shape
    times = int(chunk.minute.max()) // BUCKET_MINUTES + 1
    slot = chunk.session * times + (chunk.minute // BUCKET_MINUTES).astype(np.int32)
    assert starts.steps is not None
    lanes = (starts.row, starts.symbol, starts.steps, chunk.before * times)
    played = _play(
        beside(tuple(policies)), tuple(policies_params), env_params,
        *(jnp.asarray(np.tile(values, len(policies))) for values in lanes),
        jnp.asarray(slot), chunk.key, sessions * times, record is not None,
    )  # fmt: skip
    *played, steps = played
    sums, curve, *ends = jax.device_get(played)
    points = np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int))
    ledgers = []
    for place in range(len(policies)):
        own = slice(place * count, (place + 1) * count)
        if record:
            every = jax.tree.map(lambda leaf, own=own: leaf[own], steps)
            record(place, recording.until(every, starts))
        by_slot = {
            name: each[own].astype(np.float64).reshape(count, sessions, times)
            for name, each in sums.items()
        }
        ledgers.append(
            Ledger(
                {
                    name: each.sum(axis=2 if sessions_apart or name == NET else (1, 2)).reshape(
                        count, -1
                    )
                    for name, each in by_slot.items()
                },
                {name: each.sum(axis=(0, 1)) for name, each in by_slot.items()},
                curve[points, own][:, :curves].T,
                points + 1,
                *(each[own] for each in ends),
            )
        )
    return ledgers


@cache
def beside(policies: tuple[Policy, ...]) -> Policy:
    """K policies as one of K · N lanes, of which each acts in its own N, one after the other.

    Their parameters are a tuple. What is left to chance is drawn alike for all: each plays as it
    does alone. It is the same object for the same policies, so it compiles once.
    """

    def initial_carry(params: tuple[Any, ...], lanes: int) -> tuple[Any, ...]:
        own = lanes // len(policies)
        return tuple(
            each.initial_carry(one, own) for each, one in zip(policies, params, strict=True)
        )

    def apart(obs: jax.Array, first: jax.Array) -> Iterator[tuple[jax.Array, ...]]:
        return zip(*(jnp.split(each, len(policies)) for each in (obs, first)), strict=True)

    def act(
        params: tuple[Any, ...], keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        own_keys = keys[: len(keys) // len(policies)]  # those of as many lanes, see `split`
        acted = [
            each.act(one, own_keys, own_carry, *seen)
            for each, one, own_carry, seen in zip(
                policies, params, carry, apart(obs, first), strict=True
            )
        ]
        return tuple(own for own, _ in acted), jnp.concatenate([action for _, action in acted])

    def judge(
        params: tuple[Any, ...], carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        thought = [
            each.judge(one, own_carry, *seen)
            for each, one, own_carry, seen in zip(
                policies, params, carry, apart(obs, first), strict=True
            )
            if each.judge is not None
        ]
        logits, values = (jnp.concatenate(part) for part in zip(*thought, strict=True))
        return logits, values

    think = all(each.judge is not None for each in policies)
    name = ", ".join(each.name for each in policies)
    return Policy(name, initial_carry, act, judge=judge if think else None)


def joined(ledgers: Iterable[Ledger]) -> Ledger:
    """The ledger of all accounts, chunk after chunk."""
    parts = list(ledgers)

    def accounts(of: str) -> Array:
        return np.concatenate([getattr(part, of) for part in parts])

    names = parts[0].sums
    return Ledger(
        sums={name: np.concatenate([part.sums[name] for part in parts]) for name in names},
        by_time={name: np.sum([part.by_time[name] for part in parts], axis=0) for name in names},
        equity=accounts("equity"),
        points=parts[0].points,
        final_equity=accounts("final_equity"),
        drawdown=accounts("drawdown"),
        liquidation=accounts("liquidation"),
    )


def in_sequence(ledgers: Sequence[Ledger], rows: Sequence[Array]) -> Ledger:
    """The ledger of N accounts that go on from one ledger to the next: sums beside one another.

    rows: `[N]` int of each ledger, the account of it that one of the N is; −1: none, and it moves
    nothing meanwhile. Nothing is compounded: every ledger begins with the same capital, and equity
    is 1 + the sum of changes. A drawdown is the deepest of each ledger's own, step by step, and of
    the curve of them all at its points.
    """
    parts = [_of_rows(*pair) for pair in zip(ledgers, rows, strict=True)]
    known = np.all(
        [own < len(each.equity) for each, own in zip(ledgers, rows, strict=True)], axis=0
    )
    offsets = np.cumsum([0, *(each.points[-1] for each in parts)])
    grown = np.cumsum([each.final_equity - 1.0 for each in parts], axis=0)
    curves = [parts[0].equity[known]]
    for before, each in zip(grown[:-1], parts[1:], strict=True):
        curves.append(each.equity[known] + before[known, None])
    curve = np.concatenate(curves, axis=1)
    steps = np.concatenate([
        each.points + offset for each, offset in zip(parts, offsets[:-1], strict=True)
    ])  # fmt: skip
    deepest = np.max([each.drawdown for each in parts], axis=0)
    peak = np.maximum(np.maximum.accumulate(curve, axis=1), 1.0)
    deepest[known] = np.maximum(deepest[known], ((peak - curve) / peak).max(axis=1))
    some = np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(int))
    first = parts[0]
    return Ledger(
        sums={name: np.concatenate([each.sums[name] for each in parts], 1) for name in first.sums},
        by_time={name: _added([each.by_time[name] for each in parts]) for name in first.by_time},
        equity=curve[:, some],
        points=steps[some],
        final_equity=1.0 + grown[-1],
        drawdown=deepest,
        liquidation=np.sum([each.liquidation for each in parts], axis=0),
    )


def _of_rows(ledger: Ledger, rows: Array) -> Ledger:
    """Accounts of a ledger in another order; those of row −1 have moved nothing."""
    there = rows >= 0

    def of(values: Array, otherwise: float) -> Array:
        chosen = values[np.minimum(rows, len(values) - 1)].astype(np.float64)
        chosen[~there] = otherwise
        return chosen

    return Ledger(
        sums={name: of(each, 0.0) for name, each in ledger.sums.items()},
        by_time=ledger.by_time,
        equity=of(ledger.equity, 1.0),
        points=ledger.points,
        final_equity=of(ledger.final_equity, 1.0),
        drawdown=of(ledger.drawdown, 0.0),
        liquidation=of(ledger.liquidation, 0.0),
    )


def _added(parts: Sequence[Array]) -> Array:
    """The sum of lists that may differ in length, of which the shorter end in zeros."""
    return np.array([sum(each) for each in itertools.zip_longest(*parts, fillvalue=0.0)])


@partial(jax.jit, static_argnums=(0, 9, 10))
def _play(
    policy: Policy,
    policy_params: Any,
    env_params: EnvParams,
    rows: jax.Array,
    symbols: jax.Array,
    steps: jax.Array,
    before: jax.Array,
    slot: jax.Array,
    key: jax.Array,
    slots: int,
    recorded: bool,
) -> tuple[Any, ...]:
    """Sums `[N, slots]` by name, equity `[T, N]`, what is left at the end, `[N]` each, and, where
    they are `recorded`, all steps.

    slot `[R]` is where a table row's step is summed, counted from `before` `[N]`.
    """
    lanes = rows.shape[0]
    lane = jnp.arange(lanes)

    def measured(record: StepRecord) -> dict[str, jax.Array]:
        every = {**step_metrics(record), **measures(record)}
        return {name: value for name, value in every.items() if not name.endswith(MAXIMUM)}

    names = sorted(jax.eval_shape(measured, backtest.record_shapes(rows, symbols, env_params)))

    def keep(kept: Any, step: Step) -> tuple[Any, Any]:
        over, state, sums, equity, peak, deepest = kept
        now = measured(step.record)
        values = jnp.stack([now[name].astype(jnp.float32) for name in names], -1)
        where = jnp.clip(slot[step.state.row] - before, 0, slots - 1)
        sums = sums.at[lane, where].add(jnp.where(over[:, None], 0.0, values))
        equity = jnp.where(over, equity, step.record.equity)
        peak = jnp.maximum(peak, equity)
        deepest = jnp.maximum(deepest, (peak - equity) / peak)
        state = jax.tree.map(lambda a, b: jnp.where(over, a, b), state, step.state)
        over = over | step.record.terminated | (step.record.time >= steps)
        every = recording.seen(policy, policy_params, step) if recorded else None
        return (over, state, sums, equity, peak, deepest), (equity, every)

    states, _ = backtest.begin(rows, symbols, env_params)
    sums = jnp.zeros((lanes, slots, len(names)), jnp.float32)
    no, one = jnp.zeros(lanes, bool), jnp.ones(lanes, jnp.float32)
    kept, (curve, every) = backtest.fold(
        policy, policy_params, env_params, rows, symbols, key, keep,
        (no, states, sums, one, one, jnp.zeros_like(one)),
    )  # fmt: skip
    _, states, sums, equity, _, deepest = kept
    cost = jax.vmap(partial(_liquidation, env_params=env_params))(states)
    by_name = {name: sums[:, :, place] for place, name in enumerate(names)}
    return by_name, curve, equity, deepest, cost, recording.by_lane(every)


def _liquidation(state: EnvState, env_params: EnvParams) -> jax.Array:
    """Dollars that trading what is held at the last close would cost, on the book as it stands."""
    row = read_row(env_params.market.rows, state.row)
    held = state.holding.position.astype(jnp.float32) * row.quantity_step
    market = fills.liquidity(row, row.close, env_params.fills)
    costs = fills.trade_costs(
        -held, held, row.close, market, state.book, state.kyle_lambda, env_params.fills
    )
    return jnp.where(held != 0, costs.total(), 0.0)
