"""Backtests: what is counted, over what, with which error."""

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.env.metrics import COSTS
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, reference_policies, unseen
from tests.tiny import SETTINGS

EPISODES = 24


@pytest.fixture(scope="module")
def played():
    """Episodes of the random and of the flat policy on the same fresh paths."""
    settings = config.load(SETTINGS)
    market = unseen.fresh_paths(settings, EPISODES, jax.random.key(5))
    starts = backtest.one_per_stretch(np.asarray(market.episodes), EPISODES, seed=0)
    params = make_params(settings, market)
    play = {
        policy.name: backtest.run_episodes(policy, (), params, starts, jax.random.key(6))
        for policy in (reference_policies.random(), reference_policies.flat())
    }
    return market, starts, play


def test_every_episode_has_a_path_of_its_own(played):
    market, starts, _ = played
    assert len(market.episodes) == EPISODES == len(set(starts.cluster.tolist()))
    first, last = np.asarray(market.episodes)[:, 1:].T
    assert np.all((first <= starts.row) & (starts.row <= last))


def test_flat_earns_exactly_nothing(played):
    *_, play = played
    for name, values in play["flat"].items():
        if name.startswith("market/") or name == "risk/drawdown_weight":
            continue  # facts about the market and the config, not about the policy
        expected = {"length": 32, "action/hold": 32, "final_equity": 1}.get(name, 0)
        assert np.all(values == expected), name


def test_net_pnl_is_gross_less_costs_and_what_equity_gained(played):
    *_, play = played
    random = play["random"]
    costs = sum(random[f"cost/{part}"] for part in COSTS)
    assert np.all(random["trade/orders"] > 0)
    np.testing.assert_allclose(random["pnl/net"], random["pnl/gross"] - costs, atol=1e-2)
    gained = 50_000 * (random["final_equity"].astype(np.float64) - 1)
    np.testing.assert_allclose(random["pnl/net"], gained, atol=2e-2)


def test_reward_is_the_sum_of_its_terms(played):
    *_, play = played
    random = play["random"]
    terms = [name for name in random if name.startswith("reward/")]
    terms = [name for name in terms if "steps" not in name and "absolute" not in name]
    np.testing.assert_allclose(random["reward"], sum(random[name] for name in terms), atol=1e-4)


def test_errors_count_clusters_not_episodes():
    """Ten copies of three observations say no more than three observations."""
    values, cluster = np.array([1.0, 2.0, 6.0]), np.arange(3)
    once = backtest.mean_and_error(values, cluster)
    copied = backtest.mean_and_error(np.repeat(values, 10), np.repeat(cluster, 10))
    assert once == pytest.approx((3.0, np.std(values, ddof=1) / np.sqrt(3)))
    assert copied == pytest.approx(once)


def test_disjoint_episodes_share_no_bar():
    starts = backtest.without_overlap(np.array([[0, 50, 3100], [1, 5000, 5010]]), 10, 1000)
    disjoint = sorted(set(zip(starts.row.tolist(), starts.symbol.tolist(), strict=True)))
    assert disjoint == [(50, 0), (1051, 0), (2052, 0), (3053, 0), (5000, 1)]
    assert len(starts.row) == 10
    assert np.bincount(starts.cluster).tolist() == [2] * 5
