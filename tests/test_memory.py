"""What training takes of a device: predicted, refused, and made less."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network, ppo, rollout
from jules_jax.agent.learner import Learner
from jules_jax.errors import InputError
from jules_jax.training import loop, memory, preparation
from jules_jax.training.memory import GIB, MIB, Prediction
from tests.agent import toy_envs
from tests.tiny import SETTINGS


def learner_of(lanes, steps, hidden, layers, *, minibatches=2, remat=False, devices=1, members=1):
    settings = config.Config(
        num_envs=lanes,
        network=config.Network(lstm_hidden_size=hidden, net_arch=layers),
        ppo=config.PPO(n_steps=steps, n_epochs=1, num_minibatches=minibatches, remat=remat),
        population=config.Population(num_seeds=members),
    )
    return Learner(
        toy_envs.StaggeredWalk(12),
        settings,
        devices=jax.devices()[:devices],
        members=members if members > 1 else None,
    )


def counted(learner):
    """Bytes by XLA's own count: arguments, results and what it works in, of one device."""
    env_params = toy_envs.params()
    members = () if learner.members is None else (learner.members,)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), members))
    state = jax.eval_shape(learner.init, keys, env_params)
    found = learner._update.lower(state, env_params, learner._ppo).compile().memory_analysis()
    return (
        found.temp_size_in_bytes
        + found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
    )


@pytest.mark.parametrize(
    "size",
    [
        {"lanes": 128, "steps": 64, "hidden": 64, "layers": (128, 128)},
        {"lanes": 256, "steps": 64, "hidden": 64, "layers": (128, 128), "remat": True},
        {"lanes": 128, "steps": 32, "hidden": 64, "layers": (64,), "devices": 4, "members": 2},
    ],
    ids=lambda size: " ".join(f"{name} {value}" for name, value in size.items()),
)
def test_the_prediction_is_what_xla_counts_or_up_to_half_as_much_more(size):
    learner = learner_of(**size)
    predicted = memory.predict(learner, toy_envs.params())
    ratio = predicted.update / counted(learner)
    assert 1.0 < ratio < 1.5, ratio


def test_a_rollout_is_as_large_as_predicted():
    learner = learner_of(16, 8, 6, (8,))
    env_params = toy_envs.params()
    state = jax.eval_shape(learner.init, jax.random.key(0), env_params)
    shapes = jax.eval_shape(
        lambda state, key: rollout.collect(
            state.params, state.lanes, learner.env, env_params,
            n_steps=8, key=key, lane_ids=jnp.arange(16),
        )[1:3],
        state, jax.random.key(0),
    )  # fmt: skip
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    advantage_and_target = 2 * 8 * 16 * 4
    predicted = memory.predict(learner, env_params)
    assert predicted.parts["rollout"] == size + advantage_and_target


def test_what_is_audited_counts():
    settings = config.load(SETTINGS)
    table = preparation.table_of(settings, 0)
    parts = []
    for audit in (0.0, 4.0):
        monitor = dataclasses.replace(settings.monitor, audit=audit)
        learner, params = preparation.learner_of(
            dataclasses.replace(settings, monitor=monitor), table, ()
        )
        parts.append(memory.predict(learner, params).parts)
    state = jax.eval_shape(learner.init, jax.random.key(0), params)
    *_, watched = jax.eval_shape(learner.update_watched, state, params)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(watched))
    assert (parts[0]["audit"], parts[1]["audit"]) == (0, size)
    assert {**parts[0], "audit": 0} == {**parts[1], "audit": 0}


def a_minibatch(steps, lanes):
    keys = iter(jax.random.split(jax.random.key(0), 9))
    params = network.init(next(keys), config.Network(lstm_hidden_size=16, net_arch=(24,)))
    numbers = lambda: jax.random.normal(next(keys), (steps, lanes))  # noqa: E731
    batch = ppo.Batch(
        obs=jax.random.normal(next(keys), (steps, lanes, 12)),
        first=jax.random.bernoulli(next(keys), 0.1, (steps, lanes)),
        action=jax.random.randint(next(keys), (steps, lanes), 0, 3),
        log_prob=jnp.full((steps, lanes), -1.1),
        advantage=numbers(),
        target=numbers(),
    )
    return params, network.initial_carry(params, lanes), batch


def test_what_is_computed_again_gives_the_same_gradient_in_less_memory():
    params, carry, batch = a_minibatch(steps=48, lanes=64)
    gradients, sizes = [], []
    for remat in (False, True):
        settings = config.PPO(remat=remat)
        grad = jax.grad(lambda params, of=settings: ppo.loss(params, carry, batch, of)[0])
        compiled = jax.jit(grad).lower(params).compile()
        gradients.append(compiled(params))
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *gradients)
    norms = [np.abs(leaf).max() for leaf in jax.tree.leaves(gradients[0])]
    assert max(norms) > 1e-3
    assert sizes[1] < 0.5 * sizes[0]


