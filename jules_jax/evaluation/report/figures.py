"""Figures of the report: each a function of the report and of the look, or none without data.

Those about one policy are about the first: the greedy trained one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from jules_jax.evaluation.report import schema, wording
from jules_jax.evaluation.report.drawing import Look

Report = Mapping[str, Any]
Array = NDArray[np.float64]

TERMS = dict(
    zip(
        schema.REWARD_TERMS,
        ("greedy", "loss", "oracle", "other-1", "gain", "sampled"),
        strict=True,
    )
)
"""Roles of the colours of reward terms."""
RASTER_COLUMNS, RASTER_ROWS = 78, 60
"""Most cells of the action raster: five minutes each, and sixty sessions."""


def headline(report: Report) -> str:
    """Name of the policy that the report is about: the first trained one, else the first."""
    names: list[str] = list(report["policies"])
    trained = [name for name in names if report["policies"][name]["kind"] == "trained"]
    return (trained or names)[0]


def _array(values: Iterable[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _value(one: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        one = one[name]
    value: float | None = one["value"]
    return value


def _dollars(panel: Axes, axis: str = "y") -> None:
    chosen = panel.yaxis if axis == "y" else panel.xaxis
    chosen.set_major_formatter(FuncFormatter(lambda x, _: wording.short_dollars(round(x, 9))))


def _percent(panel: Axes, axis: str = "y") -> None:
    def shown(x: float, _: int | None) -> str:
        return f"{100 * x:.4g} %".replace("-", wording.MINUS)

    (panel.yaxis if axis == "y" else panel.xaxis).set_major_formatter(FuncFormatter(shown))


def _sides(values: Array, look: Look) -> list[str]:
    return [look["gain"] if value >= 0 else look["loss"] for value in values]


# -- policies ------------------------------------------------------------------------------------


def forest(report: Report, look: Look) -> Figure | None:
    """Net P&L of every policy, with its 95 % interval."""
    rows = [(name, one["overall"]["net_pnl"]) for name, one in report["policies"].items()]
    rows = [(name, one) for name, one in rows if one["value"] is not None]
    if not rows:
        return None
    drawing = look.figure(0.55 + 0.27 * len(rows))
    panel = drawing.subplots()
    low, high = _window([(one["value"], one["low"], one["high"]) for _, one in rows])
    for place, (name, one) in enumerate(rows):
        _dot(panel, look, place, one, look.of(name), (low, high))
    panel.set_yticks(range(len(rows)), [name for name, _ in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(low, high)
    panel.set_xlabel("net P&L, dollars")
    look.style(panel, grid="x")
    panel.tick_params(axis="y", labelcolor=look["ink"])
    look.zero(panel, vertical=True)
    panel.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 7))
    _dollars(panel, "x")
    return drawing


def _window(rows: Sequence[tuple[float, float | None, float | None]]) -> tuple[float, float]:
    """Limits that show the first rows in full, and the others where they are not far off."""

    def ends(row: tuple[float, float | None, float | None]) -> tuple[float, float]:
        known = [value for value in row if value is not None]
        return min(known), max(known)

    first = [ends(row) for row in rows[:2]]
    low, high = min(0.0, *(a for a, _ in first)), max(0.0, *(b for _, b in first))
    width = max(high - low, 1e-9)
    for row in rows[2:]:
        a, b = ends(row)
        if a > low - 1.5 * width and b < high + 1.5 * width:
            low, high = min(low, a), max(high, b)
    width = max(high - low, 1e-9)
    return low - 0.08 * width, high + 0.08 * width


def _dot(
    panel: Axes,
    look: Look,
    place: float,
    one: Mapping[str, Any],
    colour: str,
    window: tuple[float, float],
) -> None:
    """An estimate and its interval in row `place`; an arrow with the value where it is outside."""
    value, (low, high) = one["value"], window
    if low <= value <= high:
        if one["low"] is not None and one["high"] is not None:
            panel.plot([one["low"], one["high"]], [place] * 2, color=colour, lw=2.2, alpha=0.55)
        panel.plot([value], [place], "o", color=colour, markersize=5.0, zorder=4)
        return
    left = value < low
    edge, inset = (low, 6) if left else (high, -6)
    panel.plot([edge], [place], "<" if left else ">", color=colour, markersize=5, clip_on=False)
    panel.annotate(
        wording.show(value, "dollars"),
        (edge, place),
        (inset, 0),
        textcoords="offset points",
        ha="left" if left else "right",
        va="center",
        color=look["muted"],
        fontsize=7.5,
    )


# -- over time -----------------------------------------------------------------------------------


def equity(report: Report, look: Look) -> Figure | None:
    """Equity of every policy over time, with the greedy one's band, and drawdown below."""
    lines = {name: one["equity"] for name, one in report["policies"].items()}
    lines = {name: one for name, one in lines.items() if len(one["bar"]) > 1}
    if not lines:
        return None
    drawing = look.figure(4.5, 4.3)
    above, below = drawing.subplots(2, sharex=True, height_ratios=(3, 1))
    first = next(iter(lines))
    band = lines[first]
    ends = [_array(values) for one in lines.values() for values in (one["low"], one["high"])]
    limits = _limits([*ends[:4]], [_array(one["mean"]) for one in list(lines.values())[2:]])
    bars = _array(band["bar"])
    above.fill_between(
        bars, _array(band["low"]), _array(band["high"]), color=look.of(first), alpha=0.16, lw=0
    )
    for name, one in lines.items():
        mean = _array(one["mean"])
        line = look.line(name)
        if limits is not None and len(mean) and not limits[0] <= mean[-1] <= limits[1]:
            line["label"] = f"{name} (to {wording.show(float(mean[-1]), 'share', 1)})"
        above.plot(_array(one["bar"]), mean, **line)
    if limits is not None:
        above.set_ylim(*limits)
    for name in list(lines)[:2] if look.policies.get(first, ("",))[0] == "greedy" else [first]:
        one = lines[name]
        below.plot(_array(one["bar"]), -_array(one["drawdown"]), **look.line(name))
    below.set_ylim(top=0.0)
    for panel, title in ((above, "equity, change"), (below, "drawdown")):
        look.style(panel)
        _percent(panel)
        panel.set_ylabel(title)
    look.zero(above)
    below.yaxis.set_major_locator(MaxNLocator(3))
    below.set_xlabel("bars since the start")
    below.xaxis.set_major_locator(MaxNLocator(5 if look.narrow else 8, integer=True))
    below.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    below.set_xlim(float(bars.min()), float(bars.max()))
    look.legend(drawing, above)
    return drawing


