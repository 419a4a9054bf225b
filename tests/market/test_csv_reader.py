"""Reading CSVs of bars: what is understood, what is counted, what is refused and how."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jules_jax.config import Market
from jules_jax.errors import InputError
from jules_jax.market.readers import Source, read

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"

HEADER = "datetime,open,high,low,close,volume"
ROWS = [
    "2025-09-15 09:30:00,100.0,100.5,99.5,100.25,1000",
    "2025-09-15 09:31:00,100.25,100.75,100.0,100.5,2000.0",
    "2025-09-15 09:33:00,100.5,100.5,100.5,100.5,0",
    "2025-09-16 09:30:00,101.0,102.0,100.0,101.5,500",
]
"""Three bars of one session, 09:32 missing, and one of the next."""

UTC_STARTS = [
    datetime(2025, 9, 15, 13, 30, tzinfo=UTC),
    datetime(2025, 9, 15, 13, 31, tzinfo=UTC),
    datetime(2025, 9, 15, 13, 33, tzinfo=UTC),
    datetime(2025, 9, 16, 13, 30, tzinfo=UTC),
]


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real data file {name} beside the checkout")
    return path


def write(folder: Path, *lines: str, name: str = "SPY_1min.csv", end: str = "\n") -> Path:
    path = folder / name
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def refusal(path: Path, **settings: Any) -> str:
    """The sentence a file is refused with."""
    with pytest.raises(InputError) as error:
        read(path, Market(**settings))
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


def starts(source: Source) -> list[datetime]:
    return [datetime.fromtimestamp(time / 1e9, UTC) for time in source.timestamps]


def assert_same_bars(left: Source, right: Source) -> None:
    np.testing.assert_array_equal(left.timestamps, right.timestamps)
    for name in ("open", "high", "low", "close", "volume", "session", "minute", "session_length"):
        np.testing.assert_array_equal(getattr(left.bars, name), getattr(right.bars, name))


@pytest.fixture
def plain(tmp_path: Path) -> Source:
    return read(write(tmp_path, HEADER, *ROWS), Market())


def test_a_plain_file_gives_its_bars_sessions_and_times(plain: Source):
    bars = plain.bars
    assert plain.symbol == "SPY"
    assert starts(plain) == UTC_STARTS
    assert plain.timestamps.dtype == np.int64
    expected = np.array([[float(x) for x in row.split(",")[1:]] for row in ROWS], np.float32).T
    found = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    for values, wanted in zip(found, expected, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, wanted)
    np.testing.assert_array_equal(bars.session, [0, 0, 0, 1])
    np.testing.assert_array_equal(bars.minute, [0, 1, 3, 0])
    np.testing.assert_array_equal(bars.bar_of_session, [0, 1, 3, 0])
    np.testing.assert_array_equal(bars.session_length, [4, 4, 4, 1])
    assert bars.valid.all() and bars.valid.dtype == bool
    assert (bars.bar_seconds, bars.bars_per_session, bars.continuous) == (60, 390, False)


def test_the_notes_state_what_was_read_and_count_what_is_odd(plain: Source):
    first, *rest = plain.notes
    for part in ("4 bars", "2 sessions", "2025-09-15 to 2025-09-16", "New_York", "start"):
        assert part in first
    assert rest == [
        "1 minute missing inside sessions",
        "2 sessions shorter than 390 minutes",
        "1 bar with zero volume",
    ]


def test_a_gzipped_file_reads_like_the_plain_one(tmp_path: Path, plain: Source):
    path = tmp_path / "SPY_1min.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *ROWS]).encode()))
    found = read(path, Market())
    assert found.symbol == "SPY"
    assert_same_bars(found, plain)


@pytest.mark.parametrize(
    "name", ["datetime", "Date", "TIMESTAMP", "time", "Date_Time", "date time"]
)
def test_columns_come_in_any_order_and_case_beside_others(tmp_path: Path, plain: Source, name: str):
    lines = [f"Volume,vendor, Close,HIGH,Low,Open,{name}"]
    for row in ROWS:
        time, open_, high, low, close, volume = row.split(",")
        lines.append(f'{volume},"a, b",{close},{high},{low},{open_},{time}')
    assert_same_bars(read(write(tmp_path, *lines), Market()), plain)


def test_a_byte_order_mark_line_ends_quotes_and_blank_lines_do_not_matter(
    tmp_path: Path, plain: Source
):
    rows = [f'"{row.split(",")[0]}",{row.split(",", 1)[1]}' for row in ROWS]
    found = read(write(tmp_path, "\ufeff" + HEADER, *rows[:2], "", *rows[2:], end="\r\n"), Market())
    assert_same_bars(found, plain)
    assert "1 blank line skipped" in found.notes


@pytest.mark.parametrize(
    ("column", "form"),
    [
        ("datetime", "%Y-%m-%dT%H:%M:%SZ"),
        ("datetime", "%Y-%m-%d %H:%M:%S+00:00"),
        ("datetime", "%Y-%m-%d %H:%M:%S UTC"),
        ("timestamp_utc", "%Y-%m-%d %H:%M:%S"),
        ("timestamp_utc", "%m/%d/%Y %H:%M"),
    ],
)
def test_times_with_an_offset_or_in_utc_do_not_depend_on_the_time_zone(
    tmp_path: Path, plain: Source, column: str, form: str
):
    lines = [HEADER.replace("datetime", column)]
    for start, row in zip(UTC_STARTS, ROWS, strict=True):
        lines.append(f"{start.strftime(form)},{row.split(',', 1)[1]}")
    assert_same_bars(read(write(tmp_path, *lines), Market()), plain)


def test_offsets_may_change_with_daylight_saving_inside_a_file(tmp_path: Path):
    times = ["2025-10-31 09:30:00-04:00", "2025-11-03 09:30:00-05:00"]
    source = read(write(tmp_path, HEADER, *(f"{time},9,9,9,9,9" for time in times)), Market())
    np.testing.assert_array_equal(source.bars.minute, [0, 0])
    assert [start.hour for start in starts(source)] == [13, 14]


def test_naive_times_are_read_in_the_configured_zone(tmp_path: Path, plain: Source):
    berlin = [row.replace(" 09:", " 15:") for row in ROWS]
    market = Market(timezone="Europe/Berlin", session_open="15:30", session_close="22:00")
    found = read(write(tmp_path, HEADER, *berlin), market)
    assert_same_bars(found, plain)
    assert "Europe/Berlin" in found.notes[0]


def test_a_date_column_and_a_time_column_are_one_time(tmp_path: Path, plain: Source):
    lines = [HEADER.replace("datetime", "date,time"), *(row.replace(" ", ",", 1) for row in ROWS)]
    assert_same_bars(read(write(tmp_path, *lines), Market()), plain)


def test_labels_at_the_end_of_a_bar_are_moved_to_its_start(tmp_path: Path, plain: Source):
    later = [
        row.replace(f":3{n}:", f":3{n + 1}:") for row, n in zip(ROWS, (0, 1, 3, 0), strict=True)
    ]
    found = read(write(tmp_path, HEADER, *later), Market(bar_label="end"))
    assert_same_bars(found, plain)
    assert "end" in found.notes[0]


def test_bars_outside_session_hours_are_dropped_and_counted(tmp_path: Path, plain: Source):
    outside = "{},1.0,1.0,1.0,1.0,7"
    early = outside.format("2025-09-15 09:29:00")
    late = [outside.format(f"2025-09-16 {clock}") for clock in ("16:00:00", "19:59:00")]
    found = read(write(tmp_path, HEADER, early, *ROWS, *late), Market())
    assert_same_bars(found, plain)
    assert "1 bar before 09:30 dropped" in found.notes
    assert "2 bars at or after 16:00 dropped" in found.notes


def test_a_24_7_calendar_keeps_every_bar_in_utc_days(tmp_path: Path):
    times = ["2024-03-09 23:59:00", "2024-03-10 00:00:00", "2024-03-10 02:30:00"]
    path = write(tmp_path, HEADER, *(f"{time},9,9,9,9,9" for time in times))
    source = read(path, Market(calendar="24/7", timezone="UTC"))
    assert source.bars.continuous
    assert source.bars.bars_per_session == 1440
    np.testing.assert_array_equal(source.bars.session, [0, 1, 1])
    np.testing.assert_array_equal(source.bars.minute, [1439, 0, 150])
    np.testing.assert_array_equal(source.bars.session_length, [1440] * 3)
    assert source.notes[1:] == ("149 minutes missing inside sessions",)


def test_bars_further_apart_than_their_length_are_remarked_on(tmp_path: Path):
    times = ["09:30", "09:35", "09:45"]
    path = write(tmp_path, HEADER, *(f"2025-09-15 {time},9,9,9,9,9" for time in times))
    assert any("300 seconds apart" in note for note in read(path, Market()).notes)
    fitting = read(path, Market(bar_seconds=300))
    np.testing.assert_array_equal(fitting.bars.bar_of_session, [0, 1, 3])
    assert not any("seconds apart" in note for note in fitting.notes)


@pytest.mark.parametrize("column", ["absent", "zero", "blank"])
def test_a_source_without_volume_needs_an_average_daily_volume(tmp_path: Path, column: str):
    ending = {"absent": None, "zero": "0", "blank": ""}[column]
    lines = [",".join(row.split(",")[:5] + ([] if ending is None else [ending])) for row in ROWS]
    header = HEADER if ending is not None else HEADER.removesuffix(",volume")
    path = write(tmp_path, header, *lines)
    message = refusal(path)
    assert str(path) in message and "volume" in message and "--adv" in message
    source = read(path, Market(adv=390_000.0))
    np.testing.assert_array_equal(source.bars.volume, np.full(4, 1000.0, np.float32))
    assert any("no volume in the file" in note for note in source.notes)


def test_the_average_daily_volume_leaves_a_source_with_volume_alone(tmp_path: Path, plain: Source):
    found = read(write(tmp_path, HEADER, *ROWS), Market(adv=390_000.0))
    assert_same_bars(found, plain)


BAD_LINES = {
    "nan price": ("2025-09-15 09:31:00,nan,2,1,1,5", ["open", "NaN", "positive"]),
    "blank price": ("2025-09-15 09:31:00,1,2,1,,5", ["close", "blank", "positive"]),
    "zero price": ("2025-09-15 09:31:00,1,2,0,1,5", ["low", "0", "positive"]),
    "negative price": ("2025-09-15 09:31:00,1,2,-1.5,1,5", ["low", "-1.5", "positive"]),
    "infinite price": ("2025-09-15 09:31:00,1,inf,1,1,5", ["high", "inf", "positive"]),
    "price beneath float32": ("2025-09-15 09:31:00,1e-60,2,1,1,5", ["open", "1e-60", "positive"]),
    "text for a price": ("2025-09-15 09:31:00,1,2,1,n.m.,5", ["close", "'n.m.'", "number"]),
    "nan volume": ("2025-09-15 09:31:00,1,2,1,1,nan", ["volume", "NaN", "zero or more"]),
    "cut line": ("2025-09-15 09:31:00,1,2,1", ["close", "blank", "positive"]),
    "negative volume": ("2025-09-15 09:31:00,1,2,1,1,-5", ["volume", "-5", "zero or more"]),
    "high below low": ("2025-09-15 09:31:00,1,1,2,1,5", ["high 1", "low 2"]),
    "no time": (",1,2,1,1,5", ["datetime", "blank", "2025-09-15 09:30:00"]),
    "text for a time": ("tomorrow,1,2,1,1,5", ["datetime", "'tomorrow'", "2025-09-15 09:30:00"]),
    "repeated header": (HEADER, ["datetime", "'datetime'", "2025-09-15 09:30:00"]),
    "mixed offsets": ("2025-09-15 09:31:00Z,1,2,1,1,5", ["datetime", "09:31:00Z"]),
    "impossible date": ("2025-02-30 09:31:00,1,2,1,1,5", ["datetime", "2025-02-30"]),
    "duplicate": (ROWS[0], ["2025-09-15 09:30:00", "repeats", "line 2", "ascending"]),
    "unsorted": ("2025-09-14 09:31:00,1,2,1,1,5", ["2025-09-14 09:31:00", "line 2", "ascending"]),
    "shifted by a comma": ("2025-09-15 09:31:00,1,2,1,1,1,200", ["6 fields", "7"]),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_with_what_was_found_and_expected(tmp_path: Path, name: str):
    line, parts = BAD_LINES[name]
    # The blank line counts: lines are those a text editor shows.
    path = write(tmp_path, HEADER, ROWS[0], "", line, *ROWS[2:])
    message = refusal(path)
    for part in (str(path), "line 4", *parts):
        assert part in message, message


def test_the_first_bad_line_is_named_whatever_its_column(tmp_path: Path):
    bad = ["2025-09-15 09:31:00,1,2,1,-3,5", "2025-09-15 09:32:00,-4,2,1,1,5"]
    message = refusal(write(tmp_path, HEADER, ROWS[0], *bad))
    assert "line 3: close is -3" in message


def test_a_newest_first_file_is_recognised(tmp_path: Path):
    message = refusal(write(tmp_path, HEADER, *reversed(ROWS)))
    assert "line 3" in message and "newest first" in message


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("datetime,open,high,low,volume", ["close", "datetime, open, high, low, volume"]),
        ("open,high,low,close,volume", ["time", "datetime"]),
        ("datetime;open;high;low;close;volume", ["datetime;open"]),
        ("datetime,open,high,low,close,Close", ["several", "close"]),
    ],
)
def test_a_missing_or_doubled_column_is_named_with_those_found(
    tmp_path: Path, header: str, parts: list[str]
):
    message = refusal(write(tmp_path, header, *ROWS))
    for part in ("line 1", *parts):
        assert part in message


@pytest.mark.parametrize("time", ["09:30:00", "1757943000", "1757943000000"])
def test_times_without_a_date_and_epoch_numbers_are_refused(tmp_path: Path, time: str):
    message = refusal(write(tmp_path, HEADER, f"{time},1,2,1,1,5"))
    assert f"line 2: datetime is '{time}'" in message


def test_files_that_are_no_csv_are_refused_by_name(tmp_path: Path):
    whole = gzip.compress("\n".join([HEADER, *ROWS * 50]).encode())
    files = {
        "empty.csv": (b"", "is empty"),
        "blank.csv": (b"\n\n", "is empty"),
        "header.csv": (HEADER.encode(), "no bars"),
        "header_newline.csv": (HEADER.encode() + b"\n\n", "no bars"),
        "empty.csv.gz": (gzip.compress(b""), "is empty"),
        "truncated.csv.gz": (whole[: len(whole) * 6 // 10], "damaged gzip"),
        "flipped.csv.gz": (whole[:-8] + bytes(8), "damaged gzip"),
        "binary.csv": (bytes(range(256)) * 4, "not a text file"),
        "utf16.csv": (HEADER.encode("utf-16"), "not a text file"),
        "quote.csv": (f'{HEADER}\n{ROWS[0]}\n"{ROWS[1]}\n'.encode(), "line 3"),
    }
    for name, (content, part) in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        message = refusal(path)
        assert str(path) in message and part in message
    assert "is a directory" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "absent.csv")


def test_a_file_without_bars_in_session_hours_is_refused(tmp_path: Path):
    message = refusal(write(tmp_path, HEADER, "2025-09-15 16:00:00,1,1,1,1,1"))
    for part in ("1 bars", "09:30", "16:00", "America/New_York"):
        assert part in message


@pytest.mark.parametrize("clock", ["2025-11-02 01:30:00", "2025-03-09 02:30:00"])
def test_times_that_daylight_saving_repeats_or_skips_are_refused(tmp_path: Path, clock: str):
    path = write(tmp_path, HEADER, f"{clock},1,1,1,1,1")
    message = refusal(path)
    for part in (str(path), "line 2", clock, "America/New_York", "timezone"):
        assert part in message
    assert read(path, Market(timezone="UTC", calendar="24/7")).timestamps.size == 1


def test_two_bars_in_one_slot_are_refused(tmp_path: Path):
    message = refusal(write(tmp_path, HEADER, *ROWS), bar_seconds=300)
    assert "line 3" in message and "300" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timezone", "New York"),
        ("timezone", ""),
        ("bar_label", "middle"),
        ("calendar", "lunar"),
        ("session_open", "9.30"),
        ("session_close", "09:00"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path, key: str, value: str):
    message = refusal(write(tmp_path, HEADER, *ROWS), **{key: value})
    assert f"market.{key} is " in message and value in message


README_COUNTS = {  # bars, sessions and missing minutes as the data's own description has them
    "SPY": (49_885, 129, 82),
    "NVDA": (49_947, 129, 64),
    "IONQ": (49_165, 129, 791),
    "XLV": (46_040, None, 1_632),
}


@pytest.mark.parametrize("symbol", README_COUNTS)
def test_half_a_year_of_real_minutes_has_its_known_counts(symbol: str):
    bars_known, sessions_known, missing_known = README_COUNTS[symbol]
    source = read(shared(f"us_equity_1min_rth/{symbol}_1min.csv.gz"), Market())
    assert source.symbol == symbol
    assert source.bars.close.shape == source.timestamps.shape == (bars_known,)
    assert sessions_known in (None, source.bars.session[-1] + 1)
    assert f"{missing_known:,} minutes missing inside sessions" in source.notes
    assert source.bars.minute.min() == 0 and source.bars.minute.max() == 389
    first_of_session = np.flatnonzero(np.diff(source.bars.session, prepend=-1))
    assert (source.bars.minute[first_of_session] == 0).mean() > 0.9


def test_real_bars_equal_a_line_by_line_reading():
    path = shared("us_equity_1min_rth/SPY_1min.csv.gz")
    source = read(path, Market())
    with gzip.open(path, "rt") as file:
        lines = list(csv.DictReader(file))
    for name in ("open", "high", "low", "close", "volume"):
        expected = np.array([float(line[name]) for line in lines], np.float32)
        np.testing.assert_array_equal(getattr(source.bars, name), expected)
    clocks = [datetime.fromisoformat(line["datetime"]) for line in lines]
    minutes = [60 * clock.hour + clock.minute - 570 for clock in clocks]
    np.testing.assert_array_equal(source.bars.minute, minutes)
    dates = sorted({clock.date() for clock in clocks})
    np.testing.assert_array_equal(
        source.bars.session, np.searchsorted(dates, [clock.date() for clock in clocks])
    )


def test_pre_and_post_market_bars_of_a_real_file_are_left_out():
    source = read(shared("us_equity_1min_ext/SPY_1min.csv.gz"), Market())
    assert source.bars.close.size == 21 * 390
    assert source.bars.close.min() > 600  # the bad prints at 471 lie outside regular hours
    assert sum("dropped" in note for note in source.notes) == 2


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("truncated.csv.gz", ["damaged gzip"]),
        ("nan_rows.csv", ["line 102", "close"]),
        ("duplicated_timestamps.csv", ["line 53", "repeats"]),
        ("negative_price.csv", ["line 302", "low"]),
        ("missing_volume_column.csv", ["volume", "--adv"]),
        ("empty.csv", ["empty"]),
        ("cut_last_line.csv", ["line 1949"]),
        ("repeated_header.csv", ["line 976"]),
    ],
)
def test_damaged_real_files_are_refused_at_the_damage(name: str, parts: list[str]):
    path = shared(f"nasty/{name}")
    message = refusal(path, bar_label="end")
    for part in (name, *parts):
        assert part in message


def test_a_byte_order_mark_in_a_real_file_changes_nothing():
    market = Market(bar_label="end")
    clean = read(shared("nasty/clean.csv"), market)
    assert clean.bars.close.size == 1948
    assert_same_bars(read(shared("nasty/bom_crlf.csv"), market), clean)


def test_a_real_newest_first_file_is_recognised():
    path = shared("us_equity_1min_desc/AAPL_1min.csv")
    assert "newest first" in refusal(path, bar_label="end")


def test_a_real_index_without_volume_loads_only_with_an_average_daily_volume():
    path = shared("us_index_1min/SP500_NOV2019_IDay.csv")
    assert "--adv" in refusal(path)
    source = read(path, Market(adv=390e6))
    assert source.bars.close.size == 4 * 390
    np.testing.assert_array_equal(source.bars.volume, np.float32(1e6))
