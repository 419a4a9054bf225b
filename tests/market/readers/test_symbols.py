"""What is found in files, folders and globs."""

import numpy as np
import pandas as pd
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import readers
from jules_jax.market.readers import reading, text

HEADER = "datetime,open,high,low,close,volume\n"


def day(date, minute=30):
    return f"2024-01-{date:02d} 09:{minute}:00,1,1,1,{date},5\n"


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("SPY.csv", "SPY"), ("SPY_1min.csv.gz", "SPY"), ("BRK.B_1m.csv", "BRK.B"),
     ("BTCUSDT-1m-2024-11.csv", "BTCUSDT"), ("BTCUSD_PERP-1m-2022-10-24.csv", "BTCUSD_PERP"),
     ("6EH4.XCME_1min_bars_20240101_20240131.csv", "6EH4.XCME"), ("SPY_2024.csv", "SPY"),
     ("BTC-USD.csv", "BTC-USD"), ("EURUSD_M1_202001020000.csv", "EURUSD"), ("us30.csv", "us30"),
     ("QQQ/2024-01-02.csv", "QQQ"), ("qqq/1min.csv", "QQQ"), ("SPY 5 min.txt", "SPY")],
)  # fmt: skip
def test_a_symbol_is_named_by_its_file_or_else_its_folder(files, name, symbol):
    (found,) = files.find(files.write(name, HEADER + day(2)))
    assert found.symbol == symbol


def test_a_folder_is_searched_through_and_sorted_by_symbol(files):
    for name in ("b/SPY.csv", "a/QQQ_1min.csv", "a/.hidden/X.csv", "AAPL.csv"):
        files.write(name, HEADER + day(2))
    files.write("README.md", "not bars")
    assert [found.symbol for found in files.find()] == ["AAPL", "QQQ", "SPY"]


def test_a_glob_chooses_files(files):
    for name in ("SPY_2023.csv", "SPY_2024.csv", "QQQ_2024.csv"):
        files.write(name, HEADER + day(2))
    found = files.find(files.folder / "*_2024.csv")
    assert [(one.symbol, len(one.files)) for one in found] == [("QQQ", 1), ("SPY", 1)]


def test_files_of_one_symbol_are_joined_in_time_order(files):
    files.write("SPY_2.csv", HEADER + day(2))  # names say nothing of the order
    files.write("a/SPY.csv", HEADER + day(4) + day(5))
    files.write("z/SPY.csv", HEADER + day(1))
    (files.folder / "SPY_2.csv").rename(files.folder / "SPY_1min.csv")
    bars = files.read()
    assert bars.close.tolist() == [1, 2, 4, 5]
    assert bars.file.tolist() == [0, 1, 2, 2] and bars.notes == ()
    assert bars.where(3) == f"{files.folder / 'a/SPY.csv'}: line 3"


def test_newest_first_files_stay_newest_first_together(files):
    files.write("SPY_2024-01.csv", HEADER + day(3) + day(2))
    files.write("SPY_2024-02.csv", HEADER + day(5) + day(4))
    assert files.read().close.tolist() == [5, 4, 3, 2]


def test_files_that_overlap_in_time_are_told(files):
    files.write("SPY_1.csv", HEADER + day(2))
    files.write("a/SPY.csv", HEADER + day(2) + day(4))
    files.write("b/SPY.csv", HEADER + day(3))
    assert any("overlap in time" in note for note in files.read(files.folder / "[ab]").notes)


def test_two_formats_of_one_symbol_are_refused(files):
    files.write("a/SPY.csv", HEADER + day(2))
    files.write("b/SPY.csv", "t,o,h,l,c,v\n1704205800000,1,1,1,1,1\n")
    with pytest.raises(InputError, match=r"b/SPY\.csv: SPY in the format alpaca, and in .* ohlcv"):
        files.find()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_of_symbols_makes_several_of_one_file(files, kind):
    frame = pd.DataFrame(
        {
            "symbol": ["SPY", "QQQ", "SPY"],
            "datetime": ["2024-01-02 09:30:00", "2024-01-02 09:30:00", "2024-01-02 09:31:00"],
            **{name: [1.0] * 3 for name in ("open", "high", "low")},
            "close": [1.0, 2.0, 3.0],
        }
    )
    path = files.folder / f"all.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    qqq, spy = files.find(path)
    assert (qqq.symbol, spy.symbol) == ("QQQ", "SPY") and spy.files == (path,)
    bars = readers.read_symbol(spy, config.Market())
    first = 2 if kind == "csv" else 1
    assert bars.close.tolist() == [1, 3] and bars.line.tolist() == [first, first + 2]


@pytest.mark.parametrize("kept", [True, False])
def test_files_of_all_symbols_are_parsed_once_within_the_memory_allowed(files, monkeypatch, kept):
    names = [f"S{number}" for number in range(6)]
    rng = np.random.default_rng(0)
    for date in (2, 3, 4):
        minutes = [*enumerate(rng.permutation(6), 30), *enumerate(rng.permutation(6), 36)]
        rows = [
            f"{names[number]},2024-01-{date:02d} 09:{minute}:00,1,1,1,{10 * number + date},5"
            for minute, number in minutes
        ]
        files.write(f"2024-01-{date:02d}.csv", "\n".join([f"symbol,{HEADER.strip()}", *rows, ""]))
    if not kept:
        monkeypatch.setattr(reading, "MOST_BYTES", 1000)  # one file of three, hardly
    found, parsed = files.find(), []
    read = text.read
    monkeypatch.setattr(text, "read", lambda head, *rest: parsed.append(1) or read(head, *rest))
    bars = [readers.read_symbol(one, config.Market()) for one in found]
    for number, one in enumerate(bars):
        assert one.symbol == names[number]
        assert one.close.tolist() == [10 * number + date for date in (2, 2, 3, 3, 4, 4)]
        written = [
            (files.folder / f"2024-01-0{date}.csv").read_text().split("\n")[line - 1]
            for date, line in zip((2, 2, 3, 3, 4, 4), one.line, strict=True)
        ]
        assert all(row.startswith(f"{names[number]},") for row in written)
    assert len(parsed) == 3 if kept else len(parsed) > 3


def test_a_blank_symbol_is_refused(files):
    row = "2024-01-02 09:30:00,1,1,1,1,5\n"
    with pytest.raises(InputError, match=r"line 3: the symbol is blank"):
        files.read_text(f"symbol,{HEADER}SPY,{row},{row}")


def test_members_of_a_zip_are_symbols_and_reports_beside_them_are_not(files):
    path = files.zip(
        "all.zip",
        {"QQQ.csv": HEADER + day(2), "d/SPY_1min.csv": HEADER + day(3), "SPY.txt": "a report"},
    )
    qqq, spy = files.find(path)
    assert (qqq.symbol, spy.symbol) == ("QQQ", "SPY")
    bars = readers.read_symbol(spy, config.Market())
    assert bars.close.tolist() == [3] and bars.where(0) == f"{path}/d/SPY_1min.csv: line 2"


def test_days_in_a_zip_are_one_symbol(files):
    days = {f"2024-01-0{date}.csv": HEADER + day(date) for date in (3, 2)}
    assert files.read(files.zip("SPY.zip", days)).close.tolist() == [2, 3]


def test_nothing_to_read_is_told(files):
    with pytest.raises(InputError, match="no such file or folder"):
        files.find(files.folder / "SPY.csv")
    with pytest.raises(InputError, match="no files of bars there"):
        files.find()
    with pytest.raises(InputError, match="no files of bars there"):
        files.find(files.folder / "*.csv")
