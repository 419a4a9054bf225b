"""Tables of the page: numbers of the report, formatted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jules_jax.evaluation.report import drawing, schema, sentences, wording

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and a smaller second line; `side` aligns: "number" or "text"."""

    text: str
    note: str = ""
    side: str = "number"
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """A row: its heading, the role of its colour or '', and its cells."""

    name: str
    role: str
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table: what it shows, its columns (heading and meaning) and rows."""

    caption: str
    first: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class KeyFigure:
    """One of the figures that lead the page."""

    label: str
    value: str
    note: str


OVERVIEW = (
    "net_pnl",
    "cost_total_bp",
    "sharpe",
    "years_needed",
    "psr",
    "dsr",
    "max_drawdown",
    "trades_per_session",
)
"""Metrics of the table of policies."""
BY_SYMBOL = (
    "net_pnl",
    "gross_pnl",
    "cost_total_bp",
    "sharpe",
    "max_drawdown",
    "trades_per_session",
)
NO_ENDS = {"sharpe", "reward"}
"""Metrics that are shown with their standard error."""
NO_NOTE = {"trades_per_session"}
"""Metrics that are shown alone."""


def _metric(metrics: Report, name: str) -> Mapping[str, Any]:
    one: Mapping[str, Any] = metrics[name]
    return one


def _columns(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((schema.METRICS[name].label, schema.METRICS[name].what) for name in names)


def _places(rows: Iterable[Report], names: Sequence[str]) -> dict[str, int | None]:
    rows = list(rows)
    return {
        name: None
        if schema.METRICS[name].unit == "years"  # from weeks to centuries in one column
        else wording.decimals_of(
            [_metric(row, name)["value"] for row in rows], schema.METRICS[name].unit
        )
        for name in names
    }


def _cell(one: Mapping[str, Any], name: str, places: int | None) -> Cell:
    unit = schema.METRICS[name].unit
    if name in NO_NOTE:
        note = ""
    elif name in NO_ENDS:
        note = wording.plus_minus(one, unit, places)
    else:
        note = wording.interval(one, unit, places)
    value = wording.show(one["value"], unit, places)
    if unit == "years":
        value = value.removesuffix("\u202fyears")  # the column's heading says it
    return Cell(value, note if one["value"] is not None else "")


def _metric_rows(rows: Sequence[tuple[str, str, Report]], names: Sequence[str]) -> tuple[Row, ...]:
    places = _places((metrics for _, _, metrics in rows), names)
    return tuple(
        Row(name, role, tuple(_cell(_metric(metrics, m), m, places[m]) for m in names))
        for name, role, metrics in rows
    )


def _roles(report: Report) -> dict[str, str]:
    return {name: role for name, (role, _) in drawing.roles(report["policies"]).items()}


def key_figures(report: Report, who: str) -> list[KeyFigure]:
    """The figures that answer what a policy is worth, and how sure that is."""
    metrics, origin = report["policies"][who]["overall"], report["provenance"]

    def show(name: str) -> str:
        return wording.show(metrics[name]["value"], schema.METRICS[name].unit)

    net, sharpe, years = metrics["net_pnl"], metrics["sharpe"], metrics["years_needed"]["value"]
    ends = wording.interval(net, "dollars")
    sessions = metrics["max_drawdown_sessions"]["value"]
    return [
        KeyFigure("Net P&L", show("net_pnl"), f"95 %: {ends}" if ends else "interval unknown"),
        KeyFigure(
            "Sharpe ratio",
            show("sharpe"),
            f"{wording.plus_minus(sharpe) or '± unknown'} (one standard error), a year",
        ),
        KeyFigure(
            "Data needed",
            show("years_needed"),
            "of days for that Sharpe ratio to differ from 0"
            if years is not None
            else "no amount: the Sharpe ratio is not above 0, or unknown",
        ),
        KeyFigure("PSR", show("psr"), "probability that the Sharpe ratio is above 0"),
        KeyFigure(
            "DSR",
            show("dsr"),
            f"the same, after {wording.count(origin['trials'], 'trial')}",
        ),
        KeyFigure("Costs", show("cost_total_bp"), sentences.costs_note(metrics)),
        KeyFigure(
            "Worst drawdown",
            show("worst_drawdown"),
            "of any account"
            if sessions is None
            else f"of any account; longest {wording.count(sessions, 'session')}",
        ),
        KeyFigure("Trades", show("trades_per_session"), "fills a session"),
    ]


def policies(report: Report) -> Table:
    """Every policy, overall, by the metrics that decide."""
    roles = _roles(report)
    rows = [(name, roles[name], one["overall"]) for name, one in report["policies"].items()]
    return Table(
        f"Per {report['unit']}; small print is the 95 % interval, ± one standard error, or of "
        "drawdown where 5 to 95 % of accounts are",
        "Policy",
        _columns(OVERVIEW),
        _metric_rows(rows, OVERVIEW),
    )


def everything(report: Report) -> Table:
    """Every metric of every policy, a row per metric."""
    names = list(report["policies"])
    rows = []
    for name, metric in schema.METRICS.items():
        found = [_metric(report["policies"][who]["overall"], name) for who in names]
        places = _places((report["policies"][who]["overall"] for who in names), [name])[name]
        cells = tuple(_cell(one, name, places) for one in found)
        rows.append(Row(metric.label, "", cells, metric.what))
    return Table(
        f"Every metric, per {report['unit']}",
        "Metric",
        tuple((name, "") for name in names),
        tuple(rows),
    )


def costs(report: Report) -> Table:
    """Costs of every policy that traded, in bp of turnover."""
    names = [f"cost_{name}_bp" for name in schema.COSTS] + ["cost_total_bp"]
    roles = _roles(report)
    rows = [
        (name, roles[name], one["overall"])
        for name, one in report["policies"].items()
        if one["overall"]["cost_total_bp"]["value"] is not None
    ]
    return Table("bp of turnover", "Policy", _columns(names), _metric_rows(rows, names))


def requests(report: Report) -> Table:
    """Shares of steps on which a policy asked to sell, hold or buy."""
    roles = _roles(report)
    rows = tuple(
        Row(
            name,
            roles[name],
            tuple(
                Cell(wording.show(one["requests"][what], "share", 1))
                for what in ("sell", "hold", "buy")
            ),
        )
        for name, one in report["policies"].items()
    )
    columns = (("Sell", ""), ("Hold", ""), ("Buy", ""))
    return Table("Share of steps on which it was asked for", "Policy", columns, rows)


def symbols(report: Report) -> list[Table]:
    """One table per symbol, of all policies; empty for one symbol, which is the whole."""
    names = dict.fromkeys(
        symbol for one in report["policies"].values() for symbol in one["symbols"]
    )
    if len(names) < 2:
        return []
    roles = _roles(report)
    return [
        Table(
            symbol,
            "Policy",
            _columns(BY_SYMBOL),
            _metric_rows(
                [
                    (name, roles[name], one["symbols"][symbol])
                    for name, one in report["policies"].items()
                    if symbol in one["symbols"]
                ],
                BY_SYMBOL,
            ),
        )
        for symbol in names
    ]


def _extra(rows: Sequence[Report], known: schema.Record) -> list[str]:
    """Keys beyond the schema's, in the order that they appear."""
    return list(dict.fromkeys(key for row in rows for key in row if key not in known.keys))


