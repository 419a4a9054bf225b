"""Comparison: a trained policy, greedy and sampled, beside reference policies, same episodes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jules_jax.agent import network, policy
from jules_jax.agent.policy import Policy
from jules_jax.config import Config
from jules_jax.env.params import make_params
from jules_jax.evaluation import audit as audits
from jules_jax.evaluation import backtest, reference_policies
from jules_jax.evaluation.backtest import Starts
from jules_jax.market import dataset
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.splits import Split
from jules_jax.market.table import MarketData

EVALUATION_KEY = 2
"""Folded into the seed's key: paths and draws that training (0 and 1) never sees."""


AUDITED_EPISODES = 8
"""Episodes of each trained policy that an audit keeps."""


@dataclass(frozen=True)
class HeldOut:
    """Prices that training has not seen, and where episodes begin on them.

    symbols: names, in the order of the numbers in `starts`.
    """

    market: MarketData
    starts: Starts
    notes: tuple[str, ...]
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Episodes of every policy: `episodes[name]` holds `[N]` arrays by metric name.

    symbols: names, in the order of the numbers in `starts`.
    """

    starts: Starts
    episodes: dict[str, dict[str, np.ndarray]]
    symbols: tuple[str, ...] = ()

    def mean(self, name: str, metric: str, *, symbol: int | None = None) -> tuple[float, float]:
        """Mean of a metric over a policy's episodes, and its standard error over clusters.

        `symbol` restricts both to the episodes of one symbol, which has at least one.
        """
        values, cluster = self.episodes[name][metric], self.starts.cluster
        if symbol is not None:
            chosen = self.starts.symbol == symbol
            values, cluster = values[chosen], cluster[chosen]
        return backtest.mean_and_error(values, cluster)


def _keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """Keys of the held-out paths and of the policies' draws."""
    key_market, key_play = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed), EVALUATION_KEY)
    )
    return key_market, key_play


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
        market = fresh_paths(config, episodes, _keys(config)[0])
        starts = backtest.one_per_stretch(np.asarray(market.episodes), episodes, config.seed)
        return HeldOut(
            market,
            starts,
            (
                f"market      fresh simulated paths, preset {config.simulator.preset}",
                f"episodes    {episodes:,}, one on each path; ± is one standard error",
            ),
        )
    source = dataset.load(config)
    market = source.market(split)
    starts = backtest.without_overlap(
        np.asarray(market.episodes), episodes, config.max_steps_in_episode
    )
    return HeldOut(
        market,
        starts,
        (
            f"market      {config.market.data}, {split} split",
            *(f"            {note}" for note in (*source.notes, *source.plan(split).notes)),
            f"episodes    {len(starts.row):,}: {len(np.unique(starts.cluster))} that share no bar, "
            "each played again with other draws; ± is one standard error over those",
        ),
        source.symbols,
    )


def _trained(config: Config) -> tuple[Policy, Policy]:
    precision, patience = config.network.matmul_precision, config.network.greedy_patience
    sampled = policy.from_network(greedy=False, precision=precision)
    return sampled, policy.from_network(greedy=True, patience=patience, precision=precision)


def compare(config: Config, params: network.Params, held_out: HeldOut) -> Comparison:
    """Plays the trained policy and the reference policies: same starts, prices and costs."""
    env_params = make_params(config, held_out.market)
    policies: list[tuple[Policy, Any]] = [(who, params) for who in _trained(config)]
    policies += [(reference_policies.random(), ()), (reference_policies.flat(), ())]
    key = _keys(config)[1]
    played = {
        who.name: backtest.run_episodes(who, weights, env_params, held_out.starts, key)
        for who, weights in policies
    }
    return Comparison(held_out.starts, played, held_out.symbols)


def audit(
    config: Config,
    params: network.Params,
    held_out: HeldOut,
    directory: Path,
    *,
    checkpoint: str = "",
    checkpoint_hash: str = "",
) -> None:
    """Writes every step of the trained policy's first episodes into an audit's directory."""
    first = Starts(*(leaf[:AUDITED_EPISODES] for leaf in dataclasses.astuple(held_out.starts)))
    facts = audits.Facts(
        kind="evaluation",
        run=config.name or checkpoint,
        config=config.at(1.0),
        bar_seconds=held_out.market.bar_seconds,
        source=held_out.notes[0],
        symbols=held_out.symbols,
        checkpoint=checkpoint,
        checkpoint_hash=checkpoint_hash,
        code=audits.code_hash(),
    )
    with audits.Writer(directory, facts) as writer:
        for who in _trained(config):
            audits.record_episodes(
                writer, who, params, config, held_out.market, first, _keys(config)[1]
            )


def table(result: Comparison) -> str:
    """The comparison as text: means per episode, dollars, with standard errors."""
    header = (
        f"{'per episode':<18}{'reward':>18}{'net P&L, $':>20}{'gross, $':>11}{'costs, $':>11}"
        f"{'orders':>9}{'worst drawdown':>16}{'breaches in all':>17}"
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
            f"{100 * float(metrics['max_drawdown'].max()):>14.2f} %"
            f"{float(metrics['risk/hard_breaches'].sum()):>17,.0f}"
        )
    return "\n".join([*lines, *_by_symbol(result)])


def _by_symbol(result: Comparison) -> list[str]:
    """The same for each symbol, where there are several; a policy that never trades says nothing.

    The error of a symbol with one cluster of episodes is unknown.
    """
    played = np.unique(result.starts.symbol)
    if len(played) < 2:
        return []
    header = (
        f"{'by symbol':<18}{'episodes':>9}{'disjoint':>9}  {'per episode':<18}{'reward':>18}"
        f"{'net P&L, $':>22}{'orders':>9}"
    )
    lines, names = ["", header, "-" * len(header)], dict(enumerate(result.symbols))
    for symbol in played.tolist():
        chosen = result.starts.symbol == symbol
        clusters = len(np.unique(result.starts.cluster[chosen]))
        label = f"{names.get(symbol, f'symbol {symbol}'):<18}{chosen.sum():>9,}{clusters:>9,}"
        for name, metrics in result.episodes.items():
            if not metrics["trade/orders"].any():
                continue
            reward, net = (
                _with_error(*result.mean(name, metric, symbol=symbol))
                for metric in ("reward", "pnl/net")
            )
            orders = float(metrics["trade/orders"][chosen].mean())
            lines.append(f"{label:<36}  {name:<18}{reward:>18}{net:>22}{orders:>9.2f}")
            label = ""
    return lines


def _with_error(mean: float, error: float) -> str:
    return f"{mean:,.2f} ± {'unknown' if math.isnan(error) else f'{error:.2f}'}"
