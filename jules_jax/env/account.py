"""The account: lots, the position ladder, cash limits, and equity that never drifts.

Quantities are int32 multiples of the symbol's quantity step. Equity is a two-float in units of
initial capital, changed only by `Costs` and by price *differences*. Sizes are computed from equity
rounded to 1/1024 of initial capital, in exact arithmetic: the float64 twin then finds the same
number of shares, although its equity differs in the tenth digit.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax.config import Account
from jules_jax.env import twofloat
from jules_jax.env.twofloat import TwoFloat

EQUITY_GRID = 1024.0
"""Sizing sees equity to the nearest (limits: next lower) 1/1024 of initial capital."""


class Holding(NamedTuple):
    """What is held, and what it was worth; scalars."""

    position: jax.Array  # int32 signed quantity steps
    lot: jax.Array  # int32 quantity steps in a lot, of the open position
    average_entry_price: jax.Array  # dollars, spread and impact included; 0 when flat
    bars_held: jax.Array  # int32 bars since it was opened from flat
    equity: TwoFloat  # in units of initial capital
    equity_before: TwoFloat  # before the step that opened the position from flat


def empty_holding() -> Holding:
    """Flat, with all of the initial capital."""
    none, full = jnp.zeros((), jnp.int32), twofloat.literal(1.0)
    return Holding(none, none, jnp.zeros((), jnp.float32), none, full, full)


def _affordable(
    fraction: TwoFloat, grid_equity: jax.Array, price: jax.Array, step: jax.Array, account: Account
) -> jax.Array:
    """Quantity steps worth `fraction` of `grid_equity`/1024 initial capitals at `price`, int32."""
    dollars = twofloat.times(twofloat.times(fraction, account.initial_capital), grid_equity)
    return twofloat.floor_ratio(dollars, twofloat.product(price, step * EQUITY_GRID))


def lot_size(equity: TwoFloat, price: jax.Array, step: jax.Array, account: Account) -> jax.Array:
    """Quantity steps in one lot, when opening from flat: ⌊position_size_pct · equity / price⌋."""
    grid_equity = twofloat.floor(twofloat.add(twofloat.times(equity, EQUITY_GRID), 0.5))
    fraction = twofloat.from_float(account.position_size_pct)
    return _affordable(fraction, grid_equity, price, step, account)


def largest_position(
    equity_after_costs: TwoFloat, price: jax.Array, step: jax.Array, account: Account
) -> jax.Array:
    """Most quantity steps that size and cash limits allow, long or short, int32."""
    grid_equity = twofloat.floor(twofloat.times(equity_after_costs, EQUITY_GRID))
    grid_equity = jnp.maximum(grid_equity, 0.0)
    by_size = twofloat.from_float(account.max_position_size_pct)
    by_cash = twofloat.add(twofloat.literal(1.0), -account.min_cash_reserve_pct)
    return jnp.minimum(
        _affordable(by_size, grid_equity, price, step, account),
        _affordable(by_cash, grid_equity, price, step, account),
    )


def ladder_target(
    position: jax.Array, lot: jax.Array, direction: jax.Array, account: Account
) -> tuple[jax.Array, jax.Array]:
    """Position that an order of one lot in `direction` aims at, and whether the ladder allows it.

    The rung is n = sign(X)·⌈|X|/lot⌉, so a partly filled close stays on its rung.
    """
    held = jnp.abs(position)
    rung = jnp.sign(position) * ((held + lot - 1) // jnp.maximum(lot, 1))
    aim = rung + direction
    lowest = -account.max_position_lots if account.allow_short else 0
    allowed = (aim >= lowest) & (aim <= account.max_position_lots)
    return aim * lot, allowed


def average_entry(
    holding: Holding, quantity: jax.Array, after: jax.Array, fill_price: jax.Array
) -> jax.Array:
    """Average entry price after a fill: weighted when adding, kept when reducing, 0 when flat."""
    held = jnp.abs(holding.position).astype(jnp.float32)
    added = jnp.abs(quantity).astype(jnp.float32)
    mean = holding.average_entry_price + (fill_price - holding.average_entry_price) * (
        added / jnp.maximum(held + added, 1.0)
    )
    adds = jnp.abs(after) > jnp.abs(holding.position)
    return jnp.where(after == 0, 0.0, jnp.where(adds, mean, holding.average_entry_price))
