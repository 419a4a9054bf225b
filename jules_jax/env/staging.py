"""Stages: keeping a compiler from computing the same thing thirty times.

XLA's CPU compiler fuses elementwise arithmetic into every result that needs it. A step has some
thirty results, and each of them repeated most of the step. A stage makes its values exist once, in
memory: measured at 2,048 lanes on two cores, four times the steps per second and a quarter less
compilation (benchmarks/NOTES.md). On other platforms, whose fusions have several outputs, a stage
is nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jules_jax.market.table import MarketData

Values = TypeVar("Values")
Stage = Callable[[Any], Any]


def make_stage(market: MarketData) -> Stage:
    """A function that returns its argument, a pytree of arrays, unchanged.

    It is a loop that runs zero times, which is a fact about `market` (no cumulative count is
    negative) that a compiler cannot know; fusion does not cross a loop.
    """
    zero = jnp.minimum(market.cumulative[0], 0)

    def on_cpu(values: Values) -> Values:
        def never(carry: tuple[jax.Array, Values]) -> tuple[jax.Array, Values]:
            count, values = carry
            return count + 1, jax.tree.map(_changed, values)

        return lax.while_loop(lambda carry: carry[0] < zero, never, (jnp.int32(0), values))[1]

    def stage(values: Values) -> Values:
        kept: Values = lax.platform_dependent(values, cpu=on_cpu, default=lambda values: values)
        return kept

    return stage


def _changed(leaf: jax.Array) -> jax.Array:
    """Something else of the same type: an unchanged leaf would be taken out of the loop."""
    return ~leaf if leaf.dtype == bool else leaf + leaf
