"""Populations: M agents in one program, each as it would be alone."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent.learner import Learner
from tests.agent import toy_envs

SETTINGS = config.Config(
    num_envs=16,
    total_timesteps=16 * 8 * 10,
    max_steps_in_episode=10,
    network=config.Network(lstm_hidden_size=6, net_arch=(8,)),
    ppo=config.PPO(n_steps=8, n_epochs=2, num_minibatches=2, learning_rate=0.003),
)
NOISE = jnp.array([0.2, 0.8], jnp.float32)
RATES = jnp.array([0.003, 0.01], jnp.float32)
GAMMAS = jnp.array([0.9, 0.99], jnp.float32)
EACH = dataclasses.replace(
    SETTINGS.ppo, learning_rate=RATES, gamma=GAMMAS, learning_rate_end=jnp.array([-1.0, 0.0])
)


def run(learner, key, env_params, ppo):
    state, metrics = learner.init(key, env_params), []
    for _ in range(3):
        state, scalars = learner.update(state, env_params, ppo)
        metrics.append(jax.tree.map(np.asarray, scalars))
    return jax.tree.map(np.asarray, state.params), metrics


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(7), 2)


@pytest.fixture(scope="module", params=[1, 2])
def population(request, keys):
    """Two members with their own noise, step size, schedule and discount, on 1 and 2 devices."""
    env_params = dataclasses.replace(toy_envs.params(), noise=NOISE)
    axes = toy_envs.Params(max_steps=None, end_probability=None, noise=0)
    devices = jax.devices()[: request.param]
    env = toy_envs.StaggeredWalk()
    learner = Learner(env, SETTINGS, members=2, env_axes=axes, devices=devices)
    return run(learner, keys, learner.replicate(env_params), EACH)


@pytest.fixture(scope="module")
def alone(keys):
    learner = Learner(toy_envs.StaggeredWalk(), SETTINGS, devices=jax.devices()[:1])
    runs = []
    for member in range(2):
        env_params = toy_envs.params(noise=float(NOISE[member]))
        ppo = jax.tree.map(lambda leaf, m=member: leaf[m] if np.ndim(leaf) else leaf, EACH)
        runs.append(run(learner, keys[member], env_params, ppo))
    return runs


@pytest.mark.parametrize("member", [0, 1])
def test_a_member_learns_what_it_would_learn_alone(population, alone, member):
    (together, metrics), (params, expected) = population, alone[member]
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours[member], theirs, atol=2e-5),
        together,
        params,
    )
    for ours, theirs in zip(metrics, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value.shape == (2,)
            assert value[member] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_members_differ(alone):
    first, second = (jax.tree.leaves(params) for params, _ in alone)
    assert max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)) > 0.1


def test_weights_of_members_are_decomposed_one_after_the_other(keys):
    """A batch of QR decompositions hangs where a CPU has as many devices as cores."""
    learner = Learner(toy_envs.StaggeredWalk(), SETTINGS, members=2, devices=jax.devices()[:2])
    program = jax.jit(learner.init).lower(keys, toy_envs.params()).as_text()
    calls = [line for line in program.splitlines() if "lapack" in line and "qr" in line]
    assert calls
    for call in calls:
        shapes = re.findall(r"tensor<([\dx]+)xf32>", call)
        assert shapes and max(shape.count("x") for shape in shapes) == 1, call
