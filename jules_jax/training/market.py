"""The training market: what lanes trade while an agent learns."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.market import dataset, readers, storage
from jules_jax.market.dataset import Dataset
from jules_jax.market.dataset_feed import DatasetFeed
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.table import MarketData

MARKET_KEY = 0
"""Folded into the seed's key for the draws of simulated paths, and of blocks of a dataset."""


class Market:
    """Generations of simulated paths or of a dataset, or a dataset as a whole where it fits.

    `data` is what is resident now. `generation` is the newer resident one: a resumed run passes the
    number that it had. `recorded` is the dataset, None for simulated paths; `fingerprint` has the
    SHA-256 of its files, or of a built dataset's symbols, by name.
    """

    def __init__(self, settings: config.Config, *, generation: int = 0) -> None:
        self._key = jax.random.fold_in(jax.random.key(settings.seed), MARKET_KEY)
        self._refresh_updates = settings.refresh_updates
        self.generation = generation
        self._feed: SimulatedFeed | DatasetFeed | None
        self.notes: tuple[str, ...] = ()
        recorded = None
        if settings.market.data:
            recorded = dataset.load(settings)
            self.notes = (*recorded.notes, *recorded.plan("train").notes)
            self._feed = recorded.feed("train")
        else:
            self._feed = SimulatedFeed(settings)
        self.recorded = recorded
        self.fingerprint = fingerprint(settings.market) if recorded else {}
        self._times: tuple[int, NDArray[np.int64]] | None = None
        self.data: MarketData
        if self._feed is not None:
            self.notes += self._feed.notes
            self.data = self._feed.resident(self._key, generation)
        elif recorded:
            self.data = recorded.market("train")

    def refresh(self, update: int) -> bool:
        """Brings in the next generation where one is due before `update` (from 0)."""
        if self._feed is None or update == 0 or update % self._refresh_updates:
            return False
        self.generation += 1
        self.data = self._feed.advance(self.data, self._key, self.generation)
        return True

    def times(self) -> NDArray[np.int64] | None:
        """When the bars of the table begin, `[R]`, UTC nanoseconds; None of simulated paths."""
        if self.recorded is None:
            return None
        if self._times is None or self._times[0] != self.generation:
            self._times = self.generation, self._times_of(self.recorded)
        return self._times[1]

    def _times_of(self, recorded: Dataset) -> NDArray[np.int64]:
        if isinstance(self._feed, DatasetFeed):
            sources = recorded.sources
            return self._feed.times(self._key, self.generation, lambda n: sources[n].time)
        return recorded.times("train")


def fingerprint(market: config.Market) -> dict[str, str]:
    """SHA-256 of everything that bars and terms are read from, by name."""
    named: dict[str, Path] = {}
    if not storage.is_dataset(market.data):
        files = sorted({file for one in readers.find(market.data, market) for file in one.files})
        common = os.path.commonpath([file.parent for file in files])
        named = {str(file.relative_to(common)): file for file in files}
    if market.symbols:
        named["market.symbols"] = Path(market.symbols)
    digests = storage.fingerprint(market.data) if storage.is_dataset(market.data) else {}
    for name, file in named.items():
        with file.open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests
