"""Splits: whole sessions, oldest first, and no row shared by two episodes of different splits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax.errors import InputError
from jules_jax.market.splits import episode_ranges, require_episodes, split_rows


def sessions_of(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)


def test_ten_equal_sessions_are_cut_seven_one_and_a_half_rounded():
    # 10 bars a session. Train: sessions 0-6. Validation: 7 and 8 (8.5 rounds to 9), 7 embargoed.
    # Test: 9, embargoed whole.
    rows = split_rows(sessions_of([10] * 10), 0.70, 0.15)
    assert rows == {"train": (0, 70), "validation": (80, 90), "test": (100, 100)}


def test_starts_leave_room_for_the_warm_up_and_a_whole_episode():
    ranges = episode_ranges(sessions_of([10] * 20), 0.70, 0.15, lookback_window=5, max_steps=7)
    # Train rows 0-139, validation 140-169, test 170-199; a session of 10 embargoed in the last two.
    assert ranges == {"train": (5, 132), "validation": (150, 162), "test": (180, 192)}


def test_a_split_that_is_exactly_long_enough_has_one_start_and_one_bar_less_has_none():
    arguments = {"lookback_window": 5, "max_steps": 20}
    assert episode_ranges(sessions_of([26]), 1.0, 0.0, **arguments)["train"] == (5, 5)
    assert episode_ranges(sessions_of([25]), 1.0, 0.0, **arguments)["train"] is None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=40),
    st.floats(0.05, 0.95),
    st.floats(0.0, 1.0),
    st.integers(0, 15),
    st.integers(1, 15),
    st.integers(0, 2),
)
def test_no_episode_leaves_its_split_and_none_starts_in_an_embargoed_session(
    sizes: list[int], train: float, share: float, lookback: int, steps: int, embargo: int
):
    session = sessions_of(sizes)
    ranges = episode_ranges(
        session,
        train,
        (1 - train) * share,
        lookback_window=lookback,
        max_steps=steps,
        embargo_sessions=embargo,
    )
    read = {
        split: {int(session[row]) for row in range(found[0], found[1] + steps + 1)}
        for split, found in ranges.items()
        if found is not None
    }
    for found in filter(None, ranges.values()):
        assert lookback <= found[0] <= found[1] < session.size - steps
    order = [read[split] for split in ("train", "validation", "test") if split in read]
    for earlier, later in pairwise(order):
        assert max(earlier) + embargo < min(later)
    boundaries = [len(sizes) * train, len(sizes) * (train + (1 - train) * share)]
    if "train" in read:
        assert max(read["train"]) < boundaries[0] + 0.5
    if "test" in read:
        assert min(read["test"]) >= boundaries[1] - 0.5 + embargo


def test_a_history_too_short_to_train_on_is_refused_with_the_counts():
    with pytest.raises(InputError) as error:
        require_episodes(
            "train",
            sessions_of([390] * 3),
            0.70,
            0.15,
            lookback_window=50,
            max_steps=1000,
            path="short.csv",
        )
    message = str(error.value)
    for part in ("short.csv", "train", "780 bars", "1,170", "1,051", "50 bars of warm-up"):
        assert part in message


def test_a_short_test_split_is_an_error_only_when_it_is_asked_for():
    session = sessions_of([390] * 10)
    arguments = {"lookback_window": 50, "max_steps": 1000}
    assert episode_ranges(session, 0.7, 0.15, **arguments)["test"] is None
    first, last = require_episodes("train", session, 0.7, 0.15, path="f.csv", **arguments)
    assert (first, last) == (50, 7 * 390 - 1001)
    with pytest.raises(InputError, match=r"f\.csv: the test split has 0 bars .* 1,001 "):
        require_episodes("test", session, 0.7, 0.15, path="f.csv", **arguments)


@pytest.mark.parametrize(("train", "validation"), [(0.0, 0.1), (0.9, 0.2), (0.5, -0.1), (1.1, 0.0)])
def test_fractions_that_do_not_fit_are_refused(train: float, validation: float):
    with pytest.raises(InputError, match=r"market\.train_fraction"):
        split_rows(sessions_of([5] * 5), train, validation)
