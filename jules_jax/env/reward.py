"""Reward: the change of equity, less penalties for thrashing and drawdown, plus symbolic bonuses.

Penalties and bonuses are dollars per 50,000 of initial capital, so the reward does not depend on
the size of the account. `reward_scaling` multiplies their sum once, last.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax.config import Reward, Safeguards

REFERENCE_CAPITAL = 50_000.0
"""Dollars of capital that penalties are stated for."""
FREE_REPEATS = 2
"""Identical requests in a row that cost nothing."""


class Habits(NamedTuple):
    """What the penalties remember of the agent's orders; int32 scalars."""

    last_direction: jax.Array  # of the last voluntary executed order; 0: none this session
    bars_since_order: jax.Array  # bars since its execution
    chain: jax.Array  # k, alternations in the current chain
    last_request: jax.Array  # last counted SELL (−1) or BUY (+1) request; 0: none
    repeats: jax.Array  # n, consecutive identical counted requests


class RewardTerms(NamedTuple):
    """Terms of one step's reward, in reward units (scaled); they sum to the reward."""

    equity_change: jax.Array
    action_change: jax.Array  # ≤ 0
    same_action: jax.Array  # ≤ 0
    drawdown: jax.Array  # ≤ 0
    recovery_bonus: jax.Array  # ≥ 0
    bootstrap_bonus: jax.Array  # ≥ 0

    def total(self) -> jax.Array:
        """The reward."""
        penalties = self.action_change + self.same_action + self.drawdown
        return self.equity_change + penalties + self.recovery_bonus + self.bootstrap_bonus


def initial_habits() -> Habits:
    """At the start of an episode and of a session."""
    return Habits(*(jnp.zeros((), jnp.int32) for _ in Habits._fields))


def update_habits(
    habits: Habits,
    *,
    request: jax.Array,
    executed_direction: jax.Array,
    forced_exit: jax.Array,
    counts_as_request: jax.Array,
    reward: Reward,
) -> tuple[Habits, jax.Array, jax.Array]:
    """Habits after a step, whether its order was an alternation (bool), and its k (int32).

    `request` is the direction asked for; `executed_direction` the direction of a voluntary fill (0
    without one); `counts_as_request` marks requests that were executed or refused by the ladder.
    """
    traded = executed_direction != 0
    gap = habits.bars_since_order + 1
    opposes = traded & (executed_direction == -habits.last_direction)
    forgotten = gap > reward.thrash_window
    chain = jnp.where(traded & (forgotten | ~opposes), 0, habits.chain)
    chain = chain + opposes.astype(jnp.int32)

    same = request == habits.last_request
    counted = jnp.where(same, habits.repeats + 1, 1)
    repeats = jnp.where(counts_as_request, counted, habits.repeats)
    repeats = jnp.where(request == 0, 0, repeats)
    last_request = jnp.where(counts_as_request, request, habits.last_request)
    updated = Habits(
        last_direction=jnp.where(traded, executed_direction, habits.last_direction),
        bars_since_order=jnp.where(traded, 0, gap),
        chain=jnp.where(forced_exit, 0, chain),
        last_request=jnp.where(request == 0, 0, last_request),
        repeats=repeats,
    )
    return updated, opposes, chain


def drawdown_weight(progress: jax.Array, reward: Reward) -> jax.Array:
    """Weight of the squared drawdown excess: linear in progress, then constant."""
    share = jnp.clip(progress / reward.drawdown_schedule, 0.0, 1.0)
    span = reward.drawdown_weight_end - reward.drawdown_weight_start
    return reward.drawdown_weight_start + span * share


def drawdown_penalty(
    depth: jax.Array, weight: jax.Array, reward: Reward, safeguards: Safeguards
) -> jax.Array:
    """Dollars for a drawdown of `depth`: continuous, non-decreasing, at most `drawdown_cap`.

    weight · g · x² with x = max(depth − soft, 0) and g = 1 + 7·tanh(150·max(depth − hard, 0)).
    """
    excess = jnp.maximum(depth - safeguards.soft_dd_pct, 0.0)
    beyond_hard = jnp.maximum(depth - safeguards.hard_dd_pct, 0.0)
    gain = 1.0 + reward.drawdown_gain * jnp.tanh(reward.drawdown_gain_slope * beyond_hard)
    return jnp.minimum(weight * gain * excess * excess, reward.drawdown_cap)


def action_change_penalty(chain: jax.Array, charged: jax.Array, reward: Reward) -> jax.Array:
    """Dollars for an alternation that reduces a position: 5, 10, 15, 15, … along a chain."""
    multiple = jnp.minimum(chain, reward.action_change_cap).astype(jnp.float32)
    return jnp.where(charged, reward.action_change_penalty_factor * multiple, 0.0)


def same_action_penalty(habits: Habits, counted: jax.Array, reward: Reward) -> jax.Array:
    """Dollars for the n-th identical request in a row: 0.2 × clip(n − 2, 0, 3)."""
    multiple = jnp.clip(habits.repeats - FREE_REPEATS, 0, reward.same_action_cap)
    penalty = reward.same_action_penalty_factor * multiple.astype(jnp.float32)
    return jnp.where(counted, penalty, 0.0)


def scale_terms(
    *,
    equity_change: jax.Array,
    action_change: jax.Array,
    same_action: jax.Array,
    drawdown: jax.Array,
    recovery: jax.Array,
    bootstrap: jax.Array,
    reward: Reward,
) -> RewardTerms:
    """Terms in reward units; `equity_change` comes in units of initial capital, flags as bool."""
    scaling = reward.reward_scaling
    return RewardTerms(
        equity_change=scaling * (REFERENCE_CAPITAL * equity_change),
        action_change=-scaling * action_change,
        same_action=-scaling * same_action,
        drawdown=-scaling * drawdown,
        recovery_bonus=jnp.where(recovery, scaling * reward.recovery_bonus_amount, 0.0),
        bootstrap_bonus=jnp.where(bootstrap, scaling * reward.bootstrap_bonus_amount, 0.0),
    )
