"""Rules act on the entries that they name, and at their thresholds."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.agent.policy import Policy
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


def clock(time, continuous=False):
    angle = np.pi * (1 + continuous) * np.asarray(time)
    return np.sin(angle), np.cos(angle)


def test_the_cross_is_long_while_the_fast_average_is_above_the_slow_one():
    """Averages and closes by hand; σ 1e-3, in which the observation measures them."""
    cases = [  # close, EMA10, EMA20, position, action
        (100.0, 100.2, 100.1, 0, BUY),
        (100.0, 99.9, 100.1, 0, SELL),
        (100.3, 100.2, 100.1, 1, HOLD),
        (100.3, 100.0, 100.1, 1, SELL),
        (100.3, 100.0, 100.1, -1, HOLD),
        (99.0, 100.2, 100.1, -1, BUY),
    ]
    close, fast, slow, position, expected = np.array(cases).T
    obs = observed(0, np.zeros(6), position)
    obs[:, 1], obs[:, 2] = np.log(close / fast) / 1.42e-3, np.log(close / slow) / 2.12e-3
    _, action = act(reference_policies.ema_cross(), reference_policies.Cross(0.0, 0.0), obs)
    assert action.tolist() == expected.tolist()


@pytest.mark.parametrize("continuous", [False, True])
def test_a_twap_holds_what_its_plan_has_by_now(continuous):
    plan = reference_policies.Slices(4.0, 0.2, 0.6, 0.8, 2.0 if continuous else 1.0)
    times = np.array([0.0, 0.049, 0.051, 0.101, 0.16, 0.5, 0.59, 0.61, 0.66, 0.71, 0.76, 0.99])
    lots = [1, 1, 2, 3, 4, 4, 4, 3, 2, 1, 0, 0]
    for held in range(5):
        obs = np.zeros((len(times), 12))
        obs[:, 4], obs[:, 5] = clock(times, continuous)
        obs[:, 11] = held / 4
        _, action = act(reference_policies.twap(), plan, obs)
        assert action.tolist() == [HOLD + np.sign(lot - held) for lot in lots]
        obs[:, 10] = -0.3  # an order could not be executed yet
        _, action = act(reference_policies.twap(), plan, obs)
        assert set(action.tolist()) == {HOLD}


def test_part_of_a_lot_is_one_more_to_sell():
    plan = reference_policies.Slices(2.0, 0.2, 0.5, 0.8, 1.0)
    obs = np.zeros((3, 12))
    obs[:, 4], obs[:, 5] = clock([0.9, 0.1, 0.9])
    obs[:, 11] = [0.01, 0.51, 0.0]
    _, action = act(reference_policies.twap(), plan, obs)
    assert action.tolist() == [SELL, HOLD, HOLD]


DAYS = {
    **SETTINGS, "max_steps_in_episode": 60, "sessions": 4,
    "safeguards.trade_cooldown_steps": 3, "account.position_size_pct": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def days():
    """Settings, market and starts of whole days, each from the last bar of the day before."""
    settings = config.load(DAYS)
    market = SimulatedFeed(settings).fresh(jax.random.key(0))
    start = np.asarray(market.episodes)[:, 1].astype(np.int32) - 1  # the last bar of the warm-up
    starts = Starts(start, np.zeros_like(start), np.arange(len(start)))
    return settings, market, starts


def play(policy, params, days, **changes):
    settings, market, starts = days
    settings = dataclasses.replace(
        settings, account=dataclasses.replace(settings.account, **changes)
    )
    params = params(settings) if callable(params) else params
    return backtest.run_episodes(
        policy, params, make_params(settings, market), starts, jax.random.key(1)
    )


@pytest.mark.parametrize("lots", [pytest.param(1, marks=pytest.mark.long), 3])
def test_a_twap_trades_every_lot_in_and_out_and_is_flat_before_it_must_be(days, lots):
    def slices(settings):
        return reference_policies.slices(settings, *days[1:])

    played = play(reference_policies.twap(), slices, days, max_position_lots=lots)
    assert np.all(played["trade/orders"] == 2 * lots)
    assert not played["trade/forced_exits"].any() and not played["trade/session_liquidations"].any()
    assert np.all(played["trade/round_trips"] == 1)
    assert not played["trade/cooldown_blocked"].any() and not played["trade/rejected"].any()
    assert np.all(played["trade/exposed_steps"] > 20)


def scripted(actions):
    """Does what is written, `[T]`, whatever it sees; forgets where it was at a new episode."""
    actions = jnp.asarray(actions)

    def act_(params, keys, carry, obs, first):
        del params, keys
        carry = jnp.where(first, 0, carry)
        return carry + 1, jnp.broadcast_to(actions[carry], obs.shape[:1])

    return Policy("script", lambda params, lanes: jnp.zeros(lanes, jnp.int32), act_)


def requests(policy, lanes=2, steps=7, first_again=()):
    carry, asked = policy.initial_carry((), lanes), []
    for t in range(steps):
        first = jnp.full(lanes, t == 0 or t in first_again)
        carry, action = policy.act((), None, carry, jnp.zeros((lanes, 12)), first)
        asked.append(np.asarray(action))
    return np.array(asked)


def test_a_decision_is_delayed_by_so_many_bars():
    script = scripted(ACTIONS := np.array([2, 0, 0, 1, 2, 2, 0, 1]))
    assert reference_policies.delayed(script, 0) is script
    for bars in (1, 2, 3):
        late = reference_policies.delayed(script, bars)
        assert late is reference_policies.delayed(script, bars)  # compiled once
        expected = np.concatenate([np.full(bars, HOLD), ACTIONS])[:7]
        np.testing.assert_array_equal(requests(late), np.stack([expected] * 2, axis=1))
    again = requests(reference_policies.delayed(script, 2), first_again=(4,))[:, 0]
    assert again.tolist() == [1, 1, 2, 0, 1, 1, 2]  # a new episode starts with nothing on its way
    with pytest.raises(ValueError, match="at least 0"):
        reference_policies.delayed(script, -1)


@pytest.mark.long
def test_a_delayed_script_earns_what_the_shifted_script_does(days):
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 3, 60)
    late = play(reference_policies.delayed(scripted(actions)), (), days)
    shifted = play(scripted(np.concatenate([[HOLD], actions[:-1]])), (), days)
    on_time = play(scripted(actions), (), days)
    np.testing.assert_array_equal(late["pnl/net"], shifted["pnl/net"])
    assert np.any(late["pnl/net"] != on_time["pnl/net"])


def test_without_memory_every_bar_is_the_first():
    settings = config.load(SETTINGS)
    weights = network.init(jax.random.key(3), settings.network)
    with_memory = policy.from_network(greedy=True)
    without = reference_policies.without_memory(with_memory)
    rng = np.random.default_rng(1)
    carry = other = without.initial_carry(weights, 3)
    seen = []
    for t in range(4):
        obs = jnp.asarray(rng.normal(size=(3, 12)), jnp.float32)
        first = jnp.full(3, t == 0)
        carry, action = without.act(weights, None, carry, obs, first)
        _, alone = with_memory.act(weights, None, with_memory.initial_carry(weights, 3), obs, first)
        other, _ = with_memory.act(weights, None, other, obs, first)
        np.testing.assert_array_equal(action, alone)
        seen.append(np.allclose(carry.hidden, other.hidden))
    assert seen == [True, False, False, False]


def test_random_lanes_may_have_probabilities_of_their_own():
    chance, obs = reference_policies.at_random(), np.zeros((4000, 12))
    rows = [(0.0, 1.0, 0.0), (0.1, 0.8, 0.1)]
    params = jnp.repeat(jnp.asarray(rows, jnp.float32), 2000, axis=0)
    _, action = act(chance, params, obs)
    assert np.all(action[:2000] == HOLD)
    shares = np.bincount(np.asarray(action[2000:]), minlength=3) / 2000
    np.testing.assert_allclose(shares, rows[1], atol=4 * np.sqrt(0.25 / 2000))
    _, alone = act(chance, jnp.asarray(rows[1], jnp.float32), obs)
    np.testing.assert_array_equal(action[2000:], alone[2000:])
    entropy = chance.entropy(params, (), obs, None)
    np.testing.assert_allclose(
        np.asarray(entropy)[[0, -1]], [0.0, stats.entropy(rows[1])], atol=1e-6
    )


def test_the_table_lists_every_reference_once(days):
    settings, market, starts = days
    listed = reference_policies.references(settings, market, starts)
    names = [one.name for one in listed]
    assert names == [
        "flat", "buy and hold", "random", "TWAP in and out", "VWAP reversion", "EMA cross"
    ]  # fmt: skip
    weights = network.init(jax.random.key(3), settings.network)
    drift = jnp.zeros((len(starts.row), 60))
    more = reference_policies.references(
        settings, market, starts, probabilities=(0.1, 0.8, 0.1),
        trained=(policy.from_network(greedy=True), weights), truth=Truth(drift, 1.0, 0.0),
    )  # fmt: skip
    added = [one.name for one in more if one.name not in names]
    assert added == ["random, same turnover", "trained, greedy, no memory", "oracle"]
    assert [one.kind for one in more] == ["reference"] * 8 + ["oracle"]


@pytest.mark.long
def test_every_reference_plays(days):
    settings, market, starts = days
    weights = network.init(jax.random.key(3), settings.network)
    listed = reference_policies.references(
        settings, market, starts, probabilities=(0.1, 0.8, 0.1),
        trained=(policy.from_network(greedy=True), weights),
        truth=Truth(jnp.full((len(starts.row), 60), 2.0), 1.0, 0.0),
    )  # fmt: skip
    params = make_params(settings, market)
    for one in listed:
        played = backtest.run_episodes(one.policy, one.params, params, starts, jax.random.key(1))
        assert np.all(np.isfinite(played["pnl/net"])), one.name
        trades = played["trade/orders"].any()
        assert trades == (one.name != "flat") or one.name == "trained, greedy, no memory"
