"""What an assessment puts into the report: figures, chosen sessions, one sentence."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jules_jax.evaluation.report import content, schema
from jules_jax.evaluation.report.content import Luck
from jules_jax.evaluation.scores import Score
from tests.evaluation.report import made

GREEDY = "trained, greedy"
SAMPLED = "trained, sampled"
KINDS = {
    GREEDY: "trained", SAMPLED: "trained", "flat": "reference", "random": "reference",
    "oracle": "oracle",
}  # fmt: skip


def said(
    net: tuple[float, float, float], *, gross: tuple[float, float] = (1.0, 0.5),
    turnover: float = 1.0, dsr: float = 0.5, dated: bool = True, rival: float = 0.0,
    windows: int = 0, sampled: tuple[float, float, float] | None = None, count: int = 60,
) -> str:  # fmt: skip
    """The sentence on a policy that nets so much, the ends of its interval second and third.

    sampled: of the policy that draws; None: it does not trade.
    """
    values = {
        "net_pnl": dict(zip(("value", "low", "high"), net, strict=True)),
        "gross_pnl": dict(zip(("value", "low"), gross, strict=True)),
        "turnover": {"value": turnover},
        "dsr": {"value": dsr},
    }
    net_of = {"flat": 0.0, "random": rival, "oracle": 1e6}  # which sees what nobody can: no rival
    told: dict[str, Any] = {
        name: {"kind": KINDS[name], "overall": {"net_pnl": {"value": value}}}
        for name, value in net_of.items()
    }
    told[GREEDY] = {"kind": "trained", "overall": values}
    drawn = dict(zip(("value", "low", "high"), sampled or (0.0, 0.0, 0.0), strict=True))
    drawing = {"net_pnl": drawn, "turnover": {"value": float(sampled is not None)}}
    told[SAMPLED] = {"kind": "trained", "overall": drawing}
    labels = ("2025-03-10",) * count * dated
    ground = SimpleNamespace(
        unit="account over 19 sessions", labels=labels, windows=windows, accounts=count
    )
    ends = (net[1] - rival, net[2] - rival)
    found: Any = SimpleNamespace(
        kinds=KINDS, prices=ground, beyond=lambda name, other: Score(net[0] - rival, *ends)
    )
    return content.sentence(found, told, Luck(12, None))


NAN = float("nan")
NO_EDGE = "No edge after costs is shown"
CASES = {
    "loses": (said((-30, -40, -20)), "It loses, so it has no edge on real bars: ", "−"),
    "loses on paths": (said((-30, -40, -20), dated=False), "It loses: ", "−"),
    "no edge": (said((5, -10, 20), gross=(9, -1)), f"{NO_EDGE} on real bars: ", ""),
    "no edge on paths": (said((5, -10, 20), gross=(9, -1), dated=False), f"{NO_EDGE}: ", ""),
    "paid away": (said((5, -10, 20), gross=(90, 60)), f"{NO_EDGE} on real bars: ", "away."),
    "no interval": (said((5, NAN, NAN)), f"{NO_EDGE} on real bars: ", "[no interval]"),
    "no trades": (
        said((0, 0, 0), turnover=0), "It does not trade, so it has no edge on real bars: ", "",
    ),
    "no trades on paths": (said((0, 0, 0), turnover=0, dated=False), "It does not trade: ", ""),
    "simulated": (said((30, 20, 40), dated=False), "It earns on these simulated prices", "nothing"),
    "luck": (said((30, 20, 40), dsr=0.6), "It earned, but not beyond luck: ", "probability 60%"),
    "no luck known": (said((30, 20, 40), dsr=NAN), "It earned, but not beyond luck: ", ""),
    "earned": (said((30, 20, 40), dsr=0.97), "It earned, and luck alone seldom", "12 trials"),
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "begins", "words"), CASES.values(), ids=CASES.keys())
def test_the_sentence_in_each_of_its_cases(sentence: str, begins: str, words: str) -> None:
    assert sentence.startswith(begins) and words.replace("−", "-$") in sentence
    assert sentence.endswith(".") and "nan" not in sentence
    assert sentence.count(GREEDY) == 1


@pytest.mark.parametrize(("dated", "what"), [(True, "sessions"), (False, "episodes")])
def test_a_gain_over_few_days_or_episodes_is_not_believed_and_a_loss_is(dated: bool, what: str):
    text = said((100.0, 10.0, 200.0), dated=dated, dsr=0.99, count=19)
    assert text.startswith(f"19 {what} are too few to say whether {GREEDY} earns: it nets $100.00")
    assert said((100.0, 10.0, 200.0), dated=dated, dsr=0.99, count=20).startswith("It earn")
    assert said((-100.0, -200.0, -10.0), dated=dated, count=19).startswith("It loses")


def test_the_best_reference_policy_is_named_and_the_oracle_is_none() -> None:
    assert "more than the best reference policy (random: $10.00)" in said((30, 20, 40), rival=10)
    assert "but random earns more, $50.00" in said((30, 20, 40), rival=50)
    assert "no more, as far as can be told, than random with $25.00" in said((30, 20, 40), rival=25)


def test_joined_tests_are_said_to_be_unseen_and_are_counted() -> None:
    unseen = "an account through 60 unseen sessions in 3 test windows"
    for each in (
        said((-30, -40, -20), windows=3),
        said((5, -10, 20), windows=3),
        said((0, 0, 0), turnover=0, windows=3),
        said((30, 20, 40), windows=3),
    ):
        assert unseen in each and each.endswith(".") and each.count(". ") == 0
    assert "unseen sessions in 1 test window " in said((5, -10, 20), windows=1)
    assert "unseen" not in said((5, -10, 20))


def test_where_the_greedy_policy_does_not_trade_the_sampled_one_is_told_of() -> None:
    def told(sampled: tuple[float, float, float] | None) -> str:
        return said((0, 0, 0), turnover=0, sampled=sampled, windows=3)

    assert told((-7, -9, -5)).endswith(
        "; trained, sampled, which trades, nets -$7.00 [-9.00, -5.00], which is no edge either."
    )
    assert told((2, -9, 13)).endswith("nets $2.00 [-9.00, 13.00], which is no edge either.")
    assert told((7, 5, 9)).endswith("nets $7.00 [5.00, 9.00], but it was not the one to be judged.")
    assert "sampled" not in told(None) and "sampled" not in said((5, -10, 20), sampled=(7, 5, 9))


def test_only_costs_that_ate_an_edge_are_said_to_have() -> None:
    assert "paid away" not in CASES["no edge"][0] and "paid away" in CASES["paid away"][0]


# -- sessions bar by bar: two accounts of three sessions of four bars, the first of which is cut --

NETS = np.array([[5, 5, 5, 1, 1, 1, 1, 2, 2, 2, 2], [9, 9, 9, -3, 0, 0, 0, 4, 0, 5, 0]], float)
"""Steps execute from the first session's second bar on; by session 15, 4, 8 and 27, −3, 9."""


