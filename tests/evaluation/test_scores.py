"""Every figure of a small made-up ledger against a formula of its own."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from scipy import stats

from jules_jax.env.metrics import COSTS
from jules_jax.evaluation import scores
from jules_jax.evaluation.ledger import Ledger
from jules_jax.evaluation.scores import Accounts, Score

CAPITAL, BARS = 50_000.0, 60
NAMES = (
    "reward", "steps", "pnl/net", "pnl/gross", *(f"cost/{name}" for name in COSTS),
    "trade/turnover", "trade/orders", "trade/forced_exits", "trade/session_liquidations",
    "trade/entries", "trade/exposed_steps", "trade/reversals", "trip/closed", "trip/profitable",
    "trip/won", "trip/lost", "risk/hard_breaches",
)  # fmt: skip


def made_up(accounts: int, sessions: int, seed: int = 0) -> Ledger:
    rng = np.random.default_rng(seed)
    shape = (accounts, sessions)
    sums = {name: rng.integers(1, 9, shape).astype(float) for name in NAMES}
    sums |= {f"cost/{name}": rng.uniform(0, 5, shape) for name in COSTS}
    sums["pnl/net"] = rng.normal(10, 60, shape)
    sums["pnl/gross"] = sums["pnl/net"] + sum(sums[f"cost/{name}"] for name in COSTS)
    sums["trade/turnover"] = rng.uniform(1e4, 5e4, shape)
    sums["steps"] = np.full(shape, 60.0)
    return Ledger(
        sums, {}, np.ones((accounts, 2)), np.array([1, 2]), np.ones(accounts),
        rng.uniform(0, 0.05, accounts), rng.uniform(0, 20, accounts),
    )  # fmt: skip


# two draws of two symbols through eleven days
DATED = Accounts(
    np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.ones((4, 11), bool), CAPITAL, BARS, True
)
HISTORY = made_up(4, 11)

# twelve episodes, of whose three sessions not all are whole
WHOLE = np.tile([[True, True, False], [False, True, True], [False, True, False]], (4, 1))
SEPARATE = Accounts(np.zeros(12, int), np.zeros(12, int), WHOLE, CAPITAL, BARS, False)
EPISODES = made_up(12, 3, seed=1)


@cache
def of_history() -> dict[str, Score]:
    return scores.scores(HISTORY, DATED)


@cache
def of_episodes() -> dict[str, Score]:
    return scores.scores(EPISODES, SEPARATE)


def by_draw(name: str) -> np.ndarray:
    """Sums `[2, 11]` of both symbols of a draw."""
    return HISTORY.sums[name].reshape(2, 2, 11).sum(axis=1)


RATIOS = {
    **{f"cost_{name}_bp": ((f"cost/{name}",), ("trade/turnover",), 1e4) for name in COSTS},
    "cost_total_bp": (tuple(f"cost/{name}" for name in COSTS), ("trade/turnover",), 1e4),
    "hit_rate": (("trip/profitable",), ("trip/closed",), 1),
    "profit_factor": (("trip/won",), ("trip/lost",), 1),
    "exposure": (("trade/exposed_steps",), ("steps",), 1),
    "turnover": (("trade/turnover",), ("steps",), BARS / CAPITAL),
    "holding_bars": (("trade/exposed_steps",), ("trade/entries",), 1),
    "trades_per_session": (
        ("trade/orders", "trade/forced_exits", "trade/session_liquidations"), ("steps",), BARS,
    ),
    "thrash_rate": (("trade/reversals",), ("trade/orders",), 1),
}  # fmt: skip
SUMS = {
    "reward": "reward",
    "net_pnl": "pnl/net",
    "gross_pnl": "pnl/gross",
    "hard_breaches": "risk/hard_breaches",
}


@pytest.mark.parametrize("metric", RATIOS)
def test_ratios_are_of_sums(metric: str) -> None:
    over, under, scale = RATIOS[metric]
    # of two draws the interquartile mean is the mean
    of_draws = [
        scale * sum(by_draw(name)[draw].sum() for name in over) / by_draw(under[0])[draw].sum()
        for draw in range(2)
    ]
    check(of_history()[metric], np.mean(of_draws))
    whole = sum(EPISODES.sums[name].sum() for name in over) / EPISODES.sums[under[0]].sum()
    check(of_episodes()[metric], scale * whole)


@pytest.mark.parametrize("metric", SUMS)
def test_sums_are_an_accounts(metric: str) -> None:
    name = SUMS[metric]
    check(of_history()[metric], HISTORY.sums[name].sum(axis=1).mean())
    lives = EPISODES.sums[name].sum(axis=1)
    found = of_episodes()[metric]
    check(found, lives.mean())
    # the bootstrap of a mean of independent episodes has nearly the textbook's error
    assert found.error == pytest.approx(lives.std() / np.sqrt(12), rel=0.1)


def check(found: Score, value: float) -> None:
    assert found.value == pytest.approx(value)
    assert found.low <= found.value <= found.high
    assert found.error == pytest.approx((found.high - found.low) / 3.92)


def test_liquidation_is_paid_once_an_account() -> None:
    found = of_episodes()
    less = found["net_pnl"].value - EPISODES.liquidation.mean()
    check(found["liquidation_pnl"], less)
    assert found["liquidation_pnl"].error == found["net_pnl"].error


def daily() -> tuple[np.ndarray, np.ndarray]:
    """Daily returns: `[2, 11]` of the draws' accounts together, `[D]` of whole sessions."""
    return by_draw("pnl/net") / (2 * CAPITAL), EPISODES.sums["pnl/net"][WHOLE] / CAPITAL


