"""What the speed benchmarks run: smoke training at any size, and a policy in the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jules_jax import config
from jules_jax.agent import policy
from jules_jax.agent.learner import Learner
from jules_jax.agent.rollout import Environment, lane_keys
from jules_jax.env.metrics import step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.trading_env import TradingEnv
from jules_jax.market.feed import SimulatedFeed
from jules_jax.training.dashboard import RETURN_EDGES

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "configs" / "phase1_smoke.yaml"


def smoke(**changes: Any) -> config.Config:
    """`configs/phase1_smoke.yaml` with `changes`, keys of `config.load` without their section."""
    return config.load(changes, file=SMOKE)


def market_of(settings: config.Config) -> tuple[TradingEnv, EnvParams]:
    """The environment and its parameters, with one generation of simulated paths."""
    feed = SimulatedFeed(settings)
    return TradingEnv(settings), make_params(settings, feed.resident(jax.random.key(0), 0))


def measure(info: dict[str, Any], action: jax.Array, logits: jax.Array) -> Any:
    """The metrics that a training run takes of a step."""
    del action, logits
    return step_metrics(info["record"])


class Updates:
    """Training updates of a learner that keeps its own state: calling it runs one.

    `memory` is the bytes that an update works in, by XLA's estimate.
    """

    def __init__(
        self,
        settings: config.Config,
        env: Environment,
        env_params: Any,
        *,
        members: int | None = None,
        repeat: int = 1,
        gathers: bool = True,
    ) -> None:
        """`repeat` updates are one call, for those too short to be timed alone.

        gathers: what a training run gathers of its steps and episodes; else rewards alone.
        """
        self.settings = settings
        self.learner = Learner(
            env,
            settings,
            step_metrics=measure if gathers else None,
            members=members,
            return_edges=RETURN_EDGES if gathers else (),
        )
        self.env_params = self.learner.replicate(env_params)
        key = jax.random.key(0)
        self.state = self.learner.init(
            key if members is None else jax.random.split(key, members), self.env_params
        )
        self.memory = self.learner.compile(self.state, self.env_params)
        self.repeat = repeat

    @property
    def steps(self) -> int:
        """Environment steps of a call."""
        lanes = self.settings.num_envs * (self.learner.members or 1)
        return lanes * self.settings.ppo.n_steps * self.repeat

    def __call__(self) -> Any:
        for _ in range(self.repeat):
            self.state, metrics = self.learner.update(self.state, self.env_params)
        return jax.device_get(metrics)


def multiply_adds(params: Any) -> int:
    """Multiply-adds of a forward step: the size of all kernels, each of which is used once."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(leaf.size for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path[-1:]))


def acting(
    env: Environment,
    step: Callable[..., Any],
    env_params: Any,
    act: policy.Policy,
    params: Any,
    *,
    lanes: int,
    length: int,
) -> Callable[[], Any]:
    """A compiled run of `length` steps of a policy in all lanes, without learning."""

    @jax.jit
    def run(key: jax.Array, obs: jax.Array, state: Any, params: Any, env_params: Any) -> Any:
        def body(held: tuple[Any, ...], t: jax.Array) -> tuple[Any, None]:
            obs, state, first, carry, total = held
            key_action, key_step = jax.random.split(jax.random.fold_in(key, t))
            keys = lane_keys(key_action, jnp.arange(lanes))
            carry, action = act.act(params, keys, carry, obs, first)
            keys = jax.random.split(key_step, lanes)
            obs, state, reward, terminated, truncated, _ = jax.vmap(step, in_axes=(0, 0, 0, None))(
                keys, state, action, env_params
            )
            # the observation is added, so that a policy which ignores it is not spared its cost
            total += reward + obs.sum(axis=1)
            return (obs, state, terminated | truncated, carry, total), None

        carry = act.initial_carry(params, lanes)
        start = (obs, state, jnp.ones(lanes, bool), carry, jnp.zeros(lanes))
        return jax.lax.scan(body, start, jnp.arange(length))[0][-1]

    keys = jax.random.split(jax.random.key(0), lanes)
    obs, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, env_params)
    return lambda: jax.block_until_ready(run(jax.random.key(1), obs, state, params, env_params))


def random_policy() -> policy.Policy:
    """Uniformly random actions, without memory."""

    def act(params: Any, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array) -> Any:
        del params, first
        draw = jax.random.randint(keys[0], obs.shape[:1], 0, 3)
        return carry, draw

    return policy.Policy("random", lambda params, n: (), act)
