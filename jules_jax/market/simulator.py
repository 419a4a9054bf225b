"""The synthetic market: one-minute bars of a US large cap with a planted, known, bounded edge.

The mid price is an efficient part (fat-tailed, with three speeds of volatility, a daily shape,
rare jumps and overnight gaps) and one of two hidden edges. Presets `easy` and `null` have a
mispricing that reverts (Ornstein-Uhlenbeck), so that it can be traded, or is a martingale with the
same innovations, so that nothing can. Presets `default`, `hard` and `stress` have a hidden regime
(`regimes.py`): the mid returns to its VWAP, follows its EMA or does neither. Prints bounce between
bid and ask as in Roll (1984). Paths of one market share a factor and the volatility of the day.
Parameters and their sources are in `config.Simulator`; constants without another source are fits
to one-minute bars of SPY and AAPL, 2014 to 2015. `fit.py` calibrates the parameters to bars.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax import config
from jules_jax.market import randomness, regimes
from jules_jax.market.bars import Bars

BP = 1e-4

VOLUME_DECAY, VOLUME_SD = (0.97, 0.5), (0.30, 0.35)
"""Autocorrelation per bar and sd of the two components of log volume that are its own."""

VOLUME_ON_MOVE, MEAN_MOVE, MOVE_VARIANCE = 0.30, 0.8, 0.4
VOLUME_ON_VOLATILITY, VOLUME_ON_DAY_VOLATILITY = 0.6, 0.5
"""How log volume answers to the bar's standardised absolute move, whose mean and variance follow,
and to log volatility."""

GAP_DOF = 4.0
"""Degrees of freedom of the overnight gap."""

MARKET_STREAM = 0x6D61726B
"""Tells the key of a market from the keys of paths."""


class Latent(NamedTuple):
    """What the bars hide, `[B]` each, for a policy that is told the truth."""

    mispricing: jax.Array  # ln(mid / efficient price) at the close
    drift: jax.Array  # expected log return of the mid from this close to the next, gaps aside
    mid: jax.Array  # dollars, at the close
    regime: jax.Array  # int32, `regimes.REVERTING` to `TRENDING`, of the bar after this close


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
    regime: jax.Array  # [B + 1] uint32 bits, the first for the start


class _Hidden(NamedTuple):
    """The autoregressive parts of one path, `[B]` each but `day` `[D]`; means 0."""

    day: jax.Array  # log volatility of each session
    fast: jax.Array  # log volatility of each bar within it: hour and minutes
    volume: jax.Array  # log volume of each bar, its own part
    mispricing: jax.Array  # [B + 1], at the start and at every close
    drift: jax.Array  # expected change of the mispricing after each close


def simulate_path(
    key: jax.Array,
    index: jax.Array,
    params: config.Simulator,
    half_spread: float,
    bar_seconds: int = 60,
) -> Bars:
    """Bars of path `index` (int32 scalar) of a generation: pure in all, whatever `params.paths`.

    Paths i·n to i·n + n − 1, n being `params.symbols_per_market`, share market i.
    """
    return simulate_path_with_latent(key, index, params, half_spread, bar_seconds)[0]


def simulate_path_with_latent(
    key: jax.Array,
    index: jax.Array,
    params: config.Simulator,
    half_spread: float,
    bar_seconds: int = 60,
) -> tuple[Bars, Latent]:
    """The same, and what the bars hide."""
    market = jax.random.fold_in(
        jax.random.fold_in(key, MARKET_STREAM), index // params.symbols_per_market
    )
    return simulate_with_latent(
        jax.random.fold_in(key, index), params, half_spread, bar_seconds, market
    )


def simulate(
    key: jax.Array,
    params: config.Simulator,
    half_spread: float,
    bar_seconds: int = 60,
    market_key: jax.Array | None = None,
) -> Bars:
    """Bars of one path, `[sessions · bars_per_session]`; see `simulate_with_latent`."""
    return simulate_with_latent(key, params, half_spread, bar_seconds, market_key)[0]


def simulate_with_latent(
    key: jax.Array,
    params: config.Simulator,
    half_spread: float,
    bar_seconds: int = 60,
    market_key: jax.Array | None = None,
) -> tuple[Bars, Latent]:
    """Bars of one path and what they hide: a pure function of its arguments; vmap it over keys.

    The open is the mid at which the previous bar closed, times the overnight gap at the first bar
    of a session. It does not bounce: orders fill at the open, and one that faded the side of the
    last print would otherwise earn the half-spread back. The close prints at the bid or the ask
    with even odds, the high at the ask and the low at the bid, hence low ≤ open, close ≤ high.

    Args:
      key: typed PRNG key, of the path.
      params: the simulator's section of the configuration; numbers may be traced float32 scalars.
      half_spread: half the quoted spread of the prints, in return units.
      bar_seconds: length of a bar; half-lives are in bars, shapes within a session in minutes.
      market_key: typed PRNG key of the market that paths share where `params.symbols_per_market`
        is above 1; not used otherwise, nor if there is none.
    """
    slots = params.bars_per_session
    draws = _draw(key, params)
    if market_key is not None and params.symbols_per_market > 1:
        draws = _share(draws, _draw(market_key, params), params.market_correlation)
    hidden = _hidden(draws, params)
    sigma = _volatility(hidden, params, bar_seconds)
    jumps = draws.jumps < params.jumps_per_session / slots
    efficient = sigma * (draws.shock + jnp.where(jumps, params.jump_scale * draws.jump, 0.0))
    bar_sd = jnp.sqrt(sigma**2 + _innovation_sd(params) ** 2)
    surprise = efficient + jnp.diff(hidden.mispricing)
    volume = _volume(hidden, surprise / bar_sd, params, bar_seconds)
    gap = _overnight_gaps(draws, hidden.day, params)
    regime, drift = regimes.drift(draws.regime, surprise, gap, volume, sigma, params)
    change = surprise + drift[:-1]
    start = hidden.mispricing[:1]
    mid = params.start_price * jnp.exp(start + jnp.cumsum(change + gap))
    previous_mid = jnp.concatenate([params.start_price * jnp.exp(start), mid[:-1]])
    opening = previous_mid * jnp.exp(gap)

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
        volume=volume,
        session=jnp.repeat(jnp.arange(params.sessions, dtype=jnp.int32), slots),
        bar_of_session=slot,
        minute=slot * bar_seconds // 60,
        session_length=jnp.full(slot.shape, slots * bar_seconds // 60, jnp.int32),
        valid=jnp.ones(slot.shape, bool),
        bar_seconds=bar_seconds,
        bars_per_session=slots,
    )
    return bars, Latent(hidden.mispricing[1:], hidden.drift + drift[1:], mid, regime)


def _volatility(hidden: _Hidden, params: config.Simulator, bar_seconds: int) -> jax.Array:
    """Sd of each bar's efficient return, jumps aside, `[B]`; its mean square is noise_bp²."""
    variance = params.day_volatility_sd**2 + _fast_variance(params)
    log_volatility = _by_bar(hidden.day, params) + hidden.fast - variance
    shape = _by_slot(volatility_shape(params, bar_seconds), params)
    return params.noise_bp * BP * shape * jnp.exp(log_volatility)


