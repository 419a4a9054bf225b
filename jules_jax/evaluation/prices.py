"""Prices: what an evaluation is played on, in chunks that fit the memory.

On simulated paths an account lives for one episode, each on a fresh path of its own. On recorded
bars it lives through the whole split, as it would in life: an account for every symbol, and for
every draw of what a policy leaves to chance.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax.config import Config
from jules_jax.errors import InputError
from jules_jax.evaluation import unseen
from jules_jax.evaluation.backtest import Starts, one_per_stretch
from jules_jax.market import dataset, splits
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
    second to the last. session_bars: of the longest session. draw: `[N]`, accounts of one draw
    trade together. key: of what policies draw. key_paths: of `SimulatedFeed.fresh`, which made the
    paths; None of recorded bars. time: `[R]` int64 UTC nanoseconds, 0 of simulated bars.
    """

    config: Config
    market: MarketData
    starts: Starts
    session: Array
    before: Array
    complete: Array
    session_bars: int
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
    played on, in sentences. windows: stretches of time that were joined, each of them played by
    weights that had not seen it; 0 where nothing was joined.
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
    windows: int = 0

    def chunks(self) -> Iterator[Chunk]:
        """The prices, a chunk at a time; the same ones whenever it is asked.

        Raises `ValueError` where the bars were let go of: of `joined`, and after `without_bars`.
        """
        if self.recorded is not None:
            yield self.recorded
            return
        if self.labels:
            raise ValueError("the bars of these prices are not held any more")
        for number in range(-(-self.accounts // CHUNK)):
            yield _simulated(self.config, number, min(self.accounts, CHUNK))


def without_bars(prices: Prices) -> Prices:
    """What is told of recorded prices, so that their table need not stay in memory."""
    return dataclasses.replace(prices, recorded=None)


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
    source = _without_episodes(dataset.load(config))
    left_out = unplayed(source, split)
    chunk, days = _through(source, split, draws, unseen.keys(config)[1])
    labels = tuple(np.datetime_as_string(days).tolist())
    names = source.symbols
    notes = (
        f"{config.market.data}, {split} split: {len(days)} sessions, {labels[0]} to {labels[-1]}, "
        f"of {', '.join(names)}; {draws} draw{'' if draws == 1 else 's'}, "
        "an account of each symbol in each",
        *source.notes,
        *left_out,
    )
    unit = _unit(len(days))
    return Prices(config, split, len(chunk.draw), draws, names, labels, unit, notes, chunk)


def _unit(sessions: int) -> str:
    return f"account through {sessions} session{'' if sessions == 1 else 's'}"


def joined(parts: Sequence[Prices]) -> Prices:
    """The sessions of several splits, one after the other in time: what was played, not to play.

    Accounts of all are one account of each symbol and draw. Raises `ValueError` where a split does
    not begin after the one before has ended, has no dates, or has another number of draws.
    """
    if not all(part.labels for part in parts):
        raise ValueError("found prices without dates, expected recorded bars")
    if len({part.draws for part in parts}) != 1:
        raise ValueError(f"found {[part.draws for part in parts]} draws, expected as many in each")
    for before, after in itertools.pairwise(parts):
        if not before.labels[-1] < after.labels[0]:
            raise ValueError(f"a test ends {before.labels[-1]}, the next begins {after.labels[0]}")
    first, *_, last = (parts[0], *parts)
    labels = tuple(itertools.chain.from_iterable(part.labels for part in parts))
    names = dict.fromkeys(itertools.chain.from_iterable(part.symbols for part in parts))
    notes = list(first.notes[1:])  # of two symbols the same may be noted
    for part in parts[1:]:
        notes += [note for note in part.notes[1:] if note not in notes]
    market = (
        f"{first.config.market.data}, {len(parts)} tests one after the other: {len(labels)} "
        f"sessions, {labels[0]} to {labels[-1]}, of {', '.join(names)}; {first.draws} draws, an "
        "account of each symbol in each"
    )
    return Prices(
        last.config, last.split, first.draws * len(names), first.draws, tuple(names), labels,
        _unit(len(labels)), (market, *notes), windows=len(parts),
    )  # fmt: skip


def _without_episodes(source: Dataset) -> Dataset:
    """The dataset with the shortest of episodes: a step is enough for a symbol to be let in."""
    return dataclasses.replace(
        source, config=dataclasses.replace(source.config, max_steps_in_episode=1)
    )


def unplayed(source: Dataset, split: Split) -> tuple[str, ...]:
    """A sentence for each symbol without bars to trade in a split.

    Raises `InputError` where the split has none of any symbol.
    """
    source = _without_episodes(source)
    plan = splits.plan(source.histories, source.config)[split]
    if not any(plan.ranges):
        warmup = source.config.features.lookback_window
        before = f", after the {warmup:,} bars of warm-up," if warmup else ""
        raise InputError(
            f"{source.config.market.data}: the {split} split ({plan.period}) has no session with "
            f"bars, expected at least one{before} of those from {_span(source)}"
        )
    return tuple(
        f"{name} is left out of the {split} split ({plan.period}): it has no session with bars "
        "there"
        for name, found in zip(source.symbols, plan.ranges, strict=True)
        if found is None
    )


def _span(source: Dataset) -> str:
    dates = np.concatenate([each.dates for each in source.histories])
    return f"{dates.min()} to {dates.max()}"


def _through(source: Dataset, split: Split, draws: int, key: jax.Array) -> tuple[Chunk, Dates]:
    """Accounts that trade a whole split of a dataset, and the dates of its sessions.

    They come draw after draw, in each of them the symbols that the split has bars of.
    """
    market, dates = source.market(split), source.dates(split)
    days, session = np.unique(dates, return_inverse=True)
    symbol, first, last = np.tile(np.asarray(market.episodes), (draws, 1)).T.astype(np.int32)
    steps = last - first + 1
    starts = Starts(first, symbol, symbol, steps)
    session, before = session.astype(np.int32), np.zeros(len(first), np.int32)
    first_rows, ends = _sessions(session, starts.row)
    chunk = Chunk(
        dataclasses.replace(source.config, max_steps_in_episode=int(steps.max())),
        market,
        starts,
        session,
        before,
        _complete(session, before, starts, len(days), starts.row),
        int((ends - first_rows).max()),
        np.repeat(np.arange(draws), len(market.episodes)),
        key,
        None,
        source.times(split),
    )
    return chunk, days


def _simulated(config: Config, number: int, accounts: int) -> Chunk:
    key_paths, key_play = (jax.random.fold_in(key, number) for key in unseen.keys(config))
    feed = unseen.fresh_feed(config, accounts)
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
        config, market, starts, session, before, complete, config.simulator.bars_per_session,
        np.zeros(accounts, int), key_play, key_paths, np.zeros(len(rows), np.int64),
    )  # fmt: skip


def _complete(
    session: Array, before: Array, starts: Starts, sessions: int, symbols: Array
) -> Array:
    """`Chunk.complete` `[N, D]`, of accounts with steps.

    symbols: rows where another one begins, it may be in a session that the last one ended in.
    """
    assert starts.steps is not None
    first_rows, ends = _sessions(session, symbols)
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


def _sessions(session: Array, symbols: Array) -> tuple[Array, Array]:
    """Rows at which stretches of one session of one symbol begin, and those after their last."""
    begins = np.diff(session, prepend=session[:1] - 1) != 0
    begins[symbols] = True
    first_rows = np.flatnonzero(begins)
    return first_rows, np.append(first_rows[1:], len(session))
