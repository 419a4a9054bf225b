"""Damaged text: what is skipped and told, and what is refused with file and line."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jules_jax.errors import InputError

HEADER = "datetime,open,high,low,close,volume\n"
ROWS = [
    f"2024-01-02 09:{minute:02d}:00,1.5,2,1,1.{minute},{minute}00\n" for minute in range(30, 40)
]
CLEAN = HEADER + "".join(ROWS)


def joined(*rows):
    return HEADER + "".join(rows)


def test_a_clean_file_has_no_notes_and_its_lines_are_physical(files):
    bars = files.read_text(CLEAN)
    assert bars.notes == () and bars.line.tolist() == list(range(2, 12))
    assert bars.where(0) == f"{files.folder / 'SPY.csv'}: line 2"


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbf" + CLEAN.encode(), CLEAN.replace("\n", "\r\n").encode(),
     CLEAN.replace("\n", "\r").encode(), CLEAN.encode("utf-16"), CLEAN.replace(",", ", ").encode(),
     CLEAN.replace(",", ";").encode(), CLEAN.replace(",", "\t").encode(),
     CLEAN.replace("\n", ',"x, y"\n').encode()],
    ids=["BOM", "CRLF", "CR", "UTF-16", "spaces", "semicolons", "tabs", "quotes"],
)  # fmt: skip
def test_ways_of_writing_the_same_give_the_same_bars(files, data):
    bars, clean = files.read_text(data), files.read_text(CLEAN)
    for name in ("time", "open", "high", "low", "close", "volume", "line"):
        np.testing.assert_array_equal(getattr(bars, name), getattr(clean, name))


@pytest.mark.parametrize("blank", ["\n", "\r\n", "   \n", "\t\r\n", ",,,,,\n", " , ,,,,\n"])
def test_blank_lines_are_skipped_counted_and_named(files, blank):
    bars = files.read_text(joined(ROWS[0], blank, ROWS[1], blank, blank, *ROWS[2:]))
    assert bars.line.tolist() == [2, 4, *range(7, 15)]
    path = files.folder / "SPY.csv"
    places = ", ".join(f"{path}: line {line}" for line in (3, 5, 6))
    assert bars.notes == (f"3 blank lines skipped ({places})",)


def test_a_blank_line_before_the_header_counts_as_a_line(files):
    assert files.read_text("\n" + CLEAN).line[0] == 3


def test_repeated_headers_are_skipped(files):
    bars = files.read_text(joined(*ROWS[:4], HEADER, *ROWS[4:], HEADER))
    assert bars.line.tolist() == [2, 3, 4, 5, *range(7, 13)]
    assert "2 repeated header lines skipped" in bars.notes[0] and "line 6" in bars.notes[0]


@pytest.mark.parametrize(
    "end",
    ["2024-01-02 09:4", "2024-01-02 09:40:00,1,1,1", "2024-01-02 09:40:00,1,1,1,1",
     "2024-01-02 09:40:00,1,1,1,1,", "2024-01-02 09:40:00,1,1,1,1,-"],
)  # fmt: skip
def test_a_last_line_cut_short_is_dropped_and_told(files, end):
    bars = files.read_text(CLEAN + end)
    assert bars.time.size == 10
    assert "1 last line cut short dropped" in bars.notes[0] and "line 12" in bars.notes[0]


def test_a_time_cut_short_at_the_end_of_a_line_is_dropped(files):
    text = "open,high,low,close,datetime\n" + "1,1,1,1,2024-01-02 09:30:00\n" * 3
    assert files.read_text(text + "1,1,1,1,2024-01-02 09:31").time.size == 3


def test_a_whole_last_row_without_a_newline_is_kept_and_told(files):
    bars = files.read_text(CLEAN[:-1])
    assert bars.time.size == 10 and bars.volume[-1] == 3900
    assert "1 last line without a newline kept" in bars.notes[0]


def test_blanks_and_nans_are_nan_wherever_they_are(files):
    bars = files.read_text(
        joined("2024-01-02 09:30:00,,2,nan,NaN,\n", "2024-01-02 09:31:00,,,,,\n", *ROWS[2:])
    )
    assert bars.line.tolist() == list(range(2, 12)) and bars.notes == ()
    row = [column[0] for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)]
    np.testing.assert_array_equal(row, [np.nan, 2, np.nan, np.nan, np.nan])
    assert np.isnan(bars.open[1])


def test_newest_first_rows_stay_in_the_order_of_the_file(files):
    bars = files.read_text(joined(*ROWS[::-1]))
    assert (np.diff(bars.time) == -60_000_000_000).all() and bars.line[0] == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"is empty, expected a header line and bars"),
        ("\n \n", r"is empty"),
        (HEADER, r"has a header but no bars"),
        (HEADER + ",,,,,\n", r"has a header but no bars"),
        ("hello\nworld\n", r"line 1: no column time \(such as .*\), open, high, low, close; found"),
        ("datetime,open,high,low,volume\n1,1,1,1,1\n", r"line 1: no column close; found 'datetime"),
        (CLEAN.replace("close", "open"), r"line 1: several columns 'open', expected one"),
        ("1,2,3\n4,5,6\n", r"line 1: a row without a header and of no known format, '1, 2, 3'"),
        (joined(ROWS[0], "\n", "2024-01-02,1,2\n", *ROWS), r"line 4: has 3 fields, expected 6"),
        (joined(ROWS[0], ROWS[1][:-1] + ",9\n", *ROWS), r"line 3: has 7 fields, expected 6"),
        (CLEAN.replace("1.35", "1.3x"), r"line 7: close is '1.3x', expected a number"),
        (CLEAN.replace("1.35", '"1,000"'), r"line 7: close is '1,000', expected a number"),
        (CLEAN.replace("02 09:35:00", "02 09:95:00"), r"line 7: the time is '2024-01-02 09:95:00'"),
        (CLEAN.replace("2024-01-02 09:35:00", ""), r"line 7: the time is blank, expected"),
        (CLEAN.replace("2024-01-02 ", ""), r"line 2: the time is '09:30:00', expected a date and"),
        (CLEAN.replace("02 09:35", "02 é09:35").encode("latin-1"), r"not a text file"),
        (CLEAN.encode()[:99] + b"\0" * 9, r"not a text file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_sentence(files, text, sentence):
    with pytest.raises(InputError, match=rf"^{files.folder / 'SPY.csv'}: {sentence}") as error:
        files.read_text(text)
    assert "\n" not in str(error.value)


def test_a_bad_value_deep_in_a_long_file_is_found(files):
    rows = ROWS * 5000
    with pytest.raises(InputError, match=r"line 45005: open is 'x', expected a number"):
        files.read_text(joined(*rows[:45_003], "2024-01-02 10:00:00,x,1,1,1,1\n", *rows[45_003:]))


def test_a_damaged_container_is_refused(files):
    whole = gzip.compress(CLEAN.encode())
    (files.folder / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.csv\.gz: damaged gzip"):
        files.read(files.folder / "a.csv.gz")
    archive = files.zip("b.zip", {"b.csv": CLEAN})
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"b\.zip: damaged zip"):
        files.read(archive)
    with pytest.raises(InputError, match=r"c\.parquet: damaged Parquet"):
        files.read(files.write("c.parquet", b"PAR1 and no more"))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kinds=st.lists(st.sampled_from(["row", "row", "empty", "blank", "header"]), min_size=1))
def test_every_row_is_found_on_its_own_line(files, kinds):
    lines = {"empty": "", "blank": ",,,,,", "header": HEADER.strip()}
    text, expected = [HEADER.strip(), ROWS[0].strip()], [2]
    for kind in kinds:
        text.append(lines.get(kind, f"2024-01-02 10:00:00,{len(text)},9,9,9,9"))
        if kind == "row":
            expected.append(len(text))
    bars = files.read_text("\n".join(text) + "\n")
    assert bars.line.tolist() == expected
    assert bars.open[1:].tolist() == [line - 1 for line in expected[1:]]


def test_numbers_are_parsed_to_the_last_bit(files):
    values = np.random.default_rng(0).lognormal(size=(200, 4))
    times = pd.date_range("2024-01-02 09:30", periods=200, freq="min")
    frame = pd.DataFrame(values, columns=["open", "high", "low", "close"]).assign(datetime=times)
    bars = files.read_text(frame.to_csv(index=False))
    np.testing.assert_array_equal(bars.close, values[:, 3])