def volatility_shape(params: config.Simulator, bar_seconds: int = 60) -> jax.Array:
    """Volatility of each slot of a session, `[bars_per_session]`, with mean square 1."""
    shape = _bath(
        params.bars_per_session,
        bar_seconds,
        (params.open_volatility, params.open_volatility_minutes),
        (params.close_volatility, params.close_volatility_minutes),
    )
    return shape / jnp.sqrt(jnp.mean(shape**2))


def volume_shape(params: config.Simulator, bar_seconds: int = 60) -> jax.Array:
    """Expected volume of each slot of a session, `[bars_per_session]`, with mean 1."""
    shape = _bath(
        params.bars_per_session,
        bar_seconds,
        (params.open_volume, params.open_volume_minutes),
        (params.close_volume, params.close_volume_minutes),
    )
    shape = shape.at[0].multiply(params.first_bar_volume)
    shape = shape.at[-1].multiply(params.last_bar_volume)
    return shape / jnp.mean(shape)


def _bath(
    slots: int, bar_seconds: int, opening: tuple[float, float], closing: tuple[float, float]
) -> jax.Array:
    minute = jnp.arange(slots, dtype=jnp.float32) * (bar_seconds / 60.0)
    rise = opening[0] * jnp.exp(-minute / opening[1])
    return 1.0 + rise + closing[0] * jnp.exp(-minute[::-1] / closing[1])


