"""The training market: what lanes trade while an agent learns."""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.agent.devices import spread
from jules_jax.agent.learner import LANE, specs_of
from jules_jax.env.params import EnvParams
from jules_jax.market import dataset, readers, storage
from jules_jax.market.dataset import Dataset
from jules_jax.market.dataset_feed import DatasetFeed
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.table import MarketData

MARKET_KEY = 0
"""Folded into the seed's key for the draws of simulated paths, and of blocks of a dataset."""


class Market:
    """Generations of simulated paths or of a dataset, or a dataset as a whole where it fits.

    `data` is what is resident now. A market in parts (`market.sharded`) has one for every device
    that lanes are spread over, each with paths of its own; `data` is the first of this process.
    `generation` is the newer resident one: a resumed run passes the number that it had. `recorded`
    is the dataset, None for simulated paths; `fingerprint` has the SHA-256 of its files, or of a
    built dataset's symbols, by name.
    """

    def __init__(
        self, settings: config.Config, *, generation: int = 0, mesh: Mesh | None = None
    ) -> None:
        """mesh: the devices that train, which a market in parts needs to know."""
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
        self._parts: dict[jax.Device, tuple[int, MarketData]] = {}
        if self._feed is not None:
            self.notes += self._feed.notes
        if isinstance(self._feed, SimulatedFeed) and settings.market.sharded and mesh is not None:
            paths, count = settings.simulator.paths, mesh.shape[LANE]
            self.notes += (f"in {count} parts of {paths:,} paths, one for each device",)
            for device, part in _parts_of(mesh).items():
                key = jax.device_put(self._key, device)
                self._parts[device] = part, self._feed.resident(key, generation, part)
            self.data = next(data for _, data in self._parts.values())
        elif self._feed is not None:
            self.data = self._feed.resident(self._key, generation)
        elif recorded:
            self.data = recorded.market("train")

    def refresh(self, update: int) -> bool:
        """Brings in the next generation where one is due before `update` (from 0)."""
        if self._feed is None or update == 0 or update % self._refresh_updates:
            return False
        self.generation += 1
        if isinstance(self._feed, SimulatedFeed) and self._parts:
            for device, (part, data) in self._parts.items():
                key = jax.device_put(self._key, device)
                advanced = self._feed.advance(data, key, self.generation, part)
                self._parts[device] = part, advanced
            self.data = next(data for _, data in self._parts.values())
        else:
            self.data = self._feed.advance(self.data, self._key, self.generation)
        return True

    def on(self, mesh: Mesh) -> MarketData:
        """What is resident now, on the devices that train: a copy on each, or its own part."""
        if not self._parts:
            copied: MarketData = spread(self.data, NamedSharding(mesh, PartitionSpec()))
            return copied
        rows, columns = self.data.rows.shape
        without = replace(self.data, rows=jnp.zeros(()))
        small: MarketData = spread(without, NamedSharding(mesh, PartitionSpec()))
        whole = jax.make_array_from_single_device_arrays(
            (rows * mesh.shape[LANE], columns),
            NamedSharding(mesh, PartitionSpec(LANE)),
            [data.rows for _, data in self._parts.values()],
        )
        return replace(small, rows=whole)

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


def _parts_of(mesh: Mesh) -> dict[jax.Device, int]:
    """Which part of the market each device of this process has: its place among the lanes'."""
    each = NamedSharding(mesh, PartitionSpec(LANE)).addressable_devices_indices_map(
        (mesh.shape[LANE],)
    )
    return {device: index[0].start or 0 for device, index in each.items() if index}


def specs(params: EnvParams, axes: EnvParams | None, *, sharded: bool) -> Any:
    """How the environment's parameters are spread over the mesh; None: as the learner does it.

    axes: what of them members have for themselves, if there are any (`population`).
    """
    if not sharded:
        return None
    nothing: Any = {field.name: None for field in fields(params)}
    nothing["max_steps_in_episode"] = params.max_steps_in_episode
    copies: Any = {name: PartitionSpec() for name in ("episodes", "cumulative", "shares")}
    rows: Any = PartitionSpec(LANE)
    market = MarketData(rows, **copies, bar_seconds=params.market.bar_seconds)
    return replace(specs_of(axes or EnvParams(**nothing)), market=market)


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
