"""Stages: values that exist once, in memory, before anything that follows reads them.

XLA's CPU compiler fuses elementwise arithmetic into every result that needs it, and repeats it for
each of them. A stage is a boundary that fusion does not cross: no repetition, and no rounding that
depends on what came to be fused with what (a product fused into a sum is not rounded on its own).
On other platforms, whose fusions have several outputs, a stage is nothing.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Values = TypeVar("Values")


def stage(count: jax.Array, values: Values) -> Values:
    """`values`, a pytree of arrays, unchanged.

    It is a loop that runs zero times, which is a fact about `count` that a compiler cannot know.

    Args:
      count: an int32 scalar that is never negative and no constant of the program.
      values: any pytree of arrays.
    """

    def on_cpu(count: jax.Array, values: Values) -> Values:
        def never(carry: tuple[jax.Array, Values]) -> tuple[jax.Array, Values]:
            return carry[0] + 1, jax.tree.map(_changed, carry[1])

        zero = jnp.minimum(count, 0)
        return lax.while_loop(lambda carry: carry[0] < zero, never, (jnp.int32(0), values))[1]

    kept: Values = lax.platform_dependent(
        count, values, cpu=on_cpu, default=lambda count, values: values
    )
    return kept


def _changed(leaf: jax.Array) -> jax.Array:
    """Something else of the same type: an unchanged leaf would be taken out of the loop."""
    return ~leaf if leaf.dtype == bool else leaf + leaf
