"""Out of sample: sessions that no policy had seen when it traded them, joined to one history.

Policies of several folds each trade a stretch of it. Capital is what each fold begins with, one
account per symbol, and nothing is compounded from one fold to the next: a return is a session's net
P&L over that capital. Draws of a sampled policy are histories of their own: a figure is the mean of
theirs, and its error is that of one history, as all draws see the same prices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jules_jax.evaluation.gates import DAYS_A_YEAR, Estimate
from jules_jax.evaluation.whole_split import Accounts
from jules_jax.market.splits import Dates

ERRORS = 1.96
"""Standard errors to either side of an interval, and of what is taken for more than chance."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Sessions in order, `[D]`, of all symbols together, and of K draws each, `[K, D]`.

    net, gross, traded: dollars `[K, D]`; fills: a number `[K, D]`; capital: dollars `[D]`.
    """

    dates: Dates
    net: Float64
    gross: Float64
    traded: Float64
    fills: Float64
    capital: Float64

    @property
    def returns(self) -> Float64:
        """Net P&L of each session over the capital, `[K, D]`."""
        return np.asarray(self.net / self.capital)


class Metric(NamedTuple):
    """A value, its 95 % interval and its standard error; NaN where it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan
    error: float = math.nan

    def plain(self) -> dict[str, float | None]:
        """For JSON, which has no NaN: None instead."""
        named = self._asdict()
        return {name: value if math.isfinite(value) else None for name, value in named.items()}


def series(played: Accounts) -> Series:
    """The sessions of one fold, symbols added up."""
    return Series(
        dates=played.dates,
        net=played.net.sum(axis=1),
        gross=played.gross.sum(axis=1),
        traded=played.traded.sum(axis=1),
        fills=played.fills.sum(axis=1),
        capital=np.full(len(played.dates), played.capital * len(played.symbols)),
    )


def joined(parts: Sequence[Series]) -> Series:
    """One history of several, each of which begins after the one before has ended."""
    for before, after in itertools.pairwise(parts):
        if not before.dates[-1] < after.dates[0]:
            raise ValueError(f"a test ends on {before.dates[-1]}, the next begins {after.dates[0]}")
    names = ("dates", "net", "gross", "traded", "fills", "capital")
    return Series(**{
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names
    })  # fmt: skip


def sharpe(returns: Float64) -> Estimate:
    """Annualised Sharpe ratio of daily returns `[D]`, and its standard error.

    The error is that of returns of any shape, independent from day to day (Mertens 2002; Lo 2002,
    The Statistics of Sharpe Ratios). NaN of fewer than two days, or of returns that never differ.
    """
    count = len(returns)
    if count < 2 or np.ptp(returns) == 0:
        return Estimate(math.nan)
    ratio = float(returns.mean() / returns.std(ddof=1))
    standard = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float(np.mean(standard**3)), float(np.mean(standard**4))
    variance = (1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / (count - 1)
    scale = math.sqrt(DAYS_A_YEAR)
    return Estimate(scale * ratio, scale * math.sqrt(variance))


def metrics(of: Series) -> dict[str, Metric]:
    """Numbers of a history by name, in the names and units of `report.json`."""
    traded, costs = float(of.traded.sum()), float((of.gross - of.net).sum())
    returns, days = of.returns, len(of.dates)
    ratio = _over_draws([sharpe(draw) for draw in returns])
    return {
        "net_pnl": _total(of.net),
        "gross_pnl": _total(of.gross),
        "cost_total_bp": Metric(1e4 * costs / traded if traded else math.nan),
        "daily_return": _interval(float(returns.mean()), _spread(returns) / math.sqrt(days)),
        "volatility": Metric(_spread(returns) * math.sqrt(DAYS_A_YEAR)),
        "sharpe": _interval(*ratio),
        "years_needed": Metric(_years_needed(ratio, days)),
        "max_drawdown": Metric(_drawdown(returns)),
        "day_hit_rate": Metric(float(np.mean(of.net[of.net != 0] > 0)) if traded else math.nan),
        "turnover": Metric(float(np.mean(of.traded / of.capital))),
        "trades_per_session": Metric(float(of.fills.mean())),
    }


def _over_draws(each: Sequence[Estimate]) -> Estimate:
    """Mean value and mean error of the draws that have a value."""
    known = [one for one in each if not math.isnan(one.value)]
    if not known:
        return Estimate(math.nan)
    return Estimate(*(float(np.mean(part)) for part in zip(*known, strict=True)))


def _years_needed(ratio: Estimate, days: int) -> float:
    """Of daily data until a ratio that stays what it is lies 1.96 errors from 0."""
    if math.isnan(ratio.value) or ratio.value == 0:
        return math.nan
    return (1 + (days - 1) * (ERRORS * ratio.error / ratio.value) ** 2) / DAYS_A_YEAR


def _drawdown(returns: Float64) -> float:
    """Deepest fall of each draw's summed returns from their peak, a share of capital; the mean."""
    equity = np.pad(np.cumsum(returns, axis=1), ((0, 0), (1, 0)))
    return float(np.max(np.maximum.accumulate(equity, axis=1) - equity, axis=1).mean())


def _spread(values: Float64) -> float:
    """Standard deviation over sessions of each draw's `[K, D]`; the mean."""
    return float(values.std(axis=1, ddof=1).mean()) if values.shape[1] > 1 else math.nan


def _total(daily: Float64) -> Metric:
    """A sum over sessions `[K, D]`, which are taken for independent draws of one distribution."""
    return _interval(float(daily.sum(axis=1).mean()), _spread(daily) * math.sqrt(daily.shape[1]))


def _interval(value: float, error: float) -> Metric:
    return Metric(value, value - ERRORS * error, value + ERRORS * error, error)


def sentence(of: Series, *, who: str, windows: int, agents: int) -> str:
    """In one sentence, whether a policy has anything after costs.

    who: the policy, in words. windows: tests that the history is joined from. agents: ever trained,
    as the registry counts them.
    """
    found = metrics(of)
    where = f"over {len(of.dates):,} unseen sessions in {_many(windows, 'test window')}"
    if not of.traded.any():
        return f"No edge after costs: {where} the {who} policy did not trade."
    net, ratio, gross = found["net_pnl"].value, found["sharpe"], found["gross_pnl"].value
    did = f"{where} the {who} policy {_moved(net)} (Sharpe {ratio.value:.2f} ± {ratio.error:.2f})"
    costs = f"costs took {found['cost_total_bp'].value:.1f} bp of what it traded"
    before = f"before costs it {_moved(gross)}, and {costs}"
    if math.isnan(ratio.value):
        return f"No edge after costs can be told: {where} the {who} policy {_moved(net)}; {before}."
    if ratio.low > 0:
        return (
            f"An edge after costs, if it is not the luck of {_many(agents, 'agent')} trained: "
            f"{did}; {before}."
        )
    if net > 0:
        years = found["years_needed"].value
        return (
            f"No edge after costs that can be told from chance: {did}, which would take "
            f"{years:,.1f} years to tell; {before}."
        )
    return f"No edge after costs: {did}; {before}."


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _moved(dollars: float) -> str:
    """`earned $12` or `lost $12`."""
    return f"{'earned' if dollars >= 0 else 'lost'} ${abs(dollars):,.0f}"
