"""The fused kernel, interpreted: whatever the scan gives, the kernel gives."""

from functools import partial
from operator import itemgetter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import config as jax_config
from jax._src.pallas import hlo_interpreter
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, PartitionSpec

from jules_jax import config
from jules_jax.agent import lstm, lstm_choice, lstm_kernel, network
from jules_jax.agent.learner import Learner
from jules_jax.errors import InputError
from tests.agent import toy_envs
from tests.agent.numpy_network import lstm_step, to_numpy

fused = partial(lstm_kernel.sequence, interpret=True)
FLOAT32 = 1e-5
"""Of the largest entry: the order of sums."""


def draw(steps, lanes, inputs, width, *, resets=0.2, learn_start=False, seed=0):
    """An LSTM with carry, inputs, resets, and weights of what comes out."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = lstm.LSTM(
        input_kernel=normal(inputs, 4 * width) / 2,
        recurrent_kernel=normal(width, 4 * width) / 4,
        bias=normal(4 * width),
        start=lstm.Carry(normal(width), normal(width)) if learn_start else None,
    )
    carry = lstm.Carry(normal(lanes, width), normal(lanes, width))
    first = jnp.asarray(rng.random((steps, lanes)) < resets)
    weights = (lstm.Carry(normal(lanes, width), normal(lanes, width)), normal(steps, lanes, width))
    return (params, carry, normal(steps, lanes, inputs), first), weights


def weigh(results, weights):
    return sum(
        jnp.sum(w * y) for w, y in zip(*map(jax.tree.leaves, (weights, results)), strict=True)
    )


def everything(sequence, inputs, weights):
    """Outputs of a sequence, and the gradients of their weighed sum by all that it reads."""

    def loss(params, carry, x, first):
        results = sequence(params, carry, x, first)
        return weigh(results, weights), results

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*inputs)


def assert_close(ours, theirs, tolerance):
    ours, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (ours, theirs))
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        largest = np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=f"{path}")


@pytest.mark.parametrize(
    ("steps", "lanes", "inputs", "width", "learn_start"),
    [(1, 1, 1, 16, False), (9, 16, 12, 16, True), (6, 35, 15, 32, False), (5, 40, 20, 64, True)],
)
def test_outputs_and_gradients_equal_the_scan_s(steps, lanes, inputs, width, learn_start):
    drawn = draw(steps, lanes, inputs, width, learn_start=learn_start)
    assert_close(everything(fused, *drawn), everything(lstm.sequence, *drawn), FLOAT32)


@pytest.mark.parametrize("resets", ["never", "at once", "always"])
def test_resets_fall_where_the_scan_has_them(resets):
    (params, carry, x, first), weights = draw(6, 5, 3, 16, learn_start=True)
    first = jnp.full_like(first, resets == "always").at[0].set(resets != "never")
    drawn = (params, carry, x, first), weights
    assert_close(everything(fused, *drawn), everything(lstm.sequence, *drawn), FLOAT32)


def test_what_was_before_a_reset_is_gone_even_where_it_is_not_finite():
    (params, carry, x, first), weights = draw(4, 3, 3, 16)
    carry = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), carry)
    grads, results = everything(fused, (params, carry, x, first.at[0].set(True)), weights)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, results)))


def test_bfloat16_factors_round_and_no_more():
    drawn = draw(16, 20, 12, 32, learn_start=True)
    with network.products("bf16"):
        rounded = everything(fused, *drawn)
    exact = everything(lstm.sequence, *drawn)
    assert_close(rounded, exact, lstm_choice.TOLERANCE["bf16"])
    with pytest.raises(AssertionError):
        assert_close(rounded, exact, 1e-4)


def test_it_equals_an_independent_float64_lstm_and_its_slope():
    (params, carry, x, first), weights = draw(7, 3, 4, 16)
    grads, results = everything(fused, (params, carry, x, first), weights)
    exact, along = to_numpy((params, carry, x)), to_numpy(draw(7, 3, 4, 16, seed=1)[0][:3])

    def of_numpy(distance):
        params, carry, x = jax.tree.map(lambda a, b: a + distance * b, exact, along)
        hidden, cell, every = carry.hidden, carry.cell, []
        for t in range(len(x)):
            lanes = [
                lstm_step(params, *lane) for lane in zip(hidden, cell, x[t], first[t], strict=True)
            ]
            hidden, cell = map(np.stack, zip(*lanes, strict=True))
            every.append(hidden)
        return lstm.Carry(hidden, cell), np.stack(every)

    def weighed(distance):
        pairs = zip(*map(jax.tree.leaves, (to_numpy(weights), of_numpy(distance))), strict=True)
        return sum(np.sum(w * y) for w, y in pairs)

    assert_close(results, of_numpy(0.0), FLOAT32)
    slope = (weighed(1e-5) - weighed(-1e-5)) / 2e-5
    ours = sum(
        np.sum(np.float64(g) * d)
        for g, d in zip(*map(jax.tree.leaves, (grads, along)), strict=True)
    )
    assert ours == pytest.approx(slope, rel=1e-5)


def test_it_may_be_mapped_over_members_and_towers():
    (params, carry, x, first), _ = draw(4, 5, 3, 16)
    scale = jnp.array([[1.0, 0.5, 2.0], [0.1, 1.5, 3.0]])
    each = jax.tree.map(lambda leaf: scale.reshape(2, 3, *[1] * leaf.ndim) * leaf, params)

    def slope(sequence, params):
        return jax.grad(lambda p: jnp.sum(sequence(p, carry, x, first)[1]))(params)

    mapped = jax.jit(jax.vmap(jax.vmap(partial(slope, fused))))(each)
    one = jax.jit(partial(slope, lstm.sequence))
    for place in np.ndindex(2, 3):
        ours, weights = (jax.tree.map(itemgetter(place), tree) for tree in (mapped, each))
        assert_close(ours, one(weights), FLOAT32)


@pytest.fixture
def interpreted_in_shards(monkeypatch):
    """JAX's interpreter of kernels loses track of what varies over devices (jax 0.10 and 0.11)."""
    interpret = hlo_interpreter.pallas_call_hlo_interpret

    def unchecked(*operands, **options):
        with jax_config._check_vma(False):
            plain = [jax.lax.max(operand, operand) for operand in operands]  # varying over nothing
            return interpret(*plain, **options)

    monkeypatch.setattr(hlo_interpreter, "pallas_call_hlo_interpret", unchecked)