def _money(one: Mapping[str, Any], places: int) -> Cell:
    note = wording.interval(one, "dollars", places) if one["value"] is not None else ""
    return Cell(wording.show(one["value"], "dollars", places), note)


def stress(report: Report) -> Table | None:
    """Scenarios, with what the safeguards did."""
    rows = report["stress"]
    if rows is None:
        return None
    extra, (caption, several) = _extra(rows, schema.STRESS), _told(report, rows)
    caption += "; breaches and exits of all episodes together"
    places = wording.decimals_of([row["net_pnl"]["value"] for row in rows], "dollars")
    shown = tuple(
        Row(
            row["scenario"],
            "",
            (
                *_name(report, row, several),
                _money(row["net_pnl"], places),
                Cell(wording.show(row["worst"], "dollars")),
                Cell(wording.show(row["max_drawdown"], "share", 2)),
                Cell(wording.show(row["hard_breaches"])),
                Cell(wording.show(row["forced_exits"])),
                *(Cell(wording.loose(row.get(key))) for key in extra),
            ),
            row["what"],
        )
        for row in rows
    )
    heads = (
        *several,
        "Net P&L",
        "Worst account",
        "Worst drawdown",
        "Hard breaches",
        "Forced exits",
    )
    columns = tuple((name, "") for name in (*heads, *map(wording.heading, extra)))
    return Table(caption, "Scenario", columns, shown)


