"""Populations: M agents in one program, each as it would be alone."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent.learner import Learner, mesh_of
from jules_jax.errors import InputError
from tests.agent import toy_envs
from tests.agent.collectives import collectives

SETTINGS = config.Config(
    num_envs=16,
    total_timesteps=16 * 8 * 10,
    max_steps_in_episode=10,
    network=config.Network(lstm_hidden_size=6, net_arch=(8,)),
    ppo=config.PPO(n_steps=8, n_epochs=2, num_minibatches=2, learning_rate=0.003),
)
MEMBERS = 8
NOISE = jnp.linspace(0.2, 0.8, MEMBERS)
EACH = dataclasses.replace(
    SETTINGS.ppo,
    learning_rate=jnp.linspace(0.003, 0.01, MEMBERS),
    gamma=jnp.linspace(0.9, 0.99, MEMBERS),
    learning_rate_end=jnp.linspace(-1.0, 0.0, MEMBERS).round(),
)
AXES = toy_envs.Params(max_steps=None, end_probability=None, noise=0)


def run(learner, key, env_params, ppo):
    state, metrics = learner.init(key, env_params), []
    for _ in range(3):
        state, scalars = learner.update(state, env_params, ppo)
        metrics.append(jax.tree.map(np.asarray, scalars))
    return jax.tree.map(np.asarray, state.params), metrics


def spread_over(member_devices, devices):
    """The settings of a population, so many of whose devices share out the members."""
    of = config.Population(num_seeds=MEMBERS, member_devices=member_devices)
    settings = dataclasses.replace(SETTINGS, population=of)
    env = toy_envs.StaggeredWalk()
    return Learner(env, settings, members=MEMBERS, env_axes=AXES, devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(7), MEMBERS)


@pytest.fixture(
    scope="module",
    params=[(1, 8), (2, 8), (4, 8), (8, 8)],
    ids=lambda grid: f"{grid[0]}x{grid[1] // grid[0]}",
)
def population(request, keys):
    """Members with their own noise, step size, schedule and discount, on members × lanes devices.

    The mesh and the compiled program's text come along.
    """
    if len(jax.devices()) < request.param[1]:
        pytest.skip(f"needs {request.param[1]} devices")
    learner = spread_over(*request.param)
    env_params = learner.replicate(dataclasses.replace(toy_envs.params(), noise=NOISE))
    learner.compile(learner.init(keys, env_params), env_params)
    text = learner._run_update.as_text()
    return *run(learner, keys, env_params, EACH), learner.mesh, text


@pytest.fixture(scope="module")
def alone(keys):
    learner = Learner(toy_envs.StaggeredWalk(), SETTINGS, devices=jax.devices()[:1])
    runs = []
    for member in range(MEMBERS):
        env_params = toy_envs.params(noise=float(NOISE[member]))
        ppo = jax.tree.map(lambda leaf, m=member: leaf[m] if np.ndim(leaf) else leaf, EACH)
        runs.append(run(learner, keys[member], env_params, ppo))
    return runs


def test_a_member_learns_what_it_would_learn_alone_on_any_mesh(population, alone):
    together, metrics, _, _ = population
    for member, (params, expected) in enumerate(alone):
        jax.tree.map(
            lambda ours, theirs, m=member: np.testing.assert_allclose(ours[m], theirs, atol=1e-5),
            together,
            params,
        )
        for ours, theirs in zip(metrics, expected, strict=True):
            assert ours.keys() == theirs.keys()
            for name, value in ours.items():
                assert value.shape == (MEMBERS,)
                assert value[member] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_members_send_each_other_nothing(population):
    """Whoever takes part in a collective has lanes of the same members."""
    _, _, mesh, text = population
    rows = np.arange(mesh.size).reshape(mesh.devices.shape)
    found = collectives(text)
    assert {each.kind for each in found} <= {"all-reduce"}
    assert {each.groups for each in found if each.groups} <= {tuple(map(tuple, rows.tolist()))}
    assert found or mesh.shape["lane"] == 1


def test_members_are_spread_over_as_many_devices_as_divide_them():
    devices = jax.devices()[:4]
    shape = lambda settings, members: mesh_of(devices, settings, members).shape  # noqa: E731
    assert shape(SETTINGS, None) == {"lane": 4}
    assert shape(SETTINGS, 8) == {"member": 4, "lane": 1}
    assert shape(SETTINGS, 6) == {"member": 2, "lane": 2}
    assert shape(SETTINGS, 3) == {"member": 1, "lane": 4}
    of = config.Population(num_seeds=4, member_devices=2)
    assert shape(dataclasses.replace(SETTINGS, population=of), 4) == {"member": 2, "lane": 2}


@pytest.mark.parametrize(("member_devices", "members"), [(3, 6), (4, 6)])
def test_member_devices_that_do_not_divide_are_one_clear_error(member_devices, members):
    of = config.Population(num_seeds=members, member_devices=member_devices)
    with pytest.raises(InputError) as error:
        mesh_of(jax.devices()[:4], dataclasses.replace(SETTINGS, population=of), members)
    assert str(error.value) == (
        f"population.member_devices is {member_devices}, expected a divisor of both the 4 devices "
        f"and the {members} agents, or 0"
    )


def test_members_differ(alone):
    first, second = (jax.tree.leaves(params) for params, _ in (alone[0], alone[-1]))
    assert max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)) > 0.1


def test_weights_of_members_are_decomposed_one_after_the_other(keys):
    """A batch of QR decompositions hangs where a CPU has as many devices as cores."""
    learner = Learner(toy_envs.StaggeredWalk(), SETTINGS, members=2, devices=jax.devices()[:2])
    program = jax.jit(learner.init).lower(keys[:2], toy_envs.params()).as_text()
    calls = [line for line in program.splitlines() if "lapack" in line and "qr" in line]
    assert calls
    for call in calls:
        shapes = re.findall(r"tensor<([\dx]+)xf32>", call)
        assert shapes and max(shape.count("x") for shape in shapes) == 1, call
