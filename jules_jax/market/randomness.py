"""Random bits of a simulated path: Threefry-2x32 with 20 rounds (Salmon et al. 2011).

The generator behind `jax.random`, of the same strength, written out as straight-line arithmetic
and with both words of a block put to use: measured eight to ten times faster on a CPU,
where `jax.random` runs its rounds as a loop over memory.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.market.staging import stage

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def words(key: jax.Array, count: int) -> jax.Array:
    """`[2 · count]` uint32 of uniform bits: first, then second words of blocks 0 to `count` − 1.

    Args:
      key: typed Threefry key, used for nothing else.
      count: blocks.
    """
    seed = jax.random.key_data(key)
    first, second = threefry(
        seed, jnp.zeros(count, jnp.uint32), jnp.arange(count, dtype=jnp.uint32)
    )
    return stage((seed[0] >> 1).astype(jnp.int32), jnp.concatenate([first, second]))


def threefry(seed: jax.Array, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two words `[count]` of each block; `seed` `[2]` and counters `[count]` are uint32."""
    schedule = (seed[0], seed[1], seed[0] ^ seed[1] ^ _PARITY)
    first, second = first + schedule[0], second + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = first ^ ((second << rotation) | (second >> (32 - rotation)))
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return first, second


def uniform(bits: jax.Array) -> jax.Array:
    """Uniform float32 inside (0, 1) from the upper 23 of 32 bits.

    The middle of its interval is taken, so neither end is reached and every quantile is finite.
    The lower 9 bits remain free for use.
    """
    steps = (bits >> 9).astype(jnp.float32)
    middle: jax.Array = steps * jnp.float32(2.0**-23) + jnp.float32(2.0**-24)
    return middle


def normal(bits: jax.Array) -> jax.Array:
    """Standard normals, by inversion; beyond ±5.3 there are none."""
    quantile: jax.Array = jnp.sqrt(jnp.float32(2.0)) * jax.lax.erf_inv(2.0 * uniform(bits) - 1.0)
    return quantile


def student_t(radius: jax.Array, angle: jax.Array, dof: float) -> jax.Array:
    """Student-t of unit variance from two uniforms in (0, 1): Bailey (1994), polar method."""
    square = (dof - 2.0) * jnp.expm1((-2.0 / dof) * jnp.log(radius))
    return jnp.sqrt(square) * jnp.cos(2.0 * jnp.pi * angle)


def within(ranges: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """A uniform draw from each range `[2]`, float32 scalars by its name.

    Each comes from `key` and its name: it does not depend on which others are drawn.
    """
    drawn = {}
    for name, bounds in ranges.items():
        share = jax.random.uniform(jax.random.fold_in(key, zlib.crc32(name.encode())))
        drawn[name] = (1.0 - share) * bounds[0] + share * bounds[1]
    return drawn