@pytest.mark.usefixtures("interpreted_in_shards")
def test_weights_that_devices_share_have_the_gradient_of_all_lanes():
    (params, carry, x, first), _ = draw(4, 8, 3, 16, learn_start=True)
    by_lane, by_step = PartitionSpec("lane"), PartitionSpec(None, "lane")

    def slope(sequence, params, carry, x, first):
        def loss(params):
            return jax.lax.psum(jnp.sum(sequence(params, carry, x, first)[1] ** 2), "lane")

        return jax.grad(loss)(params)

    def on(devices, sequence):
        mesh = Mesh(jax.devices()[:devices], ("lane",))
        specs = (PartitionSpec(), by_lane, by_step, by_step)
        run = jax.shard_map(
            partial(slope, sequence), mesh=mesh, in_specs=specs, out_specs=PartitionSpec()
        )
        return jax.jit(run)(params, carry, x, first)

    assert_close(on(4, fused), on(1, lstm.sequence), FLOAT32)


SETTINGS = config.Config(
    num_envs=32,
    total_timesteps=100_000,
    max_steps_in_episode=10,
    network=config.Network(lstm_hidden_size=16, net_arch=(8,), learn_initial_carry=True),
    ppo=config.PPO(n_steps=8, n_epochs=2, num_minibatches=2, learning_rate=0.003),
)
INTERPRETED = lstm_choice.Choice("fused", "interpreted", fused)


def trained(choice, devices, members=None):
    """Weights after two updates."""
    learner = Learner(
        toy_envs.StaggeredWalk(),
        SETTINGS,
        devices=jax.devices()[:devices],
        members=members,
        lstm_choice=choice,
    )
    key, env_params = jax.random.key(0), learner.replicate(toy_envs.params(10, 0.1))
    state = learner.init(key if members is None else jax.random.split(key, members), env_params)
    for _ in range(2):
        state, metrics = learner.update(state, env_params)
    return jax.device_get((state.params, metrics))


@pytest.mark.usefixtures("interpreted_in_shards")
@pytest.mark.parametrize(("devices", "members"), [(2, None), (1, 2)])
def test_a_learner_with_the_kernel_trains_what_one_with_the_scan_does(devices, members):
    ours, metrics = trained(INTERPRETED, devices, members)
    theirs, _ = trained(None, devices, members)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.max(metrics["train/ratio_deviation"]) < 1e-5


