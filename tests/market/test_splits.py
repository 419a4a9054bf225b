"""Splits: whole sessions cut by date, and no row shared by two episodes of different splits."""

from __future__ import annotations

import datetime
from dataclasses import replace
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import splits
from jules_jax.market.bars import Bars
from jules_jax.market.splits import SPLITS, History, Period

FIRST_DAY = np.datetime64("2025-03-03")


def history_of(sizes: list[int], *, skip: int = 0, symbol: str = "AAA") -> History:
    """One session a day with `sizes` rows each, the first `skip` days after `FIRST_DAY`."""
    dates = FIRST_DAY + skip + np.arange(len(sizes))
    return History(symbol, dates, np.concatenate([[0], np.cumsum(sizes)]))


def settings_of(*, lookback: int = 5, steps: int = 7, **of_splits: object) -> config.Config:
    plain = config.Config(max_steps_in_episode=steps, market=config.Market(data="bars.csv"))
    return replace(
        plain,
        features=replace(plain.features, lookback_window=lookback),
        splits=config.Splits(**of_splits),  # type: ignore[arg-type]
    )


def rows_of(symbol: History, settings: config.Config) -> dict[str, tuple[int, int]]:
    periods = splits.cut(symbol.dates, settings.splits)
    return {
        split: splits.split_rows(symbol, split, periods[split], settings.splits) for split in SPLITS
    }


def read_days(symbol: History, found: tuple[int, int], steps: int) -> set[np.datetime64]:
    """Dates of the sessions whose rows episodes of a range may read."""
    rows = np.arange(found[0], found[1] + steps + 1)
    return set(symbol.dates[np.searchsorted(symbol.edges, rows, side="right") - 1].tolist())


def test_ten_equal_sessions_are_cut_seven_one_and_a_half_rounded():
    # 10 rows a session. Train: sessions 0-6. Validation: 7 and 8 (8.5 rounds to 9), 7 embargoed.
    # Test: 9, embargoed whole.
    rows = rows_of(history_of([10] * 10), settings_of())
    assert rows == {"train": (0, 70), "validation": (80, 90), "test": (100, 100)}


def test_starts_leave_room_for_the_warm_up_and_a_whole_episode():
    plan = splits.plan([history_of([10] * 20)], settings_of())
    # Train rows 0-139, validation 140-169, test 170-199; a session of 10 embargoed in the last two.
    found = {split: plan[split].ranges for split in SPLITS}
    assert found == {"train": ((5, 132),), "validation": ((150, 162),), "test": ((180, 192),)}


def test_dates_cut_where_they_say():
    dated = settings_of(validation_from="2025-03-10", test_from="2025-03-13", embargo_sessions=0)
    # sessions of 10 rows on 03-03 to 03-22
    rows = rows_of(history_of([10] * 20), dated)
    assert rows == {"train": (0, 70), "validation": (70, 100), "test": (100, 200)}


def test_dates_bound_what_is_used_at_either_end():
    bounded = settings_of(
        train_from="2025-03-05",
        validation_from="2025-03-10",
        test_from="2025-03-13",
        test_until="2025-03-16",
    )
    # sessions of 10 rows on 03-03 to 03-22, the first of validation and of test embargoed
    rows = rows_of(history_of([10] * 20), bounded)
    assert rows == {"train": (20, 70), "validation": (80, 100), "test": (110, 140)}


def test_fractions_are_of_the_sessions_that_are_used():
    bounded = settings_of(train_from="2025-03-08", test_until="2025-03-17", embargo_sessions=0)
    rows = rows_of(history_of([10] * 20), bounded)
    assert rows == {"train": (50, 120), "validation": (120, 140), "test": (140, 150)}


