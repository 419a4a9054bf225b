"""A dataset: bars read from a file, split by sessions, ready to be traded."""

from __future__ import annotations

from dataclasses import dataclass

from jules_jax.config import Config
from jules_jax.market import feed, splits
from jules_jax.market.readers import Source, read
from jules_jax.market.splits import Split
from jules_jax.market.table import MarketData


@dataclass(frozen=True)
class Dataset:
    """Bars of one file under one configuration."""

    source: Source
    config: Config

    def market(self, split: Split) -> MarketData:
        """The market whose episodes start and end inside `split`.

        Raises `InputError` where the split is too short for one episode.
        """
        market = self.config.market
        starts = splits.require_episodes(
            split,
            self.source.bars.session,
            market.train_fraction,
            market.validation_fraction,
            lookback_window=self.config.features.lookback_window,
            max_steps=self.config.max_steps_in_episode,
            path=market.data,
        )
        return feed.from_bars([(self.source.bars, starts)], self.config)


def load(config: Config) -> Dataset:
    """Reads `market.data`; raises `InputError` where the file cannot be read or is not sound."""
    return Dataset(read(config.market.data, config.market), config)
