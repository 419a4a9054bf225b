"""Generations of recorded bars: every start comes up, and no episode reads two generations."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import dataset_feed, table
from jules_jax.market.dataset_feed import GIB, ROW_BYTES, DatasetFeed, SymbolRows

KEY = jax.random.key(3)
STEPS, MEMORY_ROWS = 40, 1000
SETTINGS = config.Config(
    max_steps_in_episode=STEPS,
    market=config.Market(data="DIR", market_memory=2 * MEMORY_ROWS * ROW_BYTES / GIB),
)


def symbol(number: int, bars: int, first: int, density: float = 1.0) -> SymbolRows:
    """Rows that tell themselves apart: symbol number and place in its history."""
    rows = np.zeros((bars, table.NUM_COLUMNS), np.float32)
    rows[:, 0], rows[:, 1] = number, np.arange(bars)
    return SymbolRows(number, rows, (first, bars - 1 - STEPS), density)


SYMBOLS = (symbol(0, 3000, 50), symbol(4, 250, 60), symbol(2, 1700, 51))
FEED = DatasetFeed(SYMBOLS, SETTINGS, 60)


def starts_of(data: table.MarketData) -> list[tuple[int, int]]:
    """Symbol and place in its history of every start that may be drawn, by what its row says."""
    rows = np.asarray(data.rows)
    found = []
    for number, first, last in np.asarray(data.episodes):
        labels = rows[first : last + 1, :2].astype(int)
        assert np.all(labels[:, 0] == number)
        found += [(int(number), int(place)) for place in labels[:, 1]]
    return found


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_serves_every_admissible_start_exactly_once(epoch: int) -> None:
    count = FEED.generations_per_epoch
    assert count == 6  # 17 stretches, three to a generation
    served = Counter()
    for g in range(epoch * count, (epoch + 1) * count):
        served.update(starts_of(FEED.resident(KEY, g)))
    expected = {
        (one.number, start) for one in SYMBOLS for start in range(one.starts[0], one.starts[1] + 1)
    }
    assert served == Counter(expected)


def test_epochs_and_keys_shuffle_differently() -> None:
    epoch = range(FEED.generations_per_epoch)
    orders = [
        functools.reduce(operator.iadd, (FEED.block(key, g + shift) for g in epoch), [])
        for key, shift in ((KEY, 0), (KEY, len(epoch)), (jax.random.key(4), 0))
    ]
    assert all(sorted(order) == list(range(len(FEED.stretches))) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert FEED.block(KEY, 4) == DatasetFeed(SYMBOLS, SETTINGS, 60).block(KEY, 4)


def test_all_generations_have_one_shape_within_the_memory() -> None:
    shapes = {
        tuple(leaf.shape for leaf in jax.tree.leaves(FEED.resident(KEY, g))) for g in range(7)
    }
    assert len(shapes) == 1
    rows = FEED.resident(KEY, 0).rows
    assert rows.nbytes <= SETTINGS.market.market_memory * GIB
    assert len(rows) == 2 * FEED.generation_rows == 2 * 3 * 320  # 8 episodes a stretch


def test_advancing_equals_a_fresh_start_and_leaves_the_older_generation_untouched() -> None:
    data = FEED.resident(KEY, 0)
    for g in range(1, FEED.generations_per_epoch + 2):
        before = np.asarray(data.rows)
        older = slice(((g - 1) % 2) * len(before) // 2, ((g - 1) % 2 + 1) * len(before) // 2)
        data = FEED.advance(data, KEY, g)
        np.testing.assert_array_equal(np.asarray(data.rows)[older], before[older])
        if g > 1:  # before that, what is older is never read
            for x, y in zip(
                jax.tree.leaves(data), jax.tree.leaves(FEED.resident(KEY, g)), strict=True
            ):
                np.testing.assert_array_equal(x, y)


def test_every_row_an_episode_reads_is_the_next_of_its_own_symbol() -> None:
    """A refresh every STEPS steps, the soonest that the configuration allows."""
    data, rng = FEED.resident(KEY, 0), np.random.default_rng(0)
    running: list[list[int]] = []  # symbol, place in its history, table row, steps done
    read = 0
    for g in range(2 * FEED.generations_per_epoch):
        if g > 0:
            data = FEED.advance(data, KEY, g)
        for _ in range(4):
            rows = np.asarray(data.rows)
            lines = [line for line in np.asarray(data.episodes) if line[1] <= line[2]]
            for number, first, last in (lines[i] for i in rng.integers(0, len(lines), 5)):
                start = int(rng.choice([first, last, rng.integers(first, last + 1)]))
                running.append([int(number), int(rows[start, 1]), start, 0])
            for lane in running:
                number, place, start, done = lane
                span = np.arange(done, done + STEPS // 4 + 1)
                labels = rows[start + span, :2]
                np.testing.assert_array_equal(labels[:, 0], number)
                np.testing.assert_array_equal(labels[:, 1], place + span)
                lane[3] += STEPS // 4
                read += 1
            running = [lane for lane in running if lane[3] < STEPS]
    assert read > 500


def probabilities(feed: DatasetFeed) -> dict[int, float]:
    """How likely each symbol is at a draw of the first epoch, its generations lasting alike."""
    drawn: Counter[int] = Counter()
    for g in range(feed.generations_per_epoch):
        data = feed.resident(KEY, g)
        shares = np.diff(np.asarray(data.shares), prepend=0) / table.TICKETS
        assert data.shares is not None and data.shares[-1] == table.TICKETS
        for (number, *_), share in zip(np.asarray(data.episodes), shares, strict=True):
            drawn[int(number)] += share / feed.generations_per_epoch
    return drawn


@pytest.mark.parametrize(
    ("starts", "weights"),
    [
        ((2900, 150, 1600), (2900.0, 1110.0, 2560.0)),
        ((20_000, 200), (1.0, 1.0)),  # equal, of very unequal lengths
        ((20_000, 100), (1.0, 1.0)),
        ((20_000, 20), (1.0, 1.0)),
        ((5000, 5000), (1.0, 1e-4)),  # long, and all but never wanted
        ((5000, 3000, 50), (1e-3, 1.0, 5.0)),
        ((700,) * 12, tuple(range(1, 13))),
    ],
)
def test_an_epoch_draws_symbols_in_the_proportions_asked_for(
    starts: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    feed = DatasetFeed(
        tuple(
            symbol(number, count + STEPS, 0, weight / count)
            for number, (count, weight) in enumerate(zip(starts, weights, strict=True))
        ),
        SETTINGS,
        60,
    )
    drawn = probabilities(feed)
    found = np.asarray([drawn[number] for number in range(len(starts))])
    np.testing.assert_allclose(found, np.asarray(weights) / sum(weights), rtol=2e-3)


def test_a_symbol_of_little_weight_does_not_make_epochs_longer() -> None:
    epochs = [
        DatasetFeed(
            (symbol(0, 3000, 50), symbol(1, 3000, 50, weight)), SETTINGS, 60
        ).generations_per_epoch
        for weight in (0.5, 1e-9)
    ]
    assert epochs[0] == epochs[1] < 40


def test_every_start_comes_up_in_a_weighted_epoch_and_no_generation_holds_it_twice() -> None:
    weighted = DatasetFeed((symbol(0, 3000, 50), symbol(1, 160, 50, 40.0)), SETTINGS, 60)
    seen = set()
    for g in range(weighted.generations_per_epoch):
        block = weighted.block(KEY, g)
        assert len(block) == len(set(block)) <= weighted.slots <= 3
        seen |= set(block)
    assert seen == set(range(len(weighted.stretches)))


def test_refreshes_too_soon_and_too_little_memory_are_refused() -> None:
    early = replace(
        SETTINGS, ppo=config.PPO(n_steps=16), market=replace(SETTINGS.market, refresh_updates=2)
    )
    with pytest.raises(InputError, match=r"refresh_updates is 2, expected at least 3"):
        DatasetFeed(SYMBOLS, early, 60)
    little = replace(SETTINGS, market=config.Market(market_memory=2 * STEPS * ROW_BYTES / GIB))
    with pytest.raises(InputError, match=r"market_memory is .* GiB, expected at least"):
        DatasetFeed(SYMBOLS, little, 60)


def test_stretches_are_long_where_memory_is_large() -> None:
    roomy = replace(SETTINGS, market=config.Market(market_memory=0.1))
    feed = DatasetFeed(SYMBOLS, roomy, 60)
    rows = int(0.1 * GIB / 2 / ROW_BYTES)
    assert feed.stretch_rows == max(rows // dataset_feed.MOST_STRETCHES, 8 * STEPS)
