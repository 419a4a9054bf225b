"""Sessions: the calendar's grid of slots, and the bar that falls in each.

A calendar is reduced to hours, one open and close (and perhaps a break) per session, in UTC
nanoseconds. The hours are cut into slots of one bar's length, and bars are placed in them. What a
session is, how long it lasts and which slots it has thus never depends on which bars exist.
"""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jules_jax.errors import InputError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

CALENDARS = ("24/7", "24/5", "regular")
"""Calendars defined here; all other names are those of exchange_calendars."""

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

MINUTE = 60 * SECOND
DAY = 86_400
"""Seconds in a day."""

FX_CLOSE = 17 * 3600
"""Seconds after midnight in New York at which one day of the foreign exchange market ends."""

MARGIN = 10
"""Days of calendar looked up around the bars: more than the longest holidays of any exchange."""

SUSPICIOUS = 0.03
"""Share of bars beyond which those that do not fit the sessions hint at a wrong setting: feeds have
stray bars on holidays and around the close, but fewer."""


class SlotError(InputError):
    """Two bars in one slot; `row` is the index of the second."""

    def __init__(self, row: int, sentence: str):
        super().__init__(sentence)
        self.row = row


@dataclass(frozen=True)
class Hours:
    """Sessions `[S]` of one calendar in time order: int64 UTC nanoseconds.

    day: the session's date in `timezone`, in days since 1970. No trading takes place from
    break_start to break_end; both are `close` in a session without a break.
    """

    day: Int64
    open: Int64
    break_start: Int64
    break_end: Int64
    close: Int64
    timezone: str

    def select(self, chosen: NDArray[np.bool_]) -> Hours:
        """Some of the sessions."""
        return replace(
            self,
            day=self.day[chosen],
            open=self.open[chosen],
            break_start=self.break_start[chosen],
            break_end=self.break_end[chosen],
            close=self.close[chosen],
        )

    def parts(self) -> tuple[Int64, Int64]:
        """Begin and end of the two parts of each session, `[S, 2]`; the second may be empty."""
        begin = np.stack([self.open, self.break_end], axis=1)
        return begin, np.stack([self.break_start, self.close], axis=1)


@dataclass(frozen=True)
class Placement:
    """The grid of slots `[G]` and the bars in it.

    index: which of the given bars is in a slot, -1 where none is. session, minute, session_length,
    bar_of_session: int32, as in `Bars`; breaks have no slots and count for nothing. time: UTC
    nanoseconds at which a slot begins. bars_per_session: slots of the longest session around.

    Bars dropped: before_open and after_close of their session, in_break, and on closed_days, dates
    without a session. missing: slots without a bar. short: sessions that close early.
    absent: sessions without a bar between the first and the last; they have no slots.
    leading, trailing: slots of the first session before its first bar, of the last session after
    its last bar, which the grid leaves out. unaligned: bars that begin inside a slot. spacing:
    slots from bar to bar, if always a multiple of so many, else 1.
    """

    index: NDArray[np.intp]
    session: Int32
    minute: Int32
    session_length: Int32
    bar_of_session: Int32
    time: Int64
    bars_per_session: int
    continuous: bool
    before_open: int
    after_close: int
    in_break: int
    closed_days: int
    missing: int
    short: int
    absent: int
    leading: int
    trailing: int
    unaligned: int
    spacing: int


