"""Stylised facts: what minute bars of real markets have in common, measured on any bars.

Bars are laid out as one row per session and one column per slot; every statistic pools products
and sums *within* sessions, with one mean for all of them, so that levels of volatility that differ
from day to day count. A return is log close over the close one bar earlier in the same session; at
a session's first bar, log close over open. Overnight moves are in no return. Early closes and stubs
(sessions whose bars span less than three quarters of the slots) are left out. Survey of the facts:
Cont 2001, Empirical properties of asset returns, Quantitative Finance 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jules_jax.errors import InputError
from jules_jax.market.bars import Bars

Float64 = NDArray[np.float64]

BP = 1e-4
MAX_LAG = 120
"""Autocorrelations are measured up to this many bars."""
LAGS = (1, 5, 10, 30, 60, 120)
HORIZONS = (2, 5, 15, 30, 60)
"""Lags and horizons, in bars, that tables show."""
SMOOTHING = 11
"""Slots averaged for the daily shape that deseasonalising divides by."""
TAIL_SHARE = 0.05
"""Share of the largest moves that the Hill estimator looks at."""
LEVERAGE_BARS = 10
"""Bars after a return whose mean absolute move the leverage correlation takes."""
SPAN = 0.75
"""Least share of a session's slots between its first and its last bar."""
TAIL_POINTS = np.geomspace(0.1, 30.0, 80)
"""Sizes, in standard deviations, at which the tail is stored."""
NORMAL_POINTS = np.linspace(-4.0, 4.0, 81)
"""Standard normal quantiles at which those of the returns are stored."""

SCORES = 2000
"""Quantiles of standardised returns that stand for them in distances."""


@dataclass(frozen=True)
class Facts:
    """Measured facts; NaN where bars do not say (volume of an index, overnight moves of 24/7).

    *Size* is the absolute return over the smoothed mean absolute return of its slot; *z* is the
    return over the same. Arrays over lags start at lag 1, `[120]`; `H` is half hours in a session.
    """

    sessions: int
    returns: int
    sd: float  # of a return, return units
    open_to_close_sd: float  # of log last close over first open, return units
    overnight_sd: float  # of log first open over the last close before, return units
    overnight_share: float  # of the variance of a day: overnight over overnight + open to close
    kurtosis: float  # m4 / m2², normal 3
    kurtosis_deseasonalised: float  # of z
    kurtosis_by_session: float  # of returns over their session's sd
    beyond_4sd: float  # share of z beyond 4 sd; normal 6e-5
    tail_index: float  # Hill, largest 5 % of |return over its session's sd|
    student_dof: float  # of a Student-t fitted to z by maximum likelihood
    zero_share: float  # of returns that are exactly 0
    acf_return: Float64  # [120]
    acf_return_error: Float64  # [120] heteroskedasticity-robust standard errors around 0
    acf_size: Float64  # [120]
    size_acf_slope: float  # d log ACF / d log lag of size, lags 1 to 60; NaN unless all above 0
    variance_ratio: Float64  # [120] of horizons 1 to 120
    variance_ratio_z: Float64  # [120] robust z statistics of the same against 1 (NaN at 1)
    hurst_return: float  # aggregated variance, horizons 2 to 60
    hurst_size: float
    leverage: float  # corr(z now, mean size of the next 10 bars)
    volume_volatility: float  # corr(size, log volume deseasonalised)
    acf_volume: Float64  # [120] of log volume deseasonalised
    acf_volume_within: Float64  # [120] the same around each session's own mean
    volatility_shape: Float64  # [H] mean absolute return over that of all bars
    volume_shape: Float64  # [H] share of a session's volume, times H
    volatility_shape_f: float  # F statistic of equal half hours, of each session's own shape
    volume_shape_f: float
    rv_cv: float  # sd over mean of realised volatility (√Σr²) across sessions
    rv_acf: float  # its autocorrelation from one session to the next
    log_rv_sd: float  # sd of its logarithm
    tail: Float64  # [80] share of |z| beyond TAIL_POINTS sd
    quantiles: Float64  # [81] of z in sd, at the probabilities of NORMAL_POINTS
    scores: Float64  # [2000] quantiles of (r − mean) / sd, at evenly spread probabilities
    scores_of_halves: Float64  # [2, 2000] the same of the odd and of the even sessions
    paths: int = 1  # whose median these facts are

    def rows(self) -> dict[str, float]:
        """The numbers of a table, by the names of `REFERENCE`."""
        lagged = {
            "ACF of r": self.acf_return,
            "ACF of |r|": self.acf_size,
            "ACF of log volume": self.acf_volume,
            "ACF of log volume within": self.acf_volume_within,
        }
        return {
            "sd of r, bp": self.sd / BP,
            "open-to-close sd, bp": self.open_to_close_sd / BP,
            "overnight / open-to-close sd": self.overnight_sd / self.open_to_close_sd,
            "overnight share of variance": self.overnight_share,
            "kurtosis": self.kurtosis,
            "kurtosis, deseasonalised": self.kurtosis_deseasonalised,
            "kurtosis, by session": self.kurtosis_by_session,
            "tail index (Hill)": self.tail_index,
            "Student-t dof": self.student_dof,
            "beyond 4 sd, per 10,000": 1e4 * self.beyond_4sd,
            "zero returns": self.zero_share,
            **{
                f"{name}, {lag}": float(acf[lag - 1])
                for name, acf in lagged.items()
                for lag in LAGS
            },
            "slope of log ACF of |r|": self.size_acf_slope,
            **{f"variance ratio, {q}": float(self.variance_ratio[q - 1]) for q in HORIZONS},
            **{f"variance ratio z, {q}": float(self.variance_ratio_z[q - 1]) for q in HORIZONS},
            "Hurst of r": self.hurst_return,
            "Hurst of |r|": self.hurst_size,
            "leverage": self.leverage,
            "corr(|r|, log volume)": self.volume_volatility,
            **_shape_rows("volatility", self.volatility_shape, self.volatility_shape_f),
            **_shape_rows("volume", self.volume_shape, self.volume_shape_f),
            "daily volatility: cv": self.rv_cv,
            "daily volatility: ACF, 1": self.rv_acf,
            "daily volatility: sd of log": self.log_rv_sd,
        }


