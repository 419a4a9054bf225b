"""Scenarios: stress, capacity and sensitivity of a checkpoint, on episodes of usual length."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jules_jax import config
from jules_jax.agent import network
from jules_jax.evaluation import backtest, robustness, unseen
from jules_jax.market import dataset, stress
from jules_jax.market.splits import Split

EPISODES = 256
"""Of every policy in a scenario, at a capital, with another parameter."""
KEY = 15
"""Folded into the seed's key for the prices and draws of scenarios."""


def lines(
    kind: str, final: config.Config, params: network.Params, split: Split
) -> tuple[list[dict[str, Any]], str]:
    """Lines of `stress`, `capacity` or `sensitivity` as `report.json` has them, and their table.

    final: with schedules at their end. split: of recorded bars, whose episodes share no bar.
    """
    players = robustness.contenders(final, params)
    key_paths, key = jax.random.split(jax.random.fold_in(jax.random.key(final.seed), KEY))
    if final.market.data:
        source = dataset.load(final)
        held_out = source.market(split)
        starts = backtest.without_overlap(
            np.asarray(held_out.episodes), EPISODES, final.max_steps_in_episode
        )
        scenes = stress.of_split(source, split)
    else:
        feed = unseen.fresh_feed(final, EPISODES)
        held_out = feed.fresh(key_paths)
        starts = backtest.one_per_stretch(np.asarray(held_out.episodes), EPISODES, final.seed)
        scenes = stress.of_fresh_paths(feed, key_paths)
    match kind:
        case "stress":
            found = robustness.stress(final, players, scenes, starts, key)
            return found, robustness.stress_table(found)
        case "capacity":
            found = robustness.capacity(final, players, held_out, starts, key)
            return found, robustness.capacity_table(found)
        case _:
            found = robustness.sensitivity(final, players, held_out, starts, key)
            return found, robustness.sensitivity_table(found)
