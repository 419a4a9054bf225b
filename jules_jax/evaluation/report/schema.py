"""What `report.json` is made of: every key with its kind and meaning, and the check against them.

The page, the documentation's table and the error messages all read the same definitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jules_jax.errors import InputError

VERSION = 1


@dataclass(frozen=True)
class Kind:
    """A kind of JSON value, in words, and the Python types that it may have."""

    name: str
    types: tuple[type, ...]


NUMBER = Kind("number", (int, float))
WHOLE = Kind("whole number", (int,))
TEXT = Kind("text", (str,))
TRUTH = Kind("true or false", (bool,))
VALUE = Kind("number, text or truth", (int, float, str, bool))


@dataclass(frozen=True)
class ListOf:
    """A list of values of one kind; some may be null where `gaps`."""

    of: Kind | Record | ListOf
    gaps: bool = False

    @property
    def name(self) -> str:
        """In words."""
        return f"list of {_plural(self.of)}"


@dataclass(frozen=True)
class MapOf:
    """An object of any keys, whose values are of one kind."""

    of: Kind | Record
    key: str

    @property
    def name(self) -> str:
        """In words."""
        return f"{_plural(self.of)} by {self.key}"


@dataclass(frozen=True)
class Record:
    """An object with the keys given; others are errors unless it is `open`."""

    name: str
    keys: Mapping[str, Key] = field(default_factory=dict)
    open: bool = False


@dataclass(frozen=True)
class Key:
    """A key's kind and meaning; whether it may be null, or be left out."""

    kind: Kind | ListOf | MapOf | Record
    what: str
    null: bool = False
    optional: bool = False


def _plural(kind: Kind | Record | ListOf | MapOf) -> str:
    if isinstance(kind, Record):
        return "objects"
    words = {"true or false": "truths", "number, text or truth": "values"}
    return words.get(
        kind.name, kind.name.replace("list ", "lists ") if " of " in kind.name else f"{kind.name}s"
    )


@dataclass(frozen=True)
class Metric:
    """A metric of a policy: how it is called, shown and defined.

    unit: "dollars", "bp", "share" (shown in %), "probability", "years", "sessions", "bars", "times"
    (multiples of capital), or "" for a bare number.
    """

    label: str
    unit: str
    what: str


METRICS: dict[str, Metric] = {
    "reward": Metric("Reward", "", "mean reward of a unit, penalties included"),
    "net_pnl": Metric("Net P&L", "dollars", "profit of a unit after all costs"),
    "gross_pnl": Metric("Gross P&L", "dollars", "profit of a unit before costs"),
    "liquidation_pnl": Metric(
        "Liquidation P&L", "dollars", "net P&L less the cost of closing what is held at the end"
    ),
    "cost_spread_bp": Metric("Spread", "bp", "half-spread paid, of turnover"),
    "cost_temporary_bp": Metric("Temporary impact", "bp", "liquidity withdrawn, of turnover"),
    "cost_transient_bp": Metric("Transient impact", "bp", "a book that refills, of turnover"),
    "cost_permanent_bp": Metric("Permanent impact", "bp", "price moved for good, of turnover"),
    "cost_fees_bp": Metric("Fees", "bp", "broker and exchange, of turnover"),
    "cost_borrow_bp": Metric("Borrow", "bp", "of short positions, of turnover"),
    "cost_total_bp": Metric("All costs", "bp", "sum of the six, of turnover"),
    "daily_return": Metric("Daily return", "share", "mean net return of a complete session"),
    "volatility": Metric("Volatility", "share", "standard deviation of net return, a year"),
    "sharpe": Metric("Sharpe ratio", "", "of daily net P&L, a year (√252)"),
    "years_needed": Metric(
        "Years needed", "years", "daily data for this Sharpe ratio to differ from 0 at 5 %"
    ),
    "psr": Metric("PSR", "probability", "probability that the true Sharpe ratio is above 0"),
    "dsr": Metric("DSR", "probability", "the same, above the best of as many trials without skill"),
    "sortino": Metric("Sortino ratio", "", "of daily net P&L, by losses alone, a year"),
    "calmar": Metric("Calmar ratio", "", "yearly return / deepest drawdown of daily closes"),
    "max_drawdown": Metric(
        "Drawdown",
        "share",
        "an account's deepest fall from a peak of equity: mean, and 5 to 95 % of accounts",
    ),
    "worst_drawdown": Metric("Worst drawdown", "share", "the deepest of any account"),
    "max_drawdown_sessions": Metric(
        "Longest drawdown", "sessions", "sessions between a peak and the next"
    ),
    "hit_rate": Metric("Hit rate", "share", "round trips that ended with a profit"),
    "day_hit_rate": Metric("Winning days", "share", "sessions that ended with a profit"),
    "profit_factor": Metric("Profit factor", "", "profits / losses, of round trips"),
    "exposure": Metric("Exposure", "share", "bars with a position"),
    "turnover": Metric("Turnover", "times", "traded a session, multiples of capital"),
    "holding_bars": Metric("Holding time", "bars", "bars that a position is held"),
    "trades_per_session": Metric("Trades a session", "", "fills a session, forced ones included"),
    "thrash_rate": Metric(
        "Thrash rate", "share", "orders that reverse the last one within the alternation window"
    ),
    "hard_breaches": Metric("Hard breaches", "", "times the hard drawdown limit fired, a unit"),
}
"""In the order of the report."""
COSTS = ("spread", "temporary", "transient", "permanent", "fees", "borrow")
"""Of `cost_…_bp`, in the order of the waterfall."""
REWARD_TERMS = (
    "equity_change",
    "action_change",
    "same_action",
    "drawdown",
    "recovery_bonus",
    "bootstrap_bonus",
)

