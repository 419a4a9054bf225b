"""Where two records of the same episodes first disagree."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jules_jax.env.record import StepRecord

MONEY_TOLERANCE = 1e-6
"""Of equity: for dollars; of itself: equity, its peak and trough, round trips; of 1: drawdown."""
LEAST_EQUITY = 0.1
"""Of initial capital, for that purpose: what is left after a loss carries the loss's rounding."""
LEVEL_TOLERANCE = 1e-5
"""Relative: for volumes, volatilities and the like; for prices, to the bar's open where larger."""
REWARD_TOLERANCE = 1e-4
"""Absolute, for a reward term summed from the episode's start; or `MONEY_TOLERANCE` of Σ|terms|."""
FLUSHED = float(np.finfo(np.float32).tiny)
"""Smaller levels are zero to a device: the book's memories decay through the denormal numbers."""

EQUITIES = ("equity", "equity_peak", "trough", "trip_pnl")
PRICES = ("fill_price", "average_entry_price")
DOLLARS = ("price_pnl", "net_pnl")

Array = NDArray[Any]


class Disagreement(NamedTuple):
    """The first step on which two records differ, and the values of the first field that does."""

    lane: int
    step: int
    field: str
    found: float
    expected: float


def compare(
    record: StepRecord, twin: StepRecord, *, initial_capital: ArrayLike
) -> Disagreement | None:
    """The earliest disagreement of `record` with `twin`, or None.

    Counts and flags must be identical. Money may differ by `MONEY_TOLERANCE` of equity, levels by
    `LEVEL_TOLERANCE` of themselves, the running sum of each reward term by `REWARD_TOLERANCE`.
    Steps after a lane's termination (the twin's `time` is 0) are not compared.

    Args:
      record: of the compiled environment, `[N, T]`.
      twin: of `replay`, `[N, T]`.
      initial_capital: dollars, `[]` or `[N]`.
    """
    live = np.asarray(twin.time) > 0
    names = [field.name for field in dataclasses.fields(StepRecord)]
    found = {name: np.asarray(getattr(record, name)) for name in names}
    expected = {name: np.asarray(getattr(twin, name)) for name in names}
    capital = np.broadcast_to(np.asarray(initial_capital, np.float64), live.shape[:1])[:, None]
    first: tuple[int, int, int] | None = None
    for order, name in enumerate(names):
        wrong = live & _differs(name, found, expected, capital)
        if wrong.any():
            step, lane = (int(i) for i in np.argwhere(wrong.T)[0])
            first = min(first or (step, lane, order), (step, lane, order))
    if first is None:
        return None
    step, lane, order = first
    values = (float(records[names[order]][lane, step]) for records in (found, expected))
    return Disagreement(lane, step, names[order], *values)


def _differs(
    name: str, found: dict[str, Array], expected: dict[str, Array], capital: Array
) -> Array:
    """Where a field differs by more than it may, `[N, T]`; a NaN always does."""
    if expected[name].dtype.kind in "biu":
        return np.not_equal(found[name], expected[name])
    a, b = found[name].astype(np.float64), expected[name]
    tolerance: Any = LEVEL_TOLERANCE * abs(b) + FLUSHED
    money = MONEY_TOLERANCE * np.maximum(abs(expected["equity"]), LEAST_EQUITY)
    if name in EQUITIES:  # a peak is an equity too, of a time when it was larger
        tolerance = np.maximum(money, MONEY_TOLERANCE * abs(b))
    elif name in PRICES:  # costs can eat up most of a price, and more
        tolerance = LEVEL_TOLERANCE * np.maximum(abs(b), expected["reference_price"])
    elif name == "drawdown":
        tolerance = MONEY_TOLERANCE
    elif name in DOLLARS or name.startswith("cost_"):
        tolerance = money * capital
    elif name.startswith("reward"):
        a, b = np.cumsum(a, axis=1), np.cumsum(b, axis=1)
        terms = [abs(v) for n, v in expected.items() if n.startswith("reward_")]
        size = np.cumsum(sum(terms), axis=1)
        tolerance = np.maximum(REWARD_TOLERANCE, MONEY_TOLERANCE * size)
    agrees: Array = abs(a - b) <= tolerance
    return ~agrees
