"""Which symbols are in a file, folder or glob, and in which files each is."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.readers import parquet, text
from jules_jax.market.readers.containers import HEAD_BYTES, Part, is_parquet, parts
from jules_jax.market.readers.containers import read as read_bytes
from jules_jax.market.readers.formats import recognise
from jules_jax.market.readers.layout import Format, Layout
from jules_jax.market.readers.table import Head, Table

SUFFIXES = (".csv", ".txt", ".tsv", ".gz", ".zip", ".zst", ".parquet", ".pq")
"""Names of files that are looked into in a folder."""

MOST_BYTES = 2**30
"""Parsed rows of files of several symbols that are kept while symbols are read, in bytes."""

_LENGTH = r"(?:\d+ ?(?:s|sec|m|min|mins|minute|minutes|h|hour|hours|d)|[MH]\d+|minute|hour)"
_DATE = r"(?:19|20)\d\d(?:[-_]?\d\d)*"
_REST = re.compile(rf"(?:^|[_\-. ])(?:{_LENGTH}|{_DATE}|ohlcv|bars)(?:[_\-. ].*)?$", re.IGNORECASE)
"""What follows the symbol in a file's name: a bar length, a date, and all after it."""

_HISTDATA = re.compile(r"DAT_[A-Z]+_([A-Z0-9]+)_", re.IGNORECASE)
_MT4 = re.compile(r"([A-Z]{6})(?:1|5|15|30|60|M1|M5|M15|M30|H1)")


@dataclass
class Split:
    """Files of several symbols, each parsed once and split by symbol, up to `MOST_BYTES`.

    Symbols are read one after the other, all files for each: of what is beyond the bytes nothing
    would be met again before it is dropped, so the first files are kept, and the others are parsed
    for every symbol.
    """

    kept: dict[str, tuple[Head, Format, Layout, dict[str, Table]]] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True)
class SymbolFiles:
    """The files that hold a symbol, all of one format; no row of them has been read.

    split: what symbols of the same files share while they are read.
    """

    symbol: str
    files: tuple[Path, ...]
    format: str
    split: Split = field(default_factory=Split, repr=False, compare=False)


def find(path: str, market: config.Market) -> list[SymbolFiles]:
    """The symbols in a file, a folder (with its folders) or a glob, sorted by name.

    A symbol is named by a column of the file, else by the file's name, else (`20131004_trade.zip`)
    by its folder; files of one name are one history. Raises `InputError` naming a file that is not
    of a known format, or two of one symbol in different formats.
    """
    found: dict[str, dict[Path, str]] = {}
    for file in _files(path):
        for part in parts(file):
            head = head_of(part)
            form, layout = recognise(head, market.format)
            for symbol in symbols(part, head, layout):
                found.setdefault(symbol, {})[file] = form.convention.name
    split = Split()
    return [_one_format(symbol, found[symbol], split) for symbol in sorted(found)]


def head_of(part: Part) -> Head:
    """The first lines of a part."""
    if is_parquet(part):
        return parquet.head(part.path)
    data = read_bytes(part, HEAD_BYTES)
    return text.head(part.name, part.path, data, whole=len(data) < HEAD_BYTES // 2)


def symbols(part: Part, head: Head, layout: Layout) -> list[str]:
    """The symbols in a part: those of its column, else the one of its name."""
    if layout.symbol is None:
        return [_named(part)]
    types = {layout.symbol: pa.string()}
    table = (
        parquet.read(head, types) if is_parquet(part) else text.read(head, read_bytes(part), types)
    )
    return sorted(filled_symbols(table, layout.symbol).unique().to_pylist())


def filled_symbols(table: Table, position: int) -> Any:
    """The column of symbols, none of which is blank."""
    column = pc.utf8_trim_whitespace(table.columns[position].fill_null(""))
    blank = pc.index(column, "").as_py()
    if blank >= 0:
        table.fail(blank, "the symbol is blank, expected one on every row")
    return column


def by_symbol(table: Table, position: int) -> dict[str, Table]:
    """The rows of each symbol, in their order; `position` is that of the column of symbols."""
    names = filled_symbols(table, position).combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(names.dictionary)), side="right")
    columns = {at: column.take(pa.array(order)) for at, column in table.columns.items()}
    line, starts = table.line[order], [0, *ends[:-1].tolist()]
    return {
        symbol: replace(
            table,
            columns={at: column.slice(start, end - start) for at, column in columns.items()},
            line=line[start:end],
        )
        for symbol, start, end in zip(
            names.dictionary.to_pylist(), starts, ends.tolist(), strict=True
        )
    }


def _files(path: str) -> list[Path]:
    given = Path(path).expanduser()
    if given.exists():
        tops = [given]
    elif any(mark in path for mark in "*?["):
        tops = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
    else:
        raise InputError(f"{path}: no such file or folder, expected bars.")
    files = [file for top in tops for file in (_inside(top) if top.is_dir() else [top])]
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise InputError(f"{path}: no files of bars there, expected names that end in {kinds}.")
    return sorted(set(files))


def _inside(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(name.startswith(".") for name in file.relative_to(folder).parts)
    ]


def _one_format(symbol: str, files: dict[Path, str], split: Split) -> SymbolFiles:
    (first, form), *rest = files.items()
    for file, other in rest:
        if other != form:
            raise InputError(
                f"{file}: {symbol} in the format {other}, and in {first} in the format {form}, "
                "expected one for all files of a symbol."
            )
    return SymbolFiles(symbol, tuple(files), form, split)


def _named(part: Part) -> str:
    """The symbol in a name: of the member where a zip has several, of the file, of its folder."""
    several = part.name != str(part.path)
    names = [Path(part.member).name] if several else []
    for name in [*names, part.path.name]:
        stem = re.sub(r"(\.(csv|txt|tsv|gz|zip|zst|parquet|pq))+$", "", name, flags=re.IGNORECASE)
        known = _HISTDATA.match(stem) or _MT4.fullmatch(stem)
        if symbol := known[1] if known else _REST.sub("", stem):
            return symbol
    return part.path.absolute().parent.name.upper()
