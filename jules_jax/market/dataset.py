"""A dataset: recorded bars of one or many symbols, split by sessions, ready to be traded.

`market.data` is files of bars or a built dataset (`storage`); both become the same table. A split
that fits in `market.market_memory` is resident as a whole (`Dataset.market`); training on a larger
one is served in generations (`Dataset.feed`) from table rows that are computed once and kept beside
the built dataset's columns.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jules_jax.config import Config, Market
from jules_jax.errors import InputError
from jules_jax.market import (
    features,
    feed,
    instruments,
    liquidity,
    readers,
    rows,
    source,
    splits,
    storage,
    table,
)
from jules_jax.market.bars import Bars
from jules_jax.market.dataset_feed import GIB, ROW_BYTES, DatasetFeed, SymbolRows
from jules_jax.market.instruments import Instrument
from jules_jax.market.source import Source
from jules_jax.market.splits import Split
from jules_jax.market.table import MarketData

Item = TypeVar("Item")

TOLD_IN_FULL, TOLD = 3, 10
"""Symbols of which all notes are told; of more, so many get one sentence each."""


@dataclass(frozen=True)
class Dataset:
    """Bars of the symbols of `market.data` under one configuration.

    sources: one per symbol; a symbol's number in `MarketData.episodes` is its place here. folders:
    of the symbols, in a built dataset; None for files. remarks: sentences about none of them.
    """

    sources: tuple[Source, ...]
    config: Config
    folders: tuple[Path, ...] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read, assumed, repaired and dropped, one sentence each.

        Of more than `TOLD_IN_FULL` symbols it is the first sentence on each of the first few.
        """
        if len(self.sources) <= TOLD_IN_FULL:
            return (*(note for one in self.sources for note in one.notes), *self.remarks)
        further = len(self.sources) - TOLD
        return (
            *(one.notes[0] for one in self.sources[:TOLD]),
            *([f"and {further:,} more symbols"] if further > 0 else []),
            f"{sum(len(one.notes) - 1 for one in self.sources):,} further notes: see data check, "
            f"or {storage.MANIFEST} of a built dataset",
            *self.remarks,
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbols."""
        return tuple(one.symbol for one in self.sources)

    def one(self, symbol: str | None = None) -> Source:
        """The source of one symbol, which needs no name where there is no other."""
        found = [one for one in self.sources if symbol in (None, one.symbol)]
        if len(found) != 1:
            wanted = f"one of them named, not {symbol}" if symbol else "one of them named"
            raise InputError(
                f"{self.config.market.data} has {len(self.sources)} symbols, "
                f"{', '.join(self.symbols[:10])}, expected {wanted}"
            )
        return found[0]

    def plan(self, split: Split) -> splits.Plan:
        """Where episodes of `split` may start; raises `InputError` where none of them fits."""
        return splits.require(split, self.histories, self.config)

    @cached_property
    def histories(self) -> list[splits.History]:
        """Where the sessions of each symbol lie."""
        return [splits.history(one.symbol, one.bars, one.time) for one in self.sources]

    def market(self, split: Split) -> MarketData:
        """The market whose episodes start and end inside `split`, resident as a whole.

        Its table holds the rows that such episodes can read, symbol after symbol; what they hold
        was computed from each symbol's whole history before them.

        Raises `InputError` where the split is too short for one episode, or too large for
        `market.market_memory`.
        """
        listed = self._listed(split)
        if not self._fits(listed):
            raise InputError(
                f"market.market_memory is {self.config.market.market_memory:g} GiB, expected at "
                f"least {self._gib(listed):.2g} for the {split} split, which is not served in "
                "generations"
            )
        steps, parts, starts = self.config.max_steps_in_episode, [], []
        for number, own in _watched(self._rows(split), "features"):
            parts.append(np.array(self.rows_of(number)[own]))
            starts.append((number, 0, own.stop - own.start - 1 - steps))
        density = self._densities(listed)
        return feed.resident_market(parts, starts, density, self.sources[0].bars.bar_seconds)

    def times(self, split: Split) -> NDArray[np.int64]:
        """When the bars of the table of `market(split)` begin, `[R]`, UTC nanoseconds."""
        parts = [self.sources[number].time[own] for number, own in self._rows(split)]
        return np.concatenate(parts).astype(np.int64)

    def dates(self, split: Split) -> splits.Dates:
        """Dates of the sessions that the rows of `market(split)` are in, `[R]`."""
        parts = []
        for number, own in self._rows(split):
            history, places = self.histories[number], np.arange(own.start, own.stop)
            parts.append(history.dates[np.searchsorted(history.edges, places, side="right") - 1])
        return np.concatenate(parts)

    def _rows(self, split: Split) -> list[tuple[int, slice]]:
        """Of each symbol in the table of `market(split)`: which of its rows are there."""
        steps = self.config.max_steps_in_episode
        return [
            (number, slice(first, last + steps + 1))
            for number, (first, last) in self._listed(split)
        ]

    def feed(self, split: Split) -> DatasetFeed | None:
        """Generations of a `split` larger than `market.market_memory`; None where it fits.

        The first call computes the table rows of every symbol and keeps them beside its columns.

        Raises `InputError` where the split is too short for one episode or the rows cannot be kept.
        """
        listed = self._listed(split)
        if self._fits(listed):
            return None
        if self.folders is None:
            raise _too_large(self.config.market, self._gib(listed))
        density = self._densities(listed)
        symbols = [
            SymbolRows(number, self.rows_of(number, keep=True), starts, float(density[place]))
            for place, (number, starts) in enumerate(_watched(listed, "features"))
        ]
        return DatasetFeed(tuple(symbols), self.config, self.sources[0].bars.bar_seconds)

    def rows_of(self, number: int, *, keep: bool = False) -> rows.Rows:
        """Table rows `[B, C]` of a symbol's whole history: kept ones, else computed.

        Args:
          number: of the symbol.
          keep: whether rows that are computed are written beside the columns, and mapped.
        """
        one = self.sources[number]
        terms = rows.terms(one.bars, one.instrument, self.config)
        if self.folders is None:
            return rows.compute(one.bars, terms, self.config.features)
        file = self.folders[number] / f"rows-{self._fingerprint(one.bars, terms)}.npy"
        shape = (len(one.bars.close), table.NUM_COLUMNS)
        found = storage.cached_rows(file, shape)
        if found is None:
            found = rows.compute(one.bars, terms, self.config.features)
            if keep:
                storage.cache_rows(file, found)
                found = storage.cached_rows(file, shape)
                assert found is not None
        return found

    def _fingerprint(self, bars: Bars, terms: rows.Terms) -> str:
        """Of everything that kept rows depend on besides the columns beside them."""
        code = [Path(str(module.__file__)).read_bytes() for module in (features, liquidity, table)]
        depends = [dataclasses.asdict(self.config.features), terms, bars.bar_seconds]
        depends += [jax.__version__, *(hashlib.sha256(text).hexdigest() for text in code)]
        return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]

    def _listed(self, split: Split) -> list[tuple[int, splits.Range]]:
        """Number and first and last start of each symbol that has room for an episode."""
        ranges = self.plan(split).ranges
        return [(number, found) for number, found in enumerate(ranges) if found is not None]

    def _densities(self, listed: Sequence[tuple[int, splits.Range]]) -> np.ndarray:
        weights = [self.sources[number].instrument.weight or 1.0 for number, _ in listed]
        starts = [last - first + 1 for _, (first, last) in listed]
        return feed.densities(starts, weights, self.config.market)

    def _gib(self, listed: Sequence[tuple[int, splits.Range]]) -> float:
        steps = self.config.max_steps_in_episode
        return sum(last - first + 1 + steps for _, (first, last) in listed) * ROW_BYTES / GIB

    def _fits(self, listed: Sequence[tuple[int, splits.Range]]) -> bool:
        return self._gib(listed) <= self.config.market.market_memory


def load(config: Config) -> Dataset:
    """The dataset at `market.data`: a built one is mapped, files are read.

    Raises `InputError` where it cannot be read or is not sound, bars differ in length, or files
    hold more than `market.market_memory`.
    """
    market, folders = config.market, None
    given = instruments.read(market.symbols)
    if storage.is_dataset(market.data):
        manifest = storage.read_manifest(market.data)
        _require_same_options(manifest, market)
        folders = tuple(Path(market.data) / entry.folder for entry in manifest.symbols)
        stored = storage.open_dataset(market.data)
        sources = [_with_terms(one, market, given.get(one.symbol)) for one in stored]
    else:
        sources, gib = [], 0.0
        for found in _watched(readers.find(market.data, market), "read"):
            sources.append(source.load(found, market, given))
            gib += len(sources[-1].bars.close) * ROW_BYTES / GIB
            if gib > market.market_memory:
                raise _too_large(market, gib)
    _require_one_length(sources)
    remarks = instruments.unused(market.symbols, given, [one.symbol for one in sources])
    return Dataset(tuple(sources), config, folders, tuple(remarks))


def _watched(items: Sequence[Item], what: str) -> Iterable[Item]:
    """`items`, with a progress bar on a terminal once they have taken some seconds."""
    bar: Iterable[Item] = tqdm(items, what, unit=" symbols", delay=2, leave=False, disable=None)
    return bar


def _too_large(market: Market, gib: float) -> InputError:
    return InputError(
        f"{market.data}: the table of these bars takes {gib:.2g} GiB or more, expected at most "
        f"market.market_memory, {market.market_memory:g}: build a dataset, which is served in "
        f"generations (python -m jules_jax.data build {market.data} --out DIR), and train on DIR"
    )


def _require_one_length(sources: Sequence[Source]) -> None:
    """Raises `InputError` where the bars of two symbols differ in length: a table has one."""
    first = sources[0]
    for other in sources[1:]:
        if other.bars.bar_seconds != first.bars.bar_seconds:
            raise InputError(
                f"market.data: bars of {first.symbol} are {first.bars.bar_seconds} s and those of "
                f"{other.symbol} {other.bars.bar_seconds} s long, expected one length for all"
            )


def _require_same_options(manifest: storage.Manifest, market: Market) -> None:
    """Raises `InputError` where an option is set to something else than the dataset has."""
    default = Market()
    for name in storage.OF_READING:
        value, built = getattr(market, name), manifest.options.get(name)
        if value not in (getattr(default, name), built) and name not in storage.OF_TRADING:
            raise InputError(
                f"market.{name} is {value!r}, but {market.data} was built with {built!r}, expected "
                "that or a dataset built anew"
            )


def _with_terms(stored: Source, market: Market, given: Instrument | None) -> Source:
    """A stored symbol under the run's own tick, quantity step and weight, where these are set."""
    own = stored.instrument
    changes = {
        name: (given and getattr(given, name)) or getattr(market, name, None) or getattr(own, name)
        for name in (*storage.OF_TRADING, "weight")
    }
    for name in ("spread_bps", "adv", "calendar"):
        value, built = given and getattr(given, name), getattr(own, name)
        if value and value != built:
            raise InputError(
                f"{market.symbols}: {name} of {stored.symbol} is {value!r}, but {market.data} was "
                f"built with {built!r}, expected that or a dataset built anew"
            )
    return dataclasses.replace(stored, instrument=dataclasses.replace(own, **changes))
