"""What trained agents are measured by: the oracle and the best rule, picked on other paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import market_edge
from benchmarks.market_edge import Days
from jules_jax import config
from jules_jax.agent.policy import Policy
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, candidates, reference_policies
from jules_jax.market.feed import SimulatedFeed

__all__ = ["Days", "Reference", "best_of", "pick", "simulate"]

FINALISTS = 8
"""Candidates that a stage of picking leaves to the next."""


def simulate(settings: config.Config, key: jax.Array, episodes: int) -> Days:
    """Episodes of the settings' length on fresh paths, one on each, and their true drift."""
    settings = replace(settings, simulator=replace(settings.simulator, paths=episodes))
    feed = SimulatedFeed(settings)
    market = feed.fresh(key)
    starts = backtest.one_per_stretch(np.asarray(market.episodes), episodes, settings.seed)
    return Days(make_params(settings, market), starts, candidates.true_drift(feed, key, starts))


class Reference(NamedTuple):
    """The candidate that netted most where candidates were tried, and what they netted there.

    means: dollars an episode by name, the best first, one entry for each stage of picking.
    """

    name: str
    who: Policy
    choices: Callable[[Days], Mapping[str, Any]]
    means: list[dict[str, float]]

    def net(self, days: Days) -> np.ndarray:
        """Net P&L `[N]` on some days."""
        chosen = {self.name: self.choices(days)[self.name]}
        net: np.ndarray = market_edge.play(self.who, days, chosen)[self.name]["pnl/net"]
        return net


def pick(
    who: Policy, choices: Callable[[Days], Mapping[str, Any]], stages: Sequence[Days]
) -> Reference:
    """All candidates play the first stage's days, the `FINALISTS` best of a stage the next's."""
    means: list[dict[str, float]] = []
    for days in stages:
        playing = choices(days)
        if means:
            playing = {name: playing[name] for name in list(means[-1])[:FINALISTS]}
        trials = market_edge.play(who, days, playing)
        found = {name: float(metrics["pnl/net"].mean()) for name, metrics in trials.items()}
        means.append(dict(sorted(found.items(), key=lambda item: -item[1])))
    return Reference(next(iter(means[-1])), who, choices, means)


def best_of(stages: Sequence[Days]) -> tuple[Reference, Reference]:
    """The best oracle and the best rule of the stages' days."""
    return (
        pick(market_edge.ORACLE, market_edge.oracles, stages),
        pick(market_edge.RULE, lambda days: reference_policies.grid(), stages),
    )
