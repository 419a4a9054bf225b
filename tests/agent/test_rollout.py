import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network, rollout
from tests.agent import toy_envs
from tests.agent.numpy_network import to_numpy, tower_step

STEPS, LANES, LIMIT = 12, 6, 15
SMALL = config.Network(lstm_hidden_size=6, net_arch=(8,))


def step_metrics(info, action, logits):
    return {"moves": action != 1, "position": info["position"]}


@pytest.fixture(scope="module")
def run():
    """Three rollouts in a row: what each began with and returned, as NumPy arrays."""
    env, env_params = toy_envs.StaggeredWalk(), toy_envs.params(LIMIT, 0.05)
    params = jax.jit(lambda key: network.init(key, SMALL, 4, 3))(jax.random.key(0))
    ids = jnp.arange(LANES)

    @jax.jit
    def start(key):
        return rollout.start(
            params,
            env,
            env_params,
            key=key,
            lane_ids=ids,
            max_steps_in_episode=LIMIT,
            step_metrics=step_metrics,
        )

    @jax.jit
    def collect(lanes, key):
        return rollout.collect(
            params,
            lanes,
            env,
            env_params,
            n_steps=STEPS,
            key=key,
            lane_ids=ids,
            step_metrics=step_metrics,
        )

    lanes, rollouts = start(jax.random.key(1)), []
    for update in range(3):
        after, *rest = collect(lanes, jax.random.key(2 + update))
        rollouts.append(jax.tree.map(np.asarray, (lanes, after, *rest)))
        lanes = after
    return params, rollouts


def test_every_step_is_valued_by_what_it_led_to(run):
    """A float64 critic walks each lane; a truncated step is valued on its final observation with
    the carry it left, the rollout's last step on the next observation with `first` applied."""
    params, rollouts = run
    weights, truncations, resets = to_numpy(params), 0, 0
    for before, after, steps, v_next, _ in rollouts:
        for lane in range(LANES):
            hidden, cell = (
                leaf[lane, 1].astype(np.float64) for leaf in (before.carry.hidden, before.carry.cell)
            )
            for t in range(STEPS):
                value, hidden, cell = tower_step(
                    weights, 1, hidden, cell, steps.obs[t, lane], steps.first[t, lane]
                )
                np.testing.assert_allclose(steps.value[t, lane], value[0], atol=5e-6)
                if steps.terminated[t, lane]:
                    continue
                if steps.truncated[t, lane]:
                    # The reward is (action - 1) times the first entry of the final observation.
                    move = steps.action[t, lane] - 1
                    following, first = None, False
                    truncations += 1
                    if move:
                        value = value_after(weights, hidden, cell, steps, after, t, lane)
                        assert abs(v_next[t, lane] - value["reset"]) > 1e-4
                    continue
                if t + 1 < STEPS:
                    following, first = steps.obs[t + 1, lane], steps.first[t + 1, lane]
                else:
                    following, first = after.obs[lane], after.first[lane]
                expected, *_ = tower_step(weights, 1, hidden, cell, following, first)
                np.testing.assert_allclose(v_next[t, lane], expected[0], atol=5e-6)
                resets += first
    assert truncations >= 3
