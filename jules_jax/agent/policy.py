"""A policy: what acts in lanes, whatever decides inside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jules_jax.agent import network

Act = Callable[[Any, jax.Array, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]


@dataclass(frozen=True)
class Policy:
    """Acts in N lanes.

    `initial_carry(params, n)` is its memory before an episode; `act(params, keys [N], carry, obs
    [N, O], first [N]) -> (carry, action [N] int32)` forgets it where `first`. `params` travel as
    an argument, so that policies of the same kind share one compiled evaluation.
    """

    name: str
    initial_carry: Callable[[Any, int], Any]
    act: Act


def from_network(*, greedy: bool, precision: str = "default") -> Policy:
    """The policy of `network.Params`: its most probable action, or a sample."""

    def act(
        params: network.Params, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        carry, logits, _ = network.apply_step(params, carry, obs, first, precision=precision)
        if greedy:
            return carry, jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return carry, jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)

    name = "trained, greedy" if greedy else "trained, sampled"
    return Policy(name, network.initial_carry, act)
