"""The feed: which rows are on the device, and where episodes may start.

Simulated paths come in generations. Two are resident, the halves of one table: generation g lies
in half g mod 2 and episodes start only there, while those that started in generation g − 1 finish
in the other half. `advance` then overwrites the older half. Everything is a pure function of the
key and g, so a checkpoint stores those and never the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import features, randomness, rows, simulator, table
from jules_jax.market.bars import Bars
from jules_jax.market.staging import stage
from jules_jax.market.table import MarketData

if TYPE_CHECKING:
    from jules_jax.market.instruments import Instrument

NUMBERS_STREAM = 0x6E756D62
"""Tells the key of what paths draw for themselves from the keys of paths."""


@dataclass(frozen=True)
class SimulatedFeed:
    """Generations of simulated paths for one configuration.

    Schedules of the simulator's numbers take effect with the next generation: generation g has
    their values at the progress of the update that it comes with. What `config.randomise` says of
    the simulator is drawn by every path. Paths to evaluate on (`fresh`) have the end of every
    schedule, and draw nothing.

    transform: what is done to the bars of every path before anything is computed from them
    (`stress`).

    Raises:
      InputError: a path is shorter than its warm-up plus one episode.
    """

    config: config.Config
    transform: Callable[[Bars], Bars] | None = None

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
    def notes(self) -> tuple[str, ...]:
        """Nothing to say: a preset has no surprises."""
        return ()

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

    def generation(self, key: jax.Array, g: int, part: int = 0) -> jax.Array:
        """Rows `[Rg, C]` of generation `g`, path after path; pure in (`key`, `g`, `part`).

        Path p is simulated with `fold_in(fold_in(key, g), p)`, whatever the number of paths. Part
        `part` of a market in several has the paths after those of the parts before.
        """
        first = jnp.int32(part * self.config.simulator.paths)
        generation: jax.Array = _generation(self, key, jnp.int32(g), first, self._scheduled(g))
        return generation

    def _scheduled(self, g: int) -> dict[str, jax.Array]:
        """The simulator's numbers that move, as generation `g` has them, by name."""
        settings = self.config
        keys = [key for each in settings.schedules for key in each.parameters]
        names = [key.partition(".")[2] for key in keys if key.startswith("simulator.")]
        if not names:  # g may be traced
            return {}
        now = settings.at(settings.progress(g * settings.refresh_updates)).simulator
        return {name: jnp.float32(getattr(now, name)) for name in names}

    def resident(self, key: jax.Array, g: int, part: int = 0) -> MarketData:
        """The market with generations `g` and `g` − 1 resident, episodes starting in `g`.

        For `g` = 0 there is no older generation: its half repeats generation 0 and is never read.
        """
        newer = self.generation(key, g, part)
        older = self.generation(key, g - 1, part) if g > 0 else newer
        halves = [older, newer] if g % 2 else [newer, older]
        return self._market(jnp.concatenate(halves), g)

    def fresh(self, key: jax.Array) -> MarketData:
        """The market with generation 0 alone resident, for evaluation."""
        final = replace(self, config=self.config.for_evaluation())
        return final._market(final.generation(key, 0), 0)

    def hidden(self, key: jax.Array) -> simulator.Latent:
        """What the paths of `fresh(key)` hide, `[P, B]` each, path after path; no `transform`."""
        latent: simulator.Latent = _hidden(self.config.for_evaluation(), key)
        return latent

    def advance(self, data: MarketData, key: jax.Array, g: int, part: int = 0) -> MarketData:
        """The market of `resident(key, g, part)`, bit for bit, made from that of `g` − 1.

        `data.rows` is donated: it must not be used again. The rows of generation g − 1, which
        running episodes may still read, stay where they are.
        """
        offset = jnp.int32((g % 2) * self.generation_rows)
        return self._market(overwrite(data.rows, self.generation(key, g, part), offset), g)

    def _market(self, table_rows: jax.Array, g: int) -> MarketData:
        first, last = self.starts
        paths = np.arange(self.config.simulator.paths, dtype=np.int32)
        offset = (g % 2) * self.generation_rows + paths * self.path_bars
        episodes = np.stack([np.zeros_like(offset), offset + first, offset + last], axis=1)
        return market_data(table_rows, episodes, self.config.market.bar_seconds)


class Listing(NamedTuple):
    """A symbol to be traded.

    bars: `[B]`. starts: first and last admissible start, as indices into them. instrument: its
    terms of trade; None takes those of the configuration.
    """

    bars: Bars
    starts: tuple[int, int]
    instrument: Instrument | None = None


def from_bars(
    sources: Sequence[
        Listing | tuple[Bars, tuple[int, int]] | tuple[Bars, tuple[int, int], Instrument | None]
    ],
    settings: config.Config,
) -> MarketData:
    """The market of real bars, one `Listing` per symbol: one generation, never refreshed.

    Raises:
      InputError: there is no source, a range is empty or leaves no room for an episode, or the
        bars differ in length.
    """
    listings = [Listing(*source) for source in sources]
    if not listings:
        raise InputError("market.data: no symbols found, expected at least one")
    lengths = {listing.bars.bar_seconds for listing in listings}
    if len(lengths) > 1:
        raise InputError(
            f"market.data: bars of {sorted(lengths)} seconds found, expected one length for all"
        )
    for symbol, (bars, (first, last), _) in enumerate(listings):
        count = len(bars.close)
        if not 0 <= first <= last < count - settings.max_steps_in_episode:
            raise InputError(
                f"market.data: symbol {symbol} has {count} bars and episode starts {first} to "
                f"{last}, expected starts of which each leaves "
                f"{settings.max_steps_in_episode} more bars"
            )
    tables = [
        rows.compute(bars, rows.terms(bars, instrument, settings), settings.features)
        for bars, _, instrument in listings
    ]
    weights = [(listing.instrument and listing.instrument.weight) or 1.0 for listing in listings]
    return resident_market(
        tables,
        [(symbol, *listing.starts) for symbol, listing in enumerate(listings)],
        densities([last - first + 1 for _, (first, last), _ in listings], weights, settings.market),
        lengths.pop(),
    )


