"""Sessions: hours of calendars, their slots, and the bars in them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax.errors import InputError
from jules_jax.market import sessions
from jules_jax.market.sessions import Placement, SlotError, arrange, clock_seconds

NEW_YORK = "America/New_York"


def span(first: str, last: str, zone: str = NEW_YORK, seconds: int = 60) -> np.ndarray:
    """All bar starts from `first` to `last`, inclusive, in local time."""
    ends = [pd.Timestamp(text, tz=zone).tz_convert("UTC") for text in (first, last)]
    return pd.date_range(*ends, freq=f"{seconds}s").as_unit("ns").asi8


def stamps(*texts: str, zone: str = NEW_YORK) -> np.ndarray:
    return np.concatenate([span(text, text, zone) for text in texts])


def local(times: np.ndarray, zone: str = NEW_YORK) -> list[str]:
    return [f"{time:%m-%d %H:%M}" for time in pd.DatetimeIndex(times, tz="UTC").tz_convert(zone)]


def counts(placement: Placement) -> dict[str, Any]:
    """The counts that are not as usual: 0, or a spacing of 1."""
    names = (
        "before_open", "after_close", "in_break", "closed_days", "missing", "short", "absent",
        "leading", "trailing", "unaligned",
    )  # fmt: skip
    found = {name: getattr(placement, name) for name in names if getattr(placement, name)}
    return found | ({} if placement.spacing == 1 else {"spacing": placement.spacing})


def ends_of_sessions(placement: Placement) -> list[tuple[int, int]]:
    """First and last slot of each session, as indices into the grid."""
    first = np.flatnonzero(np.diff(placement.session, prepend=-1))
    return list(zip(first, [*(first[1:] - 1), placement.session.size - 1], strict=True))


def test_a_full_day_of_bars_leaves_regular_hours_with_early_closes_and_without_holidays():
    # Thanksgiving is 2025-11-27, and the 28th closes at 13:00; then a weekend.
    times = span("2025-11-26 00:00", "2025-12-01 23:59")
    found = arrange(times, calendar="XNYS", bar_seconds=60)
    ends = [local(found.time[[a, b]]) for a, b in ends_of_sessions(found)]
    assert ends == [
        ["11-26 09:30", "11-26 15:59"],
        ["11-28 09:30", "11-28 12:59"],
        ["12-01 09:30", "12-01 15:59"],
    ]
    np.testing.assert_array_equal(found.session_length, [390] * 390 + [210] * 210 + [390] * 390)
    np.testing.assert_array_equal(found.minute, [*range(390), *range(210), *range(390)])
    np.testing.assert_array_equal(found.bar_of_session, found.minute)
    np.testing.assert_array_equal(found.time, times[found.index])
    assert found.bars_per_session == 390 and not found.continuous
    assert counts(found) == {
        "before_open": 3 * 570,
        "after_close": 480 + 660 + 480,
        "closed_days": 3 * 1440,
        "short": 1,
    }


def test_minutes_count_from_the_local_open_on_both_sides_of_a_clock_change():
    # New York left daylight saving on 2025-11-02: the open moves from 13:30 to 14:30 UTC.
    times = np.concatenate(
        [
            span("2025-10-31 13:30", "2025-10-31 19:59", "UTC"),
            span("2025-11-03 14:30", "2025-11-03 20:59", "UTC"),
        ]
    )
    found = arrange(times, calendar="XNYS", bar_seconds=60)
    np.testing.assert_array_equal(found.minute, [*range(390)] * 2)
    np.testing.assert_array_equal(found.index, range(780))
    assert counts(found) == {}


def test_every_slot_of_a_session_exists_but_nothing_is_invented_around_the_history():
    # Wed from 10:00; nothing on Thu; Fri 09:31 and 15:00 only; Mon stops at 09:32.
    times = stamps("2025-09-10 10:00", "2025-09-12 09:31", "2025-09-12 15:00", "2025-09-15 09:32")
    found = arrange(times, calendar="XNYS", bar_seconds=60)
    np.testing.assert_array_equal(np.flatnonzero(found.index >= 0), [0, 361, 690, 752])
    np.testing.assert_array_equal(found.index[[0, 361, 690, 752]], range(4))
    np.testing.assert_array_equal(np.bincount(found.session), [360, 390, 3])
    assert found.minute[0] == 30 and found.minute[-1] == 2
    assert set(found.session_length) == {390}  # what the calendar says, whatever the file has
    assert counts(found) == {
        "leading": 30, "trailing": 387, "missing": 753 - 4, "absent": 1, "spacing": 329
    }  # fmt: skip


def test_lunch_breaks_have_no_slots_and_take_no_time():
    # Hong Kong trades from 9:30 to 12:00 and 13:00 to 16:00; 2024-12-24 only in the morning.
    times = span("2024-12-23 09:00", "2024-12-24 16:30", "Asia/Hong_Kong")
    found = arrange(times, calendar="XHKG", bar_seconds=60)
    assert local(found.time[[0, 149, 150, 329, 330, 479]], "Asia/Hong_Kong") == [
        "12-23 09:30", "12-23 11:59", "12-23 13:00", "12-23 15:59", "12-24 09:30", "12-24 11:59",
    ]  # fmt: skip
    np.testing.assert_array_equal(found.minute, [*range(330), *range(150)])
    np.testing.assert_array_equal(found.bar_of_session, found.minute)
    np.testing.assert_array_equal(found.session_length, [330] * 330 + [150] * 150)
    assert found.bars_per_session == 330
    assert found.in_break == 60 and found.short == 1 and found.missing == 0


def test_slots_start_anew_after_a_break():
    # Hours of Hong Kong: 9:30, 10:30 and half of 11:30; 13:00, 14:00, 15:00.
    clocks = ["09:30", "10:30", "11:30", "13:00", "14:00", "15:00"]
    times = stamps(*(f"2024-12-23 {clock}" for clock in clocks), zone="Asia/Hong_Kong")
    found = arrange(times, calendar="XHKG", bar_seconds=3600)
    np.testing.assert_array_equal(found.index, range(6))
    np.testing.assert_array_equal(found.minute, [0, 60, 120, 150, 210, 270])
    np.testing.assert_array_equal(found.bar_of_session, range(6))
    assert counts(found) == {}


def test_extended_hours_surround_sessions_and_leave_the_break():
    times = span("2025-11-26 00:00", "2025-11-28 23:59")
    found = arrange(
        times, calendar="XNYS", bar_seconds=60, before_open_minutes=330, after_close_minutes=240
    )
    ends = [local(found.time[[a, b]]) for a, b in ends_of_sessions(found)]
    assert ends == [["11-26 04:00", "11-26 19:59"], ["11-28 04:00", "11-28 16:59"]]
    np.testing.assert_array_equal(found.minute, [*range(960), *range(780)])
    assert found.bars_per_session == 960 and found.short == 1

    times = span("2024-12-23 08:00", "2024-12-23 18:00", "Asia/Hong_Kong")
    found = arrange(
        times, calendar="XHKG", bar_seconds=60, before_open_minutes=30, after_close_minutes=10
    )
    edges = np.flatnonzero(np.diff(found.time) != 60 * 10**9)
    assert local(found.time[[0, *edges, -1]], "Asia/Hong_Kong") == [
        "12-23 09:00", "12-23 11:59", "12-23 16:09"
    ]  # fmt: skip
    assert set(found.session_length) == {370} and found.in_break == 60


def test_extended_hours_do_not_reach_into_the_next_session():
    times = span("2017-03-07 00:00", "2017-03-08 23:59")
    plain = arrange(times, calendar="24/5", bar_seconds=60)
    found = arrange(
        times, calendar="24/5", bar_seconds=60, before_open_minutes=90, after_close_minutes=90
    )
    np.testing.assert_array_equal(found.time, plain.time)
    np.testing.assert_array_equal(found.session, plain.session)


def test_a_week_of_foreign_exchange_is_five_days_from_17_to_17_new_york():
    # Clocks changed on Sunday 2017-03-12, at 2:00: weeks open at 22:00 UTC before, 21:00 after.
    times = span("2017-03-04 00:00", "2017-03-18 12:00", "UTC")
    found = arrange(times, calendar="24/5", bar_seconds=60)
    ends = [local(found.time[[a, b]], "UTC") for a, b in ends_of_sessions(found)]
    assert [end for _, end in ends] == [
        f"03-{day:02} {clock}"
        for days, clock in ((range(6, 11), "21:59"), (range(13, 18), "20:59"))
        for day in days
    ]
    assert ends[0][0] == "03-05 22:00" and ends[5][0] == "03-12 21:00"
    assert set(found.session_length) == {1440} and found.bars_per_session == 1440
    assert found.missing == found.short == found.absent == 0
    weekend_one = 46 * 60  # from Sat 0:00 to Sun 22:00 UTC
    weekend_two = 47 * 60  # from Fri 22:00 to Sun 21:00 UTC
    weekend_three = 15 * 60 + 1  # from Fri 21:00 to Sat 12:00 UTC
    assert found.after_close + found.closed_days == weekend_one + weekend_two + weekend_three


def test_a_continuous_calendar_has_a_session_a_utc_day_and_skips_days_without_bars():
    times = np.concatenate(
        [
            stamps("2024-03-09 23:58", "2024-03-10 00:00", zone="UTC"),
            span("2024-03-13 07:01", "2024-03-13 07:05", "UTC"),
        ]
    )
    found = arrange(times, calendar="24/7", bar_seconds=60)
    np.testing.assert_array_equal(np.bincount(found.session), [2, 1440, 426])
    np.testing.assert_array_equal(np.diff(found.time[:1442]), 60 * 10**9)
    np.testing.assert_array_equal(
        found.minute[[0, 1, 2, 1441, 1442, -1]], [1438, 1439, 0, 1439, 0, 425]
    )
    assert set(found.session_length) == {1440} and found.continuous
    assert found.absent == 2 and found.missing == 2 + 1440 + 426 - 7


@pytest.mark.parametrize(
    ("bar_seconds", "last_clock", "slots", "short_slots"),
    [
        (1, "15:59:59", 23_400, 12_600),
        (30, "15:59:30", 780, 420),
        (300, "15:55:00", 78, 42),
        (1800, "15:30:00", 13, 7),
        (3600, "15:30:00", 7, 4),  # the last hour is cut short by the close
    ],
)
def test_bars_of_other_lengths(bar_seconds: int, last_clock: str, slots: int, short_slots: int):
    times = [
        span(f"{day} 09:30", f"{day} 15:59:59", seconds=bar_seconds)
        for day in ("2025-11-26", "2025-11-28")
    ]
    found = arrange(np.concatenate(times), calendar="XNYS", bar_seconds=bar_seconds)
    np.testing.assert_array_equal(np.bincount(found.session), [slots, short_slots])
    np.testing.assert_array_equal(found.bar_of_session, [*range(slots), *range(short_slots)])
    np.testing.assert_array_equal(found.minute, found.bar_of_session * bar_seconds // 60)
    np.testing.assert_array_equal(np.unique(found.session_length), [210, 390])
    last = pd.Timestamp(found.time[slots - 1], tz="UTC").tz_convert(NEW_YORK)
    assert f"{last:%H:%M:%S}" == last_clock
    assert found.bars_per_session == slots and found.missing == 0


def test_the_regular_calendar_knows_no_holidays():
    times = span("2025-11-27 00:00", "2025-11-29 23:59", "Asia/Kolkata")
    found = arrange(
        times,
        calendar="regular",
        bar_seconds=60,
        timezone="Asia/Kolkata",
        session_open="09:15",
        session_close="15:30",
    )
    np.testing.assert_array_equal(found.minute, [*range(375)] * 3)
    assert local(found.time[[0, -1]], "Asia/Kolkata") == ["11-27 09:15", "11-29 15:29"]
    assert counts(found) == {"before_open": 3 * 555, "after_close": 3 * 510}


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 14 * 1440 - 1), min_size=2, max_size=40))
def test_new_york_agrees_with_a_calendar_worked_out_by_hand(minutes: set[int]):
    # 2025-10-27 to 11-09: no holiday, and clocks change on the first Sunday.
    start = datetime(2025, 10, 27, 4, tzinfo=UTC)
    times = [start + timedelta(minutes=minute) for minute in sorted(minutes)]
    expected: dict[int, tuple[date, int]] = {}
    for number, time in enumerate(times):
        clock = time.astimezone(ZoneInfo(NEW_YORK))
        minute = 60 * clock.hour + clock.minute - 570
        if clock.weekday() < 5 and 0 <= minute < 390:
            expected[number] = (clock.date(), minute)
    nanoseconds = np.array([round(time.timestamp()) * 10**9 for time in times])
    if not expected:
        with pytest.raises(InputError, match="none of the"):
            arrange(nanoseconds, calendar="XNYS", bar_seconds=60)
        return
    found = arrange(nanoseconds, calendar="XNYS", bar_seconds=60)
    filled = found.index >= 0
    days = sorted({day for day, _ in expected.values()})
    placed = zip(found.session[filled], found.minute[filled], strict=True)
    assert dict(zip(found.index[filled], placed, strict=True)) == {
        number: (days.index(day), minute) for number, (day, minute) in expected.items()
    }
    assert len(times) == filled.sum() + found.before_open + found.after_close + found.closed_days


@settings(max_examples=80, deadline=None)
@given(
    calendar=st.sampled_from(["XNYS", "XLON", "XHKG", "CMES", "24/7", "24/5", "regular"]),
    bar_seconds=st.sampled_from([1, 60, 300, 3600]),
    slots=st.sets(st.integers(0, 400), min_size=1, max_size=60),
    shift=st.integers(0, 59),
    extended=st.integers(0, 120),
)
def test_every_kept_bar_has_one_slot_and_time_ascends(
    calendar: str, bar_seconds: int, slots: set[int], shift: int, extended: int
):
    start = pd.Timestamp("2024-12-23 01:30", tz="UTC").value  # a Monday in each of the places
    times = start + (np.sort([*slots]) * bar_seconds + min(shift, bar_seconds - 1)) * 10**9
    hours = {"before_open_minutes": extended, "after_close_minutes": extended}
    try:
        found = arrange(times, calendar=calendar, bar_seconds=bar_seconds, **hours)
    except SlotError:  # an odd bar may share the short slot in front of a break or a close
        assert bar_seconds == 3600
        return
    except InputError:  # none of so few bars is in a session
        assert calendar != "24/7"
        return
    filled = found.index >= 0
    outside = found.before_open + found.after_close + found.in_break + found.closed_days
    assert filled.sum() == np.unique(found.index[filled]).size == times.size - outside
    assert filled[0] and filled[-1]
    into = times[found.index[filled]] - found.time[filled]
    assert (into >= 0).all() and (into < bar_seconds * 10**9).all()
    assert found.unaligned == (into > 0).sum()
    assert (np.diff(found.time) > 0).all()
    assert (np.diff(found.session) >= 0).all() and (np.diff(found.session) <= 1).all()
    same = np.diff(found.session) == 0
    assert (np.diff(found.bar_of_session)[same] == 1).all()
    assert (np.diff(found.minute)[same] >= 0).all()
    assert (found.minute < found.session_length).all()
    assert found.bar_of_session.max() < found.bars_per_session
    assert found.missing == (~filled).sum()
    for field in ("session", "minute", "session_length", "bar_of_session"):
        assert getattr(found, field).dtype == np.int32
        assert getattr(found, field).shape == found.time.shape


def test_two_bars_in_one_slot_are_refused_with_the_row_of_the_second():
    times = span("2025-09-15 09:28", "2025-09-15 10:00", seconds=30)
    with pytest.raises(SlotError, match=r"second bar in the same slot, at 2025-09-15T13:30:30 UTC"):
        arrange(times, calendar="XNYS", bar_seconds=60)
    with pytest.raises(
        SlotError, match=r"each 300 seconds \(is market\.bar_seconds right"
    ) as caught:
        arrange(times[::2], calendar="XNYS", bar_seconds=300)
    assert caught.value.row == 3  # 09:28 and 09:29 are before the open, 09:30 has the slot


def test_bars_between_slots_are_counted_and_so_is_a_common_spacing():
    times = span("2025-09-15 09:30", "2025-09-15 15:55", seconds=300)
    assert arrange(times, calendar="XNYS", bar_seconds=60).spacing == 5
    assert arrange(times, calendar="XNYS", bar_seconds=300).spacing == 1
    shifted = arrange(times + 7 * 10**9, calendar="XNYS", bar_seconds=300)
    assert shifted.unaligned == times.size
    np.testing.assert_array_equal(shifted.time, times)


def test_bars_that_are_never_in_a_session_are_refused():
    for times in (stamps("2025-07-04 10:00"), np.array([], np.int64)):
        with pytest.raises(InputError, match=rf"none of the {times.size} bars .* calendar XNYS"):
            arrange(times, calendar="XNYS", bar_seconds=60)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("XNYZ", "XNYS"), ("nyse", "NYSE"), ("24-7", "24/7"), ("Regular", "regular")],
)
def test_an_unknown_calendar_is_refused_with_the_nearest_names(name: str, nearest: str):
    with pytest.raises(InputError, match=rf"calendar is '{name}', expected .*{nearest}"):
        arrange(stamps("2025-07-01 10:00"), calendar=name, bar_seconds=60)


def test_a_calendar_that_does_not_reach_as_far_says_so():
    with pytest.raises(InputError, match=r"XHKG, which has no sessions .*1960"):
        arrange(stamps("1955-07-01 10:00"), calendar="XHKG", bar_seconds=60)
    # Known from 1960 on: the margin looked up around the bars must not ask for 1959.
    first = stamps("1960-01-04 11:00", zone="Asia/Hong_Kong")
    assert arrange(first, calendar="XHKG", bar_seconds=60).index.tolist() == [0]


def test_sessions_do_not_depend_on_which_bars_exist():
    times = span("2025-11-24 09:30", "2025-12-02 15:59")
    full = arrange(times, calendar="XNYS", bar_seconds=60)
    thinned = times[np.random.default_rng(0).random(times.size) < 0.1]
    some = arrange(thinned, calendar="XNYS", bar_seconds=60)
    rows = np.searchsorted(full.time, some.time)
    np.testing.assert_array_equal(full.time[rows], some.time)
    for field in ("minute", "session_length", "bar_of_session"):
        np.testing.assert_array_equal(getattr(full, field)[rows], getattr(some, field))


@pytest.mark.parametrize("text", ["", "9", "9:3", "25:00", "09:60", "noon", "24:01", "-1:30"])
def test_a_clock_time_that_is_none_is_refused_with_its_key(text: str):
    with pytest.raises(InputError, match=r"market\.session_open is .* such as 09:30"):
        clock_seconds(text, "market.session_open")


def test_clock_times_are_seconds_after_midnight():
    assert clock_seconds("09:30", "k") == 34_200
    assert clock_seconds("24:00", "k") == sessions.DAY


def test_large_losses_are_doubted_and_stray_bars_are_not():
    week = span("2025-12-01 00:00", "2025-12-07 23:59", seconds=300)  # Monday to Sunday
    always = arrange(week, calendar="XNYS", bar_seconds=300)
    closed, outside = sessions.suspicions(always)
    assert "576 of 2,016 bars (29%) are on days without a session" in closed  # two days of 288
    assert "1,050 of 2,016 bars (52%) are outside the hours" in outside  # five of 288 - 78
    regular = span("2025-12-01 09:30", "2025-12-01 15:59")
    stray = np.concatenate([regular, stamps("2025-12-01 16:00", "2025-12-06 10:00")])
    assert sessions.suspicions(arrange(stray, calendar="XNYS", bar_seconds=60)) == []


@pytest.mark.parametrize(
    ("first", "seconds", "bar_seconds", "count"),
    # Clock hours of an open at 9:30; minutes taken for bars of 45 s, of which each third fits.
    [("2025-12-01 10:00", 3600, 3600, "6 of 6"), ("2025-12-01 09:30", 60, 45, "260 of 390")],
)
def test_bars_off_the_grid_of_slots_are_doubted(first, seconds, bar_seconds, count):
    times = span(first, "2025-12-01 15:59", seconds=seconds)
    (doubt,) = sessions.suspicions(arrange(times, calendar="XNYS", bar_seconds=bar_seconds))
    assert f"{count} bars" in doubt and "market.bar_seconds" in doubt
