"""Comparison: a trained policy, greedy and sampled, beside reference policies, same episodes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jules_jax.agent import network, policy
from jules_jax.agent.policy import Policy
from jules_jax.config import Config
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, reference_policies
from jules_jax.evaluation.backtest import Starts
from jules_jax.market import dataset
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.splits import Split
from jules_jax.market.table import MarketData

EVALUATION_KEY = 2
"""Folded into the seed's key: paths and draws that training (0 and 1) never sees."""


@dataclass(frozen=True)
class Comparison:
    """Episodes of every policy: `episodes[name]` holds `[N]` arrays by metric name."""

    notes: tuple[str, ...]
    starts: Starts
    episodes: dict[str, dict[str, np.ndarray]]

    def mean(self, name: str, metric: str) -> tuple[float, float]:
        """Mean of a metric over a policy's episodes, and its standard error over clusters."""
        return backtest.mean_and_error(self.episodes[name][metric], self.starts.cluster)


def fresh_paths(config: Config, episodes: int, key: jax.Array) -> MarketData:
    """One fresh simulated path for every episode."""
    bars = config.simulator.bars_per_session
    sessions = math.ceil((config.max_steps_in_episode + 1) / bars) + 1
    simulator = dataclasses.replace(
        config.simulator,
        paths=episodes,
        sessions=config.simulator.warmup_sessions + sessions,
    )
    return SimulatedFeed(dataclasses.replace(config, simulator=simulator)).fresh(key)


def compare(config: Config, params: network.Params, *, split: Split, episodes: int) -> Comparison:
    """Plays `episodes` episodes of each policy; the same starts, prices and costs for all.

    With `market.data` set on the held-out `split` of that file, else on fresh simulated paths, one
    for each episode. Raises `InputError` where the split is too short for one episode.
    """
    key_market, key_play = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed), EVALUATION_KEY)
    )
    if config.market.data:
        source = dataset.load(config)
        market = source.market(split)
        starts = backtest.without_overlap(
            np.asarray(market.episodes), episodes, config.max_steps_in_episode
        )
        disjoint = len(np.unique(starts.cluster))
        notes = (
            f"market      {config.market.data}, {split} split",
            *(f"            {note}" for note in source.source.notes),
            f"episodes    {len(starts.row):,}: {disjoint} that share no bar, each played again "
            "with other draws; ± is one standard error over those that share no bar",
        )
    else:
        market = fresh_paths(config, episodes, key_market)
        starts = backtest.one_per_stretch(np.asarray(market.episodes), episodes, config.seed)
        notes = (
            f"market      fresh simulated paths, preset {config.simulator.preset}",
            f"episodes    {episodes:,}, one on each path; ± is one standard error",
        )
    env_params = make_params(config, market)
    precision = config.network.matmul_precision
    policies: list[tuple[Policy, Any]] = [
        (policy.from_network(greedy=False, precision=precision), params),
        (policy.from_network(greedy=True, precision=precision), params),
        (reference_policies.random(), ()),
        (reference_policies.flat(), ()),
    ]
    played = {
        who.name: backtest.run_episodes(who, weights, env_params, starts, key_play)
        for who, weights in policies
    }
    return Comparison(notes, starts, played)


def table(result: Comparison) -> str:
    """The comparison as text: means per episode, dollars, with standard errors."""
    header = (
        f"{'per episode':<18}{'reward':>18}{'net P&L, $':>20}{'gross, $':>11}{'costs, $':>11}"
        f"{'orders':>9}{'max drawdown':>14}{'hard breaches':>15}"
    )
    lines = [header, "-" * len(header)]
    for name, metrics in result.episodes.items():
        reward, reward_error = result.mean(name, "reward")
        net, net_error = result.mean(name, "pnl/net")
        gross = float(metrics["pnl/gross"].mean())
        lines.append(
            f"{name:<18}"
            f"{f'{reward:,.2f} ± {reward_error:.2f}':>18}"
            f"{f'{net:,.2f} ± {net_error:.2f}':>20}"
            f"{gross:>11,.2f}"
            f"{gross - net:>11,.2f}"
            f"{float(metrics['trade/orders'].mean()):>9.2f}"
            f"{100 * float(metrics['max_drawdown'].max()):>12.2f} %"
            f"{float(metrics['risk/hard_breaches'].sum()):>15,.0f}"
        )
    return "\n".join(lines)
