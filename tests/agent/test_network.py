from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import lstm, network
from tests.agent.numpy_network import to_numpy, tower_step

STEPS, LANES = 10, 3
apply_step, apply_sequence, critic_value = map(
    jax.jit, (network.apply_step, network.apply_sequence, network.critic_value)
)
SMALL = config.Network(lstm_hidden_size=6, net_arch=(8, 7))


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: network.init(key, SMALL, 4, 3))(jax.random.key(2))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    obs = rng.normal(size=(STEPS, LANES, 4)).astype(np.float32)
    first = rng.random((STEPS, LANES)) < 0.2
    assert first[1:].any()
    hidden, cell = rng.normal(size=(2, LANES, 2, 6)).astype(np.float32)
    return lstm.Carry(jnp.asarray(hidden), jnp.asarray(cell)), obs, first


def test_the_default_network_has_the_reports_89604_parameters():
    shapes = jax.eval_shape(lambda key: network.init(key, config.Network()), jax.random.key(0))
    assert network.num_parameters(shapes) == 89_604
    leaves = jax.tree.leaves(shapes)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert not any(leaf.weak_type for leaf in leaves)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(shapes.towers)} == {2}


def test_layers_start_orthogonal_with_their_gains(params):
    for kernel, gain in [
        *((layer.kernel[tower], 2.0**0.5) for layer in params.towers.hidden for tower in (0, 1)),
        (params.policy_head.kernel, 0.01),
        (params.value_head.kernel, 1.0),
    ]:
        singular_values = np.linalg.svd(np.asarray(kernel), compute_uv=False)
        np.testing.assert_allclose(singular_values, gain, rtol=1e-4)


def test_actor_and_critic_start_with_different_weights(params):
    actor, critic = params.towers.lstm.recurrent_kernel
    assert np.abs(actor - critic).max() > 0.1


def test_a_sequence_equals_an_independent_float64_network(params, data):
    carry, obs, first = data
    last, logits, value = apply_sequence(params, carry, obs, first)
    weights = to_numpy(params)
    for lane in range(LANES):
        for place, outputs in enumerate((logits, value[..., None])):
            hidden, cell = (
                np.float64(carry.hidden[lane, place]),
                np.float64(carry.cell[lane, place]),
            )
            for t in range(STEPS):
                expected, hidden, cell = tower_step(
                    weights, place, hidden, cell, obs[t, lane], first[t, lane]
                )
                np.testing.assert_allclose(outputs[t, lane], expected, atol=5e-6)
            np.testing.assert_allclose(last.cell[lane, place], cell, atol=5e-6)


def test_a_sequence_equals_its_steps(params, data):
    carry, obs, first = data
    last, logits, value = apply_sequence(params, carry, obs, first)
    for t in range(STEPS):
        critic = critic_value(params, network.critic_carry(carry), obs[t], first[t])
        carry, logits_t, value_t = apply_step(params, carry, obs[t], first[t])
        np.testing.assert_allclose(logits_t, logits[t], atol=1e-6)
        np.testing.assert_allclose(value_t, value[t], atol=1e-6)
        np.testing.assert_allclose(critic, value_t, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carry, last)


@pytest.mark.parametrize("precision", ["default", "high", "highest", "bf16"])
def test_matrix_products_have_the_precision_asked_for(params, data, precision):
    carry, obs, first = data
    apply = partial(network.apply_sequence, precision=precision)
    text = str(jax.make_jaxpr(apply)(params, carry, obs, first))
    assert ("HIGHEST" in text) == (precision == "highest")
    assert ("HIGH" in text) == (precision in ("high", "highest"))
    assert (lstm.BF16 in text) == (precision == "bf16")
