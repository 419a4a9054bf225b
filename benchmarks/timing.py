"""Timing on a shared machine: runs in turns, ratios within a turn, and the hardware by name."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

Seconds = dict[str, list[float]]
"""Seconds of each run by name, one entry per round."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    rate: in `unit`, None where there is none. against: what `ratio` (median over rounds, and its
    range) compares with. wanted: the least ratio (the least rate where there is none), or the most
    seconds, that is required.
    """

    name: str
    rate: float | None
    unit: str
    against: str = ""
    ratio: tuple[float, float, float] | None = None  # median, least, largest
    wanted: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`yes`, `NO`, or nothing where nothing is required; seconds are to be few."""
        if self.wanted is None:
            return ""
        if self.unit == "s":
            return "yes" if self.rate is not None and self.rate <= self.wanted else "NO"
        reached = self.rate if self.ratio is None else self.ratio[0]
        return "yes" if reached is not None and reached >= self.wanted else "NO"


def interleaved(runs: Mapping[str, Callable[[], Any]], rounds: int) -> Seconds:
    """Seconds of each run in each of `rounds` rounds, after one run of each to compile.

    Every round takes all runs in turn, so that what else the machine does falls on all of them.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    seconds: Seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - began)
    return seconds


def median(seconds: Seconds, name: str) -> float:
    """Median seconds of a run."""
    return statistics.median(seconds[name])


def ratio(
    seconds: Seconds, work: Mapping[str, float], ours: str, theirs: str
) -> tuple[float, float, float]:
    """How many times faster `ours` is per unit of `work`: median, least and largest over rounds."""
    each = [
        (work[ours] / own) / (work[theirs] / other)
        for own, other in zip(seconds[ours], seconds[theirs], strict=True)
    ]
    return statistics.median(each), min(each), max(each)


def hardware() -> dict[str, str | int | float]:
    """Processor, cores, versions, date and load: what a figure has to be read with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def heading(facts: Mapping[str, Any]) -> str:
    """The hardware in one line."""
    return (
        f"{facts['processor']}, {facts['cores']} cores; jax {facts['jax']} on {facts['devices']}, "
        f"Python {facts['python']}; {facts['date']}, load average {facts['load_average']}"
    )


def as_table(rows: list[Row]) -> str:
    """The rows as aligned text; a ratio is followed by its range over rounds."""
    lines = []
    for row in rows:
        rate = "" if row.rate is None else _figure(row.rate)
        line = f"  {row.name:<46}{rate:>12} {row.unit:<12}"
        if row.ratio is not None:
            middle, least, largest = (_figure(value) for value in row.ratio)
            line += f"{middle:>8} × {row.against} ({least}–{largest})"
        if row.wanted is not None:
            sign = "≤" if row.unit == "s" else "≥"
            line += f"  wanted {sign} {row.wanted:g}: {row.verdict}"
        lines.append((line + (f"  {row.note}" if row.note else "")).rstrip())
    return "\n".join(lines)


def _figure(value: float) -> str:
    """Three digits at least, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
