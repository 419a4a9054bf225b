"""A cue seen once and paid much later: a pulse at bar 0 is the sign of bar `delay`'s return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    """Bars from the pulse to its payment of ±1, noise of all returns, cost of a bar in position."""

    delay: jax.Array
    noise: jax.Array
    cost: jax.Array


def params(delay: int = 20, noise: float = 0.5, cost: float = 0.1) -> Params:
    return Params(jnp.int32(delay), jnp.float32(noise), jnp.float32(cost))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The bar (int32) and the pulse's sign (float32), scalars."""

    time: jax.Array
    sign: jax.Array


class Cue:
    """SELL, HOLD and BUY take the position −1, 0 and 1 for the coming bar alone.

    Observation: the pulse, on bar 0 only, and whether the coming bar is the one that pays. The
    position is chosen anew every bar and not seen, or it would be a memory of its own.
    """

    num_actions = 3

    def observe(self, state: State, params: Params) -> jax.Array:
        pulse = jnp.where(state.time == 0, state.sign, 0.0)
        return jnp.stack([pulse, (state.time == params.delay).astype(jnp.float32)])

    def reset(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        sign = jnp.where(jax.random.bernoulli(key), jnp.float32(1.0), jnp.float32(-1.0))
        state = State(jnp.int32(0), sign)
        return self.observe(state, params), state

    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        key_noise, key_reset = jax.random.split(key)
        position = action.astype(jnp.float32) - 1.0
        pays = state.time == params.delay
        move = jnp.where(pays, state.sign, 0.0) + params.noise * jax.random.normal(key_noise)
        reward = position * move - params.cost * jnp.abs(position)
        moved = State(state.time + 1, state.sign)
        final = self.observe(moved, params)
        obs, after = jax.tree.map(
            lambda a, b: jnp.where(pays, a, b), self.reset(key_reset, params), (final, moved)
        )
        info = {"final_observation": final}
        return obs, after, reward, pays, jnp.zeros_like(pays), info


def optimum(params: Params) -> float:
    """Net P&L of an episode in position in the paying bar alone, on the cue's side."""
    return max(1.0 - float(params.cost), 0.0)
