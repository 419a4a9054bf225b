"""Two generations, one table: what is overwritten, when, and where episodes may start."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jules_jax import config
from jules_jax.env.episodes import draw_start
from jules_jax.errors import InputError
from jules_jax.market import feed, simulator, table

PATHS, SESSIONS, SLOTS, STEPS = 3, 5, 30, 40
SETTINGS = config.Config(
    max_steps_in_episode=STEPS,
    simulator=config.Simulator(
        paths=PATHS, sessions=SESSIONS, bars_per_session=SLOTS, warmup_sessions=2
    ),
)
FEED = feed.SimulatedFeed(SETTINGS)
KEY = jax.random.key(7)
ROWS = PATHS * SESSIONS * SLOTS


@jax.jit
def simulate(key: jax.Array) -> simulator.Bars:
    return simulator.simulate(key, SETTINGS.simulator, 2.5e-4)


def test_a_generation_is_a_pure_function_of_key_and_number() -> None:
    rows = np.asarray(FEED.generation(KEY, 4))
    assert rows.shape == (ROWS, table.NUM_COLUMNS) and np.isfinite(rows).all()
    np.testing.assert_array_equal(rows, feed.SimulatedFeed(SETTINGS).generation(KEY, 4))
    closes = [
        np.asarray(FEED.generation(key, g))[:, table.Row._fields.index("close")]
        for key, g in ((KEY, 4), (KEY, 5), (jax.random.key(8), 4))
    ]
    assert all((closes[0] != other).mean() > 0.99 for other in closes[1:])
    by_path = closes[0].reshape(PATHS, -1)
    assert (by_path[0] != by_path[1]).mean() > 0.99


def test_a_path_depends_on_its_number_only() -> None:
    key = jax.random.fold_in(jax.random.fold_in(KEY, 4), 1)
    bars = simulate(key)
    second = slice(SESSIONS * SLOTS, 2 * SESSIONS * SLOTS)
    row = table.read_row(FEED.generation(KEY, 4)[second], jnp.arange(SESSIONS * SLOTS))
    np.testing.assert_allclose(row.close, bars.close, rtol=1e-6)


def test_advancing_equals_a_fresh_start_and_leaves_the_older_generation_untouched() -> None:
    data = FEED.resident(KEY, 0)
    for g in (1, 2, 3):
        before = np.asarray(data.rows)
        kept = slice(((g - 1) % 2) * ROWS, ((g - 1) % 2 + 1) * ROWS)
        data = FEED.advance(data, KEY, g)
        after = np.asarray(data.rows)
        np.testing.assert_array_equal(after[kept], before[kept])
        np.testing.assert_array_equal(after[kept], FEED.generation(KEY, g - 1))
        fresh = FEED.resident(KEY, g)
        for x, y in zip(jax.tree.leaves(data), jax.tree.leaves(fresh), strict=True):
            np.testing.assert_array_equal(x, y)


def test_every_row_an_episode_reads_is_that_of_the_generation_it_started_in() -> None:
    data = FEED.resident(KEY, 0)
    rng = np.random.default_rng(0)
    running: list[tuple[int, int, int]] = []  # generation, start row, steps done
    half_episode = STEPS // 2
    for g in range(4):
        if g > 0:  # a refresh every STEPS steps, the soonest that the configuration allows
            data = FEED.advance(data, KEY, g)
        for _ in range(2):
            lines = np.asarray(data.episodes)[rng.integers(0, PATHS, 4)]
            running += [(g, int(rng.integers(a, b + 1)), 0) for _, a, b in lines]
            rows = np.asarray(data.rows)
            for i, (born, start, done) in enumerate(running):
                read = np.arange(start + done, start + done + half_episode + 1)
                own = np.asarray(FEED.generation(KEY, born))
                np.testing.assert_array_equal(rows[read], own[read - (born % 2) * ROWS])
                running[i] = (born, start, done + half_episode)
            running = [r for r in running if r[2] < STEPS]


@pytest.mark.parametrize("g", [0, 3])
def test_starts_lie_in_the_newer_half_after_warm_up_and_leave_room_for_an_episode(g: int) -> None:
    data = FEED.resident(KEY, g)
    path_length, warm = SESSIONS * SLOTS, max(50, 2 * SLOTS)
    for path, (symbol, first, last) in enumerate(np.asarray(data.episodes)):
        begin = (g % 2) * ROWS + path * path_length
        assert symbol == 0
        assert first == begin + warm
        assert last + STEPS == begin + path_length - 1  # the last row that such an episode reads
    per_path = path_length - STEPS - warm
    np.testing.assert_array_equal(data.cumulative, per_path * np.arange(1, PATHS + 1))
    assert data.episodes.dtype == data.cumulative.dtype == jnp.int32


def test_a_path_without_room_for_an_episode_is_refused_in_one_sentence() -> None:
    short = replace(SETTINGS, max_steps_in_episode=SESSIONS * SLOTS - 2 * SLOTS)
    with pytest.raises(InputError, match=r"has 150 bars, expected at least 151"):
        feed.SimulatedFeed(short)
    feed.SimulatedFeed(replace(short, max_steps_in_episode=short.max_steps_in_episode - 1))


def real_bars(seed: int) -> simulator.Bars:
    return jax.tree.map(np.asarray, simulate(jax.random.key(seed)))


def test_real_symbols_share_one_table_at_their_own_offsets() -> None:
    sources = [(real_bars(0), (60, 80)), (real_bars(1), (70, 100))]
    data = feed.from_bars(sources, SETTINGS)
    count = SESSIONS * SLOTS
    np.testing.assert_array_equal(data.episodes, [[0, 60, 80], [1, count + 70, count + 100]])
    np.testing.assert_array_equal(data.cumulative, [21, 21 + 31])
    row = table.read_row(data.rows, jnp.arange(2 * count))
    np.testing.assert_array_equal(row.close, np.concatenate([b.close for b, _ in sources]))
    assert row.session_open[count] == 1 and row.previous_close[count] == row.open[count]
    assert row.sigma_before[count] == np.float32(1e-6)  # nothing crosses from symbol to symbol


@pytest.mark.parametrize(
    ("starts", "said"), [((60, 110), "leaves 40 more bars"), ((80, 60), "starts 80 to 60")]
)
def test_real_starts_without_room_are_refused(starts: tuple[int, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        feed.from_bars([(real_bars(0), starts)], SETTINGS)


def test_no_symbols_and_mixed_bar_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="no symbols"):
        feed.from_bars([], SETTINGS)
    five = replace(real_bars(0), bar_seconds=300)
    with pytest.raises(InputError, match="expected one length"):
        feed.from_bars([(real_bars(0), (60, 80)), (five, (60, 80))], SETTINGS)


def draws(data: table.MarketData, count: int = 60_000) -> tuple[np.ndarray, np.ndarray]:
    keys = jax.random.split(KEY, count)
    rows, symbols = jax.jit(jax.vmap(lambda key: draw_start(key, data)))(keys)
    return np.asarray(rows), np.asarray(symbols)


EPISODES = np.asarray([[0, 10, 12], [1, 40, 40], [2, 50, 49], [3, 100, 139]])
"""Three starts, one, none and forty."""


@pytest.mark.parametrize(
    ("sampling", "weights", "expected"),
    [
        ("length", (1, 1, 1), (3 / 44, 1 / 44, 40 / 44)),
        ("length", (2, 1, 4), (6 / 167, 1 / 167, 160 / 167)),
        ("equal", (1, 1, 1), (1 / 3, 1 / 3, 1 / 3)),
        ("equal", (2, 1, 5), (2 / 8, 1 / 8, 5 / 8)),
    ],
)
def test_symbols_are_drawn_by_sampling_times_weight_and_starts_uniformly_within(
    sampling: str, weights: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    market = config.Market(sampling=sampling)
    density = np.insert(feed.densities([3, 1, 40], weights, market), 2, 9.0)  # of the empty one
    data = feed.market_data(jnp.zeros((1, 1)), EPISODES, 60, density)
    assert data.shares.dtype == jnp.int32 and data.shares[-1] == table.TICKETS
    rows, symbols = draws(data)
    found = np.bincount(symbols, minlength=4)
    assert found[2] == 0
    assert stats.chisquare(found[[0, 1, 3]], np.asarray(expected) * len(rows)).pvalue > 1e-3
    first, last = EPISODES[symbols, 1], EPISODES[symbols, 2]
    assert np.all((rows >= first) & (rows <= last))
    _, counts = np.unique(rows[symbols == 3], return_counts=True)
    assert len(counts) == 40 and stats.chisquare(counts).pvalue > 1e-3


def test_equal_densities_need_no_shares_and_draw_as_one_uniform_number() -> None:
    sources = [(real_bars(0), (60, 80)), (real_bars(1), (70, 100))]
    assert feed.from_bars(sources, SETTINGS).shares is None
    equal = replace(SETTINGS, market=config.Market(sampling="equal"))
    shares = feed.from_bars(sources, equal).shares
    np.testing.assert_array_equal(shares, [table.TICKETS // 2, table.TICKETS])
