"""Features as causal recurrences: one `update` per bar, in training and in live use alike.

Training scans `update` over history (`compute`), serving applies it to each bar as it arrives.
There is no second definition, so nothing can look ahead and nothing can differ between the two.
Nothing is fitted across a sample either: every average starts as the plain mean of what has been
seen and turns into an exponentially weighted one when that weighs a new value more.

Moving averages of prices are carried as *gaps* (average minus close). Price differences are exact
in float32 and a gap's rounding is relative to the gap, so entries keep their precision at any
price level.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax import config
from jules_jax.market import liquidity
from jules_jax.market.bars import Bars

SIGMA_FLOOR = 1e-6
"""Smallest bar volatility, in return units: a hundredth of a basis point."""

ENTRY_LIMIT = 5.0
"""Observation entries are clipped to ±5; it is also the log liquidity of a bar without volume."""

RSI_SD = 12.0
"""Standard deviation of RSI(14) on a random walk, in points."""

EMA_FAST_SD, EMA_SLOW_SD = 1.42, 2.12
"""Standard deviation of ln(C/EMA10) and ln(C/EMA20) on a random walk, in bar volatilities."""


class FeatureRow(NamedTuple):
    """What one bar adds to its row of the table; float32 scalars, or `[B]` over a stretch.

    The `_before` values and `expected_volume` are known at the previous close.
    """

    sigma_before: jax.Array  # EW sd of 1-bar log returns up to the previous close
    sigma: jax.Array  # the same, this bar included
    sigma_long_before: jax.Array  # the same over sessions rather than minutes
    adv_before: jax.Array  # average daily volume over completed sessions, shares
    expected_volume: jax.Array  # shares expected for this bar
    kyle_lambda_before: jax.Array  # see `liquidity.rolling_kyle_lambda`; `update` leaves it at 0
    market: jax.Array  # [8] observation entries 0 to 7, each in [-5, 5]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FeatureState:
    """Everything `update` remembers; `S` slots in a session, the rest float32 or int32 scalars."""

    bars: jax.Array  # bars seen
    session: jax.Array  # session of the last bar
    close: jax.Array  # the last close, dollars
    gain: jax.Array  # Wilder mean of upward closes, dollars
    loss: jax.Array  # Wilder mean of downward closes, dollars
    ema_fast_gap: jax.Array  # EMA minus close, dollars
    ema_slow_gap: jax.Array
    returns: jax.Array  # within-session returns seen
    variance: jax.Array  # EW mean square of within-session log returns
    variance_long: jax.Array
    vwap_gap: jax.Array  # VWAP of the session minus close, dollars
    session_volume: jax.Array  # volume of the session so far, shares
    sessions: jax.Array  # sessions completed
    previous_session_volume: jax.Array  # volume of the last completed session, shares
    bar_volume: jax.Array  # mean volume of a bar, of all bars seen
    session_adv: jax.Array  # EW mean volume of completed sessions
    profile: jax.Array  # [S] EW share of a session's volume in each slot
    slot_volume: jax.Array  # [S] volume when each slot was last seen
    slot_session: jax.Array  # [S] session in which it was
    config: config.Features = field(metadata={"static": True})
    quantity_step: float = field(metadata={"static": True})


def init(
    features: config.Features, bars_per_session: int, quantity_step: float = 1.0
) -> FeatureState:
    """The state before the first bar.

    Args:
      features: windows and half-lives.
      bars_per_session: slots of a full session, `S`.
      quantity_step: smallest quantity, in the unit of the volume; bounds volumes from below.
    """
    zero, none = jnp.float32(0.0), jnp.int32(0)
    slots = jnp.zeros(bars_per_session, jnp.float32)
    return FeatureState(
        bars=none,
        session=jnp.int32(-1),
        close=zero,
        gain=zero,
        loss=zero,
        ema_fast_gap=zero,
        ema_slow_gap=zero,
        returns=none,
        variance=zero,
        variance_long=zero,
        vwap_gap=zero,
        session_volume=zero,
        sessions=none,
        previous_session_volume=zero,
        bar_volume=zero,
        session_adv=zero,
        profile=slots + jnp.float32(1.0 / bars_per_session),
        slot_volume=slots,
        slot_session=jnp.full(bars_per_session, -2, jnp.int32),
        config=features,
        quantity_step=quantity_step,
    )


def update(state: FeatureState, bar: Bars) -> tuple[FeatureState, FeatureRow]:
    """The state after one bar, and the bar's features.

    Args:
      state: the state after the previous bar.
      bar: one bar, `Bars` of scalars. An invalid bar repeats the last price with volume 0 and
        counts as a return of 0.
    """
    first = state.bars == 0
    new_session = bar.session != state.session
    state = _open_session(state, bar, new_session & ~first)
    has_return = ~first if bar.continuous else ~(first | new_session)
    before = state
    adv, expected_volume, state = _expect_volume(state, bar)
    state = _add_close(state, bar, has_return)
    state = _add_volume(state, bar)
    row = FeatureRow(
        sigma_before=_sigma(before.variance),
        sigma=_sigma(state.variance),
        sigma_long_before=_sigma(before.variance_long),
        adv_before=adv,
        expected_volume=expected_volume,
        kyle_lambda_before=jnp.zeros_like(adv),
        market=_market_entries(state, bar, expected_volume),
    )
    return replace(state, bars=state.bars + 1, close=bar.close), row


def compute(bars: Bars, features: config.Features, quantity_step: float = 1.0) -> FeatureRow:
    """Features `[B]` of a stretch of bars `[B]`: `update` scanned over it, lambda filled in.

    Args:
      bars: one symbol or path, in time order.
      features: windows and half-lives.
      quantity_step: see `init`.
    """
    bars = jax.tree.map(jnp.asarray, bars)
    _, rows = jax.lax.scan(update, init(features, bars.bars_per_session, quantity_step), bars)
    kyle_lambda = liquidity.rolling_kyle_lambda(
        bars, rows.sigma_before, rows.adv_before, features.lookback_window
    )
    return rows._replace(kyle_lambda_before=kyle_lambda)


def _open_session(state: FeatureState, bar: Bars, completed: jax.Array) -> FeatureState:
    """Takes the last session into the daily averages if `bar` is the first of another one."""
    weight = _weight(_alpha(state.config.adv_half_life), state.sessions) * completed
    volume = state.session_volume
    return replace(
        state,
        session=bar.session,
        sessions=state.sessions + completed.astype(jnp.int32),
        session_adv=state.session_adv + weight * (volume - state.session_adv),
        previous_session_volume=jnp.where(completed, volume, state.previous_session_volume),
        session_volume=jnp.where(completed, 0.0, volume),
    )


def _expect_volume(state: FeatureState, bar: Bars) -> tuple[jax.Array, jax.Array, FeatureState]:
    """ADV and expected volume of `bar`, both known before it, and the state with its slot renewed.

    A slot's share of a session is known only when the session is over, so it enters the profile
    when the slot comes round again; a slot unseen in the session before had a share of 0. The
    uniform start counts as one session. All shares sum to 1, so ADV is only spread, never changed.
    """
    slots = state.profile.shape[0]
    slot = jnp.minimum(bar.bar_of_session, slots - 1)
    seen = state.slot_session[slot] == bar.session - 1
    share = jnp.where(seen, state.slot_volume[slot], 0.0) / jnp.maximum(
        state.previous_session_volume, state.quantity_step
    )
    known = state.sessions > 0
    weight = _weight(_alpha(state.config.profile_half_life), state.sessions) * known
    profile = state.profile[slot] + weight * (share - state.profile[slot])
    adv = jnp.where(known, state.session_adv, state.bar_volume * slots)
    adv = jnp.maximum(adv, state.quantity_step)
    state = replace(
        state,
        profile=state.profile.at[slot].set(profile),
        slot_volume=state.slot_volume.at[slot].set(bar.volume),
        slot_session=state.slot_session.at[slot].set(bar.session),
    )
    return adv, jnp.maximum(adv * profile, state.quantity_step), state


def _add_close(state: FeatureState, bar: Bars, has_return: jax.Array) -> FeatureState:
    """RSI, EMAs and volatilities, with the close of `bar` in them."""
    windows = state.config
    previous = jnp.where(state.bars == 0, bar.close, state.close)
    change = bar.close - previous
    rsi_weight = _weight(1.0 / windows.rsi_window, jnp.maximum(state.bars - 1, 0))
    fast = _weight(2.0 / (windows.ema_fast_window + 1), state.bars)
    slow = _weight(2.0 / (windows.ema_slow_window + 1), state.bars)
    square = jnp.log1p(change / previous) ** 2
    short = _weight(_alpha(windows.volatility_half_life), state.returns) * has_return
    bars_in_half_life = windows.long_half_life * state.profile.shape[0]
    long = _weight(_alpha(bars_in_half_life), state.returns) * has_return
    return replace(
        state,
        gain=state.gain + rsi_weight * (jnp.maximum(change, 0.0) - state.gain),
        loss=state.loss + rsi_weight * (jnp.maximum(-change, 0.0) - state.loss),
        ema_fast_gap=(1.0 - fast) * (state.ema_fast_gap - change),
        ema_slow_gap=(1.0 - slow) * (state.ema_slow_gap - change),
        returns=state.returns + has_return.astype(jnp.int32),
        variance=state.variance + short * (square - state.variance),
        variance_long=state.variance_long + long * (square - state.variance_long),
        vwap_gap=state.vwap_gap - change,
    )


def _add_volume(state: FeatureState, bar: Bars) -> FeatureState:
    """Session VWAP and volume totals, with `bar` in them; the gap is already from its close.

    Until a session has traded, its VWAP is the typical price of its last bar.
    """
    typical_gap = ((bar.high - bar.close) + (bar.low - bar.close)) / 3.0
    total = state.session_volume + bar.volume
    weight = jnp.where(state.session_volume > 0, bar.volume / jnp.maximum(total, 1e-30), 1.0)
    mean_weight = _weight(0.0, state.bars)
    return replace(
        state,
        vwap_gap=state.vwap_gap + weight * (typical_gap - state.vwap_gap),
        session_volume=total,
        bar_volume=state.bar_volume + mean_weight * (bar.volume - state.bar_volume),
    )


def _market_entries(state: FeatureState, bar: Bars, expected_volume: jax.Array) -> jax.Array:
    """Observation entries 0 to 7, `[8]`, from the state that has `bar` in it."""
    close, sigma = bar.close, _sigma(state.variance)
    moves = state.gain + state.loss
    rsi = jnp.where(moves > 0, 100.0 * state.gain / jnp.maximum(moves, 1e-30), 50.0)
    turn = 2.0 * jnp.pi if bar.continuous else jnp.pi
    angle = turn * bar.minute / jnp.maximum(bar.session_length, 1).astype(jnp.float32)
    bars_in_vwap = jnp.sqrt((bar.bar_of_session + 1).astype(jnp.float32))
    traded = bar.volume > 0
    relative_volume = jnp.where(traded, bar.volume, expected_volume) / expected_volume
    entries = (
        (rsi - 50.0) / RSI_SD,
        -jnp.log1p(state.ema_fast_gap / close) / (EMA_FAST_SD * sigma),
        -jnp.log1p(state.ema_slow_gap / close) / (EMA_SLOW_SD * sigma),
        -jnp.log1p(state.vwap_gap / close) / (sigma * bars_in_vwap),
        jnp.sin(angle),
        jnp.cos(angle),
        jnp.log(sigma / _sigma(state.variance_long)),
        jnp.where(traded, jnp.log(relative_volume), -ENTRY_LIMIT),
    )
    return jnp.clip(jnp.stack(entries), -ENTRY_LIMIT, ENTRY_LIMIT)


def _alpha(half_life: float) -> float:
    """Weight of a new value in an average with `half_life`."""
    return float(1.0 - 2.0 ** (-1.0 / half_life))


def _weight(alpha: float, seen: jax.Array) -> jax.Array:
    """Weight of a new value after `seen` others: a plain mean first, exponential after that."""
    return jnp.maximum(jnp.float32(alpha), 1.0 / (seen.astype(jnp.float32) + 1.0))


def _sigma(variance: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sqrt(variance), SIGMA_FLOOR)
