"""The same weights and the same rollout in sb3-contrib's RecurrentPPO, whose own code runs here.

Its `collect_rollouts` acts on a recording of ours, and its `train` makes one optimizer step of it.
Four things are put in its way. Actions are the recorded ones instead of samples. The one cut that
it makes into the line of lanes, at a random place, falls between two lanes, since no gradient
passes a cut. Gradients are clipped at infinity, and kept. And advantages are divided by their
population standard deviation, as ours are: `.std()` there is that of n − 1, larger by 1 + 1/2n.

Truncated steps need nothing: RecurrentPPO adds γ·V(final observation) to such a step's reward and
takes it for a termination, and we take the step's successor to be worth V(final observation). The
advantages are the same sum.

The same run in float64 is the referee: an error is the largest distance from it over all entries,
in units of its largest one. Ours must be below `LIMIT`, 84 units in the last place of float32, for
a gradient sums 1,024 steps that partly cancel; and on the whole no larger than twice RecurrentPPO's
own in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

INSTALL = "compares with PyTorch: pip install -e '.[peers]'"
torch = pytest.importorskip("torch", reason=INSTALL)
pytest.importorskip("sb3_contrib", reason=INSTALL)

from gymnasium import spaces  # noqa: E402
from sb3_contrib import RecurrentPPO  # noqa: E402
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer  # noqa: E402
from sb3_contrib.common.recurrent.type_aliases import RNNStates  # noqa: E402
from stable_baselines3.common.distributions import CategoricalDistribution  # noqa: E402

from benchmarks.sb3_curves import PLAIN, VecBridge, load_weights, named_weights, peer  # noqa: E402
from jules_jax import config  # noqa: E402
from jules_jax.agent import lstm, network, ppo, rollout  # noqa: E402
from jules_jax.agent.learner import batch_of  # noqa: E402
from jules_jax.env.observation import OBSERVATION_LIMIT  # noqa: E402
from jules_jax.env.params import make_params  # noqa: E402
from jules_jax.env.trading_env import TradingEnv  # noqa: E402
from tests.env.market_factory import Symbol, make_market  # noqa: E402

LANES, STEPS = 8, 128
SETTINGS = config.load(
    PLAIN
    | {
        "num_envs": LANES,
        "max_steps_in_episode": STEPS,
        "ppo.n_steps": STEPS,
        "ppo.n_epochs": 1,
        "ppo.num_minibatches": 1,
        # Small losses end an episode, so that some terminate and some meet the time limit.
        "safeguards.soft_dd_pct": 0.0010,
        "safeguards.hard_dd_pct": 0.0015,
        "safeguards.terminate_on_hard": True,
    }
)
LIMIT, ULP = 1e-5, float(np.finfo(np.float32).eps)
OUTPUTS, WEIGHTS = 6, 18
LOSSES = (
    "loss",
    "policy_gradient_loss",
    "value_loss",
    "entropy_loss",
    "approx_kl",
    "clip_fraction",
)


@dataclass(frozen=True)
class Recording:
    """A rollout of ours, begun in the middle of episodes, as NumPy arrays."""

    params: network.Params
    before: rollout.Lanes
    after: rollout.Lanes
    steps: rollout.Transitions
    v_next: np.ndarray


def shaken(params: network.Params, scale: float, seed: int) -> network.Params:
    """All weights moved by normal noise, biases and heads too."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + scale * rng.normal(size=leaf.shape).astype(np.float32), params
    )


class Remembering:
    """The trading environment, whose state also keeps the observation that it was truncated on."""

    def __init__(self, env: TradingEnv) -> None:
        self._env, self.num_actions = env, env.num_actions

    def reset(self, key, params):
        obs, state = self._env.reset(key, params)
        return obs, (state, obs)

    def step(self, key, state, action, params):
        obs, inner, *ends, info = self._env.step(key, state[0], action, params)
        final = jnp.where(ends[-1], info["final_observation"], state[1])
        return obs, (inner, final), *ends, info

    def with_time(self, state, time):
        return self._env.with_time(state[0], time), state[1]


