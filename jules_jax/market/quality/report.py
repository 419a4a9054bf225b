"""The report of `python -m jules_jax.data check --report`: one HTML file with its plots inside."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jules_jax.errors import InputError
from jules_jax.market.quality import session_table
from jules_jax.market.quality.inspection import Inspected
from jules_jax.market.sessions import SECOND, Placement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HOUR = 3600 * SECOND
BEFORE_OPEN = 6 * HOUR
"""Bars up to so long before an open belong to it, where the night leaves room."""

BLUE, ORANGE, RED, GREY = "#3465a4", "#e08a1e", "#c4342d", "#d9dee5"
MARKED = {"spike": RED, "split": ORANGE, "volume regime": "#5c8a3a"}
"""Findings drawn into the price, and their colours."""


@dataclass(frozen=True)
class Report:
    """One symbol: what was found, and where its bars `inspected.raw` are in their sessions.

    notes: what else is to be told, one sentence each.
    """

    inspected: Inspected
    placement: Placement
    bar_seconds: int
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> session_table.SessionTable:
        """Counts by session."""
        return session_table.session_table(self.inspected, self.placement, self.bar_seconds)


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Quality of bars</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em; color: #222; }
h1 { font-size: 1.5em; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; } td, th { padding: .25em .8em .25em 0; text-align: left;
vertical-align: top; border-bottom: 1px solid #eee; } td.n { text-align: right; }
.dropped, .repaired, .adjusted, .warning { font-weight: 600; } .warning { color: #b03a00; }
img { width: 100%; } pre { font-size: 12px; overflow-x: auto; } .place { color: #777; }
</style></head><body><h1>Quality of bars</h1>
<table><tr><th>symbol</th><th>bars</th><th>sessions</th><th>first</th><th>last</th>
<th>findings</th></tr>
{% for s in symbols %}<tr><td><a href="#s{{ loop.index }}">{{ s.name }}</a></td>
<td class="n">{{ "{:,}".format(s.bars) }}</td><td class="n">{{ "{:,}".format(s.sessions) }}</td>
<td>{{ s.first }}</td><td>{{ s.last }}</td><td>{{ s.kinds }}</td></tr>
{% endfor %}</table>
{% for s in symbols %}<h2 id="s{{ loop.index }}">{{ s.name }}</h2>
{% if s.findings %}<table><tr><th>found</th><th>count</th><th>action</th><th></th></tr>
{% for f in s.findings %}<tr><td>{{ f.kind }}</td><td class="n">{{ "{:,}".format(f.count) }}</td>
<td class="{{ f.action }}">{{ f.action }}</td><td>{{ f.detail }}.
<span class="place">{{ f.where | join("; ") }}</span></td></tr>
{% endfor %}</table>{% else %}<p>Nothing to report.</p>{% endif %}
<img alt="price, volume and gaps of {{ s.name }}" src="data:image/png;base64,{{ s.png }}">
<details><summary>By session</summary><pre>{{ s.table }}</pre></details>
{% endfor %}</body></html>
"""


def write(path: str | Path, reports: Iterable[Report]) -> None:
    """Writes the HTML report of some symbols to `path`, self-contained, whole or not at all.

    Each symbol has its findings, its price with spikes and jumps marked, the volume by minute from
    the session's open, a calendar of gaps and the table by session. Raises `InputError` where the
    file cannot be written.
    """
    import jinja2  # imported here: only reports need it

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string(TEMPLATE).render(symbols=[_symbol(one) for one in reports])
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: the report cannot be written ({error.strerror}).") from None


def _symbol(report: Report) -> dict[str, Any]:
    """What the template shows of one symbol."""
    inspected = report.inspected
    table = report.table
    png = io.BytesIO()
    figure(report).savefig(png, format="png", dpi=100)
    return {
        "name": inspected.raw.symbol,
        "bars": inspected.raw.time.size,
        "sessions": len(table.date),
        "first": table.date[0],
        "last": table.date[-1],
        "kinds": ", ".join(f"{found.kind} {found.count:,}" for found in inspected.findings),
        "findings": inspected.findings,
        "png": base64.b64encode(png.getvalue()).decode("ascii"),
        "table": session_table.table([table], all_sessions=True),
    }


def figure(report: Report) -> Figure:
    """Price, volume by minute and the calendar of gaps of one symbol."""
    from matplotlib.figure import Figure  # imported here: it takes half a second

    drawing = Figure(figsize=(10, 9), layout="constrained")
    price, volume, gaps = drawing.subplots(3, 1, height_ratios=(2, 1.5, 2))
    _draw_price(price, report)
    _draw_volume(volume, report)
    _draw_gaps(gaps, report)
    return drawing


