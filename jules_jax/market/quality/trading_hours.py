"""Trading hours: when sessions of a calendar open and close, to judge a file's clock by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import sessions
from jules_jax.market.readers.raw import Convention, Int64

SECOND = 1_000_000_000
DAY = 86_400 * SECOND


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
    days = [int(edge) // DAY for edge in (times[0], times[-1])]
    try:
        hours = sessions.calendar_hours(
            convention.calendar if market.calendar == "auto" else market.calendar,
            *days,
            timezone=market.timezone or convention.timezone,
            session_open=market.session_open,
            session_close=market.session_close,
        )
    except InputError:
        opens = np.arange(days[0] - 1, days[1] + 2) * DAY
        return TradingHours(opens, opens + DAY)
    return TradingHours(hours.open, hours.close)
