"""Sessions: local dates, minutes from the open, lengths to the last bar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax.errors import InputError
from jules_jax.market.sessions import (
    Sessions,
    clock_seconds,
    continuous_sessions,
    regular_sessions,
)

NEW_YORK = ZoneInfo("America/New_York")


def nanoseconds(*times: datetime) -> np.ndarray:
    return np.array([round(time.timestamp()) * 10**9 for time in times], np.int64)


def local(text: str, zone: ZoneInfo = NEW_YORK) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def new_york_sessions(timestamps: np.ndarray, bar_seconds: int = 60) -> Sessions:
    return regular_sessions(
        timestamps,
        timezone="America/New_York",
        session_open=9 * 3600 + 30 * 60,
        session_close=16 * 3600,
        bar_seconds=bar_seconds,
    )


def test_minutes_count_from_the_local_open_on_both_sides_of_a_clock_change():
    # New York left daylight saving on 2025-11-02: the open moves from 13:30 to 14:30 UTC.
    times = [
        datetime(2025, 10, 31, 13, 30, tzinfo=UTC),
        datetime(2025, 10, 31, 19, 59, tzinfo=UTC),
        datetime(2025, 11, 3, 14, 30, tzinfo=UTC),
        datetime(2025, 11, 3, 20, 59, tzinfo=UTC),
    ]
    found = new_york_sessions(nanoseconds(*times))
    np.testing.assert_array_equal(found.minute, [0, 389, 0, 389])
    np.testing.assert_array_equal(found.session, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.session_length, [390] * 4)


def test_bars_outside_session_hours_are_dropped_and_counted():
    clocks = ["04:00", "09:29", "09:30", "15:59", "16:00", "16:01", "20:00"]
    times = nanoseconds(*(local(f"2025-07-01 {clock}") for clock in clocks))
    found = new_york_sessions(times)
    np.testing.assert_array_equal(found.kept, [False, False, True, True, False, False, False])
    assert (found.before_open, found.after_close) == (2, 3)
    np.testing.assert_array_equal(found.minute, [0, 389])


def test_a_session_ends_at_its_last_bar_and_gaps_are_counted():
    # Day one: 09:30, 09:32, 12:59 (early close). Day two: first bar at 09:31, last at 15:59.
    clocks = ["2025-11-28 09:30", "2025-11-28 09:32", "2025-11-28 12:59"]
    clocks += ["2025-12-01 09:31", "2025-12-01 15:59"]
    found = new_york_sessions(nanoseconds(*map(local, clocks)))
    np.testing.assert_array_equal(found.session_length, [210, 210, 210, 390, 390])
    assert found.short == 1
    assert found.missing == (210 - 3) + (390 - 2)


@pytest.mark.parametrize(
    ("bar_seconds", "last_clock", "length", "slots"),
    [
        (30, "15:59:30", 390, 780),
        (30, "12:59:30", 210, 780),
        (300, "15:55:00", 390, 78),
        (3600, "15:30:00", 390, 7),  # the last hour is cut short by the close
    ],
)
def test_bars_of_other_lengths_keep_minutes_and_slots_apart(
    bar_seconds: int, last_clock: str, length: int, slots: int
):
    first = local("2025-09-15 09:30")
    second = first + timedelta(seconds=bar_seconds)
    last = local(f"2025-09-15 {last_clock}")
    found = new_york_sessions(nanoseconds(first, second, last), bar_seconds)
    np.testing.assert_array_equal(found.bar_of_session[:2], [0, 1])
    np.testing.assert_array_equal(found.minute[:2], [0, bar_seconds // 60])
    assert found.bar_of_session[2] == (last - first).total_seconds() // bar_seconds
    np.testing.assert_array_equal(found.session_length, [length] * 3)
    assert found.bars_per_session == slots


def test_a_continuous_calendar_has_a_session_a_utc_day():
    times = [
        datetime(2024, 3, 9, 23, 58, tzinfo=UTC),
        datetime(2024, 3, 10, 0, 0, tzinfo=UTC),
        datetime(2024, 3, 10, 7, 1, tzinfo=UTC),
    ]
    found = continuous_sessions(nanoseconds(*times), bar_seconds=60)
    np.testing.assert_array_equal(found.session, [0, 1, 1])
    np.testing.assert_array_equal(found.minute, [1438, 0, 421])
    np.testing.assert_array_equal(found.session_length, [1440] * 3)
    assert found.bars_per_session == 1440
    assert found.missing == 424 - 3  # 23:58 to 07:01, both included, is 424 minutes


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, 20 * 1440 - 1), min_size=1, max_size=40),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Sydney"]),
)
def test_sessions_agree_with_the_standard_library_s_clock(minutes: set[int], zone: str):
    start = datetime(2025, 10, 20, tzinfo=UTC)  # London, New York and Sydney change soon
    times = [start + timedelta(minutes=minute) for minute in sorted(minutes)]
    found = regular_sessions(
        nanoseconds(*times),
        timezone=zone,
        session_open=9 * 3600,
        session_close=17 * 3600,
        bar_seconds=60,
    )
    clocks = [time.astimezone(ZoneInfo(zone)) for time in times]
    expected = [
        (clock.date(), 60 * clock.hour + clock.minute - 540)
        for clock in clocks
        if 9 <= clock.hour < 17
    ]
    days = sorted({day for day, _ in expected})
    np.testing.assert_array_equal(found.session, [days.index(day) for day, _ in expected])
    np.testing.assert_array_equal(found.minute, [minute for _, minute in expected])
    last = dict(expected)
    np.testing.assert_array_equal(found.session_length, [last[day] + 1 for day, _ in expected])
    for array in (found.session, found.minute, found.session_length, found.bar_of_session):
        assert array.dtype == np.int32


@pytest.mark.parametrize("text", ["", "9", "9:3", "25:00", "09:60", "noon", "24:01", "-1:30"])
def test_a_clock_time_that_is_none_is_refused_with_its_key(text: str):
    with pytest.raises(InputError, match=r"market\.session_open is .* such as 09:30"):
        clock_seconds(text, "market.session_open")


def test_clock_times_are_seconds_after_midnight():
    assert clock_seconds("09:30", "k") == 34_200
    assert clock_seconds("24:00", "k") == 86_400
