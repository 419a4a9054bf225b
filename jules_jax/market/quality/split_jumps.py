"""Splits of shares, seen as jumps of the price by a ratio of small whole numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jules_jax.market.readers.raw import Float64, RawBars

RATIOS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 100])
"""New shares for one old share (3:2 to 100:1), or old for new in a reverse split."""
TOLERANCE = 0.03
"""How far a jump may be from a ratio, as a log return: the market moves too."""
LEVEL_BARS = 10
LEVEL_TOLERANCE = 0.10
"""The median close of so many bars after and before must differ by the ratio, within this."""


@dataclass(frozen=True)
class Splits:
    """Split-like jumps `[J]`: the row of the first bar that closes after each, and the ratio.

    ratio: new shares for one old share, so that prices before are divided by it.
    """

    row: NDArray[np.intp]
    ratio: Float64


def find(raw: RawBars) -> Splits:
    """Jumps from one close to the next that look like splits and last."""
    jump = -np.diff(np.log(raw.close))  # log of the new shares for an old one
    distance, nearest = _nearest(jump)
    row = np.flatnonzero(distance < TOLERANCE) + 1
    ratio = nearest[row - 1]
    around = np.arange(LEVEL_BARS)
    after = np.median(raw.close[np.minimum(row[:, None] + around, raw.close.size - 1)], axis=1)
    before = np.median(raw.close[np.maximum(row[:, None] - 1 - around, 0)], axis=1)
    lasts = np.abs(np.log(before / after) - np.log(ratio)) < LEVEL_TOLERANCE
    return Splits(row[lasts], ratio[lasts])


def _nearest(jump: Float64) -> tuple[Float64, Float64]:
    """How far each log jump `[B]` is from the nearest ratio, and that ratio."""
    logs = np.sort(np.concatenate([-np.log(RATIOS), np.log(RATIOS)]))
    index = np.searchsorted((logs[1:] + logs[:-1]) / 2, jump)
    return np.abs(jump - logs[index]), np.exp(logs[index])


def adjust(raw: RawBars, splits: Splits) -> RawBars:
    """Bars before each split in terms of the new shares: prices divided, volumes multiplied.

    A bar that spans a split has each of its prices adjusted that is nearer to the last close before
    than to its own close; its volume is left, being mostly of one kind or the other.
    """
    ratio = np.ones(raw.close.shape)
    for row, shares in zip(splits.row, splits.ratio, strict=True):
        ratio[:row] *= shares
    old, new = np.log(raw.close[splits.row - 1]), np.log(raw.close[splits.row])
    columns: dict[str, Any] = {}
    for name in ("open", "high", "low", "close"):
        price = getattr(raw, name) / ratio
        level = np.log(getattr(raw, name)[splits.row])
        is_old = np.abs(level - old) < np.abs(level - new)
        price[splits.row] /= np.where(is_old, splits.ratio, 1.0)
        columns[name] = price
    prices = np.array([*columns.values()])
    columns["high"], columns["low"] = prices.max(axis=0), prices.min(axis=0)
    for name in ("volume", "signed_volume"):
        volume = getattr(raw, name)
        columns[name] = None if volume is None else volume * ratio
    return replace(raw, **columns)


def spell(ratio: float) -> str:
    """`7:1` for seven new shares for an old one, `1:10` for a reverse split."""
    shares = max(ratio, 1 / ratio)
    new, old = (3, 2) if abs(shares - 1.5) < 1e-9 else (round(shares), 1)
    return f"{new}:{old}" if ratio > 1 else f"{old}:{new}"
