"""Quality: what is dropped, repaired, listed or refused, and what the clock of a file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import readers
from jules_jax.market.quality import Inspected, inspect
from jules_jax.market.quality.inspection import KINDS
from jules_jax.market.readers.raw import RawBars
from jules_jax.market.sessions import arrange
from tests.market.raw_bars import CRYPTO, MINUTE, local, rows, sessions

MARKET = config.Market()
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
PRICES = ("open", "high", "low", "close")


def kinds(inspected: Inspected) -> dict[str, int]:
    return {found.kind: found.count for found in inspected.findings}


def with_cells(raw: RawBars, column: str, cells: dict[int, float]) -> RawBars:
    values = getattr(raw, column).copy()
    values[list(cells)] = list(cells.values())
    return replace(raw, **{column: values})


def joined(*parts: RawBars, name: str = "ABC.csv") -> RawBars:
    """Rows of several histories in one file."""
    columns = {
        column: np.concatenate([getattr(part, column) for part in parts])
        for column in ("time", *PRICES, "volume")
    }
    size = columns["time"].size
    return replace(
        parts[0],
        **columns,
        files=(name,),
        file=np.zeros(size, np.int32),
        line=np.arange(2, size + 2),
    )


def same_bars(first: RawBars, second: RawBars) -> bool:
    names = ("time", *PRICES, "volume")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def test_sound_bars_pass_without_a_word():
    raw = sessions()
    inspected = inspect(raw, MARKET)
    assert same_bars(inspected.raw, raw)
    assert inspected.findings == () and inspected.notes == ()


def test_end_labels_are_moved_to_the_start_of_their_bars():
    raw = sessions(shift=1)
    inspected = inspect(raw, config.Market(bar_label="end"))
    np.testing.assert_array_equal(inspected.raw.time, raw.time - MINUTE)
    hours = local("2024-01-01", "UTC") + 60 * MINUTE * np.arange(48)
    hourly = rows(np.full((48, 4), 5.0) + np.arange(48)[:, None] % 3 / 100, hours)
    market = config.Market(bar_label="end", bar_seconds=3600, calendar="24/7")
    np.testing.assert_array_equal(inspect(hourly, market).raw.time, hours - 60 * MINUTE)


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("close", np.nan, "bad price"),
        ("open", 0.0, "bad price"),
        ("low", -1.0, "bad price"),
        ("high", np.inf, "bad price"),
        ("volume", np.nan, "bad volume"),
        ("volume", -5.0, "bad volume"),
        ("volume", np.inf, "bad volume"),
        ("high", 1.0, "high below low"),
    ],
)
def test_a_row_that_is_no_bar_is_dropped_and_counted(column, value, kind):
    raw = with_cells(sessions(), column, {10: value, 700: value})
    inspected = inspect(raw, MARKET)
    assert same_bars(inspected.raw, raw.select(np.delete(np.arange(raw.time.size), [10, 700])))
    (found,) = inspected.findings
    assert (found.kind, found.count, found.action) == (kind, 2, "dropped")
    assert found.where == ("ABC.csv: line 12", "ABC.csv: line 702")
    np.testing.assert_array_equal(found.times, raw.time[[10, 700]])
    assert inspected.notes == (found.sentence,)
    assert found.sentence.endswith("dropped (ABC.csv: line 12, line 702)")


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        (
            "close",
            np.nan,
            r"ABC.csv: line 2: close is blank or NaN, expected a positive price; "
            r"40 of 3,900 rows are like that, at most 1% can be dropped\.$",
        ),
        ("low", -2.5, r"line 2: low is -2.5, expected a positive price"),
        ("volume", -3.0, r"line 2: volume is -3, expected at least 0"),
        ("high", 1.0, r"line 2: high 1 is below low 99\.\d+, expected .* columns swapped\?"),
    ],
)
def test_more_than_one_percent_of_rows_that_are_no_bars_is_refused(column, value, sentence):
    cells = dict.fromkeys(range(0, 3900, 100), value)
    assert inspect(with_cells(sessions(), column, cells), MARKET).findings[0].count == 39
    with pytest.raises(InputError, match=sentence):
        inspect(with_cells(sessions(), column, {**cells, 1: value}), MARKET)


def test_columns_that_are_swapped_are_refused():
    raw = sessions()
    with pytest.raises(InputError, match=r"line \d+: open .* outside low .*columns swapped\?"):
        inspect(replace(raw, high=raw.close, close=raw.high), MARKET)


def test_a_range_without_its_open_or_close_is_widened():
    raw = sessions()
    raw = with_cells(raw, "high", {5: (raw.open[5] + raw.close[5]) / 2})
    raw = with_cells(raw, "close", {8: raw.low[8] * 0.9999})
    inspected = inspect(raw, MARKET)
    assert kinds(inspected) == {"range widened": 2}
    assert inspected.raw.high[5] == max(raw.open[5], raw.close[5])
    assert inspected.raw.low[8] == raw.close[8]
    assert np.flatnonzero(inspected.raw.high != raw.high).tolist() == [5]


def test_a_newest_first_file_is_reversed():
    raw = sessions()
    inspected = inspect(raw.select(slice(None, None, -1)), MARKET)
    assert same_bars(inspected.raw, raw)
    assert kinds(inspected) == {"newest first": 3900} and len(inspected.notes) == 1


def test_newest_first_files_of_one_history_are_reversed_one_by_one():
    raw = sessions()
    raw = replace(raw, files=("1.csv", "2.csv"), file=np.repeat([0, 1], 1950).astype(np.int32))
    parts = np.concatenate([np.arange(1950)[::-1], np.arange(1950, 3900)[::-1]])
    inspected = inspect(raw.select(parts), MARKET)
    assert same_bars(inspected.raw, raw)
    assert kinds(inspected) == {"newest first": 3900}


def test_a_few_rows_out_of_order_are_sorted_and_listed():
    raw = sessions()
    order = np.arange(3900)
    order[[100, 101]], order[2000] = [101, 100], 2000
    order = np.concatenate([np.delete(order, 3000), [3000]])
    inspected = inspect(raw.select(order), MARKET)
    assert same_bars(inspected.raw, raw)
    (found,) = inspected.findings
    assert (found.kind, found.count, found.action) == ("out of order", 2, "repaired")
    assert found.where == ("ABC.csv: line 102", "ABC.csv: line 3002")


def test_copies_of_a_row_are_dropped_wherever_they_are():
    raw = sessions()
    twice = joined(raw.select(slice(0, 500)), raw.select(slice(499, None)), raw.select(slice(3, 4)))
    inspected = inspect(twice, MARKET)
    assert same_bars(inspected.raw, raw)
    assert kinds(inspected) == {"out of order": 1, "duplicate": 2}


def test_two_rows_of_one_time_that_differ_are_refused():
    raw = sessions()
    other = replace(raw.select(slice(7, 8)), close=raw.close[7:8] + 0.001)
    sentence = (
        r"^ABC.csv: line 3902: close is 1\S+, but 1\S+ in ABC.csv: line 9 of the same time, "
        r"2025-03-03 14:37:00 UTC, expected one row a bar\.$"
    )
    with pytest.raises(InputError, match=sentence):
        inspect(joined(raw, other), MARKET)


def test_rows_of_one_time_may_differ_where_one_is_damaged():
    raw = sessions()
    inspected = inspect(
        joined(raw, replace(raw.select(slice(7, 8)), close=np.array([np.nan]))), MARKET
    )
    assert same_bars(inspected.raw, raw)
    assert kinds(inspected) == {"bad price": 1}


@pytest.mark.parametrize("bars", [0, 1])
def test_fewer_than_two_bars_are_refused(bars):
    found = ("no bars", "1 bar")[bars]
    with pytest.raises(InputError, match=rf"^ABC.csv: has {found}, expected at least 2\.$"):
        inspect(sessions().select(slice(0, bars)), MARKET)


def test_impossible_times_are_refused():
    raw = with_cells(sessions(), "time", {4: np.iinfo(np.int64).min})
    with pytest.raises(InputError, match=r"^ABC.csv: line 6: the time is blank, expected"):
        inspect(raw, MARKET)
    raw = with_cells(sessions(), "time", {4: pd.Timestamp("2250-01-01").value})
    with pytest.raises(InputError, match=r"^ABC.csv: line 6: the time is 2250-01-01 00:00"):
        inspect(raw, MARKET)


def test_a_blank_volume_column_is_no_volume_column():
    raw = replace(sessions(), volume=np.full(3900, np.nan))
    inspected = inspect(raw, MARKET)
    assert inspected.raw.volume is None
    assert kinds(inspected) == {"bad volume": 3900}
    assert inspect(replace(raw, volume=None), MARKET).findings == ()
    assert inspect(replace(raw, volume=np.zeros(3900)), MARKET).findings == ()


def test_zero_volume_bars_are_listed_and_kept():
    raw = with_cells(sessions(), "volume", {30: 0.0, 31: 0.0})
    inspected = inspect(raw, MARKET)
    assert same_bars(inspected.raw, raw)
    assert kinds(inspected) == {"zero volume": 2} and inspected.notes == ()


@pytest.mark.parametrize(("bars", "runs"), [(10, 0), (11, 1)])
def test_more_than_ten_bars_of_the_same_prices_are_stale(bars, runs):
    raw = sessions()
    for name in PRICES:
        raw = with_cells(raw, name, dict.fromkeys(range(50, 50 + bars), raw.close[50]))
    inspected = inspect(raw, MARKET)
    assert kinds(inspected).get("stale run", 0) == runs
    if runs:
        assert inspected.findings[0].where == ("ABC.csv: line 52",)
        assert "the longest of 11" in inspected.findings[0].detail


def test_prices_that_stand_still_over_a_night_are_not_stale():
    raw = sessions()
    for name in PRICES:
        raw = with_cells(raw, name, dict.fromkeys(range(384, 396), raw.close[384]))
    assert inspect(raw, MARKET).findings == ()


def spike(raw: RawBars, row: int, size: float, bars: int) -> RawBars:
    """Closes from `row` moved by `size` (log return), for so many bars."""
    cells = {at: raw.close[at] * np.exp(size) for at in range(row, row + bars)}
    raw = with_cells(raw, "close", cells)
    return replace(raw, high=np.maximum(raw.high, raw.close), low=np.minimum(raw.low, raw.close))


@pytest.mark.parametrize(("bars", "found"), [(1, 1), (2, 1), (3, 0)])
def test_a_spike_is_undone_within_two_bars(bars, found):
    # Of 20 sd: a lasting move of that size is news.
    inspected = inspect(spike(sessions(), 1000, 60e-4, bars), MARKET)
    assert kinds(inspected).get("spike", 0) == found
    if found:
        assert inspected.findings[0].where == ("ABC.csv: line 1002",)


def test_a_bad_low_inside_a_bar_is_a_spike_too():
    raw = sessions()
    raw = with_cells(raw, "low", {600: raw.low[600] * 0.75})
    inspected = inspect(raw, MARKET)
    assert kinds(inspected) == {"spike": 1} and same_bars(inspected.raw, raw)
    assert "1 of them in the high or low only" in inspected.findings[0].detail


def test_a_gap_over_night_is_no_spike():
    raw = sessions()
    day = (np.arange(3900) // 390 == 4) * 0.05
    moved = {name: getattr(raw, name) * np.exp(day) for name in PRICES}
    assert inspect(replace(raw, **moved), MARKET).findings == ()


def split(raw: RawBars, row: int, ratio: float) -> RawBars:
    """The same history as it was traded: `ratio` new shares for one old at `row`."""
    old = np.where(np.arange(raw.time.size) < row, ratio, 1.0)
    return replace(
        raw, volume=raw.volume / old, **{name: getattr(raw, name) * old for name in PRICES}
    )


@pytest.mark.parametrize(
    ("row", "ratio", "name"),
    [(1950, 7, "7:1"), (1950, 1.5, "3:2"), (780, 0.1, "1:10"), (2000, 2, "2:1"), (390, 20, "20:1")],
)
def test_a_split_is_listed_and_adjusted_only_when_asked(row, ratio, name):
    raw = sessions()
    traded = split(raw, row, ratio)
    listed = inspect(traded, MARKET)
    assert same_bars(listed.raw, traded)
    (found,) = (found for found in listed.findings if found.kind == "split")
    assert found.action == "warning" and name in found.detail
    assert found.where == (f"ABC.csv: line {row + 2}",) and found.sentence in listed.notes
    adjusted = inspect(traded, config.Market(adjust_splits=True))
    assert kinds(adjusted) == {"split": 1} and adjusted.findings[0].action == "adjusted"
    for column in (*PRICES, "volume"):
        np.testing.assert_allclose(getattr(adjusted.raw, column), getattr(raw, column), rtol=1e-12)


def test_a_bar_that_spans_a_split_is_adjusted_price_by_price():
    raw = sessions()
    traded = split(raw, 1950, 7)
    # As in AAPL on 2014-06-09: the first bar opens (and has its high) before the split.
    traded = with_cells(traded, "open", {1950: 7 * raw.open[1950]})
    traded = with_cells(traded, "high", {1950: 7 * raw.high[1950]})
    adjusted = inspect(traded, config.Market(adjust_splits=True))
    assert kinds(adjusted) == {"split": 1}
    for column in PRICES:
        np.testing.assert_allclose(getattr(adjusted.raw, column), getattr(raw, column), rtol=1e-12)


def test_two_splits_multiply():
    raw = sessions()
    traded = split(split(raw, 780, 2), 2340, 3)
    adjusted = inspect(traded, config.Market(adjust_splits=True))
    assert kinds(adjusted)["split"] == 2
    np.testing.assert_allclose(adjusted.raw.close, raw.close, rtol=1e-12)
    np.testing.assert_allclose(adjusted.raw.volume, raw.volume, rtol=1e-12)


@pytest.mark.parametrize("fall", [0.38, 0.20, 0.585])
def test_a_crash_by_another_ratio_is_no_split(fall):
    raw = sessions()
    assert "split" not in kinds(inspect(split(raw, 1950, 1 / (1 - fall)), MARKET))


def test_a_bad_print_at_half_the_price_is_no_split():
    raw = spike(sessions(), 1000, np.log(0.5), 1)
    assert kinds(inspect(raw, MARKET)) == {"spike": 1}


def test_a_change_of_volume_regime_is_found_from_its_first_session():
    raw = sessions(days=12)
    louder = np.where(np.arange(raw.time.size) // 390 >= 5, 30.0, 1.0)
    inspected = inspect(replace(raw, volume=raw.volume * louder), MARKET)
    (found,) = inspected.findings
    assert (found.kind, found.count, found.action) == ("volume regime", 1, "warning")
    assert found.times.tolist() == [raw.time[5 * 390]] and "2025-03-10" in found.detail
    assert inspected.notes == (found.sentence,)


@pytest.mark.parametrize(("factor", "days"), [(2.5, (5, 12)), (30.0, (5, 7))])
def test_a_busy_week_or_two_wild_sessions_are_no_regime(factor, days):
    raw = sessions(days=12)
    day = np.arange(raw.time.size) // 390
    louder = np.where((day >= days[0]) & (day < days[1]), factor, 1.0)
    assert inspect(replace(raw, volume=raw.volume * louder), MARKET).findings == ()


@pytest.mark.parametrize("volume", [True, False])
@pytest.mark.parametrize(("shift", "label"), [(1, "start"), (0, "end")])
def test_a_wrong_bar_label_is_suspected(shift, label, volume):
    raw = sessions(shift=shift)
    raw = raw if volume else replace(raw, volume=None)
    right = {"start": "end", "end": "start"}[label]
    (found,) = inspect(raw, config.Market(bar_label=label)).findings
    assert (found.kind, found.action) == ("bar label", "warning")
    assert f"set market.bar_label to {right}" in found.sentence
    assert inspect(raw, config.Market(bar_label=right)).findings == ()


def test_bars_of_five_minutes_have_their_label_judged_too():
    raw = sessions().select(slice(None, None, 5))
    assert inspect(raw, config.Market(bar_seconds=300)).findings == ()
    late = replace(raw, time=raw.time + 5 * MINUTE)
    assert kinds(inspect(late, config.Market(bar_seconds=300))) == {"bar label": 10}


def test_the_daily_break_of_a_market_that_never_sleeps_tells_the_label():
    start = local("2024-01-01 23:00", "UTC")
    times = np.concatenate([start + 1440 * MINUTE * d + MINUTE * np.arange(1380) for d in range(5)])
    prices = np.repeat(100 + np.arange(times.size) % 7 / 100, 4).reshape(-1, 4)
    market = config.Market(calendar="24/7")
    assert inspect(rows(prices, times, convention=CRYPTO), market).findings == ()
    late = inspect(rows(prices, times + MINUTE, convention=CRYPTO), market)
    assert kinds(late) == {"bar label": 4}


def test_days_without_a_break_tell_nothing_about_labels():
    times = local("2024-01-01", "UTC") + MINUTE * np.arange(5 * 1440)
    prices = np.repeat(100 + np.arange(times.size) % 7 / 100, 4).reshape(-1, 4)
    for label in ("start", "end"):
        raw = rows(prices, times, convention=CRYPTO)
        assert inspect(raw, config.Market(bar_label=label)).findings == ()


def read_as(raw: RawBars, written: str, read: str) -> RawBars:
    """Bars whose file has the wall clock of `written`, read as if it were that of `read`."""
    wall = pd.DatetimeIndex(raw.time, tz="UTC").tz_convert(written).tz_localize(None)
    time = wall.tz_localize(read, nonexistent="shift_forward", ambiguous=True)
    naive_in = read if read != "UTC" else ""
    return replace(raw, time=time.tz_convert("UTC").as_unit("ns").asi8, naive_in=naive_in)


@pytest.mark.parametrize(
    "written",
    ["UTC", "America/Chicago", "America/Los_Angeles", "Europe/London", "Asia/Tokyo"],
)
def test_a_wrong_time_zone_is_suspected_and_the_right_one_named(written):
    raw = sessions("2025-07-07")
    wrong = inspect(read_as(raw, written, "America/New_York"), MARKET)
    (found,) = wrong.findings
    assert found.kind == "time zone" and f"set market.timezone to {written}" in found.sentence
    back = read_as(raw, "America/New_York", written)
    wrong = inspect(back, config.Market(timezone=written))
    assert "set market.timezone to America/New_York" in wrong.notes[0]


def test_a_clock_without_daylight_saving_is_told_from_one_with_it():
    raw = joined(sessions("2025-02-24", 9), sessions("2025-03-10", 9))
    raw = raw.select(np.argsort(raw.time))
    assert "time zone" not in kinds(inspect(raw, MARKET))
    (found,) = (
        found
        for found in inspect(read_as(raw, "Etc/GMT+5", "America/New_York"), MARKET).findings
        if found.kind == "time zone"
    )
    assert "Etc/GMT+5" in found.sentence


def test_an_unknown_calendar_is_left_to_the_sessions_to_refuse():
    assert inspect(sessions(), config.Market(calendar="XMARS")).findings == ()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_is_damaged_the_bars_that_come_out_are_sound(data):
    raw = sessions(days=3, seed=data.draw(st.integers(0, 5)))
    for column in data.draw(st.lists(st.sampled_from([*PRICES, "volume"]), max_size=3)):
        cells = data.draw(
            st.dictionaries(
                st.integers(0, raw.time.size - 1),
                st.sampled_from([np.nan, -1.0, 0.0, np.inf, 1e-3, 1e4]),
                max_size=3,
            )
        )
        raw = with_cells(raw, column, cells)
    order = np.random.default_rng(data.draw(st.integers(0, 9))).permutation(raw.time.size)
    extra = data.draw(st.lists(st.integers(0, raw.time.size - 1), max_size=4))
    inspected = inspect(raw.select(np.concatenate([order, np.array(extra, int)])), MARKET)
    bars = inspected.raw
    assert (np.diff(bars.time) > 0).all()
    assert (bars.low > 0).all() and np.isfinite(bars.high).all() and (bars.volume >= 0).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    gone = sum(found.count for found in inspected.findings if found.action == "dropped")
    assert bars.time.size + gone == raw.time.size + len(extra)
    assert [found.kind for found in inspected.findings] == sorted(kinds(inspected), key=KINDS.index)


def real(path: str, symbol: str, **settings: object) -> Inspected:
    """What inspection makes of one symbol of a real set, under `settings` of the market."""
    if not (SHARED / path).exists():
        pytest.skip(f"no real data: {SHARED / path} is absent")
    market = config.Market(data=str(SHARED / path), **settings)
    (found,) = (one for one in readers.find(market.data, market) if one.symbol == symbol)
    return inspect(readers.read_symbol(found, market), market)


FEED_CHANGES = ["2026-01-22", "2026-03-09", "2026-03-12"]


@pytest.mark.parametrize(
    ("symbol", "dates"),
    # XLV stops on 2026-03-12.
    [("SPY", FEED_CHANGES), ("NVDA", FEED_CHANGES), ("XLV", FEED_CHANGES[:2])],
)
def test_the_feed_changes_inside_real_files_are_found(symbol, dates):
    inspected = real(f"us_equity_1min_rth/{symbol}_1min.csv.gz", symbol)
    (found,) = (found for found in inspected.findings if found.kind == "volume regime")
    assert pd.DatetimeIndex(found.times).strftime("%Y-%m-%d").tolist() == dates


@pytest.mark.parametrize(
    ("path", "symbol", "settings"),
    [
        ("us_equity_1min_parquet/SPY_1min.parquet", "SPY", {}),
        ("us_equity_1min_parquet/STX_1min.parquet", "STX", {}),
        ("us_equity_1min_ext", "SPY", {}),
        ("us_equity_1min_desc", "PPLT", {"bar_label": "end"}),
        ("us_equity_1min_desc", "VIX", {"bar_label": "end"}),
        ("us_index_1min", "SP500_NOV2019_IDay", {}),
        ("us_equity_lean_minute", "SPY", {}),
        ("us_equity_lean_minute", "AIG", {}),
        ("crypto_binance_1m", "AVAXUSDT", {}),
        ("crypto_binance_1m", "NEARUSDT", {}),
        ("fx_histdata_m1", "EURUSD", {}),
        ("futures_cme_1min", "6EH4.XCME", {"bar_label": "end", "calendar": "CMES"}),
    ],
)
def test_ordinary_real_histories_raise_no_alarm(path, symbol, settings):
    inspected = real(path, symbol, **settings)
    changed = {found.kind for found in inspected.findings if found.action != "kept"}
    assert changed <= {"newest first"}


@pytest.mark.parametrize(
    ("path", "symbol", "settings", "right"),
    [
        ("us_equity_1min_rth/CRSP_1min.csv.gz", "CRSP", {"bar_label": "end"}, "start"),
        ("us_equity_1min_parquet/SPY_1min.parquet", "SPY", {"bar_label": "end"}, "start"),
        ("us_equity_1min_ext", "SPY", {"bar_label": "end"}, "start"),
        ("us_equity_1min_desc", "AAPL", {}, "end"),
        ("us_equity_1min_desc", "PPLT", {}, "end"),
        ("us_equity_1min_desc", "VIX", {}, "end"),
        ("futures_cme_1min", "6EH4.XCME", {"calendar": "CMES"}, "end"),
        ("futures_cme_1min", "6EH4.XCME", {"calendar": "24/7"}, "end"),
    ],
)
def test_a_wrong_label_of_a_real_history_is_suspected(path, symbol, settings, right):
    inspected = real(path, symbol, **settings)
    (found,) = (found for found in inspected.findings if found.kind == "bar label")
    assert f"set market.bar_label to {right}" in found.sentence


@pytest.mark.parametrize(
    ("path", "symbol"),
    [("us_equity_1min_rth/XLV_1min.csv.gz", "XLV"), ("us_equity_1min_ext", "SPY")],
)
def test_a_real_history_read_in_the_wrong_zone_is_suspected(path, symbol):
    inspected = real(path, symbol, timezone="UTC")
    assert any("set market.timezone to America/New_York" in note for note in inspected.notes)


def test_the_split_inside_a_real_bar_is_found_and_adjusted():
    listed = real("us_equity_lean_minute", "AAPL")
    (found,) = (found for found in listed.findings if found.kind == "split")
    assert found.count == 1 and "7:1 at 2014-06-09" in found.detail
    adjusted = real("us_equity_lean_minute", "AAPL", adjust_splits=True).raw
    assert np.abs(np.diff(np.log(adjusted.close))).max() < 0.03
    assert np.log(adjusted.high / adjusted.low).max() < 0.05
    before = adjusted.time < found.times[0]
    np.testing.assert_allclose(adjusted.volume[before], 7 * listed.raw.volume[before])


def test_bad_prints_outside_regular_hours_are_listed():
    (found,) = real("us_equity_1min_ext", "SPY").findings
    assert found.kind == "spike"
    for minute in ("2025-07-21 17:15", "2025-07-10 16:55", "2025-07-18 17:37", "2025-07-21 17:16"):
        assert local(minute) in found.times


def test_an_end_label_on_a_short_last_slot_is_of_that_slot():
    clocks = ("10:30", "11:30", "12:30", "13:30", "14:30", "15:30", "16:00")
    starts = ("09:30", "10:30", "11:30", "12:30", "13:30", "14:30", "15:30")
    days = ("2025-03-03", "2025-03-04", "2025-03-05", "2025-03-06")
    ends = [local(f"{day} {clock}") for day in days for clock in clocks]
    flat = np.full((len(ends), 4), 5.0) + np.arange(len(ends))[:, None] % 3 / 100
    market = config.Market(bar_label="end", bar_seconds=3600, calendar="XNYS")
    inspected = inspect(rows(flat, ends), market)
    expected = [local(f"{day} {clock}") for day in days for clock in starts]
    assert inspected.raw.time.tolist() == expected
    placed = arrange(inspected.raw.time, calendar="XNYS", bar_seconds=3600)
    assert placed.unaligned == placed.missing == 0


def test_an_end_label_before_a_lunch_break_is_of_the_morning():
    # Hong Kong trades 9:30 to 12:00 and 13:00 to 16:00.
    clocks = {"10:30": "09:30", "11:30": "10:30", "12:00": "11:30", "14:00": "13:00",
              "15:00": "14:00", "16:00": "15:00"}  # fmt: skip
    zone = "Asia/Hong_Kong"
    ends = [local(f"2025-03-03 {clock}", zone) for clock in clocks]
    flat = np.full((len(ends), 4), 5.0)
    market = config.Market(bar_label="end", bar_seconds=3600, calendar="XHKG", timezone=zone)
    expected = [local(f"2025-03-03 {clock}", zone) for clock in clocks.values()]
    assert inspect(rows(flat, ends), market).raw.time.tolist() == expected


def test_bars_longer_than_the_window_around_an_open_give_no_advice_about_zones():
    raw = sessions("2025-07-07").select(slice(None, None, 30))
    late = replace(raw, time=raw.time + 60 * MINUTE)
    found = inspect(late, config.Market(bar_seconds=1800)).findings
    assert "time zone" not in {finding.kind for finding in found}


def test_exact_times_are_never_told_to_be_of_another_time_zone():
    raw = read_as(sessions("2025-07-07"), "America/Chicago", "UTC")  # five hours early
    (found,) = inspect(raw, MARKET).findings
    assert found.kind == "time zone" and found.action == "warning"
    assert "set market.calendar" in found.sentence
    assert "market.timezone" not in found.sentence


def test_an_infinite_price_is_called_so():
    raw = with_cells(sessions(), "close", {1000: np.inf})
    (found,) = inspect(raw, MARKET).findings
    assert "1 row with a price that is blank, infinite or not positive dropped" in found.sentence
