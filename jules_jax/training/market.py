"""The training market: what lanes trade while an agent learns."""

from __future__ import annotations

import jax

from jules_jax import config
from jules_jax.market import dataset
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.table import MarketData

MARKET_KEY = 0
"""Folded into the seed's key for the draws of simulated paths."""


class Market:
    """Simulated generations, or the training split of a file; `data` is what is resident now."""

    def __init__(self, settings: config.Config) -> None:
        self._key = jax.random.fold_in(jax.random.key(settings.seed), MARKET_KEY)
        self._refresh_updates = settings.refresh_updates
        self._feed = None if settings.market.data else SimulatedFeed(settings)
        self.generation = 0
        self.notes: tuple[str, ...] = ()
        self.data: MarketData
        if self._feed is None:
            source = dataset.load(settings)
            self.notes = source.source.notes
            self.data = source.market("train")
        else:
            self.data = self._feed.resident(self._key, 0)

    def refresh(self, update: int) -> bool:
        """Brings in the next generation where one is due before `update` (from 0)."""
        due = self._feed is not None and update > 0 and update % self._refresh_updates == 0
        if due and self._feed is not None:
            self.generation += 1
            self.data = self._feed.advance(self.data, self._key, self.generation)
        return due
