"""The same weights and the same rollout in sb3-contrib's RecurrentPPO, whose own code runs here.

Its `collect_rollouts` acts on a recording of ours, and its `train` makes one optimizer step of it.
Only four things are put in its way. Actions are the recorded ones instead of samples. The one cut
that it makes into the line of lanes, a random place, falls between two lanes, since gradients do
not pass a cut. Gradients are clipped at infinity, and kept. And advantages are divided by their
population standard deviation, ours, not by that of n − 1.

Truncated steps need nothing: RecurrentPPO adds γ·V(final observation) to such a step's reward and
takes it for a termination, and we take the step's successor to be worth V(final observation). The
advantages are the same sum.

The same run in float64 is the referee of both: an error is a largest distance from it, in units of
its largest value. Ours may be `LIMIT`, and at most `TIMES` RecurrentPPO's own in float32, or a few
units in the last place where that happens to be smaller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

INSTALL = "compares with PyTorch: pip install 'jules-jax[peers]'"
torch = pytest.importorskip("torch", reason=INSTALL)
pytest.importorskip("sb3_contrib", reason=INSTALL)

from gymnasium import spaces  # noqa: E402
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer  # noqa: E402
from sb3_contrib.common.recurrent.type_aliases import RNNStates  # noqa: E402
from stable_baselines3.common.distributions import CategoricalDistribution  # noqa: E402

from benchmarks.sb3_curves import VecBridge, load_weights, named_weights, peer  # noqa: E402
from jules_jax import config  # noqa: E402
from jules_jax.agent import network, ppo, rollout  # noqa: E402
from jules_jax.env.observation import OBSERVATION_LIMIT  # noqa: E402
from jules_jax.env.trading_env import TradingEnv  # noqa: E402
from tests import tiny  # noqa: E402

LANES, STEPS = 8, 128
SETTINGS = config.load(
    tiny.SETTINGS
    | {
        "num_envs": LANES,
        "n_steps": STEPS,
        "max_steps_in_episode": STEPS,
        "sessions": 6,
        "n_epochs": 1,
        "num_minibatches": 1,
        "lstm_hidden_size": 64,
        "net_arch": "128,128",
        # A few dollars lost end an episode, so that many terminate.
        "soft_dd_pct": 0.0002,
        "hard_dd_pct": 0.0004,
        "terminate_on_hard": True,
    }
)
LIMIT, TIMES, ULPS = 1e-5, 4.0, 8 * np.finfo(np.float32).eps


@dataclass(frozen=True)
class Recording:
    """A rollout of ours, begun in the middle of episodes, as NumPy arrays."""

    params: network.Params
    before: rollout.Lanes
    after: rollout.Lanes
    steps: rollout.Transitions
    v_next: np.ndarray
    final_obs: np.ndarray  # [T, N, O], what each step led to before any reset


def shaken(params: network.Params, scale: float, seed: int) -> network.Params:
    """All weights moved by normal noise, biases and heads too."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + scale * rng.normal(size=leaf.shape).astype(np.float32), params
    )


def play(env, env_params, state, actions, key):
    """What the environment led to at every step of a rollout with these actions and this key."""

    def body(state, inputs):
        t, action = inputs
        keys = rollout.lane_keys(jax.random.fold_in(key, t), jnp.arange(LANES))
        keys = jax.vmap(jax.random.split)(keys)[:, 1]
        step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
        obs, state, _, _, _, info = step(keys, state, action, env_params)
        return state, (obs, info["final_observation"])

    return jax.lax.scan(body, state, (jnp.arange(STEPS), actions))[1]


@pytest.fixture(scope="module")
def recording() -> Recording:
    env = TradingEnv(SETTINGS)
    env_params = env.default_params
    ids = jnp.arange(LANES)
    params = jax.jit(lambda key: network.init(key, SETTINGS.network))(jax.random.key(0))
    params = shaken(params, 0.05, seed=1)
    limit = {"key": jax.random.key(1), "lane_ids": ids, "max_steps_in_episode": STEPS}
    start = jax.jit(lambda params: rollout.start(params, env, env_params, **limit))(params)
    collect = jax.jit(
        lambda lanes, key: rollout.collect(
            params, lanes, env, env_params, n_steps=STEPS, key=key, lane_ids=ids
        )
    )
    before = collect(start, jax.random.key(2))[0]
    key = jax.random.key(3)
    after, steps, v_next, _ = collect(before, key)
    obs, final_obs = jax.jit(partial(play, env))(env_params, before.env_state, steps.action, key)
    np.testing.assert_array_equal(obs[:-1], steps.obs[1:])
    arrays = jax.tree.map(np.asarray, (before, after, steps, v_next, final_obs))
    return Recording(params, *arrays)


class Playback:
    """The recording as a Gymnasium vector environment."""

    num_envs, render_mode = LANES, None
    single_observation_space = spaces.Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (12,), np.float32)
    single_action_space = spaces.Discrete(3)

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._obs = np.concatenate([recording.steps.obs, recording.after.obs[None]])
        self._t = 0

    def reset(self, *, seed=None):
        return self._obs[0], {}

    def step(self, actions):
        steps, t = self._recording.steps, self._t
        np.testing.assert_array_equal(actions, steps.action[t])
        self._t += 1
        info = {"final_obs": self._recording.final_obs[t]}
        reward = steps.reward[t].astype(np.float64)
        return self._obs[t + 1], reward, steps.terminated[t], steps.truncated[t], info


