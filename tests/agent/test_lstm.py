import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax.agent import lstm
from tests.agent.numpy_network import lstm_step, to_numpy

step, sequence = jax.jit(lstm.step), jax.jit(lstm.sequence)
STEPS, LANES, INPUTS, HIDDEN = 12, 3, 4, 5


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: lstm.init(key, INPUTS, HIDDEN))(jax.random.key(0))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(STEPS, LANES, INPUTS)).astype(np.float32)
    first = rng.random((STEPS, LANES)) < 0.25
    assert first[1:].any()
    hidden, cell = rng.normal(size=(2, LANES, HIDDEN)).astype(np.float32)
    return lstm.Carry(jnp.asarray(hidden), jnp.asarray(cell)), x, first


def test_a_sequence_equals_an_independent_float64_lstm(params, data):
    carry, x, first = data
    weights = to_numpy(params)
    expected = np.zeros((STEPS, LANES, HIDDEN))
    cells = np.zeros((LANES, HIDDEN))
    for lane in range(LANES):
        hidden, cell = np.float64(carry.hidden[lane]), np.float64(carry.cell[lane])
        for t in range(STEPS):
            hidden, cell = lstm_step(weights, hidden, cell, x[t, lane], first[t, lane])
            expected[t, lane] = hidden
        cells[lane] = cell

    last, hidden = sequence(params, carry, x, first)

    np.testing.assert_allclose(hidden, expected, atol=2e-6)
    np.testing.assert_allclose(last.hidden, expected[-1], atol=2e-6)
    np.testing.assert_allclose(last.cell, cells, atol=2e-6)


def test_a_sequence_equals_its_steps(params, data):
    carry, x, first = data
    last, hidden = sequence(params, carry, x, first)
    for t in range(STEPS):
        carry, one = step(params, carry, x[t], first[t])
        np.testing.assert_allclose(one, hidden[t], atol=1e-6)
    np.testing.assert_allclose(carry.cell, last.cell, atol=1e-6)


def test_first_forgets_what_came_before_but_not_its_own_input(params, data):
    carry, x, _ = data
    nothing = jax.tree.map(jnp.zeros_like, carry)
    everywhere, nowhere = np.ones(LANES, bool), np.zeros(LANES, bool)
    reset, _ = step(params, carry, x[0], everywhere)
    fresh, _ = step(params, nothing, x[0], nowhere)
    kept, _ = step(params, carry, x[0], nowhere)
    np.testing.assert_array_equal(reset.cell, fresh.cell)
    assert np.abs(reset.cell).max() > 0.01
    assert np.abs(kept.cell - fresh.cell).max() > 0.1


def test_only_the_forget_gate_starts_with_a_bias_of_one(params):
    expected = np.concatenate([np.zeros(HIDDEN), np.ones(HIDDEN), np.zeros(2 * HIDDEN)])
    np.testing.assert_array_equal(params.bias, expected)


def test_every_gate_starts_with_an_orthogonal_recurrent_kernel(params):
    for kernel in np.split(np.asarray(params.recurrent_kernel), 4, axis=1):
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(HIDDEN), atol=1e-5)
