"""Figures of other terms: stress, capital, single settings, and other stretches of time."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from jules_jax.evaluation.report import axes, wording
from jules_jax.evaluation.report.axes import Report
from jules_jax.evaluation.report.drawing import Look


def _own(report: Report, rows: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Rows of the headline policy, whose P&L is known."""
    name = axes.headline(report)
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
    colours = axes.sides(axes.array(row["net_pnl"]["value"] for row in rows), look)
    shown = [
        (row["scenario"], row["net_pnl"], colour) for row, colour in zip(rows, colours, strict=True)
    ]
    axes.dots(panel, look, shown, (low - pad, high + pad))
    return drawing


def capacity(report: Report, look: Look) -> Figure | None:
    """Net P&L and costs against capital."""
    rows = [row for row in report["capacity"] or () if row["policy"] == axes.headline(report)]
    rows = [row for row in rows if row["capital"] > 0 and row["net_bp"] is not None]
    if len(rows) < 2:
        return None
    capital, net, cost = (
        axes.array(row[name] for row in rows) for name in ("capital", "net_bp", "cost_bp")
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
    axes.dollars(below, "x")
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
            axes.array(row["net_pnl"][end] for row in chosen) for end in ("value", "low", "high")
        )
        panel.fill_between(places, low, high, color=look["greedy"], alpha=0.16, linewidth=0)
        panel.plot(places, value, "o-", color=look["greedy"], linewidth=1.3, markersize=3.5)
        panel.set_xticks(places, [wording.loose(row["value"]) for row in chosen])
        title = textwrap.fill(wording.words(name.split(".")[-1]), 20)
        panel.set_title(title, loc="left", color=look["ink"])
        look.style(panel)
        look.zero(panel)
        axes.dollars(panel)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.margins(x=0.12)
    for panel in list(grid.flat)[len(names) :]:
        panel.set_axis_off()
    return drawing


def walk_forward(report: Report, look: Look) -> Figure | None:
    """Net P&L of each fold's test sessions, and their running sum."""
    folds = (report["walk_forward"] or {"folds": []})["folds"]
    net = axes.array(fold["net_pnl"] for fold in folds)
    if not np.isfinite(net).any():
        return None
    drawing = look.figure(2.5)
    panel = drawing.subplots()
    places = np.arange(len(folds))
    panel.bar(places, net, width=0.7, color=axes.sides(net, look), alpha=0.75)
    total = np.nancumsum(net)
    panel.plot(places, total, "o-", color=look["ink"], lw=1.2, markersize=3, label="running sum")
    rivals = axes.array(fold["best_reference_net_pnl"] for fold in folds)
    panel.plot(
        places, rivals, "D", color=look["muted"], markersize=4, label="best reference policy"
    )
    labels = [str(fold["test"][0]) if fold["test"] else "" for fold in folds]
    axes.labelled(panel, labels, 3 if look.narrow else 8)
    panel.set_ylabel("net P&L of the fold")
    panel.set_xlabel("first session tested")
    look.style(panel)
    look.zero(panel)
    axes.dollars(panel)
    look.legend(drawing, panel)
    return drawing