def _limits(needed: Sequence[Array], others: Sequence[Array]) -> tuple[float, float] | None:
    """Of an axis that shows `needed` in full, and those of `others` that are not far off."""
    known = [values[np.isfinite(values)] for values in needed]
    known = [values for values in known if values.size]
    if not known:
        return None
    low, high = min(0.0, *(v.min() for v in known)), max(0.0, *(v.max() for v in known))
    width = max(high - low, 1e-9)
    for values in others:
        values = values[np.isfinite(values)]
        if values.size and values.min() > low - width and values.max() < high + width:
            low, high = min(low, values.min()), max(high, values.max())
    pad = 0.05 * max(high - low, 1e-9)
    return float(low - pad), float(high + pad)


def daily(report: Report, look: Look) -> Figure | None:
    """Net P&L session by session."""
    one = report["policies"][headline(report)]["daily"]
    if not one["labels"]:
        return None
    net, places = _array(one["net"]), np.arange(len(one["labels"]))
    drawing = look.figure(2.3)
    panel = drawing.subplots()
    panel.bar(places, net, width=0.8, color=_sides(net, look))
    low, high = _array(one["low"]), _array(one["high"])
    if np.isfinite(low).any() and np.nanmax(high - low) > 0:
        panel.vlines(places, low, high, color=look["muted"], linewidth=0.9)
    _labelled(panel, one["labels"], 3 if look.narrow else 8)
    panel.set_ylabel("net P&L")
    look.style(panel)
    look.zero(panel)
    _dollars(panel)
    return drawing


