"""Times as files write them, to exact UTC nanoseconds."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.tseries.api import guess_datetime_format

from jules_jax.market.readers.notes import Note
from jules_jax.market.readers.raw import Int64
from jules_jax.market.readers.table import Table

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

EXAMPLE = "2025-09-15 09:30:00"
YEARS = (1900, 2200)
"""Years that a time may be in: others are mistakes of a unit or a format."""

EPOCH_UNITS = ((10**8, SECOND), (10**11, 10**6), (10**14, 10**3), (10**17, 1))
"""Smallest epoch number in s, ms, us and ns, which is in 1973, and nanoseconds in the unit."""

COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Formats of times that are written as one number, by its digits."""

COMPLETE = ({"%Y", "%m", "%d"}, {"%Y", "%b", "%d"}, {"%Y", "%B", "%d"})
"""Directives one of which a format needs: otherwise the parser would fill in today's date."""


class Stamps(NamedTuple):
    """UTC nanoseconds `[B]`, the zone that naive times were read in ("" for exact ones), notes."""

    time: Int64
    zone: str
    notes: list[Note]


def utc(table: Table, positions: tuple[int, ...], *, zone: str, date: str = "") -> Stamps:
    """The times in a table, and what had to be assumed.

    `positions` are those of one column, or of a date and a time of day. Times with a UTC offset and
    epoch numbers (s, ms, us or ns, by their size) are exact; others are wall-clock times in `zone`.
    `date` (YYYYMMDD) is given where the column counts milliseconds from its midnight. Raises
    `InputError` naming the line of a time that cannot be read or does not exist.
    """
    if not table.line.size:
        return Stamps(np.zeros(0, np.int64), "", [])
    column = table.columns[positions[0]]
    if len(positions) == 2:
        parts = [pc.utf8_trim_whitespace(table.columns[at].cast(pa.string())) for at in positions]
        column = pc.binary_join_element_wise(*parts, " ")
    _fail_first(table, column, column.is_null().to_numpy(), "expected a date and time like")
    if date:
        midnight = np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}", "ns").astype(np.int64)
        return Stamps(localize(table, midnight + _integers(column) * 10**6, zone), zone, [])
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return _numbers(table, column, zone)
    notes: list[Note] = []
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        column, notes = _text(table, column)
    aware = getattr(column.type, "tz", None) is not None
    stamps = _nanoseconds(table, column)
    if aware:
        return Stamps(stamps, "", notes)
    return Stamps(localize(table, stamps, zone), zone, notes)


