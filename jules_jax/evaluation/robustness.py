"""Robustness: what is left of a policy's earnings when the market, its size or its costs change.

Three questions. *Stress*: what do the safeguards do, and what is lost, when the market behaves as
in `market.stress`? *Capacity*: how much money can the policy carry, before its own impact and the
cap on its share of the volume eat what it earns? *Sensitivity*: how far does the verdict hang on a
spread, an impact, a cooldown or one bar of latency that were assumed?

All of them replay the same episodes under other terms; differences between rows are paired. Rows
are dictionaries as `report.json` has them: dollars per episode, shares as fractions, `_bp` in basis
points. An interval is `{"value", "low", "high", "error"}`, 95 %, over clusters of episodes; what is
undefined is None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.agent import network, policy
from jules_jax.config import Config
from jules_jax.env.metrics import COSTS, step_metrics
from jules_jax.env.params import make_params
from jules_jax.env.record import Outcome, StepRecord
from jules_jax.evaluation import backtest, reference_policies, statistics
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.reference_policies import Reference
from jules_jax.market import stress as stresses
from jules_jax.market.stress import Scenario
from jules_jax.market.table import MarketData, Row

Line = dict[str, Any]
Played = dict[str, np.ndarray]

CAPITALS = tuple(float(capital) for capital in np.geomspace(1e4, 1e9, 11))
"""Dollars: half a decade apart."""
SPREADS = (0.0, 0.5, 1.0, 2.0, 4.0)
IMPACTS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Multiples of what is configured."""
COOLDOWNS = (0.5, 1.0, 2.0)
"""Multiples of the bars configured: few, as each is a program of its own."""
LATENCIES = (0, 1, 2)
"""Bars between a decision and its execution beyond the one that every order waits."""
IMPACT_KEYS = ("fills.temporary_impact", "fills.impact_prefactor")
"""η and Y: temporary impact is proportional to the one, transient and permanent to the other."""
HALF_SPREAD = Row._fields.index("half_spread")


def contenders(config: Config, weights: network.Params) -> list[Reference]:
    """The trained policy, greedy and sampled, beside buy and hold, random orders and nothing."""
    greedy, sampled = policy.trained(config.network)
    evenly = jnp.asarray(reference_policies.EVENLY, jnp.float32)
    return [
        Reference(greedy.name, greedy, weights, "trained", "what it would most likely do"),
        Reference(sampled.name, sampled, weights, "trained", "as it is trained"),
        Reference("buy and hold", reference_policies.HOLDER, (), "reference", "long"),
        Reference("random", reference_policies.RANDOM, evenly, "reference", "anything, evenly"),
        Reference("flat", reference_policies.FLAT, (), "reference", "nothing"),
    ]


def measure(record: StepRecord) -> dict[str, jax.Array]:
    """`step_metrics`, and what tells of caps and losses; float32 scalars by name.

    trade/fills: at the open, forced or not. trade/cut: orders that the cap on volume made smaller,
    or nothing of. trade/participation: share of the bar's volume taken. trade/deployed: position as
    a share of a lot. risk/hard_liquidations: fills forced by a hard breach. risk/loss_max: dollars
    lost in a bar.
    """
    filled = record.quantity != 0
    shares = jnp.abs(record.quantity) * record.quantity_step
    taken = jnp.where(filled, shares / jnp.maximum(record.volume, 1e-30), 0.0)
    held = jnp.abs(record.position) / jnp.maximum(record.lot, 1)
    more = {
        "trade/fills": filled,
        "trade/cut": record.capped_by_participation,
        "trade/missed": record.capped_by_participation & ~filled,
        "trade/participation": taken,
        "trade/participation_max": taken,
        "trade/deployed": jnp.where(record.position != 0, held, 0.0),
        "risk/hard_liquidations": filled & (record.outcome == Outcome.HARD_LIQUIDATION),
        "risk/loss_max": jnp.maximum(-record.net_pnl, 0.0),
    }
    return {
        **step_metrics(record),
        **{name: jnp.asarray(value, jnp.float32) for name, value in more.items()},
    }


# -- stress --------------------------------------------------------------------------------------


def stress(
    config: Config,
    policies: Sequence[Reference],
    market: stresses.Market,
    starts: Starts,
    key: jax.Array,
    *,
    scenarios: Sequence[Scenario] | None = None,
) -> list[Line]:
    """Episodes of every policy in every scenario: earnings, worst losses, what safeguards did.

    market: the held-out market under a scenario (`stress.of_split`, `stress.of_fresh_paths`), in
    which `starts` are the same bars.
    """
    rows = []
    for scenario in scenarios or stresses.scenarios(config.max_steps_in_episode):
        env_params = make_params(scenario.settings(config), market(scenario))
        for one in policies:
            played = backtest.run_episodes(
                one.policy, one.params, env_params, starts, key, measure=measure
            )
            rows.append(
                {
                    "scenario": scenario.name,
                    "what": scenario.what,
                    "policy": one.name,
                    **_earned(played, starts, config.account.initial_capital),
                    **_safeguarded(played),
                }
            )
    return rows


