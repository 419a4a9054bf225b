"""What an evaluation is played on: whole sessions, whole splits, the same whenever it is asked."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from jules_jax.errors import InputError
from jules_jax.evaluation import prices
from jules_jax.evaluation.prices import Chunk, Prices
from tests.evaluation import played

pytestmark = pytest.mark.usefixtures("quick_compilation")

DAYS = ("2025-03-10", "2025-03-11", "2025-03-12", "2025-03-13")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return played.write(tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def recorded(root: Path) -> Prices:
    return prices.recorded(played.recorded_settings(root), "validation", 2)


def complete(chunk: Chunk, stretch: np.ndarray) -> np.ndarray:
    """Bar by bar: a session is whole where all its bars but perhaps the first are executed in.

    stretch: `[R]`, the symbol or path of each row; a session is of one.
    """
    found = np.zeros(chunk.complete.shape, bool)
    assert chunk.starts.steps is not None
    pairs = zip(chunk.starts.row, chunk.starts.steps, strict=True)
    for account, (start, steps) in enumerate(pairs):
        executed = set(range(start + 1, start + steps + 1))
        own = stretch == stretch[start]
        for session in np.unique(chunk.session[own]):
            bars = np.flatnonzero(own & (chunk.session == session))
            if len(bars) > 1 and set(bars[1:].tolist()) <= executed:
                found[account, session - chunk.before[account]] = True
    return found


def test_accounts_of_recorded_bars_go_through_the_whole_split(recorded: Prices) -> None:
    (chunk,) = recorded.chunks()
    assert recorded.labels == DAYS and recorded.symbols == ("AAA", "BBB")
    assert recorded.accounts == 4 and recorded.draws == 2
    np.testing.assert_array_equal(chunk.starts.symbol, [0, 1, 0, 1])
    np.testing.assert_array_equal(chunk.draw, [0, 0, 1, 1])
    # 390 bars a session, executed in from the second one on; BBB has a session less
    np.testing.assert_array_equal(chunk.starts.steps, [1559, 1169, 1559, 1169])
    assert chunk.config.max_steps_in_episode == 1559
    np.testing.assert_array_equal(chunk.starts.row, [0, 1560, 0, 1560])
    assert chunk.complete[0].all()
    np.testing.assert_array_equal(chunk.complete[1], [True, False, True, True])


def test_rows_have_their_dates_and_times(recorded: Prices) -> None:
    (chunk,) = recorded.chunks()
    days = chunk.time.astype("datetime64[ns]").astype("datetime64[D]").astype(str)
    assert [recorded.labels[session] for session in chunk.session] == days.tolist()
    assert len(days) == 2730 and not np.any(np.diff(chunk.time[:1560]) <= 0)
    np.testing.assert_array_equal(chunk.minute[:780], [*range(390), *range(390)])


def test_sessions_are_whole_where_all_their_bars_are_traded(recorded: Prices) -> None:
    (chunk,) = recorded.chunks()
    symbol = np.repeat([0, 1], [1560, 1170])
    np.testing.assert_array_equal(chunk.complete, complete(chunk, symbol))


def test_a_split_of_one_session_is_whole_for_both_symbols(root: Path) -> None:
    """The last row of one symbol and the first of the next are then of the same day."""
    settings = played.recorded_settings(root, validation_from="2025-03-13")
    (chunk,) = prices.recorded(settings, "validation", 1).chunks()
    np.testing.assert_array_equal(chunk.session, np.zeros(780))
    np.testing.assert_array_equal(chunk.complete, [[True], [True]])


@pytest.mark.parametrize("number", range(2))
def test_simulated_accounts_see_whole_sessions_where_their_paths_do(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "CHUNK", 3)
    chunk = list(played.simulated().chunks())[number]
    path = np.repeat(np.arange(3), len(chunk.session) // 3)
    np.testing.assert_array_equal(chunk.complete, complete(chunk, path))
    assert chunk.complete.any(axis=1).all() and not chunk.complete.all()
    assert set(chunk.starts.cluster) == {3 * number + place for place in range(3)}


def test_chunks_are_the_same_whenever_asked_and_differ_from_each_other(
    recorded: Prices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "CHUNK", 3)
    for ground in (recorded, played.simulated()):
        once, again = list(ground.chunks()), list(ground.chunks())
        for one, two in zip(once, again, strict=True):
            np.testing.assert_array_equal(one.market.rows, two.market.rows)
            np.testing.assert_array_equal(one.starts.row, two.starts.row)
            assert jax.random.key_data(one.key).tolist() == jax.random.key_data(two.key).tolist()
    first, second = once
    assert not np.array_equal(first.market.rows, second.market.rows)
    assert jax.random.key_data(first.key).tolist() != jax.random.key_data(second.key).tolist()


def test_whole_chunks_of_accounts_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "CHUNK", 4)
    config = played.simulated().config
    assert [prices.simulated(config, asked).accounts for asked in (1, 4, 5, 9)] == [1, 4, 8, 12]


def test_an_empty_split_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match="split"):
        prices.recorded(played.recorded_settings(root, test_from="2025-06-01"), "test", 1)


def test_an_empty_split_is_told_of_in_sessions(root: Path) -> None:
    with pytest.raises(InputError) as error:
        prices.recorded(played.recorded_settings(root, test_from="2025-06-01"), "test", 1)
    assert str(error.value) == (
        f"{root}: the test split (no date from 2025-06-01 on) has no session with bars, expected "
        "at least one, after the 50 bars of warm-up, of those from 2025-03-03 to 2025-03-18"
    )


def test_a_symbol_without_a_session_in_the_split_is_left_out_in_a_sentence(root: Path) -> None:
    settings = played.recorded_settings(root, validation_from="2025-03-11", test_from="2025-03-12")
    ground = prices.recorded(settings, "validation", 2)
    assert ground.accounts == 2
    assert ground.notes[-1] == (
        "BBB is left out of the validation split (2025-03-11 to 2025-03-11): it has no session "
        "with bars there"
    )


def test_a_session_is_as_long_as_one_symbols_however_many_there_are(recorded: Prices) -> None:
    (chunk,) = recorded.chunks()
    assert chunk.session_bars == 390
    (chunk, *_) = played.simulated().chunks()
    assert chunk.session_bars == 60
