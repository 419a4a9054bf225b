"""What rules and an oracle earn on simulated presets: `python benchmarks/market_edge.py`.

Every preset is played in days: one episode is one whole session, flat at both ends, from 50,000
dollars, with all costs. A day's P&L is the episode's net P&L, the Sharpe ratio is mean over sd of
the days times √252, and its interval is a bootstrap over paths (their days stay together).

* On `null` a grid of rules nets below zero: the grid's mean is below 0 by more than three standard
  errors, and no rule's own mean is above 0 by more than errors explain (the one-sided Bonferroni
  quantile: 1 % over the whole grid). The exit status is 1 otherwise. Rules that seldom trade have
  little to lose, so that each alone is not asked to be shown to.
* On the others, the best rule of the grid and the best thresholds of the oracle, which is told the
  true drift, are picked on some paths and reported on others.

The defaults are sized for a few minutes on two idle CPU cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax import config
from jules_jax.agent.policy import Policy
from jules_jax.env.params import EnvParams, make_params
from jules_jax.evaluation import backtest, candidates, reference_policies
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.reference_policies import Rule, Truth
from jules_jax.market.feed import SimulatedFeed

DAYS_PER_YEAR = 252
LEVEL = 0.01
"""Chance that a rule of the null grid seems to earn where none does, all rules together."""
ERRORS = 3.0
"""Standard errors by which the null grid as a whole must lose."""
RESAMPLES = 2000

RULE, ORACLE = reference_policies.RULE, reference_policies.ORACLE


@dataclass(frozen=True)
class Days:
    """Simulated days to trade: parameters, where each of the `[N]` days starts, and the truth.

    drift: `[N, T]` bp, see `reference_policies.Truth`.
    """

    params: EnvParams
    starts: Starts
    drift: jax.Array


class Sharpe(NamedTuple):
    """An annualised Sharpe ratio, the ends of its 95 % bootstrap interval, and what it is of."""

    name: str
    value: float
    low: float
    high: float
    mean: float  # dollars a day
    orders: float  # a day


def daily(settings: config.Config) -> config.Config:
    """The settings with episodes of one session."""
    return replace(settings, max_steps_in_episode=settings.simulator.bars_per_session)


def simulate_days(
    settings: config.Config, key: jax.Array, paths: int, *, truth: bool = True
) -> Days:
    """The sessions after the warm-up of `paths` fresh paths, as days; settings as of `daily`.

    An episode starts on the last bar of the session before, so its steps execute in every bar of
    one session and in no other. Without `truth` the drift is left at 0.
    """
    simulator_of_paths = replace(settings.simulator, paths=paths)
    settings = replace(settings, simulator=simulator_of_paths)
    feed = SimulatedFeed(settings)
    row, symbol = _starts(settings)
    path = row // (simulator_of_paths.sessions * simulator_of_paths.bars_per_session)
    starts = Starts(row, symbol, path)
    drift = jnp.zeros((len(row), settings.max_steps_in_episode), jnp.float32)
    if truth:
        drift = candidates.true_drift(feed, key, starts)
    market = feed.fresh(key)
    return Days(make_params(settings, market), starts, drift)


def _starts(settings: config.Config) -> tuple[np.ndarray, np.ndarray]:
    """Start rows of all days of all paths, path after path, and their symbol, which is 0."""
    params = settings.simulator
    sessions = np.arange(params.paths * params.sessions)
    traded = sessions[sessions % params.sessions >= params.warmup_sessions]
    row = (traded * params.bars_per_session - 1).astype(np.int32)
    return row, np.zeros_like(row)


def play(policy: Policy, days: Days, parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Episodes of every candidate's parameters on the same days: `[N]` by metric, by name."""
    return candidates.side_by_side(policy, parameters, days.params, days.starts, jax.random.key(0))


def oracles(days: Days) -> dict[str, Truth]:
    """The oracle at every threshold and exit, by name."""
    return candidates.oracles(days.drift)


def sharpe(name: str, played: Mapping[str, Any], cluster: np.ndarray, seed: int = 0) -> Sharpe:
    """The annualised Sharpe ratio of daily net P&L `played["pnl/net"]` `[N]`, with its interval.

    cluster: `[N]` the path of each day; paths are resampled, as days of one may hang together.
    """
    net = played["pnl/net"].astype(np.float64)
    _, index = np.unique(cluster, return_inverse=True)
    sums = np.stack([np.bincount(index, weights) for weights in (np.ones_like(net), net, net**2)])
    paths = sums.shape[1]
    draws = np.random.default_rng(seed).multinomial(paths, np.full(paths, 1 / paths), RESAMPLES)
    low, high = np.quantile(_ratio(*(sums @ draws.T)), [0.025, 0.975])
    value = _ratio(*sums.sum(axis=1))
    orders = float(played["trade/orders"].mean())
    return Sharpe(name, float(value), float(low), float(high), float(net.mean()), orders)


