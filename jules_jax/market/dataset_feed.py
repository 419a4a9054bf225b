"""Generations of recorded bars: a dataset that is too large for the device, a block at a time.

The admissible starts of every symbol are cut into stretches. A generation is a block of stretches,
the next of a permutation of them all; an epoch is one such permutation. As with simulated paths
(`feed`), two generations are resident, the halves of one table, and all is a function of the key
and the generation's number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import feed, table
from jules_jax.market.rows import Rows
from jules_jax.market.table import MarketData

MOST_STRETCHES = 256
"""Stretches in a generation, where that leaves them long: few are quicker to draw from."""

LEAST_EPISODES = 8
"""A stretch is this many episodes long, where there is memory: 1/8 of its rows are in two."""

GIB = 2**30
ROW_BYTES = 4 * table.NUM_COLUMNS


class SymbolRows(NamedTuple):
    """A symbol of a large dataset.

    number: as in `MarketData.episodes`. rows: `[B, C]`, usually mapped from a file. starts: first
    and last admissible start. density: of draws, per start, see `feed.densities`.
    """

    number: int
    rows: Rows
    starts: tuple[int, int]
    density: float = 1.0


class Stretch(NamedTuple):
    """`starts` admissible starts of one symbol (its place in the feed), from row `first` on."""

    place: int
    first: int
    starts: int


@dataclass(frozen=True)
class DatasetFeed:
    """Generations of a dataset for one configuration; the interface of `feed.SimulatedFeed`.

    Every admissible start is in one stretch and every stretch in one generation of an epoch. Where
    symbols are to be drawn more often than by length, their stretches come several times.

    Raises:
      InputError: two generations of one episode each do not fit in `market.market_memory`, or
        `market.refresh_updates` would replace rows that an episode still reads.
    """

    symbols: tuple[SymbolRows, ...]
    config: config.Config
    bar_seconds: int

    def __post_init__(self) -> None:
        """Refuses a memory that is too small, and refreshes that come too soon."""
        market, episode = self.config.market, self.config.max_steps_in_episode
        needed = 2 * (episode + 1) * ROW_BYTES / GIB
        if self._memory_rows < episode + 1:
            raise InputError(
                f"market.market_memory is {market.market_memory:g} GiB, expected at least "
                f"{needed:.2g}, two generations of one episode each"
            )
        enough = -(-episode // self.config.ppo.n_steps)
        if self.config.refresh_updates < enough:
            raise InputError(
                f"market.refresh_updates is {market.refresh_updates}, expected at least {enough} "
                "(max_steps_in_episode / ppo.n_steps), as older episodes still read the rows "
                "replaced"
            )

    @property
    def _memory_rows(self) -> int:
        """Most rows of one generation."""
        return int(self.config.market.market_memory * GIB / (2 * ROW_BYTES))

    @property
    def stretch_rows(self) -> int:
        """Rows of every stretch, `Rs`; shorter ones are padded."""
        episode, most = self.config.max_steps_in_episode, self._memory_rows
        return min(max(LEAST_EPISODES * episode, most // MOST_STRETCHES, episode + 1), most)

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """All stretches; those of one symbol are equally long, to within one start."""
        span = self.stretch_rows - self.config.max_steps_in_episode
        return tuple(
            Stretch(place, begin, end - begin)
            for place, symbol in enumerate(self.symbols)
            for begin, end in _cut(symbol.starts, span)
        )

    @cached_property
    def _copies(self) -> NDArray[np.int64]:
        """How often each stretch comes in an epoch; what that rounds off is left to the draw."""
        relative = self._density / self._density.min()
        copies: NDArray[np.int64] = np.rint(relative).astype(np.int64)
        return copies

    @property
    def _density(self) -> NDArray[np.float64]:
        return np.asarray([self.symbols[stretch.place].density for stretch in self.stretches])

    @property
    def generations_per_epoch(self) -> int:
        """Generations in which every stretch comes up."""
        return -(-int(self._copies.sum()) // (self._memory_rows // self.stretch_rows))

    @property
    def slots(self) -> int:
        """Stretches in one generation; the last one of a generation may be empty."""
        return -(-int(self._copies.sum()) // self.generations_per_epoch)

    @property
    def generation_rows(self) -> int:
        """Rows of one generation, `Rg`."""
        return self.slots * self.stretch_rows

    @property
    def notes(self) -> tuple[str, ...]:
        """What is resident and for how long, in a sentence."""
        mib = 2 * self.generation_rows * ROW_BYTES / 2**20
        return (
            f"served in generations, {self.generations_per_epoch:,} to an epoch: {self.slots:,} "
            f"stretches of {self.stretch_rows:,} bars each, two generations resident "
            f"({mib:,.0f} MiB), a new one every {self.config.refresh_updates:,} updates",
        )

    def block(self, key: jax.Array, g: int) -> list[int]:
        """The stretches of generation `g`, as indices; pure in (`key`, `g`)."""
        epoch, number = divmod(g, self.generations_per_epoch)
        every = np.repeat(np.arange(len(self.stretches)), self._copies)
        order = jax.random.permutation(jax.random.fold_in(key, epoch), len(every))
        blocks = np.array_split(every[np.asarray(order)], self.generations_per_epoch)
        return [int(index) for index in blocks[number]]

    def resident(self, key: jax.Array, g: int) -> MarketData:
        """The market with generations `g` and `g` − 1 resident, episodes starting in `g`.

        For `g` = 0 the older half is zeros, which nothing reads.
        """
        halves = jnp.zeros((2 * self.generation_rows, table.NUM_COLUMNS), jnp.float32)
        if g > 0:
            halves = self._bring_in(halves, key, g - 1)
        return self._market(self._bring_in(halves, key, g), key, g)

    def advance(self, data: MarketData, key: jax.Array, g: int) -> MarketData:
        """The market of `resident(key, g)`, bit for bit, made from that of `g` − 1.

        `data.rows` is donated: it must not be used again. The rows of generation g − 1, which
        running episodes may still read, stay where they are.
        """
        return self._market(self._bring_in(data.rows, key, g), key, g)

    def _bring_in(self, halves: jax.Array, key: jax.Array, g: int) -> jax.Array:
        """The table with generation `g` in its half, a stretch at a time: no second copy of it."""
        offset = (g % 2) * self.generation_rows
        for slot, index in enumerate(self.block(key, g)):
            place = np.int32(offset + slot * self.stretch_rows)
            halves = feed.overwrite(halves, self._read(self.stretches[index]), place)
        return halves

    def _read(self, stretch: Stretch) -> Rows:
        """Rows `[Rs, C]` that episodes from a stretch's starts may read; zeros after them."""
        end = stretch.first + stretch.starts + self.config.max_steps_in_episode
        read = self.symbols[stretch.place].rows[stretch.first : end]
        return np.pad(read, ((0, self.stretch_rows - len(read)), (0, 0)))

    def _market(self, halves: jax.Array, key: jax.Array, g: int) -> MarketData:
        offset = (g % 2) * self.generation_rows
        # an empty slot has no start: its last one is before its first
        episodes = np.tile([0, offset, offset - 1], (self.slots, 1))
        density = np.ones(self.slots)
        for slot, index in enumerate(self.block(key, g)):
            stretch = self.stretches[index]
            first = offset + slot * self.stretch_rows
            symbol = self.symbols[stretch.place]
            episodes[slot] = (symbol.number, first, first + stretch.starts - 1)
            density[slot] = symbol.density / self._copies[index]
        # decided for all generations at once, as it is compiled
        weighted = len({symbol.density for symbol in self.symbols}) > 1
        return feed.market_data(halves, episodes, self.bar_seconds, density if weighted else None)


def _cut(starts: tuple[int, int], span: int) -> Sequence[tuple[int, int]]:
    """Admissible starts first to last, as ranges `[begin, end)` of at most `span`, nearly equal."""
    first, count = starts[0], starts[1] - starts[0] + 1
    parts = -(-count // span)
    edges = [first + count * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))
