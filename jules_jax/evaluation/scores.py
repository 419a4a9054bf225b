"""Scores: the figures of one policy's ledger, each with an interval.

What is known of a policy is known from episodes on simulated paths, which do not depend on each
other, or from the days of a history, all draws together: those are what is resampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jules_jax.env.metrics import COSTS
from jules_jax.evaluation import overfitting, performance
from jules_jax.evaluation.ledger import Ledger
from jules_jax.evaluation.statistics import (
    MEAN_BLOCK,
    Interval,
    block_bootstrap_interval,
    cluster_bootstrap_interval,
    interquartile_mean,
    mean_interval,
    ratio_of_means,
)

Array = NDArray[Any]

FILLS = ("trade/orders", "trade/forced_exits", "trade/session_liquidations")
ABOVE = 1.96
"""Standard errors from an estimate to the end of its 95 % interval."""


class Score(NamedTuple):
    """A figure, the ends of its 95 % interval, and its standard error; NaN where there is none."""

    value: float
    low: float = np.nan
    high: float = np.nan
    error: float = np.nan

    @classmethod
    def of(cls, interval: Interval) -> Score:
        """An interval's figure; its error is the width's share of it, none where unbounded."""
        value, low, high = (each if np.isfinite(each) else np.nan for each in interval)
        return cls(value, low, high, (high - low) / (2 * ABOVE))


@dataclass(frozen=True)
class Accounts:
    """What N accounts have in common, whichever policy trades them.

    symbol, draw: `[N]`. complete: `[N, D]` bool, the sessions seen whole. capital: dollars of each.
    bars: of a full session. dated: whether the D sessions are the same days for all accounts.
    there: `[N, D]` bool, the days that an account has capital for: not those of a joined test that
    its symbol is not in; None: all. Draws have accounts of the same symbols on the same days.
    """

    symbol: Array
    draw: Array
    complete: Array
    capital: float
    bars: int
    dated: bool
    there: Array | None = None

    def of_symbol(self, symbol: int) -> tuple[Accounts, Array]:
        """Those of one symbol, and which they are, `[N]` bool."""
        chosen = self.symbol == symbol
        own = replace(
            self,
            symbol=self.symbol[chosen],
            draw=self.draw[chosen],
            complete=self.complete[chosen],
            there=self.present[chosen],
        )
        return own, chosen

    @property
    def present(self) -> Array:
        """`there`, whether or not it was given, `[N, D]`."""
        return np.ones(self.complete.shape, bool) if self.there is None else self.there

    @property
    def of_draw(self) -> Array:
        """How many accounts of one draw are there, `[D]`; a day without any is none of theirs."""
        counted: Array = np.count_nonzero(self.present[self.draw == self.draw[0]], axis=0)
        return counted


@dataclass(frozen=True)
class Days:
    """Daily net returns `[S, D]` of S draws: shares of the capital of a draw's accounts together.

    Days on which none of the accounts is there are left out.

    cluster: `[D]`, days of one episode; None where days follow one another in time.
    """

    returns: Array
    cluster: Array | None

    def score(self, statistic: Callable[[Array], Any]) -> Score:
        """A statistic of a draw's days, over the draws their interquartile mean."""
        if self.returns.shape[1] < 1:
            return Score(np.nan)
        if self.cluster is None:
            return Score.of(block_bootstrap_interval(self.returns, statistic))
        return Score.of(cluster_bootstrap_interval(self.returns[0], self.cluster, statistic))


def days(net: Array, accounts: Accounts) -> Days:
    """Of net P&L `[N, D]`, dollars."""
    if not accounts.dated:
        account, session = np.nonzero(accounts.complete)
        return Days(net[account, session][None] / accounts.capital, account)
    return Days(an_account(net, accounts) / accounts.capital, None)


def _by_draw(values: Array, accounts: Accounts) -> Array:
    """Sums `[S, D]` over the accounts of each draw of values `[N, D]`, of days that some are there.

    Draws are numbered from 0.
    """
    sums = np.zeros((int(accounts.draw.max()) + 1, values.shape[1]))
    np.add.at(sums, accounts.draw, values)
    return sums[:, accounts.of_draw > 0]


def an_account(values: Array, accounts: Accounts) -> Array:
    """Means `[S, D]` of values `[N, D]` over the accounts of each draw that are there.

    Of days that some are there.
    """
    counts = accounts.of_draw
    return _by_draw(values, accounts) / counts[counts > 0]


@dataclass(frozen=True)
class _Sums:
    """A ledger's sums as observations: `[1, N]` accounts or, dated, `[S, D]` days of draws."""

    ledger: Ledger
    accounts: Accounts
    chosen: Array

    def of(self, *names: str) -> Array:
        total = sum(self.ledger.sums[name][self.chosen] for name in names)
        if self.accounts.dated:
            return _by_draw(np.asarray(total), self.accounts)
        summed: Array = np.asarray(total).sum(axis=1)[None]
        return summed

    def ratio(self, over: Array, under: Array, scale: float = 1.0) -> Score:
        if not under.any():
            return Score(np.nan)
        blocks = MEAN_BLOCK if self.accounts.dated else 1.0
        found = ratio_of_means(over, under if under.shape[0] > 1 else under[0], mean_block=blocks)
        return Score(*(scale * each for each in Score.of(found)))

    def mean(self, name: str) -> Score:
        return _mean(self.ledger.sums[name][self.chosen], self.accounts)


