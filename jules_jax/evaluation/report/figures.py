"""Figures of policies: each a function of the report and of the look, or none without data.

Those about one policy are about the first: the greedy trained one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jules_jax.evaluation.report import axes, schema, wording
from jules_jax.evaluation.report.axes import Array, Report
from jules_jax.evaluation.report.drawing import Look

TERMS = dict(
    zip(
        schema.REWARD_TERMS,
        ("greedy", "loss", "oracle", "other-1", "gain", "sampled"),
        strict=True,
    )
)
"""Roles of the colours of reward terms."""


def _value(one: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        one = one[name]
    value: float | None = one["value"]
    return value


# -- policies ------------------------------------------------------------------------------------


def forest(report: Report, look: Look) -> Figure | None:
    """Net P&L of every policy, with its 95 % interval."""
    rows = [(name, one["overall"]["net_pnl"]) for name, one in report["policies"].items()]
    rows = [(name, one) for name, one in rows if one["value"] is not None]
    if not rows:
        return None
    drawing = look.figure(0.55 + 0.27 * len(rows))
    panel = drawing.subplots()
    window = _window([(one["value"], one["low"], one["high"]) for _, one in rows])
    axes.dots(panel, look, [(name, one, look.of(name)) for name, one in rows], window)
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
    ends = [axes.array(values) for one in lines.values() for values in (one["low"], one["high"])]
    limits = _limits([*ends[:4]], [axes.array(one["mean"]) for one in list(lines.values())[2:]])
    bars = axes.array(band["bar"])
    above.fill_between(
        bars,
        axes.array(band["low"]),
        axes.array(band["high"]),
        color=look.of(first),
        alpha=0.16,
        lw=0,
    )
    for name, one in lines.items():
        mean = axes.array(one["mean"])
        line = look.line(name)
        if limits is not None and len(mean) and not limits[0] <= mean[-1] <= limits[1]:
            line["label"] = f"{name} (to {wording.show(float(mean[-1]), 'share', 1)})"
        above.plot(axes.array(one["bar"]), mean, **line)
    if limits is not None:
        above.set_ylim(*limits)
    for name in list(lines)[:2] if look.policies.get(first, ("",))[0] == "greedy" else [first]:
        one = lines[name]
        below.plot(axes.array(one["bar"]), -axes.array(one["drawdown"]), **look.line(name))
    below.set_ylim(top=0.0)
    for panel, title in ((above, "equity, change"), (below, "drawdown")):
        look.style(panel)
        axes.percent(panel)
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
    one = report["policies"][axes.headline(report)]["daily"]
    if not one["labels"]:
        return None
    net, places = axes.array(one["net"]), np.arange(len(one["labels"]))
    drawing = look.figure(2.3)
    panel = drawing.subplots()
    panel.bar(places, net, width=0.8, color=axes.sides(net, look))
    low, high = axes.array(one["low"]), axes.array(one["high"])
    if np.isfinite(low).any() and np.nanmax(high - low) > 0:
        panel.vlines(places, low, high, color=look["muted"], linewidth=0.9)
    axes.labelled(panel, one["labels"], 3 if look.narrow else 8)
    panel.set_ylabel("net P&L")
    look.style(panel)
    look.zero(panel)
    axes.dollars(panel)
    return drawing


def by_minute(report: Report, look: Look) -> Figure | None:
    """Net P&L and orders by time of day."""
    one = report["policies"][axes.headline(report)]["by_minute"]
    minutes, net, orders = (axes.array(one[name]) for name in ("minute", "net", "orders"))
    if not minutes.size:
        return None
    width = float(np.min(np.diff(minutes))) if minutes.size > 1 else 30.0
    drawing = look.figure(2.9)
    above, below = drawing.subplots(2, sharex=True, height_ratios=(2, 1))
    above.bar(minutes, net, width=0.86 * width, align="edge", color=axes.sides(net, look))
    below.bar(minutes, orders, width=0.86 * width, align="edge", color=look["muted"], alpha=0.6)
    above.set_ylabel("net P&L a session")
    below.set_ylabel("orders a session")
    below.set_xlabel("time since the open, h:min")
    for panel in (above, below):
        look.style(panel)
        panel.yaxis.set_major_locator(MaxNLocator(4))
    look.zero(above)
    axes.dollars(above)
    axes.clock(below, minutes, width, look)
    drawing.align_ylabels()
    return drawing


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
    steps = waterfall_steps(report["policies"][axes.headline(report)]["overall"])
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
    axes.dollars(panel, "x")
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
        if one["kind"] == "trained" or name == axes.headline(report)
    }
    chosen = {name: one for name, one in chosen.items() if sum(filter(None, one["counts"])) > 0}
    if not chosen:
        return None
    drawing = look.figure(2.5)
    panel = drawing.subplots()
    for name, one in chosen.items():
        edges, counts = axes.array(one["edges"]), np.nan_to_num(axes.array(one["counts"]))
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
    axes.percent(panel)
    axes.percent(panel, "x")
    look.legend(drawing, panel)
    return drawing
