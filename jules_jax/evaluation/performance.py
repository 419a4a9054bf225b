"""Figures of a series of daily net returns, and of the results of round trips.

A daily return is a session's net P&L over the account's capital, which stays the same: profits are
not reinvested, so returns add up, and none is compounded. Functions take returns `[..., D]`, D days
in order, and reduce the last axis: a whole bootstrap is one call. What has no value is NaN, what
has no bound is infinite, and nothing warns.

Sharpe (1994) on differential returns; the error is that of Lo (2002) with the higher moments of
Mertens (2002), "Comments on variance of the IID estimator in Lo (2002)". empyrical, which the tests
compare with, compounds returns in three figures: annual return, drawdown and Calmar ratio.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

DAYS_A_YEAR = 252
"""Sessions of a year of a United States stock exchange."""
T_VALUE = 1.96
"""Of a Sharpe ratio over its error: 0 is then outside of the two-sided 95 % interval."""
ROUNDING = 1e-12
"""Equity this near to its peak, in units of capital, is at its peak."""


class TrackRecord(NamedTuple):
    """What the Sharpe ratio of a track record rests on, each a number or `[...]`.

    sharpe: of one period, not annualised. periods: how many. skewness and kurtosis: of the
    population, normal returns having 0 and 3 (not the excess over 3).
    """

    sharpe: Any
    periods: Any
    skewness: Any = 0.0
    kurtosis: Any = 3.0


class Sharpe(NamedTuple):
    """An annualised Sharpe ratio and how well it is known, each a number or `[...]`.

    error: one standard error of the value. years_needed: of daily data of the same moments until
    the ratio, if it stays what it is, has a t-value of 1.96 (or −1.96); infinite at 0. days: used.
    """

    value: Any
    error: Any
    years_needed: Any
    days: int


class Drawdown(NamedTuple):
    """The deepest fall from a peak of equity, each a number or `[...]`.

    depth: share of that peak, 0 or above. to_trough, to_recovery: sessions from the peak to the
    lowest point and back to the peak, infinite where it is not back yet. longest: most
    sessions in a row below a peak, in this fall or a shallower one, the last of which may go on.
    """

    depth: Any
    to_trough: Any
    to_recovery: Any
    longest: Any


def annual_return(returns: ArrayLike) -> Any:
    """Mean daily return × 252, a share of capital; NaN without days.

    empyrical's is the compound growth rate instead.
    """
    return _mean(_days(returns)) * DAYS_A_YEAR


def volatility(returns: ArrayLike) -> Any:
    """Standard deviation of daily returns (n − 1 in it, as in empyrical) × √252; NaN of one day."""
    return _deviation(_days(returns)) * np.sqrt(DAYS_A_YEAR)


def sharpe_ratio(returns: ArrayLike) -> Any:
    """Mean over standard deviation (n − 1 in it, as in empyrical) × √252; NaN where that is 0.

    The ratio alone: several times faster in bootstraps than `sharpe`.
    """
    array = _days(returns)
    return _quiet_ratio(_mean(array), _deviation(array)) * np.sqrt(DAYS_A_YEAR)


def sharpe(returns: ArrayLike) -> Sharpe:
    """The annualised Sharpe ratio, its standard error and the years that it would need.

    NaN of fewer than two days and of days that are all alike. The error supposes that days do not
    depend on each other; `statistics.block_bootstrap_interval` does not.
    """
    record = track_record(returns)
    error, year = sharpe_error(record), np.sqrt(DAYS_A_YEAR)
    with np.errstate(divide="ignore", invalid="ignore"):
        t_value = np.divide(record.sharpe, error)
        needed = 1.0 + (record.periods - 1) * np.square(T_VALUE / t_value)
    return Sharpe(record.sharpe * year, error * year, needed / DAYS_A_YEAR, int(record.periods))


def track_record(returns: ArrayLike) -> TrackRecord:
    """Daily Sharpe ratio, days, skewness and kurtosis, as `overfitting` takes them."""
    array = _days(returns)
    mean = _mean(array)
    centred = array - np.asarray(mean)[..., None]
    variance = np.where(_alike(array), np.nan, _mean(centred**2))[()]
    return TrackRecord(
        sharpe=_quiet_ratio(mean, _deviation(array)),
        periods=array.shape[-1],
        skewness=_mean(centred**3) / variance**1.5,
        kurtosis=_mean(centred**4) / variance**2,
    )


def sharpe_error(record: TrackRecord) -> Any:
    """Standard error of the Sharpe ratio of one period, √((1 − γ₃·SR + (γ₄ − 1)/4·SR²)/(n − 1)).

    γ₃ is the skewness and γ₄ the full kurtosis (Mertens 2002; Bailey & López de Prado 2012,
    equation 8). NaN of fewer than two periods.
    """
    sharpe = np.asarray(record.sharpe, np.float64)
    periods = np.asarray(record.periods, np.float64)
    freedom = np.where(periods > 1, periods - 1, np.nan)
    variance = 1.0 - record.skewness * sharpe + (record.kurtosis - 1.0) / 4.0 * sharpe**2
    return np.sqrt(np.maximum(variance, 0.0) / freedom)[()]


def sortino(returns: ArrayLike) -> Any:
    """Annual return over annual downside deviation, the root mean square of losses of all days.

    As in empyrical (required return 0): days without a loss count as zeros. Infinite without
    losses, NaN where there is nothing but zeros.
    """
    array = _days(returns)
    downside = np.sqrt(_mean(np.minimum(array, 0.0) ** 2))
    return _ratio(_mean(array), downside) * np.sqrt(DAYS_A_YEAR)


def max_drawdown(returns: ArrayLike) -> Any:
    """The `depth` of `drawdown`: deepest fall of equity from a peak, a share of that peak."""
    _, fall, peak = _below_peak(_days(returns))
    return (fall / peak).max(axis=-1)


def drawdown(returns: ArrayLike) -> Drawdown:
    """Depth and length of the deepest fall of the equity 1 + Σ returns from its peak.

    Capital is fixed, so losses in sum may exceed the peak: a depth above 1. Of equally deep falls
    the first. empyrical compounds, and has the opposite sign.
    """
    at, fall, peak = _below_peak(_days(returns))
    depth = fall / peak
    trough = depth.argmax(axis=-1)[..., None]
    last = np.maximum.accumulate(np.where(fall > 0, 0, at), axis=-1)
    ahead = np.where(fall > 0, np.inf, at)[..., ::-1]
    following = np.minimum.accumulate(ahead, axis=-1)[..., ::-1]
    start, end = (np.take_along_axis(each, trough, -1)[..., 0] for each in (last, following))
    return Drawdown(
        depth=depth.max(axis=-1),
        to_trough=trough[..., 0] - start,
        to_recovery=end - start,
        longest=(at - last).max(axis=-1),
    )


def calmar(returns: ArrayLike) -> Any:
    """Annual return over the depth of the deepest drawdown, neither of them compounded.

    Infinite of gains without a drawdown, NaN where nothing is gained or lost (empyrical: NaN both
    times, and compounded).
    """
    return _ratio(annual_return(returns), max_drawdown(returns))


def hit_rate(results: ArrayLike) -> Any:
    """Share of results above 0, of those that are not 0: `[..., K]` round trips, or days.

    A day without a position, or a trade that ends where it began, is neither hit nor miss; NaN
    where there is nothing else.
    """
    array = _days(results)
    won, lost = (array > 0).sum(axis=-1), (array < 0).sum(axis=-1)
    return _ratio(won, won + lost)


def profit_factor(results: ArrayLike) -> Any:
    """Sum of gains over sum of losses of round trips `[..., K]`, in dollars or shares of capital.

    Infinite without losses, NaN without either.
    """
    array = _days(results)
    return _ratio(np.maximum(array, 0.0).sum(axis=-1), np.maximum(-array, 0.0).sum(axis=-1))


def _days(returns: ArrayLike) -> Array:
    array = np.asarray(returns, np.float64)
    if not array.ndim:
        raise ValueError("found one number, expected daily returns [..., D]")
    return array


def _mean(array: Array) -> Any:
    if not array.shape[-1]:
        return np.full(array.shape[:-1], np.nan)[()]
    return array.mean(axis=-1)


def _alike(array: Array) -> Any:
    """Where all days are equal: their deviation is then 0, whatever rounding makes of it."""
    if not array.shape[-1]:
        return np.ones(array.shape[:-1], bool)[()]
    return array.min(axis=-1) == array.max(axis=-1)


def _deviation(array: Array) -> Any:
    """Sample standard deviation, exactly 0 of days that are all alike; NaN of fewer than two."""
    if array.shape[-1] < 2:
        return np.full(array.shape[:-1], np.nan)[()]
    return np.where(_alike(array), 0.0, array.std(axis=-1, ddof=1))[()]


def _below_peak(array: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """Sessions 0 … D, and of equity before the first and after each: its fall and its peak."""
    zero = np.zeros((*array.shape[:-1], 1))
    equity = 1.0 + np.concatenate([zero, array.cumsum(axis=-1)], axis=-1)
    peak = np.maximum.accumulate(equity, axis=-1)
    fall = peak - equity
    return np.arange(equity.shape[-1]), np.where(fall > ROUNDING, fall, 0.0), peak


def _ratio(over: Any, under: Any) -> Any:
    """The quotient; ±infinite over 0, NaN of 0 over 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(over, under)


def _quiet_ratio(over: Any, under: Any) -> Any:
    """The quotient, NaN wherever it is of 0."""
    return _ratio(over, np.where(np.equal(under, 0.0), np.nan, under))[()]
