"""Each format: a small file of ours, and what must come out of it, worked by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import readers
from jules_jax.market.readers.formats import FORMATS


def stamps(bars):
    return [f"{time:%Y-%m-%d %H:%M}" for time in pd.DatetimeIndex(bars.time, tz="UTC")]


def prices(bars):
    return np.column_stack([bars.open, bars.high, bars.low, bars.close]).tolist()


def test_the_configuration_names_every_format():
    allowed = config.Market.__dataclass_fields__["format"].metadata["allowed"]
    assert {*FORMATS} == {*allowed.removeprefix("one of ").split(", ")} - {"auto"}


@pytest.mark.parametrize(
    "header",
    ["datetime,open,high,low,close,volume", "Date,Open,High,Low,Last,Vol", "T,O,H,L,C,V",
     "time (UTC),1. open,2. high,3. low,4. close,5. volume", ",open,high,low,close,volume",
     " Timestamp , OPEN , HIGH , LOW , Price , Volume "],
)  # fmt: skip
def test_any_header_that_names_the_columns_will_do(files, header):
    bars = files.read_text(f"{header}\n2024-01-02 14:30:00,1,4,0.5,2,100\n", timezone="UTC")
    assert prices(bars) == [[1, 4, 0.5, 2]]
    assert bars.volume.tolist() == [100]
    assert stamps(bars) == ["2024-01-02 14:30"]


def test_columns_come_in_any_order_and_others_are_ignored(files):
    bars = files.read_text(
        "Volume;Close;note;Low;High;Open;Datetime\n7;2;x;0.5;4;1;2024-01-02 09:30:00\n"
    )
    assert prices(bars) == [[1, 4, 0.5, 2]]
    assert bars.volume.tolist() == [7]
    assert stamps(bars) == ["2024-01-02 14:30"]  # New York
    assert bars.convention == readers.Convention("ohlcv")


def test_a_file_without_volume_has_none(files):
    bars = files.read_text("datetime,open,high,low,close\n2024-01-02 09:30:00,1,4,0.5,2\n")
    assert bars.volume is None and bars.signed_volume is None and bars.half_spread is None


def test_two_columns_that_could_be_the_volume_are_refused(files):
    with pytest.raises(InputError, match=r"line 1: columns 'Volume BTC', 'Volume USD' could all"):
        files.read_text("date,open,high,low,close,Volume BTC,Volume USD\n2024-01-02,1,1,1,1,1,1\n")


KLINE = "{t},10.5,12,10,11,{volume},{end},0,3,{taker},0,0\n"
KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)


@pytest.mark.parametrize("header", ["", KLINE_HEADER])
@pytest.mark.parametrize("unit", [1, 1000])
def test_binance_klines_have_the_true_order_flow(files, header, unit):
    t = 1_662_336_000_000
    rows = [
        KLINE.format(t=at * unit, end=(at + 59_999) * unit, volume=8, taker=taker)
        for at, taker in ((t, 8), (t + 60_000, 1))
    ]
    bars = files.read(files.zip("BTCUSDT-1m-2022-09-05.zip", {"x.csv": header + "".join(rows)}))
    assert bars.symbol == "BTCUSDT"
    assert stamps(bars) == ["2022-09-05 00:00", "2022-09-05 00:01"]
    assert bars.signed_volume.tolist() == [8, -6]  # all bought; 1 bought, 7 sold
    assert prices(bars)[0] == [10.5, 12, 10, 11]
    assert (bars.convention.timezone, bars.convention.calendar) == ("UTC", "24/7")


@pytest.mark.parametrize(
    "text",
    ["t,o,h,l,c,v,vw,n\n1704205800000,1,4,0.5,2,100,1.5,9\n",
     "t,o,h,l,c,v,vw,n\n2024-01-02T14:30:00Z,1,4,0.5,2,100,1.5,9\n",
     "timestamp,open,high,low,close,volume,trade_count,vwap\n"
     "2024-01-02 14:30:00+00:00,1,4,0.5,2,100,9,1.5\n",
     "ticker,volume,open,close,high,low,window_start,transactions\n"
     "SPY,100,1,2,4,0.5,1704205800000000000,9\n"],
)  # fmt: skip
def test_alpaca_and_polygon_bars_are_in_utc(files, text):
    bars = files.read_text(text)
    assert bars.convention.name == "alpaca" and bars.symbol == "SPY"
    assert stamps(bars) == ["2024-01-02 14:30"]
    assert prices(bars) == [[1, 4, 0.5, 2]] and bars.volume.tolist() == [100]


def test_naive_times_beside_a_vwap_are_not_taken_for_utc(files):
    bars = files.read_text(
        "datetime,open,high,low,close,volume,vwap,trade_count\n2024-01-02 09:30:00,1,4,1,2,9,1,1\n"
    )
    assert bars.convention.name == "ohlcv"
    assert stamps(bars) == ["2024-01-02 14:30"]


DATABENTO = "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume{}\n"


def test_databento_prices_are_billionths_or_decimals(files):
    fixed = files.read_text(
        DATABENTO.format(",symbol")
        + "1704205800000000000,33,2,7,476120000000,477000000000,476000000000,476500000000,5,SPY\n"
        + f"1704205860000000000,33,2,7,{2**63 - 1},477000000000,476000000000,476500000000,5,SPY\n"
    )
    pretty = files.read_text(
        DATABENTO.format("")
        + "2024-01-02T14:30:00.000000000Z,33,2,7,476.120000000,477.0,476.0,476.500000000,5\n"
    )
    assert stamps(fixed) == ["2024-01-02 14:30", "2024-01-02 14:31"]
    assert prices(fixed)[0] == prices(pretty)[0] == [476.12, 477, 476, 476.5]
    assert np.isnan(fixed.open[1]) and fixed.close[1] == 476.5
    assert fixed.convention.name == pretty.convention.name == "databento"


def test_databento_instruments_without_symbols_are_refused(files):
    row = "1704205800000000000,33,2,{},1000000000,1000000000,1000000000,1000000000,5\n"
    with pytest.raises(InputError, match="several values of instrument_id"):
        files.read_text(DATABENTO.format("") + row.format(7) + row.format(8))


@pytest.mark.parametrize(
    "header",
    ["Datetime,Open,High,Low,Close,Adj Close,Volume",
     "Price,Open,High,Low,Close,Adj Close,Volume\nTicker,SPY,SPY,SPY,SPY,SPY,SPY\nDatetime,,,,,,"],
)  # fmt: skip
def test_yahoo_prices_are_as_traded(files, header):
    bars = files.read_text(f"{header}\n2024-01-02 09:30:00-05:00,1,4,0.5,2,1.9,100\n")
    assert bars.convention.name == "yahoo"
    assert stamps(bars) == ["2024-01-02 14:30"] and prices(bars) == [[1, 4, 0.5, 2]]
    assert bars.line.tolist() == [header.count("\n") + 2]


def test_lean_days_of_trades_and_quotes_are_one_symbol_with_half_spreads(files):
    trade = "34200000,1000000,1000400,999900,1000200,50\n34320000,1000000,1000000,1000000,1000000,5"
    quote = (
        "34200000,1,1,1,999900,5,1,1,1,1000100,5\n"
        "34260000,1,1,1,999900,5,1,1,1,1000300,5\n"  # no trade in this minute
        "34320000,,,,,,1,1,1,1000100,5\n"  # no bid
    )
    for day in ("20240103", "20240102"):
        for kind, text in (("trade", trade), ("quote", quote)):
            files.zip(f"spy/{day}_{kind}.zip", {f"{day}_spy_minute_{kind}.csv": text})
    (found,) = files.find()
    assert (found.symbol, found.format, len(found.files)) == ("SPY", "lean", 4)
    bars = files.read()
    assert stamps(bars) == [
        "2024-01-02 14:30", "2024-01-02 14:32", "2024-01-03 14:30", "2024-01-03 14:32"
    ]  # fmt: skip
    assert prices(bars)[0] == [100, 100.04, 99.99, 100.02]
    np.testing.assert_allclose(bars.half_spread, [1e-4, np.nan] * 2)  # 0.01 on 100
    assert [name[-18:] for name in bars.files] == ["20240102_trade.zip", "20240103_trade.zip"]


def test_lean_trades_without_quotes_have_no_spread(files):
    assert files.read(files.zip("a/20240102_trade.zip", {"x.csv": "1,1,1,1,1,5"})).symbol == "A"
    assert files.read().half_spread is None


def test_histdata_months_are_one_history_in_new_york_time(files):
    row = "2017{} 170000;1.05522;1.05529;1.05521;1.05528;0\n"
    files.write("DAT_ASCII_EURUSD_M1_201704.csv.gz", row.format("0402"))
    files.write("DAT_ASCII_EURUSD_M1_201701.csv", row.format("0102"))
    bars = files.read()
    assert bars.symbol == "EURUSD" and bars.convention.calendar == "24/5"
    assert stamps(bars) == ["2017-01-02 22:00", "2017-04-02 21:00"]  # winter and summer
    assert prices(bars)[0] == [1.05522, 1.05529, 1.05521, 1.05528]


def test_histdata_metatrader_files_are_in_new_york_time_too(files):
    bars = files.read_text("2017.01.02,02:00,1,1,1,1,0\n", name="DAT_MT_EURUSD_M1_201701.csv")
    assert bars.convention.name == "histdata" and stamps(bars) == ["2017-01-02 07:00"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_metatrader_5_volume_is_real_or_else_ticks(files, encoding):
    header = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\r\n"
    row = "2024.01.02\t00:01:00\t1.1\t1.3\t1.0\t1.2\t42\t{}\t5\r\n"
    ticks = files.read_text((header + row.format(0)).encode(encoding), "EURUSD_M1_2024.csv")
    real = files.read_text((header + row.format(900)).encode(encoding), "EURUSD_M1_2024.csv")
    assert ticks.symbol == "EURUSD" and ticks.convention.name == "metatrader"
    assert ticks.volume.tolist() == [42] and real.volume.tolist() == [900]
    assert any("number of ticks" in note for note in ticks.notes)
    assert not any("number of ticks" in note for note in real.notes)


def test_metatrader_4_rows_are_in_server_time_and_say_so(files):
    row = "2024.{},00:01,1.1,1.3,1.0,1.2,42\n"
    text = row.format("01.02") + row.format("07.02")
    bars = files.read_text(text, "EURUSD1.csv")
    assert bars.symbol == "EURUSD" and bars.volume.tolist() == [42, 42]
    assert stamps(bars) == ["2024-01-01 22:01", "2024-07-01 21:01"]  # UTC+2, +3 in summer
    assert "Europe/Helsinki" in bars.notes[0]
    assert stamps(files.read_text(text, timezone="UTC"))[0] == "2024-01-02 00:01"


@pytest.mark.parametrize("as_index", [True, False])
def test_parquet_keeps_its_time_zone_in_an_index_or_a_column(files, as_index):
    times = pd.date_range("2024-01-02 09:30", periods=3, freq="min", tz="America/New_York")
    frame = pd.DataFrame(
        {"open": [1.0, 2, 3], "high": 4, "low": [0.5, None, 1], "close": 2, "volume": [5, 6, 7]},
        index=times,
    )
    frame = frame if as_index else frame.rename_axis("date").reset_index()
    path = files.folder / "SPY_1min.parquet"
    frame.to_parquet(path)
    bars = files.read(path)
    assert stamps(bars) == ["2024-01-02 14:30", "2024-01-02 14:31", "2024-01-02 14:32"]
    assert bars.volume.tolist() == [5, 6, 7] and np.isnan(bars.low[1])
    assert bars.line.tolist() == [1, 2, 3] and bars.symbol == "SPY"


def test_the_format_can_be_given(files):
    text = "t,o,h,l,c,v\n2024-01-02 09:30:00,1,4,0.5,2,100\n"
    assert stamps(files.read_text(text)) == ["2024-01-02 09:30"]  # Alpaca's t is UTC
    assert stamps(files.read_text(text, format="ohlcv")) == ["2024-01-02 14:30"]
    with pytest.raises(InputError, match=r"SPY\.csv: line 1: .* is not of the format binance"):
        files.read_text(text, format="binance")


def test_zstd_is_unpacked(files):
    text = b"datetime,open,high,low,close\n2024-01-02 09:30:00,1,4,0.5,2\n"
    packed = pa.compress(text, codec="zstd", asbytes=True)
    assert prices(files.read_text(packed, "SPY.csv.zst")) == [[1, 4, 0.5, 2]]


STAMP, NEXT = "2024-01-02 09:30:00", "2024-01-02 09:31:00"


@pytest.mark.parametrize(
    ("time", "values"),
    [*((name, STAMP) for name in ("ts", "dt", "begin", "bar_start", "Trade Date", "Zeit")),
     ("Time (EET)", STAMP), ("Trade Date,Trade Time", "01/02/2024,09:30"),
     ("when", "1704205800"), ("when", "20240102093000"), ("begin,end", f"{STAMP},{NEXT}")],
)  # fmt: skip
def test_a_time_of_any_name_is_known_by_its_values_and_told(files, time, values):
    bars = files.read_text(f"volume,open,high,low,close,{time}\n1704205800,1,4,0.5,2,{values}\n")
    assert stamps(bars) == ["2024-01-02 14:30"]
    assert prices(bars) == [[1, 4, 0.5, 2]] and bars.volume.tolist() == [1704205800]
    first = time.removesuffix(",end").replace(",", "' and '")
    assert any(f"taken by its header or values: '{first}' as time" in note for note in bars.notes)


def test_a_standard_name_in_any_case_needs_no_note(files):
    for name in ("startTime", "openTime", "TimeStamp", "Date_Time"):
        bars = files.read_text(f"{name},open,high,low,close\n{STAMP},1,4,0.5,2\n")
        assert stamps(bars) == ["2024-01-02 14:30"] and bars.notes == ()


def test_a_clock_in_the_header_is_utc_or_told_not_to_be_understood(files):
    for name in ("Open time [GMT]", "ts_utc", "Time (UTC)"):
        bars = files.read_text(f"{name},open,high,low,close\n{STAMP},1,4,0.5,2\n")
        assert stamps(bars) == ["2024-01-02 09:30"]
    for clock in ("EET", "UTC+2", "GMT-05:00"):
        bars = files.read_text(f"Time ({clock}),open,high,low,close\n{STAMP},1,4,0.5,2\n")
        assert stamps(bars) == ["2024-01-02 14:30"]
        assert f"says '{clock}', which is not understood" in bars.notes[1]


def test_a_date_beside_a_column_of_clock_times_is_joined_with_it(files):
    row = "20240102,09:30:00,1,4,0.5,2,7"
    bars = files.read_text(f"Date,Timestamp,Open,High,Low,Close,Volume\n{row}\n")
    assert stamps(bars) == ["2024-01-02 14:30"]


@pytest.mark.parametrize(
    "names",
    ["bidopen,bidhigh,bidlow,bidclose,vol", "openPrice,highPrice,lowPrice,closePrice,baseVolume",
     "mid_o,mid_h,mid_l,mid_c,vol", "price_open,price_high,price_low,price_close,volume_traded",
     "Opening Price,Highest Price,Lowest Price,Closing Price,Total Volume"],
)  # fmt: skip
def test_prices_are_known_by_the_words_in_their_names_and_told(files, names):
    bars = files.read_text(f"datetime,{names}\n{STAMP},1,4,0.5,2,7\n")
    assert prices(bars) == [[1, 4, 0.5, 2]] and bars.volume.tolist() == [7]
    assert f"'{names.split(',')[0]}' as open" in bars.notes[0]


@pytest.mark.parametrize(
    ("header", "values", "sentence"),
    [("a,b,open,high,low,close", f"{STAMP},{NEXT},1,4,1,2", "'a', 'b' could all be the time"),
     ("a,x,y,open,high,low,close", "2024-01-02,09:30,09:31,1,4,1,2", "'x', 'y' could all be the"),
     ("ts,bidopen,askopen,high,low,close", f"{STAMP},1,1,4,1,2", "'bidopen', 'askopen' could all"),
     ("x,y,open,high,low,close", "5,7.123456,1,4,1,2", "line 1: no column time")],
)  # fmt: skip
def test_columns_that_could_be_the_same_are_refused_by_name(files, header, values, sentence):
    with pytest.raises(InputError, match=sentence):
        files.read_text(f"{header}\n{values}\n")
