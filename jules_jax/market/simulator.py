"""The synthetic market: one-minute bars of a US large cap with a planted, known, bounded edge.

The mid price is an efficient part (fat-tailed, with three speeds of volatility, a daily shape,
rare jumps and overnight gaps) times a hidden mispricing. Preset `easy` lets the mispricing revert
(Ornstein-Uhlenbeck), so that it can be traded; preset `null` turns it into a martingale with the
same innovations, so that nothing can. Prints bounce between bid and ask as in Roll (1984).
Constants without another source are fits to one-minute bars of SPY and AAPL, 2014 to 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import erf_inv

from jules_jax import config
from jules_jax.market.bars import Bars

BP = 1e-4

OPEN_VOLATILITY, OPEN_VOLATILITY_MINUTES = 1.4, 25.0
CLOSE_VOLATILITY, CLOSE_VOLATILITY_MINUTES = 0.2, 12.0
"""Reverse J of volatility: excess at the open and at the close, and how fast each fades."""

OPEN_VOLUME, OPEN_VOLUME_MINUTES = 2.2, 30.0
CLOSE_VOLUME, CLOSE_VOLUME_MINUTES = 1.2, 25.0
FIRST_BAR_VOLUME, LAST_BAR_VOLUME = 1.7, 5.5
"""U of volume: the same, and the factors of the auctions in the first and the last bar."""

VOLUME_DECAY, VOLUME_SD = (0.97, 0.5), (0.30, 0.35)
"""Autocorrelation per bar and sd of the two components of log volume that are its own."""

VOLUME_ON_MOVE, MEAN_MOVE, MOVE_VARIANCE = 0.30, 0.8, 0.4
VOLUME_ON_VOLATILITY, VOLUME_ON_DAY_VOLATILITY = 0.6, 0.5
"""How log volume answers to the bar's standardised absolute move, whose mean and variance follow,
and to log volatility."""

GAP_DOF = 4.0
"""Degrees of freedom of the overnight gap."""


class Latent(NamedTuple):
    """What the bars hide, `[B]` each, for a policy that is told the truth."""

    mispricing: jax.Array  # ln(mid / efficient price) at the close
    drift: jax.Array  # expected log return of the mid from this close to the next, gaps aside
    mid: jax.Array  # dollars, at the close


class _Draws(NamedTuple):
    """The randomness of one path; `B` bars, `D` sessions."""

    shock: jax.Array  # [B] Student-t, unit variance
    gap: jax.Array  # [D] Student-t, unit variance
    jump: jax.Array  # [B] standard normal, as all up to start
    day: jax.Array  # [D]
    noise: jax.Array  # [B, 5] of the autoregressions in `_hidden`
    start: jax.Array  # [6] their stationary starts, and that of the day
    jumps: jax.Array  # [B] uniform in (0, 1), as high and low
    high: jax.Array  # [B]
    low: jax.Array  # [B]
    side: jax.Array  # [B] +1 where the close prints at the ask, -1 at the bid


class _Hidden(NamedTuple):
    """The autoregressive parts of one path, `[B]` each but `day` `[D]`; means 0."""

    day: jax.Array  # log volatility of each session
    fast: jax.Array  # log volatility of each bar within it: hour and minutes
    volume: jax.Array  # log volume of each bar, its own part
    mispricing: jax.Array  # [B + 1], at the start and at every close
    drift: jax.Array  # expected change of the mispricing after each close


def simulate(
    key: jax.Array, params: config.Simulator, half_spread: float, bar_seconds: int = 60
) -> Bars:
    """Bars of one path, `[sessions · bars_per_session]`; see `simulate_with_latent`."""
    return simulate_with_latent(key, params, half_spread, bar_seconds)[0]


def simulate_with_latent(
    key: jax.Array, params: config.Simulator, half_spread: float, bar_seconds: int = 60
) -> tuple[Bars, Latent]:
    """Bars of one path and what they hide: a pure function of its arguments; vmap it over keys.

    The open is the mid at which the previous bar closed, times the overnight gap at the first bar
    of a session. It does not bounce: orders fill at the open, and one that faded the side of the
    last print would otherwise earn the half-spread back. The close prints at the bid or the ask
    with even odds, the high at the ask and the low at the bid, hence low ≤ open, close ≤ high.

    Args:
      key: typed PRNG key.
      params: the simulator's section of the configuration.
      half_spread: half the quoted spread of the prints, in return units.
      bar_seconds: length of a bar; half-lives are in bars, shapes within a session in minutes.
    """
    slots = params.bars_per_session
    draws = _draw(key, params)
    hidden = _hidden(draws, params)
    variance = params.day_volatility_sd**2 + _fast_variance(params)
    shape = jnp.tile(volatility_shape(slots, bar_seconds), params.sessions)
    log_volatility = jnp.repeat(hidden.day, slots) + hidden.fast - variance
    sigma = params.noise_bp * BP * shape * jnp.exp(log_volatility)

    jumps = draws.jumps < params.jumps_per_session / slots
    efficient = sigma * (draws.shock + jnp.where(jumps, params.jump_scale * draws.jump, 0.0))
    change = efficient + jnp.diff(hidden.mispricing)
    gap = _overnight_gaps(draws, hidden.day, params)
    start = hidden.mispricing[:1]
    mid = params.start_price * jnp.exp(start + jnp.cumsum(change + gap))
    previous_mid = jnp.concatenate([params.start_price * jnp.exp(start), mid[:-1]])
    opening = previous_mid * jnp.exp(gap)

    bar_sd = jnp.sqrt(sigma**2 + _innovation_sd(params) ** 2)
    high, low = _bridge_extremes(change, bar_sd, draws)
    # Rounding of exp must not push the open or the mid outside of the range.
    top = jnp.maximum(opening * jnp.exp(high), jnp.maximum(opening, mid))
    bottom = jnp.minimum(opening * jnp.exp(low), jnp.minimum(opening, mid))
    bounce = half_spread if params.enable_bid_ask_bounce else 0.0
    slot = jnp.tile(jnp.arange(slots, dtype=jnp.int32), params.sessions)
    bars = Bars(
        open=opening,
        high=top * (1.0 + bounce),
        low=bottom * (1.0 - bounce),
        close=mid * (1.0 + bounce * draws.side),
        volume=_volume(hidden, change / bar_sd, params, bar_seconds),
        session=jnp.repeat(jnp.arange(params.sessions, dtype=jnp.int32), slots),
        bar_of_session=slot,
        minute=slot * bar_seconds // 60,
        session_length=jnp.full(slot.shape, slots * bar_seconds // 60, jnp.int32),
        valid=jnp.ones(slot.shape, bool),
        bar_seconds=bar_seconds,
        bars_per_session=slots,
    )
    return bars, Latent(hidden.mispricing[1:], hidden.drift, mid)


def volatility_shape(bars_per_session: int, bar_seconds: int = 60) -> jax.Array:
    """Volatility of each slot of a session, `[bars_per_session]`, with mean square 1."""
    shape = _bath(
        bars_per_session,
        bar_seconds,
        (OPEN_VOLATILITY, OPEN_VOLATILITY_MINUTES),
        (CLOSE_VOLATILITY, CLOSE_VOLATILITY_MINUTES),
    )
    return shape / jnp.sqrt(jnp.mean(shape**2))


def volume_shape(bars_per_session: int, bar_seconds: int = 60) -> jax.Array:
    """Expected volume of each slot of a session, `[bars_per_session]`, with mean 1."""
    shape = _bath(
        bars_per_session,
        bar_seconds,
        (OPEN_VOLUME, OPEN_VOLUME_MINUTES),
        (CLOSE_VOLUME, CLOSE_VOLUME_MINUTES),
    )
    shape = shape.at[0].multiply(FIRST_BAR_VOLUME).at[-1].multiply(LAST_BAR_VOLUME)
    return shape / jnp.mean(shape)


def _bath(
    slots: int, bar_seconds: int, opening: tuple[float, float], closing: tuple[float, float]
) -> jax.Array:
    minute = jnp.arange(slots, dtype=jnp.float32) * (bar_seconds / 60.0)
    rise = opening[0] * jnp.exp(-minute / opening[1])
    return 1.0 + rise + closing[0] * jnp.exp(-minute[::-1] / closing[1])


def _draw(key: jax.Array, params: config.Simulator) -> _Draws:
    """All random numbers of one path, from one call: the generator is most of what compiles."""
    days, bars = params.sessions, params.sessions * params.bars_per_session
    # Half a step keeps the uniforms inside (0, 1), where every transformation below is finite.
    uniform = jax.random.uniform(key, (12 * bars + 3 * days + 6,)) + jnp.float32(2.0**-24)
    by_bar, by_day, start = jnp.split(uniform, [12 * bars, 12 * bars + 3 * days])
    radius, angle, jumps, high, low, side, *normals = by_bar.reshape(12, bars)
    gap_radius, gap_angle, day = by_day.reshape(3, days)
    normal = _normal(jnp.stack(normals))
    return _Draws(
        shock=_student_t(radius, angle, params.innovation_dof),
        gap=_student_t(gap_radius, gap_angle, GAP_DOF),
        jump=normal[0],
        day=_normal(day),
        noise=normal[1:].T,
        start=_normal(start),
        jumps=jumps,
        high=high,
        low=low,
        side=jnp.where(side < 0.5, jnp.float32(1.0), jnp.float32(-1.0)),
    )


def _normal(uniform: jax.Array) -> jax.Array:
    """Standard normals from uniforms in (0, 1), by inversion."""
    return jnp.sqrt(jnp.float32(2.0)) * erf_inv(2.0 * uniform - 1.0)


def _student_t(radius: jax.Array, angle: jax.Array, dof: float) -> jax.Array:
    """Student-t of unit variance from two uniforms in (0, 1): Bailey (1994), polar method."""
    scale = jnp.sqrt((dof - 2.0) * (radius ** (-2.0 / dof) - 1.0))
    return scale * jnp.cos(2.0 * jnp.pi * angle)


def _autoregress(innovation: jax.Array, decay: jax.Array, start: jax.Array) -> jax.Array:
    """First-order autoregressions x ← decay·x + innovation, `[B, ...]`, from `start` `[...]`."""

    def step(x: jax.Array, e: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = decay * x + e
        return x, x

    return jax.lax.scan(step, start, innovation)[1]


def _hidden(draws: _Draws, params: config.Simulator) -> _Hidden:
    """Volatility, volume and mispricing, each a first-order autoregression started stationary.

    A martingale has no stationary law: it starts at 0, with the innovations of the reverting one.
    """
    phi = jnp.array(
        [
            _half_life_decay(params.hour_volatility_half_life),
            _half_life_decay(params.minute_volatility_half_life),
            *VOLUME_DECAY,
            _half_life_decay(params.mispricing_half_life),
        ],
        jnp.float32,
    )
    sd = jnp.array(
        [
            params.hour_volatility_sd,
            params.minute_volatility_sd,
            *VOLUME_SD,
            params.mispricing_sd_bp * BP,
        ],
        jnp.float32,
    )
    innovation, start = draws.noise * sd * jnp.sqrt(1.0 - phi**2), draws.start[:5] * sd
    if params.mispricing == "martingale":
        phi, start = phi.at[4].set(1.0), start.at[4].set(0.0)
    path = _autoregress(innovation, phi, start)
    day_phi = jnp.float32(params.day_volatility_ar)
    day_sd = params.day_volatility_sd
    return _Hidden(
        day=_autoregress(
            draws.day * day_sd * jnp.sqrt(1.0 - day_phi**2), day_phi, draws.start[5] * day_sd
        ),
        fast=path[:, 0] + path[:, 1],
        volume=path[:, 2] + path[:, 3],
        mispricing=jnp.concatenate([start[4:], path[:, 4]]),
        drift=(phi[4] - 1.0) * path[:, 4],
    )


def _half_life_decay(half_life: float) -> float:
    return float(2.0 ** (-1.0 / half_life))


def _innovation_sd(params: config.Simulator) -> float:
    """Standard deviation of one bar's change of the mispricing, given the last, in log units."""
    phi = _half_life_decay(params.mispricing_half_life)
    return params.mispricing_sd_bp * BP * float((1.0 - phi**2) ** 0.5)


