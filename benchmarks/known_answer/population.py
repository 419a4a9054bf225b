"""Training all seeds of a game as one vmapped run, and playing what they have learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import populations
from jules_jax import config
from jules_jax.agent import lstm, network, policy, rollout
from jules_jax.agent.learner import Learner
from jules_jax.agent.policy import Policy

GREEDY = policy.from_network(greedy=True)
SAMPLED = policy.from_network(greedy=False)
"""Made once: a policy is what evaluations are compiled for."""


class Played(NamedTuple):
    """Net P&L of every episode of every seed, `[M, E]`."""

    greedy: np.ndarray
    sampled: np.ndarray


def train(
    env: rollout.Environment,
    params_at: Callable[[int], Any],
    settings: config.Config,
    seeds: int,
    key: jax.Array,
) -> network.Params:
    """Weights of `seeds` agents, every leaf `[M, ...]`, after all of `settings`' updates.

    params_at: the environment's parameters in update i, from 0.
    """
    learner = Learner(env, settings, members=seeds)
    each_update = (params_at(update) for update in range(settings.num_updates))
    return populations.train(learner, jax.random.split(key, seeds), each_update).weights


@contextmanager
def without_recurrence() -> Iterator[None]:
    """Within, the network forgets everything at every step: the feed-forward baseline.

    `lstm.step` and `lstm.sequence` are given a `first` that is true at every step, so the carry is
    zeroed before each, in rollouts, in replays and in play alike, while the environment's own ends
    of episodes, and with them all advantages, stay as they are. It acts on what is traced inside:
    make the learner and the policies within.
    """
    kept = lstm.step, lstm.sequence

    def forgetful(recurrence: Callable[..., Any]) -> Callable[..., Any]:
        def run(params: lstm.LSTM, carry: lstm.Carry, x: jax.Array, first: jax.Array) -> Any:
            return recurrence(params, carry, x, jnp.ones_like(first))

        return run

    lstm.step, lstm.sequence = map(forgetful, kept)
    try:
        yield
    finally:
        lstm.step, lstm.sequence = kept


def play_both(
    env: rollout.Environment,
    env_params: Any,
    weights: network.Params,
    key: jax.Array,
    *,
    episodes: int,
    steps: int,
) -> Played:
    """Fresh episodes of every seed, greedy and sampled; seeds and policies meet the same ones."""
    greedy, sampled = (
        np.asarray(play_all(env, who, weights, env_params, key, episodes, steps))
        for who in (GREEDY, SAMPLED)
    )
    return Played(greedy, sampled)


@partial(jax.jit, static_argnums=(0, 1, 5, 6))
def play_all(
    env: rollout.Environment,
    who: Policy,
    policy_params: Any,
    env_params: Any,
    key: jax.Array,
    episodes: int,
    steps: int,
) -> jax.Array:
    """`play` of every member of `policy_params`, `[M, E]`."""

    def of(member: Any) -> jax.Array:
        earned: jax.Array = play(env, who, member, env_params, key, episodes, steps)
        return earned

    return jax.vmap(of)(policy_params)


@partial(jax.jit, static_argnums=(0, 1, 5, 6))
def play(
    env: rollout.Environment,
    who: Policy,
    policy_params: Any,
    env_params: Any,
    key: jax.Array,
    episodes: int,
    steps: int,
) -> jax.Array:
    """Sum of rewards of `episodes` fresh episodes that end within `steps` steps, `[E]`."""
    lanes = jnp.arange(episodes)
    key_reset, key_act, key_step = jax.random.split(key, 3)

    def body(loop: Any, t: jax.Array) -> tuple[Any, None]:
        state, obs, first, carry, total, over = loop
        act_keys, step_keys = (
            rollout.lane_keys(jax.random.fold_in(k, t), lanes) for k in (key_act, key_step)
        )
        carry, action = who.act(policy_params, act_keys, carry, obs, first)
        obs, state, reward, terminated, truncated, _ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
            step_keys, state, action, env_params
        )
        total = total + jnp.where(over, 0.0, reward)
        over = over | terminated | truncated
        return (state, obs, jnp.zeros_like(first), carry, total, over), None

    obs, state = jax.vmap(env.reset, in_axes=(0, None))(
        rollout.lane_keys(key_reset, lanes), env_params
    )
    none = jnp.zeros(episodes, bool)
    carry = who.initial_carry(policy_params, episodes)
    loop = (state, obs, ~none, carry, jnp.zeros(episodes, jnp.float32), none)
    *_, total, _ = lax.scan(body, loop, jnp.arange(steps))[0]
    earned: jax.Array = total
    return earned
