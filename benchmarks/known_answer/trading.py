"""The trading environment where the answer is known: nothing to earn, and a strong upward drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.known_answer import population, report
from benchmarks.known_answer.report import Finding
from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.policy import Policy
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.trading_env import TradingEnv
from jules_jax.evaluation import backtest, reference_policies, statistics, unseen
from jules_jax.evaluation.backtest import Starts
from jules_jax.market import feed, simulator
from jules_jax.market.table import MarketData
from jules_jax.training.market import Market

SETTINGS: dict[str, Any] = {
    "simulator.preset": "null",
    "num_envs": 128,
    "network.lstm_hidden_size": 32,
    "network.net_arch": [64],
    "network.mask_actions": True,
    "ppo.n_epochs": 4,
    "ppo.learning_rate": 1e-3,
    "ppo.learning_rate_end": 0.0,
    "ppo.ent_coef": 0.01,
    "ppo.ent_coef_end": 0.0,
    "devices": 1,
}
"""A small network, few lanes; costs and everything else of the environment as they are.

Requests that would be refused are masked. Without that, agents that net 98.8 % of buy-and-hold
when they sample hold still when they are greedy: they need not enter in any one bar.
"""
NULL_UPDATES, DRIFT_UPDATES = 60, 100
DRIFT_ENTROPY = 0.03
"""At first. With 0.01 and 60 updates one of ten agents on reporting seed 0 was content with a first
step into the market; this pair was then picked on seed 1."""
DRIFT_BP = 1.0
"""Per bar: about a third of the volatility of a bar, a few times the costs of a session."""
DRIFT_PATHS = 64
ERRORS = 3.0
MOST_ORDERS, LEAST_SHARE = 0.01, 0.95
TRAIN, LEARN, HELD_OUT, PLAY = 0, 1, 2, 3
"""Folded into a market's key."""

GREEDY, SAMPLED = population.GREEDY, population.SAMPLED
HOLD = reference_policies.buy_and_hold()

Episodes = dict[str, np.ndarray]
"""`[M, E]` by metric name."""


def settings_for(updates: int, seed: int, overrides: dict[str, Any]) -> config.Config:
    merged = SETTINGS | {"seed": seed} | overrides
    steps = merged["num_envs"] * merged.get("ppo.n_steps", config.PPO().n_steps)
    return config.load(merged | {"total_timesteps": steps * updates})


def null(
    seeds: int, seed: int, episodes: int, *, updates: int = NULL_UPDATES, **overrides: Any
) -> Finding:
    """Trains where nothing can be earned and trading costs: the best policy does not trade."""
    settings = settings_for(updates, seed, overrides)
    market = Market(settings)
    params = make_params(settings, market.data)

    def at(update: int) -> EnvParams:
        market.refresh(update)
        return replace(params, market=market.data)

    weights = train(settings, seeds, at)
    held_out = unseen.hold_out(settings, split="test", episodes=episodes)
    fresh = make_params(settings, held_out.market)
    greedy, sampled = (
        play(who, weights, fresh, held_out.starts, settings) for who in (GREEDY, SAMPLED)
    )
    return judge_null(greedy, sampled, held_out.starts.cluster)


def judge_null(greedy: Episodes, sampled: Episodes, cluster: np.ndarray) -> Finding:
    """The verdict on `null`, of episodes `[M, E]` of either policy."""
    rates = {
        name: statistics.mean_interval(played["trade/orders"] / played["length"], cluster)
        for name, played in (("greedy", greedy), ("sampled", sampled))
    }
    busiest = (greedy["trade/orders"] / greedy["length"]).mean(axis=1).max()
    mean, error = backtest.mean_and_error(greedy["pnl/net"].mean(axis=0), cluster)
    found = {
        f"greedy executes on {rates['greedy']:.2%} of steps, expected below {MOST_ORDERS:.0%}": (
            not rates["greedy"].high < MOST_ORDERS
        ),
        f"the busiest agent, greedy, executes on {busiest:.2%} of steps, expected below "
        f"{MOST_ORDERS:.0%}": not busiest < MOST_ORDERS,
        f"greedy nets {mean:.3f} ± {error:.3f}, expected 0 within {ERRORS:g} errors": (
            not abs(mean) <= ERRORS * error
        ),
    }
    return Finding(
        market="null",
        unit="$",
        optimum=0.0,
        greedy=statistics.mean_interval(greedy["pnl/net"], cluster),
        sampled=statistics.mean_interval(sampled["pnl/net"], cluster),
        requirement=f"greedy orders < {MOST_ORDERS:.0%} of steps, net 0 ± {ERRORS:g} s.e.",
        failures=[sentence for sentence, fails in found.items() if fails],
        details={
            "orders per step, greedy": f"{rates['greedy']:.3%}",
            "orders per step, greedy, busiest agent": f"{busiest:.3%}",
            "orders per step, sampled": f"{rates['sampled']:.3%}",
            "mean greedy net P&L": f"{mean:.3f} ± {error:.3f} (s.e.)",
        },
    )