@pytest.fixture(scope="module")
def recording() -> Recording:
    market = make_market(np.random.default_rng(0), [Symbol()], 1_000, STEPS)
    env, env_params = Remembering(TradingEnv()), make_params(SETTINGS, market)
    ids = jnp.arange(LANES)

    @jax.jit
    def begin(key):
        params = network.init(key, SETTINGS.network)
        limit = {"lane_ids": ids, "max_steps_in_episode": STEPS}
        return params, rollout.start(params, env, env_params, key=key, **limit)

    @jax.jit
    def collect(params, lanes, key):
        options = {"n_steps": STEPS, "key": key, "lane_ids": ids}
        return rollout.collect(params, lanes, env, env_params, **options)

    params, lanes = begin(jax.random.key(0))
    params = shaken(params, 0.15, seed=1)
    before = collect(params, lanes, jax.random.key(1))[0]
    after, steps, v_next, _ = collect(params, before, jax.random.key(2))
    return Recording(params, *jax.tree.map(np.asarray, (before, after, steps, v_next)))


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
        info = {"final_obs": self._recording.after.env_state[1]}
        reward = steps.reward[t].astype(np.float64)
        return self._obs[t + 1], reward, steps.terminated[t], steps.truncated[t], info


class Float64Buffer(RecurrentRolloutBuffer):
    """The referee's buffer."""

    def reset(self):
        super().reset()
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                setattr(self, name, value.astype(np.float64))


@dataclass(frozen=True)
class Found:
    """Results by name: ours, RecurrentPPO's in float32, and RecurrentPPO's in float64."""

    moved: bool
    ours: dict[str, np.ndarray]
    theirs: dict[str, np.ndarray]
    referee: dict[str, np.ndarray]

    def errors(self, results: dict[str, np.ndarray]) -> dict[str, float]:
        """Largest distances from the referee, in units of its largest value.

        Losses are means of numbers of size one that cancel: their unit is at least one.
        """
        found = {}
        for name, expected in self.referee.items():
            assert results[name].shape == expected.shape and expected.dtype == np.float64
            unit = max(np.abs(expected).max(), float(expected.ndim == 0))
            found[name] = float(np.abs(results[name] - expected).max() / unit)
        return found


def ours(recording: Recording, learned: network.Params) -> dict[str, np.ndarray]:
    """Everything compared, as we compute it; the loss has the weights `learned`."""
    steps, carry = recording.steps, recording.before.carry
    settings = SETTINGS.ppo
    batch = batch_of(steps, recording.v_next, settings)
    loss = jax.grad(lambda *inputs: ppo.loss(*inputs, settings), has_aux=True)
    grads, losses = jax.jit(loss)(learned, carry, batch)
    replay = jax.jit(network.apply_sequence)(recording.params, carry, steps.obs, steps.first)
    outputs = {
        "carry": by_tower(recording.after.carry),
        "log-probabilities of all actions": jax.nn.log_softmax(replay[1]),
        "log-probability of the action": steps.log_prob,
        "value": steps.value,
        "advantage": batch.advantage,
        "target": batch.target,
    }
    losses = {name: losses[name] for name in LOSSES}
    return jax.tree.map(np.asarray, outputs | losses | named_weights(grads))


def theirs(recording: Recording, learned: network.Params, dtype) -> dict[str, np.ndarray]:
    """The same, computed by RecurrentPPO in `dtype`."""
    model = recurrent_ppo(recording, dtype)
    load_weights(model.policy, recording.params)
    outputs = collect(model, recording)
    load_weights(model.policy, learned)
    return jax.tree.map(np.asarray, outputs | train(model))


def recurrent_ppo(recording: Recording, dtype) -> RecurrentPPO:
    """RecurrentPPO in `dtype`, where the recording begins."""
    model = peer(VecBridge(Playback(recording)), SETTINGS)
    model._setup_learn(LANES * STEPS)
    model.max_grad_norm = np.inf
    model.policy.to(dtype)
    # Observations are made float32 on their way in, whatever the weights are.
    model.policy.features_extractor.register_forward_hook(lambda *call: call[-1].to(dtype))
    model._last_episode_starts = recording.before.first
    carry = torch.as_tensor(by_tower(recording.before.carry), dtype=dtype)[:, :, None]
    model._last_lstm_states = RNNStates(tuple(carry[network.ACTOR]), tuple(carry[network.CRITIC]))
    if dtype == torch.float64:
        shape = model.rollout_buffer.hidden_state_shape
        room = (STEPS, model.observation_space, model.action_space, shape, "cpu")
        gae = {"gamma": model.gamma, "gae_lambda": model.gae_lambda}
        model.rollout_buffer = Float64Buffer(*room, **gae, n_envs=LANES)
    return model