def _safeguarded(played: Played) -> Line:
    """Worst losses, and counts over all episodes of what the safeguards did."""
    breached = played["risk/hard_breaches"] > 0
    return {
        "worst": float(played["pnl/net"].min()),
        "worst_bar": -float(played["risk/loss_max"].max()),
        "max_drawdown": float(played["max_drawdown"].max()),
        "mean_drawdown": float(played["max_drawdown"].mean()),
        "hard_breaches": int(played["risk/hard_breaches"].sum()),
        "episodes_breached": int(breached.sum()),
        "hard_liquidations": int(played["risk/hard_liquidations"].sum()),
        "forced_exits": int(played["trade/forced_exits"].sum()),
        "session_liquidations": int(played["trade/session_liquidations"].sum()),
        "purgatories": int(played["risk/purgatory_entries"].sum()),
        "escapes": int(played["risk/escapes"].sum()),
        "early_warning_steps": int(played["risk/early_warnings"].sum()),
        "orders_missed": int(played["trade/missed"].sum()),
    }


# -- capacity ------------------------------------------------------------------------------------


def capacity(
    config: Config,
    policies: Sequence[Reference],
    market: MarketData,
    starts: Starts,
    key: jax.Array,
    *,
    capitals: Sequence[float] = CAPITALS,
) -> list[Line]:
    """Episodes of every policy with every initial capital, dollars; all capitals in one run.

    Lots grow with the capital, the market does not. What the cap on participation does not fill is
    never ordered again by itself, so that from some capital on the position no longer grows.
    """
    env_params = make_params(config.for_evaluation(), market)
    rows = []
    for one in policies:
        played = backtest.run_numbers(
            one.policy, one.params, env_params, starts, key,
            {"account.initial_capital": capitals}, measure=measure,
        )  # fmt: skip
        for place, capital in enumerate(capitals):
            at = {name: values[place] for name, values in played.items()}
            rows.append(
                {
                    "capital": float(capital),
                    "policy": one.name,
                    **_earned(at, starts, capital),
                    **_capped(at, config.account.max_position_lots),
                }
            )
    return rows


def _capped(played: Played, lots: int) -> Line:
    """How much of the market was taken, and how much of what was wanted."""
    fills = played["trade/fills"].sum()
    asked = fills + played["trade/missed"].sum()
    return {
        "participation": _ratio(played["trade/participation"].sum(), fills),
        "participation_max": float(played["trade/participation_max"].max()),
        "orders_cut": _ratio(played["trade/cut"].sum(), asked),
        "deployed": _ratio(
            played["trade/deployed"].sum(), lots * played["trade/exposed_steps"].sum()
        ),
    }


def capacity_sentence(rows: Sequence[Line], policy_name: str) -> str:
    """What the capacity of a policy is, in one sentence."""
    mine = [row for row in rows if row["policy"] == policy_name]
    best = max(mine, key=lambda row: float(row["net_pnl"]["value"]))
    if best["net_pnl"]["value"] <= 0:
        return f"{policy_name}: earns nothing at any capital"
    found = (
        f"{policy_name}: most dollars with {_dollars(best['capital'])}, "
        f"{_dollars(best['net_pnl']['value'])} an episode or {best['net_bp']:.2f} bp of it"
    )
    first = mine[0]
    half = next((row for row in mine if row["net_bp"] < 0.5 * first["net_bp"]), None)
    if half is not None and first["net_bp"] > 0:
        found += (
            f"; half of what it earns per dollar with {_dollars(first['capital'])} "
            f"({first['net_bp']:.2f} bp) is gone at {_dollars(half['capital'])}"
        )
    cut = next((row for row in mine if (row["orders_cut"] or 0.0) > 0.5), None)
    if cut is not None:
        found += f"; from {_dollars(cut['capital'])} on, most orders meet the volume cap"
    return found


# -- sensitivity ---------------------------------------------------------------------------------


