"""sb3-contrib's RecurrentPPO on our environment: `pip install -e '.[peers]'`.

It is given its best: the faster of one and two threads of torch (`best_threads`), and beside the
Gymnasium bridge, which hands out fifty observables of every step, an adapter that fetches only what
learning needs, in one array. What it does before its first rollout is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.sb3_curves import VecBridge, peer
from jules_jax import config
from jules_jax.agent.rollout import lane_keys
from jules_jax.env.gymnasium_bridge import TradingGymnasiumEnv
from jules_jax.env.params import EnvParams
from jules_jax.env.trading_env import TradingEnv


class LeanVector:
    """N lanes as `VecBridge` takes them, with the fewest transfers: one array `[N, 2 O + 3]`."""

    def __init__(self, num_envs: int, env: TradingEnv, env_params: EnvParams) -> None:
        self.num_envs, self.render_mode = num_envs, None
        box = env.observation_space(env_params)
        self.single_observation_space = gymnasium.spaces.Box(box.low, box.high, box.shape)
        self.single_action_space = gymnasium.spaces.Discrete(env.num_actions)
        self._env, self._params, self._time, self._state = env, env_params, 0, None

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        keys = jax.random.split(jax.random.key(seed or 0), self.num_envs)
        obs, self._state = jax.vmap(self._env.reset, in_axes=(0, None))(keys, self._params)
        return np.array(obs), {}

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        self._time += 1
        actions, time = np.asarray(actions, np.int32), np.int32(self._time)
        self._state, packed = _step(self._env, time, self._state, actions, self._params)
        obs, final, (reward, terminated, truncated) = _unpack(np.array(packed))
        return obs, reward, terminated > 0, truncated > 0, {"final_obs": final}

    def close(self) -> None:
        """Nothing is held open."""


def _unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    width = (packed.shape[1] - 3) // 2
    return packed[:, :width], packed[:, width : 2 * width], packed[:, 2 * width :].T


@partial(jax.jit, static_argnums=0)
def _step(env: TradingEnv, time: Any, state: Any, actions: Any, params: EnvParams) -> Any:
    keys = lane_keys(jax.random.fold_in(jax.random.key(0), time), jnp.arange(len(actions)))
    obs, state, reward, terminated, truncated, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
        keys, state, actions, params
    )
    scalars = jnp.stack([reward, terminated, truncated], axis=1)
    return state, jnp.concatenate([obs, info["final_observation"], scalars], axis=1)


def training(
    settings: config.Config,
    env: TradingEnv,
    env_params: EnvParams,
    *,
    threads: int,
    lean: bool,
    rollouts: int = 1,
) -> Callable[[], Any]:
    """`rollouts` rollouts of `settings.num_envs` × `n_steps`, each with its `n_epochs` passes."""
    if lean:
        vector: Any = VecBridge(LeanVector(settings.num_envs, env, env_params))
    else:
        vector = DummyVecEnv(
            [lambda: TradingGymnasiumEnv(params=env_params) for _ in range(settings.num_envs)]
        )
    model = peer(vector, settings)
    steps = settings.num_envs * settings.ppo.n_steps * rollouts

    def run() -> None:
        torch.set_num_threads(threads)
        model.learn(steps, reset_num_timesteps=False)

    return run


def best_threads(
    settings: config.Config, env: TradingEnv, env_params: EnvParams, *, lean: bool
) -> int:
    """The number of torch's threads, 1 or 2, with which a rollout and its epochs take less.

    It is found beforehand: on a machine that others use too, torch's threads wait for each other
    in loops, and two can take ten times as long as one.
    """
    training(settings, env, env_params, threads=1, lean=lean)()  # compiles the environment
    seconds = {}
    for threads in (1, 2):
        run = training(settings, env, env_params, threads=threads, lean=lean)
        began = time.perf_counter()
        run()
        seconds[threads] = time.perf_counter() - began
    return min(seconds, key=lambda threads: seconds[threads])