def scores(ledger: Ledger, accounts: Accounts, *, symbol: int | None = None) -> dict[str, Score]:
    """Every figure but those that take other trials into account, by name, in order.

    symbol: of the accounts that count; None: all of them.
    """
    chosen = np.ones(len(accounts.symbol), bool)
    if symbol is not None:
        accounts, chosen = accounts.of_symbol(symbol)
    sums = _Sums(ledger, accounts, chosen)
    steps, turnover = sums.of("steps"), sums.of("trade/turnover")
    sessions = steps / accounts.bars
    found = {
        "reward": sums.mean("reward"),
        "net_pnl": sums.mean("pnl/net"),
        "gross_pnl": sums.mean("pnl/gross"),
    }
    counts, draws = accounts.of_draw, len(np.unique(accounts.draw))
    closing = ledger.liquidation[chosen].sum() / draws / counts[counts > 0].mean()
    found["liquidation_pnl"] = _less(found["net_pnl"], float(closing))
    for name in COSTS:
        found[f"cost_{name}_bp"] = sums.ratio(sums.of(f"cost/{name}"), turnover, 1e4)
    every = sums.of(*(f"cost/{name}" for name in COSTS))
    found["cost_total_bp"] = sums.ratio(every, turnover, 1e4)
    own = days(ledger.sums["pnl/net"][chosen], accounts)
    found |= daily(own)
    deepest = ledger.drawdown[chosen]
    found |= {
        "max_drawdown": Score(float(deepest.mean()), *_spread(deepest)),
        "worst_drawdown": Score(float(deepest.max())),
        "hit_rate": sums.ratio(sums.of("trip/profitable"), sums.of("trip/closed")),
        "profit_factor": sums.ratio(sums.of("trip/won"), sums.of("trip/lost")),
        "exposure": sums.ratio(sums.of("trade/exposed_steps"), steps),
        "turnover": sums.ratio(turnover / accounts.capital, sessions),
        "holding_bars": sums.ratio(sums.of("trade/exposed_steps"), sums.of("trade/entries")),
        "trades_per_session": sums.ratio(sums.of(*FILLS), sessions),
        "thrash_rate": sums.ratio(sums.of("trade/reversals"), sums.of("trade/orders")),
        "hard_breaches": sums.mean("risk/hard_breaches"),
    }
    return found


def net_pnl(net: Array, accounts: Accounts) -> Score:
    """The mean over accounts of dollars `[N, D]`: on each day of those that are there."""
    return _mean(net, accounts)


def _mean(values: Array, accounts: Accounts) -> Score:
    """An account's sum of values `[N, D]` over its life, the mean over accounts."""
    if not accounts.dated:
        return Score.of(mean_interval(values.sum(axis=1)[None], statistic=np.mean))
    return Score.of(block_bootstrap_interval(an_account(values, accounts), _summed))


def _summed(values: Array) -> Any:
    return values.sum(axis=-1)


def daily(own: Days) -> dict[str, Score]:
    """Figures of daily returns: annual where they are ratios; the error of Sharpe's is Lo's."""
    sharpe = performance.sharpe(own.returns)
    years = interquartile_mean(sharpe.years_needed)
    ratio = own.score(performance.sharpe_ratio)
    return {
        "daily_return": own.score(lambda r: r.mean(axis=-1)),
        "volatility": own.score(performance.volatility),
        "sharpe": ratio._replace(error=float(interquartile_mean(sharpe.error))),
        "years_needed": Score(float(years)),
        "psr": Score(float(overfitting.probabilistic_sharpe(_record(own)))),
        "sortino": own.score(performance.sortino),
        "calmar": _in_order(own, performance.calmar),
        "max_drawdown_sessions": _in_order(own, lambda r: performance.drawdown(r).longest),
        "day_hit_rate": own.score(performance.hit_rate),
    }


def deflated(own: Days, trials: int, variance: float | None) -> Score:
    """The deflated Sharpe ratio among so many trials.

    variance: of their daily Sharpe ratios, None where it is not known. Trials that are much alike,
    such as the greedy and the sampled policy of the same weights, differ less than luck does, and
    would make the best of a hundred look like the only one: it counts for no less than luck's.
    """
    record = _record(own)
    if variance is not None:
        variance = max(variance, overfitting.variance_of_luck(record.periods))
    return Score(float(overfitting.deflated_sharpe(record, max(trials, 1), variance)))


def _record(own: Days) -> performance.TrackRecord:
    """The track record of a typical draw: days that repeat under other draws are not more days."""
    every = performance.track_record(own.returns)
    values = (float(interquartile_mean(each)) for each in (every.sharpe, every.skewness))
    kurtosis = float(interquartile_mean(every.kurtosis))
    sharpe, skewness = values
    return performance.TrackRecord(sharpe, every.periods, skewness, kurtosis)


def _in_order(own: Days, statistic: Callable[[Array], Any]) -> Score:
    """A statistic of days that follow one another; days of separate episodes do not."""
    if own.cluster is not None:
        return Score(np.nan)
    return Score(float(interquartile_mean(statistic(own.returns))))


def _less(score: Score, cost: float) -> Score:
    return Score(score.value - cost, score.low - cost, score.high - cost, score.error)


def _spread(values: Array) -> tuple[float, float]:
    """5th and 95th percentile over accounts: not what is known of the mean, but what happens."""
    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(high)
