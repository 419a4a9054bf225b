"""Tests one after the other: the figures of the days of all, by hand; symbols that come and go."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from jules_jax import config
from jules_jax.evaluation import assessment, ledger
from jules_jax.evaluation.assessment import Assessment
from jules_jax.evaluation.ledger import Ledger
from jules_jax.evaluation.prices import Prices
from jules_jax.evaluation.report import content, schema
from jules_jax.evaluation.report.content import Luck
from jules_jax.evaluation.scores import Accounts
from tests.evaluation.report import made
from tests.evaluation.test_scores import BARS, CAPITAL, made_up
from tests.tiny import SETTINGS

GREEDY, RANDOM = "trained, greedy", "random"
KINDS = {GREEDY: "trained", RANDOM: "reference"}
FIRST = ("2025-03-03", "2025-03-10", "2025-03-17")
DAYS = (5, 4, 6)
SYMBOLS = (("AAA", "BBB"), ("AAA",), ("BBB", "AAA"))
"""Of two draws each; the second test lacks BBB, the third counts the symbols the other way."""
DRAWS = 2


def part(number: int, *, first: str = "", **changes: Any) -> Assessment:
    """A made-up test of so many days, each account with a curve of three points."""
    names, days = SYMBOLS[number], DAYS[number]
    count = DRAWS * len(names)
    begin = np.datetime64(first or FIRST[number])
    labels = tuple(np.datetime_as_string(begin + np.arange(days)).tolist())
    ground = Prices(
        config.load(SETTINGS), "test", count, DRAWS, names, labels,
        f"account through {days} sessions", ("prices", f"of {', '.join(names)}"),
    )  # fmt: skip
    accounts = Accounts(
        np.tile(np.arange(len(names)), DRAWS), np.repeat(np.arange(DRAWS), len(names)),
        np.ones((count, days), bool), CAPITAL, BARS, True,
    )  # fmt: skip
    ledgers = {name: kept(count, days, 10 * number + at) for at, name in enumerate(KINDS)}
    whole = Assessment(ground, accounts, ledgers, KINDS, KINDS, (f"note {number}",))
    return dataclasses.replace(whole, **changes)


def kept(count: int, days: int, seed: int) -> Ledger:
    """`made_up`, with what the report asks for, and curves that end where the net P&L does."""
    found = made_up(count, days, seed)
    extra = [f"reward/{term}" for term in schema.REWARD_TERMS]
    extra += ["reward/absolute_equity_change", "action/sell", "action/hold", "action/buy"]
    sums = found.sums | {name: np.full((count, days), 20.0) for name in extra}
    final = 1 + sums["pnl/net"].sum(axis=1) / CAPITAL
    half = 1 + (final - 1) / 2
    by_time = {name: np.full(2 + seed // 10, sums[name].sum()) for name in sums}
    return dataclasses.replace(
        found, sums=sums, by_time=by_time, final_equity=final,
        equity=np.stack([np.ones(count), half, final], axis=1),
        points=np.array([1, 30 * days, 60 * days]),
    )  # fmt: skip


@cache
def parts() -> tuple[Assessment, ...]:
    return tuple(part(number) for number in range(3))


@cache
def whole() -> Assessment:
    return assessment.joined(parts())


def of_symbol(name: str, symbol: str, who: str = GREEDY) -> list[np.ndarray | None]:
    """Sums `[2, D]` of a symbol's account of each draw, test by test; None: it is not there."""
    found: list[np.ndarray | None] = []
    for each in parts():
        names = each.prices.symbols
        if symbol in names:
            by_draw = each.ledgers[who].sums[name].reshape(DRAWS, len(names), -1)
            found.append(by_draw[:, names.index(symbol)])
        else:
            found.append(None)
    return found