REFERENCE: dict[str, tuple[float, float]] = {
    "sd of r, bp": (3.1, 6.8),
    "open-to-close sd, bp": (61.0, 124.0),
    "overnight / open-to-close sd": (0.50, 0.75),
    "kurtosis": (8.0, 125.0),
    "kurtosis, deseasonalised": (5.5, 6.7),
    "Student-t dof": (3.6, 4.2),
    "beyond 4 sd, per 10,000": (32.0, 43.0),
    "ACF of r, 1": (-0.071, -0.009),
    "ACF of |r|, 1": (0.21, 0.22),
    "ACF of |r|, 5": (0.18, 0.21),
    "ACF of |r|, 10": (0.17, 0.19),
    "ACF of |r|, 30": (0.16, 0.18),
    "ACF of |r|, 60": (0.15, 0.17),
    "ACF of |r|, 120": (0.12, 0.15),
    **{f"variance ratio, {q}": (0.82, 1.08) for q in HORIZONS},
    "corr(|r|, log volume)": (0.37, 0.46),
    "ACF of log volume, 1": (0.42, 0.62),
    "ACF of log volume, 5": (0.31, 0.48),
    "ACF of log volume, 30": (0.24, 0.37),
    "leverage": (-0.038, -0.013),
    "zero returns": (0.03, 0.06),
    "daily volatility: cv": (0.30, 0.37),
    "daily volatility: ACF, 1": (0.5, 0.7),
}
"""Measured ranges over one-minute bars of SPY, QQQ, IWM, DIA, AAPL and FB, regular hours, November
2014 to July 2015 (145 to 151 sessions each; the ACF of |r| and zero returns: SPY and AAPL)."""


class Check(NamedTuple):
    """One line of the battery: passes where low ≤ value ≤ high."""

    name: str
    value: float
    low: float
    high: float
    passes: bool


class _Sessions(NamedTuple):
    """Bars by session and slot, NaN where there is none."""

    open: Float64  # [S, K] dollars
    close: Float64
    volume: Float64
    path: NDArray[np.int64]  # [S] path or symbol that a session is of


