"""Mean and variance: of a batch over all devices, and of all rollouts so far."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

LONGEST_MEMORY = 100.0
"""Moments weigh the newest rollout at least as one in this many."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """Running mean and variance, of observations `[O]` or targets `[]`; no gradient moves them."""

    mean: jax.Array
    variance: jax.Array
    rollouts: jax.Array  # [] float32, rollouts that went into them

    @property
    def sd(self) -> jax.Array:
        """Standard deviation, 1e-4 at least."""
        return jnp.sqrt(jnp.maximum(self.variance, 1e-8))


def of_nothing(*shape: int) -> Moments:
    """Moments of nothing yet: what they standardise stays as it is."""
    return Moments(
        jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32), jnp.zeros((), jnp.float32)
    )


def blend(moments: Moments, mean: jax.Array, variance: jax.Array) -> Moments:
    """The moments with one more rollout's in them."""
    rollouts = jnp.minimum(moments.rollouts + 1.0, LONGEST_MEMORY)
    weight = 1.0 / rollouts
    shift = mean - moments.mean
    spread = weight * (1.0 - weight) * jnp.square(shift)
    blended = moments.variance + weight * (variance - moments.variance) + spread
    return Moments(moments.mean + weight * shift, blended, rollouts)


def over_devices(
    x: jax.Array, axis_name: str | None = None, *, axis: tuple[int, ...] | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean and (population) variance of `x` over `axis` (None: all), and over all devices."""
    mean = _mean(x, axis_name, axis)
    return mean, _mean(jnp.square(x - mean), axis_name, axis)


def _mean(x: jax.Array, axis_name: str | None, axis: tuple[int, ...] | None) -> jax.Array:
    mean = jnp.mean(x, axis)
    return mean if axis_name is None else lax.pmean(mean, axis_name)
