"""Hand-made markets, and scripts of actions played in them.

`market` makes table rows `[B, C]` in NumPy from the columns that a test cares about; `play` takes
actions through `transition` in a compiled scan. Scripts are padded to whole blocks of lanes and
steps, so that all share one program per set of counts and switches (floats are leaves). Programs
are slow to compile: tests make do with those of the default `Safeguards`, `NIMBLE` and `STRICT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.config import Account, Fills, Reward, Safeguards
from jules_jax.env.observation import observe
from jules_jax.env.params import EnvParams, cast_section
from jules_jax.env.record import StepRecord
from jules_jax.env.transition import EnvState, initial_state, transition
from jules_jax.market.table import (
    NEVER_CLOSES,
    NUM_COLUMNS,
    NUM_MARKET_ENTRIES,
    MarketData,
    Row,
    read_row,
)

SELL, HOLD, BUY = 0, 1, 2
LANES, CHUNK = 32, 128

FREE = Fills(
    bid_ask_spread_bps=0.0,
    fee_bps=0.0,
    sell_fee_bps=0.0,
    temporary_impact=0.0,
    impact_prefactor=0.0,
    max_participation=1.0,
)
"""Fills that cost nothing."""
NIMBLE = Safeguards(trade_cooldown_steps=1, lock_minutes=20)
"""An order a bar, and a short entry lock on 24/7 calendars."""
STRICT = replace(NIMBLE, terminate_on_hard=True)
"""The same, and a hard breach ends the episode; tests with it have ladders of three lots."""
ALL_IN = Account(position_size_pct=1.0, max_position_size_pct=1.0, min_cash_reserve_pct=0.0)
"""A lot is all of the equity: 500 shares at 100 dollars."""

CALM = {
    "volume": 1e7,
    "sigma_before": 1e-3,
    "sigma": 1e-3,
    "adv_before": 2e6,
    "expected_volume": 5e3,
    "sigma_long_before": 1e-3,
    "minutes_left": NEVER_CLOSES,
    "quantity_step": 1.0,
    "bars_per_session": 400.0,
}
"""A 24/7 market of unlimited volume, in which a session's sd is 2 %; other columns are 0."""
SCALARS = Row._fields[:-1]


def market(closes: Sequence[float] | np.ndarray, **columns: Any) -> np.ndarray:
    """Rows `[B, C]`; a bar opens where the last one closed, unless `open` says otherwise."""
    close = np.asarray(closes, np.float64)
    previous = np.concatenate([close[:1], close[:-1]])
    values = {**CALM, "open": previous, "close": close, "previous_close": previous, **columns}
    scalars = [np.broadcast_to(values.get(name, 0.0), close.shape) for name in SCALARS]
    entries = np.zeros((close.size, NUM_MARKET_ENTRIES))
    return np.column_stack([*scalars, entries]).astype(np.float32)


def sessions(bars: int, length: int, first: int = 0) -> dict[str, np.ndarray]:
    """Columns of sessions of `length` one-minute bars; row 0 is bar `first` of its session."""
    slot = (first + np.arange(bars)) % length
    return {
        "minute": slot,
        "minutes_left": length - slot,
        "session_open": slot == 0,
        "session_close": slot == length - 1,
    }


def script(steps: int, orders: dict[int, int]) -> np.ndarray:
    """Actions `[steps]`: HOLD but for the `orders` by step."""
    actions = np.full(steps, HOLD)
    for step, action in orders.items():
        actions[step] = action
    return actions


@jax.jit
def _begin(rows: jax.Array, params: EnvParams) -> tuple[EnvState, jax.Array]:
    """States on the rows `[N, C]`, and their observations `[N, 12]`."""

    def lane(values: jax.Array) -> tuple[EnvState, jax.Array]:
        row = read_row(values[None], jnp.int32(0))
        state = initial_state(row, jnp.int32(0), jnp.int32(0), params)
        return state, observe(state, row, params)

    return jax.vmap(lane)(rows)