def drift(
    seeds: int, seed: int, episodes: int, *, updates: int = DRIFT_UPDATES, **overrides: Any
) -> Finding:
    """Trains where prices rise: buying and holding is what there is to find."""
    settings = settings_for(updates, seed, {"ppo.ent_coef": DRIFT_ENTROPY} | overrides)
    key = jax.random.key(seed)
    training = make_params(settings, rising(settings, jax.random.fold_in(key, TRAIN), DRIFT_PATHS))
    weights = train(settings, seeds, lambda _: training)
    market = rising(settings, jax.random.fold_in(key, HELD_OUT), DRIFT_PATHS)
    fresh = make_params(settings, market)
    starts = backtest.one_per_stretch(np.asarray(market.episodes), episodes, seed)
    hold = play_one(HOLD, (), fresh, starts, settings)["pnl/net"]
    greedy, sampled = (
        play(who, weights, fresh, starts, settings)["pnl/net"] for who in (GREEDY, SAMPLED)
    )
    return judge_drift(greedy, sampled, hold, starts.cluster)


def judge_drift(
    greedy: np.ndarray, sampled: np.ndarray, hold: np.ndarray, cluster: np.ndarray
) -> Finding:
    """The verdict on `drift`, of net P&L `[M, E]` and buy-and-hold's `[E]`."""
    share = statistics.ratio_of_means(greedy, hold, cluster)
    return Finding(
        market="drift",
        unit="$",
        optimum=float(hold.mean()),
        greedy=statistics.mean_interval(greedy, cluster),
        sampled=statistics.mean_interval(sampled, cluster),
        share=share,
        sampled_share=statistics.ratio_of_means(sampled, hold, cluster),
        requirement=f"≥ {LEAST_SHARE:.0%} of buy-and-hold",
        least=LEAST_SHARE,
        failures=report.below(share, LEAST_SHARE),
        shares=(greedy.mean(axis=1) / hold.mean()).tolist(),
        details={"paths": len(np.unique(cluster))},
    )


def rising(settings: config.Config, key: jax.Array, paths: int) -> MarketData:
    """Simulated paths whose every price grows by `DRIFT_BP` a bar more."""
    half_spread = 0.5 * settings.simulator.spread_bps * simulator.BP

    @jax.jit
    def simulate(key: jax.Array) -> Any:
        def path(index: jax.Array) -> Any:
            return simulator.simulate_path(key, index, settings.simulator, half_spread)

        return jax.vmap(path)(jnp.arange(paths))

    bars = jax.device_get(simulate(key))
    start, end = (np.exp(DRIFT_BP * 1e-4 * (np.arange(bars.close.shape[1]) + i)) for i in (0, 1))
    tilted = replace(
        bars,
        open=(bars.open * start).astype(np.float32),
        high=(bars.high * end).astype(np.float32),
        low=(bars.low * start).astype(np.float32),
        close=(bars.close * end).astype(np.float32),
    )
    warmup = settings.simulator.warmup_sessions * settings.simulator.bars_per_session
    first = max(settings.features.lookback_window, warmup)
    last = bars.close.shape[1] - settings.max_steps_in_episode - 1
    return feed.from_bars(
        [(jax.tree.map(lambda x, i=i: x[i], tilted), (first, last)) for i in range(paths)],
        settings,
    )


def train(
    settings: config.Config, seeds: int, params_at: Callable[[int], EnvParams]
) -> network.Params:
    key = jax.random.fold_in(jax.random.key(settings.seed), LEARN)
    return population.train(TradingEnv(settings), params_at, settings, seeds, key)


def play(
    who: Policy, weights: network.Params, params: EnvParams, starts: Starts, settings: config.Config
) -> Episodes:
    """Every seed's episodes from the same starts."""
    seeds = len(jax.tree.leaves(weights)[0])
    played = [
        play_one(who, jax.tree.map(lambda leaf, m=m: leaf[m], weights), params, starts, settings)
        for m in range(seeds)
    ]
    return {name: np.stack([one[name] for one in played]) for name in played[0]}


def play_one(
    who: Policy, weights: Any, params: EnvParams, starts: Starts, settings: config.Config
) -> dict[str, np.ndarray]:
    key = jax.random.fold_in(jax.random.key(settings.seed), PLAY)
    return backtest.run_episodes(who, weights, params, starts, key)
