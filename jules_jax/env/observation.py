"""Observation: eight market entries of the decision bar and four of the account."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jules_jax.env import safeguards
from jules_jax.env.params import EnvParams
from jules_jax.env.transition import EnvState
from jules_jax.market.table import Row

NUM_OBSERVATIONS = 12
OBSERVATION_LIMIT = 5.0
"""Observation entries are clipped to ± this."""
COOLDOWN, POSITION = 10, 11
"""Places of two of the account's entries."""
READY_COOLDOWN = 0.25
"""Observed size of the last order's direction once its cooldown is over."""

SMALLEST_ENTRY = 1e-30
"""Dollars; the logarithm of an entry price is taken of no less."""


def observe(state: EnvState, row: Row, params: EnvParams) -> jax.Array:
    """Observation `[12]` at the close of `row`, the bar of `state` (docs/environment.md)."""
    holding, limits = state.holding, params.safeguards
    bars = jnp.sqrt(jnp.maximum(holding.bars_held, 1).astype(jnp.float32))
    entry = jnp.where(holding.position == 0, row.close, holding.average_entry_price)
    side = jnp.sign(holding.position).astype(jnp.float32)
    # Costs beyond its value give a short an entry price below 0: a loss beyond the entry's limit.
    entry = jnp.maximum(entry, SMALLEST_ENTRY)
    open_pnl = side * jnp.log(row.close / entry) / (row.sigma * bars)
    depth = safeguards.drawdown(holding.equity, state.risk.equity_peak) / limits.soft_dd_pct
    fraction = state.cooldown_left / max(limits.trade_cooldown_steps - 1, 1)
    cooldown = state.habits.last_direction * (READY_COOLDOWN + (1 - READY_COOLDOWN) * fraction)
    largest = jnp.maximum(holding.lot, 1) * params.account.max_position_lots
    own = jnp.stack(
        [
            open_pnl,
            jnp.where(state.risk.locked, -depth, depth),
            cooldown.astype(jnp.float32),
            holding.position.astype(jnp.float32) / largest.astype(jnp.float32),
        ]
    )
    limit = OBSERVATION_LIMIT
    return jnp.concatenate([row.market, jnp.clip(own, -limit, limit)])


def action_mask(obs: jax.Array) -> jax.Array:
    """What can have an effect after observations `[..., 12]`: SELL, HOLD, BUY, `[..., 3]` bool.

    HOLD always can. An order cannot while the cooldown runs, nor one that adds to a position at
    its limit. Conservative: what only the fill or the clock would refuse stays possible.
    """
    ready = jnp.abs(obs[..., COOLDOWN]) <= READY_COOLDOWN
    position = obs[..., POSITION]
    return jnp.stack([ready & (position > -1), jnp.ones_like(ready), ready & (position < 1)], -1)
