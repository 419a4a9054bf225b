"""Two-float arithmetic: a number held as an unevaluated sum of two float32.

Money needs it (an equity near 1 changes by 1e-6 a step; a float32 resolves 6e-8), and so does
rounding down to whole lots: a quotient that float32 rounds up to an integer would buy one share
too many. Additions follow Knuth's TwoSum; for a product each factor is first cut into halves of 12
bits by masking its mantissa, so that a compiler that contracts multiply-adds changes nothing.
(Dekker 1971; Shewchuk 1997.)
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_UPPER_MANTISSA = 0xFFFFF000


class TwoFloat(NamedTuple):
    """`high + low`, with `low` below half a unit in the last place of `high`; float32 each."""

    high: jax.Array
    low: jax.Array


def from_float(value: jax.Array | float) -> TwoFloat:
    """A float32 as a two-float."""
    high = jnp.asarray(value, jnp.float32)
    return TwoFloat(high, jnp.zeros_like(high))


def literal(value: float) -> TwoFloat:
    """A constant of the program as a two-float.

    The barrier keeps XLA from simplifying (1 + b) − 1 to b, which would drop the low part of a sum.
    """
    return from_float(lax.optimization_barrier(jnp.float32(value)))


def _two_sum(a: jax.Array, b: jax.Array) -> TwoFloat:
    total = a + b
    b_part = total - a
    return TwoFloat(total, (a - (total - b_part)) + (b - b_part))


def _split(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    bits = lax.bitcast_convert_type(a, jnp.uint32)
    upper = lax.bitcast_convert_type(bits & jnp.uint32(_UPPER_MANTISSA), jnp.float32)
    return upper, a - upper


def product(a: jax.Array | float, b: jax.Array | float) -> TwoFloat:
    """`a · b` of two float32 to 47 bits; exact where it has at most 46 significant bits."""
    a_upper, a_lower = _split(jnp.asarray(a, jnp.float32))
    b_upper, b_lower = _split(jnp.asarray(b, jnp.float32))
    first = _two_sum(a_upper * b_lower, a_lower * b_upper)
    second = _two_sum(a_upper * b_upper, first.high)
    return _two_sum(second.high, second.low + (first.low + a_lower * b_lower))


def times(a: TwoFloat, b: jax.Array | float) -> TwoFloat:
    """`a · b` for a float32 `b`, to about 46 bits."""
    main = product(a.high, b)
    return _two_sum(main.high, main.low + a.low * b)


def add(a: TwoFloat, b: jax.Array | float) -> TwoFloat:
    """`a + b` for a float32 `b`; a running sum by it is compensated."""
    main = _two_sum(a.high, jnp.asarray(b, jnp.float32))
    return _two_sum(main.high, main.low + a.low)


def less(a: TwoFloat, parts: Iterable[jax.Array]) -> TwoFloat:
    """`a` less float32 `parts`, one after the other, each compensated."""
    return reduce(lambda rest, part: add(rest, -part), parts, a)


def plus(a: TwoFloat, b: TwoFloat) -> TwoFloat:
    """`a + b`, to about 46 bits."""
    main = _two_sum(a.high, b.high)
    return _two_sum(main.high, main.low + (a.low + b.low))


def gap(a: jax.Array, b: jax.Array) -> TwoFloat:
    """`a − b` of two float32, exactly."""
    return _two_sum(a, -b)


def divide(a: TwoFloat, b: jax.Array | float) -> TwoFloat:
    """`a / b` for a float32 `b`, to about 46 bits."""
    quotient = a.high / b
    taken = product(quotient, b)
    remainder = (a.high - taken.high) + (a.low - taken.low)
    return _two_sum(quotient, remainder / b)


def difference(a: TwoFloat, b: TwoFloat) -> jax.Array:
    """`a − b` as one float32, without the cancellation that float32 levels would suffer."""
    return (a.high - b.high) + (a.low - b.low)


def select(condition: jax.Array, a: TwoFloat, b: TwoFloat) -> TwoFloat:
    """`a` where `condition`, else `b`."""
    return TwoFloat(jnp.where(condition, a.high, b.high), jnp.where(condition, a.low, b.low))


def maximum(a: TwoFloat, b: TwoFloat) -> TwoFloat:
    """The larger of the two."""
    return select(difference(a, b) >= 0, a, b)


def to_float(a: TwoFloat) -> jax.Array:
    """Nearest float32."""
    return a.high + a.low


def floor(a: TwoFloat) -> jax.Array:
    """⌊a⌋ as a float32, for |a| below 2²³."""
    whole = jnp.floor(a.high)
    rest = (a.high - whole) + a.low
    return jnp.where(rest < 0, whole - 1, jnp.where(rest >= 1, whole + 1, whole))


def floor_ratio(numerator: TwoFloat, denominator: TwoFloat) -> jax.Array:
    """⌊numerator / denominator⌋ as int32, right even where float32 division would round up.

    For denominator > 0; quotients beyond 2²³ saturate there, negative ones at 0.
    """
    quotient = jnp.floor(numerator.high / denominator.high)
    quotient = jnp.clip(quotient, 0.0, 2.0**23)
    taken = times(denominator, quotient)
    remainder = difference(numerator, taken)
    quotient = jnp.where(remainder < 0, quotient - 1, quotient)
    quotient = jnp.where(remainder >= to_float(denominator), quotient + 1, quotient)
    return jnp.clip(quotient, 0.0, 2.0**23).astype(jnp.int32)