def resident_market(
    tables: Sequence[rows.Rows],
    starts: Sequence[tuple[int, int, int]],
    density: NDArray[np.float64],
    bar_seconds: int,
) -> MarketData:
    """The market of rows `[B, C]` of each symbol, one after the other.

    starts: symbol, first and last admissible start in the symbol's own rows. density: of draws, per
    admissible start, see `densities`.
    """
    offsets = np.cumsum([0, *(len(part) for part in tables[:-1])])
    episodes = np.asarray(starts, np.int64).reshape(-1, 3)
    episodes[:, 1:] += offsets[:, None]
    joined = np.concatenate(tables) if len(tables) > 1 else tables[0]
    weighted = density if np.any(density != density[0]) else None
    return market_data(jnp.asarray(joined), episodes, bar_seconds, weighted)


def densities(
    starts: Sequence[int], weights: Sequence[float], market: config.Market
) -> NDArray[np.float64]:
    """Relative probability `[S]` of one admissible start of each symbol.

    A symbol is drawn in proportion to its number of admissible starts, or (`market.sampling` is
    equal) as often as any other; its weight multiplies either.
    """
    share = np.asarray(weights, np.float64)
    return share / np.asarray(starts, np.float64) if market.sampling == "equal" else share


def market_data(
    table_rows: jax.Array,
    episodes: NDArray[Any],
    bar_seconds: int,
    density: NDArray[np.float64] | None = None,
) -> MarketData:
    """`MarketData` of stretches `[I, 3]`; `density` `[I]`, relative, per start; None: all equal."""
    starts = episodes[:, 2] - episodes[:, 1] + 1
    shares = None
    if density is not None:
        drawn = np.cumsum(density * starts)
        shares = jnp.asarray(np.rint(drawn / drawn[-1] * table.TICKETS), jnp.int32)
    return MarketData(
        rows=table_rows,
        episodes=jnp.asarray(episodes, jnp.int32),
        cumulative=jnp.asarray(np.cumsum(starts), jnp.int32),
        shares=shares,
        bar_seconds=bar_seconds,
    )


@partial(jax.jit, static_argnums=0)
def _generation(
    feed: SimulatedFeed,
    key: jax.Array,
    g: jax.Array,
    first: jax.Array,
    scheduled: dict[str, jax.Array],
) -> jax.Array:
    settings = feed.config
    market = settings.market
    unit = market.quantity_step or rows.DEFAULT_QUANTITY_STEP
    step = rows.exact_step(settings.account, unit, 0.5 * settings.simulator.start_price)

    def path(index: jax.Array) -> jax.Array:
        numbers = scheduled | _drawn(settings, jax.random.fold_in(key, g), index)
        params = replace(settings.simulator, **numbers)  # type: ignore[arg-type]
        half_spread = 0.5 * params.spread_bps * simulator.BP
        bars = simulator.simulate_path(
            jax.random.fold_in(key, g), index, params, half_spread, market.bar_seconds
        )
        if feed.transform is not None:
            bars = feed.transform(_settled(bars, key))
        computed = features.compute(bars, settings.features, unit)
        tick = market.tick or rows.DEFAULT_TICK
        return table.build_rows(bars, computed, tick=tick, quantity_step=step)

    paths = jax.vmap(path)(first + jnp.arange(settings.simulator.paths))
    return paths.reshape(feed.generation_rows, table.NUM_COLUMNS)


def _settled(bars: Bars, key: jax.Array) -> Bars:
    """The bars, of which prices and volumes are what they are without anything that follows.

    So what a scenario leaves alone keeps its bits (`staging`); the calendar is constants.
    """
    never_negative = (jax.random.key_data(key)[0] >> 1).astype(jnp.int32)
    drawn = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    return replace(bars, **stage(never_negative, drawn))


@partial(jax.jit, static_argnums=0)
def _hidden(settings: config.Config, key: jax.Array) -> simulator.Latent:
    half_spread = 0.5 * settings.simulator.spread_bps * simulator.BP
    key = jax.random.fold_in(key, 0)  # generation 0

    def path(index: jax.Array) -> simulator.Latent:
        return simulator.simulate_path_with_latent(
            key, index, settings.simulator, half_spread, settings.market.bar_seconds
        )[1]

    return jax.vmap(path)(jnp.arange(settings.simulator.paths))


def _drawn(settings: config.Config, key: jax.Array, index: jax.Array) -> dict[str, jax.Array]:
    """What path `index` draws of `settings.randomise`, by name: uniform, each from its name."""
    own = jax.random.fold_in(jax.random.fold_in(key, NUMBERS_STREAM), index)
    ranges = {
        each.key: jnp.array([each.low, each.high], jnp.float32)
        for each in settings.randomise
        if each.key.startswith("simulator.")
    }
    return {k.partition(".")[2]: v for k, v in randomness.within(ranges, own).items()}


@partial(jax.jit, donate_argnums=0)
def overwrite(table_rows: jax.Array, new: jax.Array, offset: jax.Array) -> jax.Array:
    """`table_rows` `[R, C]`, which is donated, with `new` from row `offset` on."""
    return jax.lax.dynamic_update_slice(table_rows, new, (offset, jnp.zeros_like(offset)))
