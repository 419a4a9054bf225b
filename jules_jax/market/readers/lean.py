"""QuantConnect LEAN minute zips: one day and kind each, `spy/20131004_trade.zip`.

Trades: milliseconds since New York midnight, open, high, low, close (x 10,000), volume. Quotes:
time, bid OHLC, bid size, ask OHLC, ask size; they give the half spread at a bar's close. The date
is only in the name. Source: https://github.com/QuantConnect/Lean/blob/master/Data/equity/readme.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jules_jax.market.readers.layout import PRICES, Format, Layout
from jules_jax.market.readers.raw import Convention, Float64, RawBars
from jules_jax.market.readers.table import Head

SCALE = 10_000
NAME = re.compile(r"(\d{8})_(?:\w+_)?(trade|quote)\b")
WIDTH = {"trade": 6, "quote": 11}


def layout(head: Head) -> Layout | None:
    """The columns by place, if the file's name has a date and a kind."""
    name = NAME.match(head.path.name)
    if name is None or head.header or WIDTH[name[2]] != head.width:
        return None
    if name[2] == "quote":
        return Layout(time=(0,), numbers={"bid": 4, "ask": 9}, date=name[1])
    roles = (*PRICES, "volume")
    return Layout(time=(0,), numbers={role: at + 1 for at, role in enumerate(roles)}, date=name[1])


def finish(bars: RawBars, numbers: Mapping[str, Float64], head: Head) -> RawBars:
    """Prices in dollars; of quotes, half of ask less bid over the mid, NaN where one is missing."""
    if "bid" not in numbers:
        prices: dict[str, Any] = {name: numbers[name] / SCALE for name in PRICES}
        return replace(bars, **prices)
    bid, ask = numbers["bid"], numbers["ask"]
    with np.errstate(invalid="ignore", divide="ignore"):
        half_spread = np.where((bid > 0) & (ask >= bid), (ask - bid) / (ask + bid), np.nan)
    return replace(bars, half_spread=half_spread)


FORMAT = Format(Convention("lean", exact_prices=True), layout, finish)
