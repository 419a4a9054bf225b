"""`StepRecord`: every observable of one environment step, defined once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import jax


class Outcome(IntEnum):
    """What became of a step's order, by the highest-priority rule that decided it."""

    NONE = 0  # nothing was asked for, nothing was forced
    EXECUTED = 1  # the agent's order filled, wholly or in part
    HARD_LIQUIDATION = 2  # target 0 after a hard breach
    FLAT_BY = 3  # target 0 near the session's end, or an order refused there
    CANCELLED_AT_CLOSE = 4  # execution would fall into the next session
    ENTRY_LOCKED = 5  # refused until the lock after a hard breach ends
    COOLDOWN = 6  # refused, too soon after the last order
    LADDER_LIMIT = 7  # refused, already at the largest position (or short sales are off)
    LOT_TOO_SMALL = 8  # refused, a lot is less than one quantity step
    CASH_LIMIT = 9  # refused, no room under the size or cash limits
    NO_VOLUME = 10  # nothing to fill against in the bar


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepRecord:
    """One step: the decision on bar t, its execution in bar t+1, and what followed.

    Dollars unless said otherwise; `equity`, `equity_peak`, `trough` and `trip_pnl` are in units of
    initial capital; quantities are in quantity steps (int32); `reward_*` are in reward units and
    sum to `reward`. Flags are bool. Scalars, or `[...]` batches of them.
    """

    # the decision
    row: jax.Array  # int32 table row of the execution bar
    time: jax.Array  # int32 steps done in the episode, this one included
    symbol: jax.Array  # int32
    request: jax.Array  # int32 −1 sell, 0 hold, +1 buy
    outcome: jax.Array  # int32 `Outcome`
    forced: jax.Array  # target 0 was imposed
    action_matters: jax.Array  # no override was active: the request decided
    capped_by_participation: jax.Array
    capped_by_cash: jax.Array
    # the fill at the open, and the session-end liquidation at the close
    position_before: jax.Array
    lot: jax.Array
    quantity: jax.Array  # filled at the open
    close_quantity: jax.Array  # liquidated at the session's close
    position: jax.Array  # after the step
    quantity_step: jax.Array  # float32 shares per quantity step
    reference_price: jax.Array  # the open
    fill_price: jax.Array  # spread and impact included; 0 without a fill
    mark_price: jax.Array  # the close
    half_spread: jax.Array  # return units
    sigma: jax.Array  # sd of a bar's return, known before execution
    expected_volume: jax.Array  # shares
    adv: jax.Array  # shares
    volume: jax.Array  # shares traded in the bar
    kyle_lambda: jax.Array  # dollars per share per share
    kyle_lambda_rolling: jax.Array  # the rolling estimate, dimensionless; 0: none
    recent_volume: jax.Array  # U after the step, shares
    displaced_ask: jax.Array  # E⁺ after the step, shares
    displaced_bid: jax.Array  # E⁻ after the step, shares
    # money
    price_pnl: jax.Array  # gross P&L at observed prices
    cost_spread: jax.Array
    cost_temporary: jax.Array
    cost_transient: jax.Array
    cost_permanent: jax.Array
    cost_fees: jax.Array
    cost_borrow: jax.Array
    net_pnl: jax.Array  # price_pnl minus all costs
    equity: jax.Array
    average_entry_price: jax.Array
    trip_pnl: jax.Array  # of the open round trip, or of the one this step closed
    trip_closed: jax.Array
    # safeguards
    equity_peak: jax.Array
    trough: jax.Array  # of the present purgatory or the last one; 1 before the first
    drawdown: jax.Array
    in_purgatory: jax.Array
    purgatory_entered: jax.Array
    escaped: jax.Array
    hard_breach: jax.Array
    locked: jax.Array
    lock_released: jax.Array
    early_warning: jax.Array
    soft_breach_run: jax.Array  # int32 consecutive steps beyond soft with a position
    cooldown_left: jax.Array  # int32 coming decisions that will be refused
    # reward
    alternation: jax.Array
    chain: jax.Array  # int32 k of this step, before a forced exit sets it to 0
    repeats: jax.Array  # int32 n
    drawdown_weight: jax.Array
    reward_equity_change: jax.Array
    reward_action_change: jax.Array
    reward_same_action: jax.Array
    reward_drawdown: jax.Array
    reward_recovery_bonus: jax.Array
    reward_bootstrap_bonus: jax.Array
    reward: jax.Array
    terminated: jax.Array
