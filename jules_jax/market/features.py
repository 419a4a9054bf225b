"""Features as causal recurrences: one `update` per bar, in training and in live use alike.

Serving applies `update` to each bar as it arrives; training runs its three parts over history
(`compute`): what a bar says beside the one before it (`_read`), the recurrences (`_recur`, which is
scanned) and what the state then says (`_describe`). None is given a later bar, so nothing can look
ahead; stages between them in `update` make the two agree bit for bit. Nothing is fitted across a
sample either: every average starts as the plain mean of what has been seen and turns into an
exponentially weighted one when that weighs a new value more.

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
from jules_jax.market.staging import stage

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
    slots: jax.Array  # [S, 3] EW share of a session's volume; volume and session when last seen
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
    slot = jnp.array([1.0 / bars_per_session, 0.0, -2.0], jnp.float32)
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
        slots=jnp.tile(slot, (bars_per_session, 1)),
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
    seen = state.bars
    news = stage(seen, _read(_Previous(seen == 0, state.session, state.close), bar))
    state, values = stage(seen, _recur(state, news))
    return state, _describe(values, bar)


def compute(bars: Bars, features: config.Features, quantity_step: float = 1.0) -> FeatureRow:
    """Features `[B]` of a stretch of bars `[B]`: `update` over it, bit for bit, lambda filled in.

    Args:
      bars: one symbol or path, in time order.
      features: windows and half-lives.
      quantity_step: see `init`.
    """
    bars = jax.tree.map(jnp.asarray, bars)
    state = init(features, bars.bars_per_session, quantity_step)
    previous = _Previous(
        first=jnp.arange(bars.close.shape[0]) == 0,
        session=_delay(state.session, bars.session),
        close=_delay(state.close, bars.close),
    )
    _, values = jax.lax.scan(_recur, state, _read(previous, bars))
    rows = _describe(values, bars)
    kyle_lambda = liquidity.rolling_kyle_lambda(
        bars, rows.sigma_before, rows.adv_before, features.lookback_window
    )
    return rows._replace(kyle_lambda_before=kyle_lambda)


class _Previous(NamedTuple):
    """What reading a bar takes from the one before; scalars or `[B]`."""

    first: jax.Array  # there is none
    session: jax.Array
    close: jax.Array


class _News(NamedTuple):
    """What one bar tells beside the one before it; scalars or `[B]`."""

    completed: jax.Array  # a session, with the bar before
    has_return: jax.Array  # the bar's return counts for volatility
    change: jax.Array  # of the close, dollars
    square: jax.Array  # of the log return
    typical_gap: jax.Array  # typical price minus close, dollars
    close: jax.Array
    volume: jax.Array
    session: jax.Array
    slot: jax.Array


class _Values(NamedTuple):
    """What the state has for a bar's row; scalars or `[B]`."""

    variance_before: jax.Array
    variance_long_before: jax.Array
    adv_before: jax.Array
    expected_volume: jax.Array
    variance: jax.Array
    variance_long: jax.Array
    gain: jax.Array
    loss: jax.Array
    ema_fast_gap: jax.Array
    ema_slow_gap: jax.Array
    vwap_gap: jax.Array


