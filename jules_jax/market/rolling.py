"""Rolling windows: a history cut into pairs of a stretch to train on and the next one to test on.

        train 60, test 20, step 20, embargo 1; dates in tens

        dates    0    10   20   30   40   50   60   70   80   90   100  110  120
        fold 0   tttttttttttttttttttttttttttttt.TTTTTTTTTT
        fold 1             tttttttttttttttttttttttttttttt.TTTTTTTTTT
        fold 2                       tttttttttttttttttttttttttttttt.TTTTTTTTTT

Windows are counted in sessions (trading days) on the dates of all symbols together. What is tested
is as long as asked for: the embargo lies between training and test and comes on top. Where the step
is that of the test, tests follow one another without a gap (Pardo 2008, The Evaluation and
Optimization of Trading Strategies, chapter 11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.splits import Dates

EXAMPLE = "train=60d,test=20d,step=20d"


@dataclass(frozen=True)
class Windows:
    """Lengths in sessions.

    validation: the end of the training window that is held out to choose a checkpoint by; 0: none.
    """

    train: int
    test: int
    step: int
    validation: int = 0

    def __str__(self) -> str:
        """As `parse` reads it."""
        parts = [("train", self.train), ("validation", self.validation)]
        parts += [("test", self.test), ("step", self.step)]
        return ",".join(f"{name}={length}d" for name, length in parts if length)


class Span(NamedTuple):
    """The first and the last date of a window, ISO."""

    first: str
    last: str

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


@dataclass(frozen=True)
class Fold:
    """One training window and the test after it.

    splits: what cuts the history so. validation: None where nothing is held out of the training
    window, whose end it is.
    """

    number: int
    train: Span
    test: Span
    splits: config.Splits
    validation: Span | None = None


def parse(text: str) -> Windows:
    """Windows of a text such as `train=60d,test=20d,step=20d`; raises `InputError`.

    The step is that of the test where it is not given, and never less: no session is tested twice.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        matched = re.fullmatch(r"\s*(train|test|step|validation)\s*=\s*(\d{1,6})d\s*", part)
        if not matched:
            raise InputError(
                f"--walk-forward has {part.strip()!r}, expected lengths in sessions such as "
                f"{EXAMPLE}, and validation=10d where a checkpoint is to be chosen"
            )
        name, length = matched[1], int(matched[2])
        if name in found:
            raise InputError(f"--walk-forward has {name} twice, expected each once")
        if not length:
            raise InputError(f"--walk-forward: {name} is 0d, expected at least 1d")
        found[name] = length
    for name in ("train", "test"):
        if name not in found:
            raise InputError(f"--walk-forward is {text!r}, expected {name}=, as in {EXAMPLE}")
    windows = Windows(
        found["train"],
        found["test"],
        found.get("step", found["test"]),
        found.get("validation", 0),
    )
    if windows.step < windows.test:
        raise InputError(
            f"--walk-forward: step is {windows.step}d, expected at least test, {windows.test}d, so "
            "that no session is tested twice"
        )
    if windows.validation >= windows.train:
        raise InputError(
            f"--walk-forward: validation is {windows.validation}d, expected less than train, "
            f"{windows.train}d, of which it is the end"
        )
    return windows


def folds(dates: Dates, windows: Windows, splits: config.Splits) -> tuple[Fold, ...]:
    """Every fold whose test is whole, oldest first.

    Args:
      dates: `[D]`, ascending and unique: the session dates of all symbols together.
      windows: their lengths.
      splits: embargo and purge; what else cuts a history is replaced.

    Raises:
      InputError: there are too few dates for one fold.
    """
    embargo = splits.embargo_sessions
    needed = windows.train + embargo + windows.test
    if len(dates) < needed:
        between = f" + embargo {embargo}" if embargo else ""
        raise InputError(
            f"--walk-forward: {len(dates)} sessions, {dates[0]} to {dates[-1]}, expected at least "
            f"{needed} (train {windows.train}{between} + test {windows.test})"
        )
    count = 1 + (len(dates) - needed) // windows.step
    return tuple(_fold(number, dates, windows, splits) for number in range(count))


def _fold(number: int, dates: Dates, windows: Windows, splits: config.Splits) -> Fold:
    text = [str(date) for date in dates]
    begin = number * windows.step
    cut = begin + windows.train  # the first date that is not trained on
    held_out = cut - windows.validation
    test = cut + splits.embargo_sessions
    last = test + windows.test - 1
    plain = config.Splits()
    return Fold(
        number,
        Span(text[begin], text[held_out - 1]),
        Span(text[test], text[last]),
        replace(
            plain,
            train_from=text[begin],
            validation_from=text[held_out],
            test_from=text[cut],
            test_until=text[last],
            embargo_sessions=splits.embargo_sessions,
            purge_sessions=splits.purge_sessions,
        ),
        Span(text[held_out], text[cut - 1]) if windows.validation else None,
    )