NUMBERS = ListOf(NUMBER, gaps=True)
TEXTS = ListOf(TEXT)
INTERVAL = Record(
    "interval",
    {
        "value": Key(NUMBER, "the estimate", null=True),
        "low": Key(NUMBER, "lower end of the 95 % interval", null=True),
        "high": Key(NUMBER, "upper end of the 95 % interval", null=True),
        "error": Key(NUMBER, "standard error", null=True),
    },
)
ALL_METRICS = Record("metrics", {name: Key(INTERVAL, m.what) for name, m in METRICS.items()})
DAILY = Record(
    "daily",
    {
        "labels": Key(TEXTS, "sessions in order; empty on simulated paths"),
        "net": Key(NUMBERS, "net P&L of each, dollars an account, mean over seeds"),
        "low": Key(NUMBERS, "5 % of seeds are below"),
        "high": Key(NUMBERS, "5 % of seeds are above"),
    },
)
EQUITY = Record(
    "equity",
    {
        "bar": Key(NUMBERS, "bars since the start; at most 500 points"),
        "mean": Key(NUMBERS, "change of equity, share of capital, mean of accounts"),
        "low": Key(NUMBERS, "5 % of accounts are below"),
        "high": Key(NUMBERS, "5 % of accounts are above"),
        "drawdown": Key(NUMBERS, "mean fall from the peak, share of the peak, ≥ 0"),
    },
)
BY_MINUTE = Record(
    "by minute",
    {
        "minute": Key(NUMBERS, "minutes since the open at which a bucket begins"),
        "net": Key(NUMBERS, "net P&L of the bucket, dollars a session"),
        "orders": Key(NUMBERS, "orders in the bucket, a session"),
    },
)
HISTOGRAM = Record(
    "histogram",
    {
        "edges": Key(NUMBERS, "of the bins, one more than counts; daily net return as a share"),
        "counts": Key(NUMBERS, "sessions in each bin, mean over seeds"),
    },
)
REQUESTS = Record(
    "requests",
    {
        "sell": Key(NUMBER, "share of steps", null=True),
        "hold": Key(NUMBER, "share of steps", null=True),
        "buy": Key(NUMBER, "share of steps", null=True),
    },
)
RASTER = Record(
    "raster",
    {
        "labels": Key(TEXTS, "sessions, one a row"),
        "minute": Key(NUMBERS, "minutes since the open, one a column"),
        "request": Key(
            ListOf(NUMBERS), "mean request, −1 sell to +1 buy, a row per session; null: no bar"
        ),
    },
)
POLICY = Record(
    "policy",
    {
        "kind": Key(TEXT, "“trained”, “reference” or “oracle”"),
        "overall": Key(ALL_METRICS, "of all symbols together"),
        "symbols": Key(MapOf(ALL_METRICS, "SYMBOL"), "the same, symbol by symbol"),
        "daily": Key(DAILY, "net P&L session by session"),
        "equity": Key(EQUITY, "equity over time"),
        "by_minute": Key(BY_MINUTE, "by time of day"),
        "returns_histogram": Key(HISTOGRAM, "distribution of daily net returns"),
        "reward_terms": Key(MapOf(NUMBER, "TERM"), "Σ|term| as a share of all terms"),
        "requests": Key(REQUESTS, "what the policy asked for"),
        "raster": Key(RASTER, "what it asked for when", null=True, optional=True),
    },
)
FILL = Record(
    "fill",
    {
        "bar": Key(WHOLE, "index into the session's lists"),
        "price": Key(NUMBER, "dollars"),
        "quantity": Key(NUMBER, "shares, > 0 bought"),
        "forced": Key(TRUTH, "not asked for: the safeguards' or the session's end"),
    },
)
SESSION = Record(
    "session",
    {
        "policy": Key(TEXT, "whose"),
        "symbol": Key(TEXT, "which"),
        "label": Key(TEXT, "what is shown, such as its date"),
        "price": Key(NUMBERS, "close of each bar"),
        "position": Key(NUMBERS, "shares held at the end of each bar"),
        "request": Key(NUMBERS, "asked for in each bar: −1 sell, 0 hold, +1 buy"),
        "fills": Key(ListOf(FILL), "trades"),
        "net": Key(NUMBERS, "net P&L of each bar, dollars"),
    },
)
PROVENANCE = Record(
    "provenance",
    {
        "checkpoint": Key(TEXT, "where the weights are from; of a walk-forward a line a fold"),
        "checkpoint_hash": Key(TEXT, "of the weights; likewise", null=True),
        "config_hash": Key(TEXT, "of the resolved settings", null=True),
        "code": Key(TEXT, "commit or hash of the code", null=True),
        "versions": Key(MapOf(TEXT, "LIBRARY"), "of what it ran on"),
        "device": Key(TEXT, "what it ran on", null=True),
        "seeds": Key(WHOLE, "independent draws"),
        "episodes": Key(WHOLE, "of each policy"),
        "market": Key(TEXT, "in words"),
        "split": Key(TEXT, "“validation” or “test”; null on simulated paths", null=True),
        "data_fingerprint": Key(TEXT, "of the data; null on simulated paths", null=True),
        "notes": Key(TEXTS, "what else is to be known"),
        "trials": Key(WHOLE, "counted: agents ever trained, or records on these sessions if more"),
        "test_openings": Key(WHOLE, "times the test split was opened"),
    },
)
REPLAY = Record(
    "replay",
    {
        "episodes": Key(WHOLE, "replayed in the float64 twin"),
        "steps": Key(WHOLE, "replayed"),
        "agrees": Key(TRUTH, "whether nothing was found, in the twin or with the weights"),
        "disagreements": Key(WHOLE, "episodes on which the twin differs; 20 at most are listed"),
        "other_weights": Key(WHOLE, "episodes whose logits or values the weights do not make"),
        "tolerance": Key(TEXT, "in words"),
    },
)
GATE = Record(
    "gate",
    {
        "gate": Key(TEXT, "its name"),
        "threshold": Key(TEXT, "what it asks, in words"),
        "value": Key(NUMBER, "found", null=True),
        "standard_error": Key(NUMBER, "of the value", null=True),
        "passed": Key(TRUTH, "null where the config asks for nothing", null=True),
        "detail": Key(TEXT, "what the value is made of"),
        "advice": Key(TEXT, "what to do where it failed"),
    },
    open=True,
)
GATES = Record(
    "gates",
    {
        "passed": Key(TRUTH, "whether none failed"),
        "gates": Key(ListOf(GATE), "one by one"),
        "warnings": Key(TEXTS, "what fails no gate and should be known"),
    },
    open=True,
)
STRESS = Record(
    "scenario",
    {
        "scenario": Key(TEXT, "its name"),
        "what": Key(TEXT, "what is done to the market, in words"),
        "policy": Key(TEXT, "who trades"),
        "net_pnl": Key(INTERVAL, "dollars a unit"),
        "worst": Key(NUMBER, "net P&L of the worst account, dollars", null=True),
        "max_drawdown": Key(NUMBER, "deepest, share of the peak", null=True),
        "hard_breaches": Key(NUMBER, "times the hard limit fired, in all episodes", null=True),
        "forced_exits": Key(NUMBER, "positions closed by safeguards, in all episodes", null=True),
    },
    open=True,
)
CAPACITY = Record(
    "capital",
    {
        "capital": Key(NUMBER, "dollars"),
        "policy": Key(TEXT, "who trades"),
        "net_pnl": Key(INTERVAL, "dollars a unit"),
        "net_bp": Key(NUMBER, "net P&L, bp of capital", null=True),
        "cost_bp": Key(NUMBER, "costs, bp of turnover", null=True),
        "participation": Key(NUMBER, "of the volume of bars traded in, share", null=True),
    },
    open=True,
)
SENSITIVITY = Record(
    "setting",
    {
        "parameter": Key(TEXT, "what is changed"),
        "value": Key(VALUE, "to what", null=True),
        "policy": Key(TEXT, "who trades"),
        "net_pnl": Key(INTERVAL, "dollars a unit"),
    },
    open=True,
)
FOLD = Record(
    "fold",
    {
        "train": Key(ListOf(VALUE), "first and last session trained on"),
        "validation": Key(
            ListOf(VALUE), "first and last session of those to choose a checkpoint by", null=True
        ),
        "test": Key(ListOf(VALUE), "first and last session traded"),
        "sessions": Key(WHOLE, "traded"),
        "symbols": Key(TEXTS, "traded"),
        "net_pnl": Key(NUMBER, "of the greedy policy, dollars an account", null=True),
        "sampled_net_pnl": Key(NUMBER, "of the sampled policy, dollars an account", null=True),
        "best_reference": Key(TEXT, "the reference policy that nets most on this test"),
        "best_reference_net_pnl": Key(NUMBER, "of that one, dollars an account", null=True),
        "gross_pnl": Key(NUMBER, "of the greedy policy, dollars an account", null=True),
        "cost_total_bp": Key(NUMBER, "of the greedy policy, of turnover", null=True),
        "sharpe": Key(NUMBER, "of the greedy policy, a year", null=True),
        "sharpe_error": Key(NUMBER, "standard error of that", null=True),
        "stopped_accounts": Key(WHOLE, "of the greedy policy, ended by a hard breach"),
        "checkpoint": Key(TEXT, "that was tested"),
        "checkpoint_hash": Key(TEXT, "of its weights"),
    },
    open=True,
)
WALK_FORWARD = Record(
    "walk-forward",
    {
        "windows": Key(TEXT, "lengths in sessions, as asked for"),
        "folds": Key(ListOf(FOLD), "in order"),
        "overall": Key(ALL_METRICS, "of the greedy policy, of all tests joined"),
        "sentence": Key(TEXT, "what came out"),
        "trials": Key(WHOLE, "counted: agents ever trained, or records on these sessions if more"),
        "test_openings": Key(WHOLE, "times that test splits were opened, these included"),
        "notes": Key(TEXTS, "what is not tested, or may not be unseen"),
    },
)
REPORT = Record(
    "report",
    {
        "schema_version": Key(WHOLE, f"{VERSION}"),
        "created": Key(TEXT, "ISO time"),
        "sentence": Key(TEXT, "whether the policy has anything, and how sure we are"),
        "provenance": Key(PROVENANCE, "what was evaluated, on what"),
        "unit": Key(TEXT, "what P&L is stated for: an episode or an account, and its length"),
        "scenario_unit": Key(TEXT, "the same, of stress, capacity and sensitivity"),
        "policies": Key(MapOf(POLICY, "POLICY"), "in the order of the tables, trained first"),
        "sessions_shown": Key(ListOf(SESSION), "a few, bar by bar"),
        "replay": Key(REPLAY, "of the float64 twin", null=True),
        "gates": Key(GATES, "of gates.json, where it was found", null=True),
        "stress": Key(ListOf(STRESS), "where asked for (--stress)", null=True),
        "capacity": Key(ListOf(CAPACITY), "where asked for (--capacity)", null=True),
        "sensitivity": Key(ListOf(SENSITIVITY), "where asked for (--sensitivity)", null=True),
        "walk_forward": Key(WALK_FORWARD, "where asked for (--walk-forward)", null=True),
    },
)
ALIGNED = {
    "daily": ("labels", "net", "low", "high"),
    "equity": ("bar", "mean", "low", "high", "drawdown"),
    "by minute": ("minute", "net", "orders"),
    "session": ("price", "position", "request", "net"),
    "raster": ("labels", "request"),
}
"""Lists of a record that are as long as each other."""


