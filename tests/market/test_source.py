"""Source: from the rows of a symbol to bars on the grid of its sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import readers, source
from jules_jax.market.instruments import Instrument
from jules_jax.market.readers.raw import Convention, RawBars

MARKET = config.Market()
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def raw_of(clocks: list[str], **columns: Any) -> RawBars:
    """Bars at New York times such as `2025-09-15 09:30`, priced 100, 101, … and 10 shares each."""
    count = len(clocks)
    close = np.asarray(columns.pop("close", 100.0 + np.arange(count)))
    columns = {"volume": np.full(count, 10.0), "signed_volume": None, "half_spread": None} | columns
    return RawBars(
        symbol="ABC",
        files=("ABC.csv",),
        file=np.zeros(count, np.int32),
        line=np.arange(2, count + 2),
        time=pd.DatetimeIndex(clocks, tz="America/New_York").tz_convert("UTC").as_unit("ns").asi8,
        **{"open": close - 0.25, "high": close + 0.5, "low": close - 0.5, "close": close}
        | {
            name: None if it is None else np.asarray(it, np.float64) for name, it in columns.items()
        },
        convention=Convention("ohlcv"),
        notes=("stamps read as New York time",),
    )


GAPPED = ["2025-09-15 09:30", "2025-09-15 09:31", "2025-09-15 09:34", "2025-09-15 09:35"]


def test_missing_minutes_repeat_the_last_close_without_volume():
    found = source.from_raw(raw_of(GAPPED), MARKET, {})
    bars = found.bars
    np.testing.assert_array_equal(bars.valid, [True, True, False, False, True, True])
    np.testing.assert_array_equal(bars.open, [99.75, 100.75, 101, 101, 101.75, 102.75])
    np.testing.assert_array_equal(bars.high, [100.5, 101.5, 101, 101, 102.5, 103.5])
    np.testing.assert_array_equal(bars.low, [99.5, 100.5, 101, 101, 101.5, 102.5])
    np.testing.assert_array_equal(bars.close, [100, 101, 101, 101, 102, 103])
    np.testing.assert_array_equal(bars.volume, [10, 10, 0, 0, 10, 10])
    np.testing.assert_array_equal(bars.minute, range(6))
    np.testing.assert_array_equal(np.diff(found.time), 60 * 10**9)
    assert bars.half_spread is None and bars.signed_volume is None
    assert (bars.bar_seconds, bars.bars_per_session, bars.continuous) == (60, 390, False)
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(bars, name).dtype == np.float32
    assert found.instrument == Instrument(0.01, 1.0, 0.0, 0.0, "XNYS", 1.0)
    notes = "\n".join(found.notes)
    assert "ABC.csv: 4 bars of ABC in 1 session of XNYS, 2025-09-15 to 2025-09-15" in notes
    assert "stamps read as New York time" in found.notes
    assert "2 minutes missing inside sessions, filled with the last price" in found.notes
    assert "the last session ends with its last bar, 384 minutes before its close" in found.notes


def test_a_file_is_loaded_from_its_rows_to_its_grid(tmp_path: Path):
    path = tmp_path / "XYZ_1min.csv"
    rows = [f"{clock}:00,10,11,9,10.5,{volume}" for volume, clock in enumerate(GAPPED, start=1)]
    path.write_text("\n".join(["datetime,open,high,low,close,volume", *rows, ""]))
    (found,) = readers.find(str(path), MARKET)
    loaded = source.load(found, MARKET, {"XYZ": Instrument(tick=0.05)})
    assert loaded.symbol == "XYZ" and loaded.instrument.tick == 0.05
    np.testing.assert_array_equal(loaded.bars.volume, [1, 2, 0, 0, 3, 4])
    assert str(pd.Timestamp(loaded.time[0])) == "2025-09-15 13:30:00"
    assert loaded.notes[0].startswith(f"{path}: 4 bars of XYZ in 1 session of XNYS")


def test_what_is_dropped_is_counted():
    clocks = ["2025-11-26 09:29", "2025-11-26 15:59", "2025-11-27 10:00", "2025-11-28 12:59"]
    found = source.from_raw(raw_of([*clocks, "2025-11-28 13:00", "2025-11-28 13:05"]), MARKET, {})
    for note in (
        "1 bar before the open dropped",
        "2 bars at or after the close dropped",
        "1 bar on days without a session of XNYS dropped",
        "209 minutes missing inside sessions, filled with the last price",
        "1 session shorter than the calendar's longest",
        "the first session begins with its first bar, minute 389",
    ):
        assert note in found.notes
    np.testing.assert_array_equal(found.bars.session, [0] + [1] * 210)
    np.testing.assert_array_equal(found.bars.close[[0, 1, 209, 210]], [101, 101, 101, 103])
    assert not any("ends with its last bar" in note for note in found.notes)


def test_extended_hours_keep_what_regular_hours_drop():
    raw = raw_of(["2025-09-15 08:00", "2025-09-15 09:30", "2025-09-15 19:59"])
    market = replace(MARKET, before_open_minutes=330, after_close_minutes=240)
    bars = source.from_raw(raw, market, {}).bars
    assert bars.valid.sum() == 3 and bars.close.size == 12 * 60
    assert bars.minute[0] == 4 * 60 and set(bars.session_length) == {16 * 60}
    assert source.from_raw(raw, MARKET, {}).bars.valid.sum() == 1


def test_quotes_and_flow_are_carried_over_gaps():
    raw = raw_of(GAPPED, half_spread=[np.nan, 1e-4, np.nan, 2e-4], signed_volume=[1, -2, 3, -4])
    found = source.from_raw(raw, MARKET, {"ABC": Instrument(spread_bps=6.0)})
    expected = np.float32([3e-4, 1e-4, 1e-4, 1e-4, 1e-4, 2e-4])
    np.testing.assert_allclose(found.bars.half_spread, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.bars.signed_volume, [1, -2, 0, 0, 3, -4])
    bare = source.from_raw(raw, MARKET, {}).bars.half_spread
    assert bare is not None and bare[0] == 0.0  # which stands for the configured spread


def test_a_given_spread_serves_where_there_are_no_quotes():
    found = source.from_raw(raw_of(GAPPED), MARKET, {"ABC": Instrument(spread_bps=5.0)})
    np.testing.assert_allclose(found.bars.half_spread, np.full(6, 2.5e-4), rtol=1e-6)
    assert found.bars.half_spread.dtype == np.float32


@pytest.mark.parametrize(("volume", "said"), [(None, "no column volume"), (np.zeros(4), "is zero")])
def test_a_source_without_volume_needs_an_average_daily_volume(volume: Any, said: str):
    raw = raw_of(GAPPED, volume=volume)
    with pytest.raises(
        InputError, match=rf"^ABC\.csv: .*{said}.*, expected traded volumes or .*--market.adv"
    ):
        source.from_raw(raw, MARKET, {})
    for market, given in (
        (replace(MARKET, adv=39_000.0), {}),
        (replace(MARKET, adv=1.0), {"ABC": Instrument(adv=39_000.0)}),
    ):
        found = source.from_raw(raw, market, given)
        np.testing.assert_array_equal(found.bars.volume, [100, 100, 0, 0, 100, 100])
        assert any("39,000 spread over 390 bars" in note for note in found.notes)


def test_prices_that_float32_cannot_hold_are_refused_with_their_row():
    for price in (1e-42, 1e39):
        with pytest.raises(InputError, match=r"^ABC\.csv: line 3: \w+ is .*float32"):
            source.from_raw(raw_of(GAPPED[:2], close=[1.0, price], open=[1.0, price],
                                   high=[1.0, price], low=[1.0, price]), MARKET, {})  # fmt: skip


def test_crypto_at_95000_and_penny_prices_keep_their_ticks():
    crypto = Convention("binance", timezone="UTC", calendar="24/7", exact_prices=True)
    clocks = [f"2025-09-13 0{hour}:00" for hour in range(4)]  # a Saturday
    for close, volume, tick, step in (
        ([95_000.1, 95_001.7, 94_999.9, 95_000.0], [0.123, 1.5, 0.25, 2.0], 0.1, 0.001),
        ([0.001234, 0.001235, 0.001233, 0.001236], [5e6, 7e5, 1e6, 3.0], 1e-6, 1.0),
    ):
        prices = dict.fromkeys(("open", "high", "low", "close"), np.asarray(close))
        raw = replace(raw_of(clocks, volume=volume, **prices), convention=crypto)
        found = source.from_raw(raw, replace(MARKET, bar_seconds=3600), {})
        assert (found.instrument.tick, found.instrument.quantity_step) == (tick, step)
        assert found.bars.continuous and found.bars.valid.all()
        np.testing.assert_allclose(found.bars.close, close, rtol=1e-7)


def test_two_bars_in_one_slot_name_file_and_line():
    raw = raw_of(["2025-09-15 09:30", "2025-09-15 09:30:30", "2025-09-15 09:31"])
    with pytest.raises(InputError, match=r"^ABC\.csv: line 3: a second bar in the same slot"):
        source.from_raw(raw, MARKET, {})


def test_a_spacing_of_several_bars_is_told():
    found = source.from_raw(
        raw_of(["2025-09-15 09:30", "2025-09-15 09:35", "2025-09-15 09:45"]), MARKET, {}
    )
    assert any("300 seconds apart" in note and "bar_seconds" in note for note in found.notes)


def test_bars_outside_all_sessions_are_refused_by_name():
    with pytest.raises(InputError, match=r"^ABC\.csv: none of the 2 bars .* XNYS"):
        source.from_raw(raw_of(["2025-07-04 10:00", "2025-07-04 10:01"]), MARKET, {})
    with pytest.raises(InputError, match=r"^ABC\.csv: the calendar is 'XNYZ'"):
        source.from_raw(raw_of(GAPPED), MARKET, {"ABC": Instrument(calendar="XNYZ")})


def test_stamps_of_bar_ends_are_a_bar_earlier():
    ends = raw_of(["2025-09-15 09:31", "2025-09-15 09:32", "2025-09-15 16:00"])
    found = source.from_raw(ends, replace(MARKET, bar_label="end"), {})
    assert found.bars.minute[[0, 1, -1]].tolist() == [0, 1, 389] and found.bars.valid.sum() == 3


def real(path: str, symbol: str, **settings: Any) -> source.Source:
    """A file of ../shared/data, its bars read with pandas: naive New York time, plain OHLCV."""
    if not (SHARED / path).exists():
        pytest.skip(f"{SHARED / path} is not there")
    frame = pd.read_csv(SHARED / path).rename(columns=str.lower).iloc[:, :6]
    times = pd.DatetimeIndex(frame.iloc[:, 0]).tz_localize("America/New_York")
    order = np.argsort(times.asi8, kind="stable")
    count, columns = len(frame), ("open", "high", "low", "close", "volume")
    raw = RawBars(
        symbol=symbol,
        files=(path,),
        file=np.zeros(count, np.int32),
        line=np.arange(2, count + 2),
        time=times.tz_convert("UTC").as_unit("ns").asi8,
        **{name: frame[name].to_numpy(np.float64) for name in columns},
        signed_volume=None,
        half_spread=None,
        convention=Convention("ohlcv"),
    ).select(order)
    return source.from_raw(raw, replace(MARKET, **settings), {})


def test_half_a_year_of_spy_has_129_sessions_and_two_early_closes():
    found = real("us_equity_1min_rth/SPY_1min.csv.gz", "SPY")
    bars = found.bars
    assert bars.session[-1] + 1 == 129 and bars.close.size == 127 * 390 + 2 * 210
    lengths = bars.session_length[np.diff(bars.session, prepend=-1) == 1]
    assert (lengths == 210).sum() == 2 and (lengths == 390).sum() == 127
    # 49,885 rows, six of them after the early closes at 13:00 of 2025-11-28 and 12-24.
    assert bars.valid.sum() == 49_885 - 6
    assert "6 bars at or after the close dropped" in found.notes
    assert "71 minutes missing inside sessions, filled with the last price" in found.notes


def test_a_week_of_bar_end_stamps_newest_first_fills_whole_sessions():
    found = real("us_equity_1min_desc/AAPL_1min.csv", "AAPL", bar_label="end")
    assert found.bars.close.size == 5 * 390 and found.bars.valid.sum() == 1948
    assert set(np.bincount(found.bars.session)) == {390}


def test_extended_hours_of_spy_cover_16_hours_and_the_half_day():
    extended = {"before_open_minutes": 330, "after_close_minutes": 240}
    bars = real("us_equity_1min_ext/SPY_1min.csv.gz", "SPY", **extended).bars
    lengths = bars.session_length[np.diff(bars.session, prepend=-1) == 1]
    assert set(lengths) == {960, 780} and (lengths == 780).sum() == 1


def test_large_losses_are_doubted_aloud():
    """Bars of a Sunday and of a Monday, read as a US equity's."""
    minutes = pd.timedelta_range("10:00:00", periods=60, freq="min")
    clocks = [str(pd.Timestamp(day) + at) for day in ("2025-03-02", "2025-03-03") for at in minutes]
    notes = source.from_raw(raw_of(clocks), MARKET, {}).notes
    said = "60 of 120 bars (50%) are on days without a session"
    assert any(note.startswith(said) for note in notes)