def _labelled(panel: Axes, labels: Sequence[str], most: int) -> None:
    step = max(1, -(-len(labels) // most))
    panel.set_xticks(range(0, len(labels), step), labels[::step])


def by_minute(report: Report, look: Look) -> Figure | None:
    """Net P&L and orders by time of day."""
    one = report["policies"][headline(report)]["by_minute"]
    minutes, net, orders = (_array(one[name]) for name in ("minute", "net", "orders"))
    if not minutes.size:
        return None
    width = float(np.min(np.diff(minutes))) if minutes.size > 1 else 30.0
    drawing = look.figure(2.9)
    above, below = drawing.subplots(2, sharex=True, height_ratios=(2, 1))
    above.bar(minutes, net, width=0.86 * width, align="edge", color=_sides(net, look))
    below.bar(minutes, orders, width=0.86 * width, align="edge", color=look["muted"], alpha=0.6)
    above.set_ylabel("net P&L a session")
    below.set_ylabel("orders a session")
    below.set_xlabel("time since the open, h:min")
    for panel in (above, below):
        look.style(panel)
        panel.yaxis.set_major_locator(MaxNLocator(4))
    look.zero(above)
    _dollars(above)
    _clock(below, minutes, width, look)
    drawing.align_ylabels()
    return drawing


def _clock(panel: Axes, minutes: Array, width: float, look: Look) -> None:
    """Hours and minutes since the open along x."""
    span = float(minutes.max() + width - minutes.min())
    wanted = 5 if look.narrow else 10
    step = next((s for s in (15, 30, 60, 120, 180, 240, 360) if span / s <= wanted), 360)
    first = float(minutes.min())
    panel.set_xticks(np.arange(first, first + span + 1, step))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x) // 60}:{int(x) % 60:02d}"))


# -- what it is made of --------------------------------------------------------------------------


class Step(NamedTuple):
    """One bar of the waterfall, from `start` by `change`, dollars."""

    name: str
    start: float
    change: float
    total: bool


def waterfall_steps(metrics: Mapping[str, Any]) -> list[Step]:
    """From gross P&L by each cost to net P&L, dollars a unit; empty where those are unknown.

    The difference is shared among costs as their basis points of turnover are.
    """
    gross, net = _value(metrics, "gross_pnl"), _value(metrics, "net_pnl")
    if gross is None or net is None:
        return []
    points = [_value(metrics, f"cost_{name}_bp") or 0.0 for name in schema.COSTS]
    steps, level, whole = [Step("gross", 0.0, gross, True)], gross, sum(points)
    for name, point in zip(schema.COSTS, points, strict=True):
        if whole:
            change = (net - gross) * point / whole
            label = schema.METRICS[f"cost_{name}_bp"].label.lower()
            steps.append(Step(label, level, change, False))
            level += change
    if not whole and gross != net:
        steps.append(Step("costs", gross, net - gross, False))
    steps.append(Step("net", 0.0, net, True))
    closed = _value(metrics, "liquidation_pnl")
    if closed is not None and abs(closed - net) > 1e-9 * max(1.0, abs(net)):
        steps.append(Step("if closed at the end", 0.0, closed, True))
    return steps


def waterfall(report: Report, look: Look) -> Figure | None:
    """From gross to net P&L, cost by cost."""
    steps = waterfall_steps(report["policies"][headline(report)]["overall"])
    if not steps:
        return None
    drawing = look.figure(0.45 + 0.28 * len(steps))
    panel = drawing.subplots()
    colours = [
        (look["greedy"] if step.name == "gross" else look["gain" if step.change >= 0 else "loss"])
        if step.total
        else look["loss" if step.change <= 0 else "gain"]
        for step in steps
    ]
    places = np.arange(len(steps))
    starts, changes = (np.array([getattr(s, a) for s in steps]) for a in ("start", "change"))
    bars = panel.barh(places, changes, left=starts, height=0.62, color=colours)
    for bar, step in zip(bars, steps, strict=True):
        bar.set_alpha(1.0 if step.total else 0.72)
    decimals = wording.decimals_of([step.change for step in steps], "dollars")
    for place, step in enumerate(steps):
        end = step.start + step.change
        reach = max(step.start, end, 0.0)
        panel.annotate(
            wording.show(step.change, "dollars", decimals),
            (reach, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            color=look["ink"],
            fontsize=7.5,
        )
        if place + 1 < len(steps) and not (step.total and place):
            panel.plot([end, end], [place, place + 1], color=look["muted"], lw=0.6, zorder=1)
    ends = np.concatenate([starts, starts + changes, [0.0]])
    width = max(float(np.ptp(ends)), 1e-9)
    panel.set_xlim(ends.min() - 0.03 * width, ends.max() + (0.3 if look.narrow else 0.14) * width)
    panel.set_yticks(places, [step.name for step in steps])
    panel.invert_yaxis()
    look.style(panel, grid="x")
    panel.tick_params(axis="y", labelcolor=look["ink"])
    panel.spines["bottom"].set_visible(False)
    look.zero(panel, vertical=True)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    _dollars(panel, "x")
    return drawing


def reward_terms(report: Report, look: Look) -> Figure | None:
    """What the reward of each policy is made of."""
    rows = {
        name: {term: share or 0.0 for term, share in one["reward_terms"].items()}
        for name, one in report["policies"].items()
    }
    rows = {name: terms for name, terms in rows.items() if sum(terms.values()) > 0}
    if not rows:
        return None
    names = list(dict.fromkeys(term for terms in rows.values() for term in terms))
    names = [name for name in names if any(terms.get(name, 0.0) for terms in rows.values())]
    drawing = look.figure(0.85 + 0.27 * len(rows), 1.1 + 0.27 * len(rows))
    panel = drawing.subplots()
    left = np.zeros(len(rows))
    for number, name in enumerate(names):
        shares = np.array([terms.get(name, 0.0) for terms in rows.values()])
        role = TERMS.get(name, ("other-2", "other-4", "other-5")[number % 3])
        panel.barh(
            list(rows), shares, left=left, height=0.62, color=look[role], label=wording.words(name)
        )
        for place, (start, share) in enumerate(zip(left, shares, strict=True)):
            if share >= (0.16 if look.narrow else 0.07):
                _inside(panel, look, start + share / 2, place, f"{100 * share:.0f} %")
        left += shares
    panel.set_xlim(0.0, max(1.0, float(left.max())))
    panel.invert_yaxis()
    look.style(panel, grid=None)
    panel.tick_params(axis="y", labelcolor=look["ink"])
    panel.spines["bottom"].set_visible(False)
    panel.xaxis.set_visible(False)
    look.legend(drawing, panel, columns=6)
    return drawing


def _inside(panel: Axes, look: Look, x: float, y: float, text: str) -> None:
    panel.text(x, y, text, ha="center", va="center", color=look["paper"], fontsize=7.0)


def returns(report: Report, look: Look) -> Figure | None:
    """Distribution of daily net returns of the trained policies."""
    chosen = {
        name: one["returns_histogram"]
        for name, one in report["policies"].items()
        if one["kind"] == "trained" or name == headline(report)
    }
    chosen = {name: one for name, one in chosen.items() if sum(filter(None, one["counts"])) > 0}
    if not chosen:
        return None
    drawing = look.figure(2.5)
    panel = drawing.subplots()
    for name, one in chosen.items():
        edges, counts = _array(one["edges"]), np.nan_to_num(_array(one["counts"]))
        line = look.line(name)
        shares = counts / counts.sum()
        if line["zorder"] == 6 or len(chosen) == 1:
            panel.stairs(shares, edges, fill=True, color=line["color"], alpha=0.3, linewidth=0)
        panel.stairs(shares, edges, color=line["color"], linewidth=1.4, label=name)
    panel.set_xlabel("net return of a session")
    panel.set_ylabel("share of sessions")
    look.style(panel)
    look.zero(panel, vertical=True)
    panel.xaxis.set_major_locator(MaxNLocator(5 if look.narrow else 9))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    _percent(panel)
    _percent(panel, "x")
    look.legend(drawing, panel)
    return drawing


# -- decisions -----------------------------------------------------------------------------------


def session(report: Report, look: Look, number: int) -> Figure | None:
    """Trades on the price of one of the sessions shown, with position and P&L below."""
    one = report["sessions_shown"][number]
    price = _array(one["price"])
    if not np.isfinite(price).any():
        return None
    bars = np.arange(len(price))
    drawing = look.figure(4.2, 4.0)
    top, middle, bottom = drawing.subplots(3, sharex=True, height_ratios=(4, 1, 1.6))
    top.plot(bars, price, color=look["muted"], linewidth=0.9)
    _trades(top, look, one["fills"])
    held = _array(one["position"])
    middle.fill_between(bars, held, step="post", color=look.of(one["policy"]), alpha=0.35, lw=0)
    middle.step(bars, held, where="post", color=look.of(one["policy"]), linewidth=0.8)
    net = np.nancumsum(_array(one["net"]))
    bottom.plot(bars, net, color=look.of(one["policy"]), linewidth=1.3)
    names = ("price, $", "shares", "net P&L")
    for panel, name in zip((top, middle, bottom), names, strict=True):
        look.style(panel)
        panel.set_ylabel(name)
        panel.yaxis.set_major_locator(MaxNLocator(5 if panel is top else 2))
    look.zero(middle)
    look.zero(bottom)
    _dollars(bottom)
    top.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    middle.yaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:,.4g}".replace("-", wording.MINUS))
    )
    bottom.set_xlabel("bar of the session")
    top.set_xlim(-1, len(price))
    drawing.align_ylabels()
    if one["fills"]:
        look.legend(drawing, top)
    return drawing


