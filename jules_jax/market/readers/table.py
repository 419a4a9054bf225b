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
    first line is a bar. rows: the first bars, as text. delimiter: of fields; empty for Parquet.
    header_lines: physical lines before the first bar.
    """

    name: str
    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    delimiter: str = ""
    header_lines: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in lower case, words joined by `_`: `gmt_time` of `Gmt time`, `gmtTime`."""
        spaced = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name) for name in self.header)
        return tuple(re.sub(r"[\W_]+", "_", name.lower()).strip("_") for name in spaced)

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