def hand(name: str, who: str = GREEDY) -> np.ndarray:
    """Sums `[2, 15]` of all symbols together, day after day."""
    each = [of_symbol(name, symbol, who) for symbol in ("AAA", "BBB")]
    pairs = zip(*each, strict=True)
    return np.concatenate([sum(one for one in pair if one is not None) for pair in pairs], axis=1)


ACCOUNTS_THERE = np.repeat([2, 1, 2], DAYS)
"""Of a draw, on each day."""


def test_accounts_are_of_the_union_of_symbols_and_sessions_follow_one_another() -> None:
    found = whole()
    assert found.prices.symbols == ("AAA", "BBB") and found.prices.windows == 3
    assert found.accounts.draw.tolist() == [0, 0, 1, 1]
    assert found.accounts.symbol.tolist() == [0, 1, 0, 1]
    labels = [label for each in parts() for label in each.prices.labels]
    assert list(found.prices.labels) == labels and len(labels) == 15
    assert found.prices.unit == "account through 15 sessions"
    assert not found.ledgers[GREEDY].sums["pnl/net"][[1, 3], 5:9].any()
    assert not found.accounts.complete[[1, 3], 5:9].any()
    for draw in range(DRAWS):
        third = of_symbol("pnl/net", "BBB")[2]
        assert third is not None
        sums = found.ledgers[GREEDY].sums["pnl/net"]
        np.testing.assert_array_equal(sums[2 * draw + 1, 9:], third[draw])


def test_days_are_those_of_the_tests_one_after_the_other() -> None:
    """A day's capital is that of the accounts there are on it."""
    returns = hand("pnl/net") / (CAPITAL * ACCOUNTS_THERE)
    np.testing.assert_allclose(whole().days(GREEDY).returns, returns)
    each = np.concatenate([one.days(GREEDY).returns for one in parts()], axis=1)
    np.testing.assert_allclose(each, returns)


def check(value: float, each: list[float]) -> None:
    """Over two draws the interquartile mean is the mean."""
    assert value == pytest.approx(np.mean(each))


def test_daily_figures_are_the_formulas_on_the_days_of_all_tests() -> None:
    found, days = whole().figures(GREEDY), hand("pnl/net") / (CAPITAL * ACCOUNTS_THERE)
    ratios = [one.mean() / one.std(ddof=1) for one in days]
    check(found["daily_return"].value, [one.mean() for one in days])
    check(found["volatility"].value, [one.std(ddof=1) * np.sqrt(252) for one in days])
    check(found["sharpe"].value, [np.sqrt(252) * ratio for ratio in ratios])
    check(found["day_hit_rate"].value, [(one > 0).mean() for one in days])
    errors = [
        np.sqrt((1 - stats.skew(one) * r + (stats.kurtosis(one, fisher=False) - 1) / 4 * r**2) / 14)
        for one, r in zip(days, ratios, strict=True)
    ]
    check(found["sharpe"].error, [np.sqrt(252) * error for error in errors])
    below = []
    for one in days:
        equity = 1 + np.concatenate([[0.0], one.cumsum()])
        peak = np.maximum.accumulate(equity)
        below.append(252 * one.mean() / ((peak - equity) / peak).max())
    check(found["calmar"].value, below)


def test_what_an_account_nets_is_what_it_nets_in_every_test() -> None:
    each = [one.figures(GREEDY) for one in parts()]
    found = whole().figures(GREEDY)
    for name in ("net_pnl", "gross_pnl", "reward", "hard_breaches"):
        assert found[name].value == pytest.approx(sum(one[name].value for one in each)), name
    closing = sum(one.ledgers[GREEDY].liquidation.sum() for one in parts()) / DRAWS
    less = found["net_pnl"].value - found["liquidation_pnl"].value
    assert less == pytest.approx(closing / ACCOUNTS_THERE.mean())
    ours, theirs = hand("pnl/net"), hand("pnl/net", RANDOM)
    beyond = ((ours - theirs) / ACCOUNTS_THERE).sum(axis=1).mean()
    assert whole().beyond(GREEDY, RANDOM).value == pytest.approx(beyond)
    assert whole().net_pnl(GREEDY).value == pytest.approx(found["net_pnl"].value)


