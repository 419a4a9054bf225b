"""Binance klines: 12 columns, with a header (futures) or without (spot); epoch ms, or us from 2025.

The taker's buys make the true order flow: signed volume = 2 x taker buys - volume.
Columns: https://github.com/binance/binance-public-data#klines
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jules_jax.market.readers.layout import Format, Layout, first_of, named
from jules_jax.market.readers.raw import Convention, Float64, RawBars
from jules_jax.market.readers.table import Head

TAKER = (
    "taker_buy_volume", "taker_buy_base_asset_volume", "taker_buy_base_volume", "taker_base_vol",
    "taker_buy_base",
)  # fmt: skip


def layout(head: Head) -> Layout | None:
    """The 12 columns by name, or by place in a file without a header."""
    if head.header:
        taker = first_of(head, *TAKER)
        found = named(head) if taker is not None and "open_time" in head.names else None
        if found is None or taker is None:
            return None
        # `open_time` leads: other columns of times may be texts of the same.
        time = (head.names.index("open_time"),)
        return replace(found, time=time, numbers={**found.numbers, "taker": taker}, utc=True)
    first = head.rows[0]
    if len(first) != 12 or not (first[0].isdigit() and first[6].isdigit()):
        return None
    if not int(first[6]) > int(first[0]) > 10**11:
        return None
    roles = ("open", "high", "low", "close", "volume")
    return Layout(
        time=(0,), numbers={**{role: at + 1 for at, role in enumerate(roles)}, "taker": 9}
    )


def finish(bars: RawBars, numbers: Mapping[str, Float64], head: Head) -> RawBars:
    """With the true order flow."""
    if bars.volume is None:
        return bars
    return replace(bars, signed_volume=2 * numbers["taker"] - bars.volume)


FORMAT = Format(
    Convention("binance", timezone="UTC", calendar="24/7", exact_prices=True), layout, finish
)
