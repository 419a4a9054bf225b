"""Generations of recorded bars: a dataset that is too large for the device, a block at a time.

The admissible starts of every symbol are cut into stretches. A generation is a block of stretches,
dealt from a permutation of them all; an epoch is one such deal. As with simulated paths (`feed`),
two generations are resident, the halves of one table, and all is a function of the key and the
generation's number.

Where starts are not equally likely, a stretch of much probability comes in several generations, and
its shares of them add up, over an epoch, to that probability.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
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

DEALS = 4
"""Entries of an epoch per stretch, where starts are not equally likely: room for copies."""

FITTING_ROUNDS = 500
"""Rounds of proportional fitting; some tens settle it, but where a generation is nearly forced."""

GIB = 2**30
ROW_BYTES = 4 * table.NUM_COLUMNS

Float64 = NDArray[np.float64]

Epoch = tuple[NDArray[np.int64], NDArray[np.int64], Float64]
"""Stretch, generation and share of each entry of an epoch, `[E]`."""


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
    symbols are to be drawn more often than by length, their stretches come in several generations,
    in each once. A generation's shares are such that an epoch keeps the proportions asked for; with
    memory for a single stretch there is nothing to share, and copies alone approximate them.

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
    def _weighted(self) -> bool:
        """Whether some starts are likelier: decided for all generations at once, as is compiled."""
        return len({symbol.density for symbol in self.symbols}) > 1

    @cached_property
    def _mass(self) -> Float64:
        """Probability of each stretch over an epoch: density times starts over their sum."""
        mass = [self.symbols[place].density * starts for place, _, starts in self.stretches]
        share: Float64 = np.asarray(mass) / np.sum(mass)
        return share

    @cached_property
    def _copies(self) -> NDArray[np.int64]:
        """Generations of an epoch that each stretch is in: at least one, as many as its mass asks.

        Copies are in proportion to mass between 1 and all generations, and fill the epoch's slots.
        """
        most, room = self.generations_per_epoch, self.generations_per_epoch * self._room
        low, high = 0.0, most / float(self._mass.min())
        if not self._weighted:
            return np.ones(len(self.stretches), np.int64)
        for _ in range(100):
            middle = 0.5 * (low + high)
            fits = np.clip(np.rint(middle * self._mass), 1, most).sum() <= room
            low, high = (middle, high) if fits else (low, middle)
        return np.clip(np.rint(low * self._mass), 1, most).astype(np.int64)

    @property
    def _room(self) -> int:
        """Most stretches of one generation."""
        return self._memory_rows // self.stretch_rows

    @property
    def generations_per_epoch(self) -> int:
        """Generations in which every stretch comes up."""
        return -(-len(self.stretches) * (DEALS if self._weighted else 1) // self._room)

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
        return [int(index) for index in self._served(key, g)[0]]

    def _served(self, key: jax.Array, g: int) -> tuple[NDArray[np.int64], Float64]:
        """The stretches of generation `g` and their probabilities while it is the newer."""
        epoch, number = divmod(g, self.generations_per_epoch)
        stretch, generation, share = self._epoch(key, epoch)
        return stretch[generation == number], share[generation == number]

    @cached_property
    def _epochs(self) -> dict[tuple[bytes, int], Epoch]:
        """The epoch dealt last, by key and number: all of its generations ask for it."""
        return {}

    def _epoch(self, key: jax.Array, epoch: int) -> Epoch:
        """Deals an epoch: stretches by falling mass, each where there are fewest so far.

        So generations hold equally many, and some of all kinds. Shares are then fitted to two
        margins in turn (Deming & Stephan 1940): those of a generation add up to 1, those of a
        stretch to its mass times the generations.
        """
        seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, epoch)))
        known = seed.tobytes(), epoch
        if known not in self._epochs:
            random = np.random.default_rng(seed)
            number = self.generations_per_epoch
            wanted, chance = self._mass * number, random.random(len(self.stretches))
            # what rounding does to lengths is no reason to come first
            kind = np.rint(64 * np.log2(wanted)) if self._weighted else np.zeros(len(wanted))
            order = np.lexsort((chance, -kind))
            count, places = np.zeros(number, np.int64), []
            for index in order:
                place = np.lexsort((random.random(number), count))[: self._copies[index]]
                count[place] += 1
                places.append(place)
            stretch, generation = np.repeat(order, self._copies[order]), np.concatenate(places)
            share = _fitted(stretch, generation, wanted, self._copies)
            self._epochs.clear()
            self._epochs[known] = (stretch, generation, share)
        return self._epochs[known]

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

    def times(
        self, key: jax.Array, g: int, of: Callable[[int], NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """When the bars of the table of `resident(key, g)` begin, `[2 Rg]`, UTC nanoseconds.

        of: those of a symbol's whole history, by its number. 0 where there is no bar.
        """
        halves = np.zeros(2 * self.generation_rows, np.int64)
        for generation in (g - 1, g) if g else (g,):
            offset = (generation % 2) * self.generation_rows
            for slot, index in enumerate(self.block(key, generation)):
                stretch, place = self.stretches[index], offset + slot * self.stretch_rows
                end = stretch.first + stretch.starts + self.config.max_steps_in_episode
                own = of(self.symbols[stretch.place].number)[stretch.first : end]
                halves[place : place + len(own)] = own
        return halves

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
        for slot, (index, share) in enumerate(zip(*self._served(key, g), strict=True)):
            stretch = self.stretches[index]
            first = offset + slot * self.stretch_rows
            symbol = self.symbols[stretch.place]
            episodes[slot] = (symbol.number, first, first + stretch.starts - 1)
            density[slot] = share / stretch.starts
        return feed.market_data(
            halves, episodes, self.bar_seconds, density if self._weighted else None
        )


def _fitted(
    stretch: NDArray[np.int64],
    generation: NDArray[np.int64],
    wanted: Float64,
    copies: NDArray[np.int64],
) -> Float64:
    """Shares `[E]` of entries, of which every generation's are 1 and every stretch's as `wanted`.

    Where both cannot be, every generation's are 1.
    """
    share: Float64 = (wanted / copies)[stretch]
    for _ in range(FITTING_ROUNDS):
        share = share * (wanted / np.bincount(stretch, share))[stretch]
        total = np.bincount(generation, share)
        share = share / total[generation]
        if np.abs(total - 1.0).max() < 1e-6:
            break
    return share


def _cut(starts: tuple[int, int], span: int) -> Sequence[tuple[int, int]]:
    """Admissible starts first to last, as ranges `[begin, end)` of at most `span`, nearly equal."""
    first, count = starts[0], starts[1] - starts[0] + 1
    parts = -(-count // span)
    edges = [first + count * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))
