"""Metrics: what is gathered of every `StepRecord`, and what is told of steps and of episodes.

`step_metrics` runs on the device. Over an episode its values are summed, but for those whose name
ends in `_max`, of which the largest counts; over episodes all are summed. `of_episodes` and
`of_steps` turn such sums into the scalars that a run logs.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jules_jax.env.record import Outcome, StepRecord

BLOCKED = (
    Outcome.CANCELLED_AT_CLOSE,
    Outcome.ENTRY_LOCKED,
    Outcome.COOLDOWN,
)
REJECTED = (Outcome.LADDER_LIMIT, Outcome.LOT_TOO_SMALL, Outcome.CASH_LIMIT, Outcome.NO_VOLUME)
COSTS = ("spread", "temporary", "transient", "permanent", "fees", "borrow")
REQUESTS = ("sell", "hold", "buy")
MAXIMUM = "_max"
"""Ends the names of what is a maximum over an episode, of values that are at least 0."""

PER_STEP = {
    "risk/drawdown": "risk/drawdown_mean",
    "risk/soft_breach_steps": "risk/soft_breach_rate",
    "market/kyle_lambda_rolling": "market/kyle_lambda_rolling",
}
"""Sums over episodes that are told as means over their steps, and how they are then called."""
OF_STEPS = ("risk/drawdown_weight", *(f"action/{name}" for name in REQUESTS))
"""Told of an update's steps: they say what is the case now, whichever episodes end."""


def step_metrics(record: StepRecord) -> dict[str, jax.Array]:
    """Float32 scalars (or batches) by name; money in dollars, drawdowns as shares of the peak."""
    traded = jnp.abs(record.quantity) * record.reference_price
    traded = (traded + jnp.abs(record.close_quantity) * record.mark_price) * record.quantity_step
    penalised = record.reward_action_change + record.reward_same_action + record.reward_drawdown
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
        **{f"cost/{name}": getattr(record, f"cost_{name}") for name in COSTS},
        "trade/orders": (record.quantity != 0) & ~record.forced,
        "trade/forced_exits": (record.quantity != 0) & record.forced,
        "trade/session_liquidations": record.close_quantity != 0,
        "trade/entries": (record.position_before == 0) & (record.quantity != 0),
        "trade/round_trips": record.trip_closed,
        "trade/turnover": traded,
        "trade/exposed_steps": record.position != 0,
        "trade/chains": record.alternation & (record.chain == 1),
        "trade/cooldown_blocked": record.outcome == Outcome.COOLDOWN,
        "trade/blocked": sum(record.outcome == name for name in BLOCKED),
        "trade/rejected": sum(record.outcome == name for name in REJECTED),
        **{f"action/{name}": record.request == place - 1 for place, name in enumerate(REQUESTS)},
        "market/kyle_lambda_rolling": record.kyle_lambda_rolling,
        "risk/drawdown": record.drawdown,
        "risk/drawdown_max": record.drawdown,
        "risk/drawdown_weight": record.drawdown_weight,
        "risk/soft_breach_steps": record.soft_breach_run > 0,
        "risk/hard_breaches": record.hard_breach,
        "risk/purgatory_entries": record.purgatory_entered,
        "risk/escapes": record.escaped,
        "risk/early_warnings": record.early_warning,
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}


def accumulate(episode: dict[str, jax.Array], step: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What is gathered over an episode, with one more step in it."""
    return {
        name: jnp.maximum(value, step[name]) if name.endswith(MAXIMUM) else value + step[name]
        for name, value in episode.items()
    }


def of_episodes(means: Mapping[str, float], length: float) -> dict[str, float]:
    """Scalars of whole episodes, from what they gathered per episode and their mean length.

    A mean per episode keeps its name: `reward/*`, `pnl/*`, `cost/*` and `trade/turnover` in
    dollars, the others counts; `risk/drawdown_max` is the mean of the episodes' deepest. Then:
    `cost/*_bp`, basis points of turnover, absent where nothing was traded; `trade/holding_bars`,
    bars per position opened, absent where none was; `trade/trades_per_episode`, fills of any kind;
    and `PER_STEP`.
    """
    skipped = {*OF_STEPS, *PER_STEP}
    scalars = {name: value for name, value in means.items() if name not in skipped}
    scalars |= {told: means[name] / length for name, told in PER_STEP.items() if name in means}
    fills = ("trade/orders", "trade/forced_exits", "trade/session_liquidations")
    if all(name in means for name in fills):
        scalars["trade/trades_per_episode"] = sum(means[name] for name in fills)
    if (turnover := means.get("trade/turnover", 0.0)) > 0:
        scalars |= {f"cost/{name}_bp": 1e4 * means[f"cost/{name}"] / turnover for name in COSTS}
    if (entries := means.get("trade/entries", 0.0)) > 0:
        scalars["trade/holding_bars"] = means["trade/exposed_steps"] / entries
    return scalars


def of_steps(sums: Mapping[str, float], steps: int) -> dict[str, float]:
    """Scalars of an update's `steps`, from sums over them: means per step of `OF_STEPS`."""
    return {name: sums[name] / steps for name in OF_STEPS if name in sums}