def _trades(panel: Axes, look: Look, fills: Sequence[Mapping[str, Any]]) -> None:
    """Fills: bought ▲, sold ▼; hollow where they were forced."""
    for sign, marker, role, name in ((1, "^", "gain", "bought"), (-1, "v", "loss", "sold")):
        for forced, kind in ((False, name), (True, f"{name}, forced")):
            chosen = [f for f in fills if f["quantity"] * sign > 0 and f["forced"] == forced]
            if chosen:
                panel.plot(
                    [f["bar"] for f in chosen],
                    [f["price"] for f in chosen],
                    marker,
                    color=look[role],
                    markerfacecolor="none" if forced else look[role],
                    markersize=5.5,
                    label=kind,
                    zorder=4,
                )


def raster_rows(report: Report) -> tuple[list[str], Array, Array] | None:
    """Labels `[S]`, minutes or bars `[C]` and mean requests `[S, C]` of the greedy policy.

    Of its own raster where there is one, else of the sessions shown; NaN where there was no bar.
    """
    name = headline(report)
    given = report["policies"][name].get("raster")
    if given and given["labels"] and given["minute"]:
        rows = np.array([_array(row) for row in given["request"]])
        return _coarse(list(given["labels"]), _array(given["minute"]), rows)
    shown = [one for one in report["sessions_shown"] if one["policy"] == name and one["request"]]
    if not shown:
        return None
    longest = max(len(one["request"]) for one in shown)
    rows = np.full((len(shown), longest), np.nan)
    for row, one in zip(rows, shown, strict=True):
        row[: len(one["request"])] = _array(one["request"])
    labels = [" ".join(filter(None, (one["symbol"], one["label"]))) for one in shown]
    return _coarse(labels, np.arange(longest, dtype=np.float64), rows)