def measure(bars: Bars) -> Facts:
    """The facts of one symbol or path `[B]`, or of several `[P, B]` pooled.

    A bar that is not `valid` counts as absent. Lags and horizons count bars: the names and the
    reference ranges of tables are those of one-minute bars.

    Raises:
      InputError: fewer than two full sessions.
    """
    sessions = _lay_out(bars)
    returns = _returns(sessions)
    shape = _slot_mean(np.abs(returns))
    z = returns / shape
    size = np.abs(z)
    log_volume = np.log(np.where(sessions.volume > 0, sessions.volume, np.nan))
    volume = log_volume - _slot_mean(log_volume)
    within = log_volume - _mean(log_volume, axis=1)[:, None]
    acf_return, error = _autocorrelation(returns)
    acf_size, _ = _autocorrelation(size)
    ratio, ratio_z = _variance_ratio(acf_return, error)
    half_hours = max(1, 1800 // bars.bar_seconds)
    by_session = returns / _sd(returns, axis=1)[:, None]
    tail, quantiles = _distribution(z)
    return Facts(
        sessions=len(returns),
        returns=int(np.isfinite(returns).sum()),
        sd=float(_sd(returns)),
        **_daily(sessions, returns, bars.continuous),
        kurtosis=_kurtosis(returns),
        kurtosis_deseasonalised=_kurtosis(z),
        kurtosis_by_session=_kurtosis(by_session),
        beyond_4sd=float((size[np.isfinite(size)] > 4.0 * _sd(z)).mean()),
        tail_index=_hill(by_session),
        student_dof=_student_dof(z),
        zero_share=float((returns[np.isfinite(returns)] == 0).mean()),
        acf_return=acf_return,
        acf_return_error=error,
        acf_size=acf_size,
        size_acf_slope=_log_slope(acf_size[:60], 1),
        variance_ratio=ratio,
        variance_ratio_z=ratio_z,
        hurst_return=_hurst(ratio),
        hurst_size=_hurst(_variance_ratio(acf_size, error)[0]),
        leverage=_leverage(z, size),
        volume_volatility=_correlation(size, volume),
        acf_volume=_autocorrelation(volume)[0],
        acf_volume_within=_autocorrelation(within - _slot_mean(within))[0],
        **_half_hour_shapes(np.abs(returns), sessions.volume, half_hours),
        tail=tail,
        quantiles=quantiles,
        scores=_scores(returns),
        scores_of_halves=np.stack([_scores(returns[::2]), _scores(returns[1::2])]),
    )


def median(measured: Sequence[Facts]) -> Facts:
    """The median of every fact over paths, each measured by itself.

    One heavy-tailed overnight gap then decides on no fact of a whole sample; pooling would let it.
    The upper median of an even number; NaN where most paths have none.
    """
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(Facts)):
        every = np.sort([getattr(facts, name) for facts in measured], axis=0)
        middle = every[len(measured) // 2]
        values[name] = middle if middle.ndim else middle.item()
    return replace(Facts(**values), paths=len(measured))


def _lay_out(bars: Bars) -> _Sessions:
    """The full sessions of all paths, `[S, K]`."""
    close = np.atleast_2d(np.asarray(bars.close, np.float64))

    def column(values: Any) -> NDArray[Any]:
        return np.broadcast_to(np.asarray(values), close.shape).reshape(-1)

    valid, slot = column(bars.valid), column(bars.bar_of_session)
    length = column(bars.session_length)
    path = np.repeat(np.arange(len(close)), close.shape[1])
    keys = np.stack([path, column(bars.session)], axis=1)
    kept = valid & (length == length.max())
    names, row = np.unique(keys[kept], axis=0, return_inverse=True)
    slots = max(bars.bars_per_session, int(slot.max()) + 1)

    def grid(values: Any) -> Float64:
        laid = np.full((len(names), slots), np.nan)
        laid[row.reshape(-1), slot[kept]] = column(values)[kept]
        return laid

    prices = grid(close)
    there = np.isfinite(prices)
    span = slots - np.argmax(there[:, ::-1], axis=1) - np.argmax(there, axis=1)
    full = span >= SPAN * slots
    if full.sum() < 2:
        raise InputError(
            f"{full.sum()} full sessions of bars found, expected at least 2 to measure"
        )
    return _Sessions(
        grid(bars.open)[full], prices[full], grid(bars.volume)[full], names[full, 0]
    )  # fmt: skip


def _returns(sessions: _Sessions) -> Float64:
    """Log returns `[S, K]`, NaN after a missing bar; close over open at a session's first bar."""
    log_close = np.log(sessions.close)
    returns = np.diff(log_close, axis=1, prepend=np.nan)
    first = np.argmax(np.isfinite(log_close), axis=1)
    index = np.arange(len(first)), first
    returns[index] = log_close[index] - np.log(sessions.open[index])
    return returns


def _mean(x: Float64, axis: int | None = None) -> Any:
    """Mean of what is not NaN; NaN, without a warning, where nothing is."""
    there = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        return np.where(there, x, 0.0).sum(axis) / there.sum(axis)


def _sd(x: Float64, axis: int | None = None) -> Any:
    mean = _mean(x, axis)
    return np.sqrt(_mean((x - (mean if axis is None else np.expand_dims(mean, axis))) ** 2, axis))


def _slot_mean(x: Float64) -> Float64:
    """Mean of each slot `[K]` over sessions, smoothed over `SMOOTHING` slots around it."""
    there, window = np.isfinite(x), np.ones(SMOOTHING)
    total = np.convolve(np.where(there, x, 0.0).sum(axis=0), window, "full")
    count = np.convolve(there.sum(axis=0), window, "full")
    with np.errstate(invalid="ignore"):
        smooth: Float64 = (total / count)[SMOOTHING // 2 :][: x.shape[1]]
    return smooth


def _kurtosis(x: Float64) -> float:
    x = x - _mean(x)
    return float(_mean(x**4) / _mean(x**2) ** 2)


def _hill(x: Float64) -> float:
    """Hill's estimate of the tail exponent from the largest `TAIL_SHARE` of |x| (Hill 1975)."""
    size = np.sort(np.abs(x[np.isfinite(x)]))[::-1]
    count = max(1, int(TAIL_SHARE * len(size)))
    return float(1.0 / np.mean(np.log(size[:count] / size[count])))


def _student_dof(x: Float64) -> float:
    """Degrees of freedom of a Student-t with location 0 and free scale, by maximum likelihood.

    The scale is found by expectation maximisation (Liu & Rubin 1995) on a histogram of log |x|,
    whose bins are 2 % wide, for every point of a grid of degrees of freedom, 1.5 to 100.
    """
    size = np.abs(x[np.isfinite(x) & (x != 0)])
    bins = np.floor(np.log(size / np.median(size)) / 0.02).astype(np.int64)
    values, counts = np.unique(bins, return_counts=True)
    square = np.exp(0.04 * (values + 0.5))
    weight = counts / counts.sum()
    dof = np.geomspace(1.5, 100.0, 150)[:, None]
    scale2 = np.ones_like(dof)
    for _ in range(40):
        scale2 = ((dof + 1) / (dof * scale2 + square) * square * scale2) @ weight[:, None]
    nu = dof[:, 0]
    gammas = np.array([math.lgamma((n + 1) / 2) - math.lgamma(n / 2) for n in nu])
    spread = -0.5 * np.log(nu * scale2[:, 0])
    body = -0.5 * (nu + 1) * (np.log1p(square / (dof * scale2)) @ weight)
    return float(nu[np.argmax(gammas + spread + body)])


def _autocorrelation(x: Float64) -> tuple[Float64, Float64]:
    """Autocorrelations `[120]` within sessions around one mean, and their robust errors.

    A lag's mean product is over the pairs there are. The errors are those of White (1980) under no
    correlation: what Lo & MacKinlay (1988, section 1.2) call δ.
    """
    there = np.isfinite(x)
    x = np.where(there, x - _mean(x), 0.0)
    variance = (x**2).sum() / max(1, there.sum())
    acf, error = np.full(MAX_LAG, np.nan), np.full(MAX_LAG, np.nan)
    for lag in range(1, min(MAX_LAG, x.shape[1] - 1) + 1):
        product = x[:, lag:] * x[:, :-lag]
        pairs = np.count_nonzero(there[:, lag:] & there[:, :-lag])
        if pairs and variance > 0:
            acf[lag - 1] = product.sum() / (pairs * variance)
            error[lag - 1] = np.sqrt((product**2).sum()) / (pairs * variance)
    return acf, error


def _variance_ratio(acf: Float64, error: Float64) -> tuple[Float64, Float64]:
    """Variance ratios `[120]` of horizons 1 to 120 and their robust z (Lo & MacKinlay 1988).

    VR(q) = 1 + 2 Σ (1 − j/q) ρ_j, equation 8. Sums of returns over windows would weigh the first
    and last bars of a session less than the others, and volatility is largest there.
    """
    q = np.arange(1, MAX_LAG + 1)[:, None]
    weight = 2.0 * np.maximum(1.0 - np.arange(1, MAX_LAG + 1) / q, 0.0)
    used = weight > 0
    ratio = 1.0 + np.where(used, weight * acf, 0.0).sum(axis=1)
    variance = np.where(used, (weight * error) ** 2, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ratio, (ratio - 1.0) / np.sqrt(variance)


def _log_slope(values: Float64, first: int) -> float:
    """Least-squares slope of log values on log (first, first + 1, …); NaN unless all are above 0.

    Points are weighted by 1/lag, so that every octave of lags counts alike.
    """
    if not np.all(values > 0):
        return math.nan
    lag = np.arange(first, first + len(values))
    slope, _ = np.polyfit(np.log(lag), np.log(values), 1, w=1.0 / np.sqrt(lag))
    return float(slope)


def _hurst(ratio: Float64) -> float:
    """Hurst exponent by aggregated variance: that of sums over q bars grows as q^2H."""
    return 0.5 + 0.5 * _log_slope(ratio[1:60], 2)


def _correlation(x: Float64, y: Float64) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _leverage(z: Float64, size: Float64) -> float:
    """Correlation of a return with the mean size of the bars after it (NaN within a gap)."""
    total = np.cumsum(np.pad(size, ((0, 0), (1, 0))), axis=1)  # NaN from a gap to the session's end
    ahead = (total[:, 1 + LEVERAGE_BARS :] - total[:, 1:-LEVERAGE_BARS]) / LEVERAGE_BARS
    return _correlation(z[:, :-LEVERAGE_BARS], ahead)


def _daily(sessions: _Sessions, returns: Float64, continuous: bool) -> dict[str, Any]:
    """Facts of whole sessions: their moves, the gaps between them, and realised volatility."""
    there = np.isfinite(sessions.close)
    rows = np.arange(len(there))
    first = np.argmax(there, axis=1)
    last = there.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
    opening = np.log(sessions.open[rows, first])
    closing = np.log(sessions.close[rows, last])
    next_of_path = sessions.path[1:] == sessions.path[:-1]
    gaps = (opening[1:] - closing[:-1])[next_of_path]
    if continuous or not len(gaps):
        gaps = np.array([np.nan])
    move, gap = _sd(closing - opening), _sd(gaps)
    rv = np.sqrt(np.where(np.isfinite(returns), returns**2, 0.0).sum(axis=1))
    around = rv - rv.mean()
    products = (around[1:] * around[:-1])[next_of_path]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "open_to_close_sd": float(move),
            "overnight_sd": float(gap),
            "overnight_share": float(gap**2 / (gap**2 + move**2)),
            "rv_cv": float(rv.std() / rv.mean()),
            "rv_acf": float(_mean(products) / rv.var()),
            "log_rv_sd": float(np.log(rv).std()),
        }


def _half_hour_shapes(size: Float64, volume: Float64, bars: int) -> dict[str, Any]:
    """Shapes over the `H` half hours of a session, `bars` slots each, and F tests of flatness."""
    count = max(1, size.shape[1] // bars)
    facts: dict[str, Any] = {}
    traded = np.where(_mean(volume, axis=1)[:, None] > 0, volume, np.nan)
    for name, x in {"volatility": size, "volume": traded}.items():
        buckets = np.stack(
            [_mean(x[:, h * bars : (h + 1) * bars], axis=1) for h in range(count)], axis=1
        )
        relative = buckets / _mean(x, axis=1)[:, None]
        # Volume by session, so that a change of its source inside a file does not weigh.
        shape = _mean(relative, axis=0) if name == "volume" else _bucket_means(x, bars) / _mean(x)
        facts |= {f"{name}_shape": shape, f"{name}_shape_f": _f_statistic(relative)}
    return facts


def _bucket_means(x: Float64, bars: int) -> Float64:
    count = max(1, x.shape[1] // bars)
    return np.array([_mean(x[:, h * bars : (h + 1) * bars]) for h in range(count)])


def _f_statistic(groups: Float64) -> float:
    """F of a one-way analysis of variance of columns `[S, H]` (missing cells left out)."""
    there = np.isfinite(groups)
    counts = there.sum(axis=0)
    if groups.shape[1] < 2 or there.sum() <= groups.shape[1]:
        return math.nan
    means = _mean(groups, axis=0)
    between = np.nansum(counts * (means - _mean(groups)) ** 2) / (groups.shape[1] - 1)
    inside = np.nansum((groups - means) ** 2) / (there.sum() - groups.shape[1])
    return float(between / inside) if inside > 0 else math.nan


def _distribution(z: Float64) -> tuple[Float64, Float64]:
    """Tail and quantiles of z in standard deviations, as `Facts` keeps them."""
    z = z[np.isfinite(z)]
    z = (z - z.mean()) / z.std()
    size = np.sort(np.abs(z))
    tail = 1.0 - np.searchsorted(size, TAIL_POINTS, side="right") / len(size)
    probabilities = [NormalDist().cdf(x) for x in NORMAL_POINTS]
    return tail, np.quantile(z, probabilities)


def _scores(returns: Float64) -> Float64:
    """Quantiles of returns in their standard deviations, `SCORES` of them."""
    scores = (returns[np.isfinite(returns)] - _mean(returns)) / _sd(returns)
    quantiles: Float64 = np.quantile(scores, (np.arange(SCORES) + 0.5) / SCORES)
    return quantiles


def _shape_rows(name: str, shape: Float64, f: float) -> dict[str, float]:
    """First and last half hour over the mean of the middle third, and the F statistic."""
    middle = shape[len(shape) // 3 : len(shape) - len(shape) // 3].mean()
    return {
        f"{name}: open / midday": float(shape[0] / middle),
        f"{name}: close / midday": float(shape[-1] / middle),
        f"{name}: F of half hours": f,
    }


def battery(facts: Facts, half_spread: float) -> list[Check]:
    """The validation battery of a synthetic equity market; its bands are for 250 sessions or more.

    half_spread: half the quoted spread of the prints, in return units: bouncing between bid and ask
    makes the first autocorrelation of returns −s²/(σ² + 2s²) (Roll 1984), where σ² + 2s² is the
    variance of what is observed; it must agree to three robust standard errors. (SPY's own slope,
    −0.06 over 2025-26, is outside the band.) 3 is beyond the 0.1 % point of F(12, ∞).
    """
    rows, infinity = facts.rows(), math.inf
    bounce = -((half_spread / facts.sd) ** 2)
    error = 3.0 * float(facts.acf_return_error[0])
    bands = {
        "kurtosis": (5.0, 15.0),
        "tail index (Hill)": (2.5, 5.0),
        "ACF of r, 1": (bounce - error, bounce + error),
        "slope of log ACF of |r|": (-0.5, -0.1),
        **{f"variance ratio, {q}": (0.8, 1.2) for q in (5, 30, 60)},
        "Hurst of r": (0.45, 0.55),
        "Hurst of |r|": (0.6, 1.0),
        "volatility: open / midday": (1.2, infinity),
        "volatility: F of half hours": (3.0, infinity),
        "volume: open / midday": (1.2, infinity),
        "volume: close / midday": (1.2, infinity),
        "volume: F of half hours": (3.0, infinity),
        "corr(|r|, log volume)": (0.3, 0.6),
        "overnight share of variance": (0.2, 0.4),
    }
    values = {"ACF of |r|, least to 60": (float(facts.acf_size[:60].min()), 0.0, infinity)}
    values |= {name: (rows[name], low, high) for name, (low, high) in bands.items()}
    return [
        Check(name, value, low, high, bool(low <= value <= high))
        for name, (value, low, high) in values.items()
    ]
