"""Quality: from the rows of files to sound bars, with everything that was done counted.

Nothing is changed silently: each repair is a `Finding` and a note; what cannot be repaired ends in
one sentence that names the file and the row.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.quality import split_jumps
from jules_jax.market.quality.clock_suspicion import odd_clock
from jules_jax.market.quality.findings import Finding, at_rows
from jules_jax.market.quality.suspicion import odd_bars
from jules_jax.market.quality.trading_hours import starts, trading_hours
from jules_jax.market.readers.layout import PRICES
from jules_jax.market.readers.raw import RawBars

KINDS = (
    "newest first",
    "out of order",
    "duplicate",
    "bad price",
    "bad volume",
    "high below low",
    "range widened",
    "zero volume",
    "stale run",
    "spike",
    "split",
    "volume regime",
    "bar label",
    "time zone",
)
"""Everything a finding can be about."""

TOLERATED = 0.01
"""Largest share of rows that may be dropped for one reason: beyond it the file is not what it is
taken for."""
SWAPPED = 0.10
"""Largest share of rows with an open or close outside their range: beyond it columns are mixed up
(official opening and closing prices make a few such bars in every session of some feeds)."""
EARLIEST, LATEST = (pd.Timestamp(f"{year}-01-01").value for year in (1900, 2200))
"""Bounds of a sane time, in nanoseconds since 1970."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Inspected:
    """Sound bars of one symbol and what was found on the way.

    raw: bars `[B]` in ascending order, one for each time, stamped at their *start*, with positive
    finite prices, low ≤ open, close ≤ high, and volumes of at least 0 (or no volumes at all).
    findings: in the order of `KINDS`.
    """

    raw: RawBars
    findings: tuple[Finding, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each finding that changed something, or that asks for a setting."""
        return tuple(found.sentence for found in self.findings if found.action != "kept")


def inspect(raw: RawBars, market: config.Market) -> Inspected:
    """Sound bars of `raw`, and findings about what was damaged or odd in it.

    Dropped: rows with a price that is blank, infinite or not positive, a volume that is blank,
    infinite or negative, or a high below the low; copies of a row. Repaired: rows newest first or
    out of order; a range that leaves out the open or close. Adjusted, with `market.adjust_splits`:
    bars before a split. Warned of and kept: split-like jumps, changes of volume regime, a clock
    that looks wrong. Kept: bars of zero volume, stale runs, spikes.

    Raises `InputError`, naming file and row, where there are fewer than two bars, more than 1 % of
    rows have one of these faults, two rows of one time differ, or a time is impossible.
    """
    _require_bars(raw)
    _require_times(raw)
    if market.bar_label == "end":
        raw = replace(raw, time=starts(raw.time, market, raw.convention))
    raw, blank = _without_blank_volume(raw)
    raw, dropped = _drop_unsound(raw)
    raw, ordered = _in_order(raw)
    raw, copies = _drop_copies(raw)
    _require_bars(raw)
    raw, widened = _widen_ranges(raw)
    raw, splits = _splits(raw, market.adjust_splits)
    hours = trading_hours(raw.time, market, raw.convention)
    odd = odd_bars(raw, hours.day(raw.time))
    clock = odd_clock(raw, hours, market)
    findings = [*blank, *dropped, *ordered, *copies, *widened, *splits, *odd, *clock]
    findings.sort(key=lambda found: KINDS.index(found.kind))
    return Inspected(raw, tuple(findings))


def _require_bars(raw: RawBars) -> None:
    if raw.time.size < 2:
        count = "1 bar" if raw.time.size else "no bars"
        name = raw.files[0] if raw.files else raw.symbol
        raise InputError(f"{name}: has {count}, expected at least 2.")


def _require_times(raw: RawBars) -> None:
    impossible = (raw.time < EARLIEST) | (raw.time >= LATEST)
    if impossible.any():
        row = int(impossible.argmax())
        missing = raw.time[row] == np.iinfo(np.int64).min
        found = "blank" if missing else f"{pd.Timestamp(int(raw.time[row])):%Y-%m-%d %H:%M}"
        raise InputError(
            f"{raw.where(row)}: the time is {found}, expected one from 1900 to 2199 "
            "(is its unit or time zone right?)."
        )


def _without_blank_volume(raw: RawBars) -> tuple[RawBars, list[Finding]]:
    """A volume column with nothing in it is no volume column."""
    if raw.volume is None or not np.isnan(raw.volume).all():
        return raw, []
    rows = np.arange(raw.time.size)
    detail = "the volume is blank in all {count} rows, and taken as absent"
    return replace(raw, volume=None), at_rows(
        "bad volume", raw, rows, action="repaired", detail=detail
    )


def _drop_unsound(raw: RawBars) -> tuple[RawBars, list[Finding]]:
    """Without the rows that are no bars; a row with several faults counts for the first."""
    prices = {name: getattr(raw, name) for name in PRICES}
    volume = np.zeros(raw.time.shape) if raw.volume is None else raw.volume
    no_price = {name: ~((price > 0) & np.isfinite(price)) for name, price in prices.items()}
    bad_price = np.logical_or.reduce(list(no_price.values()))
    bad_volume = ~((volume >= 0) & np.isfinite(volume)) & ~bad_price
    swapped = (raw.high < raw.low) & ~bad_price & ~bad_volume

    def price_of(row: int) -> str:
        name = next(name for name, bad in no_price.items() if bad[row])
        return f"{name} is {_number(prices[name][row])}, expected a positive price"

    def volume_of(row: int) -> str:
        return f"volume is {_number(volume[row])}, expected at least 0"

    no_number = [
        "blank, infinite" if np.isinf(all_).any() else "blank"
        for all_ in ([*prices.values()], volume)
    ]

    def range_of(row: int) -> str:
        return (
            f"high {raw.high[row]:g} is below low {raw.low[row]:g}, expected at least that "
            "(are the columns swapped?)"
        )

    findings = []
    for kind, bad, describe, detail in (
        ("bad price", bad_price, price_of, f"a price that is {no_number[0]} or not positive"),
        ("bad volume", bad_volume, volume_of, f"a volume that is {no_number[1]} or negative"),
        ("high below low", swapped, range_of, "a high below the low"),
    ):
        rows = np.flatnonzero(bad)
        if rows.size > TOLERATED * raw.time.size:
            raise InputError(
                f"{raw.where(int(rows[0]))}: {describe(int(rows[0]))}; {rows.size:,} of "
                f"{raw.time.size:,} rows are like that, at most {TOLERATED:.0%} can be dropped."
            )
        text = f"{{count}} row{{s}} with {detail} dropped"
        findings += at_rows(kind, raw, rows, action="dropped", detail=text)
    return (raw.select(~(bad_price | bad_volume | swapped)) if findings else raw), findings


def _number(value: float) -> str:
    return "blank or NaN" if np.isnan(value) else f"{value:g}"


def _in_order(raw: RawBars) -> tuple[RawBars, list[Finding]]:
    """In ascending order of time; rows of one time stay in the order of the files."""
    step = np.diff(raw.time)
    if (step >= 0).all():
        return raw, []
    order, reversed_rows = _file_order(raw)
    findings = at_rows(
        "newest first",
        raw,
        reversed_rows,
        action="repaired",
        detail="{count} row{s} newest first, put in ascending order",
    )
    raw = raw.select(order)
    late = np.flatnonzero(raw.time < np.maximum.accumulate(raw.time))
    findings += at_rows(
        "out of order", raw, late, action="repaired", detail="{count} row{s} out of order, sorted"
    )
    return raw.select(np.argsort(raw.time, kind="stable")), findings


def _file_order(raw: RawBars) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows with each file in ascending order, files by their first time; the rows reversed."""
    edges = np.flatnonzero(np.diff(raw.file, prepend=-1, append=-1))
    blocks, turned = [], []
    for first, last in itertools.pairwise(edges):
        rows = np.arange(first, last)
        step = np.diff(raw.time[first:last])
        if (step < 0).sum() > (step > 0).sum():
            turned.append(rows)
            rows = rows[::-1]
        blocks.append(rows)
    blocks.sort(key=lambda rows: raw.time[rows].min())
    return np.concatenate(blocks), np.concatenate([np.zeros(0, np.intp), *turned])


def _drop_copies(raw: RawBars) -> tuple[RawBars, list[Finding]]:
    """One row for each time: copies are dropped, two rows that differ are an error."""
    rows = np.flatnonzero(np.diff(raw.time) == 0) + 1  # the later one of each pair
    for name in (*PRICES, "volume", "signed_volume", "half_spread"):
        column = getattr(raw, name)
        if column is None:
            continue
        differs = (column[rows] != column[rows - 1]) & ~np.isnan(column[rows] + column[rows - 1])
        if differs.any():
            row = int(rows[differs.argmax()])
            raise InputError(
                f"{raw.where(row)}: {name} is {column[row]:.10g}, but {column[row - 1]:.10g} in "
                f"{raw.where(row - 1)} of the same time, "
                f"{pd.Timestamp(int(raw.time[row])):%Y-%m-%d %H:%M:%S} UTC, expected one row a bar."
            )
    findings = at_rows(
        "duplicate",
        raw,
        rows,
        action="dropped",
        detail="{count} row{s} repeated exactly, copies dropped",
    )
    return (raw.select(np.delete(np.arange(raw.time.size), rows)) if findings else raw), findings


def _widen_ranges(raw: RawBars) -> tuple[RawBars, list[Finding]]:
    """High and low that include open and close."""
    high = np.maximum(raw.high, np.maximum(raw.open, raw.close))
    low = np.minimum(raw.low, np.minimum(raw.open, raw.close))
    rows = np.flatnonzero((high != raw.high) | (low != raw.low))
    if rows.size > SWAPPED * raw.time.size:
        row = int(rows[0])
        raise InputError(
            f"{raw.where(row)}: open {raw.open[row]:g} or close {raw.close[row]:g} is outside low "
            f"{raw.low[row]:g} to high {raw.high[row]:g}, as in {rows.size:,} of "
            f"{raw.time.size:,} rows, expected at most {SWAPPED:.0%} (are the columns swapped?)."
        )
    findings = at_rows(
        "range widened",
        raw,
        rows,
        action="repaired",
        detail="{count} bar{s} with an open or close outside low to high, range widened",
    )
    return (replace(raw, high=high, low=low) if findings else raw), findings


def _splits(raw: RawBars, adjust: bool) -> tuple[RawBars, list[Finding]]:
    """Split-like jumps: listed, or adjusted."""
    splits = split_jumps.find(raw)
    jumps = ", ".join(
        f"{split_jumps.spell(ratio)} at {pd.Timestamp(int(raw.time[row])):%Y-%m-%d %H:%M} UTC"
        for row, ratio in zip(splits.row[:3], splits.ratio[:3], strict=True)
    )
    jumps += ", …" if splits.row.size > 3 else ""
    done = (
        "prices and volumes before adjusted"
        if adjust
        else "left as is: market.adjust_splits adjusts the bars before"
    )
    findings = at_rows(
        "split",
        raw,
        splits.row,
        action="adjusted" if adjust else "warning",
        detail=f"{{count}} split-like jump{{s}} ({jumps}), {done}",
    )
    return (split_jumps.adjust(raw, splits) if adjust and findings else raw), findings
