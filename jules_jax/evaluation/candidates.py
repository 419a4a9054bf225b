"""Candidates: parameters of reference policies, found by playing many beside each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.agent.policy import Policy
from jules_jax.env.params import EnvParams, make_params
from jules_jax.evaluation import backtest, reference_policies
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.reference_policies import Truth
from jules_jax.market.feed import SimulatedFeed

DRIFTS_BP = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
EXITS = (-1.0, 0.0, 0.5)
"""Thresholds of the oracle, and its exits in units of them."""
PICKING, PICKING_PATHS = 0x7069636B, 128
"""Tells the key of paths to pick thresholds on from those reported, and how many there are."""

PROBABILITIES = 12
"""Points of a grid of random policies; the first grid halves from 1, the second is even."""
MATCH_EPISODES = 256
"""Episodes that the grid is played on, at most."""
TOLERANCE = 0.05
"""Share by which a match may be off and is still called one."""


def side_by_side(
    policy: Policy,
    candidates: Mapping[str, Any],
    env_params: EnvParams,
    starts: Starts,
    key: jax.Array,
) -> dict[str, dict[str, np.ndarray]]:
    """Episodes of every candidate's parameters from the same `starts`: `[N]` by metric, by name.

    The candidates play in lanes of one evaluation, see `reference_policies.stack`.
    """
    lanes, count = len(starts.row), len(candidates)
    many = Starts(*(np.tile(column, count) for column in _columns(starts)))
    params = reference_policies.stack(list(candidates.values()), lanes)
    played = backtest.run_episodes(policy, params, env_params, many, key)
    return {
        name: {metric: values.reshape(count, lanes)[i] for metric, values in played.items()}
        for i, name in enumerate(candidates)
    }


def oracles(drift: jax.Array) -> dict[str, Truth]:
    """The oracle of `drift` `[N, T]` at every threshold and exit, by name."""
    return {
        f"oracle {threshold:g} {share:g}": Truth(drift, threshold, share * threshold)
        for threshold in DRIFTS_BP
        for share in EXITS
    }


def oracle(feed: SimulatedFeed, key: jax.Array, starts: Starts) -> tuple[str, Truth]:
    """The oracle of the paths `feed.fresh(key)`, for episodes that begin at `starts` `[N]`.

    Its threshold and exit earn most, net, on other paths: the name says which they are.
    """
    config = feed.config
    paths = min(config.simulator.paths, PICKING_PATHS)
    simulator = dataclasses.replace(config.simulator, paths=paths)
    other = SimulatedFeed(dataclasses.replace(config, simulator=simulator))
    other_key = jax.random.fold_in(key, PICKING)
    market = other.fresh(other_key)
    begin = backtest.one_per_stretch(np.asarray(market.episodes), paths, config.seed)
    played = side_by_side(
        reference_policies.ORACLE,
        oracles(true_drift(other, other_key, begin)),
        make_params(config, market),
        begin,
        other_key,
    )
    name = max(played, key=lambda name: float(played[name]["pnl/net"].mean()))
    return name, oracles(true_drift(feed, key, starts))[name]


def true_drift(feed: SimulatedFeed, key: jax.Array, starts: Starts) -> jax.Array:
    """`Truth.drift` `[N, T]` of the paths `feed.fresh(key)`."""
    hidden = feed.hidden(key).drift.reshape(-1)
    steps = feed.config.max_steps_in_episode
    return reference_policies.drift_ahead(hidden, starts.row, steps)


class Matched(NamedTuple):
    """A random policy that turns over as much as another one, as far as one can.

    probabilities: of SELL, HOLD and BUY. turnover, orders: its own, dollars and orders an episode,
    on all episodes and with other draws than those it was found with. wanted_…: of the other one.
    """

    probabilities: tuple[float, float, float]
    turnover: float
    orders: float
    wanted_turnover: float
    wanted_orders: float

    @property
    def matches(self) -> tuple[bool, bool]:
        """Whether turnover, and number of orders, are as wanted to within `TOLERANCE`."""
        return (
            abs(self.turnover - self.wanted_turnover) <= TOLERANCE * self.wanted_turnover,
            abs(self.orders - self.wanted_orders) <= TOLERANCE * self.wanted_orders,
        )

    def sentence(self) -> str:
        """What was found, in one sentence."""
        turnover, orders = self.matches
        found = (
            f"random orders with probability {1 - self.probabilities[1]:.3g} a bar turn over "
            f"${self.turnover:,.0f} an episode in {self.orders:.1f} orders, against "
            f"${self.wanted_turnover:,.0f} in {self.wanted_orders:.1f}"
        )
        if turnover and orders:
            return f"{found}: a match to within {TOLERANCE:.0%}"
        if turnover:
            return f"{found}: turnover matches, the number of orders does not"
        return f"{found}: no match, as no random policy found turns over as much"


def matched_turnover(
    env_params: EnvParams, starts: Starts, key: jax.Array, wanted: Mapping[str, np.ndarray]
) -> Matched:
    """The random policy with the mean turnover of the episodes `wanted`, from the same `starts`.

    wanted: `[N]` by name, of `backtest.run_episodes`. An order is asked for with one probability
    every bar, and is a BUY or a SELL with even odds. Turnover grows with that probability: it is
    interpolated on a grid, then on a finer one around what was found, each played as lanes of one
    program.
    """
    turnover = float(np.mean(wanted["trade/turnover"]))
    orders = float(np.mean(wanted["trade/orders"]))
    few = _evenly(starts, MATCH_EPISODES)
    grid = np.concatenate([[0.0], 0.5 ** np.arange(PROBABILITIES - 1)[::-1]])
    order = 0.0
    if turnover > 0:
        for round_ in range(2):
            curve = _turnovers(env_params, few, jax.random.fold_in(key, round_), grid)
            order = float(np.interp(turnover, curve, grid))
            place = int(np.clip(np.searchsorted(grid, order), 1, len(grid) - 1))
            grid = np.linspace(grid[place - 1], grid[place], PROBABILITIES)
    found = _probabilities(order)
    played = backtest.run_episodes(
        reference_policies.RANDOM,
        jnp.asarray(found, jnp.float32),
        env_params,
        starts,
        jax.random.fold_in(key, 2),
    )
    return Matched(
        found,
        float(played["trade/turnover"].mean()),
        float(played["trade/orders"].mean()),
        turnover,
        orders,
    )


def _turnovers(
    env_params: EnvParams, starts: Starts, key: jax.Array, grid: np.ndarray
) -> np.ndarray:
    """Mean turnover `[P]` of random policies that order with the probabilities `grid` `[P]`.

    It is made not to fall anywhere, as the truth does not.
    """
    lanes = len(starts.row)
    candidates = {
        f"{order:g}": jnp.tile(jnp.asarray(_probabilities(order), jnp.float32), (lanes, 1))
        for order in grid
    }
    played = side_by_side(reference_policies.RANDOM, candidates, env_params, starts, key)
    curve = [float(metrics["trade/turnover"].mean()) for metrics in played.values()]
    return np.maximum.accumulate(curve)


def _probabilities(order: float) -> tuple[float, float, float]:
    return (0.5 * order, 1.0 - order, 0.5 * order)


def _evenly(starts: Starts, count: int) -> Starts:
    """At most `count` of the starts, evenly spread over them."""
    total = len(starts.row)
    places = np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))
    return Starts(*(column[places] for column in _columns(starts)))


def _columns(starts: Starts) -> tuple[np.ndarray, ...]:
    return starts.row, starts.symbol, starts.cluster