def _delay(start: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.concatenate([start[None], x[:-1]])


def _read(previous: _Previous, bar: Bars) -> _News:
    new_session = bar.session != previous.session
    close = jnp.where(previous.first, bar.close, previous.close)
    change = bar.close - close
    return _News(
        completed=new_session & ~previous.first,
        has_return=~previous.first if bar.continuous else ~(previous.first | new_session),
        change=change,
        square=jnp.log1p(change / close) ** 2,
        typical_gap=((bar.high - bar.close) + (bar.low - bar.close)) / 3.0,
        close=bar.close,
        volume=bar.volume,
        session=bar.session,
        slot=bar.bar_of_session,
    )


def _recur(state: FeatureState, news: _News) -> tuple[FeatureState, _Values]:
    """The state after a bar: everything that needs the one before, and nothing else."""
    before = state
    state = _open_session(state, news)
    adv, expected_volume, state = _expect_volume(state, news)
    state = _add_close(state, news)
    state = _add_volume(state, news)
    state = replace(state, bars=state.bars + 1, close=news.close)
    values = _Values(
        variance_before=before.variance,
        variance_long_before=before.variance_long,
        adv_before=adv,
        expected_volume=expected_volume,
        variance=state.variance,
        variance_long=state.variance_long,
        gain=state.gain,
        loss=state.loss,
        ema_fast_gap=state.ema_fast_gap,
        ema_slow_gap=state.ema_slow_gap,
        vwap_gap=state.vwap_gap,
    )
    return state, values


def _describe(values: _Values, bar: Bars) -> FeatureRow:
    return FeatureRow(
        sigma_before=_sigma(values.variance_before),
        sigma=_sigma(values.variance),
        sigma_long_before=_sigma(values.variance_long_before),
        adv_before=values.adv_before,
        expected_volume=values.expected_volume,
        kyle_lambda_before=jnp.zeros_like(values.adv_before),
        market=_market_entries(values, bar),
    )


def _open_session(state: FeatureState, news: _News) -> FeatureState:
    """Takes the last session into the daily averages if the bar is the first of another one."""
    completed = news.completed
    weight = _weight(_alpha(state.config.adv_half_life), state.sessions) * completed
    volume = state.session_volume
    return replace(
        state,
        session=news.session,
        sessions=state.sessions + completed.astype(jnp.int32),
        session_adv=state.session_adv + weight * (volume - state.session_adv),
        previous_session_volume=jnp.where(completed, volume, state.previous_session_volume),
        session_volume=jnp.where(completed, 0.0, volume),
    )


def _expect_volume(state: FeatureState, news: _News) -> tuple[jax.Array, jax.Array, FeatureState]:
    """ADV and expected volume of a bar, known before it, and the state with its slot renewed.

    A slot's share of a session is known only when the session is over, so it enters the profile
    when the slot comes round again; a slot unseen in the session before had a share of 0. The
    uniform start counts as one session. All shares sum to 1, so ADV is only spread, never changed.
    """
    slots = state.slots.shape[0]
    slot = jnp.minimum(news.slot, slots - 1)
    # Staged, as a slice that is read once can be overwritten in place.
    row = stage(state.bars, jax.lax.dynamic_index_in_dim(state.slots, slot, keepdims=False))
    session = news.session.astype(jnp.float32)
    last_volume = jnp.where(row[2] == session - 1.0, row[1], 0.0)
    share = last_volume / jnp.maximum(state.previous_session_volume, state.quantity_step)
    known = state.sessions > 0
    weight = _weight(_alpha(state.config.profile_half_life), state.sessions) * known
    profile = row[0] + weight * (share - row[0])
    adv = jnp.where(known, state.session_adv, state.bar_volume * slots)
    adv = jnp.maximum(adv, state.quantity_step)
    row = jnp.stack([profile, news.volume, session])
    state = replace(
        state, slots=jax.lax.dynamic_update_index_in_dim(state.slots, row, slot, axis=0)
    )
    return adv, jnp.maximum(adv * profile, state.quantity_step), state


def _add_close(state: FeatureState, news: _News) -> FeatureState:
    """RSI, EMAs and volatilities, with the bar's close in them."""
    windows, change, square = state.config, news.change, news.square
    rsi_weight = _weight(1.0 / windows.rsi_window, jnp.maximum(state.bars - 1, 0))
    fast = _weight(2.0 / (windows.ema_fast_window + 1), state.bars)
    slow = _weight(2.0 / (windows.ema_slow_window + 1), state.bars)
    short = _weight(_alpha(windows.volatility_half_life), state.returns) * news.has_return
    bars_in_half_life = windows.long_half_life * state.slots.shape[0]
    long = _weight(_alpha(bars_in_half_life), state.returns) * news.has_return
    return replace(
        state,
        gain=state.gain + rsi_weight * (jnp.maximum(change, 0.0) - state.gain),
        loss=state.loss + rsi_weight * (jnp.maximum(-change, 0.0) - state.loss),
        ema_fast_gap=(1.0 - fast) * (state.ema_fast_gap - change),
        ema_slow_gap=(1.0 - slow) * (state.ema_slow_gap - change),
        returns=state.returns + news.has_return.astype(jnp.int32),
        variance=state.variance + short * (square - state.variance),
        variance_long=state.variance_long + long * (square - state.variance_long),
        vwap_gap=state.vwap_gap - change,
    )


def _add_volume(state: FeatureState, news: _News) -> FeatureState:
    """Session VWAP and volume totals, with the bar in them; the gap is already from its close.

    Until a session has traded, its VWAP is the typical price of its last bar.
    """
    total = state.session_volume + news.volume
    weight = jnp.where(state.session_volume > 0, news.volume / jnp.maximum(total, 1e-30), 1.0)
    mean_weight = _weight(0.0, state.bars)
    return replace(
        state,
        vwap_gap=state.vwap_gap + weight * (news.typical_gap - state.vwap_gap),
        session_volume=total,
        bar_volume=state.bar_volume + mean_weight * (news.volume - state.bar_volume),
    )


def _market_entries(values: _Values, bar: Bars) -> jax.Array:
    """Observation entries 0 to 7, `[..., 8]`, from the state that has `bar` in it."""
    close, sigma = bar.close, _sigma(values.variance)
    moves = values.gain + values.loss
    rsi = jnp.where(moves > 0, 100.0 * values.gain / jnp.maximum(moves, 1e-30), 50.0)
    turn = 2.0 * jnp.pi if bar.continuous else jnp.pi
    angle = turn * bar.minute / jnp.maximum(bar.session_length, 1).astype(jnp.float32)
    bars_in_vwap = jnp.sqrt((bar.bar_of_session + 1).astype(jnp.float32))
    traded = bar.volume > 0
    relative_volume = jnp.where(traded, bar.volume, values.expected_volume) / values.expected_volume
    entries = (
        (rsi - 50.0) / RSI_SD,
        -jnp.log1p(values.ema_fast_gap / close) / (EMA_FAST_SD * sigma),
        -jnp.log1p(values.ema_slow_gap / close) / (EMA_SLOW_SD * sigma),
        -jnp.log1p(values.vwap_gap / close) / (sigma * bars_in_vwap),
        jnp.sin(angle),
        jnp.cos(angle),
        jnp.log(sigma / _sigma(values.variance_long)),
        jnp.where(traded, jnp.log(relative_volume), -ENTRY_LIMIT),
    )
    return jnp.clip(jnp.stack(entries, axis=-1), -ENTRY_LIMIT, ENTRY_LIMIT)


def _alpha(half_life: float) -> float:
    """Weight of a new value in an average with `half_life`."""
    return float(1.0 - 2.0 ** (-1.0 / half_life))


def _weight(alpha: float, seen: jax.Array) -> jax.Array:
    """Weight of a new value after `seen` others: a plain mean first, exponential after that."""
    return jnp.maximum(jnp.float32(alpha), 1.0 / (seen.astype(jnp.float32) + 1.0))


def _sigma(variance: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sqrt(variance), SIGMA_FLOOR)