def plain(value: Any) -> Any:
    """The same of JSON's own types: NumPy's become Python's, and what is not finite null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def check(report: Any) -> None:
    """Raises `InputError` that names the first key that is missing, unknown or of another kind.

    report: of JSON's own types, as `plain` makes them.
    """
    for fault in _faults(report, Key(REPORT, ""), ""):
        raise InputError(f"report.json: {fault}")
    if not report["policies"]:
        raise InputError("report.json: policies is empty, expected at least one")
    if report["schema_version"] != VERSION:
        raise InputError(
            f"report.json: schema_version is {report['schema_version']}, expected {VERSION}"
        )


def _faults(value: Any, key: Key, path: str) -> Iterator[str]:
    kind, place = key.kind, path or "the report"
    if value is None:
        if not key.null:
            yield f"{place} is null, expected {_a(kind.name)}"
    elif isinstance(kind, Kind):
        truth = isinstance(value, bool)
        if not isinstance(value, kind.types) or (truth and bool not in kind.types):
            yield f"{place} is {_shown(value)}, expected {_a(kind.name)}"
    elif isinstance(kind, ListOf):
        yield from _list_faults(value, kind, place)
    elif not isinstance(value, dict):
        yield f"{place} is {_shown(value)}, expected an object ({kind.name})"
    elif isinstance(kind, MapOf):
        for name, one in value.items():
            yield from _faults(one, Key(kind.of, "", null=kind.of is NUMBER), f"{path}.{name}")
    else:
        yield from _record_faults(value, kind, path)


def _list_faults(value: Any, kind: ListOf, place: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{place} is {_shown(value)}, expected {_a(kind.name)}"
        return
    for number, one in enumerate(value):
        yield from _faults(one, Key(kind.of, "", null=kind.gaps), f"{place}[{number}]")


def _record_faults(value: dict[str, Any], kind: Record, path: str) -> Iterator[str]:
    place = path or "the report"
    for name, key in kind.keys.items():
        if name in value:
            yield from _faults(value[name], key, f"{path}.{name}" if path else name)
        elif not key.optional:
            yield f"{place} lacks the key “{name}” ({key.what})"
    for name in value:
        if name not in kind.keys and not kind.open:
            yield f"{place} has the key “{name}”, expected one of {', '.join(kind.keys)}"
    names = ALIGNED.get(kind.name, ())
    lengths = {name: len(value[name]) for name in names if isinstance(value.get(name), list)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        yield f"lists of {place} differ in length ({told}), expected one length"
    if kind is HISTOGRAM and len(value["edges"]) != len(value["counts"]) + bool(value["counts"]):
        yield f"{place}.edges has {len(value['edges'])} entries, expected one more than counts"


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def markdown() -> str:
    """Two tables for the documentation: every key of report.json, and every metric."""
    lines = ["| key | kind | meaning |", "|---|---|---|"]
    lines += [f"| `{path}` | {kind} | {what} |" for path, kind, what in _rows(REPORT, "")]
    lines += ["", "| METRIC | unit | meaning |", "|---|---|---|"]
    units = {"": "number", "times": "multiples of capital"}
    for name, metric in METRICS.items():
        lines.append(f"| `{name}` | {units.get(metric.unit, metric.unit)} | {metric.what} |")
    return "\n".join(lines)


def _rows(record: Record, path: str) -> Iterator[tuple[str, str, str]]:
    for name, key in record.keys.items():
        place, inside = f"{path}{name}", key.kind
        told = "object" if isinstance(inside, Record) else inside.name
        told += ", or null" * key.null + ", may be left out" * key.optional
        yield place, told, key.what
        while isinstance(inside, ListOf | MapOf):
            place += "[]" if isinstance(inside, ListOf) else f".{inside.key}"
            inside = inside.of
        if inside is ALL_METRICS:
            place, inside = f"{place}.METRIC", INTERVAL
            if place != "policies.POLICY.overall.METRIC":  # told once
                continue
        elif inside is INTERVAL and path:
            continue
        if isinstance(inside, Record):
            yield from _rows(inside, f"{place}.")
