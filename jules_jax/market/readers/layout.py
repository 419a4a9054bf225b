"""What a format is: how it is told, where its columns are, and what is special about its bars."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jules_jax.errors import InputError
from jules_jax.market.readers import times
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
    "window_start", "open_time", "gmt_time", "local_time", "bar_time", "time_stamp", "start_time",
    "unix", "epoch", "date", "t", "time", "index_level_0",
)  # fmt: skip
"""Names of a column of times, the most telling first; `date` and `time` are joined."""

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


QUALIFIERS = {"bid", "ask", "mid", "price", "px", "trade", "bar", "usd"}
"""Words that may stand beside the letter of a price: `bid_o`, `mid_c`."""

GLUED = {
    "open": re.compile(r"(bid|ask|mid|trade|px)?open(ing)?(price|px|bid|ask|mid)?"),
    "high": re.compile(r"(bid|ask|mid|trade|px)?high(est)?(price|px|bid|ask|mid)?"),
    "low": re.compile(r"(bid|ask|mid|trade|px)?low(est)?(price|px|bid|ask|mid)?"),
    "close": re.compile(r"(bid|ask|mid|trade|px)?clos(e|ing)(price|px|bid|ask|mid)?"),
    "volume": re.compile(r"(trade|base|tick|total)?vol(ume)?"),
}
"""Words that name a price or the volume and something beside it: `bidopen`, `closing`."""

SUFFIX = re.compile(r"(?<=.)\s*[(\[{]([^)\]}]*)[)\]}]\s*$")
"""What brackets at the end of a name say: a unit or a time zone."""

OFFSETS = {str(hours) for hours in range(1, 15)} | {f"0{hours}" for hours in range(1, 10)}
"""Words after `utc` that make it another clock."""

BEGINS = {"start", "begin", "open", "from"}
"""Words for the start of a bar, where columns of both ends are there."""


def named(head: Head) -> Layout | None:
    """The layout that the header tells, None where it lacks a time or a price.

    A column that has no standard name, but one that can mean nothing else, or values that are times
    where no other column has any, is taken with a note. Raises `InputError` where several could be.
    """
    if not head.header or missing(head):
        return None
    numbers = {role: at for role in ALIASES if (at := column(head, role)) is not None}
    at_times = _time_columns(head)
    unread = [
        (head.header[at], match[1])
        for at in at_times
        if (match := SUFFIX.search(head.header[at])) and match[1].upper() not in ("UTC", "GMT")
    ]
    words = {word for at in at_times for word in head.names[at].split("_")}
    taken = {"time": at_times} | {role: (at,) for role, at in numbers.items()}
    told = [
        f"{' and '.join(repr(head.header[at]) for at in positions)} as {role}"
        for role, positions in taken.items()
        if not all(_is_standard(head.names[at], role) for at in positions)
    ]
    return Layout(
        time=at_times,
        numbers=numbers,
        symbol=first_of(head, "symbol", "ticker", "sym"),
        utc=bool(words & {"utc", "gmt"}) and not unread and not words & OFFSETS,
        notes=(
            *([f"{head.name}: taken by its header or values: {', '.join(told)}"] if told else []),
            *(
                f"{head.name}: column {name!r} says {clock!r}, which is not understood: "
                "market.timezone tells the clock of its times"
                for name, clock in unread
            ),
        ),
    )


def _is_standard(name: str, role: str) -> bool:
    if role == "time":
        return name in ("", "unnamed_0", *TIMES)
    words = [word for word in name.split("_") if not word.isdecimal()]
    return name in ALIASES[role] or words == [ALIASES[role][0]]  # as in `1. open`


def missing(head: Head) -> list[str]:
    """What no column of the header is, in words."""
    lacking = [role for role in PRICES if column(head, role) is None]
    if not _time_columns(head):
        lacking.insert(0, "time (such as " + ", ".join(TIMES[3:6]) + ")")
    return lacking


def column(head: Head, role: str) -> int | None:
    """The position of a price or volume: one of its aliases, else the one name that means it."""
    at = first_of(head, *ALIASES[role])
    if at is not None:
        return at
    plain = ALIASES[role][0]
    words = [name.split("_") for name in head.names]
    readings: tuple[Callable[[list[str]], bool], ...] = (
        lambda name: plain in name,
        lambda name: any(GLUED[role].fullmatch(word) for word in name),
        lambda name: plain[0] in name and {*name} <= {plain[0]} | QUALIFIERS,
    )
    for means in readings:
        found = [at for at, name in enumerate(words) if not NOT_IN_NAMES & {*name} and means(name)]
        if len(found) > 1:
            raise _ambiguous(head, found, role)
        if found:
            return found[0]
    return None


def _ambiguous(head: Head, found: Sequence[int], role: str) -> InputError:
    names = ", ".join(repr(head.header[at]) for at in found)
    return InputError(f"{head.name}: line 1: columns {names} could all be {role}, expected one.")


def first_of(head: Head, *names: str) -> int | None:
    """The position of the first of `names` that is in the header; twice is an error."""
    for name in names:
        if head.names.count(name) > 1:
            raise InputError(f"{head.name}: line 1: several columns {name!r}, expected one.")
        if name in head.names:
            return head.names.index(name)
    return None


def _time_columns(head: Head) -> tuple[int, ...]:
    """The position of the time, or of a date and a time of day: by name, else by their values."""
    if "date" in head.names and "time" in head.names:
        return tuple(at for name in ("date", "time") if (at := first_of(head, name)) is not None)
    at = first_of(head, *TIMES)
    if at is None and head.header and head.names[0] in ("", "unnamed_0"):
        at = 0  # as pandas writes an index that has no name
    first = times.kind([head.rows[0][at]]) if at is not None and at < len(head.rows[0]) else ""
    if at is not None and first not in ("date", "clock"):
        return (at,)
    prices = {column(head, role) for role in ALIASES}
    of_kind: dict[str, list[int]] = {"moment": [], "date": [], "clock": [], "": []}
    for position in range(head.width):
        if position not in prices:
            values = [row[position] for row in head.rows if position < len(row)]
            of_kind[times.kind(values)].append(position)
    if at is not None and first == "date":
        return (at, *of_kind["clock"]) if len(of_kind["clock"]) == 1 else (at,)
    moments = of_kind["moment"]
    if len(moments) > 1:
        # A standard name with a bracket after it, or the only start of bars beside their ends.
        plain = [SUFFIX.sub("", name).strip().lower() for name in head.header]
        telling = [at for at in moments if plain[at] in TIMES]
        begins = [at for at in moments if BEGINS & {*head.names[at].split("_")}]
        moments = next((few for few in (telling, begins) if len(few) == 1), moments)
    for candidates in (moments, of_kind["date"], of_kind["clock"]):
        if len(candidates) > 1:
            raise _ambiguous(head, candidates, "the time")
        if moments:
            return tuple(moments)
    if not of_kind["date"]:
        return () if at is None else (at,)
    return (*of_kind["date"], *of_kind["clock"])