def sensitivity(
    config: Config,
    policies: Sequence[Reference],
    market: MarketData,
    starts: Starts,
    key: jax.Array,
) -> list[Line]:
    """Episodes of every policy under other spreads, impacts, cooldowns and latencies, one changed.

    Spread (bp) and impact (a multiple of η and Y, hence of all three impacts) are numbers: one
    compiled program each. Cooldown and latency (bars) are not: one program for each value.
    """
    rows = []
    for one in policies:
        for parameter, vary in (
            ("spread, bp", _spreads),
            ("impact, ×", _impacts),
            ("cooldown, bars", _cooldowns),
            ("latency, bars", _latencies),
        ):
            for value, played in vary(config.for_evaluation(), one, market, starts, key):
                rows.append(
                    {
                        "parameter": parameter,
                        "value": float(value),
                        "policy": one.name,
                        **_earned(played, starts, config.account.initial_capital),
                    }
                )
    return rows


Varied = list[tuple[float, Played]]
Vary = Callable[[Config, Reference, MarketData, Starts, jax.Array], Varied]


def _spreads(
    config: Config, one: Reference, market: MarketData, starts: Starts, key: jax.Array
) -> Varied:
    """Where rows have a half-spread of their own it is scaled too, in a table for each value."""
    configured = config.fills.bid_ask_spread_bps
    values = [factor * configured for factor in SPREADS]
    if not bool(jnp.any(market.rows[:, HALF_SPREAD] > 0)):
        numbers = {"fills.bid_ask_spread_bps": values}
        return _numbers(config, one, market, starts, key, values, numbers)
    found: Varied = []
    for factor, value in zip(SPREADS, values, strict=True):
        # A half-spread of 0 would stand for the configured one, which is of the same factor.
        scaled = market.rows.at[:, HALF_SPREAD].multiply(factor)
        under = dataclasses.replace(market, rows=scaled)
        found += _numbers(
            config, one, under, starts, key, [value], {"fills.bid_ask_spread_bps": [value]}
        )
    return found


def _impacts(
    config: Config, one: Reference, market: MarketData, starts: Starts, key: jax.Array
) -> Varied:
    configured = (config.fills.temporary_impact, config.fills.impact_prefactor)
    numbers = {
        name: [factor * value for factor in IMPACTS]
        for name, value in zip(IMPACT_KEYS, configured, strict=True)
    }
    return _numbers(config, one, market, starts, key, IMPACTS, numbers)


def _numbers(
    config: Config,
    one: Reference,
    market: MarketData,
    starts: Starts,
    key: jax.Array,
    values: Sequence[float],
    numbers: dict[str, list[float]],
) -> Varied:
    env_params = make_params(config, market)
    played = backtest.run_numbers(
        one.policy, one.params, env_params, starts, key, numbers, measure=measure
    )
    return [
        (value, {name: metrics[place] for name, metrics in played.items()})
        for place, value in enumerate(values)
    ]


def _cooldowns(
    config: Config, one: Reference, market: MarketData, starts: Starts, key: jax.Array
) -> Varied:
    configured, found = config.safeguards.trade_cooldown_steps, []
    for bars in sorted({math.ceil(factor * configured) for factor in COOLDOWNS}):
        safeguards = dataclasses.replace(config.safeguards, trade_cooldown_steps=bars)
        env_params = make_params(dataclasses.replace(config, safeguards=safeguards), market)
        played = backtest.run_episodes(
            one.policy, one.params, env_params, starts, key, measure=measure
        )
        found.append((float(bars), played))
    return found


def _latencies(
    config: Config, one: Reference, market: MarketData, starts: Starts, key: jax.Array
) -> Varied:
    env_params = make_params(config, market)
    return [
        (
            float(bars),
            backtest.run_episodes(
                reference_policies.delayed(one.policy, bars), one.params, env_params, starts, key,
                measure=measure,
            ),
        )
        for bars in LATENCIES
    ]  # fmt: skip


# -- rows ----------------------------------------------------------------------------------------


def _earned(played: Played, starts: Starts, capital: float) -> Line:
    """What was earned and paid, of episodes `[N]`."""
    net, gross = played["pnl/net"], played["pnl/gross"]
    costs = sum(float(played[f"cost/{name}"].sum(dtype=np.float64)) for name in COSTS)
    return {
        "episodes": len(net),
        "net_pnl": interval(net, starts.cluster),
        "net_bp": 1e4 * float(net.mean(dtype=np.float64)) / capital,
        "gross_bp": 1e4 * float(gross.mean(dtype=np.float64)) / capital,
        "cost_bp": _ratio(1e4 * costs, played["trade/turnover"].sum(dtype=np.float64)),
        "orders": float(played["trade/orders"].mean()),
        "turnover": float(played["trade/turnover"].mean(dtype=np.float64)) / capital,
        "reward": float(played["reward"].mean()),
    }