def _by_bar(by_session: jax.Array, params: config.Simulator) -> jax.Array:
    """Values of sessions `[D]` for each of their bars, `[B]`."""
    return jnp.repeat(by_session, params.bars_per_session)


def _by_slot(by_slot: jax.Array, params: config.Simulator) -> jax.Array:
    """Values of slots `[bars_per_session]` for each bar, `[B]`."""
    return jnp.tile(by_slot, params.sessions)


def _draw(key: jax.Array, params: config.Simulator) -> _Draws:
    """All random numbers of one path."""
    days, bars = params.sessions, params.sessions * params.bars_per_session
    by_bar, by_day, start = jnp.split(
        randomness.words(key, 6 * bars + 2 * days + 4), [12 * bars, 12 * bars + 4 * days]
    )
    radius, angle, jumps, high, low, regime, *normals = by_bar.reshape(12, bars)
    gap_radius, gap_angle, day, _ = by_day.reshape(4, days)
    return _Draws(
        shock=_student_t(radius, angle, params.innovation_dof),
        gap=_student_t(gap_radius, gap_angle, GAP_DOF),
        jump=randomness.normal(normals[0]),
        day=randomness.normal(day),
        noise=randomness.normal(jnp.stack(normals[1:], axis=-1)),
        start=randomness.normal(start[:6]),
        jumps=randomness.uniform(jumps),
        high=randomness.uniform(high),
        low=randomness.uniform(low),
        side=jnp.where(angle & 1, jnp.float32(1.0), jnp.float32(-1.0)),  # a bit `uniform` leaves
        regime=jnp.concatenate([start[6:7], regime]),
    )


def _student_t(radius: jax.Array, angle: jax.Array, dof: float) -> jax.Array:
    return randomness.student_t(randomness.uniform(radius), randomness.uniform(angle), dof)


def _share(own: _Draws, market: _Draws, correlation: float) -> _Draws:
    """Draws of a path in a market: shocks and gaps of one factor, the day's volatility in common.

    The mixture of two Student-t variables has thinner tails than either.
    """
    common, rest = correlation**0.5, (1.0 - correlation) ** 0.5
    return own._replace(
        shock=common * market.shock + rest * own.shock,
        gap=common * market.gap + rest * own.gap,
        day=market.day,
        start=own.start.at[5].set(market.start[5]),
    )


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
    decay: float = 2.0 ** (-1.0 / half_life)
    return decay


def _innovation_sd(params: config.Simulator) -> float:
    """Standard deviation of one bar's change of the mispricing, given the last, in log units."""
    phi = _half_life_decay(params.mispricing_half_life)
    sd: float = params.mispricing_sd_bp * BP * (1.0 - phi**2) ** 0.5
    return sd


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
        + VOLUME_ON_DAY_VOLATILITY * _by_bar(hidden.day, params)
    )
    variance = (
        VOLUME_SD[0] ** 2
        + VOLUME_SD[1] ** 2
        + VOLUME_ON_MOVE**2 * MOVE_VARIANCE
        + VOLUME_ON_VOLATILITY**2 * _fast_variance(params)
        + (VOLUME_ON_DAY_VOLATILITY * params.day_volatility_sd) ** 2
    )
    shape = _by_slot(volume_shape(params, bar_seconds), params)
    mean = params.adv / params.bars_per_session * shape
    return jnp.maximum(jnp.round(mean * jnp.exp(log_volume - 0.5 * variance)), 1.0)
