"""CSV text to typed columns, at memory speed while it is sound and to the line where it is not.

`pyarrow.csv` parses the whole buffer. Lines that are no bars (repeated headers, a last line cut
short, blanks) are cut out first or counted after; when a parse fails, a slow pass finds the line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from jules_jax.errors import InputError
from jules_jax.market.readers.notes import NAMED, Note
from jules_jax.market.readers.raw import Int64
from jules_jax.market.readers.table import Head, Table

NULLS = ("", " ", "nan", "NaN", "NAN", "-nan", "null", "NULL", "None", "N/A", "NA", "n/a", "#N/A")
"""Spellings of a value that is not there."""

DATE = re.compile(r"\d{1,2}[/-]|\d{1,2}\.\d{1,2}\.|\d{4}[/.]\d{1,2}[/.]")
"""Begins of dates that the parser has no type for: it need not try them all."""

STRETCH = 20_000
"""Lines parsed at once in search of a bad one."""


def head(name: str, path: Path, data: bytes, *, whole: bool) -> Head:
    """The head of text that starts with `data`, or, where `whole`, is nothing else.

    Raises `InputError` where there is nothing in it, or a header and no row.
    """
    lines = data.decode("utf-8", errors="replace").split("\n")
    if not whole:
        lines = lines[:-1]  # where it was cut
    filled = [number for number, line in enumerate(lines) if line.strip()]
    if not filled:
        raise InputError(f"{name}: is empty, expected a header line and bars.")
    first = lines[filled[0]]
    delimiter = max(",;\t|", key=first.count)
    rows = [tuple(_fields(lines[number], delimiter)) for number in filled[:8]]
    count = 0 if any(_is_number(field) for field in rows[0]) else 1
    header = rows[0] if count else ()
    if [row[0] for row in rows[:2]] == ["Price", "Ticker"] and len(rows) > 2:
        # Three lines as yfinance writes them: names, tickers, the name of the time.
        header, count = (rows[2][0], *rows[0][1:]), 3
    if len(rows) == count:
        raise InputError(f"{name}: has a header but no bars, expected one bar a line.")
    header_lines = filled[count - 1] + 1 if count else 0
    return Head(name, path, header, tuple(rows[count:]), delimiter, header_lines)


def read(head: Head, data: bytes, types: Mapping[int, Any]) -> Table:
    """The columns at the positions in `types`, as its types; None lets the parser tell.

    Lines that are no bars are skipped, with notes: repeated headers, blanks, a last line cut short.
    Raises `InputError` naming the line of a row with too many or few fields, or of a value that is
    no number.
    """
    kind = "repeated header line{s} skipped"
    skipped = {kind: _repeated_headers(head, data)}
    if not data.endswith(b"\n"):
        cut = _is_cut(head, data, types)
        kind = "last line{s} cut short dropped" if cut else "last line{s} without a newline kept"
        skipped[kind] = [_line_count(data)]
    gone = [line for kind, found in skipped.items() if "kept" not in kind for line in found]
    spaces: list[int] = []
    try:
        table = _parse(head, _without(data, gone), types)
    except pa.ArrowInvalid as error:
        spaces = _lines_at(data, [at.start() for at in re.finditer(rb"(?m)^[ \t,;|]+\r?$", data)])
        if not spaces:
            _complain(head, data, types, gone, str(error))
        try:
            table = _parse(head, _without(data, gone + spaces), types)
        except pa.ArrowInvalid as error:
            _complain(head, data, types, gone, str(error))
    line, empty = _physical_lines(head, data, sorted(gone + spaces), table.num_rows)
    blank = np.logical_and.reduce([_is_blank(column) for column in table.columns])
    skipped["blank line{s} skipped"] = sorted([*spaces, *empty, *line[blank].tolist()])
    if blank.any():
        table, line = table.filter(pa.array(~blank)), line[~blank]
    if not table.num_rows:
        raise InputError(f"{head.name}: has a header but no bars, expected one bar a line.")
    if any(pa.types.is_binary(column.type) for column in table.columns):
        raise InputError(f"{head.name}: not a text file, expected a CSV of bars in UTF-8.")
    columns = dict(zip(sorted(types), table.columns, strict=True))
    notes = [
        Note(kind, len(found), tuple(f"{head.name}: line {line}" for line in found[:NAMED]))
        for kind, found in skipped.items()
    ]
    return Table(head.name, columns, line, tuple(note for note in notes if note.count))


def _parse(head: Head, data: bytes, types: Mapping[int, Any]) -> Any:
    """The wanted columns as an Arrow table; `pyarrow.ArrowInvalid` where a line is not sound."""
    start = 0
    for _ in range(head.header_lines):
        start = data.find(b"\n", start) + 1 or len(data)
    names = [str(position) for position in range(head.width)]
    first = dict(enumerate(head.rows[0]))
    known = {
        str(position): kind or pa.string()
        for position, kind in types.items()
        if kind or DATE.match(first.get(position, ""))
    }
    return pyarrow.csv.read_csv(
        pa.BufferReader(pa.py_buffer(data).slice(start)),
        read_options=pyarrow.csv.ReadOptions(column_names=names),
        parse_options=pyarrow.csv.ParseOptions(delimiter=head.delimiter),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=[str(position) for position in sorted(types)],
            column_types=known,
            null_values=list(NULLS),
        ),
    )


def _repeated_headers(head: Head, data: bytes) -> list[int]:
    """Lines equal to the header, where exports were joined."""
    first = data[: data.find(b"\n")].rstrip(b"\r")
    found = []
    at = data.find(b"\n" + first) if head.header_lines == 1 else -1
    while at >= 0:
        end = at + 1 + len(first)
        if data[end : end + 1] in (b"", b"\r", b"\n"):
            found.append(at + 1)
        at = data.find(b"\n" + first, end)
    return _lines_at(data, found)


def _is_cut(head: Head, data: bytes, types: Mapping[int, Any]) -> bool:
    """Whether the last line, which has no newline, stops before its row does.

    A number that was cut is mostly a number still: a row of all its fields is kept, unless its last
    field is blank, unlike the one before, or no number any more, or a shorter time.
    """
    end = data.rfind(b"\n")
    last = _fields(data[end + 1 :].decode(errors="replace"), head.delimiter)
    before = _fields(
        data[data.rfind(b"\n", 0, max(end, 0)) + 1 : end].decode(errors="replace"), head.delimiter
    )
    if len(last) < head.width or len(before) != len(last):
        return len(last) < head.width
    last_is_number = _is_number(last[-1]) or (last[-1] in NULLS and last[-1] != "")
    if _is_number(before[-1]) and not last_is_number:
        return True
    is_time = head.width - 1 in types and types[head.width - 1] != pa.float64()
    return is_time and len(last[-1]) < len(before[-1])


def _complain(
    head: Head, data: bytes, types: Mapping[int, Any], gone: Sequence[int], error: str
) -> NoReturn:
    """Raise on the first line that is no row of numbers; `error` is what the parser said.

    Stretches of lines that parse are passed over, so that only one is looked at field by field.
    """
    ends = [-1, *_line_ends(data).tolist(), len(data)]
    body = replace(head, header_lines=0)
    for first in range(head.header_lines, len(ends) - 1, STRETCH):
        last = min(first + STRETCH, len(ends) - 1)
        stretch = data[ends[first] + 1 : ends[last]]
        try:
            _parse(body, stretch, types)
        except pa.ArrowInvalid:
            lines = stretch.decode("utf-8", errors="replace").split("\n")
            for line, text in enumerate(lines, start=first + 1):
                if line not in gone and text.strip():
                    _require_row(head, types, line, text)
    raise InputError(f"{head.name}: not a CSV of bars: {error}.")


def _require_row(head: Head, types: Mapping[int, Any], line: int, text: str) -> None:
    """Raise unless a line has the fields of a row, and numbers where they are wanted."""
    fields = _fields(text, head.delimiter)
    if len(fields) != head.width:
        raise InputError(
            f"{head.name}: line {line}: has {len(fields)} fields, expected {head.width} as in the "
            "first line."
        )
    for position, kind in types.items():
        value = fields[position]
        if kind == pa.float64() and value not in NULLS and not _is_number(value):
            column = head.names[position] if head.header else f"field {position + 1}"
            raise InputError(f"{head.name}: line {line}: {column} is {value!r}, expected a number.")


def _without(data: bytes, lines: Sequence[int]) -> bytes:
    """`data` without some of its lines (1-based)."""
    if not lines:
        return data
    ends = _line_ends(data)
    pieces, start = [], 0
    for line in sorted(lines):
        pieces.append(data[start : ends[line - 2] + 1 if line > 1 else 0])
        start = int(ends[line - 1]) + 1 if line <= ends.size else len(data)
    return b"".join([*pieces, data[start:]])


def _physical_lines(
    head: Head, data: bytes, gone: Sequence[int], rows: int
) -> tuple[Int64, list[int]]:
    """The line of each row, and lines with nothing in them, which the parser left out."""
    line = np.arange(head.header_lines + 1, _line_count(data) + 1)
    line = np.delete(line, np.array(gone, np.int64) - line[0]) if gone else line
    if line.size == rows:
        return line, []
    ends = np.append(_line_ends(data), len(data))
    length = np.diff(ends, prepend=-1) - 1
    before_end = np.frombuffer(data + b"\n", np.uint8)[np.maximum(ends - 1, 0)]
    empty = (length == 0) | ((length == 1) & (before_end == ord("\r")))
    kept = line[~empty[line - 1]]
    if kept.size != rows:
        raise InputError(f"{head.name}: has line ends within quotes, expected one bar a line.")
    return kept, line[empty[line - 1]].tolist()


def _is_blank(column: Any) -> NDArray[np.bool_]:
    """Whether values `[B]` are missing."""
    if column.null_count == 0 and not pa.types.is_string(column.type):
        return np.zeros(len(column), bool)
    blank = column.is_null()
    if pa.types.is_string(column.type):
        blank = pc.or_kleene(blank, pc.equal(pc.utf8_trim_whitespace(column), ""))
    return np.asarray(blank.to_numpy(), bool)


def _line_count(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n"))


def _line_ends(data: bytes) -> Int64:
    return np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))


def _lines_at(data: bytes, offsets: Sequence[int]) -> list[int]:
    """The 1-based lines that bytes at `offsets` are in."""
    if not offsets:
        return []
    return [int(end) + 1 for end in np.searchsorted(_line_ends(data), np.array(offsets))]


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return line.split(delimiter)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text and "nan" not in text.lower()