@pytest.mark.parametrize("precision", ["default", "highest", "bf16"])
def test_triton_takes_both_kernels_for_a_gpu_in_a_shard_of_lanes(precision):
    inputs, weights = draw(4, 40, 12, 64)

    def run(params, carry, x, first):
        return everything(lstm_kernel.sequence, (params, carry, x, first), weights)[0][1]

    by_lane, by_step = PartitionSpec("lane"), PartitionSpec(None, "lane")
    h200 = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    mesh = AbstractMesh((1,), ("lane",), (AxisType.Auto,), abstract_device=h200)
    specs = (PartitionSpec(), by_lane, by_step, by_step)
    sharded = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=by_lane))
    with network.products(precision):
        lowered = sharded.trace(*inputs).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("gpu.triton") == 2


def chosen(device, **settings):
    return lstm_choice.choose(config.Config(network=config.Network(**settings)), device)


def gpu(capability="9.0", kind="NVIDIA H200"):
    return SimpleNamespace(
        platform="gpu", compute_capability=capability, device_kind=kind, process_index=0
    )


def test_a_cpu_scans_and_says_so():
    choice = chosen(jax.devices()[0])
    assert choice.sequence is lstm.sequence
    assert str(choice) == "scan: the device is cpu, for which there is no kernel"
    assert str(chosen(gpu(), lstm_impl="scan")) == "scan: as asked for"


@pytest.mark.parametrize(
    ("device", "width", "obstacle"),
    [
        (jax.devices()[0], 64, "the device is cpu"),
        (gpu("7.5", "Tesla T4"), 64, "compute capability 7.5"),
        (gpu("gfx942", "AMD MI300X"), 64, "AMD MI300X, is not one of NVIDIA's"),
        (gpu(), 48, "network.lstm_hidden_size is 48, the kernel's are 16, 32, 64"),
    ],
)
def test_where_there_is_no_kernel_auto_scans_and_fused_is_refused(device, width, obstacle):
    choice = chosen(device, lstm_hidden_size=width)
    assert choice.name == "scan"
    assert obstacle in choice.why
    with pytest.raises(
        InputError, match=r"network.lstm_impl is fused and .*, expected auto or scan"
    ):
        chosen(device, lstm_hidden_size=width, lstm_impl="fused")


def broken(params, carry, x, first, *, block):
    del block
    last, hidden = lstm.sequence(params, carry, x, first)
    return last, hidden.at[-1].multiply(1.1)


def not_a_number(params, carry, x, first, *, block):
    """In the last of the outputs, where a maximum that passes over it would not see it."""
    last, hidden = fused(params, carry, x, first, block=block)
    return last, hidden.at[-1].set(jnp.nan)


def refused(*_, block):
    raise RuntimeError(f"no room for {block} lanes\nmore")


def refused_wide(*inputs, block):
    return fused(*inputs, block=block) if block == 16 else refused(block=block)


@pytest.mark.parametrize(
    ("sequence", "name", "why"),
    [
        (fused, "fused", "blocks of 32 lanes; deviates by "),
        (refused_wide, "fused", "blocks of 16 lanes; deviates by "),
        (broken, "scan", "the kernel deviates by "),
        (not_a_number, "scan", "the kernel deviates by nan"),
        (refused, "scan", "the kernel does not run here (no room for 16 lanes)"),
    ],
)
def test_auto_takes_the_kernel_only_where_it_agrees_with_the_scan(monkeypatch, sequence, name, why):
    kernel = SimpleNamespace(sequence=sequence, blocks=lambda lanes, precision: (32, 16))
    monkeypatch.setattr(lstm_choice, "_kernel", lambda: kernel)
    monkeypatch.setattr(lstm_choice, "_obstacle", lambda settings, device: "")
    choice = chosen(jax.devices()[0], lstm_hidden_size=16)
    assert choice.name == name
    assert choice.why.startswith(why)
    assert (choice.sequence is lstm.sequence) == (name == "scan")
    if name == "fused":
        assert str(chosen(jax.devices()[0], lstm_hidden_size=16, lstm_impl="fused")) == str(choice)
    else:
        with pytest.raises(InputError, match=r"fused and the kernel .*, expected auto or scan"):
            chosen(jax.devices()[0], lstm_hidden_size=16, lstm_impl="fused")


def test_blocks_are_wide_where_there_are_many_lanes_and_registers():
    assert lstm_kernel.blocks(4096, "default") == (32, 16)
    assert lstm_kernel.blocks(4096, "highest") == (16,)
    assert lstm_kernel.blocks(512, "default") == (16,)
