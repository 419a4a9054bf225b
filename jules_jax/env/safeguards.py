"""Safeguards on equity: drawdown from the peak, purgatory, hard breach, entry lock, early warning.

Pre-trade limits (size, cash, participation, cooldown, flat-by) act in `transition`; this file is
the state they and the drawdown rules carry, updated once a bar on the close.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax.config import Safeguards
from jules_jax.env import twofloat
from jules_jax.env.twofloat import TwoFloat
from jules_jax.market.table import NEVER_CLOSES, Row

UNTIL_NEXT_SESSION = 2**31 - 1
EQUITY_MARGIN = 2.0**-20
"""An equity exceeds another if it does by this share (1e-6) of initial capital: prices live on
a lattice of ticks, so a holder's equity returns to the same value again and again, and without a
margin the last bit of a float would decide what is a new high."""


class RiskState(NamedTuple):
    """Drawdown state of an episode; equities are two-floats in units of initial capital."""

    equity_peak: TwoFloat  # running maximum since its last reset
    trough: TwoFloat  # lowest equity since purgatory began
    recovery_high: TwoFloat  # highest equity since the trough
    release_equity: TwoFloat  # equity when the last entry lock was released
    in_purgatory: jax.Array  # bool
    locked: jax.Array  # bool: hard breach fired, not yet released
    lock_bars_left: jax.Array  # int32; UNTIL_NEXT_SESSION where sessions close
    hard_disarmed: jax.Array  # bool: the hard limit refers to release_equity
    soft_breach_run: jax.Array  # int32 consecutive steps beyond soft with a position
    warning_run: jax.Array  # int32 consecutive steps beyond soft + early_warning_excess with one


class RiskEvents(NamedTuple):
    """What happened to the drawdown state on a step; scalars."""

    drawdown: jax.Array  # from equity_peak, after the step
    purgatory_entered: jax.Array  # bool
    escaped: jax.Array  # bool: purgatory left; the peak became current equity
    new_recovery_high: jax.Array  # bool: a new high since the trough, while in purgatory
    hard_breach: jax.Array  # bool: fires on this step
    early_warning: jax.Array  # bool


def initial_risk() -> RiskState:
    """Drawdown state at the start of an episode."""
    full = twofloat.literal(1.0)
    no = jnp.zeros((), bool)
    zero = jnp.zeros((), jnp.int32)
    return RiskState(full, full, full, full, no, no, zero, no, zero, zero)


def drawdown(equity: TwoFloat, peak: TwoFloat) -> jax.Array:
    """(equity_peak − equity)/equity_peak, ≥ 0."""
    return jnp.maximum(twofloat.difference(peak, equity) / twofloat.to_float(peak), 0.0)


def release_lock(
    risk: RiskState, row: Row, position: jax.Array, equity: TwoFloat
) -> tuple[RiskState, jax.Array]:
    """Ends the entry lock when a session opens, or when its bars have passed on a 24/7 calendar.

    The peak stays; the hard limit is disarmed and refers to the equity at release from now on.
    """
    waited = (risk.lock_bars_left <= 0) & (position == 0)
    released = risk.locked & ((row.session_open > 0) | waited)
    risk = risk._replace(
        locked=risk.locked & ~released,
        hard_disarmed=risk.hard_disarmed | released,
        release_equity=twofloat.select(released, equity, risk.release_equity),
        lock_bars_left=jnp.where(
            risk.lock_bars_left == UNTIL_NEXT_SESSION,
            risk.lock_bars_left,
            jnp.maximum(risk.lock_bars_left - 1, 0),
        ),
    )
    return risk, released


def update_risk(
    risk: RiskState,
    equity: TwoFloat,
    position: jax.Array,
    row: Row,
    safeguards: Safeguards,
    bar_seconds: int,
) -> tuple[RiskState, RiskEvents]:
    """The drawdown state after a step that closed with `equity` and `position`."""
    was_in = risk.in_purgatory
    above_peak = twofloat.difference(equity, risk.equity_peak)
    recovery = twofloat.difference(equity, risk.trough)
    threshold = safeguards.purgatory_escape_threshold_pct * twofloat.to_float(risk.trough)
    # Only a new peak frees an account in debt: 3 % above a trough below 0 is no recovery.
    recovered = (recovery >= threshold) & (twofloat.to_float(risk.trough) > 0)
    escaped = was_in & ((above_peak > EQUITY_MARGIN) | recovered)
    new_high = was_in & (twofloat.difference(equity, risk.recovery_high) > EQUITY_MARGIN)
    peak = twofloat.select(escaped | (above_peak > 0), equity, risk.equity_peak)
    depth = drawdown(equity, peak)

    entered = ~was_in & (depth > safeguards.soft_dd_pct)
    in_purgatory = (was_in & ~escaped) | entered
    new_trough = entered | (was_in & (recovery < -EQUITY_MARGIN))
    trough = twofloat.select(new_trough, equity, risk.trough)
    high = twofloat.select(new_trough | new_high, equity, risk.recovery_high)

    fallen = twofloat.difference(risk.release_equity, equity)
    below_release = fallen >= safeguards.hard_dd_pct * twofloat.to_float(risk.release_equity)
    beyond_hard = jnp.where(risk.hard_disarmed, below_release, depth > safeguards.hard_dd_pct)
    breach = beyond_hard & ~risk.locked
    lock_bars = jnp.where(
        row.minutes_left >= NEVER_CLOSES,
        jnp.int32(safeguards.lock_minutes * 60 // bar_seconds),
        jnp.int32(UNTIL_NEXT_SESSION),
    )

    exposed = position != 0
    soft_run = jnp.where(exposed & (depth > safeguards.soft_dd_pct), risk.soft_breach_run + 1, 0)
    warns = exposed & (depth - safeguards.soft_dd_pct > safeguards.early_warning_excess)
    warning_run = jnp.where(warns, risk.warning_run + 1, 0)
    updated = RiskState(
        equity_peak=peak,
        trough=trough,
        recovery_high=high,
        release_equity=risk.release_equity,
        in_purgatory=in_purgatory,
        locked=risk.locked | breach,
        lock_bars_left=jnp.where(breach, lock_bars, risk.lock_bars_left),
        hard_disarmed=risk.hard_disarmed & (depth >= safeguards.soft_dd_pct),
        soft_breach_run=soft_run,
        warning_run=warning_run,
    )
    events = RiskEvents(
        drawdown=depth,
        purgatory_entered=entered,
        escaped=escaped,
        new_recovery_high=new_high,
        hard_breach=breach,
        early_warning=warning_run > safeguards.early_warning_steps,
    )
    return updated, events