def _coarse(labels: list[str], minutes: Array, rows: Array) -> tuple[list[str], Array, Array]:
    """At most `RASTER_ROWS` sessions, evenly chosen, and `RASTER_COLUMNS` means."""
    kept = np.unique(np.linspace(0, len(labels) - 1, RASTER_ROWS).round().astype(int))
    group = -(-rows.shape[1] // RASTER_COLUMNS)
    starts = np.arange(0, rows.shape[1], group)
    known = np.add.reduceat(np.isfinite(rows[kept]), starts, axis=1)
    total = np.add.reduceat(np.nan_to_num(rows[kept]), starts, axis=1)
    means = np.divide(total, known, out=np.full(total.shape, np.nan), where=known > 0)
    return [labels[place] for place in kept], minutes[starts], means


def raster(report: Report, look: Look) -> Figure | None:
    """What was asked for, session by session over the day."""
    found = raster_rows(report)
    if found is None:
        return None
    labels, minutes, rows = found
    height = min(6.0, 0.95 + (0.3 if len(labels) < 8 else 0.085) * len(labels))
    drawing = look.figure(height)
    panel = drawing.subplots()
    wide = float(np.min(np.diff(minutes))) if len(minutes) > 1 else 1.0
    shades = (
        ("mostly buying", "gain", 0.95, 0.5, 1.01),
        ("some buying", "gain", 0.4, 0.05, 0.5),
        ("mostly selling", "loss", 0.95, -1.01, -0.5),
        ("some selling", "loss", 0.4, -0.5, -0.05),
        ("neither", "grid", 0.45, -0.05, 0.05),
    )
    for name, role, opacity, low, high in shades:
        where = np.argwhere((rows >= low) & (rows < high))
        if len(where):
            shape = _cells(minutes[where[:, 1]], where[:, 0], wide)
            panel.add_patch(
                PathPatch(shape, facecolor=look[role], alpha=opacity, linewidth=0, label=name)
            )
    panel.set_xlim(float(minutes[0]), float(minutes[-1]) + wide)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    step = max(1, -(-len(labels) // 14))
    panel.set_yticks(range(0, len(labels), step), labels[::step])
    look.style(panel, grid=None)
    if report["policies"][headline(report)].get("raster"):
        _clock(panel, minutes, wide, look)
        panel.set_xlabel("time since the open, h:min")
    else:
        panel.set_xlabel("bar of the session")
    look.legend(drawing, panel, columns=5)
    return drawing


def _cells(left: Array, row: NDArray[np.int64], wide: float) -> Outline:
    """One outline of many cells of the raster."""
    corners = np.array([[0.0, -0.42], [wide, -0.42], [wide, 0.42], [0.0, 0.42], [0.0, 0.0]])
    points = np.stack([left, row.astype(np.float64)], axis=1)[:, None, :] + corners
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    return Outline(points.reshape(-1, 2), np.tile(codes, len(left)))


# -- robustness ----------------------------------------------------------------------------------


def _own(report: Report, rows: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Rows of the headline policy, whose P&L is known."""
    name = headline(report)
    return [
        row for row in rows or () if row["policy"] == name and row["net_pnl"]["value"] is not None
    ]


def stress(report: Report, look: Look) -> Figure | None:
    """Net P&L of the greedy policy in each scenario, with its interval."""
    rows = _own(report, report["stress"])
    if not rows:
        return None
    drawing = look.figure(0.55 + 0.27 * len(rows))
    panel = drawing.subplots()
    ends = [
        value
        for row in rows
        for value in (row["net_pnl"][end] for end in ("value", "low", "high"))
        if value is not None
    ]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.05 * max(high - low, 1e-9)
    for place, row in enumerate(rows):
        role = "gain" if row["net_pnl"]["value"] >= 0 else "loss"
        _dot(panel, look, place, row["net_pnl"], look[role], (low - pad, high + pad))
    panel.set_yticks(range(len(rows)), [row["scenario"] for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(low - pad, high + pad)
    panel.set_xlabel("net P&L, dollars")
    look.style(panel, grid="x")
    panel.tick_params(axis="y", labelcolor=look["ink"])
    look.zero(panel, vertical=True)
    panel.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 7))
    _dollars(panel, "x")
    return drawing


def capacity(report: Report, look: Look) -> Figure | None:
    """Net P&L and costs against capital."""
    rows = [row for row in report["capacity"] or () if row["policy"] == headline(report)]
    rows = [row for row in rows if row["capital"] > 0 and row["net_bp"] is not None]
    if len(rows) < 2:
        return None
    capital, net, cost = (
        _array(row[name] for row in rows) for name in ("capital", "net_bp", "cost_bp")
    )
    drawing = look.figure(3.4)
    above, below = drawing.subplots(2, sharex=True, height_ratios=(3, 2))
    above.plot(capital, net, "o-", color=look["greedy"], linewidth=1.6, markersize=4.5)
    below.plot(capital, cost, "o-", color=look["loss"], linewidth=1.2, markersize=3.5)
    above.set_ylabel("net, bp of capital")
    below.set_ylabel("costs, bp\nof turnover")
    below.set_xlabel("capital")
    below.set_xscale("log")
    below.xaxis.set_minor_formatter(NullFormatter())
    for panel in (above, below):
        look.style(panel)
        panel.yaxis.set_major_locator(MaxNLocator(5 if panel is above else 3))
        panel.tick_params(which="minor", length=0)
    below.set_ylim(bottom=0.0)
    look.zero(above)
    _dollars(below, "x")
    drawing.align_ylabels()
    return drawing


def sensitivity(report: Report, look: Look) -> Figure | None:
    """Net P&L as one parameter at a time is changed."""
    rows = _own(report, report["sensitivity"])
    names = list(dict.fromkeys(row["parameter"] for row in rows))
    if not names:
        return None
    columns = min(len(names), 2 if look.narrow else 4)
    lines = -(-len(names) // columns)
    drawing = look.figure(0.3 + 1.75 * lines, 0.3 + 1.6 * lines)
    grid = drawing.subplots(lines, columns, sharey=True, squeeze=False)
    for panel, name in zip(grid.flat, names, strict=False):
        chosen = [row for row in rows if row["parameter"] == name]
        places = np.arange(len(chosen))
        value, low, high = (
            _array(row["net_pnl"][end] for row in chosen) for end in ("value", "low", "high")
        )
        panel.fill_between(places, low, high, color=look["greedy"], alpha=0.16, linewidth=0)
        panel.plot(places, value, "o-", color=look["greedy"], linewidth=1.3, markersize=3.5)
        panel.set_xticks(places, [wording.loose(row["value"]) for row in chosen])
        title = textwrap.fill(wording.words(name.split(".")[-1]), 20)
        panel.set_title(title, loc="left", color=look["ink"])
        look.style(panel)
        look.zero(panel)
        _dollars(panel)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.margins(x=0.12)
    for panel in list(grid.flat)[len(names) :]:
        panel.set_axis_off()
    return drawing


def walk_forward(report: Report, look: Look) -> Figure | None:
    """Net P&L of each fold's test sessions, and their running sum."""
    folds = (report["walk_forward"] or {"folds": []})["folds"]
    net = _array(fold["net_pnl"] for fold in folds)
    if not np.isfinite(net).any():
        return None
    drawing = look.figure(2.5)
    panel = drawing.subplots()
    places = np.arange(len(folds))
    panel.bar(places, net, width=0.7, color=_sides(net, look), alpha=0.75)
    total = np.nancumsum(net)
    panel.plot(places, total, "o-", color=look["ink"], lw=1.2, markersize=3, label="running sum")
    rivals = _array(fold["best_reference_net_pnl"] for fold in folds)
    panel.plot(
        places, rivals, "D", color=look["muted"], markersize=4, label="best reference policy"
    )
    labels = [str(fold["test"][0]) if fold["test"] else "" for fold in folds]
    _labelled(panel, labels, 3 if look.narrow else 8)
    panel.set_ylabel("net P&L of the fold")
    panel.set_xlabel("first session tested")
    look.style(panel)
    look.zero(panel)
    _dollars(panel)
    look.legend(drawing, panel)
    return drawing