class Float64Buffer(RecurrentRolloutBuffer):
    """The referee's buffer."""

    def reset(self):
        super().reset()
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                setattr(self, name, value.astype(np.float64))


def ours(recording: Recording, learned: network.Params) -> dict[str, np.ndarray]:
    """Everything compared, as we compute it; the loss has the weights `learned`."""
    steps, carry = recording.steps, recording.before.carry
    settings = SETTINGS.ppo
    advantage = ppo.gae(
        steps.reward,
        steps.value,
        recording.v_next,
        steps.terminated,
        steps.truncated,
        settings.gamma,
        settings.gae_lambda,
    )
    batch = ppo.Batch(
        obs=steps.obs,
        first=steps.first,
        action=steps.action,
        log_prob=steps.log_prob,
        advantage=advantage,
        target=advantage + steps.value,
    )
    loss = jax.grad(lambda *inputs: ppo.loss(*inputs, settings), has_aux=True)
    grads, losses = jax.jit(loss)(learned, carry, batch)
    replay = jax.jit(network.apply_sequence)(recording.params, carry, steps.obs, steps.first)
    del losses["ratio_deviation"]  # not among RecurrentPPO's
    found = {
        "log-probabilities of all actions": jax.nn.log_softmax(replay[1]),
        "log-probability of the action": steps.log_prob,
        "value": steps.value,
        "advantage": advantage,
        "target": batch.target,
    }
    return jax.tree.map(np.asarray, found | losses | named_weights(grads))


def theirs(recording: Recording, learned: network.Params, dtype) -> dict[str, np.ndarray]:
    """The same, computed by RecurrentPPO in `dtype`."""
    model = peer(VecBridge(Playback(recording)), SETTINGS)
    model._setup_learn(LANES * STEPS)
    model.max_grad_norm = np.inf
    model._last_episode_starts = recording.before.first
    model._last_lstm_states = RNNStates(
        *(
            tuple(
                torch.as_tensor(leaf[None, :, place].copy(), dtype=dtype)
                for leaf in (recording.before.carry.hidden, recording.before.carry.cell)
            )
            for place in (network.ACTOR, network.CRITIC)
        )
    )
    load_weights(model.policy.to(dtype), recording.params)
    if dtype == torch.float64:
        shape = model.rollout_buffer.hidden_state_shape
        spaces = (model.observation_space, model.action_space)
        gae = {"gamma": model.gamma, "gae_lambda": model.gae_lambda, "n_envs": LANES}
        model.rollout_buffer = Float64Buffer(STEPS, *spaces, shape, "cpu", **gae)
    # Observations are made float32 on their way in, whatever the weights are.
    model.policy.features_extractor.register_forward_hook(lambda *call: call[-1].to(dtype))

    actions, log_probs, grads = iter(torch.as_tensor(recording.steps.action.copy())), [], {}

    def recorded_action(distribution):
        log_probs.append(distribution.distribution.logits.numpy())
        return next(actions)

    def keep_gradients():
        for name, parameter in model.policy.named_parameters():
            if parameter.requires_grad:
                grads[name] = parameter.grad.numpy().copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CategoricalDistribution, "sample", recorded_action)
        callback = model._init_callback(None)
        model.collect_rollouts(model.env, callback, model.rollout_buffer, STEPS)
    buffer = model.rollout_buffer
    found = {
        "log-probabilities of all actions": np.stack(log_probs),
        "log-probability of the action": buffer.log_probs,
        "value": buffer.values,
        "advantage": buffer.advantages,
        "target": buffer.returns,
    }
    load_weights(model.policy, learned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.policy.optimizer, "step", keep_gradients)
        patch.setattr(torch.Tensor, "std", partial(torch.std, correction=0))
        patch.setattr(np.random, "randint", lambda size: STEPS * (LANES // 2))
        model.train()
    names = {
        name: f"train/{name}"
        for name in (
            "loss",
            "policy_gradient_loss",
            "value_loss",
            "entropy_loss",
            "approx_kl",
            "clip_fraction",
        )
    }
    losses = {name: model.logger.name_to_value[key] for name, key in names.items()}
    return jax.tree.map(np.asarray, found | losses | grads)


def debug(recording, scale):
    learned = shaken(recording.params, scale, seed=2) if scale else recording.params
    a, b, r = (
        ours(recording, learned),
        theirs(recording, learned, torch.float32),
        theirs(recording, learned, torch.float64),
    )
    assert a.keys() == b.keys() == r.keys(), (a.keys(), b.keys())
    for name in a:
        size = np.abs(r[name]).max()
        ea, eb = np.abs(a[name] - r[name]).max() / size, np.abs(b[name] - r[name]).max() / size
        print(f"{name:40s} {size:10.3g} {ea:10.2e} {eb:10.2e} {ea/max(eb,1e-12):6.2f} {r[name].dtype}")


@pytest.mark.parametrize("scale", [0.0, 0.02])
def test_x(recording, scale):
    s = recording.steps
    print(s.terminated.sum(), s.truncated.sum(), s.first[0].sum(), s.terminated.any(0).sum())
    debug(recording, scale)
