"""Splits: which rows episodes may start on, for training, validation and test."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jules_jax.errors import InputError

Split = Literal["train", "validation", "test"]
"""The three stretches of a history, oldest first."""

Range = tuple[int, int]


def split_rows(
    session: NDArray[Any],
    train_fraction: float,
    validation_fraction: float,
    *,
    embargo_sessions: int = 1,
) -> dict[Split, Range]:
    """Rows `[begin, end)` of each split of a history cut into whole sessions, oldest first.

    session: `[B]` session numbers, ascending. The fractions are shares of the number of sessions,
    rounded; what they leave is the test split. The first `embargo_sessions` sessions of validation
    and test belong to no split, so that bar-scale memory (RSI, EMAs, volatility) does not join
    two of them; averages over several sessions reach further, but only into the past.
    (López de Prado 2018, Advances in Financial Machine Learning, section 7.4.)
    """
    if not (0 < train_fraction <= 1 and 0 <= validation_fraction <= 1 - train_fraction + 1e-9):
        raise InputError(
            f"market.train_fraction is {train_fraction:g} and market.validation_fraction "
            f"{validation_fraction:g}, expected a positive and a non-negative share, at most 1 "
            "together."
        )
    first_rows = np.flatnonzero(np.diff(session, prepend=session[:1] - 1))
    sessions, edges = first_rows.size, [*first_rows.tolist(), session.size]
    train_end, validation_end = (
        min(int(sessions * share + 0.5), sessions)
        for share in (train_fraction, train_fraction + validation_fraction)
    )

    def rows(first: int, end: int) -> Range:
        return edges[min(first, end)], edges[end]

    return {
        "train": rows(0, train_end),
        "validation": rows(train_end + embargo_sessions, validation_end),
        "test": rows(validation_end + embargo_sessions, sessions),
    }


def episode_ranges(
    session: NDArray[Any],
    train_fraction: float,
    validation_fraction: float,
    *,
    lookback_window: int,
    max_steps: int,
    embargo_sessions: int = 1,
) -> dict[Split, Range | None]:
    """First and last row an episode may start on, inclusive, per split; None where none fits.

    Arguments are those of `split_rows`. An episode that starts on row s reads rows s to
    s + max_steps, all of them inside its split, and has at least `lookback_window` rows before it.
    """
    splits = split_rows(
        session, train_fraction, validation_fraction, embargo_sessions=embargo_sessions
    )
    ranges: dict[Split, Range | None] = {}
    for split, (begin, end) in splits.items():
        first, last = max(begin, lookback_window), end - 1 - max_steps
        ranges[split] = (first, last) if first <= last else None
    return ranges


def require_episodes(
    split: Split,
    session: NDArray[Any],
    train_fraction: float,
    validation_fraction: float,
    *,
    lookback_window: int,
    max_steps: int,
    path: object,
    embargo_sessions: int = 1,
) -> Range:
    """The range of one split, as `episode_ranges` gives it.

    Raises `InputError`, naming the file at `path` and the bars found and needed, where the split is
    too short for a single episode.
    """
    found = episode_ranges(
        session,
        train_fraction,
        validation_fraction,
        lookback_window=lookback_window,
        max_steps=max_steps,
        embargo_sessions=embargo_sessions,
    )[split]
    if found is not None:
        return found
    begin, end = split_rows(
        session, train_fraction, validation_fraction, embargo_sessions=embargo_sessions
    )[split]
    warmup = max(lookback_window - begin, 0)
    raise InputError(
        f"{path}: the {split} split has {end - begin:,} bars (of {session.size:,} in the file, "
        f"{_embargo(split, embargo_sessions)}), fewer than the {warmup + max_steps + 1:,} that "
        f"{f'{warmup} bars of warm-up plus ' if warmup else ''}one episode of {max_steps:,} steps "
        "need."
    )


def _embargo(split: Split, sessions: int) -> str:
    if split == "train" or sessions == 0:
        return "split by whole sessions"
    return f"split by whole sessions, {sessions} of them embargoed"
