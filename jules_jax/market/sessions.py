"""Sessions: from UTC times of bars to the session, minute and slot of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jules_jax.errors import InputError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

DAY = 86_400
"""Seconds in a day."""


@dataclass(frozen=True)
class Sessions:
    """Where bars `[B]` fall in their sessions; the other arrays have one entry per kept bar `[K]`.

    kept: bool `[B]`, the bars inside session hours. before_open, after_close: how many were not.
    session, bar_of_session: int32, as in `Bars`. minute, session_length: int32, in minutes.
    missing: slots without a bar between a session's open and its last bar (continuous: between
    the first bar and the last). short: sessions that end before `full_length` minutes.
    """

    kept: NDArray[np.bool_]
    before_open: int
    after_close: int
    session: Int32
    minute: Int32
    session_length: Int32
    bar_of_session: Int32
    bars_per_session: int
    full_length: int
    missing: int
    short: int


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


def regular_sessions(
    timestamps: Int64, *, timezone: str, session_open: int, session_close: int, bar_seconds: int
) -> Sessions:
    """One session per local date, its minutes counted from `session_open` to its last bar.

    timestamps: `[B]` UTC nanoseconds of bar starts, ascending. session_open, session_close: local
    seconds after midnight. Bars before the open, or at or after the close, are not kept. A session
    ends with its last bar, at the latest at the close.
    """
    day, second = np.divmod(wall_seconds(timestamps, timezone), DAY)
    early, late = second < session_open, second >= session_close
    kept = ~(early | late)
    session, day_size = _number(day[kept])
    second = second[kept] - session_open
    last = second[np.cumsum(day_size) - 1]
    full_length = (session_close - session_open) // 60
    length = np.minimum(-(-(last + bar_seconds) // 60), full_length)
    slot = second // bar_seconds
    return Sessions(
        kept=kept,
        before_open=int(early.sum()),
        after_close=int(late.sum()),
        session=session,
        minute=(second // 60).astype(np.int32),
        session_length=np.repeat(length, day_size).astype(np.int32),
        bar_of_session=slot.astype(np.int32),
        bars_per_session=-(-(session_close - session_open) // bar_seconds),
        full_length=full_length,
        missing=int((last // bar_seconds + 1).sum() - slot.size),
        short=int((length < full_length).sum()),
    )


def continuous_sessions(timestamps: Int64, *, bar_seconds: int) -> Sessions:
    """One session per UTC day, 1,440 minutes long: the 24/7 calendar, on which nothing closes.

    timestamps: `[B]` UTC nanoseconds of bar starts, ascending.
    """
    seconds = timestamps // 1_000_000_000
    day, second = np.divmod(seconds, DAY)
    session, _ = _number(day)
    slots_spanned = int(seconds[-1] // bar_seconds - seconds[0] // bar_seconds) + 1
    return Sessions(
        kept=np.ones(seconds.shape, bool),
        before_open=0,
        after_close=0,
        session=session,
        minute=(second // 60).astype(np.int32),
        session_length=np.full(seconds.shape, DAY // 60, np.int32),
        bar_of_session=(second // bar_seconds).astype(np.int32),
        bars_per_session=-(-DAY // bar_seconds),
        full_length=DAY // 60,
        missing=slots_spanned - seconds.size,
        short=0,
    )


def _number(day: NDArray[Any]) -> tuple[Int32, NDArray[Any]]:
    """Sessions numbered from 0, `[B]`, and the bars in each, for ascending days `[B]`."""
    _, index, counts = np.unique(day, return_inverse=True, return_counts=True)
    return index.astype(np.int32), counts