def test_ratios_are_of_the_bars_and_orders_that_there_were() -> None:
    found = whole().figures(GREEDY)
    steps = hand("steps").sum(axis=1)
    for metric, name, scale in (
        ("exposure", "trade/exposed_steps", 1.0),
        ("turnover", "trade/turnover", BARS / CAPITAL),
    ):
        check(found[metric].value, list(scale * hand(name).sum(axis=1) / steps))
    traded = hand("trade/turnover").sum(axis=1)
    costs = sum(hand(f"cost/{name}") for name in schema.COSTS).sum(axis=1)
    check(found["cost_total_bp"].value, list(1e4 * costs / traded))


@pytest.mark.parametrize(("number", "symbol"), [(0, "AAA"), (1, "BBB")])
def test_a_symbols_days_are_those_that_it_was_there_for(number: int, symbol: str) -> None:
    own = [one for one in of_symbol("pnl/net", symbol) if one is not None]
    days = np.concatenate(own, axis=1) / CAPITAL
    assert days.shape == (2, 15 if symbol == "AAA" else 11)
    np.testing.assert_allclose(whole().days(GREEDY, symbol=number).returns, days)
    found = whole().figures(GREEDY, symbol=number)
    check(found["net_pnl"].value, list(CAPITAL * days.sum(axis=1)))
    check(found["sharpe"].value, [np.sqrt(252) * r.mean() / r.std(ddof=1) for r in days])


def test_equity_is_the_sum_of_changes_and_stands_still_where_a_symbol_is_missing() -> None:
    found = whole().ledgers[GREEDY]
    np.testing.assert_array_equal(found.points, [1, 150, 300, 301, 420, 540, 541, 720, 900])
    net = found.sums["pnl/net"]
    np.testing.assert_allclose(found.final_equity, 1 + net.sum(axis=1) / CAPITAL)
    np.testing.assert_allclose(found.equity[:, -1], found.final_equity)
    np.testing.assert_allclose(found.equity[:, 2], 1 + net[:, :5].sum(axis=1) / CAPITAL)
    np.testing.assert_allclose(found.equity[:, 5], 1 + net[:, :9].sum(axis=1) / CAPITAL)
    # a test begins where the one before it has ended, and is half through in its middle
    np.testing.assert_allclose(found.equity[:, 6], found.equity[:, 5])
    np.testing.assert_allclose(
        found.equity[:, 4], 1 + (net[:, :5].sum(axis=1) + net[:, 5:9].sum(axis=1) / 2) / CAPITAL
    )
    np.testing.assert_array_equal(np.ptp(found.equity[[1, 3], 2:6], axis=1), 0)


def test_a_drawdown_is_the_deepest_of_any_test_and_of_the_whole() -> None:
    def told(changes: list[float], own: list[float]) -> float:
        ledgers = [
            dataclasses.replace(
                made_up(1, 2), equity=np.array([[1.0, 1 + change]]), points=np.array([1, 2]),
                final_equity=np.array([1 + change]), drawdown=np.array([deep]),
            )
            for change, deep in zip(changes, own, strict=True)
        ]  # fmt: skip
        found = ledger.in_sequence(ledgers, [np.zeros(1, int)] * len(ledgers))
        return float(found.drawdown[0])

    assert told([0.1, -0.02, 0.0], [0.5, 0.02, 0.0]) == 0.5
    # up by 10, then twice down by 11: 22 of a peak of 110
    assert told([0.1, -0.11, -0.11], [0.0, 0.11, 0.11]) == pytest.approx(0.2)
    # the peak is never below what an account begins with
    assert told([-0.1, -0.1], [0.1, 0.1]) == pytest.approx(0.2)