def arrange(
    times: Int64,
    *,
    calendar: str,
    bar_seconds: int,
    timezone: str = "America/New_York",
    session_open: str = "09:30",
    session_close: str = "16:00",
    before_open_minutes: int = 0,
    after_close_minutes: int = 0,
) -> Placement:
    """Places bars in the slots of a calendar's sessions.

    Every session with a bar has all slots from its open to its close, the last one cut short where
    the session is not a multiple of a bar; only the history as a whole begins with its first bar
    and ends with its last.

    Args:
      times: `[B]` UTC nanoseconds at which bars begin, ascending and unique.
      calendar: `24/7` (UTC days on which nothing closes), `24/5` (17:00 to 17:00 New York, Sunday
        to Friday), `regular` (session_open to session_close of each date in `timezone`), or a name
        of exchange_calendars.
      bar_seconds: length of a bar.
      timezone: of the regular calendar, as are its session_open and session_close, `HH:MM`.
      session_open: see `timezone`.
      session_close: see `timezone`.
      before_open_minutes: extended hours before each open, at most to the last session's close.
      after_close_minutes: extended hours after each close, at most to the next session's open.

    Raises:
      InputError: the calendar is unknown or does not reach as far as the bars, no bar is in a
        session, or two are in one slot (`SlotError`).
    """
    days = times // (DAY * SECOND)
    first, last = (int(days[0]), int(days[-1])) if times.size else (0, 0)
    hours = calendar_hours(
        calendar,
        first,
        last,
        timezone=timezone,
        session_open=session_open,
        session_close=session_close,
    )
    hours = extend(hours, before_open_minutes * MINUTE, after_close_minutes * MINUTE)
    return _place(times, hours, calendar, bar_seconds * SECOND)


