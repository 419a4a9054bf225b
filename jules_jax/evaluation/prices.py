"""Prices: what an evaluation is played on, in chunks that fit the memory.

On simulated paths an account lives for one episode, each on a fresh path of its own. On recorded
bars it lives through the whole split, as it would in life: an account for every symbol, and for
every draw of what a policy leaves to chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax.config import Config
from jules_jax.evaluation import comparison
from jules_jax.evaluation.backtest import Starts, one_per_stretch
from jules_jax.market import dataset
from jules_jax.market.dataset import Dataset
from jules_jax.market.splits import Dates, Split
from jules_jax.market.table import MarketData, Row

CHUNK = 128
"""Accounts on simulated paths that play at once."""
MINUTE = Row._fields.index("minute")
"""The table's column of minutes since the session's open."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Chunk:
    """N accounts that play side by side, R table rows that they read, D sessions of each.

    config: with episodes as long as the longest account. session: `[R]` int32 number of each row's
    session; before: `[N]` int32 the number that an account's own sessions are counted from.
    complete: `[N, D]` bool, the sessions that an account is there for, from the first bar or the
    second to the last. draw: `[N]`, accounts of one draw trade together. key: of what policies
    draw. key_paths: of `SimulatedFeed.fresh`, which made the paths; None of recorded bars. time:
    `[R]` int64 UTC nanoseconds, 0 of simulated bars.
    """

    config: Config
    market: MarketData
    starts: Starts
    session: Array
    before: Array
    complete: Array
    draw: Array
    key: jax.Array
    key_paths: jax.Array | None
    time: Array

    @property
    def minute(self) -> Array:
        """Minutes `[R]` from the open of its session to each row."""
        return np.asarray(self.market.rows[:, MINUTE])


@dataclass(frozen=True)
class Prices:
    """What all policies of an evaluation play.

    draws: accounts of one symbol that differ in nothing but chance, 1 on simulated paths. symbols:
    names, in the order of their numbers. labels: dates of the sessions, none on simulated paths,
    where an account's sessions have no name. unit: what one account is, in words. notes: what is
    played on, in sentences.
    """

    config: Config
    split: Split | None
    accounts: int
    draws: int
    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    unit: str
    notes: tuple[str, ...]
    recorded: Chunk | None = None

    def chunks(self) -> Iterator[Chunk]:
        """The prices, a chunk at a time; the same ones whenever it is asked."""
        if self.recorded is not None:
            yield self.recorded
            return
        for number in range(-(-self.accounts // CHUNK)):
            yield _simulated(self.config, number, min(self.accounts, CHUNK))


def simulated(config: Config, episodes: int) -> Prices:
    """At least `episodes` accounts, whole chunks of them, each on a fresh path for one episode."""
    size = min(episodes, CHUNK)
    count = size * -(-episodes // size)
    unit = episode(config)
    notes = (f"{count:,} fresh simulated paths, preset {config.simulator.preset}, an {unit} each",)
    return Prices(config, None, count, 1, ("simulated",), (), unit, notes)


def episode(config: Config) -> str:
    """What an account is where it lives for one episode, in words."""
    return f"episode of {config.max_steps_in_episode:,} steps"


def recorded(config: Config, split: Split, draws: int) -> Prices:
    """The sessions of a split of `market.data`: `draws` accounts of each symbol, through them all.

    Raises `InputError` where the split is empty or larger than `market.market_memory`.
    """
    # what is noted is of the bars there are, not of those that have room for a long episode
    source = dataset.load(dataclasses.replace(config, max_steps_in_episode=1))
    chunk, days = through(source, split, draws, _keys(config)[1])
    labels = tuple(np.datetime_as_string(days).tolist())
    names = source.symbols
    notes = (
        f"{config.market.data}, {split} split: {len(days)} sessions, {labels[0]} to {labels[-1]}, "
        f"of {', '.join(names)}; {draws} draws, an account of each symbol in each",
        *source.notes,
        *source.plan(split).notes,
    )
    unit = f"account through {len(days)} sessions"
    return Prices(config, split, len(chunk.draw), draws, names, labels, unit, notes, chunk)


def through(source: Dataset, split: Split, draws: int, key: jax.Array) -> tuple[Chunk, Dates]:
    """Accounts that trade a whole split of a dataset, and the dates of its sessions.

    They come draw after draw, in each of them the symbols that the split has bars of.
    """
    # a step is enough of an episode to be let in; it then goes on to the end
    bars = dataclasses.replace(source.config, max_steps_in_episode=1)
    source = dataclasses.replace(source, config=bars)
    market, dates = source.market(split), source.dates(split)
    days, session = np.unique(dates, return_inverse=True)
    symbol, first, last = np.tile(np.asarray(market.episodes), (draws, 1)).T.astype(np.int32)
    steps = last - first + 1
    starts = Starts(first, symbol, symbol, steps)
    session, before = session.astype(np.int32), np.zeros(len(first), np.int32)
    chunk = Chunk(
        dataclasses.replace(bars, max_steps_in_episode=int(steps.max())),
        market,
        starts,
        session,
        before,
        _complete(session, before, starts, len(days), starts.row),
        np.repeat(np.arange(draws), len(market.episodes)),
        key,
        None,
        source.times(split),
    )
    return chunk, days


def _keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """Keys of the paths and of the policies' draws."""
    key = jax.random.fold_in(jax.random.key(config.seed), comparison.EVALUATION_KEY)
    key_paths, key_play = jax.random.split(key)
    return key_paths, key_play


def _simulated(config: Config, number: int, accounts: int) -> Chunk:
    key_paths, key_play = (jax.random.fold_in(key, number) for key in _keys(config))
    feed = comparison.fresh_feed(config, accounts)
    market = feed.fresh(key_paths)
    starts = one_per_stretch(np.asarray(market.episodes), accounts, (config.seed, number))
    steps = np.full(accounts, config.max_steps_in_episode, np.int32)
    starts = dataclasses.replace(starts, cluster=starts.cluster + number * accounts, steps=steps)
    rows = np.arange(len(market.rows))
    session = (rows // config.simulator.bars_per_session).astype(np.int32)
    before = session[starts.row + 1]
    sessions = int((session[starts.row + steps] - before).max()) + 1
    most = -(-config.max_steps_in_episode // config.simulator.bars_per_session) + 1
    none = np.zeros(0, np.int32)  # sessions of all paths have numbers of their own
    complete = _complete(session, before, starts, max(sessions, most), none)
    return Chunk(
        config, market, starts, session, before, complete, np.zeros(accounts, int),
        key_play, key_paths, np.zeros(len(rows), np.int64),
    )  # fmt: skip


def _complete(
    session: Array, before: Array, starts: Starts, sessions: int, symbols: Array
) -> Array:
    """`Chunk.complete` `[N, D]`, of accounts with steps.

    symbols: rows where another one begins, it may be in a session that the last one ended in.
    """
    assert starts.steps is not None
    begins = np.diff(session, prepend=session[:1] - 1) != 0
    begins[symbols] = True
    first_rows = np.flatnonzero(begins)
    ends = np.append(first_rows[1:], len(session))
    found = np.zeros((len(starts.row), sessions), bool)
    for account, (start, steps) in enumerate(zip(starts.row, starts.steps, strict=True)):
        begin, end = start + 1, start + steps + 1  # the rows it executes in
        stretches = slice(
            np.searchsorted(ends, begin, side="right"), np.searchsorted(first_rows, end)
        )
        whole = (begin <= first_rows[stretches] + 1) & (end >= ends[stretches])
        place = session[first_rows[stretches]] - before[account]
        found[account, place[whole]] = True
    return found
