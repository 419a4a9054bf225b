"""Explanation: one decision in words, for someone who trades and has not read the code."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jules_jax.config import Config
from jules_jax.env.observation import READY_COOLDOWN
from jules_jax.env.record import Outcome
from jules_jax.errors import InputError
from jules_jax.evaluation.audit import manifest
from jules_jax.evaluation.audit.manifest import Manifest

Row = Mapping[str, Any]
ACTIONS = ("SELL", "HOLD", "BUY")
WIDTH = 98
GREEDY = "trained, greedy"


def explain(directory: Path, *, episode: int, step: int, policy: str | None = None) -> str:
    """What was seen, thought, asked, overridden, filled, paid and rewarded in one step.

    Raises `InputError` where the audit has no such step, or several policies' and none was named.
    """
    found, _ = manifest.read(directory)
    rows = _rows(directory, found, episode, (step - 1, step))
    policies = sorted({row["policy"] for row in rows if row["step"] == step})
    if policy is None and len(policies) > 1:
        raise InputError(
            f"episode {episode} was played by {' and by '.join(policies)}, expected --policy with "
            "one of them"
        )
    chosen = {row["step"]: row for row in rows if policy in (None, row["policy"])}
    if step not in chosen:
        of = f" of {policy}" if policy else ""
        raise InputError(
            f"{directory} has no step {step} of episode {episode}{of}: it has "
            f"{found.rows('episodes'):,} episodes; both count from 0"
        )
    row, before = chosen[step], chosen.get(step - 1)
    paragraphs = [
        _heading(row, found),
        _seen(row, found.facts.config),
        _thought(row, found.facts.config),
        _asked(row, found.facts.config),
        _filled(row),
        _paid(row, found.facts.config),
        _account(row, before, found.facts.config),
        _rewarded(row, found.facts.config),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _rows(
    directory: Path, found: Manifest, episode: int, steps: tuple[int, ...]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for part in found.of("steps"):
        try:
            table = pq.read_table(
                directory / part.file, filters=[("episode", "=", episode), ("step", "in", steps)]
            )
        except (pa.ArrowException, OSError, KeyError):
            raise InputError(
                f"{directory / part.file} cannot be read, expected a part of an audit"
            ) from None
        rows += table.to_pylist()
    return rows


def _section(title: str, lines: list[str]) -> str:
    wrapped = [
        textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="      ")
        for line in lines
        if line
    ]
    return "\n".join([title, *wrapped])


def _heading(row: Row, found: Manifest) -> str:
    when = "simulated, so without a date"
    if row["timestamp_ns"]:
        moment = datetime.fromtimestamp(row["timestamp_ns"] / 1e9, UTC)
        when = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    bar = f"{row['bar_minute']:.0f} minutes into its session"
    if row["bar_minutes_left"] < 1e8:
        bar += f", {row['bar_minutes_left']:.0f} before its end"
    by = f"; weights {row['checkpoint'][:12]}" if row["checkpoint"] else ""
    return (
        f"{row['symbol_name']}, episode {row['episode']}, step {row['step']}, played by the policy "
        f"“{row['policy']}” ({found.facts.kind} of {row['run']}{by})\n"
        f"The order goes into the bar that begins {bar} ({when})."
    )


def _seen(row: Row, config: Config) -> str:
    lines = [f"{entry:>+7.2f}  {words}" for entry, words in observed_in_words(row, config)]
    return _section("What was seen when the bar before it had closed", lines)


def observed_in_words(row: Row, config: Config) -> list[tuple[float, str]]:
    """The twelve entries of the observation, and what each says."""
    seen = {name[9:]: float(row[name]) for name in row if name.startswith("observed_")}
    above = {name: "above" if seen[name] >= 0 else "below" for name in ("ema_fast", "ema_slow")}
    position, cooldown = seen["position"], seen["cooldown"]
    half = math.degrees(math.atan2(seen["clock_sin"], seen["clock_cos"]))
    if row["bar_minutes_left"] < 1e8:
        passed = f"{half / 180:.0%} of the session had passed"
    else:
        passed = f"{half % 360 / 360:.0%} of the day had passed"
    soft = config.safeguards.soft_dd_pct
    locked = "; entries were locked" if seen["drawdown"] < 0 else ""
    side = "bought" if cooldown > 0 else "sold"
    left = (abs(cooldown) - READY_COOLDOWN) / (1 - READY_COOLDOWN)
    waiting = f"{left:.0%} of the wait after it was left" if left > 0.001 else "the wait was over"
    lots = abs(position) * config.account.max_position_lots
    held = f"{'long' if position > 0 else 'short'} {lots:g} of at most"
    words = {
        "rsi": f"RSI(14) was {50 + 12 * seen['rsi']:.0f} of 100; 50 is neutral",
        "ema_fast": f"the price was {abs(seen['ema_fast']):.2f} of its usual distances "
        f"{above['ema_fast']} its 10-bar average",
        "ema_slow": f"the price was {abs(seen['ema_slow']):.2f} of its usual distances "
        f"{above['ema_slow']} its 20-bar average",
        "vwap": f"the price was {abs(seen['vwap']):.2f} standard deviations "
        f"{'above' if seen['vwap'] >= 0 else 'below'} the session's average price (VWAP)",
        "clock_sin": f"{passed} (the sine of the clock)",
        "clock_cos": "the cosine of the clock",
        "volatility": f"prices moved {math.exp(seen['volatility']):.2f} times as much as they "
        "usually do",
        "liquidity": "nothing was traded in the bar"
        if seen["liquidity"] <= -4.99
        else f"{math.exp(seen['liquidity']):.2f} times the volume expected was traded",
        "open_pnl": "no position was open"
        if position == 0
        else f"the open position was {'winning' if seen['open_pnl'] >= 0 else 'losing'}: its gain "
        "per standard deviation of such a wait",
        "drawdown": f"the account was {100 * abs(seen['drawdown']) * soft:.2f} % below its peak, "
        f"where {100 * soft:g} % is the soft limit{locked}",
        "cooldown": "no order had filled in this session"
        if cooldown == 0
        else f"the last order had {side}, and {waiting}",
        "position": "flat" if position == 0 else f"{held} {config.account.max_position_lots} lots",
    }
    return [(seen[name], words[name]) for name in words]


def _thought(row: Row, config: Config) -> str:
    logits = np.array([row[f"logit_{name.lower()}"] for name in ACTIONS], np.float64)
    if np.isnan(logits).any():
        return _section("What the policy thought", ["It is a rule, and has no probabilities."])
    chance = np.exp(logits - logits.max())
    chance /= chance.sum()
    shares = ", ".join(f"{name} {p:.1%}" for name, p in zip(ACTIONS, chance, strict=True))
    value = f"It expected {row['value']:+.3f} of discounted reward from here on (its value)."
    patience, rule = config.network.greedy_patience, ""
    if row["policy"] == GREEDY and patience > 1:
        rule = (
            "The greedy policy gives an order that it would more likely than not have given within "
            f"{patience} bars: one of more than {1 - 0.5 ** (1 / patience):.1%}."
        )
    return _section("What the policy thought", [f"Probabilities: {shares}.", rule, value])


REASONS = {
    Outcome.HARD_LIQUIDATION: "the hard drawdown limit had been hit, so the position was closed "
    "whatever was asked",
    Outcome.FLAT_BY: "the session was about to end: positions are closed and no order is taken",
    Outcome.CANCELLED_AT_CLOSE: "the order would have been executed in the next session, and was "
    "cancelled",
    Outcome.ENTRY_LOCKED: "entries were locked after a hard drawdown",
    Outcome.COOLDOWN: "too few bars had passed since the last order (the cooldown)",
    Outcome.LADDER_LIMIT: "the position was already as large as it may be on that side",
    Outcome.LOT_TOO_SMALL: "a lot would have been less than the smallest quantity",
    Outcome.CASH_LIMIT: "the limits on size and cash left no room",
    Outcome.NO_VOLUME: "nothing, or too little, was traded in the bar to fill against",
}


def _asked(row: Row, config: Config) -> str:
    request, outcome = ACTIONS[row["request"] + 1], Outcome(row["outcome"])
    asked = {
        "HOLD": "It asked for no order (HOLD).",
        "BUY": "It asked to BUY one lot.",
        "SELL": "It asked to SELL one lot.",
    }[request]
    lines = [asked]
    if outcome == Outcome.EXECUTED:
        lines.append("No rule stood against it: the order was executed.")
    elif outcome != Outcome.NONE:
        verb = "Overridden" if row["forced"] else "Refused"
        lines.append(f"{verb} ({outcome.name}): {REASONS[outcome]}.")
    if outcome == Outcome.COOLDOWN:
        lines.append(
            f"{row['cooldown_left']} more decisions will be refused; the cooldown is "
            f"{config.safeguards.trade_cooldown_steps} bars."
        )
    if row["capped_by_participation"]:
        share = 100 * config.fills.max_participation
        lines.append(f"The order was cut to {share:g} % of the bar's volume.")
    if row["capped_by_cash"]:
        lines.append("The order was cut to what the limits on size and cash allow.")
    return _section("What it asked for, and what became of that", lines)


def _filled(row: Row) -> str:
    unit = row["quantity_step"]
    lines = []
    if row["quantity"]:
        shares, price = row["quantity"] * unit, row["reference_price"]
        bp = 1e4 * abs(row["fill_price"] / price - 1)
        lines.append(
            f"{'Bought' if shares > 0 else 'Sold'} {abs(shares):,.10g} at "
            f"${row['fill_price']:,.4f}, spread and impact included: {bp:.2f} bp worse than the "
            f"open, ${price:,.4f}."
        )
        expected, volume = row["expected_volume"], row["volume"]
        lines.append(
            f"The bar traded {volume:,.0f}, where {expected:,.0f} was expected; the order was "
            f"{abs(shares) / volume if volume else 0:.2%} of that volume."
        )
    if row["close_quantity"]:
        shares = row["close_quantity"] * unit
        lines.append(
            f"The session ended: {abs(shares):,.10g} {'bought' if shares > 0 else 'sold'} at its "
            f"close, around ${row['mark_price']:,.4f}."
        )
    lines = lines or ["Nothing was traded."]
    held = row["position"] * unit
    side = "long" if held > 0 else "short"
    lines.append(
        f"Position afterwards: {side} {abs(held):,.10g}, entered at "
        f"${row['average_entry_price']:,.4f} on average."
        if held
        else "Position afterwards: flat."
    )
    return _section("What was filled", lines)


COSTS = {
    "cost_spread": "half the spread between bid and ask",
    "cost_temporary": "temporary impact: others step back while one trades",
    "cost_transient": "transient impact: the book that one has pushed and that has yet to refill",
    "cost_permanent": "permanent impact: the price moves by what one holds (comes back when one "
    "closes)",
    "cost_fees": "fees",
    "cost_borrow": "borrowing the shares sold short",
}


def _paid(row: Row, config: Config) -> str:
    del config
    traded = row["quantity_step"] * (
        abs(row["quantity"]) * row["reference_price"]
        + abs(row["close_quantity"]) * row["mark_price"]
    )
    lines = []
    for name, words in COSTS.items():
        if cost := row[name]:
            share = f"{1e4 * cost / traded:>8.2f} bp" if traded else f"{'':>11}"
            lines.append(f"{_dollars(cost):>12}{share}  {words}")
    total = sum(row[name] for name in COSTS)
    if not lines:
        lines = ["Nothing."]
    else:
        share = f"{1e4 * total / traded:>8.2f} bp" if traded else f"{'':>11}"
        of = f" of ${traded:,.2f} traded" if traded else ""
        lines.append(f"{_dollars(total):>12}{share}  in all{of}")
    lines.append(
        f"The price went from ${row['bar_previous_close']:,.4f} over ${row['bar_open']:,.4f} at "
        f"the open to ${row['mark_price']:,.4f}: {_dollars(row['price_pnl'])} on what was held, "
        f"{_dollars(row['net_pnl'])} net of costs."
    )
    return _section("What was paid and earned", lines)


def _dollars(value: float) -> str:
    return f"{'−' if value < 0 else ''}${abs(value):,.4f}"


def _account(row: Row, before: Row | None, config: Config) -> str:
    capital, limits = config.account.initial_capital, config.safeguards
    equity = row["equity"] * capital
    lines = [
        f"Equity ${equity:,.2f}, {100 * (row['equity'] - 1):+.3f} % since the episode began; its "
        f"peak ${row['equity_peak'] * capital:,.2f}.",
        f"Drawdown {100 * row['drawdown']:.3f} %; the soft limit is "
        f"{100 * limits.soft_dd_pct:g} %, the hard limit {100 * limits.hard_dd_pct:g} %.",
    ]
    if row["position"] or row["trip_closed"]:
        what = "closed with" if row["trip_closed"] else "open, so far"
        lines.append(f"Round trip {what} {_dollars(row['trip_pnl'] * capital)} after costs.")
    if row["purgatory_entered"]:
        lines.append("The soft limit was passed in this step: the drawdown penalty begins.")
    elif row["in_purgatory"]:
        lines.append(
            f"Beyond the soft limit for {row['soft_breach_run']} steps in a position."
            if row["soft_breach_run"]
            else "In recovery from a soft drawdown, until a new peak or a "
            f"{100 * limits.purgatory_escape_threshold_pct:g} % rise from the trough."
        )
    events = {
        "escaped": "The account recovered in this step: the drawdown is counted anew.",
        "hard_breach": "The hard limit was hit in this step: the position will be closed and "
        "entries are locked.",
        "lock_released": "The lock on entries was released.",
        "early_warning": "Early warning: well beyond the soft limit for long.",
        "terminated": "The episode ended here.",
    }
    lines += [sentence for name, sentence in events.items() if row[name]]
    if row["locked"] and not row["hard_breach"]:
        lines.append("Entries are locked.")
    if row["cooldown_left"]:
        lines.append(f"The next {row['cooldown_left']} orders would be refused (cooldown).")
    if before is None and row["step"] == 0:
        lines.append(f"It was the first step, with ${capital:,.0f} and no position.")
    return _section("The account and its safeguards afterwards", lines)


TERMS = {
    "reward_equity_change": "change of equity",
    "reward_action_change": "penalty for turning round too soon",
    "reward_same_action": "penalty for asking the same again and again",
    "reward_drawdown": "penalty for a drawdown beyond the soft limit",
    "reward_recovery_bonus": "bonus for recovering",
    "reward_bootstrap_bonus": "bonus for the first profitable round trip",
}


def _rewarded(row: Row, config: Config) -> str:
    lines = [f"{row[name]:>+10.5f}  {words}" for name, words in TERMS.items() if row[name]]
    lines.append(f"{row['reward']:>+10.5f}  in all")
    per = config.reward.reward_scaling
    lines.append(f"One dollar per $50,000 of capital is {per:g}.")
    return _section("The reward that it learns from", lines)
