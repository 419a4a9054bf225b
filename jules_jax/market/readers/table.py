"""The head of a file, which tells its format, and its columns: what CSV and Parquet share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jules_jax.errors import InputError
from jules_jax.market.readers.notes import Note
from jules_jax.market.readers.raw import Int64

Column = Any
"""A `pyarrow.ChunkedArray`."""


@dataclass(frozen=True)
class Head:
    """The first lines of a file.

    name: in messages. path: of the file. header: its column names as written, empty where the
    first line is a bar. names: the same in lower case, words joined by `_`. rows: the first bars,
    as text. delimiter: of fields; empty for Parquet. header_lines: physical lines before the
    first bar. width: fields in a row.
    """

    name: str
    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    delimiter: str = ""
    header_lines: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in lower case, words joined by `_`: `Gmt time` is `gmt_time`."""
        return tuple(re.sub(r"\W+", "_", name.lower()).strip("_") for name in self.header)

    @property
    def width(self) -> int:
        """Fields in a row."""
        return len(self.header or self.rows[0])


@dataclass(frozen=True)
class Table:
    """Columns of a file by position, their physical lines `[B]` (1-based) and what was skipped."""

    name: str
    columns: dict[int, Column]
    line: Int64
    notes: tuple[Note, ...] = ()

    def fail(self, row: int, sentence: str) -> NoReturn:
        """Raise `InputError` about one row."""
        raise InputError(f"{self.name}: line {self.line[row]}: {sentence}.")
