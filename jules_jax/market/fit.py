"""Calibration: the simulator's parameters from bars, for endless data that looks like them.

Moments with a closed form under the simulator's own law, so that fitting what it simulated gives
its parameters back. With h the log volatility and e the innovation, |z| = |e|·exp(h) has
E|z_t||z_{t+k}| / (E|z|)² = exp(cov(h_t, h_{t+k})) and E|z_t||z_{t+1}| / E z² = (E|e|)² times a
factor near 1; neither feels what an outlier does to fourth moments.

Sampling error (one sd) over 250 sessions: 3 % of noise_bp (the level of volatility moves from day
to day), 10 % of the volatility sds, 8 % of innovation_dof, 5 % of overnight_ratio, 2 % of adv, 6 %
of the excesses at the open, a third of the small one of volatility at the close. The rate of jumps
is known to a factor of two or three. Half-lives, the size of jumps and the edges stay as they are.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.bars import Bars
from jules_jax.market.simulator import BP, GAP_DOF

if TYPE_CHECKING:
    from jules_jax.market.source import Source

Float64 = NDArray[np.float64]

Bath = tuple[float, float, float, float]
"""Excess at the open, minutes in which it fades, and the same at the close."""

FLAT: Bath = (0.0, 1.0, 0.0, 1.0)

DEFAULTS = config.Simulator()
HALF_LIVES = (DEFAULTS.hour_volatility_half_life, DEFAULTS.minute_volatility_half_life)

FEWEST_SESSIONS = 5
"""Full sessions below which nothing is fitted."""

FEWEST_SLOTS = 4
"""Bars in a session below which nothing is fitted: one lag of returns and a shape need as many."""

SHAPED = 24
"""Bars in a session below which its shape stays flat: a bath has five numbers."""

MOST_EXCESS = 20.0
"""Largest excess at the open or close; opening minutes of shares are at 1 to 5."""

FULL = 0.9
"""Least share of a session's slots that traded for it to count."""

LAGS = 120
"""Bars over which the memory of volatility is read."""

JUMP = 8.0
"""Local volatilities beyond which a return is taken for a jump."""

NEIGHBOURS = 30
"""Bars on either side whose mean absolute return says what the local volatility is."""

DOF_RANGE = (3.0, 50.0)

FADES = np.geomspace(4.0, 120.0, 24)
"""Minutes of fading that are tried for the shapes of a session."""


def fit(bars: Bars, half_spread: float | None = None) -> dict[str, Any]:
    """Values of the simulator's section that make paths like `bars`; the rest keeps its value.

    `replace(config.Simulator(), **fit(bars))` simulates them; the mispricing is switched off (a
    preset's regimes stay), as no edge can be read off bars.

    Args:
      bars: one symbol `[B]` (NumPy), of a calendar whose sessions close or do not.
      half_spread: half the quoted spread in return units; by default that of the bars, else the
        estimate of Roll (1984).

    Raises:
      InputError: fewer than 5 sessions have nine tenths of their bars, or they have fewer than 4.
    """
    close, opening, volume = _by_session(bars)
    returns = np.diff(np.log(close), axis=1)
    if half_spread is None and bars.half_spread is not None:
        half_spread = float(np.mean(np.asarray(bars.half_spread)))
    covariance = np.nanmean(returns[:, 1:] * returns[:, :-1])
    bounce = max(-covariance, 0.0) if half_spread is None else half_spread**2
    minute = np.arange(close.shape[1]) * bars.bar_seconds / 60.0
    volatility = _volatility_shape(returns, minute)
    shape = _bath(volatility, minute, minute[-1])
    z = returns / (shape / np.sqrt(np.mean(shape**2)))[1:]
    jumps = _jumps(z)
    z = np.where(jumps, np.nan, z)
    components, square = _components(z), float(np.nanmean(z**2))
    noise = math.sqrt(max(square - 2.0 * bounce, 0.05 * square))
    dof = _degrees_of_freedom(z, components)
    slots = int(close.shape[1])
    return {
        "bars_per_session": slots,
        **_sessions(slots),
        "start_price": float(np.nanmedian(close)),
        "noise_bp": noise / BP,
        "spread_bps": 2.0 * math.sqrt(bounce) / BP,
        "innovation_dof": dof,
        "mispricing_sd_bp": 0.0,
        **components,
        **_named("volatility", volatility),
        **_volume(volume, minute),
        "jumps_per_session": _jumps_per_session(jumps, dof, components["minute_volatility_sd"]),
        "jump_scale": DEFAULTS.jump_scale,
        "overnight_ratio": _overnight(close, opening, noise, components),
    }


def as_yaml(one: Source) -> str:
    """The same of a symbol as YAML, to six digits: a file for `--config`.

    Its bars are as long, its ticks and quantities as small as the symbol's.
    """
    import yaml

    values = fit(one.bars)
    rounded = {name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in values.items()}
    market = {
        "bar_seconds": one.bars.bar_seconds,
        "tick": float(one.instrument.tick),
        "quantity_step": float(one.instrument.quantity_step),
    }
    return yaml.safe_dump({"market": market, "simulator": rounded}, sort_keys=False)