def test_a_validation_that_ends_as_it_begins_is_empty_and_the_test_embargoed_all_the_same():
    same = settings_of(validation_from="2025-03-10", test_from="2025-03-10")
    symbol = history_of([10] * 20)
    rows = rows_of(symbol, same)
    assert rows["train"] == (0, 70) and rows["test"] == (80, 200)
    assert rows["validation"][0] == rows["validation"][1]
    with pytest.raises(InputError, match=r"validation split .* 0 bars"):
        splits.require("validation", [symbol], same)


def test_purged_sessions_are_the_last_of_training_and_validation():
    wide = settings_of(train_fraction=0.5, validation_fraction=0.25, purge_sessions=2)
    rows = rows_of(history_of([10] * 20), wide)
    # sessions 0-9 less 8 and 9; 10-14 less 10 (embargo), 13 and 14; 15-19 less 15
    assert rows == {"train": (0, 80), "validation": (110, 130), "test": (160, 200)}


def test_a_split_that_is_exactly_long_enough_has_one_start_and_one_bar_less_has_none():
    wide = settings_of(lookback=5, steps=20, train_fraction=0.5, validation_fraction=0.4)
    assert splits.plan([history_of([26, 1])], wide)["train"].ranges == ((5, 5),)
    assert splits.plan([history_of([25, 1])], wide)["train"].ranges == (None,)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    train=st.floats(0.05, 0.95),
    share=st.floats(0.0, 0.95),
    lookback=st.integers(0, 15),
    steps=st.integers(1, 15),
    embargo=st.integers(0, 2),
    purge=st.integers(0, 2),
)
def test_no_episode_leaves_its_split_and_the_sessions_between_two_are_left_out(
    sizes, train, share, lookback, steps, embargo, purge
):
    symbol = history_of(sizes)
    chosen = settings_of(
        lookback=lookback,
        steps=steps,
        train_fraction=train,
        validation_fraction=(1 - train) * share,
        embargo_sessions=embargo,
        purge_sessions=purge,
    )
    plans = splits.plan([symbol], chosen)
    for found in (plans[split].ranges[0] for split in SPLITS):
        if found:
            assert lookback <= found[0] <= found[1] < sum(sizes) - steps
    read = [
        read_days(symbol, found, steps)
        for found in (plans[split].ranges[0] for split in SPLITS)
        if found
    ]
    for earlier, later in pairwise(read):
        assert (min(later) - max(earlier)).days > embargo + purge


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), min_size=2, max_size=4),
    train=st.floats(0.2, 0.7),
    folds=st.integers(0, 3),
)
def test_no_symbol_is_trained_on_a_day_that_another_is_validated_or_tested_on(
    lengths, train, folds
):
    symbols = [
        history_of([6] * days, skip=skip, symbol=f"S{i}") for i, (skip, days) in enumerate(lengths)
    ]
    dates = len(set().union(*(symbol.dates.tolist() for symbol in symbols)))
    assume(dates >= 30)  # days to test on for every fold
    for fold in range(max(folds, 1)):
        chosen = settings_of(
            lookback=0, steps=3, train_fraction=train, folds=folds, fold=fold, embargo_sessions=0
        )
        plans = splits.plan(symbols, chosen)
        days = [
            set().union(
                *(
                    read_days(symbol, found, 3)
                    for symbol, found in zip(symbols, plans[split].ranges, strict=True)
                    if found
                )
            )
            for split in SPLITS
        ]
        for i, earlier in enumerate(days):
            for later in days[i + 1 :]:
                assert not earlier or not later or max(earlier) < min(later)


