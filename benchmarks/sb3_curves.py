"""Learning curves of this learner and of sb3-contrib's RecurrentPPO, side by side.

`python -m benchmarks.sb3_curves` trains both on one task, seed after seed, and writes
docs/images/sb3_curves.png and benchmarks/results/sb3_curves.json. It needs PyTorch:
`pip install -e '.[peers]'`.

The task is preset `easy`, the same simulated paths for all, RecurrentPPO through the Gymnasium
bridge. Hyper-parameters and the first weights' distribution are the same (`peer`, `load_weights`).
Lanes start together and episodes are four rollouts long, so every fourth update ends an episode in
each lane: a point of a curve is the mean reward of those episodes. What still differs:

* Minibatches. Ours are whole lanes, shuffled in every epoch, run from the carry at the rollout's
  start. RecurrentPPO lays the lanes end to end, cuts that line at one random place in each epoch,
  and takes consecutive pieces: lanes are never shuffled, a piece may begin within a lane, and runs
  from the carry that acting left there, past which no gradient flows; sequences are padded.
* Advantages are divided by their standard deviation, population here and n − 1 there: 1 + 1/2n.
* Random numbers, and so actions and starts of episodes.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from scipy import stats
from stable_baselines3.common.vec_env import VecEnv

from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.learner import Learner
from jules_jax.env.gymnasium_bridge import TradingGymnasiumVectorEnv
from jules_jax.env.params import EnvParams
from jules_jax.env.trading_env import TradingEnv
from jules_jax.evaluation import statistics
from jules_jax.evaluation.statistics import Interval
from jules_jax.training import backend

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "docs" / "images" / "sb3_curves.png"
RESULTS = ROOT / "benchmarks" / "results" / "sb3_curves.json"
BLUE, RED = "#1f5f99", "#b3261e"
OURS, THEIRS = "jules_jax", "RecurrentPPO"

PLAIN: dict[str, Any] = {
    "observation_scaling": "none",
    "normalize_targets": False,
    "mask_actions": False,
    "learn_initial_carry": False,
    "learning_rate_end": -1.0,
    "ent_coef_end": -1.0,
}
"""Without what RecurrentPPO does not have."""
ROLLOUTS_IN_EPISODE = 4
TASK: dict[str, Any] = PLAIN | {
    "simulator.preset": "easy",
    "ppo.n_steps": 128,
    "max_steps_in_episode": ROLLOUTS_IN_EPISODE * 128,
    "ppo.n_epochs": 4,  # those of configs/phase1_smoke.yaml, which learns this task
    "ppo.ent_coef": 0.01,
}
"""What both train on and with; the rest has the defaults of jules_jax/config/."""


def named_weights(params: network.Params) -> dict[str, np.ndarray]:
    """Weights, or their gradients, by the names RecurrentActorCriticPolicy gives them.

    Gates have the same order (input, forget, candidate, output). Its LSTM adds two biases: ours
    is the first, and the second has no part here.
    """
    towers = jax.tree.map(np.asarray, params.towers)
    named = {}
    for place, tower, mlp in (
        (network.ACTOR, "actor", "policy"),
        (network.CRITIC, "critic", "value"),
    ):
        named |= {
            f"lstm_{tower}.weight_ih_l0": towers.lstm.input_kernel[place].T,
            f"lstm_{tower}.weight_hh_l0": towers.lstm.recurrent_kernel[place].T,
            f"lstm_{tower}.bias_ih_l0": towers.lstm.bias[place],
        }
        for number, layer in enumerate(towers.hidden):
            # Every layer is followed by its activation, which is counted too.
            named[f"mlp_extractor.{mlp}_net.{2 * number}.weight"] = layer.kernel[place].T
            named[f"mlp_extractor.{mlp}_net.{2 * number}.bias"] = layer.bias[place]
    for name, head in (("action_net", params.policy_head), ("value_net", params.value_head)):
        named |= {
            f"{name}.weight": np.asarray(head.kernel).T,
            f"{name}.bias": np.asarray(head.bias),
        }
    return named


def load_weights(policy: RecurrentActorCriticPolicy, params: network.Params) -> None:
    """Copies all weights into `policy`; its LSTMs' second biases are fixed at zero."""
    given = named_weights(params)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.endswith("bias_hh_l0"):
                parameter.zero_().requires_grad_(False)
            else:
                parameter.copy_(torch.as_tensor(given.pop(name).copy()))
    if given:
        raise ValueError(f"found {', '.join(given)}, which the policy does not have")


