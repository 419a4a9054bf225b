"""Rolling windows: counted in sessions, tested once, never trained on before they are tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import rolling, splits
from jules_jax.market.rolling import Windows
from jules_jax.market.splits import History

WEEKDAYS = np.arange("2025-03-03", "2026-03-03", dtype="datetime64[D]")
WEEKDAYS = WEEKDAYS[np.is_busday(WEEKDAYS)]


def test_windows_are_read_from_text_and_written_as_it():
    asked = rolling.parse("train=60d, test=20d,step=25d")
    assert asked == Windows(train=60, test=20, step=25)
    assert str(asked) == "train=60d,test=20d,step=25d"
    assert rolling.parse("test=5d,train=30d,validation=10d") == Windows(30, 5, 5, 10)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train=60,test=20d", "has 'train=60', expected lengths in sessions such as train=60d"),
        ("train=60d,test=20d,warm=3d", "has 'warm=3d', expected lengths"),
        ("", "has '', expected lengths"),
        ("train=60d", "is 'train=60d', expected test="),
        ("test=20d,step=20d", "expected train="),
        ("train=60d,test=20d,test=10d", "has test twice"),
        ("train=60d,test=0d", "test is 0d, expected at least 1d"),
        ("train=60d,test=20d,step=10d", "step is 10d, expected at least test, 20d"),
        ("train=60d,test=20d,validation=60d", "validation is 60d, expected less than train, 60d"),
    ],
)
def test_windows_that_cannot_be_are_refused(text, sentence):
    with pytest.raises(InputError) as error:
        rolling.parse(text)
    assert sentence in str(error.value) and str(error.value).startswith("--walk-forward")


def test_folds_are_those_counted_by_hand():
    # March 2025 from Monday the 3rd: five sessions a week.
    dates = WEEKDAYS[:20]
    first, second = rolling.folds(dates, Windows(8, 4, 4), config.Splits(embargo_sessions=1))
    assert (str(first.train), str(first.test)) == (
        "2025-03-03 to 2025-03-12", "2025-03-14 to 2025-03-19",
    )  # fmt: skip
    assert (str(second.train), str(second.test)) == (
        "2025-03-07 to 2025-03-18", "2025-03-20 to 2025-03-25",
    )  # fmt: skip
    assert first.splits == config.Splits(
        train_from="2025-03-03",
        validation_from="2025-03-13",
        test_from="2025-03-13",
        test_until="2025-03-19",
    )
    assert first.validation is None


def test_validation_is_the_end_of_the_training_window():
    asked, plain = Windows(8, 4, 4, validation=3), config.Splits(embargo_sessions=0)
    fold = rolling.folds(WEEKDAYS[:12], asked, plain)[0]
    assert str(fold.train) == "2025-03-03 to 2025-03-07"
    assert str(fold.validation) == "2025-03-10 to 2025-03-12"
    assert str(fold.test) == "2025-03-13 to 2025-03-18"


@pytest.mark.parametrize("embargo", [0, 1, 3])
def test_too_few_sessions_are_told_with_those_needed(embargo):
    plain, needed = config.Splits(embargo_sessions=embargo), 60 + embargo + 20
    assert len(rolling.folds(WEEKDAYS[:needed], Windows(60, 20, 20), plain)) == 1
    with pytest.raises(InputError, match=f"{needed - 1} sessions, 2025-03-03 to .* {needed} "):
        rolling.folds(WEEKDAYS[: needed - 1], Windows(60, 20, 20), plain)


def days_read(symbol: History, starts: tuple[int, int], steps: int) -> set:
    """Dates of the sessions that episodes from `starts` read rows of."""
    rows = np.arange(starts[0], starts[1] + steps + 1)
    return set(np.repeat(symbol.dates, np.diff(symbol.edges))[rows].tolist())


@settings(max_examples=80, deadline=None)
@given(
    train=st.integers(2, 30),
    test=st.integers(1, 12),
    beyond=st.integers(0, 5),
    validation=st.integers(0, 5),
    embargo=st.integers(0, 3),
    purge=st.integers(0, 2),
    missing=st.lists(st.sets(st.integers(0, 79), max_size=25), min_size=1, max_size=3),
)
def test_no_session_is_tested_twice_or_trained_on_in_its_fold_or_an_earlier_one(
    train, test, beyond, validation, embargo, purge, missing
):
    assume(validation < train)
    symbols = []
    for number, gone in enumerate(missing):
        dates = np.array([day for i, day in enumerate(WEEKDAYS[:80]) if i not in gone])
        symbols.append(History(f"S{number}", dates, 4 * np.arange(len(dates) + 1)))
    every = np.unique(np.concatenate([symbol.dates for symbol in symbols]))
    asked = Windows(train, test, test + beyond, validation)
    given = config.Splits(embargo_sessions=embargo, purge_sessions=purge)
    assume(len(every) >= train + embargo + test)
    folds = rolling.folds(every, asked, given)
    # as many as fit: one more would end beyond the last date
    assert (len(folds) - 1) * asked.step + train + embargo + test <= len(every)
    assert len(folds) * asked.step + train + embargo + test > len(every)

    plain = config.Config(max_steps_in_episode=2)
    plain = replace(plain, features=replace(plain.features, lookback_window=0))
    tested_before: dict[str, set] = {symbol.symbol: set() for symbol in symbols}
    for fold in folds:
        plans = splits.plan(symbols, replace(plain, splits=fold.splits))
        read = {
            split: [
                days_read(symbol, found, 2) if found else set()
                for symbol, found in zip(symbols, plans[split].ranges, strict=True)
            ]
            for split in splits.SPLITS
        }
        trained = set().union(*read["train"])
        tested = set().union(*read["test"])
        assert not trained or str(min(trained)) >= fold.train.first
        assert not trained or str(max(trained)) <= fold.train.last
        assert all(fold.test.first <= str(day) <= fold.test.last for day in tested)
        if not validation:
            assert not any(read["validation"])
        for number, symbol in enumerate(symbols):
            own = read["test"][number]
            assert not own & tested_before[symbol.symbol]
            tested_before[symbol.symbol] |= own
            before = [
                day for day in symbol.dates.tolist() if str(day) < fold.splits.validation_from
            ]
            kept = before[: len(before) - purge]
            expected = {day for day in kept if str(day) >= fold.train.first}
            assert read["train"][number] == expected
            if own and expected:  # the embargo, and the purge, lie between
                between = [d for d in symbol.dates.tolist() if max(expected) < d < min(own)]
                assert len(between) >= embargo + purge
        if embargo == 0 or (len(symbols) == 1 and not missing[0]):
            assert tested == {
                d for d in every.tolist() if fold.test.first <= str(d) <= fold.test.last
            }
        assert all(max(trained) < day for day in tested if trained)


def test_tests_follow_one_another_where_the_step_is_that_of_the_test():
    folds = rolling.folds(WEEKDAYS[:129], Windows(60, 20, 20), config.Splits())
    assert len(folds) == 3
    tested = [
        day for fold in folds for day in WEEKDAYS if fold.test.first <= str(day) <= fold.test.last
    ]
    assert tested == WEEKDAYS[61:121].tolist()
