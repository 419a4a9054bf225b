"""Figures of decisions: chosen sessions bar by bar, and what was asked for over the day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from jules_jax.evaluation.report import axes, wording
from jules_jax.evaluation.report.axes import Array, Report
from jules_jax.evaluation.report.drawing import Look

RASTER_COLUMNS, RASTER_ROWS = 78, 60
"""Most cells of the action raster: five minutes each, and sixty sessions."""


def session(report: Report, look: Look, number: int) -> Figure | None:
    """Trades on the price of one of the sessions shown, with position and P&L below."""
    one = report["sessions_shown"][number]
    price = axes.array(one["price"])
    if not np.isfinite(price).any():
        return None
    bars = np.arange(len(price))
    drawing = look.figure(4.2, 4.0)
    top, middle, bottom = drawing.subplots(3, sharex=True, height_ratios=(4, 1, 1.6))
    top.plot(bars, price, color=look["muted"], linewidth=0.9)
    _trades(top, look, one["fills"])
    held = axes.array(one["position"])
    middle.fill_between(bars, held, step="post", color=look.of(one["policy"]), alpha=0.35, lw=0)
    middle.step(bars, held, where="post", color=look.of(one["policy"]), linewidth=0.8)
    net = np.nancumsum(axes.array(one["net"]))
    bottom.plot(bars, net, color=look.of(one["policy"]), linewidth=1.3)
    names = ("price, $", "shares", "net P&L")
    for panel, name in zip((top, middle, bottom), names, strict=True):
        look.style(panel)
        panel.set_ylabel(name)
        panel.yaxis.set_major_locator(MaxNLocator(5 if panel is top else 2))
    look.zero(middle)
    look.zero(bottom)
    axes.dollars(bottom)
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
    name = axes.headline(report)
    given = report["policies"][name].get("raster")
    if given and given["labels"] and given["minute"]:
        rows = np.array([axes.array(row) for row in given["request"]])
        return _coarse(list(given["labels"]), axes.array(given["minute"]), rows)
    shown = [one for one in report["sessions_shown"] if one["policy"] == name and one["request"]]
    if not shown:
        return None
    longest = max(len(one["request"]) for one in shown)
    rows = np.full((len(shown), longest), np.nan)
    for row, one in zip(rows, shown, strict=True):
        row[: len(one["request"])] = axes.array(one["request"])
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
    if report["policies"][axes.headline(report)].get("raster"):
        axes.clock(panel, minutes, wide, look)
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
