"""Two-float arithmetic against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax.env import twofloat
from jules_jax.env.twofloat import TwoFloat

PRECISION = Fraction(1, 2**44)
"""Relative error allowed: about 46 bits are kept."""

product, gap = jax.jit(twofloat.product), jax.jit(twofloat.gap)
add, floor_ratio = jax.jit(twofloat.add), jax.jit(twofloat.floor_ratio)


def exact(a: TwoFloat) -> list[Fraction]:
    pairs = zip(np.ravel(a.high).tolist(), np.ravel(a.low).tolist(), strict=True)
    return [Fraction(high) + Fraction(low) for high, low in pairs]


def fractions(values: np.ndarray) -> list[Fraction]:
    return [Fraction(value) for value in np.ravel(values).tolist()]


def draw(seed: int, count: int = 400) -> np.ndarray:
    """Float32 of either sign, of magnitudes from 1e-6 to 1e6."""
    rng = np.random.default_rng(seed)
    return np.float32(rng.choice([-1, 1], count) * 10.0 ** rng.uniform(-6, 6, count))


def draw_pair(seed: int) -> TwoFloat:
    """Two-floats with a low part."""
    high = draw(seed)
    low = np.float32(high * np.random.default_rng(seed + 1).uniform(-0.4, 0.4, high.size) * 2**-24)
    return TwoFloat(jnp.asarray(high), jnp.asarray(low))


size = st.floats(2.0**-30, 2.0**30, width=32)
number = st.just(0.0) | size | size.map(lambda value: -value)


@settings(max_examples=200, deadline=None)
@given(number, number, st.integers(-(2**23), 2**23), st.integers(-(2**23), 2**23))
def test_differences_are_exact_and_products_too_up_to_46_significant_bits(a, b, m, n) -> None:
    assert exact(gap(a, b)) == [Fraction(a) - Fraction(b)]
    assert exact(product(float(m), float(n))) == [m * n]
    truth = Fraction(a) * Fraction(b)
    assert abs(exact(product(a, b))[0] - truth) <= abs(truth) / 2**46


@pytest.mark.parametrize("compiled", [True, False])
def test_sums_products_and_quotients_keep_forty_four_bits(compiled: bool) -> None:
    wrap = jax.jit if compiled else (lambda f: f)
    a, b, other = draw_pair(0), draw(2), draw_pair(4)
    x, y, z = exact(a), fractions(b), exact(other)
    cases = [
        (wrap(twofloat.add)(a, b), [p + q for p, q in zip(x, y, strict=True)]),
        (wrap(twofloat.plus)(a, other), [p + q for p, q in zip(x, z, strict=True)]),
        (wrap(twofloat.times)(a, b), [p * q for p, q in zip(x, y, strict=True)]),
        (wrap(twofloat.divide)(a, b), [p / q for p, q in zip(x, y, strict=True)]),
    ]
    scales = [[max(abs(p), abs(q)) for p, q in zip(x, y, strict=True)]]
    scales += [[max(abs(p), abs(q)) for p, q in zip(x, z, strict=True)]]
    scales += [[abs(v) for v in truth] for _, truth in cases[2:]]  # sums may cancel, these not
    for (found, truth), scale in zip(cases, scales, strict=True):
        errors = [abs(f - t) / s for f, t, s in zip(exact(found), truth, scale, strict=True)]
        assert max(errors) <= PRECISION
        assert np.all(np.abs(found.low) <= 0.5000001 * np.spacing(np.abs(found.high)))


def test_a_running_sum_of_a_million_steps_does_not_drift() -> None:
    steps = np.float32(np.random.default_rng(0).normal(0, 1e-4, 1_000_000))
    start = twofloat.literal(1.0)
    total, _ = jax.jit(lambda xs: jax.lax.scan(lambda s, x: (twofloat.add(s, x), None), start, xs))(
        steps
    )
    truth = math.fsum([1.0, *steps.astype(np.float64)])
    assert abs(float(exact(total)[0]) - truth) < 1e-10
    plain = np.cumsum(np.concatenate([[1], steps]), dtype=np.float32)[-1]
    assert abs(float(plain) - truth) > 1e-6  # what float32 alone would give


@pytest.mark.parametrize("reserve", [0.05, 0.1, 0.3])
def test_sums_with_a_constant_of_the_program_are_exact_under_jit(reserve: float) -> None:
    found = jax.jit(lambda r: twofloat.add(twofloat.literal(1.0), -r))(jnp.float32(reserve))
    assert exact(found) == [1 - Fraction(float(np.float32(reserve)))]


def test_floor_is_that_of_the_exact_number_on_either_side_of_an_integer() -> None:
    rng = np.random.default_rng(1)
    whole = np.float32(rng.integers(-(2**22), 2**22, 2000))
    low = np.float32(rng.choice([0, 1, -1], 2000) * 10.0 ** rng.uniform(-12, -2, 2000))
    total = add(twofloat.from_float(whole), low)
    floors = np.asarray(jax.jit(twofloat.floor)(total))
    assert floors.tolist() == [math.floor(value) for value in exact(total)]
    assert (floors < whole).any() and (floors == whole).any()


def test_floor_ratio_is_the_floor_of_the_exact_quotient() -> None:
    rng = np.random.default_rng(2)
    dollars = np.float32(10.0 ** rng.uniform(0, 7, 4000))
    price = np.float32(10.0 ** rng.uniform(0, 5, 4000))
    step = np.float32(rng.choice([1.0, 100.0, 10.0], 4000))
    numerator, denominator = twofloat.from_float(dollars), twofloat.product(price, step)
    found = np.asarray(floor_ratio(numerator, denominator))
    truth = [x / y for x, y in zip(exact(numerator), exact(denominator), strict=True)]
    kept = [i for i, q in enumerate(truth) if q < 2**23]
    assert len(kept) > 3000 and found.dtype == np.int32
    assert [int(found[i]) for i in kept] == [math.floor(truth[i]) for i in kept]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2**23 - 1), st.floats(2.0**-14, 2.0**20, width=32))
def test_floor_ratio_is_right_at_whole_quotients_and_just_below(count: int, unit: float) -> None:
    whole = product(float(count), unit)
    one = twofloat.from_float(unit)
    assert int(floor_ratio(whole, one)) == count
    below = add(whole, -unit * 2.0**-18)
    assert int(floor_ratio(below, one)) == count - 1
    assert int(floor_ratio(add(whole, unit * 2.0**-18), one)) == count


def test_floor_ratio_saturates_instead_of_overflowing() -> None:
    one = twofloat.from_float(1.0)
    assert int(twofloat.floor_ratio(twofloat.from_float(1e30), one)) == 2**23
    assert int(twofloat.floor_ratio(twofloat.from_float(-5.0), one)) == 0


def test_differences_and_choices_see_the_low_parts() -> None:
    low = jnp.float32(2.0**-30)
    a, b = TwoFloat(jnp.float32(1), low), TwoFloat(jnp.float32(1), -low)
    assert float(twofloat.difference(a, b)) == 2.0**-29
    assert exact(twofloat.maximum(a, b)) == exact(twofloat.maximum(b, a)) == exact(a)
    assert exact(twofloat.select(jnp.bool_(False), a, b)) == exact(b)
    assert float(twofloat.to_float(a)) == 1.0
