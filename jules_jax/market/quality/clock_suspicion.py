"""Clock suspicion: whether stamps look like the other end of a bar, or another time zone.

Trading starts and stops at known times, and the open is a burst of volume. A bar labelled by its
start has its first stamp of a session at the open (09:30) and its last one bar before the close
(15:59); labelled by its end, both are a bar later (09:31 and 16:00). A wrong time zone moves the
burst by whole hours. Everything here sees bars after `market.bar_label` and `market.timezone` were
applied, and returns a warning that says what to set.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.market.quality.findings import Finding
from jules_jax.market.quality.trading_hours import DAY, TradingHours
from jules_jax.market.readers.raw import Float64, Int64, RawBars
from jules_jax.market.sessions import SECOND

FEWEST_SESSIONS = 3
"""Fewer openings than these prove nothing."""
LABEL_MARGIN = 0.5
"""By how much the edges at another label must exceed those at the present one, per session. An edge
is 1 where bars begin or end, and the log ratio of volumes where trading goes on."""
ZONE_SHARE = 0.7
"""A zone is suspected where its edge at the open is below this share of another zone's."""
ZONE_EDGE = 0.5
"""The least edge at the open by which another zone is believed."""
ZONE_WINDOW = 900 * SECOND
"""Activity so long after an open is compared with that before: longer bars tell nothing."""
BREAK = 1800 * SECOND
"""Bars further apart are taken for the end of one session and the start of another."""
ROUND = 900
"""Sessions open and close on quarters of an hour, in seconds."""
OUTSIDE = 0.05
"""Share of bars outside sessions beyond which a file has extended hours."""

ZONES = (
    "UTC",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "Etc/GMT+5",  # EST without daylight saving
    "Europe/London",
    "Europe/Berlin",
    "Europe/Helsinki",  # EET, of many MetaTrader servers
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Australia/Sydney",
)
"""Zones that files are written in, the likelier first."""


def odd_clock(raw: RawBars, hours: TradingHours, market: config.Market) -> list[Finding]:
    """Warnings about the time zone and the bar label of bars `[B]` in ascending order."""
    weight = _weight(raw)
    zone = _time_zone(raw, weight, hours.after_break(), market)
    # Sessions of the calendar say nothing about labels where the clock is off by hours.
    candidates = [] if zone else [_calendar_sessions(raw, hours)]
    return [*zone, *_bar_label(raw, weight, [*candidates, _seen_sessions(raw, market)], market)]


def _weight(raw: RawBars) -> Float64:
    """Activity `[B]` of bars: 1 for being there, and the log of the volume over its median."""
    if raw.volume is None or not (raw.volume > 0).any():
        return np.ones(raw.time.shape)
    return 1.0 + np.log1p(raw.volume / np.median(raw.volume[raw.volume > 0]))


def _warning(kind: str, sessions: int, detail: str) -> list[Finding]:
    return [Finding(kind, sessions, (), "warning", detail, np.zeros(0, np.int64))]