def watched(*, complete: bool = True) -> content.Watched:
    rows = np.arange(1, 12) + np.array([[0], [12]])
    zeros, no = np.zeros(rows.shape), np.zeros(rows.shape, bool)
    quantity, close = zeros.astype(int), zeros.astype(int)
    quantity[1, 4], close[1, 6] = 3, -3
    record: Any = SimpleNamespace(
        row=rows, time=np.tile(np.arange(1, 12), (2, 1)), net_pnl=NETS, symbol=zeros.astype(int),
        quantity=quantity, close_quantity=close, quantity_step=zeros + 10, forced=no,
        fill_price=zeros + 101, mark_price=100.0 + rows, position=zeros,
        request=np.arange(22).reshape(2, 11) % 3 - 1,
    )  # fmt: skip
    market: Any = SimpleNamespace(rows=None)
    chunk: Any = SimpleNamespace(
        session=np.repeat(np.arange(6), 4), before=np.array([0, 3]),
        complete=np.array([[False, True, True]] * 2) & complete,
        minute=np.tile(np.arange(4.0), 6), market=market,
    )  # fmt: skip
    ground: Any = SimpleNamespace(labels=(), symbols=("simulated",))
    return content.watched(GREEDY, record, chunk, ground)


def test_the_sessions_shown_are_the_worst_the_median_and_the_best_of_whole_ones() -> None:
    shown = content.shown([watched()])
    told = [(sum(each["net"]), each["label"]) for each in shown]
    assert told == [
        (-3, "episode 1, session 1 (worst of 2 accounts)"),
        (8, "episode 0, session 2 (median of 2 accounts)"),
        (9, "episode 1, session 2 (best of 2 accounts)"),
    ]
    assert all(len(each[name]) == 4 for each in shown for name in ("price", "position", "request"))
    worst = shown[0]
    np.testing.assert_array_equal(worst["price"], 100.0 + np.arange(16, 20))
    assert worst["fills"] == [
        {"bar": 1, "price": 101, "quantity": 30, "forced": False},
        {"bar": 3, "price": 119, "quantity": -30, "forced": True},
    ]


