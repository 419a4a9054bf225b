"""Fills: what an order costs, and the order-book state it leaves behind.

Four parts, in dollars: spread, temporary, transient and permanent impact; fees beside them. No list
of trades earns from impact. Proof: spread, temporary and transient cost are each ≥ 0 for every
single trade, because √-like costs are increasing in U + |q| and E + |q| and the memories U, E⁺, E⁻
are ≥ 0 (buys displace only asks, sells only bids: a reversal is never refunded); the permanent part
of a trade is ½λ((X+q)² − X²) with λ constant within an episode, so it telescopes to
½λ(X_T² − X_0²), which is 0 over a round trip. ∎

Sources: Almgren, Thum, Hauptmann, Li (2005), temporary impact; Alfonsi, Fruth, Schied (2010),
resilient book with volume recovery; Kyle (1985), Huberman, Stanzl (2004), linear permanent impact.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax.config import Fills
from jules_jax.env import twofloat
from jules_jax.market.table import Row

BP_PER_UNIT = 1e4
"""Divides basis points: 1e-4 is inexact in float32, and always in the same direction."""
SPREAD_OPEN_WIDENING = 2.5
"""Intraday spread: how much wider than usual at the open, measured on US large caps in 2013."""
SPREAD_OPEN_MINUTES = 8.0
"""Minutes over which that fades by a factor e."""
TINY = 1e-30
"""Keeps quotients of two zeros at zero."""
LAMBDA_RANGE = 4.0
"""A rolling lambda is kept within this factor of the structural one."""


class Book(NamedTuple):
    """What recent trades took out of the market, in shares, ≥ 0; float32 scalars."""

    recent_volume: jax.Array  # U, unsigned
    displaced_ask: jax.Array  # E⁺, by buys
    displaced_bid: jax.Array  # E⁻, by sells


class Liquidity(NamedTuple):
    """The market an order meets: all known before its execution; float32 scalars."""

    half_spread: jax.Array  # return units
    sigma_bar: jax.Array  # sd of a bar's return
    sigma_day: jax.Array  # sd of a session's return
    expected_volume: jax.Array  # shares expected in the bar
    adv: jax.Array  # shares a day


class Costs(NamedTuple):
    """Costs of a trade in dollars; only `permanent` may be negative."""

    spread: jax.Array
    temporary: jax.Array
    transient: jax.Array
    permanent: jax.Array
    fees: jax.Array

    def total(self) -> jax.Array:
        """Sum of the parts, dollars."""
        return self.spread + self.temporary + self.transient + self.permanent + self.fees


def empty_book() -> Book:
    """The book before any trade, and at the start of a session."""
    return Book(*(jnp.zeros((), jnp.float32) for _ in Book._fields))


def liquidity(row: Row, price: jax.Array, fills: Fills) -> Liquidity:
    """The market in the bar `row`, for an execution at `price` dollars.

    The half spread is the source's where it has one, else half of `bid_ask_spread_bps`, optionally
    wider after the open and in volatile minutes; never below half a tick.
    """
    configured = jnp.asarray(0.5 * fills.bid_ask_spread_bps / BP_PER_UNIT)
    if fills.spread_shape == "intraday":
        after_open = 1.0 + SPREAD_OPEN_WIDENING * jnp.exp(-row.minute / SPREAD_OPEN_MINUTES)
        volatility = jnp.sqrt(row.sigma_before / row.sigma_long_before)
        configured = configured * after_open * volatility
    half_spread = jnp.where(row.half_spread > 0, row.half_spread, configured)
    return Liquidity(
        half_spread=jnp.maximum(half_spread, 0.5 * row.tick / price),
        sigma_bar=row.sigma_before,
        sigma_day=row.sigma_before * jnp.sqrt(row.bars_per_session),
        expected_volume=row.expected_volume,
        adv=row.adv_before,
    )


def structural_lambda(fills: Fills) -> jax.Array:
    """λ* = πY/√x_ref: the linear impact that equals the permanent share of the √ law at x_ref."""
    return fills.permanent_share * fills.impact_prefactor / jnp.sqrt(fills.reference_size)


def episode_lambda(row: Row, fills: Fills) -> jax.Array:
    """Kyle's λ of an episode that starts on `row`, in dollars per share per share.

    λ*·σ_D·P₀/ADV. With `lambda_source: rolling` the dimensionless estimate of the last bars takes
    the place of λ*, kept within a factor 4 of it; where there is no estimate λ* serves.
    """
    scale = structural_lambda(fills)
    if fills.lambda_source == "rolling":
        estimate = jnp.clip(row.kyle_lambda_before, scale / LAMBDA_RANGE, scale * LAMBDA_RANGE)
        scale = jnp.where(row.kyle_lambda_before != 0, estimate, scale)
    sigma_day = row.sigma * jnp.sqrt(row.bars_per_session)
    return scale * sigma_day * row.close / row.adv_before


def trade_costs(
    quantity: jax.Array,
    position: jax.Array,
    price: jax.Array,
    market: Liquidity,
    book: Book,
    kyle_lambda: jax.Array,
    fills: Fills,
) -> Costs:
    """Costs of trading `quantity` signed shares from a net `position` of shares at `price`."""
    size = jnp.abs(quantity)
    turnover = twofloat.product(price, size)  # what the large parts are rounded from, only once
    temporary_scale = (2 / 3) * price * fills.temporary_impact * market.sigma_bar
    temporary = (temporary_scale * market.expected_volume) * _power_3_2_rise(
        book.recent_volume / market.expected_volume, size / market.expected_volume
    )
    displaced = jnp.where(quantity > 0, book.displaced_ask, book.displaced_bid)
    power = 1.0 + fills.impact_exponent
    depth = (1.0 - fills.permanent_share) * fills.impact_prefactor * market.sigma_day
    transient = (price * depth * market.adv / power) * _power_rise(
        displaced / market.adv, size / market.adv, power
    )

    sell_fee = jnp.where(quantity < 0, fills.sell_fee_bps, 0.0)
    return Costs(
        spread=twofloat.to_float(twofloat.times(turnover, market.half_spread)),
        temporary=temporary,
        transient=transient,
        permanent=kyle_lambda * quantity * (position + 0.5 * quantity),
        fees=twofloat.to_float(twofloat.times(turnover, (fills.fee_bps + sell_fee) / BP_PER_UNIT)),
    )


def _power_3_2_rise(base: jax.Array, rise: jax.Array) -> jax.Array:
    """(base + rise)^1.5 − base^1.5 for base, rise ≥ 0, without cancellation, so never below 0."""
    top = base + rise
    square = top * top + top * base + base * base
    return rise * square / jnp.maximum(top * jnp.sqrt(top) + base * jnp.sqrt(base), TINY)


def _power_rise(base: jax.Array, rise: jax.Array, power: float) -> jax.Array:
    """(base + rise)^power − base^power likewise; a base below 1e-7 of the rise counts as none."""
    used = base > 1e-7 * rise
    start = jnp.where(used, base, rise)
    growth = jnp.expm1(power * jnp.log1p(rise / jnp.maximum(start, TINY)))
    # One factor of `start` stays outside of the logarithm, whose rounding grows with it.
    return (
        start
        * jnp.exp((power - 1.0) * jnp.log(jnp.maximum(start, TINY)))
        * jnp.where(used, growth, 1.0)
    )


def displace(book: Book, quantity: jax.Array) -> Book:
    """The book after a trade of `quantity` signed shares."""
    return Book(
        recent_volume=book.recent_volume + jnp.abs(quantity),
        displaced_ask=book.displaced_ask + jnp.maximum(quantity, 0.0),
        displaced_bid=book.displaced_bid + jnp.maximum(-quantity, 0.0),
    )


def decay(book: Book, fills: Fills) -> Book:
    """The book one bar later."""
    return Book(
        recent_volume=book.recent_volume * fills.temporary_impact_decay,
        displaced_ask=book.displaced_ask * fills.impact_decay,
        displaced_bid=book.displaced_bid * fills.impact_decay,
    )
