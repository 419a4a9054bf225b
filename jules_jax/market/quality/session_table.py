"""The table of `python -m jules_jax.data check`: what each session of a symbol is like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jules_jax.market.quality.inspection import Inspected
from jules_jax.market.sessions import SECOND, Placement

COLUMNS = {
    "duplicate": "copies",
    "out of order": "order",
    "bad price": "price",
    "bad volume": "volume",
    "high below low": "h<l",
    "range widened": "range",
    "zero volume": "zero",
    "stale run": "stale",
    "spike": "spikes",
    "split": "splits",
    "volume regime": "regime",
}
"""Kinds of findings counted by session, and their headings."""

SHOWN = 12
"""Sessions printed of one symbol: those with the most to say."""


@dataclass(frozen=True)
class SessionTable:
    """Counts by session `[S]` of one symbol.

    date: of each session (UTC, at its middle). counts: heading -> `[S]`, with `bars` and `gaps`
    (slots without a bar) first. outside: heading -> how many were in no session. sentences: all
    findings, listed ones included.
    """

    symbol: str
    date: tuple[str, ...]
    counts: dict[str, NDArray[np.int64]]
    outside: dict[str, int]
    sentences: tuple[str, ...]


def session_table(inspected: Inspected, placement: Placement, bar_seconds: int) -> SessionTable:
    """Bars, gaps and findings of each session of one symbol.

    `placement` is that of `inspected.raw.time`. Findings outside every slot (before the open, after
    the close) are counted as `outside`.
    """
    number = int(placement.session.max(initial=-1)) + 1
    present = placement.index >= 0
    counts = {
        "bars": np.bincount(placement.session[present], minlength=number),
        "gaps": np.bincount(placement.session[~present], minlength=number),
    }
    outside = {"bars": inspected.raw.time.size - int(present.sum())}
    for kind, heading in COLUMNS.items():
        times = [found.times for found in inspected.findings if found.kind == kind]
        time = np.concatenate([np.zeros(0, np.int64), *times])
        slot = np.searchsorted(placement.time, time, side="right") - 1
        inside = (slot >= 0) & (time < placement.time[slot] + bar_seconds * SECOND)
        counts[heading] = np.bincount(placement.session[slot[inside]], minlength=number)
        outside[heading] = int((~inside).sum())
    first = np.flatnonzero(np.diff(placement.session, prepend=-1))
    last = np.append(first[1:], placement.session.size) - 1
    middle = placement.time[first] + (placement.time[last] - placement.time[first]) // 2
    return SessionTable(
        inspected.raw.symbol,
        tuple(pd.DatetimeIndex(middle).strftime("%Y-%m-%d")),
        counts,
        outside,
        tuple(found.sentence for found in inspected.findings),
    )


def table(tables: Iterable[SessionTable], *, all_sessions: bool = False) -> str:
    """The text of a check: for each symbol its sessions, totals and findings.

    Only sessions with something to say are printed, the worst ones where there are many, and only
    columns with anything in them; `all_sessions` prints every session.
    """
    return "\n\n".join(_block(one, all_sessions) for one in tables)


def _block(one: SessionTable, all_sessions: bool) -> str:
    headings = [
        name
        for name, count in one.counts.items()
        if name in ("bars", "gaps") or count.any() or one.outside[name]
    ]
    counts = np.array([one.counts[name] for name in headings]).T  # [S, columns]
    odd = counts[:, 1:].sum(axis=1)
    shown = np.flatnonzero(odd > 0) if not all_sessions else np.arange(odd.size)
    hidden = 0
    if not all_sessions and shown.size > SHOWN:
        # Each kind weighs as much as the others: a split counts for more than one of many gaps.
        weight = (counts[:, 1:] / np.maximum(counts[:, 1:].sum(axis=0), 1)).sum(axis=1)
        worst = np.argsort(-weight, kind="stable")[:SHOWN]
        hidden, shown = shown.size - SHOWN, np.sort(worst)
    lines = [["session", *headings]]
    lines += [[one.date[row], *(f"{value:,}" for value in counts[row])] for row in shown]
    outside = [one.outside.get(name, 0) for name in headings]
    if any(outside):
        lines.append(["outside", *(f"{value:,}" for value in outside)])
    total = counts.sum(axis=0) + np.array(outside)
    lines.append(["total", *(f"{value:,}" for value in total)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    if hidden:
        text.insert(1 + shown.size, f"… {hidden:,} more sessions: --all prints them")
    sessions = f"{odd.size:,} session{'' if odd.size == 1 else 's'}"
    span = f", {one.date[0]} to {one.date[-1]}" if one.date else ""
    fine = "" if one.sentences or odd.any() else ": nothing to report"
    return "\n".join(
        [f"{one.symbol}: {sessions}{span}{fine}", *text, *(f"- {line}." for line in one.sentences)]
    )
