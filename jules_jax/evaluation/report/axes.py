"""Axes: what figures of the report have in common: numbers, ticks and dots with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from jules_jax.evaluation.report import wording
from jules_jax.evaluation.report.drawing import Look

Report = Mapping[str, Any]
Array = NDArray[np.float64]


def headline(report: Report) -> str:
    """Name of the policy that the report is about: the first trained one, else the first."""
    names: list[str] = list(report["policies"])
    trained = [name for name in names if report["policies"][name]["kind"] == "trained"]
    return (trained or names)[0]


def array(values: Iterable[float | None]) -> Array:
    """Numbers, NaN for null."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def dollars(panel: Axes, axis: str = "y") -> None:
    """Dollars along an axis."""
    chosen = panel.yaxis if axis == "y" else panel.xaxis
    chosen.set_major_formatter(FuncFormatter(lambda x, _: wording.short_dollars(round(x, 9))))


def percent(panel: Axes, axis: str = "y") -> None:
    """Shares along an axis, in %."""

    def shown(x: float, _: int | None) -> str:
        return f"{100 * x:.4g} %".replace("-", wording.MINUS)

    (panel.yaxis if axis == "y" else panel.xaxis).set_major_formatter(FuncFormatter(shown))


def sides(values: Array, look: Look) -> list[str]:
    """A colour for each value: gains and losses."""
    return [look["gain"] if value >= 0 else look["loss"] for value in values]


def dot(
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


def dots(
    panel: Axes,
    look: Look,
    rows: Sequence[tuple[str, Mapping[str, Any], str]],
    window: tuple[float, float],
) -> None:
    """Rows of dollars with their intervals: names, `schema.INTERVAL` and colours."""
    for place, (_, one, colour) in enumerate(rows):
        dot(panel, look, place, one, colour, window)
    panel.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(*window)
    panel.set_xlabel("net P&L, dollars")
    look.style(panel, grid="x")
    panel.tick_params(axis="y", labelcolor=look["ink"])
    look.zero(panel, vertical=True)
    panel.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 7))
    dollars(panel, "x")


def labelled(panel: Axes, labels: Sequence[str], most: int) -> None:
    """Labels along x, at most so many."""
    step = max(1, -(-len(labels) // most))
    panel.set_xticks(range(0, len(labels), step), labels[::step])


def clock(panel: Axes, minutes: Array, width: float, look: Look) -> None:
    """Hours and minutes since the open along x."""
    span = float(minutes.max() + width - minutes.min())
    wanted = 5 if look.narrow else 10
    step = next((s for s in (15, 30, 60, 120, 180, 240, 360) if span / s <= wanted), 360)
    first = float(minutes.min())
    panel.set_xticks(np.arange(first, first + span + 1, step))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x) // 60}:{int(x) % 60:02d}"))