def by_tower(carry: lstm.Carry) -> np.ndarray:
    """A carry as `[2, 2, N, H]`: of actor and critic the hidden state and the cell."""
    return np.moveaxis(np.stack([carry.hidden, carry.cell]), 2, 0)


def collect(model: RecurrentPPO, recording: Recording) -> dict[str, np.ndarray]:
    """What `collect_rollouts` makes of the recording."""
    actions, log_probs = iter(torch.as_tensor(recording.steps.action.copy())), []

    def recorded_action(distribution):
        log_probs.append(distribution.distribution.logits.numpy())
        return next(actions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CategoricalDistribution, "sample", recorded_action)
        callback = model._init_callback(None)
        model.collect_rollouts(model.env, callback, model.rollout_buffer, STEPS)
    buffer, states = model.rollout_buffer, model._last_lstm_states
    return {
        "carry": np.stack([np.concatenate(states.pi), np.concatenate(states.vf)]),
        "log-probabilities of all actions": np.stack(log_probs),
        "log-probability of the action": buffer.log_probs,
        "value": buffer.values,
        "advantage": buffer.advantages,
        "target": buffer.returns,
    }


def train(model: RecurrentPPO) -> dict[str, np.ndarray]:
    """The losses and gradients of `train`'s one optimizer step, which is not made."""
    grads = {}

    def keep_gradients():
        for name, parameter in model.policy.named_parameters():
            if parameter.requires_grad:
                grads[name] = parameter.grad.numpy().copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.policy.optimizer, "step", keep_gradients)
        patch.setattr(torch.Tensor, "std", lambda tensor: torch.std(tensor, correction=0))
        patch.setattr(np.random, "randint", lambda size: STEPS * (LANES // 2))
        model.train()
    return {name: model.logger.name_to_value[f"train/{name}"] for name in LOSSES} | grads


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["weights kept", "weights moved"])
def found(request, recording) -> Found:
    """With the weights that acted, where ratios are 1, and with others, where many are clipped."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    learned = shaken(recording.params, request.param, seed=2)
    peers = (theirs(recording, learned, dtype) for dtype in (torch.float32, torch.float64))
    yield Found(request.param > 0, ours(recording, learned), *peers)
    torch.set_num_threads(threads)


def test_the_recording_begins_and_ends_within_episodes(recording):
    steps = recording.steps
    assert steps.terminated.sum() >= 3 and (steps.truncated & ~steps.terminated).sum() >= 2
    assert not recording.before.first.all() and np.abs(recording.before.carry.cell).min() > 0
    lane = int(np.flatnonzero(steps.truncated.any(axis=0))[0])
    t = int(np.flatnonzero(steps.truncated[:, lane])[0])
    followed = np.concatenate([steps.obs, recording.after.obs[None]])[t + 1, lane]
    assert np.abs(followed - recording.after.env_state[1][lane]).max() > 0.01


def test_outputs_advantages_losses_and_gradients_equal_those_of_recurrent_ppo(found):
    assert found.ours.keys() == found.theirs.keys() == found.referee.keys()
    assert len(found.ours) == OUTPUTS + len(LOSSES) + WEIGHTS
    wrong = {name: error for name, error in found.errors(found.ours).items() if error > LIMIT}
    assert not wrong


def test_we_are_as_near_to_float64_as_recurrent_ppo_is(found):
    ours, theirs = found.errors(found.ours), found.errors(found.theirs)
    ratios = [max(ours[name], ULP) / max(theirs[name], ULP) for name in ours]
    assert np.exp(np.mean(np.log(ratios))) < 2


def test_ratios_are_clipped_where_the_weights_have_moved(found):
    assert (0.05 < found.ours["clip_fraction"] < 0.95) == found.moved
    assert (found.referee["clip_fraction"] == 0) == (not found.moved)
