"""Parquet to typed columns; a row's number takes the place of its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from jules_jax.errors import InputError
from jules_jax.market.readers.table import Head, Table


def head(path: Path) -> Head:
    """The column names of a Parquet file and its first rows as text."""
    try:
        file = pa.parquet.ParquetFile(path)
        if not file.metadata.num_rows:
            raise InputError(f"{path}: has columns but no bars, expected one bar a row.")
        first = next(file.iter_batches(batch_size=3))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged Parquet file ({error}), expected a whole one.") from None
    rows = tuple(tuple(str(value) for value in row.values()) for row in first.to_pylist())
    return Head(str(path), path, tuple(first.schema.names), rows)


def read(head: Head, types: Mapping[int, Any]) -> Table:
    """The columns at the positions in `types`, as its types; None leaves a column's own.

    Raises `InputError` naming the file and column where it is damaged or holds no numbers.
    """
    names = {position: head.header[position] for position in sorted(types)}
    try:
        table = pa.parquet.read_table(head.path, columns=list(names.values()))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{head.name}: damaged Parquet file ({error}), expected a whole one."
        ) from None
    columns = {}
    for position, name in names.items():
        column = table.column(name)
        try:
            columns[position] = (
                column.cast(types[position], safe=False) if types[position] else column
            )
        except pa.ArrowException:
            raise InputError(
                f"{head.name}: column {name!r} is of type {column.type}, expected numbers."
            ) from None
    return Table(head.name, columns, np.arange(1, table.num_rows + 1))
