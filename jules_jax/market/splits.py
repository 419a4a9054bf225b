"""Splits: which rows episodes may start on, for training, validation and test.

A history is cut into whole sessions, oldest first. The cut is made by *date*, on the dates of all
symbols together, so that no symbol is trained on a day that another one is tested on. Everything
else (embargo, purge, room for an episode) is counted in each symbol's own sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.bars import Bars
from jules_jax.market.sessions import SECOND

Split = Literal["train", "validation", "test"]
"""The three stretches of a history, oldest first."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Range = tuple[int, int]
Dates = NDArray[np.datetime64]

MINUTE, DAY = 60 * SECOND, 86_400 * SECOND
"""Nanoseconds."""


class Period(NamedTuple):
    """Dates from `begin` up to, but without, `end` (datetime64, days); empty where these agree."""

    begin: np.datetime64
    end: np.datetime64

    def __str__(self) -> str:
        if self.begin >= self.end:
            return f"no date from {self.begin} on"
        return f"{self.begin} to {self.end - 1}"


@dataclass(frozen=True)
class History:
    """Where the sessions of one symbol lie.

    dates: `[S]` datetime64 (days), ascending, see `history`. edges: `[S + 1]` int64, the first row
    of each session, and the number of rows.
    """

    symbol: str
    dates: Dates
    edges: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Where the episodes of one split may start.

    period: its dates, before embargo and purge. ranges: for each symbol the first and the last row
    an episode may start on, inclusive; None where the split has no room for one. notes: a sentence
    for each symbol left out.
    """

    period: Period
    ranges: tuple[Range | None, ...]
    notes: tuple[str, ...]


def history(symbol: str, bars: Bars, time: NDArray[np.int64]) -> History:
    """The sessions of `bars` `[B]`, dated.

    time: `[B]` UTC nanoseconds of bar starts. The date of a session is the UTC date of its middle:
    the local date of exchanges from New York to Tokyo and Sydney, the day of a 24/7 calendar, and
    of the FX session that opens on the evening before, the day it closes on.
    """
    session = np.asarray(bars.session)
    first = np.flatnonzero(np.diff(session, prepend=session[:1] - 1))
    # from the calendar's open and length: bars may be missing on either side of the middle
    length, minute = np.asarray(bars.session_length)[first], np.asarray(bars.minute)[first]
    to_middle = length.astype(np.int64) // 2 - minute
    dates = ((time[first] + to_middle * MINUTE) // DAY).astype("datetime64[D]")
    return History(symbol, dates, np.append(first, session.size))


def check(settings: config.Splits) -> None:
    """Raises `InputError` unless the settings of the splits fit one another."""
    validation, test = settings.validation_from, settings.test_from
    default, total = config.Splits(), settings.train_fraction + settings.validation_fraction
    if not total < 1:
        raise InputError(
            f"splits.train_fraction and splits.validation_fraction sum to {total:g}, expected "
            "below 1, as the rest is the test split"
        )
    if bool(validation) != bool(test):
        given, empty = (
            ("validation_from", "test_from") if validation else ("test_from", "validation_from")
        )
        raise InputError(
            f"splits.{given} is {validation or test} and splits.{empty} is empty, expected both "
            "dates or neither"
        )
    if validation and not validation <= test:
        raise InputError(
            f"splits.validation_from is {validation}, expected no later than splits.test_from, "
            f"{test} (the same date leaves nothing to validation)"
        )
    _check_ends(settings)
    for key in ("train_fraction", "validation_fraction"):
        if validation and getattr(settings, key) != getattr(default, key):
            raise InputError(
                f"splits.{key} is {getattr(settings, key):g} beside splits.validation_from, "
                f"{validation}, expected fractions or dates, not both"
            )
    if validation and settings.folds:
        raise InputError(
            f"splits.folds is {settings.folds} beside splits.validation_from, {validation}, "
            "expected 0, as folds are cut by fractions"
        )
    if settings.fold >= max(settings.folds, 1):
        raise InputError(
            f"splits.fold is {settings.fold}, expected below splits.folds, {settings.folds} "
            "(the first fold is 0)"
        )


def _check_ends(settings: config.Splits) -> None:
    """Raises `InputError` where what is used begins or ends beyond a date that cuts it."""
    begin, end = settings.train_from, settings.test_until
    validation, test = settings.validation_from, settings.test_from
    if begin and validation and not begin < validation:
        raise InputError(
            f"splits.train_from is {begin}, expected before splits.validation_from, {validation}"
        )
    if end and test and end < test:
        raise InputError(
            f"splits.test_until is {end}, expected no earlier than splits.test_from, {test}"
        )
    if begin and end and end < begin:
        raise InputError(
            f"splits.test_until is {end}, expected no earlier than splits.train_from, {begin}"
        )


def used(dates: Dates, settings: config.Splits) -> Dates:
    """The dates from `train_from` to `test_until`, both included.

    dates: `[D]`, at least one, ascending. Raises `InputError` where none is left.
    """
    kept = dates
    if settings.train_from:
        kept = kept[kept >= np.datetime64(settings.train_from, "D")]
    if settings.test_until:
        kept = kept[kept <= np.datetime64(settings.test_until, "D")]
    if not len(kept):
        raise InputError(
            f"no session from splits.train_from, {settings.train_from or 'the first'}, to "
            f"splits.test_until, {settings.test_until or 'the last'}, expected some of those "
            f"from {dates[0]} to {dates[-1]}"
        )
    return kept


def cut(dates: Dates, settings: config.Splits) -> dict[Split, Period]:
    """The period of each split; they follow one another without a gap.

    dates: `[D]`, at least one, ascending and unique: the session dates of all symbols together.

    Dates before `train_from` and after `test_until` belong to no split. By date, validation begins
    on `validation_from` and the test on `test_from`; the same date leaves none to validate on. By
    fraction, the shares are of the number of dates, rounded, and what they leave is the test.
    Walk-forward folds cut that test into `folds` equal blocks (to within one date). Fold k is
    tested on block k, validated on as many dates as in a single split, those just before the block,
    and trained on everything before these: an expanding window. One fold is the single split.

        train_fraction 0.6, validation_fraction 0.1, folds 3

        dates    0                             60   70   80   90   100
        fold 0   ttttttttttttttttttttttttttttttvvvvvTTTTT
        fold 1   tttttttttttttttttttttttttttttttttttvvvvvTTTTT
        fold 2   ttttttttttttttttttttttttttttttttttttttttvvvvvTTTTT

    The test blocks tile the test of the single split, so out-of-sample results of all folds join
    into one history (Pardo 2008, The Evaluation and Optimization of Trading Strategies, chapter
    11), less what the embargo takes from the start of each.

    Raises:
      InputError: the settings do not fit one another, no date is used, or there are more folds than
        dates to test.
    """
    check(settings)
    dates = used(dates, settings)
    begin, end = dates[0], dates[-1] + np.timedelta64(1, "D")
    if settings.validation_from:
        validation, test = (
            np.datetime64(text, "D") for text in (settings.validation_from, settings.test_from)
        )
        edges = [min(begin, validation), validation, test, max(end, test)]
    else:
        counts = _counts(len(dates), settings)
        edges = [dates[count] if count < len(dates) else end for count in counts]
    return {split: Period(*edges[i : i + 2]) for i, split in enumerate(SPLITS)}


def _counts(dates: int, settings: config.Splits) -> list[int]:
    """How many dates lie before the beginning of each split, and before the end of the last."""
    share = settings.train_fraction + settings.validation_fraction
    train, validation = (
        min(int(dates * part + 0.5), dates) for part in (settings.train_fraction, share)
    )
    folds, rest = max(settings.folds, 1), dates - validation
    if settings.folds > rest:
        raise InputError(
            f"splits.folds is {folds}, expected at most {rest}, the dates (of {dates}) that "
            "splits.train_fraction and splits.validation_fraction leave to test on"
        )
    shift, test_end = (rest * k // folds for k in (settings.fold, settings.fold + 1))
    return [0, train + shift, validation + shift, validation + test_end]


def split_rows(symbol: History, split: Split, period: Period, settings: config.Splits) -> Range:
    """Rows `[begin, end)` of one symbol in a split, purged and embargoed.

    The first `embargo_sessions` of its sessions in validation and in test, and the last
    `purge_sessions` in training and in validation, belong to no split: bar-scale memory (RSI, EMAs,
    volatility) then does not join two of them. Averages over several sessions reach further, but
    only into the past. (López de Prado 2018, Advances in Financial Machine Learning, section 7.4.)
    """
    first, end = np.searchsorted(symbol.dates, period)
    first += settings.embargo_sessions if split != "train" else 0
    end -= settings.purge_sessions if split != "test" else 0
    begin = int(symbol.edges[min(first, len(symbol.dates))])
    return begin, max(begin, int(symbol.edges[max(end, 0)]))


def plan(histories: Sequence[History], settings: config.Config) -> dict[Split, Plan]:
    """Where the episodes of every split may start, for every symbol.

    An episode that starts on row s reads rows s to s + max_steps_in_episode, all of them inside its
    split, and has at least `features.lookback_window` rows before it.

    Args:
      histories: of the symbols, at least one, in the order of their rows in the table.
      settings: the configuration.

    Raises:
      InputError: see `cut`.
    """
    dates = np.unique(np.concatenate([symbol.dates for symbol in histories]))
    return {
        split: _plan(split, period, histories, settings)
        for split, period in cut(dates, settings.splits).items()
    }


def require(split: Split, histories: Sequence[History], settings: config.Config) -> Plan:
    """The plan of one split, which has room for an episode of at least one symbol.

    Raises `InputError`, naming the data, the bars found and those needed, where it has not.
    """
    found = plan(histories, settings)[split]
    if any(found.ranges):
        return found
    longest = max(histories, key=lambda symbol: _bars(symbol, split, found.period, settings))
    of_many = f" of {longest.symbol}, the most of {len(histories)} symbols" * (len(histories) > 1)
    raise InputError(
        f"{settings.market.data}: the {split} split ({found.period}) has "
        f"{_shortage(longest, split, found.period, settings, of_many)}."
    )


def _plan(
    split: Split, period: Period, histories: Sequence[History], settings: config.Config
) -> Plan:
    ranges = tuple(_starts(symbol, split, period, settings) for symbol in histories)
    notes = tuple(
        f"{symbol.symbol} is left out of the {split} split ({period}): "
        f"{_shortage(symbol, split, period, settings)}"
        for symbol, found in zip(histories, ranges, strict=True)
        if found is None
    )
    return Plan(period, ranges, notes)


def _starts(symbol: History, split: Split, period: Period, settings: config.Config) -> Range | None:
    begin, end = split_rows(symbol, split, period, settings.splits)
    first = max(begin, settings.features.lookback_window)
    last = end - 1 - settings.max_steps_in_episode
    return (first, last) if first <= last else None


def _bars(symbol: History, split: Split, period: Period, settings: config.Config) -> int:
    begin, end = split_rows(symbol, split, period, settings.splits)
    return end - begin


def _shortage(
    symbol: History, split: Split, period: Period, settings: config.Config, whose: str = ""
) -> str:
    """Bars found and needed, in words."""
    begin, end = split_rows(symbol, split, period, settings.splits)
    warmup = max(settings.features.lookback_window - begin, 0)
    steps, embargo, purge = (
        settings.max_steps_in_episode,
        settings.splits.embargo_sessions * (split != "train"),
        settings.splits.purge_sessions * (split != "test"),
    )
    how = "split by whole sessions"
    how += f", {embargo} of them embargoed" * (embargo > 0)
    how += f", {purge} purged" * (purge > 0)
    return (
        f"{end - begin:,} bars{whose} (of {symbol.edges[-1]:,} in all, {how}), fewer than the "
        f"{warmup + steps + 1:,} that {f'{warmup} bars of warm-up plus ' if warmup else ''}one "
        f"episode of {steps:,} steps need"
    )