def test_stretches_are_the_divisor_next_to_the_square_root():
    found = {steps: network.stretch_steps(steps) for steps in (1, 7, 48, 100, 128)}
    assert found == {1: 1, 7: 1, 48: 6, 100: 10, 128: 8}


def test_too_little_memory_is_one_sentence_before_anything_is_made(tmp_path, monkeypatch):
    def made(*args, **values):
        raise AssertionError("a market was made")

    monkeypatch.setattr(preparation, "Market", made)
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    settings = config.load({**SETTINGS, **places, "name": "x", "memory_limit_gib": 1e-4})
    with pytest.raises(InputError) as error:
        loop.train(settings, say=lambda text: None)
    assert str(error.value) == (
        "training would take about 0 MiB of each device and there are 0, most of it for the market "
        "table (0), expected fewer num_envs, more ppo.num_minibatches, --remat or a smaller market "
        "table (simulator.paths, market.market_memory), or --auto-lanes"
    )
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("limit", "lanes"), [(500, 16), (515, 16), (516, 32), (1000, 512), (5000, 1024), (None, 1024)]
)
def test_as_many_lanes_as_the_memory_holds_are_taken(limit, lanes):
    """500 bytes for 16 lanes (2 minibatches of 8 groups of one), 16 for each 16 more."""
    asked = config.load({**SETTINGS, "num_envs": 1024, "auto_lanes": True})

    def predicted(settings):
        return Prediction({"rollout": settings.num_envs + 484, memory.COPIES: 0}, limit)

    fitting = memory.with_fewer_lanes(asked, predicted)
    assert fitting == dataclasses.replace(asked, num_envs=lanes, auto_lanes=False)


def test_not_even_the_fewest_lanes_may_fit():
    asked = config.load({**SETTINGS, "num_envs": 1024, "auto_lanes": True})
    with pytest.raises(InputError, match="expected fewer num_envs, more"):
        memory.with_fewer_lanes(asked, lambda of: Prediction({"rollout": of.num_envs}, 15))


def test_a_plan_is_of_the_lanes_that_fit():
    settings, said = config.load({**SETTINGS, "num_envs": 1024, "auto_lanes": True}), []
    learner, params = preparation.learner_of(settings, preparation.table_of(settings, 0), ())
    half = memory.predict(learner, params).total / 2 / GIB
    small = dataclasses.replace(settings, memory_limit_gib=half)
    planned = preparation.plan(small, said.append)
    lanes = planned.settings.num_envs
    assert 256 < lanes < 512 and lanes % 16 == 0 and not planned.settings.auto_lanes
    assert said[0] == f"lanes       {lanes} of the 1,024 asked for are what memory holds"
    assert f"{lanes} lanes" in said[1] and "memory      about" in said[1]
    assert memory.predict(planned.learner, planned.params).fits


def test_the_prediction_in_a_line_has_the_largest_part_first():
    parts = {"market table": 50 * MIB, "gradient": 600 * MIB, memory.COPIES: MIB, "audit": 0}
    line = Prediction(parts, 8 * GIB).describe()
    assert line == (
        "about 651 of 8,192 MiB of a device: gradient 600, market table 50, copies of the state 1"
    )
    assert Prediction(parts, None).describe().startswith("about 651 MiB of a device: gradient")
    Prediction(parts, None).require()
    with pytest.raises(InputError, match=r"about 651 MiB .* there are 512, most .* gradient"):
        Prediction(parts, GIB // 2).require()


class Device:
    """One that says how much its allocator may hand out, or does not."""

    def __init__(self, platform, stats=None):
        self.platform, self.memory_stats = platform, lambda: stats


def test_the_limit_is_what_is_set_else_what_the_device_has(monkeypatch):
    settings = config.Config()
    gpu = Device("gpu", {"bytes_limit": 6 * GIB})
    assert memory.limit_of(settings, gpu, 4) == 6 * GIB
    assert memory.limit_of(dataclasses.replace(settings, memory_limit_gib=1.5), gpu, 4) == 1.5 * GIB
    monkeypatch.setattr(memory, "_available", lambda: 12 * GIB)
    assert memory.limit_of(settings, Device("cpu"), 4) == 3 * GIB
    assert memory.limit_of(settings, Device("tpu"), 4) is None


def test_an_exhausted_memory_is_one_sentence():
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nat")
    with pytest.raises(InputError) as told, memory.exhaustion_told():
        raise error
    assert "memory is exhausted (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.)" in str(
        told.value
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.exhaustion_told():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize(("most", "of_the_container"), [(3 * GIB, True), ("max", False)])
def test_a_container_has_what_it_is_allowed_less_what_it_uses(
    tmp_path, monkeypatch, most, of_the_container
):
    (tmp_path / "memory.max").write_text(f"{most}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB - 1024}\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "none")
    machine = memory._available()
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    found = memory._available()
    if machine is None:
        pytest.skip("there is no /proc/meminfo here")
    assert found == 1024 if of_the_container else found > 2**20
