"""A hidden regime that only history reveals: drift ±μ under noise, and returns are all one sees."""

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
    """The regime flips in every bar with chance 1 / `dwell`; its drift is ±1, the unit of money."""

    dwell: jax.Array
    noise: jax.Array
    cost: jax.Array
    steps: jax.Array


def params(dwell: float = 60.0, noise: float = 3.0, cost: float = 2.0, steps: int = 256) -> Params:
    return Params(jnp.float32(dwell), jnp.float32(noise), jnp.float32(cost), jnp.int32(steps))


class Regime(ladder.Ladder):
    """Observation: the last bar's return over its noise, and the position."""

    def start(self, key: jax.Array, params: Params) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key), jnp.float32(1.0), jnp.float32(-1.0))

    def advance(self, key: jax.Array, hidden: jax.Array, params: Params) -> jax.Array:
        return jnp.where(jax.random.uniform(key) * params.dwell < 1.0, -hidden, hidden)

    def edge(self, hidden: jax.Array, params: Params) -> jax.Array:
        return hidden

    def signal(self, state: ladder.State, params: Params) -> jax.Array:
        return state.move / params.noise


def filtered(up: Any, move: Any, params: Params, xp: Any = np) -> Any:
    """Chance of the upward regime after a bar's return `move`, given `up`, the chance before.

    Bayes' rule, then the chance of a flip (Hamilton 1989, eq. 2); `xp` is numpy or jax.numpy.
    """
    ratio = xp.exp(-2.0 * move / params.noise**2)  # of the likelihoods, down over up
    after = up / (up + (1.0 - up) * ratio)
    return after + (1.0 - 2.0 * after) / params.dwell


NODES = 801
"""Points of the integral over a bar's noise."""


def beliefs(params: Params, points: int = 401) -> tuple[np.ndarray, np.ndarray]:
    """The filter's chain: chances of the upward regime `[K]` (even) and their transition `[K, K]`.

    A belief between two grid points is shared between them, so that its mean is kept. The value is
    convex in belief, hence never understated by that: the optimum found falls towards the true one
    as the grid is refined.
    """
    noise = float(params.noise)
    low = 1.0 / float(params.dwell)  # no belief is surer than the chance of a flip allows
    grid = np.linspace(low, 1.0 - low, points)
    z = np.linspace(-6.0, 6.0, NODES)
    weight = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    transition = np.zeros((points, points))
    rows = np.repeat(np.arange(points), NODES)
    for regime, chance in ((1.0, grid), (-1.0, 1.0 - grid)):
        after = filtered(grid[:, None], regime + noise * z, params)
        place = np.clip((after - low) / (1.0 - 2.0 * low) * (points - 1), 0, points - 1)
        left = np.minimum(place.astype(int), points - 2)
        share = (place - left).ravel()
        mass = (chance[:, None] * weight).ravel()
        np.add.at(transition, (rows, left.ravel()), mass * (1.0 - share))
        np.add.at(transition, (rows, left.ravel() + 1), mass * share)
    return grid, transition


def attainable(params: Params, points: int = 401) -> tuple[float, ladder.Solution]:
    """Expected net P&L of an episode played on the exact filter, and the play that earns it."""
    grid, transition = beliefs(params, points)
    solution = ladder.solve(2.0 * grid - 1.0, transition, float(params.cost), int(params.steps))
    return float(np.interp(0.5, grid, solution.value[:, 1])), solution


def informed(params: Params) -> float:
    """Expected net P&L of an episode where the regime is seen before every bar."""
    flip = 1.0 / float(params.dwell)
    transition = np.array([[1.0 - flip, flip], [flip, 1.0 - flip]])
    solution = ladder.solve(
        np.array([-1.0, 1.0]), transition, float(params.cost), int(params.steps)
    )
    return float(solution.value[:, 1].mean())


def best_policy(params: Params) -> Policy:
    """Filters, and plays a `Solution.target` `[T, K, 3]`: its parameters.

    Its carry is the bar and the belief.
    """
    low = 1.0 / params.dwell

    def act(
        target: jax.Array, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        bar, up = carry
        up = jnp.where(first, 0.5, filtered(up, obs[:, 0] * params.noise, params, jnp))
        points = target.shape[1]
        nearest = jnp.round((up - low) / (1.0 - 2.0 * low) * (points - 1)).astype(jnp.int32)
        held = obs[:, 1].astype(jnp.int32) + 1
        wanted = target[bar, jnp.clip(nearest, 0, points - 1), held]
        return (bar + 1, up), 1 + jnp.sign(wanted - held).astype(jnp.int32)

    def start(target: jax.Array, n: int) -> Any:
        return jnp.zeros(n, jnp.int32), jnp.full(n, 0.5, jnp.float32)

    return Policy("exact filter", start, act)