class VecBridge(VecEnv):
    """A Gymnasium vector environment, reset on the step it ends, as Stable-Baselines3 takes one."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.rewards: list[float] = []
        """Mean reward over lanes of each step so far."""
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        return self.env.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, reward, terminated, truncated, info = self.env.step(self.actions)
        self.rewards.append(float(reward.mean()))
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in done]
        for lane in np.flatnonzero(done):
            infos[lane] = {
                "terminal_observation": info["final_obs"][lane],
                "TimeLimit.truncated": bool(truncated[lane] and not terminated[lane]),
            }
        return obs, reward, done, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def peer(env: VecEnv, settings: config.Config, *, seed: int = 0) -> RecurrentPPO:
    """RecurrentPPO with the network and hyper-parameters of `settings`, which are `PLAIN`."""
    ppo, widths = settings.ppo, list(settings.network.net_arch)
    return RecurrentPPO(
        RecurrentActorCriticPolicy,
        env,
        learning_rate=ppo.learning_rate,
        n_steps=ppo.n_steps,
        batch_size=settings.batch_size,
        n_epochs=ppo.n_epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip_range,
        clip_range_vf=None,
        normalize_advantage=True,
        ent_coef=ppo.ent_coef,
        vf_coef=ppo.vf_coef,
        max_grad_norm=ppo.max_grad_norm,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "net_arch": {"pi": widths, "vf": widths},
            "activation_fn": torch.nn.ReLU,
            "lstm_hidden_size": settings.network.lstm_hidden_size,
            "shared_lstm": False,
            "enable_critic_lstm": True,
            "optimizer_kwargs": {"eps": ppo.adam_eps},
        },
    )


class StartingTogether(TradingEnv):
    """The environment without the staggered clocks that the learner would start its lanes with."""

    with_time = None


def our_curves(settings: config.Config, env_params: EnvParams, seeds: int) -> np.ndarray:
    """Mean reward of the episodes that follow each other in all lanes, `[seeds, episodes]`."""
    learner = Learner(StartingTogether(settings), settings, devices=jax.devices()[:1])
    curves = []
    for seed in range(seeds):
        state = learner.init(jax.random.key(seed), env_params)
        sums = []
        for _ in range(settings.num_updates):
            state, metrics = learner.update(state, env_params)
            sums.append(float(metrics["rollout/reward_sum"]) / settings.num_envs)
        curves.append(np.reshape(sums, (-1, ROLLOUTS_IN_EPISODE)).sum(axis=1))
        print(f"{OURS}, seed {seed}: {np.round(curves[-1], 2)}", flush=True)
    return np.stack(curves)


def their_curves(settings: config.Config, env_params: EnvParams, seeds: int) -> np.ndarray:
    """The same of RecurrentPPO, its first weights drawn as ours are."""
    curves = []
    for seed in range(seeds):
        env = VecBridge(TradingGymnasiumVectorEnv(settings.num_envs, params=env_params))
        # Lane i has seed + i, so seeds of runs lie further apart than there are lanes.
        model = peer(env, settings, seed=seed * settings.num_envs)
        key = jax.random.key(seeds + seed)
        load_weights(model.policy, network.init(key, settings.network))
        model.learn(settings.num_updates * settings.num_envs * settings.ppo.n_steps)
        curves.append(np.reshape(env.rewards, (-1, settings.max_steps_in_episode)).sum(axis=1))
        print(f"{THEIRS}, seed {seed}: {np.round(curves[-1], 2)}", flush=True)
    return np.stack(curves)


def bands(curves: np.ndarray) -> np.ndarray:
    """Interquartile mean over seeds and the ends of its 95 % interval, `[3, episodes]`."""
    return np.array([statistics.bootstrap_interval(scores) for scores in curves.T]).T


def difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Our interquartile mean less theirs, `[seeds]` each, both resampled independently."""

    def statistic(x: np.ndarray, y: np.ndarray, axis: int = -1) -> Any:
        mean = statistics.interquartile_mean
        return mean(x, axis=axis) - mean(y, axis=axis)

    rng = np.random.default_rng(0)
    drawn = stats.bootstrap((ours, theirs), statistic, method="percentile", rng=rng)
    return Interval(float(statistic(ours, theirs)), *map(float, drawn.confidence_interval))