@jax.jit
def _run(
    state: EnvState, rows: jax.Array, actions: jax.Array, params: EnvParams
) -> tuple[EnvState, tuple[StepRecord, jax.Array]]:
    """A chunk of steps: rows `[N, CHUNK, C]`, actions `[N, CHUNK]`."""

    def step(state: EnvState, inputs: tuple[jax.Array, jax.Array]) -> Any:
        values, action = inputs
        row = read_row(values[None], jnp.int32(0))
        state, record = transition(state, row, action, params)
        return state, (record, observe(state, row, params))

    return jax.vmap(lambda *lane: jax.lax.scan(step, lane[0], lane[1:]))(state, rows, actions)


def play_lanes(
    rows: np.ndarray, actions: np.ndarray, **sections: Any
) -> tuple[StepRecord, np.ndarray]:
    """Record `[N, T]` and observations `[N, T+1, 12]` of `actions` `[N, T]`, as NumPy arrays.

    `rows` is `[N, T+1, C]`, or `[T+1, C]` for all lanes: an episode starts on the first row and
    action t executes in row t + 1. `sections` are `account`, `fills`, `safeguards`, `reward`,
    `progress` where they are not the defaults.
    """
    lanes, steps = actions.shape
    assert rows.shape[-2] == steps + 1, "one row more than actions"
    rows = np.broadcast_to(rows, (lanes, *rows.shape[-2:]))
    rows = np.pad(rows, ((0, -lanes % LANES), (0, -steps % CHUNK), (0, 0)), mode="edge")
    actions = np.pad(actions, ((0, -lanes % LANES), (0, -steps % CHUNK)), constant_values=HOLD)
    actions = actions.astype(np.int32)
    params = make_params(**sections)
    blocks = []
    for lane in range(0, len(actions), LANES):
        block = slice(lane, lane + LANES)
        state, first = _begin(rows[block, 0], params)
        chunks = []
        for t in range(0, actions.shape[1], CHUNK):
            read, act = slice(t + 1, t + 1 + CHUNK), slice(t, t + CHUNK)
            state, chunk = _run(state, rows[block, read], actions[block, act], params)
            chunks.append(jax.tree.map(np.asarray, chunk))
        record, seen = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *chunks)
        blocks.append((record, np.concatenate([first[:, None], seen], axis=1)))
    record, seen = jax.tree.map(lambda *parts: np.concatenate(parts), *blocks)
    return jax.tree.map(lambda x: x[:lanes, :steps], record), seen[:lanes, : steps + 1]


def play(rows: np.ndarray, actions: Sequence[int] | np.ndarray, **sections: Any) -> StepRecord:
    """Record `[T]` of one episode."""
    record, _ = play_lanes(rows, np.asarray(actions)[None], **sections)
    return jax.tree.map(lambda x: x[0], record)


def watch(rows: np.ndarray, actions: Sequence[int] | np.ndarray, **sections: Any) -> np.ndarray:
    """Observations `[T+1, 12]` of one episode, the one before the first step included."""
    return play_lanes(rows, np.asarray(actions)[None], **sections)[1][0]


def make_params(
    account: Account | None = None,
    fills: Fills | None = None,
    safeguards: Safeguards | None = None,
    reward: Reward | None = None,
    progress: float = 1.0,
) -> EnvParams:
    """Parameters over a market of one empty row of a one-minute bar."""
    one = jnp.ones((1,), jnp.int32)
    return EnvParams(
        market=MarketData(jnp.zeros((1, NUM_COLUMNS)), jnp.zeros((1, 3), jnp.int32), one),
        account=cast_section(account or Account()),
        fills=cast_section(fills or Fills()),
        safeguards=cast_section(safeguards or Safeguards()),
        reward=cast_section(reward or Reward()),
        progress=jnp.float32(progress),
    )
