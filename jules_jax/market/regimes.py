"""The hidden regime: a drift of the mid that depends on what everyone sees, but not always alike.

A three-state Markov chain says whether the mid returns to the session's VWAP, does nothing of the
kind, or moves on from its EMA(20). The drift is a fixed share of that distance, bounded by a
fraction of the bar's volatility. Bars do not show the regime; memory can infer it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jules_jax import config
from jules_jax.market import randomness

REVERTING, NEUTRAL, TRENDING = 0, 1, 2

Carry = tuple[jax.Array, jax.Array, jax.Array]

EMA_WEIGHT = 2.0 / 21.0
"""Weight of a new price in an EMA(20)."""


def drift(
    bits: jax.Array,
    surprise: jax.Array,
    gap: jax.Array,
    volume: jax.Array,
    sigma: jax.Array,
    params: config.Simulator,
) -> tuple[jax.Array, jax.Array]:
    """Regime `[B]` (int32) after each close, and drift `[B + 1]` of each bar and of the next one.

    The first drift is 0. Those of a session's first bar know no VWAP; the EMA runs on.

    Args:
      bits: `[B + 1]` uint32, uniform; the first starts the chain.
      surprise: `[B]` log return of the mid within each bar, drift aside.
      gap: `[B]` log return before each bar.
      volume: `[B]` weights of the VWAP.
      sigma: `[B]` volatility of each bar, which bounds the drift.
      params: the simulator's section of the configuration.
    """
    regime = _chain(bits, params.regime_dwell)
    strengths = (params.reversion_strength, params.momentum_strength)
    if all(isinstance(strength, float) and strength == 0 for strength in strengths):
        return regime, jnp.zeros(len(surprise) + 1, jnp.float32)
    to_vwap = jnp.where(regime == REVERTING, jnp.float32(params.reversion_strength), 0.0)
    to_ema = jnp.where(regime == TRENDING, jnp.float32(-params.momentum_strength), 0.0)
    limit = params.drift_limit * jnp.append(sigma[1:], sigma[-1])

    def step(carry: Carry, bar: Any) -> tuple[Carry, jax.Array]:
        expected, vwap_gap, ema_gap = carry  # gaps: log of the average over the mid
        surprise, gap, vwap_weight, to_vwap, to_ema, limit = bar
        change = surprise + gap + expected
        vwap_gap = (1.0 - vwap_weight) * (vwap_gap - change)
        ema_gap = (1.0 - EMA_WEIGHT) * (ema_gap - change)
        expected = jnp.clip(to_vwap * vwap_gap + to_ema * ema_gap, -limit, limit)
        return (expected, vwap_gap, ema_gap), expected

    zero = jnp.float32(0.0)
    bars = (surprise, gap, _vwap_weights(volume, params), to_vwap, to_ema, limit)
    _, expected = jax.lax.scan(step, (zero, zero, zero), bars)
    return regime, jnp.concatenate([zero[None], expected])


def _chain(bits: jax.Array, dwell: float) -> jax.Array:
    """The regime after each of `[B]` bars: it leaves with even odds for either of the others."""
    start, moves = (bits[0] >> 9) % 3, bits[1:]
    leaves = randomness.uniform(moves) < 1.0 / dwell
    steps = jnp.where(leaves, 1 + (moves & 1).astype(jnp.int32), 0)
    return (start.astype(jnp.int32) + jnp.cumsum(steps)) % 3


def _vwap_weights(volume: jax.Array, params: config.Simulator) -> jax.Array:
    """Weight `[B]` of each bar in its session's VWAP so far; 1 in the last, to forget it."""
    by_session = volume.reshape(params.sessions, params.bars_per_session)
    weights = by_session / jnp.cumsum(by_session, axis=1)
    return weights.at[:, -1].set(1.0).reshape(volume.shape)