def test_the_raster_has_a_line_a_session_and_a_column_a_minute() -> None:
    found = content.raster([watched()])
    assert found is not None
    assert found["labels"][:2] == ["episode 0, session 1", "episode 0, session 2"]
    np.testing.assert_array_equal(found["minute"], np.arange(4))
    requests = np.arange(22).reshape(2, 11) % 3 - 1
    np.testing.assert_array_equal(found["request"], requests[:, 3:].reshape(4, 4))


def test_without_a_whole_session_nothing_is_shown() -> None:
    assert content.shown([watched(complete=False)]) == []
    assert content.raster([watched(complete=False)]) is None


# -- figures and table ---------------------------------------------------------------------------


def test_the_tables_columns_do_not_collide_however_wide_they_are() -> None:
    wide = {"value": -1234567.89, "low": -2345678.9, "high": -1234567.0, "error": 1.0}
    none = {"value": NAN, "low": NAN, "high": NAN, "error": NAN}
    overall = dict.fromkeys(schema.METRICS, wide)
    told = {GREEDY: {"overall": overall}, "flat": {"overall": overall | {"sharpe": none}}}
    ground = SimpleNamespace(unit="account through 1,000 sessions")
    found: Any = SimpleNamespace(prices=ground)
    head, rule, *lines = content.table(found, told).splitlines()
    assert len(rule) == len(head) == len(lines[0]) == len(lines[1])
    bounds = "-1,234,567.89 [-2,345,678.90, -1,234,567.00]"
    assert f"  {bounds}  -1,234,567.89  " in lines[0]
    assert head.startswith("account through 1,000 sessions  ")
    assert "  –  " in lines[1]


def assessed() -> Any:
    """An assessment of two made-up policies, of two draws of two symbols through eleven days."""
    from jules_jax.evaluation.assessment import Assessment
    from jules_jax.evaluation.scores import Accounts
    from tests.evaluation.test_scores import made_up

    kinds = {GREEDY: "trained", "random": "reference"}
    accounts = Accounts(
        np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.ones((4, 11), bool), 50_000.0, 60, True
    )
    ledgers = {}
    for seed, name in enumerate(kinds):
        ledger = made_up(4, 11, seed)
        extra = [f"reward/{term}" for term in schema.REWARD_TERMS] + ["action/buy", "action/hold"]
        extra += ["reward/absolute_equity_change", "action/sell"]
        more = {key: np.full((4, 11), 20.0) for key in extra}
        by_time = {
            key: np.array([4 * 11 * 30.0] * 2) for key in ("steps", "pnl/net", "trade/orders")
        }
        ledgers[name] = dataclasses.replace(ledger, sums=ledger.sums | more, by_time=by_time)
    days = tuple(f"2025-03-{day:02d}" for day in range(10, 21))
    ground: Any = SimpleNamespace(
        symbols=("AAA", "BBB"), labels=days, unit="account", windows=0
    )  # fmt: skip
    return Assessment(ground, accounts, ledgers, kinds, dict(kinds), ())


def test_what_is_told_of_policies_is_by_the_schema() -> None:
    found = assessed()
    told = content.policies(found, Luck(3, None))
    whole = json.loads(json.dumps(schema.plain(made.full() | {"policies": told})))
    schema.check(whole)
    own = whole["policies"][GREEDY]
    assert list(own["overall"]) == list(schema.METRICS) and list(own["symbols"]) == ["AAA", "BBB"]
    net = found.ledgers[GREEDY].sums["pnl/net"].reshape(2, 2, 11).mean(axis=1)
    np.testing.assert_allclose(own["daily"]["net"], net.mean(axis=0))
    np.testing.assert_allclose(own["daily"]["low"], np.percentile(net, 5, axis=0))
    assert sum(own["returns_histogram"]["counts"]) == 11
    assert own["requests"] == pytest.approx({"sell": 1 / 3, "hold": 1 / 3, "buy": 1 / 3})
    assert own["reward_terms"] == pytest.approx(dict.fromkeys(schema.REWARD_TERMS, 1 / 6))
    assert own["by_minute"] == {"minute": [0, 30], "net": [30, 30], "orders": [30, 30]}
