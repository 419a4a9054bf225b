"""Samples: what a configuration names, measured: paths of its preset, and the bars of its files."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.config import Config, Simulator
from jules_jax.market import dataset, simulator
from jules_jax.market.bars import Bars
from jules_jax.market.stylised_facts.measures import Facts, measure, median

PATHS, SESSIONS = 5, 260
"""Simulated paths and sessions in each: years, as the bands of the battery are for 250 or more.

Each is measured by itself: over many years the momentum that a preset plants shows in the first
autocorrelation as well.
"""


def of_config(settings: Config) -> tuple[dict[str, Facts], dict[str, float]]:
    """Facts by name, and for the simulated ones their half-spread in return units.

    The simulator's section is sampled on `PATHS` paths of `SESSIONS` sessions, of whose facts the
    medians are taken; each symbol of `market.data`, if any, is measured whole.
    """
    params, half_spread = settings.simulator, 0.5 * settings.simulator.spread_bps * simulator.BP
    bars = sample(params, settings.market.bar_seconds, settings.seed)
    paths = [measure(jax.tree.map(itemgetter(path), bars)) for path in range(PATHS)]
    measured = {params.preset: median(paths)}
    if settings.market.data:
        measured |= {one.symbol: measure(one.bars) for one in dataset.load(settings).sources}
    return measured, {params.preset: half_spread if params.enable_bid_ask_bounce else 0.0}


def sample(params: Simulator, bar_seconds: int, seed: int) -> Bars:
    """Bars `[PATHS, B]` of the simulator, as NumPy arrays."""
    params = replace(
        params, paths=PATHS, sessions=SESSIONS, warmup_sessions=1, symbols_per_market=1
    )
    bars: Bars = jax.tree.map(np.asarray, _simulated(jax.random.key(seed), params, bar_seconds))
    return bars


@partial(jax.jit, static_argnums=(1, 2))
def _simulated(key: jax.Array, params: Simulator, bar_seconds: int) -> Bars:
    half_spread = 0.5 * params.spread_bps * simulator.BP

    def path(index: jax.Array) -> Bars:
        return simulator.simulate(jax.random.fold_in(key, index), params, half_spread, bar_seconds)

    return jax.vmap(path)(jnp.arange(PATHS))
