"""Domain randomisation: what an episode draws for itself, when, and that it means what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jules_jax import config
from jules_jax.env.episodes import Episodes, begin
from jules_jax.env.params import make_params
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.randomness import within
from tests.tiny import SETTINGS

RANGES = {
    "fills.bid_ask_spread_bps": [0.0, 10.0],
    "fills.impact_prefactor": [0.5, 1.5],
    "account.borrow_rate": [0.0, 0.5],
}
LANES, STEPS = 4, 32
KEY = jax.random.key(1)
ACTIONS = np.random.default_rng(0).integers(0, 3, 2 * STEPS + 8)


@pytest.fixture(scope="module")
def market():
    settings = config.load(SETTINGS | {"randomise": RANGES})
    return settings, SimulatedFeed(settings).fresh(jax.random.key(5))


@jax.jit
def play(params, key, actions):
    """Records, flags and the numbers of each step, `[T, N]`, of lanes that reset by themselves."""
    env = Episodes()
    starts, draws = jnp.split(jax.random.split(key, 2 * LANES), 2)
    _, states = jax.vmap(begin, in_axes=(0, None))(starts, params)

    def body(states, inputs):
        t, action = inputs
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(draws, t)
        _, after, *_, truncated, info = jax.vmap(env.step, in_axes=(0, 0, None, None))(
            step_keys, states, action, params
        )
        return after, (info["record"], truncated, states.numbers)

    return jax.lax.scan(body, states, (jnp.arange(len(actions)), actions))[1]


def test_every_reset_draws_new_numbers_that_hold_until_the_next(market):
    settings, data = market
    params = make_params(settings, data, randomise=True)
    _, truncated, numbers = play(params, KEY, ACTIONS)
    assert set(numbers) == set(RANGES)
    truncated = np.asarray(truncated)
    assert truncated.sum() == 2 * LANES
    for key, values in numbers.items():
        changed = np.diff(np.asarray(values), axis=0) != 0
        np.testing.assert_array_equal(changed, truncated[:-1])
        assert len(np.unique(values)) == 3 * LANES
        low, high = RANGES[key]
        assert (np.asarray(values) >= low).all() and (np.asarray(values) <= high).all()
    again = play(params, KEY, ACTIONS)[2]
    jax.tree.map(np.testing.assert_array_equal, numbers, again)


def test_an_episode_is_the_one_of_a_config_with_the_numbers_it_drew(market):
    """Record for record, Kyle's lambda of the start included."""
    settings, data = market
    found, truncated, numbers = play(make_params(settings, data, randomise=True), KEY, ACTIONS)
    values = {name: float(number[0, 0]) for name, number in numbers.items()}
    fixed = make_params(config.load(SETTINGS | values), data)
    expected, _, nothing = play(fixed, KEY, ACTIONS)
    assert nothing == {}
    of_first = slice(0, int(np.argmax(truncated[:, 0])) + 1)
    assert np.asarray(expected.quantity[of_first, 0]).any()
    for field in dataclasses.fields(expected):
        drawn, given = (getattr(record, field.name) for record in (found, expected))
        np.testing.assert_array_equal(drawn[of_first, 0], given[of_first, 0], field.name)
        assert field.name != "cost_spread" or (drawn[:, 1] != given[:, 1]).any()


def test_without_being_asked_nothing_is_drawn(market):
    settings, data = market
    params = make_params(settings, data)
    plain = make_params(config.load(SETTINGS), data)
    assert jax.tree.structure(params) == jax.tree.structure(plain)
    jax.tree.map(np.testing.assert_array_equal, params, plain)


def test_draws_are_uniform_and_do_not_depend_on_one_another():
    ranges = {"fills.fee_bps": jnp.float32([2.0, 3.0]), "fills.impact_decay": jnp.float32([0, 1])}
    draw = jax.jit(jax.vmap(within, in_axes=(None, 0)))
    many = jax.random.split(jax.random.key(0), 2000)
    both, alone = draw(ranges, many), draw({k: ranges[k] for k in ["fills.fee_bps"]}, many)
    np.testing.assert_array_equal(both["fills.fee_bps"], alone["fills.fee_bps"])
    fee, decay = np.asarray(both["fills.fee_bps"]), np.asarray(both["fills.impact_decay"])
    assert stats.kstest(fee, "uniform", (2, 1)).pvalue > 0.01
    assert stats.spearmanr(fee, decay).pvalue > 0.01


def test_the_state_of_an_episode_that_draws_nothing_is_what_it_was(market):
    _, data = market
    _, state = begin(jax.random.key(0), make_params(config.load(SETTINGS), data))
    names = [f.name for f in dataclasses.fields(state)]
    without = {name: getattr(state, name) for name in names if name != "numbers"}
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(without))