def interval(values: np.ndarray, cluster: np.ndarray) -> Line:
    """Mean of the clusters' means with its 95 % bootstrap interval and standard error."""
    found = statistics.mean_interval(values, cluster)
    _, error = backtest.mean_and_error(values, cluster)
    numbers = {**found._asdict(), "error": error}
    return {name: x if math.isfinite(x) else None for name, x in numbers.items()}


def _ratio(numerator: Any, denominator: Any) -> float | None:
    return float(numerator) / float(denominator) if denominator else None


# -- tables --------------------------------------------------------------------------------------


def stress_table(rows: Sequence[Line]) -> str:
    """Rows of `stress` as text."""
    columns = (
        ("policy", 18, lambda row: row["policy"]),
        ("net P&L, $ an episode", 36, lambda row: _interval(row["net_pnl"])),
        ("worst, $", 12, lambda row: f"{row['worst']:,.0f}"),
        ("worst bar, $", 13, lambda row: f"{row['worst_bar']:,.0f}"),
        ("drawdown", 10, lambda row: f"{100 * row['max_drawdown']:.2f} %"),
        ("breaches", 10, lambda row: f"{row['hard_breaches']:,}"),
        ("forced exits", 13, lambda row: f"{row['forced_exits']:,}"),
        ("purgatories", 12, lambda row: f"{row['purgatories']:,}"),
        ("escapes", 9, lambda row: f"{row['escapes']:,}"),
        ("cost, bp", 9, lambda row: _number(row["cost_bp"])),
    )
    return _table(rows, "scenario", "what", columns)


def capacity_table(rows: Sequence[Line]) -> str:
    """Rows of `capacity` as text, policy after policy, each with its sentence."""
    columns = (
        ("capital", 10, lambda row: _dollars(row["capital"])),
        ("net P&L, $ an episode", 40, lambda row: _interval(row["net_pnl"])),
        ("net, bp", 10, lambda row: _number(row["net_bp"])),
        ("gross, bp", 10, lambda row: _number(row["gross_bp"])),
        ("cost, bp", 9, lambda row: _number(row["cost_bp"])),
        ("orders", 8, lambda row: f"{row['orders']:.1f}"),
        ("of volume", 11, lambda row: _share(row["participation"])),
        ("orders cut", 12, lambda row: _share(row["orders_cut"])),
        ("deployed", 10, lambda row: _share(row["deployed"])),
    )
    names = dict.fromkeys(row["policy"] for row in rows)
    said = [{"policy": name, "what": capacity_sentence(rows, name)} for name in names]
    notes = {one["policy"]: one["what"] for one in said}
    return _table(
        [{**row, "what": notes[row["policy"]]} for row in rows], "policy", "what", columns
    )


def sensitivity_table(rows: Sequence[Line]) -> str:
    """Rows of `sensitivity` as text, policy after policy."""
    columns = (
        ("parameter", 16, lambda row: row["parameter"]),
        ("value", 8, lambda row: f"{row['value']:g}"),
        ("net P&L, $ an episode", 36, lambda row: _interval(row["net_pnl"])),
        ("net, bp", 9, lambda row: _number(row["net_bp"])),
        ("gross, bp", 10, lambda row: _number(row["gross_bp"])),
        ("cost, bp", 9, lambda row: _number(row["cost_bp"])),
        ("orders", 8, lambda row: f"{row['orders']:.1f}"),
    )
    return _table(rows, "policy", None, columns)


Column = tuple[str, int, Callable[[Line], str]]


def _table(rows: Sequence[Line], group: str, what: str | None, columns: Sequence[Column]) -> str:
    """Lines of rows, those of a group under its name; the first column is to the left."""
    (first, width, _), *others = columns
    header = f"{first:<{width}}" + "".join(f"{name:>{wide}}" for name, wide, _ in others)
    lines, current = [header, "-" * len(header)], None
    for row in rows:
        if row[group] != current:
            current = row[group]
            lines += ["", current if what is None else _titled(current, row[what])]
        text = [cell(row) for _, _, cell in columns]
        cells = zip(text[1:], others, strict=True)
        lines.append(f"{text[0]:<{width}}" + "".join(f"{t:>{wide}}" for t, (_, wide, _) in cells))
    return "\n".join(lines)


def _titled(name: str, what: str) -> str:
    return what if what.startswith(name) else f"{name}: {what}"


def _interval(found: Line) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if low is None:
        return f"{value:,.2f}"
    return f"{value:,.2f} [{low:,.2f}, {high:,.2f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _dollars(amount: float) -> str:
    for unit, name in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if abs(amount) >= 0.9995 * unit:
            return f"${amount / unit:,.3g}{name}"
    return f"${amount:,.0f}"
