"""Rules act on the entries that they name, and at their thresholds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, reference_policies
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.reference_policies import BUY, HOLD, SELL, Rule, Truth
from jules_jax.market.feed import SimulatedFeed
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")


def act(policy, params, obs, carry=()):
    obs = jnp.asarray(obs, jnp.float32)
    keys = jax.random.split(jax.random.key(0), len(obs))
    return policy.act(params, keys, carry, obs, jnp.zeros(len(obs), bool))


def observed(column, values, positions):
    obs = np.full((len(values), 12), 9.0)  # entries that a rule must not look at
    obs[:, column], obs[:, 11] = values, positions
    return obs


@pytest.mark.parametrize(
    ("make", "column", "direction"),
    [
        (reference_policies.rsi_reversion, 0, -1),
        (reference_policies.ema_reversion, 2, -1),
        (reference_policies.ema_momentum, 2, 1),
        (reference_policies.vwap_reversion, 3, -1),
        (reference_policies.vwap_momentum, 3, 1),
    ],
)
def test_a_rule_enters_beyond_its_threshold_and_leaves_at_its_exit(make, column, direction):
    cases = [  # signal, position, action of a rule with threshold 1 and exit 0.25
        (1.00, 0, BUY),
        (0.99, 0, HOLD),
        (-1.0, 0, SELL),
        (-0.9, 0, HOLD),
        (2.00, 1, HOLD),
        (0.26, 1, HOLD),
        (0.25, 1, SELL),
        (-3.0, 1, SELL),
        (-0.26, -1, HOLD),
        (-0.25, -1, BUY),
        (3.00, -1, BUY),
        (-2.0, -0.5, HOLD),
    ]
    signal, position, expected = np.array(cases).T
    obs = observed(column, direction * signal, position)
    _, action = act(reference_policies.rule(), make(1.0, 0.25), obs)
    assert action.dtype == jnp.int32
    assert action.tolist() == expected.tolist()


def test_a_threshold_of_zero_asks_for_nothing_at_a_signal_of_zero():
    obs = observed(3, [0.0, 0.0], [0, 0])
    _, action = act(reference_policies.rule(), reference_policies.vwap_reversion(0.0, 0.0), obs)
    assert action.tolist() == [HOLD, HOLD]


def test_every_lane_may_have_a_rule_of_its_own():
    rules = [Rule(0, 1.0, 1.0, 0.0), Rule(2, -1.0, 3.0, 0.0)]
    params = reference_policies.stack(rules, 2)
    assert params.column.tolist() == [0, 0, 2, 2]
    obs = np.zeros((4, 12))
    obs[:, 0], obs[:, 2] = [2.0, 0.5, 2.0, 2.0], [0.0, 0.0, 4.0, -4.0]
    _, action = act(reference_policies.rule(), params, obs)
    assert action.tolist() == [BUY, HOLD, SELL, BUY]


def test_the_grid_has_every_rule_once():
    grid = reference_policies.grid()
    assert len(grid) == len(set(grid.values())) == 150
    assert grid["vwap_reversion 1.5 -1.5"] == Rule(3, -1.0, 1.5, -1.5)


def test_the_oracle_acts_on_the_drift_of_the_coming_bar():
    drift = jnp.array([[0.0, 5.0, 5.0], [0.0, 0.0, -5.0]])
    policy, params = reference_policies.oracle(), Truth(drift, 1.0, 0.0)
    carry, flat = policy.initial_carry(params, 2), observed(0, [9, 9], [0, 0])
    actions = []
    for _ in range(3):
        carry, action = act(policy, params, flat, carry)
        actions.append(action.tolist())
    assert actions == [[HOLD, HOLD], [BUY, HOLD], [BUY, SELL]]


def test_the_drift_of_step_t_is_that_of_the_row_it_is_decided_on():
    drift = np.arange(10) * 1e-4
    ahead = reference_policies.drift_ahead(drift, np.array([2, 5]), 3)
    np.testing.assert_allclose(ahead, [[2, 3, 4], [5, 6, 7]], rtol=1e-6)


def test_the_one_sided_policies_ask_only_when_flat():
    obs = observed(0, [9, 9, 9], [0, 1, -1])
    _, bought = act(reference_policies.buy_and_hold(), (), obs)
    _, sold = act(reference_policies.always_short(), (), obs)
    assert bought.tolist() == [BUY, HOLD, HOLD]
    assert sold.tolist() == [SELL, HOLD, HOLD]


def test_buy_and_hold_is_long_from_open_to_close():
    settings = config.load({**SETTINGS, "max_steps_in_episode": 60, "sessions": 4})
    market = SimulatedFeed(settings).fresh(jax.random.key(0))
    start = np.asarray(market.episodes)[:, 1].astype(np.int32) - 1  # the last bar of the warm-up
    starts = Starts(start, np.zeros_like(start), np.arange(len(start)))
    params = make_params(settings, market)
    held = backtest.run_episodes(
        reference_policies.buy_and_hold(), (), params, starts, jax.random.key(0)
    )
    assert np.all(held["trade/orders"] == 1)
    # Bars 1 (the order for bar 0 crosses the close) to 54 of 60: flat by five minutes.
    assert np.all(held["trade/exposed_steps"] == 54)