def _fast_variance(params: config.Simulator) -> float:
    return params.hour_volatility_sd**2 + params.minute_volatility_sd**2


def _overnight_gaps(draws: _Draws, day: jax.Array, params: config.Simulator) -> jax.Array:
    """Log gap before each bar, `[B]`: nonzero on the first bar of every session but the first."""
    session_sd = params.noise_bp * BP * params.bars_per_session**0.5
    gap = (
        params.overnight_ratio * session_sd * draws.gap * jnp.exp(day - params.day_volatility_sd**2)
    )
    by_bar = jnp.zeros((params.sessions, params.bars_per_session), jnp.float32)
    return by_bar.at[1:, 0].set(gap[1:]).reshape(params.sessions * params.bars_per_session)


def _bridge_extremes(
    change: jax.Array, sd: jax.Array, draws: _Draws
) -> tuple[jax.Array, jax.Array]:
    """Highest and lowest log price of a bar over its open, `[B]`, given its `change`.

    Each is drawn from the exact law of the extreme of a Brownian bridge, (b ± √(b² − 2sd² ln U))/2
    (Karatzas & Shreve 1991, 4.3.40); that the two are drawn independently is an approximation.
    """
    high = 0.5 * (change + jnp.sqrt(change**2 - 2.0 * sd**2 * jnp.log(draws.high)))
    low = 0.5 * (change - jnp.sqrt(change**2 - 2.0 * sd**2 * jnp.log(draws.low)))
    return high, low


def _volume(
    hidden: _Hidden, move: jax.Array, params: config.Simulator, bar_seconds: int
) -> jax.Array:
    """Volume of each bar, `[B]` whole shares, at least 1; a session's mean is `params.adv`."""
    log_volume = (
        hidden.volume
        + VOLUME_ON_MOVE * (jnp.abs(move) - MEAN_MOVE)
        + VOLUME_ON_VOLATILITY * hidden.fast
        + VOLUME_ON_DAY_VOLATILITY * jnp.repeat(hidden.day, params.bars_per_session)
    )
    variance = (
        VOLUME_SD[0] ** 2
        + VOLUME_SD[1] ** 2
        + VOLUME_ON_MOVE**2 * MOVE_VARIANCE
        + VOLUME_ON_VOLATILITY**2 * _fast_variance(params)
        + (VOLUME_ON_DAY_VOLATILITY * params.day_volatility_sd) ** 2
    )
    shape = jnp.tile(volume_shape(params.bars_per_session, bar_seconds), params.sessions)
    mean = params.adv / params.bars_per_session * shape
    return jnp.maximum(jnp.round(mean * jnp.exp(log_volume - 0.5 * variance)), 1.0)