def _draw_price(axes: Axes, report: Report) -> None:
    """Close by bar (nights take no room), with findings marked where they are."""
    raw = report.inspected.raw
    # A point for each of some thousand stretches, low and high: more cannot be seen.
    stretch = max(1, raw.close.size // 4000)
    first = np.arange(0, raw.close.size, stretch)
    low, high = np.minimum.reduceat(raw.low, first), np.maximum.reduceat(raw.high, first)
    axes.fill_between(first, low, high, color=GREY, step="post", label="low to high")
    axes.plot(first, raw.close[first], color=BLUE, linewidth=0.8, label="close")
    for kind, colour in MARKED.items():
        for found in report.inspected.findings:
            if found.kind == kind:
                row = np.searchsorted(raw.time, found.times)
                before = raw.close[np.maximum(row - 1, 0)]
                upwards = raw.high[row] * raw.low[row] > before**2
                far = np.where(upwards, raw.high[row], raw.low[row])
                level = far if kind == "spike" else raw.close[row]
                axes.plot(row, level, "o", color=colour, markersize=3, label=kind)
    if raw.close.max() > 3 * raw.close.min():
        axes.set_yscale("log")
    ticks = np.linspace(0, raw.close.size - 1, 7).astype(int)
    axes.set_xticks(ticks, pd.DatetimeIndex(raw.time[ticks]).strftime("%Y-%m-%d"))
    axes.set_title("Price", loc="left")
    axes.legend(fontsize=8, frameon=False)


def _draw_volume(axes: Axes, report: Report) -> None:
    """Median and quartiles of volume by minute from the open, hours outside sessions included."""
    raw, placement = report.inspected.raw, report.placement
    axes.set_title("Volume by minute from the open", loc="left")
    if raw.volume is None or not raw.volume.any():
        axes.text(0.5, 0.5, "no volume in the source", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    first = np.flatnonzero(np.diff(placement.session, prepend=-1))
    last = np.append(first[1:], placement.session.size) - 1
    opens = placement.time[first] - placement.minute[first] * 60 * SECOND
    length = int((placement.time[last] - opens).max())
    lead = min(BEFORE_OPEN, max(24 * HOUR - length, 0) // 2)
    session = np.maximum(np.searchsorted(opens - lead, raw.time, side="right") - 1, 0)
    minute = (raw.time - opens[session]) // (60 * SECOND)
    near = (minute >= -BEFORE_OPEN // (60 * SECOND)) & (minute < 24 * 60)
    by_minute = pd.Series(raw.volume[near]).groupby(minute[near])
    least = float(raw.volume[raw.volume > 0].min())  # zeros are drawn here
    quartiles = by_minute.quantile(np.array([0.25, 0.5, 0.75])).unstack().clip(lower=least)
    axes.fill_between(quartiles.index, quartiles[0.25], quartiles[0.75], color=GREY, step="mid")
    axes.plot(quartiles.index, quartiles[0.5], color=BLUE, drawstyle="steps-mid", linewidth=0.9)
    for edge in (0, length / SECOND / 60 + report.bar_seconds / 60):
        axes.axvline(edge, color=ORANGE, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_ylim(0.7 * least, 1.4 * float(quartiles[0.75].max()))
    axes.set_xlabel("minutes (lines: a full session's open and close)")


def _draw_gaps(axes: Axes, report: Report) -> None:
    """Sessions by slot: traded, without volume, missing, or no slot at all."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    placement, volume = report.placement, report.inspected.raw.volume
    shape = int(placement.session.max()) + 1, int(placement.bar_of_session.max()) + 1
    state = np.zeros(shape, np.int8)
    missing = placement.index < 0
    idle = np.zeros(missing.shape, bool)
    if volume is not None and volume.any():
        idle = ~missing & (volume[placement.index] == 0)
    kind = np.where(missing, 3, np.where(idle, 2, 1))
    state[placement.session, placement.bar_of_session] = kind
    colours = {"no slot": "white", "bar": "#cfe0f3", "no volume": ORANGE, "missing": RED}
    colour_map = ListedColormap([*colours.values()])
    axes.imshow(state, aspect="auto", interpolation="nearest", cmap=colour_map, vmin=-0.5, vmax=3.5)
    first = np.flatnonzero(np.diff(placement.session, prepend=-1))
    ticks = np.unique(np.linspace(0, shape[0] - 1, 8).astype(int))
    axes.set_yticks(ticks, pd.DatetimeIndex(placement.time[first[ticks]]).strftime("%Y-%m-%d"))
    axes.set_xlabel("bar of the session")
    axes.set_title("Gaps", loc="left")
    # Beside the title, so that it hides nothing.
    axes.legend(
        handles=[Patch(color=c, label=name) for name, c in colours.items() if name != "no slot"],
        ncols=3, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1),
    )  # fmt: skip
