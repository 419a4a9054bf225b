"""Rows of a symbol as a reader returns them, made up for tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jules_jax.market.readers.raw import Convention, RawBars

EQUITY = Convention("ohlcv")
CRYPTO = Convention("binance", "UTC", "24/7")
MINUTE = 60 * 10**9


def local(text: str, zone: str = "America/New_York") -> int:
    """UTC nanoseconds of a wall-clock time."""
    return pd.Timestamp(text, tz=zone).value


def rows(prices, times, volume=None, *, convention=EQUITY, name="ABC.csv", **columns) -> RawBars:
    """Rows `[B]`, one file, lines from 2; `prices` is `[B, 4]`: open, high, low, close.

    Stamps were read in the convention's zone; those of a convention in UTC are exact.
    """
    prices = np.array(prices, float)
    size = len(prices)
    return RawBars(
        symbol="ABC",
        files=(name,),
        file=np.zeros(size, np.int32),
        line=np.arange(2, size + 2),
        time=np.array(times, np.int64),
        **dict(zip(("open", "high", "low", "close"), prices.T.copy(), strict=True)),
        volume=np.full(size, 100.0) if volume is None else np.array(volume, float),
        signed_volume=columns.get("signed_volume"),
        half_spread=columns.get("half_spread"),
        convention=convention,
        naive_in=convention.timezone if convention.timezone != "UTC" else "",
    )


def sessions(
    first: str = "2025-03-03", days: int = 10, *, sd: float = 3e-4, seed: int = 0, shift: int = 0
) -> RawBars:
    """Regular New York sessions of one-minute bars, volumes highest at open and close.

    shift: minutes added to every stamp.
    """
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range(first, periods=days)
    open_times = [local(f"{date:%Y-%m-%d} 09:30") for date in dates]
    times = np.concatenate([start + MINUTE * (shift + np.arange(390)) for start in open_times])
    close = 100 * np.exp(np.cumsum(rng.normal(0, sd, times.size)))
    before = np.concatenate([[100.0], close[:-1]])
    wick = 1 + np.abs(rng.normal(0, sd, (2, times.size)))
    high, low = np.maximum(before, close) * wick[0], np.minimum(before, close) / wick[1]
    minute = np.tile(np.arange(390), days)
    shape = 1 + 4 * np.exp(-minute / 20) + 3 * np.exp((minute - 389) / 20)
    volume = np.round(1e4 * shape * np.exp(rng.normal(0, 0.5, times.size)))
    return rows(np.array([before, high, low, close]).T, times, volume)
