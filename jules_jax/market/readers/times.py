"""Times as files write them, to exact UTC nanoseconds."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
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
from jules_jax.market.sessions import DAY, SECOND

EXAMPLE = "2025-09-15 09:30:00"
YEARS = (1900, 2200)
"""Years that a time may be in: others are mistakes of a unit or a format."""

EPOCH_UNITS = ((10**8, SECOND), (10**11, 10**6), (10**14, 10**3), (10**17, 1))
"""Smallest epoch number in s, ms, us and ns, which is in 1973, and nanoseconds in the unit."""

COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Formats of times that are written as one number, by its digits."""

COMPLETE = ({"%Y", "%m", "%d"}, {"%Y", "%b", "%d"}, {"%Y", "%B", "%d"})
"""Directives one of which a format needs: otherwise the parser would fill in today's date."""

WIDTHS = {
    "%Y": 4, "%m": 2, "%d": 2, "%b": 3, "%H": 2, "%I": 2, "%M": 2, "%S": 2, "%p": 2,
}  # fmt: skip
"""Letters of the directives that are read by slicing, in text of one length."""

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

CLEARLY = 2
"""Of two readings of dates one is believed where the other spans more than so many times that."""

CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?( ?[AaPp][Mm])?")
NOON = re.compile(r"\b12(?=:\d\d(:\d\d(\.\d+)?)? ?[AaPp][Mm])")
NO_DATE = re.compile(r"[-+]?\d*\.?\d*([Ee][-+]?\d+)?|\D*")
"""Numbers with a point, and text without a digit."""
RECENT = (631_152_000, 4_102_444_800)
"""Seconds since 1970 that a column without a telling name is believed to count: 1990 to 2099."""


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


def kind(texts: Sequence[str]) -> str:
    """What the first values of a column are: `moment` (epochs included), `date`, `clock` or ``."""
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        return ""
    if all(CLOCK.fullmatch(text) for text in texts):
        return "clock"
    if all(re.fullmatch(r"\d+(\.0*)?", text) for text in texts):
        return _kind_of_numbers([text.partition(".")[0] for text in texts])
    if any(len(text) < 6 or NO_DATE.fullmatch(text) for text in texts):
        return ""
    forms = [_format(text) for text in texts]
    if None in forms:
        return ""
    return "moment" if all(form and ("%H" in form or "%I" in form) for form in forms) else "date"