def _time_zone(
    raw: RawBars, weight: Float64, hours: TradingHours, market: config.Market
) -> list[Finding]:
    """A warning where the open would be a burst if the times were read in another zone."""
    opens = hours.opens[_has_bars(raw.time, hours.opens, DAY // 2)]
    if opens.size < FEWEST_SESSIONS or market.bar_seconds * SECOND > ZONE_WINDOW:
        return []
    present = raw.naive_in or "UTC"
    total = np.concatenate([[0.0], np.cumsum(weight)])
    slots = ZONE_WINDOW / (market.bar_seconds * SECOND)

    def edge(zone: str) -> float:
        """Mean activity after less before the open, were the times written in `zone`."""
        moved = opens + _offset(opens, zone) - _offset(opens, present)
        edges = (moved - ZONE_WINDOW, moved, moved + ZONE_WINDOW)
        before, at, after = (total[np.searchsorted(raw.time, edge)] for edge in edges)
        return float(np.mean(after - 2 * at + before)) / slots

    now = edge(present)
    edges = {zone: edge(zone) for zone in ZONES}
    best = max(ZONES, key=lambda zone: edges[zone])
    if edges[best] < ZONE_EDGE or now > ZONE_SHARE * edges[best]:
        return []
    # Naive times that market.timezone says are UTC look like exact ones in `raw`.
    if not raw.naive_in and market.timezone != "UTC":
        return _warning(
            "time zone",
            opens.size,
            "trading does not start at the calendar's open though times are exact (they have an "
            "offset, or count from 1970): set market.calendar to the one of this market",
        )
    return _warning(
        "time zone",
        opens.size,
        f"trading would start at the calendar's open if times were read as {best}, not as "
        f"{present}: set market.timezone to {best}, or market.calendar if it is another",
    )


def _offset(times: Int64, zone: str) -> Int64:
    """Nanoseconds by which clocks in `zone` are ahead of UTC at `times`."""
    local = pd.DatetimeIndex(times, tz="UTC").tz_convert(zone).tz_localize(None)
    return local.as_unit("ns").asi8 - times


def _has_bars(times: Int64, moments: Int64, reach: int) -> NDArray[np.bool_]:
    """Whether there is a bar within `reach` of each moment."""
    return np.searchsorted(times, moments - reach) < np.searchsorted(times, moments + reach)


def _bar_label(
    raw: RawBars, weight: Float64, candidates: list[TradingHours], market: config.Market
) -> list[Finding]:
    """A warning where sessions begin and end one bar off: their stamps are of the other end.

    The first of `candidates` that tells decides.
    """
    for sessions in candidates:
        if sessions.opens.size < FEWEST_SESSIONS:
            continue
        # At a bar earlier, in place, and a bar later.
        earlier, here, later = _edges(raw, weight, sessions, market.bar_seconds * SECOND)
        if later > max(here, earlier) + LABEL_MARGIN and market.bar_label == "start":
            return _label_warning("later", "end", sessions)
        if earlier > max(here, later) + LABEL_MARGIN and market.bar_label == "end":
            return _label_warning("earlier", "start", sessions)
        if here > max(earlier, later) + LABEL_MARGIN:
            return []
    return []


def _label_warning(relation: str, label: str, sessions: TradingHours) -> list[Finding]:
    return _warning(
        "bar label",
        sessions.opens.size,
        f"sessions begin one bar {relation} than they should: stamps look like the {label} of "
        f"their bars, set market.bar_label to {label}",
    )


def _calendar_sessions(raw: RawBars, hours: TradingHours) -> TradingHours:
    """The calendar's own sessions that bars are near of, where all open after a break.

    The closes are left out where trading goes on after them: the auction's bar may be on either
    side.
    """
    if hours.after_break().opens.size < 0.9 * (hours.opens.size - 1):
        return replace(hours, opens=hours.opens[:0], closes=hours.closes[:0])
    near = _has_bars(raw.time, hours.opens, DAY // 2)
    opens, closes = hours.opens[near], hours.closes[near]
    if not opens.size:
        return TradingHours(opens, closes)
    session = np.maximum(np.searchsorted(opens, raw.time + BREAK) - 1, 0)
    margin = BREAK // 6
    outside = (raw.time < opens[session] - margin) | (raw.time > closes[session] + margin)
    return TradingHours(opens, closes[:0] if outside.mean() > OUTSIDE else closes)


def _seen_sessions(raw: RawBars, market: config.Market) -> TradingHours:
    """Sessions as stretches of bars without a break, their ends rounded to quarters of an hour."""
    if market.bar_seconds * 2 >= ROUND:
        return TradingHours(raw.time[:0], raw.time[:0])
    fresh = np.flatnonzero(np.diff(raw.time) > BREAK) + 1
    bar = market.bar_seconds * SECOND
    return TradingHours(_rounded(raw.time[fresh]), _rounded(raw.time[fresh - 1] + bar))


def _rounded(times: Int64) -> Int64:
    unit = ROUND * SECOND
    return (times + unit // 2) // unit * unit


def _edges(
    raw: RawBars, weight: Float64, sessions: TradingHours, bar: int
) -> tuple[float, float, float]:
    """How far activity begins and ends a bar before, at, and a bar after opens and closes."""

    def activity(times: Int64) -> Float64:
        row = np.minimum(np.searchsorted(raw.time, times), raw.time.size - 1)
        return np.where(raw.time[row] == times, weight[row], 0.0)

    def edge(shift: int) -> float:
        opens, closes = sessions.opens + shift, sessions.closes + shift
        begins = activity(opens) - activity(opens - bar)
        ends = (activity(closes - bar) > 0).astype(float) - (activity(closes) > 0)
        return float(begins.mean()) + (float(ends.mean()) if ends.size else 0.0)

    return edge(-bar), edge(0), edge(bar)
