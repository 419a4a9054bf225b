from functools import partial

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
    """Three rollouts in a row of a walk without noise (each observation is 0.9 times the last)."""
    env, env_params = toy_envs.StaggeredWalk(), toy_envs.params(LIMIT, 0.05, noise=0.0)
    params = jax.jit(lambda key: network.init(key, SMALL, 4, 3))(jax.random.key(0))
    shared = {"lane_ids": jnp.arange(LANES), "step_metrics": step_metrics}

    @jax.jit
    def start(key):
        return rollout.start(params, env, env_params, key=key, max_steps_in_episode=LIMIT, **shared)

    @jax.jit
    def collect(lanes, key):
        return rollout.collect(params, lanes, env, env_params, n_steps=STEPS, key=key, **shared)

    lanes, rollouts = start(jax.random.key(1)), []
    for update in range(3):
        after, *rest = collect(lanes, jax.random.key(2 + update))
        rollouts.append(jax.tree.map(np.asarray, (lanes, after, *rest)))
        lanes = after
    return params, rollouts


def test_every_step_is_valued_by_what_it_led_to(run):
    """A float64 critic walks each lane: a truncated step is worth its final observation, seen with
    the carry it left; any other the next observation, the carry zeroed where that begins one."""
    params, rollouts = run
    critic = partial(tower_step, to_numpy(params), 1)
    truncations = 0
    for before, after, steps, v_next, _ in rollouts:
        for lane in range(LANES):
            hidden, cell = before.carry.hidden[lane, 1], before.carry.cell[lane, 1]
            all_obs = np.concatenate([steps.obs[:, lane], after.obs[None, lane]])
            all_first = np.append(steps.first[:, lane], after.first[lane])
            for t in range(STEPS):
                value, hidden, cell = critic(hidden, cell, all_obs[t], all_first[t])
                assert steps.value[t, lane] == pytest.approx(value[0], abs=5e-6)
                if steps.truncated[t, lane]:
                    final = 0.9 * all_obs[t]
                    expected, *_ = critic(hidden, cell, final, first=False)
                    forgetful, *_ = critic(hidden, cell, final, first=True)
                    assert abs(expected - forgetful) > 1e-4
                    truncations += 1
                else:
                    expected, *_ = critic(hidden, cell, all_obs[t + 1], all_first[t + 1])
                assert v_next[t, lane] == pytest.approx(expected[0], abs=5e-6)
    assert truncations >= 3


def test_first_marks_the_step_after_an_end_and_the_start(run):
    _, rollouts = run
    assert rollouts[0][0].first.all()
    for before, after, steps, _, _ in rollouts:
        ended = steps.terminated | steps.truncated
        np.testing.assert_array_equal(steps.first[0], before.first)
        np.testing.assert_array_equal(steps.first[1:], ended[:-1])
        np.testing.assert_array_equal(after.first, ended[-1])
        assert ended.any()


def test_lanes_start_at_different_times_and_truncate_at_the_limit(run):
    _, rollouts = run
    time = rollouts[0][0].env_state.time.copy()
    assert len(set(time)) > 2
    for _, _, steps, _, _ in rollouts:
        for t in range(STEPS):
            time += 1
            np.testing.assert_array_equal(steps.truncated[t], time >= LIMIT)
            time[steps.terminated[t] | steps.truncated[t]] = 0


def test_stored_log_probabilities_are_those_of_the_actions_taken(run):
    params, rollouts = run
    for before, _, steps, _, _ in rollouts:
        _, logits, _ = jax.jit(network.apply_sequence)(params, before.carry, steps.obs, steps.first)
        exponentials = np.exp(np.float64(logits))
        chosen = np.take_along_axis(exponentials, steps.action[..., None], -1)[..., 0]
        np.testing.assert_allclose(np.exp(steps.log_prob), chosen / exponentials.sum(-1), rtol=1e-5)


def test_totals_count_every_step_but_only_whole_episodes(run):
    """A ledger in plain Python of each lane's running episode; the first, begun midway, is cut."""
    _, rollouts = run
    running = [{"rew": 0.0, "len": 0, "moves": 0, "position": 0.0} for _ in range(LANES)]
    whole = [False] * LANES
    counted = 0
    for _, _, steps, _, totals in rollouts:
        for lane in range(LANES):
            all_steps = dict.fromkeys(running[lane], 0.0)
            episodes, finished = dict.fromkeys(running[lane], 0.0), 0
            for t in range(STEPS):
                reward = float(steps.reward[t, lane])
                step = {
                    "rew": reward,
                    "len": 1,
                    "moves": int(steps.action[t, lane] != 1),
                    "position": np.sign(reward),
                }
                for name, value in step.items():
                    all_steps[name] += value
                    running[lane][name] += value
                if steps.terminated[t, lane] or steps.truncated[t, lane]:
                    if whole[lane]:
                        finished += 1
                        episodes = {k: episodes[k] + v for k, v in running[lane].items()}
                    whole[lane], running[lane] = True, dict.fromkeys(step, 0.0)
            for name in all_steps:
                assert totals.steps[name][lane] == pytest.approx(all_steps[name], abs=1e-5)
                assert totals.episodes[name][lane] == pytest.approx(episodes[name], abs=1e-5)
            assert totals.num_episodes[lane] == finished
            counted += finished
    assert counted >= 3
