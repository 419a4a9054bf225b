"""Suspicion: bars that are possible but odd. They are listed and kept.

The thresholds were set on real histories (equities, futures, currencies, crypto): what regular
trading produces stays below them. `B` bars, `D` trading days.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jules_jax.market.quality.findings import Finding, at_rows
from jules_jax.market.readers.raw import Float64, RawBars

Days = NDArray[np.intp]

STALE_BARS = 10
"""Identical bars in a row beyond which prices are called stale."""
SPIKE_SD = 10.0
SPIKE_BARS = 2
"""A spike is a move of more than SPIKE_SD local sd that is undone within SPIKE_BARS bars…"""
SPIKE_LEFT = 0.25
"""… but for at most this share of it."""
SPIKE_BLOCK = 30
"""Bars over which a local sd is taken."""
REGIME_RATIO = 4.0
"""Ratio of median volumes before and after a change of volume regime (largest in an ordinary
history: 3.5, a crypto rally; smallest of a known change of feed: 5.2)."""
REGIME_GAP = 2.0
"""Ratio between the nearest sessions before and after: all of them must have changed."""
REGIME_SESSIONS = 3
"""Sessions compared before and after."""

MAD_TO_SD = 1.4826
"""sd over median absolute deviation of a normal distribution."""


def odd_bars(raw: RawBars, day: Days) -> list[Finding]:
    """Zero-volume bars, stale runs, spikes and changes of volume regime of sound bars `[B]`."""
    return [*zero_volume(raw), *stale_runs(raw, day), *spikes(raw, day), *regimes(raw, day)]


def zero_volume(raw: RawBars) -> list[Finding]:
    """Bars without volume, of a source that has volumes."""
    if raw.volume is None or not raw.volume.any():
        return []
    rows = np.flatnonzero(raw.volume == 0)
    return at_rows("zero volume", raw, rows, action="kept", detail="{count} bar{s} of zero volume")


def stale_runs(raw: RawBars, day: Days) -> list[Finding]:
    """Runs of more than `STALE_BARS` bars of one session with the same four prices."""
    same = day[1:] == day[:-1]
    for price in (raw.open, raw.high, raw.low, raw.close):
        same &= price[1:] == price[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]])))
    first, last = edges[::2], edges[1::2]  # of each run, as rows
    long = last - first + 1 > STALE_BARS
    longest = int((last - first + 1)[long].max(initial=0))
    return at_rows(
        "stale run",
        raw,
        first[long],
        action="kept",
        detail=f"{{count}} stale run{{s}} of more than {STALE_BARS} bars with the same prices, the "
        f"longest of {longest:,}",
    )


def spikes(raw: RawBars, day: Days) -> list[Finding]:
    """Closes, highs and lows far off their surroundings: bad prints, mostly.

    A close is a spike where its return exceeds `SPIKE_SD` local sd and is undone within
    `SPIKE_BARS` bars; a high or low where it is as far outside the bar's own open and close.
    Returns across trading days do not count.
    """
    level = np.log(raw.close)
    move = np.diff(level, prepend=level[:1])
    move[1:][day[1:] != day[:-1]] = 0.0
    limit = SPIKE_SD * local_sd(move)
    spike = (np.abs(move) > limit) & _undone(level, move, day)
    # The bar after a spike jumps as far, the other way: it is not a second one.
    spike[1:] &= ~spike[:-1]
    body_high, body_low = np.maximum(raw.open, raw.close), np.minimum(raw.open, raw.close)
    wick = np.log(np.maximum(raw.high / body_high, body_low / raw.low)) > limit
    wicks = int((wick & ~spike).sum())
    return at_rows(
        "spike",
        raw,
        np.flatnonzero(spike | wick),
        action="kept",
        detail=f"{{count}} spike{{s}} of more than {SPIKE_SD:g} sd, reversed at once"
        + (f", {wicks:,} of them in the high or low only" if wicks else ""),
    )


def _undone(level: Float64, move: Float64, day: Days) -> NDArray[np.bool_]:
    """Whether the move into each bar `[B]` is undone within `SPIKE_BARS` bars of its day."""
    undone = np.zeros(level.shape, bool)
    for bars in range(1, SPIKE_BARS + 1):
        before, at, after = slice(0, -1 - bars), slice(1, -bars), slice(1 + bars, None)
        left = np.abs(level[after] - level[before])
        undone[at] |= (left < SPIKE_LEFT * np.abs(move[at])) & (day[after] == day[before])
    return undone


def local_sd(move: Float64) -> Float64:
    """Robust sd `[B]` of returns around each bar; infinite where nothing moves.

    The largest median absolute return of a block of `SPIKE_BLOCK` bars and its neighbours, so that
    the open does not look like a spike to the quiet before it, and at least that of all bars that
    moved.
    """
    size = np.abs(move)
    if not size.any():
        return np.full(move.shape, np.inf)
    blocks = -(-move.size // SPIKE_BLOCK)
    padded = np.full(blocks * SPIKE_BLOCK, np.nan)
    padded[: move.size] = size
    median = np.pad(np.nanmedian(padded.reshape(blocks, SPIKE_BLOCK), axis=1), 1, mode="edge")
    around = np.maximum(np.maximum(median[:-2], median[1:-1]), median[2:])
    floor = float(np.median(size[size > 0]))
    sd: Float64 = MAD_TO_SD * np.maximum(np.repeat(around, SPIKE_BLOCK)[: move.size], floor)
    return sd


def regimes(raw: RawBars, day: Days) -> list[Finding]:
    """Sessions from which volumes are of another order: a change of feed or of unit.

    Compares the median volume per bar of `REGIME_SESSIONS` sessions before and after: their medians
    must differ by more than `REGIME_RATIO`, and each session after from each before by more than
    `REGIME_GAP`.
    """
    if raw.volume is None or not (raw.volume > 0).any():
        return []
    traded = np.flatnonzero(raw.volume > 0)
    by_day = pd.Series(np.log(raw.volume[traded])).groupby(day[traded])
    volume = by_day.median().to_numpy()
    first = traded[by_day.head(1).index.to_numpy()]
    if volume.size < 2 * REGIME_SESSIONS:
        return []
    window = np.lib.stride_tricks.sliding_window_view(volume, REGIME_SESSIONS)
    before, after = window[:-REGIME_SESSIONS], window[REGIME_SESSIONS:]
    step = np.median(after, axis=1) - np.median(before, axis=1)
    up, down = after.min(1) - before.max(1), before.min(1) - after.max(1)
    gap = np.where(step > 0, up, down)
    changed = np.flatnonzero((np.abs(step) > np.log(REGIME_RATIO)) & (gap > np.log(REGIME_GAP)))
    rows = first[changed + REGIME_SESSIONS]
    steps = ", ".join(
        f"{pd.Timestamp(int(raw.time[row])):%Y-%m-%d} (× {np.exp(step[at]):.3g})"
        for row, at in zip(rows[:6], changed, strict=False)
    )
    return at_rows(
        "volume regime",
        raw,
        rows,
        action="warning",
        detail=f"{{count}} change{{s}} of volume regime, on {steps}"
        f"{', …' if rows.size > 6 else ''}: volumes before and after may not be from one source",
    )
