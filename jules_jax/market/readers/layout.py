"""What a format is: how it is told, where its columns are, and what is special about its bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jules_jax.errors import InputError
from jules_jax.market.readers.raw import Convention, Float64, RawBars
from jules_jax.market.readers.table import Head

PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Layout:
    """Where the columns of a file are, by position.

    time: of the time, or of a date and a time of day. numbers: by role (`PRICES`, volume, or what
    the format's `finish` asks for). symbol: of the symbol, where a file holds several. date:
    YYYYMMDD where the file's name has it and the time counts milliseconds from its midnight. utc:
    times without an offset are UTC because their column says so. notes: assumptions to be told.
    """

    time: tuple[int, ...]
    numbers: Mapping[str, int]
    symbol: int | None = None
    date: str = ""
    utc: bool = False
    notes: tuple[str, ...] = ()


def _unchanged(bars: RawBars, numbers: Mapping[str, Float64], head: Head) -> RawBars:
    return bars


@dataclass(frozen=True)
class Format:
    """One format of files of bars.

    convention: its name and what it says about its bars. layout: of a file, or None where the head
    is not of this format. finish: what is left to do after times and numbers are read, given the
    `numbers` `[B]` of every role in the layout.
    """

    convention: Convention
    layout: Callable[[Head], Layout | None]
    finish: Callable[[RawBars, Mapping[str, Float64], Head], RawBars] = field(default=_unchanged)


TIMES = (
    "timestamp_utc", "datetime_utc", "time_utc", "datetime", "date_time", "timestamp", "ts_event",
    "window_start", "open_time", "gmt_time", "local_time", "bar_time", "unix", "epoch", "date", "t",
    "time", "index_level_0",
)  # fmt: skip
"""Names of a column of times, the most telling first; `date` and `time` are joined."""

UTC_TIMES = ("timestamp_utc", "datetime_utc", "time_utc", "gmt_time")

ALIASES = {
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c", "last", "price"),
    "volume": ("volume", "v", "vol"),
}
"""Names of a column of prices or volumes; any other with the first of them as a word will do."""

NOT_IN_NAMES = {"time", "adj", "adjusted", "interest", "date", "quote", "taker"}
"""Words that make it another column: `open_time`, `adj_close`, `open_interest`."""


def named(head: Head) -> Layout | None:
    """The layout that the header tells, None where it lacks a time or a price."""
    if not head.header or missing(head):
        return None
    times = _time_columns(head)
    numbers = {role: at for role in ALIASES if (at := column(head, role)) is not None}
    return Layout(
        time=times,
        numbers=numbers,
        symbol=first_of(head, "symbol", "ticker", "sym"),
        utc=head.names[times[0]] in UTC_TIMES,
    )


def missing(head: Head) -> list[str]:
    """What no column of the header is, in words."""
    lacking = [role for role in PRICES if column(head, role) is None]
    if not _time_columns(head):
        lacking.insert(0, "time (such as " + ", ".join(TIMES[3:6]) + ")")
    return lacking


def column(head: Head, role: str) -> int | None:
    """The position of a price or volume: one of its aliases, else the one name with its word."""
    at = first_of(head, *ALIASES[role])
    if at is not None:
        return at
    words = [name.split("_") for name in head.names]
    found = [
        at
        for at, name in enumerate(words)
        if ALIASES[role][0] in name and not NOT_IN_NAMES & {*name}
    ]
    if len(found) > 1:
        names = ", ".join(repr(head.header[at]) for at in found)
        raise InputError(f"{head.name}: line 1: columns {names} could all be {role}, expected one.")
    return found[0] if found else None


def first_of(head: Head, *names: str) -> int | None:
    """The position of the first of `names` that is in the header; twice is an error."""
    for name in names:
        if head.names.count(name) > 1:
            raise InputError(f"{head.name}: line 1: several columns {name!r}, expected one.")
        if name in head.names:
            return head.names.index(name)
    return None


def _time_columns(head: Head) -> tuple[int, ...]:
    if "date" in head.names and "time" in head.names:
        return tuple(at for name in ("date", "time") if (at := first_of(head, name)) is not None)
    at = first_of(head, *TIMES)
    if at is None and head.header and head.names[0] in ("", "unnamed_0"):
        at = 0  # as pandas writes an index that has no name
    return () if at is None else (at,)