@settings(max_examples=100, deadline=None)
@given(
    dates=st.integers(3, 400),
    train=st.floats(0.1, 0.8),
    validation=st.floats(0.05, 0.15),
    folds=st.integers(1, 12),
)
def test_walk_forward_tests_tile_and_lie_after_everything_their_fold_has_seen(
    dates, train, validation, folds
):
    days = FIRST_DAY + np.arange(dates)
    single = config.Splits(train_fraction=train, validation_fraction=validation)
    whole = splits.cut(days, single)
    room = (whole["test"].end - whole["test"].begin).astype(int)
    every = [replace(single, folds=folds, fold=fold) for fold in range(folds)]
    if room < folds:
        with pytest.raises(InputError, match=rf"splits\.folds is {folds}, expected at most {room}"):
            splits.cut(days, every[0])
        return
    periods = [splits.cut(days, fold) for fold in every]
    for fold in periods:
        assert days[0] == fold["train"].begin <= fold["train"].end == fold["validation"].begin
        assert fold["validation"].end == fold["test"].begin < fold["test"].end
        length = fold["validation"].end - fold["validation"].begin
        assert length == whole["validation"].end - whole["validation"].begin
    tests = [fold["test"] for fold in periods]
    assert all(a.end == b.begin for a, b in pairwise(tests))
    assert (tests[0].begin, tests[-1].end) == whole["test"]
    sizes = [(test.end - test.begin).astype(int) for test in tests]
    assert max(sizes) - min(sizes) <= 1
    assert all(a["train"].end < b["train"].end for a, b in pairwise(periods))


def test_three_folds_of_a_hundred_days_are_those_of_the_picture():
    days = FIRST_DAY + np.arange(100)
    for fold, (train, validation, test) in enumerate([(60, 70, 80), (70, 80, 90), (80, 90, 100)]):
        found = splits.cut(
            days,
            config.Splits(train_fraction=0.6, validation_fraction=0.1, folds=3, fold=fold),
        )
        edges = [FIRST_DAY + day for day in (0, train, validation, test)]
        assert found == {split: Period(*edges[i : i + 2]) for i, split in enumerate(SPLITS)}


ZONES = {
    "NewYork": ("America/New_York", "09:30", 390),
    "London": ("Europe/London", "08:00", 510),
    "Tokyo": ("Asia/Tokyo", "09:00", 300),
    "Sydney": ("Australia/Sydney", "10:00", 360),
    "NewYorkExtended": ("America/New_York", "04:00", 960),
}


@pytest.mark.parametrize("exchange", ZONES)
@pytest.mark.parametrize("missing", [0, 200])
def test_the_date_of_a_session_is_the_local_one_with_its_first_bars_missing_or_not(
    exchange, missing
):
    zone, opens, length = ZONES[exchange]
    local = [datetime.date(2025, month, day) for month in (1, 7) for day in (2, 3, 4)]
    clock = datetime.time.fromisoformat(opens)
    starts = [datetime.datetime.combine(day, clock, ZoneInfo(zone)) for day in local]
    dates = dates_of([start.timestamp() for start in starts], length, missing)
    assert dates == [day.isoformat() for day in local]


def test_a_currency_session_has_the_date_it_closes_on_and_a_continuous_one_its_utc_day():
    evening = datetime.datetime(2025, 3, 2, 17, tzinfo=ZoneInfo("America/New_York"))  # Sunday
    assert dates_of([evening.timestamp()], 1440) == ["2025-03-03"]
    midnight = datetime.datetime(2025, 3, 2, tzinfo=datetime.UTC)
    assert dates_of([midnight.timestamp()], 1440) == ["2025-03-02"]


def dates_of(opens: list[float], length: int, missing: int = 0) -> list[str]:
    """Dates of sessions of `length` minutes that open at `opens`, in seconds since 1970."""
    minute = np.tile(np.arange(missing, length), len(opens)).astype(np.int32)
    session = np.repeat(np.arange(len(opens)), length - missing).astype(np.int32)
    flat = np.ones(minute.shape, np.float32)
    bars = Bars(
        open=flat, high=flat, low=flat, close=flat, volume=flat, session=session,
        bar_of_session=minute, minute=minute, session_length=np.full_like(minute, length),
        valid=flat > 0, bars_per_session=length,
    )  # fmt: skip
    time = (np.asarray(opens, np.int64)[session] + 60 * minute.astype(np.int64)) * 10**9
    found = splits.history("AAA", bars, time)
    assert found.edges.tolist() == [i * (length - missing) for i in range(len(opens) + 1)]
    return [str(date) for date in found.dates]