def _told(report: Report, rows: Sequence[Report]) -> tuple[str, tuple[str, ...]]:
    """Caption of a table of several policies, and the heading of their column where they differ."""
    who = list(dict.fromkeys(row["policy"] for row in rows))
    if len(who) == 1:
        return f"“{who[0]}”, per {report['scenario_unit']}", ()
    return f"Per {report['scenario_unit']}", ("Policy",)


def _name(report: Report, row: Report, several: tuple[str, ...]) -> tuple[Cell, ...]:
    """The cell that tells whose a row is, where that differs."""
    name = row["policy"]
    return (Cell(name, side="text", tone=_roles(report).get(name, "")),) if several else ()


def capacity(report: Report) -> Table | None:
    """Net P&L by capital."""
    rows = report["capacity"]
    if rows is None:
        return None
    extra, (caption, several) = _extra(rows, schema.CAPACITY), _told(report, rows)
    shown = tuple(
        Row(
            wording.short_dollars(row["capital"]),
            "",
            (
                *_name(report, row, several),
                _money(row["net_pnl"], wording.decimals_of([row["net_pnl"]["value"]], "dollars")),
                Cell(wording.show(row["net_bp"], "bp", 1)),
                Cell(wording.show(row["cost_bp"], "bp", 1)),
                Cell(wording.show(row["participation"], "share")),
                *(Cell(wording.loose(row.get(key))) for key in extra),
            ),
        )
        for row in rows
    )
    heads = (*several, "Net P&L", "Net, of capital", "Costs, of turnover", "Participation")
    columns = tuple((name, "") for name in (*heads, *map(wording.heading, extra)))
    return Table(caption, "Capital", columns, shown)


def sensitivity(report: Report) -> Table | None:
    """Net P&L by setting."""
    rows = report["sensitivity"]
    if rows is None:
        return None
    extra, (caption, several) = _extra(rows, schema.SENSITIVITY), _told(report, rows)
    places = wording.decimals_of([row["net_pnl"]["value"] for row in rows], "dollars")
    shown = tuple(
        Row(
            wording.words(row["parameter"]),
            "",
            (
                Cell(wording.loose(row["value"])),
                *_name(report, row, several),
                _money(row["net_pnl"], places),
                *(Cell(wording.loose(row.get(key))) for key in extra),
            ),
        )
        for row in rows
    )
    heads = ("Value", *several, "Net P&L")
    columns = tuple((name, "") for name in (*heads, *map(wording.heading, extra)))
    return Table(caption, "Setting", columns, shown)


