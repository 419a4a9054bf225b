"""Databento OHLCV: `ts_event` in UTC, prices as integers of 1e-9 or as decimals (`pretty_px`).

Undefined prices are the largest int64. Fields: https://databento.com/docs/schemas-and-data-formats
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jules_jax.errors import InputError
from jules_jax.market.readers.layout import PRICES, Format, Layout, first_of, named
from jules_jax.market.readers.raw import Convention, Float64, RawBars
from jules_jax.market.readers.table import Head

SCALE = 10**9
UNDEFINED = float(np.iinfo(np.int64).max)


def layout(head: Head) -> Layout | None:
    """The columns by name, if there are Databento's beside them."""
    names = {*head.names}
    ids = {"rtype", "publisher_id", "instrument_id"} & names
    found = named(head) if "ts_event" in names and ids else None
    if found is None:
        return None
    numbers = dict(found.numbers)
    instrument = first_of(head, "instrument_id")
    if found.symbol is None and instrument is not None:
        numbers["instrument"] = instrument
    return replace(found, time=(head.names.index("ts_event"),), numbers=numbers, utc=True)


def finish(bars: RawBars, numbers: Mapping[str, Float64], head: Head) -> RawBars:
    """With prices in dollars, NaN where undefined; several instruments need a column of symbols."""
    if "instrument" in numbers and np.ptp(numbers["instrument"]):
        raise InputError(
            f"{head.name}: holds several values of instrument_id and no column symbol, expected "
            "one instrument or an export that maps symbols."
        )
    layout_ = named(head)
    assert layout_ is not None
    # Decimals always come with a point.
    fixed = not any("." in row[layout_.numbers[name]] for row in head.rows for name in PRICES)
    prices: dict[str, Any] = {name: numbers[name] / (SCALE if fixed else 1) for name in PRICES}
    for name, price in prices.items():
        price[numbers[name] >= UNDEFINED] = np.nan
    return replace(bars, **prices)


FORMAT = Format(Convention("databento", timezone="UTC", exact_prices=True), layout, finish)
