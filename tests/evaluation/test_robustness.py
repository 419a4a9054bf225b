"""The same episodes under other terms: capital, costs, scenarios, latency."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, reference_policies, robustness
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.reference_policies import Reference
from jules_jax.market import stress, table
from jules_jax.market.feed import SimulatedFeed
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")

PATHS, STEPS = 12, 60
SETTINGS_OF_DAYS = config.load(
    {**SETTINGS, "paths": PATHS, "max_steps_in_episode": STEPS, "sessions": 4}
)
KEY = jax.random.key(0)
HOLDER = Reference("buy and hold", reference_policies.HOLDER, (), "reference", "long")
CAPITALS = (1e5, 4e5, 1.6e6, 3e8, 1e9)


@pytest.fixture(scope="module")
def feed():
    return SimulatedFeed(SETTINGS_OF_DAYS)


@pytest.fixture(scope="module")
def market(feed):
    return feed.fresh(KEY)


@pytest.fixture(scope="module")
def starts(market):
    """Whole days, each from the last bar of the day before."""
    row = np.asarray(market.episodes)[:, 1].astype(np.int32) - 1
    return Starts(row, np.zeros_like(row), np.arange(PATHS))


def with_fills(**numbers):
    return replace(SETTINGS_OF_DAYS, fills=replace(SETTINGS_OF_DAYS.fills, **numbers))


def capacity(settings, market, starts):
    return robustness.capacity(settings, [HOLDER], market, starts, KEY, capitals=CAPITALS)


@pytest.fixture(scope="module")
def uncapped(market, starts):
    return capacity(with_fills(max_participation=1.0), market, starts)


def column(rows, name):
    return np.array([row[name] for row in rows])


def dollars(rows):
    return np.array([row["net_pnl"]["value"] for row in rows])


def test_capitals_beside_each_other_play_as_they_do_alone(market, starts):
    capitals = (2e4, 5e6)
    params = make_params(SETTINGS_OF_DAYS, market)
    together = backtest.run_numbers(
        HOLDER.policy, (), params, starts, KEY, {"account.initial_capital": capitals},
        measure=robustness.measure,
    )  # fmt: skip
    for place, capital in enumerate(capitals):
        under = params.with_numbers({"account.initial_capital": np.float32(capital)})
        alone = backtest.run_episodes(
            HOLDER.policy, (), under, starts, KEY, measure=robustness.measure
        )
        assert set(alone) == set(together)
        for name, values in alone.items():
            rounding = 1e-3 * capital / 5e4
            np.testing.assert_allclose(
                together[name][place], values, rtol=1e-5, atol=rounding, err_msg=name
            )
        for name in ("trade/orders", "trade/fills", "trade/cut", "trade/exposed_steps"):
            np.testing.assert_array_equal(together[name][place], alone[name])


def test_a_larger_account_pays_more_for_its_impact_and_keeps_less(uncapped):
    rows = uncapped[:3]  # beyond, even whole bars are too small
    assert not column(rows, "orders_cut").any() and np.all(column(rows, "orders") == 1)
    np.testing.assert_allclose(column(rows, "gross_bp"), rows[0]["gross_bp"], rtol=0.02, atol=0.05)
    assert np.all(np.diff(column(rows, "cost_bp")) > 0.2)
    assert np.all(np.diff(column(rows, "net_bp")) < -0.1)
    assert np.all(np.diff(column(rows, "participation")) > 0)
    ratio = np.diff(np.log(column(rows, "participation"))) / np.log(4)
    np.testing.assert_allclose(
        ratio, 1.0, atol=0.02
    )  # four times the capital takes four times the share


def test_without_impact_every_capital_pays_and_keeps_the_same_share(market, starts):
    free = with_fills(max_participation=1.0, temporary_impact=0.0, impact_prefactor=0.0)
    rows = capacity(free, market, starts)[:3]
    np.testing.assert_allclose(column(rows, "cost_bp"), rows[0]["cost_bp"], rtol=1e-3)
    np.testing.assert_allclose(column(rows, "net_bp"), rows[0]["net_bp"], rtol=0.02, atol=0.05)


def test_beyond_the_cap_on_volume_more_capital_changes_no_dollar(market, starts):
    rows = capacity(SETTINGS_OF_DAYS, market, starts)
    assert rows[0]["orders_cut"] == 0 and rows[0]["deployed"] == pytest.approx(1.0)
    assert rows[-1]["orders_cut"] > 0.5 and rows[-1]["deployed"] < 0.01
    assert dollars(rows)[-1] == pytest.approx(dollars(rows)[-2], rel=1e-3)
    assert np.all(column(rows, "participation_max") <= 0.1 + 1e-6)
    assert "volume cap" in robustness.capacity_sentence(
        [{**row, "net_pnl": {"value": 1.0}} for row in rows], "buy and hold"
    )


def test_the_sentence_names_the_best_capital_and_where_half_is_gone():
    def row(capital, net, bp, cut=0.0):
        return {"policy": "x", "capital": capital, "net_pnl": {"value": net}, "net_bp": bp,
                "orders_cut": cut}  # fmt: skip

    rows = [
        row(1e4, 10.0, 10.0),
        row(1e5, 80.0, 8.0),
        row(1e6, 300.0, 3.0),
        row(1e7, 90.0, 0.1, 0.9),
    ]
    assert robustness.capacity_sentence(rows, "x") == (
        "x: most dollars with $1m, $300 an episode or 3.00 bp of it; half of what it earns per "
        "dollar with $10k (10.00 bp) is gone at $1m; from $10m on, most orders meet the volume cap"
    )
    lost = [row(1e4, -1.0, -1.0)]
    assert robustness.capacity_sentence(lost, "x") == "x: earns nothing at any capital"


def test_scenarios_are_told_by_what_they_cost_and_what_safeguards_did(feed, starts):
    one = [
        s for s in stress.scenarios(STEPS) if s.name in ("as it is", "flash crash", "spread × 5")
    ]
    rows = robustness.stress(
        SETTINGS_OF_DAYS, [HOLDER], stress.of_fresh_paths(feed, KEY), starts, KEY, scenarios=one
    )
    usual, crash, wide = rows
    assert [row["scenario"] for row in rows] == [s.name for s in one]
    # Long all day with a quarter of the capital, which falls by a tenth and regains half of it.
    assert crash["worst"] < -0.25 * 0.04 * 50_000 < usual["worst"]
    assert crash["worst_bar"] == pytest.approx(-0.25 * 0.021 * 50_000, rel=0.1)
    assert crash["max_drawdown"] > 0.02 > usual["max_drawdown"]
    paid = wide["cost_bp"] - usual["cost_bp"]
    assert paid == pytest.approx(4 * 2.5, rel=1e-3)  # of half a spread of 5 bp
    assert usual["forced_exits"] == PATHS and usual["hard_breaches"] == 0
    text = robustness.stress_table(rows)
    assert (
        all(s.what in text for s in one)
        and len({len(x) for x in text.splitlines() if "buy" in x}) == 1
    )


def test_an_interval_that_is_unbounded_is_none():
    found = robustness.interval(np.array([1.0, 3.0]), np.array([0, 0]))
    assert found == {"value": 2.0, "low": None, "high": None, "error": None}
    found = robustness.interval(np.arange(50.0), np.arange(50))
    assert found["low"] < found["value"] == 24.5 < found["high"]
    assert found["error"] == pytest.approx(np.std(np.arange(50), ddof=1) / np.sqrt(50))


@pytest.mark.long
def test_sensitivity_varies_one_thing_at_a_time(market, starts):
    rows = robustness.sensitivity(SETTINGS_OF_DAYS, [HOLDER], market, starts, KEY)
    by = {}
    for row in rows:
        by.setdefault(row["parameter"], {})[row["value"]] = row
    usual = by["spread, bp"][5.0]
    for parameter, value in (("impact, ×", 1.0), ("cooldown, bars", 10.0), ("latency, bars", 0.0)):
        same = by[parameter][value]
        assert same["net_bp"] == pytest.approx(usual["net_bp"], abs=1e-3), parameter
    spreads = by["spread, bp"]
    assert list(spreads) == [0.0, 2.5, 5.0, 10.0, 20.0]
    # Half a tick at 100 dollars, 0.5 bp, is the least.
    assert spreads[20.0]["cost_bp"] - spreads[5.0]["cost_bp"] == pytest.approx(7.5, abs=0.01)
    assert spreads[5.0]["cost_bp"] - spreads[0.0]["cost_bp"] == pytest.approx(2.0, abs=0.02)
    impacts = [row["cost_bp"] for row in by["impact, ×"].values()]
    assert np.diff(impacts) == pytest.approx(np.array([1, 1, 2, 4]) * (impacts[1] - impacts[0]))
    assert list(by["cooldown, bars"]) == [5.0, 10.0, 20.0]
    assert list(by["latency, bars"]) == [0.0, 1.0, 2.0]
    assert "latency, bars" in robustness.sensitivity_table(rows)


@pytest.mark.long
def test_a_spread_of_the_bars_own_is_varied_with_the_configured_one(market, starts):
    own = market.rows.at[:, table.Row._fields.index("half_spread")].set(1e-3)
    quoted = replace(market, rows=own)
    found = robustness._spreads(SETTINGS_OF_DAYS, HOLDER, quoted, starts, KEY)
    paid = [played["cost/spread"].sum() / played["trade/turnover"].sum() for _, played in found]
    np.testing.assert_allclose(paid[1:], [5e-4, 1e-3, 2e-3, 4e-3], rtol=1e-3)


@pytest.mark.long
def test_a_trained_network_is_played_greedy_and_sampled(market, starts):
    weights = network.init(jax.random.key(1), SETTINGS_OF_DAYS.network)
    who = robustness.contenders(SETTINGS_OF_DAYS, weights)
    assert [one.name for one in who] == [
        "trained, greedy", "trained, sampled", "buy and hold", "random", "flat"
    ]  # fmt: skip
    rows = robustness.capacity(SETTINGS_OF_DAYS, who, market, starts, KEY, capitals=(1e4, 1e9))
    assert len(rows) == 2 * len(who)
    flat = [row for row in rows if row["policy"] == "flat"]
    assert all(row["net_bp"] == 0 and row["cost_bp"] is None for row in flat)
    assert len(robustness.capacity_table(rows).splitlines()) == 2 + 4 * len(who)