def _place(times: Int64, hours: Hours, calendar: str, step: int) -> Placement:
    """`arrange` for known hours; `step` is a bar's length in nanoseconds."""
    begin, end = hours.parts()
    low, high = np.searchsorted(times, begin), np.searchsorted(times, end)
    traded = (high - low).any(axis=1)
    if not traded.any():
        raise InputError(
            f"none of the {times.size:,} bars begins in a session of the calendar {calendar} "
            "(are market.calendar, market.timezone and market.bar_label right?)"
        )
    sizes, lengths = -(-(end - begin) // step), (end - begin).sum(axis=1) // MINUTE

    # From here on the parts of all sessions that have bars are one list [2K].
    slots = sizes[traded].ravel()
    offset = np.cumsum(slots) - slots
    rows, part_of_row = _ranges(low[traded].ravel(), high[traded].ravel())
    into = times[rows] - begin[traded].ravel()[part_of_row]
    position = offset[part_of_row] + into // step
    _refuse_crowded(times, rows, position, step)

    slot, part = _ranges(np.zeros_like(slots), slots)
    index = np.full(slot.size, -1, np.intp)
    index[position] = rows
    grid = slice(position[0], position[-1] + 1)  # nothing is invented before or after the history
    slot, part, index = slot[grid], part[grid], index[grid]
    session, after_break = part // 2, part % 2 == 1
    morning = (hours.break_start - hours.open)[traded] // MINUTE
    outside = np.ones(times.size, bool)
    outside[rows] = False
    steps = np.diff(position)[np.diff(part_of_row // 2) == 0]
    return Placement(
        index=index,
        session=session.astype(np.int32),
        minute=(slot * step // MINUTE + after_break * morning[session]).astype(np.int32),
        session_length=lengths[traded][session].astype(np.int32),
        bar_of_session=(slot + after_break * sizes[traded, 0][session]).astype(np.int32),
        time=begin[traded].ravel()[part] + slot * step,
        bars_per_session=int(sizes.sum(axis=1).max()),
        continuous=calendar == "24/7",
        **_count_outside(times[outside], hours),
        missing=int((index < 0).sum()),
        short=int((lengths[traded] < lengths.max()).sum()),
        absent=int(np.ptp(np.flatnonzero(traded)) + 1 - traded.sum()),
        leading=int(position[0]),
        trailing=int(slots.sum() - 1 - position[-1]),
        unaligned=int((into % step != 0).sum()),
        spacing=int(np.gcd.reduce(steps)) if steps.size else 1,
    )


def suspicions(placement: Placement) -> list[str]:
    """What to doubt where more than `SUSPICIOUS` of all bars do not fit the sessions.

    One sentence each, without its full stop, for bars on closed days, outside the hours of a
    session, and (of those inside) off the grid of slots.
    """
    outside = placement.before_open + placement.after_close + placement.in_break
    placed = int((placement.index >= 0).sum())
    total = placed + outside + placement.closed_days
    found = []
    for count, of, text in (
        (
            placement.closed_days,
            total,
            "are on days without a session and dropped: is market.calendar right?",
        ),
        (
            outside,
            total,
            "are outside the hours of their session and dropped: are market.calendar, "
            "market.timezone, market.before_open_minutes and market.after_close_minutes right?",
        ),
        (
            placement.unaligned,
            placed,
            "begin inside a slot, as if bars were not cut from the session's open: are "
            "market.bar_seconds, market.bar_label and market.calendar right?",
        ),
    ):
        if count > SUSPICIOUS * of:
            found.append(f"{count:,} of {of:,} bars ({count / of:.0%}) {text}")
    return found


def _ranges(low: Int64, high: Int64) -> tuple[Int64, Int64]:
    """The integers of `[low, high)` of each range in turn, and the number of their range."""
    sizes = high - low
    number = np.repeat(np.arange(sizes.size), sizes)
    before = np.cumsum(sizes) - sizes
    return np.arange(number.size) + (low - before)[number], number


def _refuse_crowded(times: Int64, rows: Int64, position: Int64, step: int) -> None:
    crowded = np.diff(position) <= 0
    if crowded.any():
        row = int(rows[int(crowded.argmax()) + 1])
        stamp = np.datetime64(int(times[row]), "ns").astype("datetime64[s]")
        raise SlotError(
            row,
            f"a second bar in the same slot, at {stamp} UTC, expected one each "
            f"{step // SECOND} seconds (is market.bar_seconds right?)",
        )


def _count_outside(times: Int64, hours: Hours) -> dict[str, int]:
    """Why bars at these times, `[B]` and all outside of sessions, are."""
    day = wall_seconds(times, hours.timezone) // DAY
    at = np.minimum(np.searchsorted(hours.day, day), hours.day.size - 1)
    open_day = hours.day[at] == day
    early, late = open_day & (times < hours.open[at]), open_day & (times >= hours.close[at])
    return {
        "before_open": int(early.sum()),
        "after_close": int(late.sum()),
        "in_break": int((open_day & ~early & ~late).sum()),
        "closed_days": int((~open_day).sum()),
    }


def calendar_hours(
    calendar: str,
    first: int,
    last: int,
    *,
    timezone: str = "America/New_York",
    session_open: str = "09:30",
    session_close: str = "16:00",
) -> Hours:
    """Hours of all sessions from day `first` to day `last` (since 1970) and some days around.

    The arguments are those of `arrange`. Raises `InputError` where the calendar is unknown or does
    not reach that far.
    """
    days = np.arange(first - MARGIN, last + MARGIN + 1)
    if calendar == "regular":
        opens = clock_seconds(session_open, "market.session_open")
        closes = clock_seconds(session_close, "market.session_close")
        return _daily(days, opens, closes, timezone)
    if calendar == "24/7":
        return _daily(days, 0, DAY, "UTC")
    if calendar == "24/5":
        weekdays = days[(days + 3) % 7 < 5]  # day 0, 1970-01-01, was a Thursday
        return _daily(weekdays, FX_CLOSE - DAY, FX_CLOSE, "America/New_York")
    _require_exchange(calendar)
    try:  # whole years, so that symbols of one dataset share them
        years = days[[0, -1]].astype("datetime64[D]").astype("datetime64[Y]")
        hours = _exchange_hours(calendar, str(years[0]) + "-01-01", str(years[1]) + "-12-31")
    except ValueError:  # holidays are known for some years only: ask for no more than needed
        around = [str(np.datetime64(day, "D")) for day in (first - 1, last + 1)]
        try:
            hours = _exchange_hours(calendar, *around)
        except ValueError as error:
            raise InputError(
                f"the calendar is {calendar}, which has no sessions from {around[0]} to "
                f"{around[1]}: {error}"
            ) from None
    return hours.select((hours.day >= days[0]) & (hours.day <= days[-1]))


def _require_exchange(calendar: str) -> None:
    names = _exchange_names()
    if calendar not in names:
        known = {name.lower(): name for name in (*CALENDARS, *sorted(names))}
        nearest = difflib.get_close_matches(calendar.lower(), known, n=3, cutoff=0.0)
        raise InputError(
            f"the calendar is {calendar!r}, expected 24/7, 24/5, regular or a name of "
            f"exchange_calendars, the nearest of which are "
            f"{', '.join(known[name] for name in nearest)}"
        )


def _daily(days: Int64, opens: int, closes: int, timezone: str) -> Hours:
    """Sessions on `days` `[S]` from `opens` to `closes`, seconds after local midnight."""
    bounds = []
    for seconds, earlier in ((opens, True), (closes, False)):
        naive = pd.DatetimeIndex((days * DAY + seconds).view("datetime64[s]"))
        # A clock time that comes twice opens the first time and closes the second.
        local = naive.tz_localize(
            timezone, ambiguous=np.full(days.size, earlier), nonexistent="shift_forward"
        )
        bounds.append(local.as_unit("ns").asi8)
    return Hours(days, bounds[0], bounds[1], bounds[1], bounds[1], timezone)


@cache
def _exchange_names() -> frozenset[str]:
    import exchange_calendars  # takes more than a second

    return frozenset(exchange_calendars.get_calendar_names(include_aliases=True))


@lru_cache(maxsize=64)
def _exchange_hours(name: str, start: str, end: str) -> Hours:
    """Hours of an exchange from date `start` to `end`; ValueError where they are not known."""
    import exchange_calendars
    from exchange_calendars.errors import NoSessionsError

    try:
        with warnings.catch_warnings():  # what the library will have to change in itself
            warnings.simplefilter("ignore", DeprecationWarning)
            calendar = exchange_calendars.get_calendar(name, start=start, end=end)
            schedule = calendar.schedule
    except NoSessionsError as error:
        raise ValueError(str(error)) from None
    close = _nanoseconds(schedule["close"])
    breaks = schedule["break_start"].notna().to_numpy()
    return Hours(
        day=_nanoseconds(schedule.index) // (DAY * SECOND),
        open=_nanoseconds(schedule["open"]),
        break_start=np.where(breaks, _nanoseconds(schedule["break_start"]), close),
        break_end=np.where(breaks, _nanoseconds(schedule["break_end"]), close),
        close=close,
        timezone=str(calendar.tz),
    )


def _nanoseconds(stamps: pd.DatetimeIndex | pd.Series[pd.Timestamp]) -> Int64:
    return pd.DatetimeIndex(stamps).as_unit("ns").asi8


def extend(hours: Hours, before: int, after: int) -> Hours:
    """Hours that begin and end so many nanoseconds earlier and later, without overlaps."""
    close = hours.close + after
    close[:-1] = np.minimum(close[:-1], hours.open[1:])
    opens = hours.open - before
    opens[1:] = np.maximum(opens[1:], close[:-1])
    breaks = hours.break_start < hours.close
    return replace(
        hours,
        open=opens,
        break_start=np.where(breaks, hours.break_start, close),
        break_end=np.where(breaks, hours.break_end, close),
        close=close,
    )


def clock_seconds(text: str, key: str) -> int:
    """Seconds after midnight of a clock time such as `09:30`; `key` is named in the error."""
    hours, _, minutes = text.partition(":")
    if hours.isdecimal() and len(minutes) == 2 and minutes.isdecimal():
        seconds = 3600 * int(hours) + 60 * int(minutes)
        if int(minutes) < 60 and seconds <= DAY:
            return seconds
    raise InputError(f"{key} is {text!r}, expected a time of day such as 09:30.")


def wall_seconds(timestamps: Int64, timezone: str) -> Int64:
    """Wall-clock seconds since 1970 in `timezone` of UTC `timestamps` `[B]` (nanoseconds)."""
    local = pd.DatetimeIndex(timestamps, tz="UTC").tz_convert(timezone).tz_localize(None)
    return local.as_unit("s").asi8