def verdict(curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """How the curves compare: share of points where bands overlap, and differences.

    `last_quarter` is that of each seed's mean over the last quarter of its episodes, and `whole`
    over all of them.
    """
    ours, theirs = curves[OURS], curves[THEIRS]
    (_, low, high), (_, their_low, their_high) = bands(ours), bands(theirs)
    late = -(-ours.shape[1] // 4)
    return {
        "bands_overlap": float(np.mean((low <= their_high) & (their_low <= high))),
        "last_quarter": difference(ours[:, -late:].mean(axis=1), theirs[:, -late:].mean(axis=1)),
        "whole": difference(ours.mean(axis=1), theirs.mean(axis=1)),
    }


def plot(curves: dict[str, np.ndarray], steps: np.ndarray, found: dict[str, Any]) -> None:
    """Both bands, every seed's curve thin beneath."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for (name, scores), color in zip(curves.items(), (BLUE, RED), strict=True):
        value, low, high = bands(scores)
        axes.plot(steps, scores.T, color=color, linewidth=0.6, alpha=0.35)
        axes.plot(steps, value, color=color, linewidth=2, label=name)
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    axes.set_title(
        f"Bands overlap at {found['bands_overlap']:.0%} of points; in the last quarter ours less "
        f"theirs is {found['last_quarter']:.2f}",
        fontsize=10,
    )
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean reward of an episode")
    axes.legend(title=f"IQM of {len(curves[OURS])} seeds, 95 % band", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=150)


def main(argv: list[str] | None = None) -> None:
    """Trains both, prints the verdict, and writes the plot and the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each")
    parser.add_argument("--lanes", type=int, default=32, help="lanes, or environments")
    parser.add_argument("--timesteps", type=int, default=196_608, help="steps of a run, at least")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's")
    given = parser.parse_args(argv)
    mpl.use("Agg")
    backend.use_compilation_cache()
    torch.set_num_threads(given.threads)
    per_episode = given.lanes * TASK["max_steps_in_episode"]
    episodes = -(-given.timesteps // per_episode)
    run = {"num_envs": given.lanes, "total_timesteps": episodes * per_episode}
    settings = config.load(TASK | run)
    env_params = TradingEnv(settings).default_params
    curves, seconds = {}, {}
    for name, train in ((OURS, our_curves), (THEIRS, their_curves)):
        began = time.perf_counter()
        curves[name] = train(settings, env_params, given.seeds)
        seconds[name] = time.perf_counter() - began
    steps = per_episode * np.arange(1, episodes + 1)
    found = verdict(curves)
    plot(curves, steps, found)
    results = {
        "settings": TASK | run | {"seeds": given.seeds, "threads": given.threads},
        "versions": {name: version(name) for name in ("jax", "torch", "sb3-contrib")},
        "seconds_with_compilation": seconds,
        "steps": steps.tolist(),
        "curves": {name: scores.tolist() for name, scores in curves.items()},
        "verdict": found,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"bands overlap at {found['bands_overlap']:.0%} of {episodes} points")
    for name, words in (("whole", "over the run"), ("last_quarter", "over its last quarter")):
        print(f"mean reward of an episode {words}, ours less theirs: {found[name]:.2f}")


if __name__ == "__main__":
    main()
