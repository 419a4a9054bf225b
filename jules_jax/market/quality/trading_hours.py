"""Trading hours: when sessions of a calendar open and close, to judge a file's clock by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import sessions
from jules_jax.market.readers.raw import Convention, Int64

DAY = sessions.DAY * sessions.SECOND
"""Nanoseconds in a day."""


@dataclass(frozen=True)
class TradingHours:
    """Sessions `[D]` around a history: opens and closes in UTC nanoseconds, ascending."""

    opens: Int64
    closes: Int64

    def day(self, times: Int64) -> NDArray[np.intp]:
        """The trading day `[B]` of UTC `times`, counted from 0.

        Days are cut halfway between a close and the next open, so that hours before the open and
        after the close belong to the session they surround.
        """
        cuts = self.closes[:-1] + (self.opens[1:] - self.closes[:-1]) // 2
        return np.searchsorted(cuts, times, side="right")

    def after_break(self) -> TradingHours:
        """The sessions that open after hours in which nothing trades."""
        fresh = self.opens[1:] > self.closes[:-1]
        return TradingHours(self.opens[1:][fresh], self.closes[1:][fresh])


def trading_hours(times: Int64, market: config.Market, convention: Convention) -> TradingHours:
    """Sessions around the first to the last of UTC `times` `[B]`.

    The calendar is `market.calendar`, or the format's own where that is auto. One not known,
    or not for these dates, has the days of UTC: it is for `sessions` to complain.
    """
    hours = _calendar_hours(times, market, convention)
    if hours is None:
        days = [int(edge) // DAY for edge in (times.min(), times.max())]
        opens = np.arange(days[0] - 1, days[1] + 2) * DAY
        return TradingHours(opens, opens + DAY)
    return TradingHours(hours.open, hours.close)


def starts(times: Int64, market: config.Market, convention: Convention) -> Int64:
    """The starts `[B]` of bars whose stamps `times` (UTC, in any order) are of their ends.

    That is a bar's length earlier, but for a session's last slot where the session, or its part
    before a break, is no multiple of a bar: a stamp in that short slot is of the bar that fills it.
    """
    bar = market.bar_seconds * sessions.SECOND
    hours = _calendar_hours(times, market, convention)
    if hours is None:
        return times - bar
    minute = 60 * sessions.SECOND
    before, after = market.before_open_minutes, market.after_close_minutes
    begin, end = (
        edges.ravel() for edges in sessions.extend(hours, before * minute, after * minute).parts()
    )
    begin, end = begin[end > begin], end[end > begin]
    last = end - ((end - begin - 1) % bar + 1)  # where the last slot of each begins
    at = np.maximum(np.searchsorted(last, times) - 1, 0)
    is_short = (end - last)[at] < bar
    inside = (times > last[at]) & (times <= end[at])
    return np.where(is_short & inside, last[at], times - bar)


def _calendar_hours(
    times: Int64, market: config.Market, convention: Convention
) -> sessions.Hours | None:
    """Hours of the calendar around `times`, None where it is not known or not for these dates."""
    days = [int(edge) // DAY for edge in (times.min(), times.max())]
    try:
        return sessions.calendar_hours(
            convention.calendar if market.calendar == "auto" else market.calendar,
            *days,
            timezone=market.timezone or convention.timezone,
            session_open=market.session_open,
            session_close=market.session_close,
        )
    except InputError:
        return None
