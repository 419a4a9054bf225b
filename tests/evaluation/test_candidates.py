"""What is found by playing candidates beside each other: as turnover, or as earnings, say."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, candidates, reference_policies
from jules_jax.market.feed import SimulatedFeed
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")

PATHS = 48
LONG = {
    **SETTINGS, "paths": PATHS, "max_steps_in_episode": 100, "sessions": 4,
    "safeguards.trade_cooldown_steps": 4, "simulator.preset": "easy",
}  # fmt: skip


@pytest.fixture(scope="module")
def held_out():
    settings = config.load(LONG)
    feed, key = SimulatedFeed(settings), jax.random.key(5)
    market = feed.fresh(key)
    starts = backtest.one_per_stretch(np.asarray(market.episodes), PATHS, seed=0)
    return feed, key, make_params(settings, market), starts


@pytest.mark.parametrize("order", [0.02, 0.3])
def test_a_random_policy_is_matched_by_one_like_it(held_out, order):
    *_, params, starts = held_out
    chance = np.array([order / 2, 1 - order, order / 2], np.float32)
    wanted = backtest.run_episodes(
        reference_policies.RANDOM, chance, params, starts, jax.random.key(9)
    )
    found = candidates.matched_turnover(params, starts, jax.random.key(1), wanted)
    assert 1 - found.probabilities[1] == pytest.approx(order, rel=0.35)
    sampling = 3 * wanted["trade/turnover"].std() / np.sqrt(PATHS)
    assert abs(found.turnover - wanted["trade/turnover"].mean()) < 2 * sampling
    assert found.wanted_orders == pytest.approx(wanted["trade/orders"].mean())


def test_a_match_says_what_it_does_not_match(held_out):
    *_, params, starts = held_out
    wanted = backtest.run_episodes(
        reference_policies.RANDOM, np.array([0.05, 0.9, 0.05], np.float32), params, starts,
        jax.random.key(9),
    )  # fmt: skip
    more = {"trade/turnover": 50 * wanted["trade/turnover"], "trade/orders": wanted["trade/orders"]}
    found = candidates.matched_turnover(params, starts, jax.random.key(1), more)
    assert found.probabilities == (0.5, 0.0, 0.5) and found.matches[0] is False
    assert "no match" in found.sentence()
    close = candidates.Matched((0.1, 0.8, 0.1), 104.0, 9.6, 100.0, 10.0)
    assert close.matches == (True, True) and "a match to within 5%" in close.sentence()
    other = close._replace(orders=9.0)
    assert other.matches == (True, False)
    assert "the number of orders does not" in other.sentence()


def test_a_policy_that_never_trades_is_matched_by_one_that_never_does(held_out):
    *_, params, starts = held_out
    wanted = {"trade/turnover": np.zeros(PATHS), "trade/orders": np.zeros(PATHS)}
    found = candidates.matched_turnover(params, starts, jax.random.key(1), wanted)
    assert found.probabilities == reference_policies.NEVER
    assert (found.turnover, found.orders) == (0.0, 0.0) and found.matches == (True, True)


@pytest.mark.long
def test_the_oracle_is_picked_on_other_paths_and_beats_the_rules(held_out):
    feed, key, params, starts = held_out
    name, truth = candidates.oracle(feed, key, starts)
    threshold, share = map(float, name.split()[1:])
    assert float(truth.threshold) == threshold and float(truth.exit) == share * threshold
    hidden = np.asarray(feed.hidden(key).drift).reshape(-1)
    np.testing.assert_allclose(
        truth.drift[3], 1e4 * hidden[starts.row[3] :][:100], rtol=1e-5, atol=1e-6
    )
    other = np.asarray(feed.hidden(jax.random.fold_in(key, candidates.PICKING)).drift)
    assert not np.any(other.reshape(-1) == hidden)
    told = backtest.run_episodes(reference_policies.ORACLE, truth, params, starts, key)
    ruled = candidates.side_by_side(
        reference_policies.RULE, reference_policies.grid(), params, starts, key
    )
    assert told["pnl/net"].mean() > max(metrics["pnl/net"].mean() for metrics in ruled.values())


def test_paths_of_one_market_hide_what_they_are_traded_with():
    """The drift of the next bar's mid, where paths share a factor: its slope on moves is 1."""
    settings = config.load({**LONG, "symbols_per_market": 4, "noise_bp": 0.5})
    feed, key = SimulatedFeed(settings), jax.random.key(6)
    drift = np.asarray(feed.hidden(key).drift, np.float64)
    opens = np.asarray(feed.fresh(key).rows)[:, 0].reshape(drift.shape)
    move = np.diff(np.log(opens.astype(np.float64)), axis=1)[:, 1:]  # from open 1 to open 2 on
    ahead, inside = drift[:, :-2], np.arange(1, drift.shape[1] - 1) % 60 != 59
    x, y = ahead[:, inside].ravel(), move[:, inside].ravel()
    slope, error = np.sum(x * y) / np.sum(x * x), y.std() / np.sqrt(np.sum(x * x))
    assert slope == pytest.approx(1.0, abs=4 * error) and error < 0.1