def localize(table: Table, wall: Int64, zone: str) -> Int64:
    """UTC nanoseconds of wall-clock times `[B]` in `zone`.

    Of an hour that daylight saving repeats, order tells which is meant where the file has both.
    Raises `InputError` on a time that is skipped, or repeated and without such order.
    """
    if zone == "UTC" or not wall.size:
        return wall
    starts, offsets = _offsets(wall, zone)
    piece = np.searchsorted(starts + offsets, wall, side="right") - 1
    ends = np.append(starts[1:], np.iinfo(np.int64).max // 2) + offsets
    late = wall < ends[piece]
    early = (piece > 0) & (wall < ends[piece - 1])
    skipped = ~late & ~early
    if skipped.any():
        row = int(skipped.argmax())
        table.fail(
            row,
            f"the time {_clock(wall[row])} does not exist, daylight saving skips it in {zone}, "
            "expected times that do (is market.timezone right?)",
        )
    piece = piece - np.where(late, 0, 1)
    twice = late & early
    if twice.any():
        piece[twice] = _by_order(table, wall, np.flatnonzero(twice), piece, zone)
    return wall - offsets[piece]


def _by_order(
    table: Table, wall: Int64, rows: NDArray[np.intp], piece: NDArray[np.intp], zone: str
) -> NDArray[np.intp]:
    """Pieces of repeated times: the earlier until the clock steps back, then the later."""
    direction = -1 if np.median(np.diff(wall)) < 0 else 1
    chosen = piece[rows].copy()
    for later in np.unique(chosen):
        run = np.flatnonzero(chosen == later)
        steps = direction * np.diff(wall[rows[run]])
        back = np.flatnonzero(steps < 0) if (steps < 0).any() else np.flatnonzero(steps == 0)
        if back.size != 1:
            row = int(rows[run[0]])
            table.fail(
                row,
                f"the time {_clock(wall[row])} is repeated by daylight saving in {zone} and the "
                "order of rows does not tell which is meant, expected both hours in order or "
                "times in UTC (is market.timezone right?)",
            )
        first = np.arange(run.size) <= back[0]
        chosen[run] = np.where(first == (direction > 0), later - 1, later)
    return chosen


def _offsets(wall: Int64, zone: str) -> tuple[Int64, Int64]:
    """UTC times from which an offset of `zone` holds, and the offsets, all in nanoseconds."""
    step = 1800 * SECOND  # transitions fall on half hours
    first, last = int(wall.min()) // step - 96, int(wall.max()) // step + 96
    instants = np.arange(first, last) * step
    local = pd.DatetimeIndex(instants, tz="UTC").tz_convert(zone).tz_localize(None)
    offsets = local.as_unit("ns").asi8 - instants
    changes = np.concatenate([[0], np.flatnonzero(np.diff(offsets)) + 1])
    return instants[changes], offsets[changes]


def _numbers(table: Table, column: Any, zone: str) -> Stamps:
    """Epoch numbers, or dates written as one number such as 20250915093000."""
    values = column.to_numpy()
    first = values[0]
    digits = len(f"{first:.0f}") if np.isfinite(first) and first > 0 else 0
    if digits in COMPACT and YEARS[0] <= first // 10 ** (digits - 4) < YEARS[1]:
        text = column.cast(pa.int64()).cast(pa.string())
        parsed = _strptime(text, COMPACT[digits])
        _fail_first(
            table, column, parsed.is_null().to_numpy(), "expected a time like", f"{first:.0f}"
        )
        return Stamps(localize(table, _nanoseconds(table, parsed), zone), zone, [])
    fitting = [(low, unit) for low, unit in EPOCH_UNITS if low <= abs(first)]
    low, unit = fitting[-1] if fitting else (0, 0)
    bad = ~((values >= low) & (values < min(low * 100, 9.2e18))) if unit else values == values
    _fail_first(
        table,
        column,
        bad,
        "expected seconds, ms, us or ns since 1970, all in one unit, or",
        EXAMPLE,
    )
    if values.dtype.kind == "f":
        fine = min(unit, 10**6)  # a double does not hold nanoseconds since 1970
        return Stamps(np.rint(values * (unit / fine)).astype(np.int64) * fine, "", [])
    return Stamps(values.astype(np.int64) * unit, "", [])


def _text(table: Table, column: Any) -> tuple[Any, list[Note]]:
    """Times of text, all in the format of the first, as an Arrow column of timestamps."""
    column = pc.utf8_trim_whitespace(column.cast(pa.string()))
    column = pc.replace_substring_regex(column, r"\.0+$", "")
    first = column[0].as_py()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the day comes first
        form = guess_datetime_format(first)
    if form is None or not any(all(part in form for part in parts) for parts in COMPLETE):
        table.fail(0, f"the time is {first!r}, expected a date and time like {EXAMPLE}")
    notes: list[Note] = []
    if form.startswith("%Y") or "%m" not in form:
        parsed = _strptime(column, form)
    else:
        parsed, notes = _either(table, column, form)
    _fail_first(table, column, parsed.is_null().to_numpy(), "expected a date and time like", first)
    return parsed, notes


def _either(table: Table, column: Any, form: str) -> tuple[Any, list[Note]]:
    """Times whose day or month comes first, which a number above 12 anywhere tells."""
    swapped = form.replace("%m", "%-").replace("%d", "%m").replace("%-", "%d")
    month_first, day_first = sorted((form, swapped), key=lambda form: form.index("%m"))
    by_month, by_day = _strptime(column, month_first), _strptime(column, day_first)
    if by_day.null_count or by_month.null_count:
        return min((by_month, by_day), key=lambda parsed: parsed.null_count), []
    if by_month.equals(by_day):
        return by_month, []
    dotted = month_first.startswith("%m.")  # a day-first way of writing
    order = "day" if dotted else "month"
    note = Note(f"{table.name}: no date tells day from month, read with the {order} first")
    return (by_day if dotted else by_month), [note]


def _strptime(column: Any, form: str) -> Any:
    """Timestamps of text in one format, null where it does not fit."""
    if "%z" not in form and "%f" not in form:
        parsed = pc.strptime(column, format=form, unit="s", error_is_null=True)
        # The C library takes 31 February for 3 March: only such days are looked at again.
        early = pc.fill_null(pc.less_equal(pc.day(parsed), 3), False)
        again = pc.filter(column, early)
        if len(again) and _pandas(again, form).null_count:
            return _pandas(column, form)
        return parsed
    return _pandas(column, form)


def _pandas(column: Any, form: str) -> Any:
    aware = "%z" in form
    text = pd.Series(column.to_pandas(), dtype=object)
    stamps = pd.to_datetime(text, format=form, errors="coerce", utc=aware)
    kind = pa.timestamp("ns", tz="UTC" if aware else None)
    return pa.chunked_array([pa.Array.from_pandas(stamps, type=kind)])


def _nanoseconds(table: Table, column: Any) -> Int64:
    """Nanoseconds since 1970 of an Arrow column of timestamps or dates."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    values = _integers(column)
    unit = {"s": SECOND, "ms": 10**6, "us": 10**3, "ns": 1}[column.type.unit]
    low, high = (
        int(np.datetime64(f"{year}", "s").astype(np.int64)) * SECOND // unit for year in YEARS
    )
    bad = (values < low) | (values >= high)
    _fail_first(table, column, bad, f"expected a year from {YEARS[0]} to {YEARS[1]} as in", EXAMPLE)
    return values * unit


def _integers(column: Any) -> Int64:
    return cast(Int64, column.cast(pa.int64()).to_numpy())


def _fail_first(
    table: Table,
    column: Any,
    bad: NDArray[np.bool_],
    expected: str,
    example: str = EXAMPLE,
) -> None:
    """Raise on the first bad time, as it is written."""
    if bad.any():
        row = int(bad.argmax())
        value = column[row].as_py()
        found = "blank" if value is None else repr(value if isinstance(value, int) else str(value))
        table.fail(row, f"the time is {found}, {expected} {example}")


def _clock(wall: Any) -> str:
    """A wall-clock time in nanoseconds, as text."""
    return f"{pd.Timestamp(int(wall)):%Y-%m-%d %H:%M:%S}"
