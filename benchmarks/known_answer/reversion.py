"""A visible signal that reverts: the next return is κ·s + noise, and s is an AR(1) that is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks.known_answer import ladder
from jules_jax.agent.policy import Policy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    """s has unit variance and loses half of itself in `half_life` bars; κ is the unit of money."""

    half_life: jax.Array
    noise: jax.Array
    cost: jax.Array
    steps: jax.Array


def params(
    half_life: float = 10.0, noise: float = 1.0, cost: float = 4.0, steps: int = 256
) -> Params:
    return Params(jnp.float32(half_life), jnp.float32(noise), jnp.float32(cost), jnp.int32(steps))


class Reversion(ladder.Ladder):
    """Observation: s, and the position."""

    def start(self, key: jax.Array, params: Params) -> jax.Array:
        return jax.random.normal(key)

    def advance(self, key: jax.Array, hidden: jax.Array, params: Params) -> jax.Array:
        decay = jnp.exp2(-1.0 / params.half_life)
        return decay * hidden + jnp.sqrt(1.0 - decay**2) * jax.random.normal(key)

    def edge(self, hidden: jax.Array, params: Params) -> jax.Array:
        return hidden

    def signal(self, state: ladder.State, params: Params) -> jax.Array:
        return state.hidden


WIDTH = 5.0
"""The grid spans this many standard deviations of s to each side."""


def chain(half_life: float, points: int = 201) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The signal on an even grid (Tauchen 1986): values, transition `[K, K]`, stationary law."""
    decay = 2.0 ** (-1.0 / half_life)
    grid = np.linspace(-WIDTH, WIDTH, points)
    edges = (grid[1:] + grid[:-1]) / 2
    below = stats.norm.cdf(edges, decay * grid[:, None], np.sqrt(1.0 - decay**2))
    transition = np.diff(below, axis=1, prepend=0.0, append=1.0)
    return grid, transition, np.diff(stats.norm.cdf(edges), prepend=0.0, append=1.0)


def optimum(params: Params, points: int = 201, *, reach: int = 1) -> tuple[float, ladder.Solution]:
    """Expected net P&L of an episode, from flat, and the play that earns it."""
    grid, transition, law = chain(float(params.half_life), points)
    solution = ladder.solve(grid, transition, float(params.cost), int(params.steps), reach=reach)
    return float(law @ solution.value[:, 1]), solution


def best_policy() -> Policy:
    """Plays a `Solution.target` `[T, K, 3]`, which are its parameters; its carry is the bar."""

    def act(
        target: jax.Array, keys: jax.Array, carry: jax.Array, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        points = target.shape[1]
        nearest = jnp.round((obs[:, 0] + WIDTH) / (2 * WIDTH) * (points - 1)).astype(jnp.int32)
        held = obs[:, 1].astype(jnp.int32) + 1
        wanted = target[carry, jnp.clip(nearest, 0, points - 1), held]
        return carry + 1, 1 + jnp.sign(wanted - held).astype(jnp.int32)

    return Policy("dynamic programming", lambda params, n: jnp.zeros(n, jnp.int32), act)