def sharpe(days: np.ndarray) -> float:
    return float(days.mean() / days.std(ddof=1) * np.sqrt(252))


FIGURES = {
    "daily_return": np.mean,
    "volatility": lambda days: days.std(ddof=1) * np.sqrt(252),
    "sharpe": sharpe,
    "sortino": lambda days: days.mean() / np.sqrt((np.minimum(days, 0) ** 2).mean()) * np.sqrt(252),
    "day_hit_rate": lambda days: (days > 0).mean(),
}


@pytest.mark.parametrize("metric", FIGURES)
def test_daily_figures_are_of_whole_sessions(metric: str) -> None:
    draws, sessions = daily()
    formula = FIGURES[metric]
    found = of_history()[metric]
    assert found.value == pytest.approx(np.mean([formula(days) for days in draws]))
    assert found.low < found.value
    assert not found.high <= found.value  # NaN: days drawn without a loss have no bound
    found = of_episodes()[metric]
    assert found.value == pytest.approx(formula(sessions))
    assert found.low < found.value < found.high


def test_the_error_of_the_sharpe_ratio_is_that_of_its_moments() -> None:
    """Mertens (2002); and PSR is the normal probability of the ratio over it."""
    _, days = daily()
    ratio = days.mean() / days.std(ddof=1)
    skew, kurtosis = stats.skew(days), stats.kurtosis(days, fisher=False)
    error = np.sqrt((1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / (len(days) - 1))
    found = of_episodes()
    assert found["sharpe"].error == pytest.approx(error * np.sqrt(252))
    assert found["psr"].value == pytest.approx(stats.norm.cdf(ratio / error))
    needed = 1 + (len(days) - 1) * (1.96 * error / ratio) ** 2
    assert found["years_needed"].value == pytest.approx(needed / 252)


def test_drawdowns_are_of_days_in_their_order() -> None:
    draws, _ = daily()
    depths, longest = [], []
    for days in draws:
        equity = [1.0, *(1 + np.cumsum(days))]
        below = [max(equity[: at + 1]) - equity[at] for at in range(12)]
        depths.append(max(fall / max(equity[: at + 1]) for at, fall in enumerate(below)))
        runs = "".join("x" if fall > 1e-12 else " " for fall in below).split()
        longest.append(max(map(len, runs)))
    found = of_history()
    ratios = [252 * days.mean() / depth for days, depth in zip(draws, depths, strict=True)]
    assert found["calmar"].value == pytest.approx(np.mean(ratios))
    assert found["max_drawdown_sessions"].value == np.mean(longest)
    separate = of_episodes()
    assert np.isnan(separate["calmar"].value) and np.isnan(separate["max_drawdown_sessions"].value)


def test_the_worst_drawdown_is_told_as_what_accounts_meet() -> None:
    found = of_episodes()["max_drawdown"]
    assert found.value == pytest.approx(EPISODES.drawdown.mean())
    ends = np.percentile(EPISODES.drawdown, [5, 95])
    np.testing.assert_allclose((found.low, found.high), ends)


@pytest.mark.parametrize("symbol", [0, 1])
def test_a_symbols_figures_are_those_of_its_accounts_alone(symbol: int) -> None:
    own = DATED.symbol == symbol
    alone = Ledger(
        {name: each[own] for name, each in HISTORY.sums.items()}, {}, HISTORY.equity[own],
        HISTORY.points, HISTORY.final_equity[own], HISTORY.drawdown[own], HISTORY.liquidation[own],
    )  # fmt: skip
    accounts = dataclasses.replace(
        DATED, symbol=np.zeros(2, int), draw=np.arange(2), complete=DATED.complete[own]
    )
    found, expected = scores.scores(HISTORY, DATED, symbol=symbol), scores.scores(alone, accounts)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name)


