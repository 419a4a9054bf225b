"""One table for symbols a hundred million times apart in price, of different calendars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jules_jax import config
from jules_jax.evaluation.twin import compare, replay
from jules_jax.market import feed, table
from tests.env.episodes import BUY, HOLD, SELL, play_lanes
from tests.market.recorded import make_source

pytestmark = pytest.mark.usefixtures("quick_compilation")

SETTINGS = config.Config(max_steps_in_episode=20)
COLUMN = {name: place for place, name in enumerate(table.Row._fields)}


CRYPTO = make_source(
    "BTC", price=95_000.0, volume=50.0, tick=0.01, quantity_step=1e-5, slots=1440, sessions=2,
    continuous=True,
)  # fmt: skip
PENNY = make_source("PNY", price=1e-3, volume=2e9, tick=1e-6, slots=60, sessions=8)


@pytest.fixture(scope="module")
def mixed() -> tuple[np.ndarray, np.ndarray]:
    """The table of both symbols, and its lines of episodes."""
    sources = [(s.bars, (300, 320), s.instrument) for s in (CRYPTO, PENNY)]
    data = feed.from_bars(sources, SETTINGS)
    return np.asarray(data.rows), np.asarray(data.episodes)


def test_calendars_ticks_and_steps_of_a_table_are_each_symbols_own(mixed) -> None:
    found, episodes = mixed
    expected = {
        "tick": (0.01, 1e-6),
        "quantity_step": (1e-4, 1e4),
        "bars_per_session": (1440, 60),
        "minutes_left": (table.NEVER_CLOSES, 60.0),
        "session_open": (0, 1),
    }
    for name, values in expected.items():
        at = episodes[:, 1]  # row 300: the crypto's first day, an open of the other
        np.testing.assert_array_equal(found[at, COLUMN[name]], np.float32(values), name)


def test_a_buy_and_a_sell_trade_correctly_at_95000_and_at_a_thousandth(mixed) -> None:
    table_rows, episodes = mixed
    starts = episodes[:, 1]
    actions = np.full((2, 20), HOLD)
    actions[:, 2], actions[:, 14] = BUY, SELL
    reads = table_rows[starts[:, None] + np.arange(21)]
    record, _ = play_lanes(reads, actions)
    steps = record.quantity
    assert np.all(steps[:, 2] > 0) and np.all(steps[:, 14] == -steps[:, 2])
    assert np.count_nonzero(steps) == 4
    bought = steps[:, 2] * np.asarray([1e-4, 1e4]) * record.reference_price[:, 2]
    np.testing.assert_allclose(bought, 0.25 * 50_000, rtol=1e-3)
    half_spread = record.cost_spread[:, 2] / bought
    np.testing.assert_allclose(half_spread, [2.5e-4, 5e-4], rtol=0.01)  # 5 bp; half a tick
    sections = ("account", "fills", "safeguards", "reward")
    twin = replay(
        reads.reshape(-1, table.NUM_COLUMNS),
        np.asarray([0, 21]),
        actions,
        **{name: getattr(SETTINGS, name) for name in sections},
    )
    twin = replace(twin, row=record.row)
    assert compare(record, twin, initial_capital=50_000.0) is None
