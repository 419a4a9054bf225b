"""The feed: which rows are on the device, and where episodes may start.

Simulated paths come in generations. Two are resident, the halves of one table: generation g lies
in half g mod 2 and episodes start only there, while those that started in generation g − 1 finish
in the other half. `advance` then overwrites the older half. Everything is a pure function of the
key and g, so a checkpoint stores those and never the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import features, simulator, table
from jules_jax.market.bars import Bars
from jules_jax.market.table import MarketData

EXACT_STEPS = 2**23
"""Most quantity steps in a full-size position: float32 holds their half-steps exactly."""


@dataclass(frozen=True)
class SimulatedFeed:
    """Generations of simulated paths for one configuration.

    Raises:
      InputError: a path is shorter than its warm-up plus one episode.
    """

    config: config.Config

    def __post_init__(self) -> None:
        """Refuses paths without room for an episode."""
        first, last = self.starts
        if last < first:
            raise InputError(
                f"simulator.sessions: a path of {self.config.simulator.sessions} sessions has "
                f"{self.path_bars} bars, expected at least "
                f"{first + self.config.max_steps_in_episode + 1} for the warm-up and one episode"
            )

    @property
    def path_bars(self) -> int:
        """Bars in one path."""
        return self.config.simulator.sessions * self.config.simulator.bars_per_session

    @property
    def generation_rows(self) -> int:
        """Rows of one generation, `Rg`."""
        return self.config.simulator.paths * self.path_bars

    @property
    def starts(self) -> tuple[int, int]:
        """First and last bar of a path on which an episode may start."""
        params = self.config.simulator
        warmup = params.warmup_sessions * params.bars_per_session
        first = max(self.config.features.lookback_window, warmup)
        return first, self.path_bars - self.config.max_steps_in_episode - 1

    def generation(self, key: jax.Array, g: int) -> jax.Array:
        """Rows `[Rg, C]` of generation `g`, path after path; pure in (`key`, `g`).

        Path p is simulated with `fold_in(fold_in(key, g), p)`, whatever the number of paths.
        """
        rows: jax.Array = _generation(self, key, jnp.int32(g))
        return rows

    def resident(self, key: jax.Array, g: int) -> MarketData:
        """The market with generations `g` and `g` − 1 resident, episodes starting in `g`.

        For `g` = 0 there is no older generation: its half repeats generation 0 and is never read.
        """
        newer = self.generation(key, g)
        older = self.generation(key, g - 1) if g > 0 else newer
        halves = [older, newer] if g % 2 else [newer, older]
        return self._market(jnp.concatenate(halves), g)

    def fresh(self, key: jax.Array) -> MarketData:
        """The market with generation 0 alone resident, for evaluation."""
        return self._market(self.generation(key, 0), 0)

    def advance(self, data: MarketData, key: jax.Array, g: int) -> MarketData:
        """The market of `resident(key, g)`, bit for bit, made from that of `g` − 1.

        `data.rows` is donated: it must not be used again. The rows of generation g − 1, which
        running episodes may still read, stay where they are.
        """
        offset = jnp.int32((g % 2) * self.generation_rows)
        return self._market(_overwrite(data.rows, self.generation(key, g), offset), g)

    def _market(self, rows: jax.Array, g: int) -> MarketData:
        first, last = self.starts
        paths = np.arange(self.config.simulator.paths, dtype=np.int32)
        offset = (g % 2) * self.generation_rows + paths * self.path_bars
        episodes = np.stack([np.zeros_like(offset), offset + first, offset + last], axis=1)
        return _market_data(rows, episodes, self.config.market.bar_seconds)


def from_bars(
    sources: Sequence[tuple[Bars, tuple[int, int]]], settings: config.Config
) -> MarketData:
    """The market of real bars: one resident generation, never refreshed.

    Args:
      sources: for each symbol its bars `[B]` and its first and last admissible start, as indices
        into them.
      settings: the configuration.

    Raises:
      InputError: there is no source, a range is empty or leaves no room for an episode, or the
        bars differ in length.
    """
    if not sources:
        raise InputError("market.data: no symbols found, expected at least one")
    lengths = {bars.bar_seconds for bars, _ in sources}
    if len(lengths) > 1:
        raise InputError(
            f"market.data: bars of {sorted(lengths)} seconds found, expected one length for all"
        )
    rows, episodes, offset = [], [], 0
    for symbol, (bars, (first, last)) in enumerate(sources):
        count = len(bars.close)
        if not 0 <= first <= last < count - settings.max_steps_in_episode:
            raise InputError(
                f"market.data: symbol {symbol} has {count} bars and episode starts {first} to "
                f"{last}, expected starts of which each leaves "
                f"{settings.max_steps_in_episode} more bars"
            )
        step = quantity_step(settings, float(np.min(np.asarray(bars.low))))
        rows.append(_rows_of(bars, settings.features, settings.market, step))
        episodes.append((symbol, offset + first, offset + last))
        offset += count
    return _market_data(jnp.concatenate(rows), np.asarray(episodes), lengths.pop())


def quantity_step(settings: config.Config, lowest_price: float) -> float:
    """The symbol's smallest quantity, raised by powers of ten until positions fit in float32.

    A full-size position at `lowest_price` (dollars), twice over for gains of the account, must be
    fewer than 2²³ steps, so that int32 and float32 arithmetic on quantities is exact.
    """
    account, step = settings.account, settings.market.quantity_step
    quantity = 2.0 * account.max_position_size_pct * account.initial_capital / lowest_price
    while quantity / step >= EXACT_STEPS:
        step *= 10.0
    return step


@partial(jax.jit, static_argnums=0)
def _generation(feed: SimulatedFeed, key: jax.Array, g: jax.Array) -> jax.Array:
    settings = feed.config
    params, market = settings.simulator, settings.market
    half_spread = 0.5 * settings.fills.bid_ask_spread_bps * simulator.BP
    step = quantity_step(settings, 0.5 * params.start_price)

    def path(index: jax.Array) -> jax.Array:
        path_key = jax.random.fold_in(jax.random.fold_in(key, g), index)
        bars = simulator.simulate(path_key, params, half_spread, market.bar_seconds)
        return _rows(bars, settings.features, market, step)

    rows = jax.vmap(path)(jnp.arange(params.paths))
    return rows.reshape(feed.generation_rows, table.NUM_COLUMNS)


def _rows(bars: Bars, windows: config.Features, market: config.Market, step: float) -> jax.Array:
    return table.build_rows(
        bars,
        features.compute(bars, windows, market.quantity_step),
        tick=market.tick,
        quantity_step=step,
    )


_rows_of = partial(jax.jit, static_argnums=(1, 2, 3))(_rows)


@partial(jax.jit, donate_argnums=0)
def _overwrite(rows: jax.Array, new: jax.Array, offset: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(rows, new, (offset, jnp.zeros_like(offset)))


def _market_data(rows: jax.Array, episodes: np.ndarray, bar_seconds: int) -> MarketData:
    starts = episodes[:, 2] - episodes[:, 1] + 1
    return MarketData(
        rows=rows,
        episodes=jnp.asarray(episodes, jnp.int32),
        cumulative=jnp.asarray(np.cumsum(starts), jnp.int32),
        bar_seconds=bar_seconds,
    )