def test_symbols_are_not_alike() -> None:
    first, second = (scores.scores(HISTORY, DATED, symbol=number) for number in (0, 1))
    assert first["net_pnl"].value != second["net_pnl"].value
    both = of_history()["net_pnl"].value
    assert both == pytest.approx((first["net_pnl"].value + second["net_pnl"].value) / 2)


def test_more_draws_of_the_same_days_are_not_more_days() -> None:
    """Ten times the same two draws: the error of the Sharpe ratio is that of eleven days."""
    many = Ledger(
        {name: np.tile(each, (10, 1)) for name, each in HISTORY.sums.items()}, {},
        np.tile(HISTORY.equity, (10, 1)), HISTORY.points, np.tile(HISTORY.final_equity, 10),
        np.tile(HISTORY.drawdown, 10), np.tile(HISTORY.liquidation, 10),
    )  # fmt: skip
    accounts = dataclasses.replace(
        DATED, symbol=np.tile(DATED.symbol, 10), draw=np.repeat(np.arange(20), 2),
        complete=np.ones((40, 11), bool),
    )  # fmt: skip
    found, few = scores.scores(many, accounts), of_history()
    # of twenty draws the interquartile mean of two values is still their mean
    for name in ("sharpe", "psr", "years_needed"):
        assert found[name].value == pytest.approx(few[name].value)
    assert found["sharpe"].error == pytest.approx(few["sharpe"].error)


UNDEFINED = {
    *(f"cost_{name}_bp" for name in COSTS), "cost_total_bp", "hit_rate", "profit_factor",
    "holding_bars", "thrash_rate", "sharpe", "sortino", "calmar", "psr", "years_needed",
    "day_hit_rate",
}  # fmt: skip


@pytest.mark.parametrize(("ledger", "accounts"), [(HISTORY, DATED), (EPISODES, SEPARATE)])
def test_who_never_trades_has_no_ratios_and_earns_exactly_nothing(
    ledger: Ledger, accounts: Accounts
) -> None:
    nothing = {name: np.zeros_like(each) for name, each in ledger.sums.items()}
    nothing["steps"] = ledger.sums["steps"]
    zeros = np.zeros(len(accounts.draw))
    flat = dataclasses.replace(ledger, sums=nothing, drawdown=zeros, liquidation=zeros)
    found = scores.scores(flat, accounts)
    assert {name for name, each in found.items() if np.isnan(each.value)} - {
        "max_drawdown_sessions"
    } == UNDEFINED
    for name in ("net_pnl", "liquidation_pnl", "turnover", "exposure", "daily_return"):
        assert found[name].value == found[name].low == found[name].high == 0
    assert np.isnan(scores.deflated(scores.days(nothing["pnl/net"], accounts), 3, None).value)


def test_without_a_whole_session_nothing_is_said_of_days() -> None:
    none = dataclasses.replace(SEPARATE, complete=np.zeros((12, 3), bool))
    found = scores.scores(EPISODES, none)
    for name in ("daily_return", "volatility", "sharpe", "psr", "sortino", "day_hit_rate"):
        assert np.isnan(found[name].value)
    assert np.isfinite(found["net_pnl"].value)


def test_one_account_has_figures_without_intervals() -> None:
    one = Accounts(np.zeros(1, int), np.zeros(1, int), np.ones((1, 3), bool), CAPITAL, BARS, False)
    found = scores.scores(made_up(1, 3), one)["net_pnl"]
    assert np.isfinite(found.value) and np.isnan([found.low, found.high, found.error]).all()


def test_more_trials_deflate_a_sharpe_ratio() -> None:
    own = scores.days(HISTORY.sums["pnl/net"], DATED)
    one, ten, thousand = (scores.deflated(own, trials, None).value for trials in (1, 10, 1000))
    assert 1 > one > ten > thousand > 0
    assert one == pytest.approx(of_history()["psr"].value)
    assert scores.deflated(own, 0, None).value == one
