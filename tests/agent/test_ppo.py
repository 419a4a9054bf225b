from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.agent import network, ppo
from tests.agent.numpy_network import to_numpy, tower_step


def gae_by_definition(reward, value, v_next, terminated, truncated, gamma, gae_lambda):
    """Each advantage as its own sum of discounted errors, up to the end of its episode."""
    steps = len(reward)
    advantage = np.zeros(steps)
    for start in range(steps):
        weight = 1.0
        for t in range(start, steps):
            bootstrap = 0.0 if terminated[t] else v_next[t]
            advantage[start] += weight * (reward[t] + gamma * bootstrap - value[t])
            if terminated[t] or truncated[t]:
                break
            weight *= gamma * gae_lambda
    return advantage


jitted_gae = jax.jit(ppo.gae)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_gae_equals_its_definition_whatever_ends_an_episode(seed, gamma, gae_lambda):
    steps, lanes = 19, 4
    rng = np.random.default_rng(seed)
    reward, value, v_next = rng.normal(size=(3, steps, lanes)).astype(np.float32)
    terminated, truncated = rng.random((2, steps, lanes)) < 0.2
    terminated[3] = [True, False, True, False]
    truncated[3] = [False, True, True, False]
    inputs = (reward, value, v_next, terminated, truncated)
    advantage = jitted_gae(*inputs, gamma, gae_lambda)
    for lane in range(lanes):
        expected = gae_by_definition(*(x[:, lane] for x in inputs), gamma, gae_lambda)
        np.testing.assert_allclose(advantage[:, lane], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    # r = 1, V = 0.5, V' = 2, gamma = 0.5, lambda = 0.5, and the next advantage is 4.
    [
        (False, False, 1 + 0.5 * 2 - 0.5 + 0.25 * 4),
        (False, True, 1 + 0.5 * 2 - 0.5),
        (True, False, 1 - 0.5),
        (True, True, 1 - 0.5),
    ],
)
def test_one_step_of_gae_by_hand(terminated, truncated, expected):
    def column(*values):
        return jnp.array(values)[:, None]

    advantage = ppo.gae(
        reward=column(1.0, 4.0),
        value=column(0.5, 0.0),
        v_next=column(2.0, 0.0),
        terminated=column(terminated, False),
        truncated=column(truncated, False),
        gamma=0.5,
        gae_lambda=0.5,
    )
    np.testing.assert_allclose(advantage[:, 0], [expected, 4.0], rtol=1e-6)


STEPS, LANES = 6, 4
SETTINGS = config.PPO(clip_range=0.2, ent_coef=0.05, vf_coef=0.7)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(5)
    small = config.Network(lstm_hidden_size=5, net_arch=(7,))
    params = jax.jit(lambda key: network.init(key, small, 4, 3))(jax.random.key(4))
    # A policy far from uniform, so that entropy and ratios matter.
    head = replace(params.policy_head, kernel=params.policy_head.kernel * 100)
    params = replace(params, policy_head=head)
    batch = ppo.Batch(
        obs=jnp.asarray(rng.normal(size=(STEPS, LANES, 4)), jnp.float32),
        first=jnp.asarray(rng.random((STEPS, LANES)) < 0.2),
        action=jnp.asarray(rng.integers(0, 3, (STEPS, LANES)), jnp.int32),
        log_prob=jnp.asarray(np.log(rng.uniform(0.2, 0.5, (STEPS, LANES))), jnp.float32),
        advantage=jnp.asarray(rng.normal(1.0, 3.0, (STEPS, LANES)), jnp.float32),
        target=jnp.asarray(rng.normal(size=(STEPS, LANES)), jnp.float32),
    )
    return params, network.initial_carry(params, LANES), batch


def test_the_loss_and_its_statistics_equal_a_float64_computation(problem):
    params, carry, batch = problem
    total, stats = jax.jit(lambda *a: ppo.loss(*a, SETTINGS))(params, carry, batch)

    weights, data = to_numpy(params), to_numpy(batch)
    log_probs, values = np.zeros((STEPS, LANES, 3)), np.zeros((STEPS, LANES))
    for lane in range(LANES):
        for place in (0, 1):
            hidden = cell = np.zeros(5)
            for t in range(STEPS):
                out, hidden, cell = tower_step(
                    weights, place, hidden, cell, data.obs[t, lane], data.first[t, lane]
                )
                if place == 0:
                    log_probs[t, lane] = out - np.log(np.exp(out).sum())
                else:
                    values[t, lane] = out[0]
    chosen = np.take_along_axis(log_probs, np.asarray(batch.action)[..., None], -1)[..., 0]
    ratio = np.exp(chosen - data.log_prob)
    advantage = (data.advantage - data.advantage.mean()) / data.advantage.std()
    gain = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    entropy = -(np.exp(log_probs) * log_probs).sum(-1).mean()
    value_loss = ((values - data.target) ** 2).mean()
    expected = {
        "policy_gradient_loss": -gain.mean(),
        "value_loss": value_loss,
        "entropy_loss": -entropy,
        "loss": -gain.mean() - 0.05 * entropy + 0.7 * value_loss,
        "approx_kl": (ratio - 1 - np.log(ratio)).mean(),
        "clip_fraction": (np.abs(ratio - 1) > 0.2).mean(),
        "ratio_deviation": np.abs(ratio - 1).max(),
    }
    assert 0 < expected["clip_fraction"] < 1
    assert stats.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(stats[name], value, rtol=2e-5, err_msg=name)
    assert total == stats["loss"]


def test_advantages_are_normalised_within_the_minibatch(problem):
    params, carry, batch = problem
    moved = replace(batch, advantage=10.0 * batch.advantage - 3.0)
    loss = jax.jit(lambda batch: ppo.loss(params, carry, batch, SETTINGS)[0])
    np.testing.assert_allclose(loss(moved), loss(batch), rtol=1e-5)


def test_the_optimizer_is_adam_on_gradients_clipped_by_their_norm():
    """Kingma & Ba 2015, algorithm 1, in float64, with 0.9 and 0.999, beside the optax chain."""
    settings = config.PPO(max_grad_norm=0.5, adam_eps=1e-3)
    rng, optimizer = np.random.default_rng(0), ppo.optimizer(settings)
    gradients = [{"a": rng.normal(size=3), "b": rng.normal(size=(2, 2)) * 0.05} for _ in range(5)]
    gradients[3] = jax.tree.map(lambda leaf: 0.01 * leaf, gradients[3])  # too small to be clipped
    state = optimizer.init(jax.tree.map(jnp.float32, gradients[0]))
    first = second = jax.tree.map(np.zeros_like, gradients[0])
    for step, gradient in enumerate(gradients, start=1):
        norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        clipped = {name: leaf * min(1.0, 0.5 / norm) for name, leaf in gradient.items()}
        first = {k: 0.9 * first[k] + 0.1 * clipped[k] for k in clipped}
        second = {k: 0.999 * second[k] + 0.001 * clipped[k] ** 2 for k in clipped}
        direction, state = optimizer.update(jax.tree.map(jnp.float32, gradient), state)
        for name in clipped:
            mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            expected = mean / (np.sqrt(square) + 1e-3)
            np.testing.assert_allclose(direction[name], expected, rtol=2e-5)
