"""What the network can do beyond the report's: standardising, masking, a learned start."""

import dataclasses
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network, rollout
from jules_jax.agent.learner import Learner
from jules_jax.env.observation import action_mask
from tests.agent import toy_envs

ALL = config.Network(
    lstm_hidden_size=6,
    net_arch=(8,),
    observation_scaling="running",
    normalize_targets=True,
    learn_initial_carry=True,
    mask_actions=True,
)
LANES, STEPS = 5, 7


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: network.init(key, ALL, 12, 3))(jax.random.key(0))


@pytest.fixture(scope="module")
def obs():
    return jax.random.normal(jax.random.key(1), (STEPS, LANES, 12))


@pytest.fixture(scope="module")
def apply():
    return jax.jit(network.apply_sequence)


def outputs(apply, params, obs, first=None):
    first = jnp.zeros((STEPS, LANES), bool) if first is None else first
    return apply(params, network.initial_carry(params, LANES), obs, first)


def test_observations_are_standardised_by_the_moments_of_all_rollouts(apply, params, obs):
    rng = np.random.default_rng(2)
    shift, scale = rng.normal(size=12), rng.uniform(0.5, 2.0, 12)
    rollouts = [rng.normal(shift, scale, (1000, 12)) for _ in range(3)]
    moved = params
    for sample in rollouts:
        given = jnp.asarray(sample.mean(0)), jnp.asarray(sample.var(0))
        moved = network.observe_rollout(moved, given, (jnp.float32(0), jnp.float32(1)))
    joined = np.concatenate(rollouts)
    np.testing.assert_allclose(moved.observations.mean, joined.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved.observations.variance, joined.var(0), rtol=1e-4)
    plain = replace(params, observations=None, mask_actions=False)
    standardised = np.clip((np.asarray(obs) - joined.mean(0)) / joined.std(0), -5, 5)
    _, _, expected = outputs(apply, plain, jnp.asarray(standardised, jnp.float32))
    _, _, value = outputs(apply, replace(plain, observations=moved.observations), obs)
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_rescaling_targets_changes_no_value(apply, params, obs):
    _, _, before = outputs(apply, params, obs)
    unmoved = (params.observations.mean, params.observations.variance)
    moved = params
    for mean, variance in [(3.0, 50.0), (-40.0, 0.01)]:
        target = jnp.float32(mean), jnp.float32(variance)
        moved = network.observe_rollout(moved, unmoved, target)
    assert abs(float(moved.targets.mean) - (3 - 40) / 2) < 1e-4
    assert float(moved.targets.variance) == pytest.approx((50 + 0.01) / 2 + 21.5**2, rel=1e-5)
    _, _, after = outputs(apply, moved, obs)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_masked_actions_have_no_probability_and_no_entropy(apply, params, obs):
    obs = obs.at[..., 10].set(0.25).at[..., 11].set(0.0)
    obs = obs.at[0, 0, 10].set(-0.34).at[1, 0, 11].set(1.0).at[2, 0, 11].set(-1.0)
    _, logits, _ = outputs(apply, params, obs)
    probability = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_array_equal(probability[0, 0], [0, 1, 0])  # the cooldown runs
    assert probability[1, 0, 2] == 0 < probability[1, 0, :2].min()  # long at the limit
    assert probability[2, 0, 0] == 0 < probability[2, 0, 1:].min()  # short at the limit
    assert probability[3:].min() > 0.2
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    assert (probability * log_probs)[0, 0].sum() == 0


def test_an_episode_starts_with_the_learned_carry(apply, params, obs):
    lstm = params.towers.lstm
    rng = np.random.default_rng(4)
    start = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), "f4"), lstm.start)
    learned = replace(params, towers=replace(params.towers, lstm=replace(lstm, start=start)))
    plain = replace(params, towers=replace(params.towers, lstm=replace(lstm, start=None)))
    first = jnp.zeros((STEPS, LANES), bool).at[3, 1].set(True)
    _, _, value = outputs(apply, learned, obs, first)
    # by hand: up to the reset as without it, from the reset on as from that carry
    _, _, unreset = outputs(apply, plain, obs)
    np.testing.assert_allclose(value[:3], unreset[:3], atol=1e-6)
    given = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (LANES, *leaf.shape)), start)
    rest = jnp.concatenate([obs[3:], obs[:3]])
    _, _, after = apply(plain, given, rest, jnp.zeros((STEPS, LANES), bool))
    np.testing.assert_allclose(value[3:, 1], after[:4, 1], atol=1e-6)
    assert np.abs(value[3:, 1] - unreset[3:, 1]).max() > 0.01


@pytest.fixture(scope="module")
def trained():
    settings = config.Config(
        num_envs=16,
        total_timesteps=16 * 8 * 10,
        max_steps_in_episode=10,
        network=ALL,
        ppo=config.PPO(n_steps=8, n_epochs=2, num_minibatches=2, learning_rate=0.01),
    )
    learner = Learner(toy_envs.StaggeredWalk(12), settings)
    env_params = toy_envs.params(10, 0.1)
    states, metrics = [learner.init(jax.random.key(0), env_params)], []
    for _ in range(3):
        donated = jax.tree.map(jnp.copy, states[-1])
        state, scalars = learner.update(donated, env_params)
        states.append(state)
        metrics.append(scalars)
    return settings, learner, env_params, states, metrics


def test_the_first_minibatch_replays_the_rollout_with_every_option(trained):
    for scalars in trained[-1]:
        assert scalars["train/ratio_deviation"] < 1e-5
        assert np.isfinite(list(map(float, scalars.values()))).all()


def test_gradients_move_the_learned_start_and_not_the_moments(trained):
    _, _, _, states, _ = trained
    first, last = states[0], states[-1]
    assert np.abs(last.params.towers.lstm.start.hidden).max() > 1e-3
    moments = [last.opt_state[1].nu.observations, last.opt_state[1].nu.targets]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(moments))
    assert float(first.params.targets.rollouts) == 0
    assert float(last.params.targets.rollouts) == 3


def test_a_rollout_takes_no_masked_action(trained):
    settings, learner, env_params, states, _ = trained
    state = states[-1]
    _, steps, _, _ = jax.jit(
        lambda state: rollout.collect(
            state.params,
            state.lanes,
            learner.env,
            env_params,
            n_steps=settings.ppo.n_steps,
            key=jax.random.key(3),
            lane_ids=jnp.arange(settings.num_envs),
        )
    )(state)
    possible = np.asarray(action_mask(steps.obs))
    taken = np.take_along_axis(possible, np.asarray(steps.action)[..., None], -1)
    assert 0.1 < possible.mean() < 0.9
    assert taken.all()


def test_options_that_are_off_add_no_leaf():
    shapes = jax.eval_shape(lambda key: network.init(key, config.Network()), jax.random.key(0))
    plain = dataclasses.asdict(shapes)
    assert plain["observations"] is plain["targets"] is plain["towers"]["lstm"]["start"] is None
