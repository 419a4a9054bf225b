"""The table: everything the environment reads for one bar is one row of a flat float32 array."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax.market.bars import Bars
from jules_jax.market.features import FeatureRow

NEVER_CLOSES = 1e9
"""`minutes_left` on a 24/7 calendar."""

TICKETS = 2**30
"""Draws that weighted stretches share: a power of two, so that no remainder is likelier."""


class Row(NamedTuple):
    """One bar as the environment sees it, float32 scalars (or a batch of them).

    What must be known *before* the bar executes an order is the `_before` columns and
    `expected_volume`; they use bars up to the previous one only. The eight `market` entries and
    `sigma` use this bar's close, and serve decisions taken on it.
    """

    open: jax.Array  # dollars; the reference price of a fill in this bar
    close: jax.Array  # dollars
    previous_close: jax.Array  # dollars, close of the row above
    volume: jax.Array  # shares; 0 when halted or invalid
    half_spread: jax.Array  # return units; 0 where the source has none
    sigma_before: jax.Array  # EW sd of 1-bar log returns, known at the previous close
    sigma: jax.Array  # the same, this bar included
    adv_before: jax.Array  # average daily volume, shares, completed sessions only
    expected_volume: jax.Array  # shares expected for this bar, known at the previous close
    sigma_long_before: jax.Array  # long-run sd of 1-bar log returns
    kyle_lambda_before: jax.Array  # rolling dimensionless lambda over lookback_window bars; 0: none
    minute: jax.Array  # minutes since the session's open
    minutes_left: jax.Array  # minutes from this bar's start to the session's end
    session_open: jax.Array  # 1 on the first bar of a session that closes
    session_close: jax.Array  # 1 on the last bar of a session that closes
    tick: jax.Array  # dollars
    quantity_step: jax.Array  # shares per unit of quantity
    bars_per_session: jax.Array  # slots of a full session
    market: jax.Array  # [8] observation entries 0 to 7


NUM_MARKET_ENTRIES = 8
NUM_SCALARS = len(Row._fields) - 1
NUM_COLUMNS = NUM_SCALARS + NUM_MARKET_ENTRIES


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MarketData:
    """What episodes are drawn from and read.

    rows: `[R, C]` float32, see `Row`. episodes: `[I, 3]` int32, one line per stretch an episode may
    start in: symbol, first and last admissible start row (an episode that starts at row s decides
    on rows s, s+1, … and reads up to row s + max_steps_in_episode). cumulative: `[I]` int32, number
    of admissible starts up to and including each stretch; an empty stretch repeats the count before
    it. shares: `[I]` int32, cumulative draws of each stretch out of `TICKETS`, where starts are not
    equally likely; None where they are: a lane then draws uniformly over all starts.
    """

    rows: jax.Array
    episodes: jax.Array
    cumulative: jax.Array
    shares: jax.Array | None = None
    bar_seconds: int = field(default=60, metadata={"static": True})


def read_row(rows: jax.Array, index: jax.Array) -> Row:
    """Row `index` (int32, any shape) of `rows` `[R, C]`, as one gather."""
    values = rows[index]
    scalars = [values[..., column] for column in range(NUM_SCALARS)]
    return Row(*[*scalars, values[..., NUM_SCALARS:]])


def build_rows(
    bars: Bars,
    features: FeatureRow,
    *,
    tick: float | jax.Array,
    quantity_step: float | jax.Array,
) -> jax.Array:
    """Rows `[B, C]` of one stretch of bars `[B]` and the features computed from them."""
    minutes_left = bars.session_length - bars.minute
    new_session = jnp.diff(bars.session, prepend=bars.session[:1] - 1) != 0
    ends_session = jnp.diff(bars.session, append=bars.session[-1:] + 1) != 0
    if bars.continuous:
        minutes_left = jnp.full(minutes_left.shape, NEVER_CLOSES)
        new_session = ends_session = jnp.zeros_like(new_session)
    shape = bars.close.shape
    half_spread = jnp.zeros(shape) if bars.half_spread is None else bars.half_spread
    row = Row(
        open=bars.open,
        close=bars.close,
        previous_close=jnp.concatenate([bars.open[:1], bars.close[:-1]]),
        volume=jnp.where(bars.valid, bars.volume, 0.0),
        half_spread=half_spread,
        sigma_before=features.sigma_before,
        sigma=features.sigma,
        adv_before=features.adv_before,
        expected_volume=features.expected_volume,
        sigma_long_before=features.sigma_long_before,
        kyle_lambda_before=features.kyle_lambda_before,
        minute=bars.minute,
        minutes_left=minutes_left,
        session_open=new_session,
        session_close=ends_session,
        tick=jnp.full(shape, tick),
        quantity_step=jnp.full(shape, quantity_step),
        bars_per_session=jnp.full(shape, bars.bars_per_session),
        market=features.market,
    )
    scalars = jnp.stack([jnp.asarray(column, jnp.float32) for column in row[:-1]], axis=-1)
    return jnp.concatenate([scalars, row.market.astype(jnp.float32)], axis=-1)
