"""Times of all spellings against pandas and tables worked by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jules_jax.errors import InputError
from jules_jax.market.readers import times
from jules_jax.market.readers.table import Table


def text(times, column="datetime"):
    return f"{column},open,high,low,close\n" + "".join(f"{time},1,1,1,1\n" for time in times)


def utc(bars):
    return pd.DatetimeIndex(bars.time, tz="UTC").strftime("%Y-%m-%d %H:%M:%S").tolist()


@pytest.mark.parametrize(
    "time",
    ["2024-01-02 09:30:00", "2024-01-02 09:30", "2024-01-02T09:30:00.000", "2024/01/02 09:30",
     "20240102 09:30:00", "20240102 093000", "20240102093000", "202401020930",
     "2024.01.02 09:30", "01/02/2024 09:30", "1/2/2024 9:30", "1/2/2024 9:30:00 AM",
     "02-Jan-2024 09:30", "2024-01-02 14:30:00+00:00", "2024-01-02T14:30:00Z",
     "2024-01-02 09:30:00-0500", "2024-01-02T08:30:00.000-06:00", "1704205800", "1704205800000",
     "1704205800000000", "1704205800000000000", "1704205800.0", "02.01.2024 09:30:00.000",
     "01/02/2024 09:30 -0500", "  2024-01-02 09:30:00 "],
)  # fmt: skip
def test_one_moment_in_many_spellings(files, time):
    assert utc(files.read_text(text([time]))) == ["2024-01-02 14:30:00"]


def test_a_date_and_a_time_of_day_are_joined(files):
    bars = files.read_text("Date,Time,o,h,l,c\n2024-01-02,09:30,1,1,1,1\n")
    assert utc(bars) == ["2024-01-02 14:30:00"]


@pytest.mark.parametrize("column", ["timestamp_utc", "Gmt time"])
def test_a_column_that_says_utc_is_utc(files, column):
    bars = files.read_text(text(["2024-01-02 09:30:00"], column), timezone="Asia/Tokyo")
    assert utc(bars) == ["2024-01-02 09:30:00"]


def test_fractions_of_a_second_are_kept(files):
    bars = files.read_text(text(["2024-01-02 09:30:00.000250", "2024-01-02 09:30:01.5"]))
    assert np.diff(bars.time).tolist() == [1_499_750_000]


def test_a_number_above_12_anywhere_tells_day_from_month(files):
    day_first = files.read_text(text(["1/2/2024 9:30", "13/2/2024 9:30"]))
    month_first = files.read_text(text(["1/2/2024 9:30", "2/13/2024 9:30"]))
    assert utc(day_first) == ["2024-02-01 14:30:00", "2024-02-13 14:30:00"]
    assert utc(month_first) == ["2024-01-02 14:30:00", "2024-02-13 14:30:00"]
    assert day_first.notes == month_first.notes == ()


def test_dates_that_do_not_tell_are_month_first_and_told(files):
    bars = files.read_text(text(["1/2/2024 9:30"]))
    assert utc(bars) == ["2024-01-02 14:30:00"]
    assert "no date tells day from month, read with the month first" in bars.notes[0]
    assert files.read_text(text(["2/2/2024 9:30"])).notes == ()


@pytest.mark.parametrize(
    ("times", "line"),
    [(["13/2/2024 9:30", "2/13/2024 9:30"], "[23]"), (["1/2/2024 9:30", "2/30/2024 9:30"], "3"),
     (["2024-01-02 09:30:00", "2024-02-30 09:30:00"], "3"), (["1704205800", "1704205860000"], "3"),
     (["2024-01-02 09:30:00", "2024-01-02 14:31:00Z"], "3"), (["5"], "2"), (["0", "60"], "2"),
     (["2024-01-02 09:30:00", "1024-01-02 09:30:00"], "3"), (["45000.39583"], "2")],
)  # fmt: skip
def test_times_that_do_not_fit_the_rest_are_refused(files, times, line):
    with pytest.raises(InputError, match=rf"SPY\.csv: line {line}: the time is '?.*expected"):
        files.read_text(text(times))


def test_wall_clocks_agree_with_pandas_on_every_hour_of_two_years(files):
    wall = pd.date_range("2021-01-01", "2022-12-31", freq="h")
    for zone in ("America/New_York", "Europe/Helsinki", "Australia/Lord_Howe"):
        exact = wall.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
        kept = wall[~exact.isna()]
        bars = files.read_text(text(kept), timezone=zone)
        expected = exact[~exact.isna()].tz_convert("UTC").as_unit("ns").asi8
        np.testing.assert_array_equal(bars.time, expected)


def test_a_repeated_hour_is_resolved_by_order(files):
    exact = pd.date_range("2024-11-03 04:00", "2024-11-03 08:00", freq="15min", tz="UTC")
    wall = exact.tz_convert("America/New_York").strftime("%Y-%m-%d %H:%M:%S").tolist()
    np.testing.assert_array_equal(files.read_text(text(wall)).time, exact.as_unit("ns").asi8)
    newest_first = files.read_text(text(wall[::-1]))
    np.testing.assert_array_equal(newest_first.time, exact.as_unit("ns").asi8[::-1])


def test_a_repeated_hour_of_hourly_bars_is_resolved_by_order(files):
    times = ["2024-11-03 00:00:00", *["2024-11-03 01:00:00"] * 2, "2024-11-03 02:00:00"]
    assert (np.diff(files.read_text(text(times)).time) == 3600 * 10**9).all()


def test_a_repeated_hour_that_comes_once_is_refused(files):
    with pytest.raises(InputError, match=r"line 3: the time 2024-11-03 01:30:00 is repeated"):
        files.read_text(text(["2024-11-03 00:30:00", "2024-11-03 01:30:00", "2024-11-03 02:30:00"]))


def test_a_time_that_daylight_saving_skips_is_refused(files):
    with pytest.raises(
        InputError, match=r"line 2: the time 2024-03-10 02:30:00 does not exist.*America/New_York"
    ):
        files.read_text(text(["2024-03-10 02:30:00"]))
    assert files.read_text(text(["2024-03-10 02:30:00"]), timezone="UTC").time.size == 1


@pytest.mark.parametrize("form", ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M"])
def test_where_no_number_tells_days_in_a_row_are_read_as_such(files, form):
    days = pd.bdate_range("2024-06-03", "2024-06-11") + pd.Timedelta("09:30:00")
    bars = files.read_text(text(days.strftime(form)))
    expected = days.tz_localize("America/New_York").tz_convert("UTC").as_unit("ns").asi8
    np.testing.assert_array_equal(bars.time, expected)
    order = "month" if form.startswith("%m") else "day"
    assert f"read with the {order} first, in which its bars span fewer days" in bars.notes[0]


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%Y%m%d %H%M%S", "%Y.%m.%d %H:%M",
     "%d-%b-%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S.000", "%Y-%m-%dT%H:%M:%S.%f",
     "%-m/%-d/%Y %-H:%M", "%d %B %Y %H:%M", "%Y-%m-%d"],
)  # fmt: skip
def test_dates_of_all_spellings_agree_with_the_calendar_through_leap_years(files, form):
    step = "D" if form == "%Y-%m-%d" else "7h"
    wall = pd.date_range("1999-12-25", "2001-03-05", freq=step)
    bars = files.read_text(text(wall.strftime(form)), timezone="UTC")
    np.testing.assert_array_equal(bars.time, wall.as_unit("ns").asi8)


@pytest.mark.parametrize(
    "bad",
    ["02/29/2023 09:30", "04/31/2024 09:30", "13/13/2024 09:30", "00/05/2024 09:30",
     "01/00/2024 09:30", "01/02/2024 24:30", "01/02/2024 09:60", "01/02/2024 0930",
     "01-02-2024 9:30", "01/02/2024 0a:30", "01/02/2024 09:30 x"],
)  # fmt: skip
def test_a_date_that_is_none_is_refused_with_its_line(files, bad):
    with pytest.raises(InputError, match=rf"SPY\.csv: line 3: the time is '{bad}'"):
        files.read_text(text(["12/31/2023 09:30", bad]))


def test_slices_of_text_are_read_where_they_begin():
    texts = pa.array(["2024-01-02", "2024-01-03", "2024-01-04"]).slice(1)
    table = Table("SPY.csv", {0: pa.chunked_array([texts])}, np.arange(2))
    days = times.utc(table, (0,), zone="UTC").time.view("datetime64[ns]").astype("datetime64[D]")
    assert days.astype(str).tolist() == ["2024-01-03", "2024-01-04"]