def test_curves_are_thinned_and_end_where_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "POINTS", 4)
    found = assessment.joined(parts()).ledgers[GREEDY]
    assert found.points.tolist() == [1, 300, 540, 900] and found.equity.shape == (4, 4)


def test_times_of_day_are_added_up_and_the_longest_day_counts() -> None:
    found = whole().ledgers[GREEDY].by_time["steps"]
    each = [one.ledgers[GREEDY].by_time["steps"][0] for one in parts()]
    np.testing.assert_allclose(found, [sum(each), sum(each), each[1] + each[2], each[2]])


def test_the_joined_assessment_is_told_as_any_other() -> None:
    found = whole()
    told = content.policies(found, Luck(3, None))
    schema.check(schema.plain(made.full() | {"policies": told}))
    own = told[GREEDY]
    daily = hand("pnl/net").mean(axis=0) / ACCOUNTS_THERE
    np.testing.assert_allclose(own["daily"]["net"], daily)
    assert own["overall"]["net_pnl"]["value"] == pytest.approx(daily.sum())
    assert list(own["symbols"]) == ["AAA", "BBB"]
    assert content.table(found, told).startswith("account through 15 sessions")
    assert "through 15 unseen sessions in 3 test windows" in content.sentence(
        found, told, Luck(3, None)
    )
    assert found.notes == ("fold 0: note 0", "fold 1: note 1", "fold 2: note 2")


def test_one_test_alone_is_what_it_was() -> None:
    alone, own = assessment.joined(parts()[:1]), parts()[0]
    for who in KINDS:
        for name, score in own.figures(who).items():
            np.testing.assert_allclose(alone.figures(who)[name], score, err_msg=name)
    again = assessment.joined([assessment.joined(parts()[:2]), parts()[2]])
    np.testing.assert_allclose(again.figures(GREEDY)["sharpe"], whole().figures(GREEDY)["sharpe"])


def test_tests_out_of_order_or_of_other_terms_are_refused() -> None:
    one, two, _ = parts()
    for wrong in ([two, one], [one, one], [one, part(1, first="2025-03-07")]):
        with pytest.raises(ValueError, match="the next begins"):
            assessment.joined(wrong)
    ground = dataclasses.replace(two.prices, draws=3)
    with pytest.raises(ValueError, match="as many in each"):
        assessment.joined([one, dataclasses.replace(two, prices=ground)])
    ground = dataclasses.replace(two.prices, labels=())
    with pytest.raises(ValueError, match="without dates"):
        assessment.joined([one, dataclasses.replace(two, prices=ground)])
    with pytest.raises(ValueError, match="expected the same"):
        assessment.joined([one, part(1, ledgers={GREEDY: two.ledgers[GREEDY]})])
    with pytest.raises(ValueError, match="capital"):
        assessment.joined([
            one, part(1, accounts=dataclasses.replace(two.accounts, capital=1.0))
        ])  # fmt: skip


def test_what_was_joined_is_not_to_be_played() -> None:
    with pytest.raises(ValueError, match="not held any more"):
        next(whole().prices.chunks())


def test_an_account_is_stopped_by_a_breach_wherever_it_falls_and_only_where_breaches_stop() -> None:
    """The breach of account 2 is on the last day of all."""
    breaches = np.zeros((4, 5))
    breaches[0, 1], breaches[2, 4] = 1, 1
    one = parts()[0]
    sums = one.ledgers[GREEDY].sums | {"risk/hard_breaches": breaches}
    ledgers = one.ledgers | {GREEDY: dataclasses.replace(one.ledgers[GREEDY], sums=sums)}
    for ends, expected in (("true", 2), ("false", 0)):
        settings = config.load(SETTINGS | {"terminate_on_hard": ends})
        ground = dataclasses.replace(one.prices, config=settings)
        assert part(0, ledgers=ledgers, prices=ground).stopped(GREEDY) == expected