def _ratio(count: Any, total: Any, squares: Any) -> Any:
    """Annualised Sharpe ratio of days given their number, sum and sum of squares."""
    mean = total / count
    sd = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return np.sqrt(DAYS_PER_YEAR) * np.where(sd > 0, mean / np.where(sd > 0, sd, 1.0), 0.0)


def best(policy: Policy, picked_on: Days, reported_on: Days, choose: Any) -> Sharpe:
    """The candidate with the best Sharpe ratio on some days, as it does on others.

    choose: from `Days` to the candidates' parameters by name.
    """
    trials = play(policy, picked_on, choose(picked_on))
    ratios = {
        name: sharpe(name, played, picked_on.starts.cluster).value
        for name, played in trials.items()
    }
    name = max(ratios, key=ratios.__getitem__)
    played = play(policy, reported_on, {name: choose(reported_on)[name]})[name]
    return sharpe(name, played, reported_on.starts.cluster)


def edge(settings: config.Config, paths: int) -> list[Sharpe]:
    """Best rule, best oracle, and buy-and-hold on a preset, out of sample."""
    key = jax.random.key(settings.seed)
    picked_on, reported_on = (
        simulate_days(settings, jax.random.fold_in(key, half), paths) for half in (0, 1)
    )
    holding = backtest.run_episodes(
        reference_policies.buy_and_hold(), (), reported_on.params, reported_on.starts, key
    )
    return [
        best(ORACLE, picked_on, reported_on, oracles),
        best(RULE, picked_on, reported_on, lambda _: reference_policies.grid()),
        sharpe("buy and hold", holding, reported_on.starts.cluster),
    ]


class Net(NamedTuple):
    """What a rule nets in a day, dollars, with its standard error over paths."""

    name: str
    mean: float
    error: float
    orders: float  # a day


def null_grid(settings: config.Config, paths: int, rules: Mapping[str, Rule]) -> list[Net]:
    """Mean net P&L a day of the whole grid (the first) and of every rule, on fresh days."""
    days = simulate_days(settings, jax.random.key(settings.seed), paths, truth=False)
    played = play(RULE, days, rules)
    daily_net = {name: metrics["pnl/net"] for name, metrics in played.items()}
    orders = {name: float(metrics["trade/orders"].mean()) for name, metrics in played.items()}
    daily_net = {"the grid": np.mean(list(daily_net.values()), axis=0)} | daily_net
    orders["the grid"] = float(np.mean(list(orders.values())))
    cluster = days.starts.cluster
    return [
        Net(name, *backtest.mean_and_error(net, cluster), orders[name])
        for name, net in daily_net.items()
    ]


def earning(nets: list[Net]) -> list[str]:
    """What does not net below zero, as the module says; an error that is not known counts."""
    grid, *rules = nets
    limit = NormalDist().inv_cdf(1.0 - LEVEL / len(rules))
    found = [rule.name for rule in rules if not rule.mean <= limit * rule.error]
    return found if grid.mean < -ERRORS * grid.error else [grid.name, *found]


def main(argv: list[str] | None = None) -> int:
    """Prints the null grid and the Sharpe ratios; returns 1 where the null market can be traded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--presets", default="easy,default,hard", help="presets beside null")
    parser.add_argument("--paths", type=int, default=128, help="paths of 8 days")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)

    def settings(preset: str) -> config.Config:
        return daily(config.load({"simulator.preset": preset, "seed": given.seed}))

    nets = null_grid(settings("null"), given.paths, reference_policies.grid())
    print(f"null: net P&L a day, $, of {len(nets) - 1} rules on {given.paths} paths")
    for net in nets[:1] + sorted(nets[1:], key=lambda net: -net.mean / net.error):
        print(f"  {net.name:<26}{net.mean:>9.2f} ± {net.error:<7.2f}{net.orders:>6.1f} orders")
    failures = earning(nets)
    print(f"what does not net below zero: {', '.join(failures) or 'nothing'}\n")
    print("annualised Sharpe ratio of daily net P&L, picked on other paths, 95 % interval")
    for preset in filter(None, given.presets.split(",")):
        for found in edge(settings(preset), given.paths):
            print(
                f"  {preset:<9}{found.name:<26}{found.value:>7.2f}  [{found.low:6.2f},"
                f" {found.high:6.2f}]{found.mean:>9.2f} $/day{found.orders:>7.1f} orders/day"
            )
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
