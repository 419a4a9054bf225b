"""Populations of agents, alike but for their numbers: trained in one program, and played."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.references import Days
from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.agent.learner import Learner
from jules_jax.agent.policy import Policy
from jules_jax.env.params import EnvParams, make_params
from jules_jax.evaluation import backtest
from jules_jax.market.feed import SimulatedFeed


class Trained(NamedTuple):
    """A population after its last update."""

    weights: network.Params  # [M, ...]
    history: dict[str, np.ndarray]  # [updates, M] each
    cpu_seconds: float  # of all updates and members, at the median update's


def stack(sections: Sequence[config.PPO]) -> config.PPO:
    """Hyper-parameters of members, `[M]` each."""
    stacked: config.PPO = jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *sections)
    return stacked


def markets(settings: config.Config, key: jax.Array) -> Iterator[EnvParams]:
    """Environment parameters of every update: generations of paths, and the share of training."""
    feed, generation = SimulatedFeed(settings), 0
    data = feed.resident(key, generation)
    for update in range(settings.num_updates):
        if update and update % settings.refresh_updates == 0:
            generation += 1
            data = feed.advance(data, key, generation)
        yield make_params(settings, data, progress=update / max(settings.num_updates - 1, 1))


def train(
    learner: Learner,
    keys: jax.Array,
    updates: Iterable[Any],
    numbers: config.PPO | None = None,
) -> Trained:
    """Trains a learner's members from keys `[M]`.

    updates: the environment's parameters in every update. numbers: those of the members, `[M]`
    each, where they are not the learner's settings.
    """
    history, laps, state = [], [], None
    for params in updates:
        state = learner.init(keys, params) if state is None else state
        began = time.process_time()
        state, metrics = learner.update(state, params, numbers)
        history.append(jax.device_get(metrics))
        laps.append(time.process_time() - began)
    assert state is not None
    series = {name: np.stack([metrics[name] for metrics in history]) for name in history[0]}
    return Trained(state.params, series, float(np.median(laps)) * len(laps))


def population(one: Policy) -> Policy:
    """M networks side by side: leaves of its parameters `[M, ...]`, M equal stretches of lanes."""

    def initial_carry(params: network.Params, lanes: int) -> Any:
        members = params.value_head.bias.shape[0]
        each = jax.vmap(lambda member: one.initial_carry(member, lanes // members))
        return join(each(params))

    def act(params: network.Params, *inputs: Any) -> tuple[Any, jax.Array]:
        members = params.value_head.bias.shape[0]

        def split(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(members, leaf.shape[0] // members, *leaf.shape[1:])

        carry, action = jax.vmap(one.act)(params, *jax.tree.map(split, inputs))
        return join(carry), join(action)

    def join(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)

    return Policy(one.name, initial_carry, act)


SAMPLED, GREEDY = (population(policy.from_network(greedy=greedy)) for greedy in (False, True))
PATIENT = {
    bars: population(policy.from_network(greedy=True, patience=bars)) for bars in (2, 5, 10, 20)
}
"""Made once: a policy is what evaluations are compiled for."""


def play(who: Policy, weights: network.Params, days: Days, key: jax.Array) -> np.ndarray:
    """Net P&L `[M, N]` of every member on the same episodes."""
    members = weights.value_head.bias.shape[0]
    lanes = (days.starts.row, days.starts.symbol, days.starts.cluster)
    starts = backtest.Starts(*(np.tile(column, members) for column in lanes))
    played = backtest.run_episodes(who, weights, days.params, starts, key)
    return played["pnl/net"].reshape(members, len(days.starts.row))
