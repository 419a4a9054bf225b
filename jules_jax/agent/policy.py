"""A policy: what acts in lanes, whatever decides inside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from jules_jax import config
from jules_jax.agent import network
from jules_jax.env.observation import action_mask

HOLD = 1
"""The action that asks for no order."""

Act = Callable[[Any, jax.Array, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
Entropy = Callable[[Any, Any, jax.Array, jax.Array], jax.Array]
Judge = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Policy:
    """Acts in N lanes.

    `initial_carry(params, n)` is its memory before an episode; `act(params, keys [N], carry, obs
    [N, O], first [N]) -> (carry, action [N] int32)` forgets it where `first`. `params` travel as
    an argument, so that policies of the same kind share one compiled evaluation. `entropy(params,
    carry, obs, first) -> [N]` is that of what `act` draws from, in nats; None: it draws nothing.
    `judge(params, carry, obs, first) -> (logits [N, A], value [N])` is what it thinks as it acts;
    None: it has no such thoughts.
    """

    name: str
    initial_carry: Callable[[Any, int], Any]
    act: Act
    entropy: Entropy | None = None
    judge: Judge | None = None


@cache  # a policy that is the same object shares its compiled programs
def from_network(*, greedy: bool, patience: int = 1, precision: str = "default") -> Policy:
    """The policy of `network.Params`: a sample, or (`greedy`) what it means to do.

    With patience 1 that is the most probable action. A policy that samples need not hurry: it may
    enter with probability 0.2 a bar, and still be in within minutes, while HOLD is the most
    probable action in each of them. So with `patience` k > 1 the greedy policy of the trading
    environment gives the order that the sampled one would, were nothing to change, more likely
    than not give within k bars: one of probability above 1 − 2^(−1/k). It asks for nothing that
    the cooldown or the position's limit would refuse.
    """

    def act(
        params: network.Params, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        carry, logits, _ = network.apply_step(params, carry, obs, first, precision=precision)
        if not greedy:
            return carry, jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
        if patience > 1:
            logits = _in_bars(logits, action_mask(obs), patience)
        return carry, jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def entropy(
        params: network.Params, carry: Any, obs: jax.Array, first: jax.Array
    ) -> jax.Array:  # of the same program as `act`: XLA evaluates the network once
        _, logits, _ = network.apply_step(params, carry, obs, first, precision=precision)
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def judge(
        params: network.Params, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[jax.Array, jax.Array]:  # likewise
        _, logits, value = network.apply_step(params, carry, obs, first, precision=precision)
        return logits, value

    if greedy:
        return Policy("trained, greedy", network.initial_carry, act, judge=judge)
    return Policy("trained, sampled", network.initial_carry, act, entropy, judge)


def trained(settings: config.Network) -> tuple[Policy, Policy]:
    """The greedy and the sampled policy of a network: the same objects wherever they act alike."""
    precision, patience = settings.matmul_precision, settings.greedy_patience
    greedy = from_network(greedy=True, patience=patience, precision=precision)
    return greedy, from_network(greedy=False, precision=precision)


def _in_bars(logits: jax.Array, possible: jax.Array, bars: int) -> jax.Array:
    """Preferences `[N, 3]` among SELL, HOLD and BUY, of logits and what is `possible` `[N, 3]`."""
    probability = jnp.where(possible, jax.nn.softmax(logits), 0.0)
    enough = 1.0 - 0.5 ** (1.0 / bars)
    return probability.at[:, HOLD].set(enough)