def folds(report: Report) -> Table | None:
    """Folds of the walk-forward."""
    walk = report["walk_forward"]
    if walk is None:
        return None
    extra = _extra(walk["folds"], schema.FOLD)
    moneys = [fold[key] for fold in walk["folds"] for key in ("net_pnl", "best_reference_net_pnl")]
    places = wording.decimals_of(moneys, "dollars")
    shown = tuple(
        Row(
            f"{number}",
            "",
            (
                Cell(
                    wording.loose(fold["test"]),
                    f"trained on {wording.loose(fold['train'])}",
                    side="text",
                ),
                Cell(f"{fold['sessions']:,}"),
                Cell(wording.show(fold["net_pnl"], "dollars", places)),
                Cell(wording.show(fold["sampled_net_pnl"], "dollars", places)),
                Cell(
                    wording.show(fold["best_reference_net_pnl"], "dollars", places),
                    fold["best_reference"],
                ),
                Cell(wording.show(fold["gross_pnl"], "dollars", places)),
                Cell(wording.show(fold["cost_total_bp"], "bp")),
                Cell(
                    wording.show(fold["sharpe"], "", 2),
                    wording.plus_minus({"error": fold["sharpe_error"]}, "", 2),
                ),
                Cell(f"{fold['stopped_accounts']:,}"),
                *(Cell(wording.loose(fold.get(key))) for key in extra),
            ),
        )
        for number, fold in enumerate(walk["folds"])
    )
    heads = (
        ("Tested on", ""),
        ("Sessions", ""),
        ("Net P&L", "of the greedy policy, an account"),
        ("Sampled", "net P&L of the sampled policy, an account"),
        ("Best reference", "net P&L of the reference policy that nets most"),
        ("Gross", "of the greedy policy, an account"),
        ("Costs", "of the greedy policy, of turnover"),
        ("Sharpe ratio", "of the greedy policy, ± one standard error"),
        ("Stopped", "accounts of the greedy policy that a hard breach has ended"),
    )
    columns = (*heads, *((wording.heading(key), "") for key in extra))
    return Table("Test sessions only", "Fold", columns, shown)


def walk_overall(report: Report) -> Table | None:
    """The stitched test sessions of all folds, by the metrics that decide."""
    if report["walk_forward"] is None:
        return None
    rows = [("all folds", "", report["walk_forward"]["overall"])]
    return Table("All test sessions together", "", _columns(OVERVIEW), _metric_rows(rows, OVERVIEW))


VERDICTS = {True: ("✓ passed", "good"), False: ("✗ failed", "bad"), None: ("not asked", "")}


def gates(report: Report) -> Table | None:
    """Gates, one by one."""
    if report["gates"] is None:
        return None
    shown = []
    for one in report["gates"]["gates"]:
        verdict, tone = VERDICTS[one["passed"]]
        error = one["standard_error"]
        shown.append(
            Row(
                one["gate"],
                "",
                (
                    Cell(verdict, side="text", tone=tone),
                    Cell(one["threshold"], side="text"),
                    Cell(
                        wording.loose(one["value"]),
                        "" if error is None else f"± {wording.loose(error)}",
                    ),
                ),
                ". ".join(filter(None, (one["detail"], one["advice"]))),
            )
        )
    columns = (("Verdict", ""), ("Asked", ""), ("Found", ""))
    return Table("Thresholds are the config's", "Gate", columns, tuple(shown))


def provenance(report: Report) -> list[tuple[str, str, bool]]:
    """Names, values and whether the value is code, of what makes the report repeatable."""
    one = report["provenance"]
    simulated = one["split"] is None
    listed = [
        ("Checkpoint", one["checkpoint"], True),
        ("Checkpoint hash", one["checkpoint_hash"] or "not known", True),
        ("Config hash", one["config_hash"] or "not known", True),
        ("Code", one["code"] or "not known", True),
        ("Market", one["market"], False),
        ("Split", one["split"] or "none: simulated paths", False),
        (
            "Data fingerprint",
            one["data_fingerprint"] or ("none: simulated paths" if simulated else "not known"),
            one["data_fingerprint"] is not None,
        ),
        ("Seeds", wording.count(one["seeds"], "draw"), False),
        ("Episodes", f"{one['episodes']:,} of each policy", False),
        ("Trials", f"{wording.count(one['trials'], 'trial')} counted", False),
        ("Test split opened", wording.count(one["test_openings"], "time"), False),
        ("Device", one["device"] or "not known", False),
        ("Versions", ", ".join(f"{k} {v}" for k, v in one["versions"].items()), False),
        ("Schema", f"report.json, version {report['schema_version']}", False),
    ]
    return [(name, value, code) for name, value, code in listed if value]