def test_a_history_too_short_to_train_on_is_refused_with_the_counts():
    default = settings_of(lookback=50, steps=1000)
    with pytest.raises(InputError) as error:
        splits.require("train", [history_of([390] * 3)], default)
    message = str(error.value)
    for part in ("bars.csv", "train", "780 bars", "1,170", "1,051", "50 bars of warm-up"):
        assert part in message


def test_a_short_test_split_is_an_error_only_when_it_is_asked_for():
    default, short = settings_of(lookback=50, steps=1000), [history_of([390] * 10)]
    assert splits.require("train", short, default).ranges == ((50, 7 * 390 - 1001),)
    with pytest.raises(InputError, match=r"bars\.csv: the test split .* 0 bars .* 1,001 "):
        splits.require("test", short, default)


def test_a_symbol_without_room_is_left_out_with_a_note_while_others_have_room():
    symbols = [history_of([20] * 20), history_of([2] * 6, skip=14, symbol="NEW")]
    plan = splits.require("train", symbols, settings_of())
    assert plan.ranges == ((5, 14 * 20 - 8), None)
    assert plan.notes == (
        "NEW is left out of the train split (2025-03-03 to 2025-03-16): 0 bars (of 12 in all, "
        "split by whole sessions), fewer than the 13 that 5 bars of warm-up plus one episode of 7 "
        "steps need",
    )
    with pytest.raises(InputError, match=r"4 bars of NEW, the most of 2 symbols"):
        splits.require("test", [history_of([2] * 14), symbols[1]], settings_of())


def test_dates_after_the_history_leave_no_test_and_the_error_shows_it():
    late = settings_of(validation_from="2030-01-01", test_from="2030-02-01")
    symbol = history_of([20] * 20)
    assert splits.require("train", [symbol], late).ranges == ((5, 392),)
    with pytest.raises(InputError, match=r"no date from 2030-02-01 on.* 0 bars"):
        splits.require("test", [symbol], late)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"train_fraction": 0.9, "validation_fraction": 0.2}, "splits.train_fraction and"),
        ({"test_from": "2025-03-10"}, "splits.validation_from is empty"),
        ({"validation_from": "2025-03-10"}, "splits.test_from is empty"),
        (
            {"validation_from": "2025-03-11", "test_from": "2025-03-10"},
            "expected no later than splits.test_from",
        ),
        (
            {"validation_from": "2025-03-04", "test_from": "2025-03-10", "train_fraction": 0.6},
            "splits.train_fraction is 0.6 beside splits.validation_from",
        ),
        (
            {"validation_from": "2025-03-04", "test_from": "2025-03-10", "folds": 2},
            "splits.folds is 2 beside",
        ),
        (
            {
                "train_from": "2025-03-10",
                "validation_from": "2025-03-10",
                "test_from": "2025-03-12",
            },
            "splits.train_from is 2025-03-10, expected before splits.validation_from",
        ),
        (
            {
                "validation_from": "2025-03-10",
                "test_from": "2025-03-12",
                "test_until": "2025-03-11",
            },
            "splits.test_until is 2025-03-11, expected no earlier than splits.test_from",
        ),
        (
            {"train_from": "2025-03-10", "test_until": "2025-03-09"},
            "splits.test_until is 2025-03-09, expected no earlier than splits.train_from",
        ),
        (
            {"train_from": "2026-03-10"},
            "no session from splits.train_from, 2026-03-10, to splits.test_until, the last, "
            "expected some of those from 2025-03-03 to 2025-03-22",
        ),
        ({"folds": 3, "fold": 3}, "splits.fold is 3, expected below splits.folds, 3"),
        ({"fold": 1}, "splits.fold is 1, expected below splits.folds, 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_key(chosen, sentence):
    with pytest.raises(InputError) as error:
        splits.cut(history_of([5] * 20).dates, config.Splits(**chosen))
    assert sentence in str(error.value)
