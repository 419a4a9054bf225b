"""Recorded symbols made in NumPy, as `source.load` returns them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jules_jax.market.bars import Bars
from jules_jax.market.instruments import Instrument
from jules_jax.market.source import Source

MINUTE, DAY = 60 * 10**9, 86_400 * 10**9
"""Nanoseconds."""


def make_source(
    symbol: str = "AAA",
    *,
    sessions: int = 12,
    slots: int = 30,
    seed: int = 0,
    price: float = 100.0,
    volume: float = 10_000.0,
    continuous: bool = False,
    bar_seconds: int = 60,
    **instrument: Any,
) -> Source:
    """Consecutive days from 2025-03-03 of `slots` bars each, from 14:30 (continuous: 00:00)."""
    rng = np.random.default_rng(seed)
    count = sessions * slots
    session, slot = np.divmod(np.arange(count), slots)
    close = price * np.exp(np.cumsum(rng.normal(0, 5e-4, count)))
    open_ = np.concatenate([[price], close[:-1]])
    minute = slot * bar_seconds // 60
    opening = np.datetime64("2025-03-03T00:00" if continuous else "2025-03-03T14:30", "ns")
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * 1.0002,
        "low": np.minimum(open_, close) * 0.9998,
        "close": close,
        "volume": volume * rng.uniform(0.5, 1.5, count),
    }
    bars = Bars(
        **{name: column.astype(np.float32) for name, column in columns.items()},
        session=session.astype(np.int32),
        bar_of_session=slot.astype(np.int32),
        minute=minute.astype(np.int32),
        session_length=np.full(count, slots * bar_seconds // 60, np.int32),
        valid=rng.random(count) > 0.02,
        bar_seconds=bar_seconds,
        bars_per_session=slots,
        continuous=continuous,
    )
    time = opening.astype(np.int64) + session * DAY + slot * bar_seconds * (MINUTE // 60)
    terms = {"tick": 0.01, "quantity_step": 1.0, "weight": 1.0, **instrument}
    fields = {field: terms.get(field) for field in Instrument.__dataclass_fields__}
    return Source(symbol, bars, time, Instrument(**fields), (f"{symbol}: {count} bars",))