def _by_session(bars: Bars) -> tuple[Float64, Float64, Float64]:
    """Close, open and volume of full sessions, `[D, S]`, NaN where nothing traded."""
    session = np.asarray(bars.session) - int(np.min(np.asarray(bars.session)))
    slot = np.asarray(bars.bar_of_session)
    table = np.full((3, int(session.max()) + 1, bars.bars_per_session), np.nan)
    traded = np.asarray(bars.valid) & (slot < bars.bars_per_session)
    for row, values in zip(table, (bars.close, bars.open, bars.volume), strict=True):
        row[session[traded], slot[traded]] = np.asarray(values, np.float64)[traded]
    if bars.bars_per_session < FEWEST_SLOTS:
        raise InputError(
            f"fit: {bars.bars_per_session} bars in a session, expected at least {FEWEST_SLOTS}"
        )
    full = np.isfinite(table[0]).mean(axis=1) >= FULL
    if full.sum() < FEWEST_SESSIONS:
        raise InputError(
            f"fit: {int(full.sum())} full sessions found, expected at least {FEWEST_SESSIONS} "
            f"with nine tenths of {bars.bars_per_session} bars"
        )
    close, opening, volume = table[:, full]
    return close, opening, volume


def _sessions(slots: int) -> dict[str, int]:
    """More sessions in a path where they are short, so that it has as many bars as by default."""
    enough = -(-DEFAULTS.sessions * DEFAULTS.bars_per_session // slots)
    return {"sessions": enough} if enough > DEFAULTS.sessions else {}


def _volatility_shape(returns: Float64, minute: Float64) -> Bath:
    """The bath of mean absolute returns by slot; each session counts alike."""
    size = np.abs(returns)
    by_slot = np.nanmean(size / np.nanmean(size, axis=1, keepdims=True), axis=0)
    return _fit_bath(by_slot, minute[1:], minute[-1])


def _fit_bath(values: Float64, minute: Float64, last: float) -> Bath:
    """Excess and minutes at the open and at the close of the bath nearest to `values`.

    1 + a·exp(−m/b) + c·exp(−(last − m)/d), times a level: linear in it, a and c, so b and d are
    tried, from the length of a bar on; an excess is at least 0 and at most `MOST_EXCESS`. Flat for
    fewer than `SHAPED` slots.
    """
    kept = np.isfinite(values)
    if kept.sum() < SHAPED - 2:  # the auctions are left out
        return FLAT
    fades = FADES[minute[1] - minute[0] <= FADES]
    values, minute = values[kept], minute[kept]
    best, bath = math.inf, FLAT
    for opens, closes in itertools.product(fades, fades):
        rise, fall = np.exp(-minute / opens), np.exp((minute - last) / closes)
        basis = np.stack([np.ones_like(rise), rise, fall], axis=1)
        level, *excess = np.linalg.lstsq(basis, values, rcond=None)[0]
        high, low = (min(max(float(x / max(level, 1e-9)), 0.0), MOST_EXCESS) for x in excess)
        shape = 1.0 + high * rise + low * fall
        error = float(np.sum((values - shape * (shape @ values) / (shape @ shape)) ** 2))
        if error < best:
            best, bath = error, (high, float(opens), low, float(closes))
    return bath


def _bath(bath: Bath, minute: Float64, last: float) -> Float64:
    high, opens, low, closes = bath
    return 1.0 + high * np.exp(-minute / opens) + low * np.exp((minute - last) / closes)


def _named(what: str, bath: Bath) -> dict[str, float]:
    names = (f"open_{what}", f"open_{what}_minutes", f"close_{what}", f"close_{what}_minutes")
    return dict(zip(names, bath, strict=True))


def _volume(volume: Float64, minute: Float64) -> dict[str, float]:
    """Level and shape of volume, the auctions apart; nothing for a source without volume."""
    mean = np.nanmean(volume, axis=1, keepdims=True)
    if not (mean > 0).all():
        return {}
    by_slot = np.nanmean(volume / mean, axis=0)
    bath = _fit_bath(by_slot[1:-1], minute[1:-1], minute[-1])
    smooth = _bath(bath, minute, minute[-1])
    relative = by_slot / smooth
    auctions = relative[[0, -1]] / np.nanmean(relative[1:-1])
    first, last = np.where(np.isfinite(auctions), np.maximum(auctions, 0.01), 1.0)
    return {
        "adv": float(mean.mean()) * len(minute),
        **_named("volume", bath),
        "first_bar_volume": float(first),
        "last_bar_volume": float(last),
    }


def _jumps(z: Float64) -> NDArray[np.bool_]:
    """Where a return is beyond 8 local volatilities, `[D, S − 1]` bool."""
    size, known = np.nan_to_num(np.abs(z)), np.isfinite(z)
    window = np.ones(2 * NEIGHBOURS + 1)
    window[NEIGHBOURS] = 0.0
    # full and cut, as "same" is as long as the window where that is longer than a session
    total, count = (
        np.stack([np.convolve(row, window)[NEIGHBOURS:-NEIGHBOURS] for row in rows])
        for rows in (size, known.astype(float))
    )
    mean_normal = math.sqrt(2.0 / math.pi)
    local = total / np.maximum(count, 1.0) / mean_normal
    jumps: NDArray[np.bool_] = known & (size > JUMP * local) & (local > 0)
    return jumps


def _jumps_per_session(jumps: NDArray[np.bool_], dof: float, fast_sd: float) -> float:
    """Expected number of jumps, from those beyond 8 local volatilities and the share that are.

    What the innovations alone send there is taken off, volatility being lognormal with `fast_sd`
    around its local mean.
    """
    grid = np.geomspace(0.5 * JUMP, 1e3, 4000) * math.sqrt(dof / (dof - 2.0))
    scale = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
    mass = np.exp(scale - (dof + 1) / 2 * np.log1p(grid**2 / dof)) * np.gradient(grid)
    beyond = 2.0 * np.cumsum(mass[::-1])[::-1]
    normal = np.linspace(-4.0, 4.0, 81)
    weights = np.exp(-0.5 * normal**2)
    threshold = JUMP * np.exp(0.5 * fast_sd**2 - fast_sd * normal)
    tails = np.interp(threshold * grid[0] / (0.5 * JUMP), grid, beyond)
    without = float(weights @ tails / weights.sum())
    seen = math.erfc(JUMP / math.sqrt(2.0 * (1.0 + DEFAULTS.jump_scale**2)))
    excess = max(float(jumps.mean()) - without, 0.0)
    return float(excess / seen * (jumps.shape[1] + 1))


def _components(z: Float64) -> dict[str, float]:
    """Standard deviations of the three components of log volatility, and the day's memory.

    The log of E|z_t||z_{t+k}| / (E|z|)² is a sum of three known decays with weights of at least 0.
    """
    size = np.abs(z)
    level = np.nanmean(size) ** 2
    lags = np.arange(1, min(LAGS, z.shape[1] // 2) + 1)
    covariance = np.log([np.nanmean(size[:, k:] * size[:, :-k]) / level for k in lags])
    decays = np.stack([np.ones(len(lags)), *(0.5 ** (lags / half) for half in HALF_LIVES)], axis=1)
    variance = _nonnegative_least_squares(decays, covariance)
    by_session = np.nanmean(size, axis=1)
    across = math.log(np.mean(by_session[1:] * by_session[:-1]) / np.mean(by_session) ** 2)
    memory = across / variance[0] if variance[0] > 0 else 0.0
    return {
        "day_volatility_sd": math.sqrt(variance[0]),
        "day_volatility_ar": float(np.clip(memory, 0.0, 0.98)),
        "hour_volatility_sd": math.sqrt(variance[1]),
        "minute_volatility_sd": math.sqrt(variance[2]),
    }


def _nonnegative_least_squares(basis: Float64, target: Float64) -> Float64:
    """Coefficients of the best fit in which none is negative: all subsets of few columns."""
    columns = basis.shape[1]
    best, found = float(target @ target), np.zeros(columns)
    for kept in itertools.product((False, True), repeat=columns):
        if any(kept):
            part = np.linalg.lstsq(basis[:, kept], target, rcond=None)[0]
            error = float(np.sum((target - basis[:, kept] @ part) ** 2))
            if part.min() >= 0 and error < best:
                best, found = error, np.zeros(columns)
                found[list(kept)] = part
    return found


def _degrees_of_freedom(z: Float64, components: dict[str, float]) -> float:
    """Of the Student-t whose squared mean absolute value is that of the innovations."""
    size = np.abs(z)
    ratio = np.nanmean(size[:, 1:] * size[:, :-1]) / np.nanmean(z**2)
    sds = (components["hour_volatility_sd"], components["minute_volatility_sd"])
    forgotten = sum(sd**2 * (1.0 - 0.5 ** (1.0 / n)) for sd, n in zip(sds, HALF_LIVES, strict=True))
    grid = np.geomspace(*DOF_RANGE, 400)
    squares = np.array([mean_absolute_t(dof) ** 2 for dof in grid])  # rising
    return float(np.interp(ratio * math.exp(forgotten), squares, grid))


def mean_absolute_t(dof: float) -> float:
    """Mean absolute value of a Student-t of unit variance; √(2/π) of a normal."""
    gammas = math.lgamma((dof + 1.0) / 2.0) - math.lgamma(dof / 2.0)
    return 2.0 * math.sqrt((dof - 2.0) / math.pi) * math.exp(gammas) / (dof - 1.0)


def _overnight(
    close: Float64, opening: Float64, noise: float, components: dict[str, float]
) -> float:
    """Sd of the gap over that of a session, from the mean absolute gap: t(4) tails are heavy."""
    gaps = np.log(opening[1:, 0] / close[:-1, -1])
    if not np.isfinite(gaps).any():
        return DEFAULTS.overnight_ratio
    scale = mean_absolute_t(GAP_DOF) * math.exp(-0.5 * components["day_volatility_sd"] ** 2)
    return float(np.nanmean(np.abs(gaps))) / (scale * noise * math.sqrt(close.shape[1]))
