"""Metrics of a step: reductions of `StepRecord` that are summed over steps and episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jules_jax.env.record import Outcome, StepRecord

BLOCKED = (
    Outcome.CANCELLED_AT_CLOSE,
    Outcome.ENTRY_LOCKED,
    Outcome.COOLDOWN,
)
REJECTED = (Outcome.LADDER_LIMIT, Outcome.LOT_TOO_SMALL, Outcome.CASH_LIMIT, Outcome.NO_VOLUME)


def step_metrics(record: StepRecord) -> dict[str, jax.Array]:
    """Float32 scalars (or batches) by TensorBoard name; money in dollars.

    Sums over an episode are meant, but for `market/*`, which are means over steps.
    """
    traded = jnp.abs(record.quantity) * record.reference_price
    traded = (traded + jnp.abs(record.close_quantity) * record.mark_price) * record.quantity_step
    impact = record.cost_temporary + record.cost_transient + record.cost_permanent
    penalised = record.reward_action_change + record.reward_same_action + record.reward_drawdown
    blocked = sum(record.outcome == name for name in BLOCKED)
    rejected = sum(record.outcome == name for name in REJECTED)
    values = {
        "reward/equity_change": record.reward_equity_change,
        "reward/absolute_equity_change": jnp.abs(record.reward_equity_change),
        "reward/action_change": record.reward_action_change,
        "reward/same_action": record.reward_same_action,
        "reward/drawdown": record.reward_drawdown,
        "reward/recovery_bonus": record.reward_recovery_bonus,
        "reward/bootstrap_bonus": record.reward_bootstrap_bonus,
        "reward/penalised_steps": penalised < 0,
        "pnl/net": record.net_pnl,
        "pnl/gross": record.price_pnl,
        "cost/spread": record.cost_spread,
        "cost/impact": impact,
        "cost/fees": record.cost_fees,
        "cost/borrow": record.cost_borrow,
        "trade/orders": (record.quantity != 0) & ~record.forced,
        "trade/forced_exits": (record.quantity != 0) & record.forced,
        "trade/session_liquidations": record.close_quantity != 0,
        "trade/round_trips": record.trip_closed,
        "trade/turnover": traded,
        "trade/exposed_steps": record.position != 0,
        "trade/blocked": blocked,
        "trade/rejected": rejected,
        "market/kyle_lambda_rolling": record.kyle_lambda_rolling,
        "risk/soft_breach_steps": record.soft_breach_run > 0,
        "risk/hard_breaches": record.hard_breach,
        "risk/purgatory_entries": record.purgatory_entered,
        "risk/escapes": record.escaped,
        "risk/early_warnings": record.early_warning,
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