def _kind_of_numbers(texts: list[str]) -> str:
    """The same for whole numbers: compact dates, or an epoch that goes one way in small steps."""
    digits = len(texts[0])
    if digits in COMPACT:
        stamps = pd.to_datetime(pd.Series(texts), format=COMPACT[digits], errors="coerce")
        if stamps.notna().all() and stamps.dt.year.between(*YEARS).all():
            return "date" if digits == 8 else "moment"
    values = np.array([float(text) for text in texts])
    steps = np.diff(values)
    is_epoch = any(
        ((values >= RECENT[0] * SECOND // unit) & (values < RECENT[1] * SECOND // unit)).all()
        for _, unit in EPOCH_UNITS
    )
    steady = (steps >= 0).all() or (steps <= 0).all()
    return "moment" if is_epoch and steady and np.ptp(values) < 0.01 * values[0] else ""


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
    if pc.any(pc.match_substring(column, ".")).as_py():
        column = pc.replace_substring_regex(column, r"\.0+$", "")
    first = column[0].as_py()
    form = _format(first)
    if form is None:
        table.fail(0, f"the time is {first!r}, expected a date and time like {EXAMPLE}")
    notes: list[Note] = []
    if form.startswith("%Y") or "%m" not in form:
        parsed = _strptime(column, form)
    else:
        parsed, notes = _either(table, column, form)
    _fail_first(table, column, parsed.is_null().to_numpy(), "expected a date and time like", first)
    return parsed, notes


def _format(text: str) -> str | None:
    """The format of a date, with or without a time of day; None where it is none."""
    text = NOON.sub("11", text)  # which the guess takes for hour 12 of 24, and gives up
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the day comes first
        form = guess_datetime_format(text)
    if form is None or not any(all(part in form for part in parts) for parts in COMPLETE):
        return None
    return form


def _either(table: Table, column: Any, form: str) -> tuple[Any, list[Note]]:
    """Times whose day or month comes first, which a number above 12 anywhere tells.

    Where none does, bars are of days in a row, and the other reading has them months apart.
    """
    swapped = form.replace("%m", "%-").replace("%d", "%m").replace("%-", "%d")
    month_first, day_first = sorted((form, swapped), key=lambda form: form.index("%m"))
    by_month, by_day = _strptime(column, month_first), _strptime(column, day_first)
    if by_day.null_count or by_month.null_count:
        return min((by_month, by_day), key=lambda parsed: parsed.null_count), []
    if by_month.equals(by_day):
        return by_month, []
    month_span, day_span = (np.ptp(_integers(parsed)) for parsed in (by_month, by_day))
    if CLEARLY * min(month_span, day_span) < max(month_span, day_span):
        is_day = bool(day_span < month_span)
        why = ", in which its bars span fewer days"
    else:
        is_day, why = month_first.startswith("%m."), ""  # dots are a day-first way of writing
    order = "day" if is_day else "month"
    note = Note(f"{table.name}: no date tells day from month, read with the {order} first{why}")
    return (by_day if is_day else by_month), [note]


def _strptime(column: Any, form: str) -> Any:
    """Timestamps of text in one format, null where it does not fit."""
    if {*re.findall("%.", form)} <= {*WIDTHS}:
        parsed = _sliced(column, form)
        if parsed is None:  # a digit for two somewhere
            parsed = _sliced(pc.replace_substring_regex(column, r"\b(\d)\b", r"0\1"), form)
        if parsed is not None:
            return parsed
    aware = "%z" in form
    text = pd.Series(column.to_pandas(), dtype=object)
    stamps = pd.to_datetime(text, format=form, errors="coerce", utc=aware)
    kind = pa.timestamp("ns", tz="UTC" if aware else None)
    return pa.chunked_array([pa.Array.from_pandas(stamps, type=kind)])


def _sliced(column: Any, form: str) -> Any | None:
    """The same by slicing bytes, for text without nulls; None where texts differ in length."""
    pieces = re.findall("%.|.", form)
    width = sum(WIDTHS.get(piece, 1) for piece in pieces)
    sizes = pc.min_max(pc.binary_length(column)).as_py()
    if not sizes["min"] == sizes["max"] == width:
        return None
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([_slice(chunk, pieces, width) for chunk in chunks])


def _slice(texts: Any, pieces: list[str], width: int) -> Any:
    """Timestamps of an Arrow array of texts `[B]` that are all `width` bytes long."""
    _, offsets, data = texts.buffers()
    start = int(np.frombuffer(offsets, np.int32)[texts.offset]) if len(texts) else 0
    letters = np.frombuffer(data, np.uint8)[start : start + len(texts) * width]
    letters = letters.reshape(len(texts), width)
    bad = np.zeros(len(texts), bool)
    values: dict[str, Any] = {"%d": 1, "%H": 0, "%M": 0, "%S": 0}
    at = 0
    for piece in pieces:
        size = WIDTHS.get(piece, 1)
        columns = [letters[:, at + place] for place in range(size)]
        at += size
        if piece == "%p":
            values[piece] = (columns[0] | 32) == ord("p")
            bad |= ~np.isin(columns[0] | 32, [ord("a"), ord("p")]) | (columns[1] | 32 != ord("m"))
        elif piece == "%b":
            codes = [int.from_bytes(name.encode()) for name in MONTHS]
            code = sum(
                (c.astype(np.int32) | 32) << shift
                for c, shift in zip(columns, (16, 8, 0), strict=True)
            )
            order = np.argsort(codes)
            found = order[np.minimum(np.searchsorted(np.sort(codes), code), 11)]
            bad |= np.array(codes)[found] != code
            values["%m"] = found + 1
        elif piece in WIDTHS:
            value = np.zeros(len(texts), np.int32)
            for column in columns:
                digit = column - np.uint8(ord("0"))  # other bytes wrap around to more than 9
                bad |= digit > 9
                value = value * 10 + digit
            values[piece] = value
        else:
            bad |= columns[0] != ord(piece)
    return _timestamps(values, bad)


def _timestamps(values: dict[str, Any], bad: NDArray[np.bool_]) -> Any:
    """Timestamps of the numbers `[B]` that directives stand for, null where there is none."""
    hour = values["%H"]
    if "%I" in values:
        bad |= (values["%I"] < 1) | (values["%I"] > 12)
        hour = values["%I"] % 12 + 12 * values["%p"] if "%p" in values else values["%I"]
    minute, second = values["%M"], values["%S"]
    bad |= (values["%m"] < 1) | (values["%m"] > 12) | (values["%Y"] < 1)
    bad |= (hour > 23) | (minute > 59) | (second > 59)
    month = np.where(bad, 0, values["%Y"] * 12 + values["%m"] - 1 - 1970 * 12)
    low = int(month.min(initial=0))
    days = np.arange(low, int(month.max(initial=0)) + 2).astype("datetime64[M]")
    first = days.astype("datetime64[D]").astype(np.int64)  # of each month
    begin = first[month - low]
    bad |= (values["%d"] < 1) | (values["%d"] > first[month - low + 1] - begin)
    day = begin + values["%d"] - 1
    seconds = day * DAY + hour * 3600 + minute * 60 + second
    return pa.array(seconds, pa.int64(), mask=bad).cast(pa.timestamp("s"))


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
