"""Unseen prices: fresh simulated paths, or a split of recorded bars, and episodes on them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import jax
import numpy as np

from jules_jax.config import Config
from jules_jax.evaluation import backtest
from jules_jax.evaluation.backtest import Starts
from jules_jax.market import dataset
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.splits import Split
from jules_jax.market.table import MarketData

EVALUATION_KEY = 2
"""Folded into the seed's key: paths and draws that training (0 and 1) never sees."""


@dataclass(frozen=True)
class HeldOut:
    """Prices that training has not seen, and where episodes begin on them."""

    market: MarketData
    starts: Starts


def keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """Keys of an evaluation's fresh paths, and of what its policies draw."""
    key = jax.random.fold_in(jax.random.key(config.seed), EVALUATION_KEY)
    key_paths, key_play = jax.random.split(key)
    return key_paths, key_play


def fresh_paths(config: Config, episodes: int, key: jax.Array) -> MarketData:
    """One fresh simulated path for every episode."""
    return fresh_feed(config, episodes).fresh(key)


def fresh_feed(config: Config, paths: int) -> SimulatedFeed:
    """Generations of `paths` simulated paths, each as long as one episode needs."""
    bars = config.simulator.bars_per_session
    sessions = math.ceil((config.max_steps_in_episode + 1) / bars) + 1
    simulator = dataclasses.replace(
        config.simulator,
        paths=paths,
        sessions=config.simulator.warmup_sessions + sessions,
    )
    return SimulatedFeed(dataclasses.replace(config, simulator=simulator))


def hold_out(config: Config, *, split: Split, episodes: int) -> HeldOut:
    """`episodes` episodes on the `split` of `market.data`, else on fresh simulated paths.

    Every simulated episode has a path of its own. A split holds only so many episodes that share
    no bar: they are played again and again. Raises `InputError` where it holds not even one.
    """
    if not config.market.data:
        market = fresh_paths(config, episodes, keys(config)[0])
        starts = backtest.one_per_stretch(np.asarray(market.episodes), episodes, config.seed)
        return HeldOut(market, starts)
    market = dataset.load(config).market(split)
    starts = backtest.without_overlap(
        np.asarray(market.episodes), episodes, config.max_steps_in_episode
    )
    return HeldOut(market, starts)
