"""All rows of one symbol, from all of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.readers import parquet, text, times
from jules_jax.market.readers.containers import Part, is_parquet, parts
from jules_jax.market.readers.containers import read as read_bytes
from jules_jax.market.readers.formats import recognise
from jules_jax.market.readers.layout import PRICES, Format, Layout
from jules_jax.market.readers.notes import Note, sentences
from jules_jax.market.readers.raw import Float64, RawBars
from jules_jax.market.readers.symbols import (
    MOST_BYTES,
    SymbolFiles,
    by_symbol,
    head_of,
    symbols,
)
from jules_jax.market.readers.table import Head, Table


def read_symbol(found: SymbolFiles, market: config.Market) -> RawBars:
    """All rows of one symbol, its files in time order and each in its own; nothing is repaired.

    Naive times are wall-clock times in `market.timezone`, else in the format's own zone; those with
    an offset, epoch numbers and `timestamp_utc` are exact. Labels are left as written. Raises
    `InputError` naming the file and line of what cannot be read.
    """
    pieces: list[RawBars] = []
    quotes: list[RawBars] = []
    notes: list[Note] = []
    for file in found.files:
        for part in parts(file):
            opened = _open(part, found, market)
            if opened is None:
                continue  # another member of the same zip
            head, form, layout, table = opened
            notes += table.notes
            bars, new = _bars(part, head, form, layout, table, found.symbol, market)
            notes += new
            if bars.time.size:
                (pieces if "open" in layout.numbers else quotes).append(bars)
    if not pieces:
        files = ", ".join(str(file) for file in found.files[:3])
        raise InputError(f"{files}: no bars of {found.symbol}, expected some.")
    bars = _joined(_in_time_order(pieces))
    if quotes:
        bars = replace(bars, half_spread=_matched(bars, _joined(quotes)))
    told = (*sentences(notes), *_overlaps(pieces))
    return replace(bars, notes=tuple(dict.fromkeys((*bars.notes, *told))))


def _open(
    part: Part, found: SymbolFiles, market: config.Market
) -> tuple[Head, Format, Layout, Table] | None:
    """The rows of one symbol in one file; None where the file is of another.

    A file of several symbols is parsed and split once for all of them, within `MOST_BYTES`.
    """
    kept = found.split.kept.get(part.name)
    if kept is not None:
        head, form, layout, tables = kept
        return (head, form, layout, tables[found.symbol]) if found.symbol in tables else None
    head = head_of(part)
    form, layout = recognise(head, market.format)
    if layout.symbol is None:
        if found.symbol not in symbols(part, head, layout):
            return None
        return head, form, layout, _parse(part, head, layout)
    table = _parse(part, head, layout)
    tables = by_symbol(table, layout.symbol)
    size = table.line.nbytes + sum(column.nbytes for column in table.columns.values())
    if len(tables) > 1 and found.split.bytes + size <= MOST_BYTES:
        found.split.kept[part.name] = (head, form, layout, tables)
        found.split.bytes += size
    return (head, form, layout, tables[found.symbol]) if found.symbol in tables else None


def _parse(part: Part, head: Head, layout: Layout) -> Table:
    """All rows of a file."""
    types: dict[int, Any] = dict.fromkeys(layout.numbers.values(), pa.float64())
    types |= dict.fromkeys(layout.time, pa.string() if len(layout.time) == 2 else None)
    if layout.symbol is not None:
        types[layout.symbol] = pa.string()
    if is_parquet(part):
        return parquet.read(head, types)
    return text.read(head, read_bytes(part), types)


def _bars(
    part: Part,
    head: Head,
    form: Format,
    layout: Layout,
    table: Table,
    symbol: str,
    market: config.Market,
) -> tuple[RawBars, list[Note]]:
    """A symbol's rows of one file as bars, and what was assumed about their times."""
    zone = "UTC" if layout.utc else market.timezone or form.convention.timezone
    time, naive_in, assumed = times.utc(table, layout.time, zone=zone, date=layout.date)
    numbers = {role: _numbers(table, at) for role, at in layout.numbers.items()}
    blank = np.full(time.shape, np.nan)
    bars = RawBars(
        symbol=symbol,
        files=(part.name,),
        file=np.zeros(time.shape, np.int32),
        line=table.line,
        time=time,
        **{name: numbers.get(name, blank) for name in PRICES},
        volume=numbers.get("volume"),
        signed_volume=None,
        half_spread=None,
        convention=form.convention,
        naive_in="" if layout.utc else naive_in,
        notes=layout.notes,
    )
    return form.finish(bars, numbers, head), assumed


def _numbers(table: Table, position: int) -> Float64:
    values = table.columns[position].to_numpy()  # nulls become NaN
    return np.require(values, np.float64, "W")


def _in_time_order(pieces: list[RawBars]) -> list[RawBars]:
    """Files by their first time; the last first where their rows are newest first too."""
    pieces.sort(key=lambda bars: int(bars.time.min()))
    newest_first = sum(bars.time.size > 1 and bars.time[0] > bars.time[-1] for bars in pieces)
    return pieces[::-1] if newest_first > len(pieces) / 2 else pieces


def _joined(pieces: list[RawBars]) -> RawBars:
    """Rows of several files one after the other; what only some have is NaN in the others."""
    if len(pieces) == 1:
        return pieces[0]

    def column(name: str) -> Any:
        values: list[Any] = [getattr(bars, name) for bars in pieces]
        if all(value is None for value in values):
            return None
        return np.concatenate(
            [
                np.full(bars.time.shape, np.nan) if value is None else value
                for bars, value in zip(pieces, values, strict=True)
            ]
        )

    names = ("line", "time", *PRICES, "volume", "signed_volume", "half_spread")
    arrays: Mapping[str, Any] = {name: column(name) for name in names}
    return replace(
        pieces[0],
        files=tuple(bars.files[0] for bars in pieces),
        file=np.repeat(np.arange(len(pieces), dtype=np.int32), [b.time.size for b in pieces]),
        notes=tuple(note for bars in pieces for note in bars.notes),
        **arrays,
    )


def _matched(bars: RawBars, quotes: RawBars) -> Float64:
    """Half spreads of quotes at the times of bars, NaN where a bar has none."""
    assert quotes.half_spread is not None
    order = np.argsort(quotes.time, kind="stable")
    times_ = quotes.time[order]
    at = np.minimum(np.searchsorted(times_, bars.time), times_.size - 1)
    return np.where(times_[at] == bars.time, quotes.half_spread[order][at], np.nan)


def _overlaps(pieces: list[RawBars]) -> tuple[str, ...]:
    """Tells the first two files that overlap in time."""
    ordered = sorted(pieces, key=lambda bars: int(bars.time.min()))
    for before, after in pairwise(ordered):
        if after.time.min() <= before.time.max():
            return (f"{before.files[0]} and {after.files[0]} overlap in time",)
    return ()
