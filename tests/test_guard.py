"""Extreme environments, and the guard that stops a run where they are too much."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent.learner import Learner
from jules_jax.errors import Diverged, InputError
from jules_jax.training import checkpoints, guard
from tests.agent import toy_envs

pytestmark = pytest.mark.usefixtures("quick_compilation")

SETTINGS = config.Config(
    num_envs=8,
    total_timesteps=8 * 8 * 6,
    max_steps_in_episode=10,
    network=config.Network(lstm_hidden_size=4, net_arch=(4,)),
    ppo=config.PPO(n_steps=8, n_epochs=2, num_minibatches=2),
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """A walk whose rewards are multiplied, and whose observations are `shade + sight * walk`."""

    reward: jax.Array
    sight: jax.Array
    shade: jax.Array
    walk: toy_envs.Params


def env_params(reward=1.0, sight=1.0, shade=0.0):
    return Params(*map(jnp.float32, (reward, sight, shade)), toy_envs.params())


class Extreme(toy_envs.Walk):
    def reset(self, key, params):
        obs, state = super().reset(key, params.walk)
        return params.shade + params.sight * obs, state

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, info = toy_envs.Walk().step(
            key, state, action, params.walk
        )
        see = lambda seen: params.shade + params.sight * seen  # noqa: E731
        info |= {"final_observation": see(info["final_observation"])}
        return see(obs), state, params.reward * reward, terminated, truncated, info


@pytest.fixture(scope="module")
def learner():
    return Learner(Extreme(), SETTINGS, devices=jax.devices()[:2])


def begin(learner, seed=0):
    return learner.init(jax.random.key(seed), env_params())


def train(learner, params_of_update, directory, updates=6):
    """As the loop does it: metrics are looked at when the next update has taken the state."""
    guarded, state, pending, history = guard.Guard(directory, SETTINGS), begin(learner), None, []

    def finish(update, metrics):
        history.append(jax.device_get(metrics))
        guarded.check(update, history[-1])

    for update in range(1, updates + 1):
        guarded.hold(guard.Start(update, state, update // 2, update / 7))
        state, metrics = learner.update(state, params_of_update(update))
        metrics |= guard.magnitudes(state)
        if pending:
            finish(*pending)
        pending = (update, metrics)
    finish(*pending)
    return state, history


@pytest.mark.parametrize(
    "extreme",
    [{"reward": 1e6}, {"reward": -1e6}, {"sight": 0.0, "shade": 3.0}, {"sight": 1e6}],
    ids=["rewards 1e6", "rewards -1e6", "constant observations", "observations 1e6"],
)
def test_extremes_leave_a_learner_finite_and_its_policy_stochastic(extreme, learner, tmp_path):
    params = env_params(**extreme)
    state, history = train(learner, lambda update: params, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert all(metrics["train/explained_variance"] <= 1 for metrics in history)
    assert not (tmp_path / guard.DIRECTORY).exists()
    # Advantages are normalised: a million dollars move the policy no further than one does.
    assert max(metrics["train/approx_kl"] for metrics in history) < 0.1
    assert min(-metrics["train/entropy_loss"] for metrics in history) > 0.5


def test_rewards_without_variance_explain_none_and_move_no_policy(learner):
    """Rewards and values of 0: advantages are 0 before and after they are normalised."""
    state = begin(learner)
    silent = jax.tree.map(jnp.zeros_like, state.params.value_head)
    state = dataclasses.replace(state, params=dataclasses.replace(state.params, value_head=silent))
    _, metrics = learner.update(state, env_params(reward=0.0))
    assert not guard.offending(jax.device_get(metrics))
    assert metrics["train/explained_variance"] == 0
    assert metrics["train/value_loss"] == 0
    assert metrics["train/policy_gradient_loss"] == 0


@pytest.mark.parametrize("reward", [1e30, np.inf, np.nan])
def test_rewards_beyond_float32_stop_the_run_in_a_sentence(reward, learner, tmp_path):
    params = env_params(reward=reward)
    with pytest.raises(Diverged, match=r"^update 1 of 6: rollout/\w+ is (inf|nan|-inf)") as stop:
        train(learner, lambda update: params, tmp_path)
    assert f"--replay {tmp_path / 'diverged'}" in str(stop.value)


@pytest.fixture(scope="module")
def diverged(learner, tmp_path_factory):
    """A run whose rewards are NaN from update 4 on; the good states by number, and the message."""
    directory = tmp_path_factory.mktemp("diverged")
    states = [begin(learner)]
    for _ in range(4):
        copied = jax.tree.map(jnp.copy, states[-1])
        states.append(learner.update(copied, env_params())[0])
    with pytest.raises(Diverged) as stop:
        train(learner, lambda update: env_params(np.nan if update >= 4 else 1.0), directory)
    return directory / guard.DIRECTORY, states, str(stop.value)


def test_the_first_offending_update_is_named_though_the_next_one_is_under_way(diverged):
    path, _, message = diverged
    assert message.startswith("update 4 of 6: rollout/")
    assert guard.load(path).update == 4


def test_what_is_kept_is_the_state_before_that_update_bit_for_bit(learner, diverged):
    path, states, _ = diverged
    restored = checkpoints.restore(checkpoints.find(path), begin(learner, seed=9))
    pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(states[3]), strict=True)
    for kept, expected in pairs:
        if jax.dtypes.issubdtype(kept.dtype, jax.dtypes.prng_key):
            kept, expected = jax.random.key_data(kept), jax.random.key_data(expected)
        np.testing.assert_array_equal(kept, expected)


def test_the_update_run_again_shows_the_same_metrics_bit_for_bit(learner, diverged):
    path, *_ = diverged
    recorded = guard.load(path)
    assert (recorded.generation, recorded.progress) == (2, 4 / 7)
    state = checkpoints.restore(checkpoints.find(path), begin(learner, seed=9))
    state, metrics = learner.update(state, env_params(np.nan))
    again = jax.device_get(metrics | guard.magnitudes(state))
    assert guard.offending(again) == guard.offending(recorded.metrics) != []
    for name, value in again.items():
        np.testing.assert_array_equal(value, recorded.metrics[name], strict=True)
    assert "as recorded, bit for bit" in guard.compare(recorded.metrics, again)
    one_bit = again | {"rollout/episodes": np.nextafter(again["rollout/episodes"], np.float32(99))}
    assert "not bit for bit" in guard.compare(recorded.metrics, one_bit)


@pytest.mark.parametrize("part", ["params", "opt_state", "carry", "obs"])
def test_a_part_of_the_state_that_is_not_finite_is_told_apart(part, learner):
    """Where the last optimizer step did it, no other metric of that update shows it."""
    state = begin(learner)
    assert not guard.offending(jax.device_get(guard.magnitudes(state)))
    for broken in (np.nan, -np.inf):
        spoil = partial(spoil_first_entry, value=broken)
        if part in ("carry", "obs"):
            lanes = dataclasses.replace(state.lanes, **{part: spoil(getattr(state.lanes, part))})
            spoilt = dataclasses.replace(state, lanes=lanes)
        else:
            spoilt = dataclasses.replace(state, **{part: spoil(getattr(state, part))})
        assert guard.offending(jax.device_get(guard.magnitudes(spoilt))) == [f"state/{part}"]


def spoil_first_entry(tree, value):
    leaves, structure = jax.tree.flatten(tree)
    first = next(i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating))
    leaves[first] = leaves[first].at[(0,) * leaves[first].ndim].set(value)
    return jax.tree.unflatten(structure, leaves)


def test_causes_are_named_before_effects_and_members_by_number(tmp_path, learner):
    metrics = {
        "state/params": np.float32("nan"),
        "train/loss": np.float32([1.0, 2.0, np.inf]),
        "train/clip_range": np.float32(0.3),
        "step_sum/pnl": np.float32([0.0, np.nan, np.inf]),
    }
    assert guard.offending(metrics) == ["step_sum/pnl", "train/loss", "state/params"]
    guarded = guard.Guard(tmp_path, SETTINGS)
    guarded.hold(guard.Start(1, begin(learner), 0, 0.0))
    with pytest.raises(Diverged, match=r"step_sum/pnl is nan \(member 1\) and 2 more"):
        guarded.check(1, metrics)
    recorded = guard.load(tmp_path / guard.DIRECTORY).metrics
    for name, value in metrics.items():
        np.testing.assert_array_equal(recorded[name], value)
    json.loads((tmp_path / guard.DIRECTORY / guard.FILE).read_text(), parse_constant=pytest.fail)


def test_what_cannot_be_replayed_is_refused_in_a_sentence(tmp_path, learner, diverged):
    with pytest.raises(InputError, match="expected a run's diverged directory"):
        guard.load(tmp_path)
    state = begin(learner)
    wider = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state.params)
    like = dataclasses.replace(state, params=wider)
    with pytest.raises(InputError, match="does not fit the configuration"):
        checkpoints.restore(checkpoints.find(diverged[0]), like)
