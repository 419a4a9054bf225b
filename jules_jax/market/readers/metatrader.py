"""MetaTrader exports: MT4 `2020.01.02,00:00,o,h,l,c,v`, MT5 `<DATE>` to `<SPREAD>` under a header.

The clock is the broker's server, which the file does not name: mostly UTC+2, +3 in summer. Volume
is `<VOL>` where it is given, else the number of ticks, `<TICKVOL>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from jules_jax.market.readers.layout import PRICES, Format, Layout, first_of, named
from jules_jax.market.readers.raw import Convention, Float64, RawBars
from jules_jax.market.readers.table import Head

DATE = re.compile(r"\d{4}\.\d\d\.\d\d")
SERVER = "Europe/Helsinki"
CLOCK = (
    f"MetaTrader files do not name their clock: without market.timezone it is read as {SERVER}, "
    "as most servers have it"
)


def layout(head: Head) -> Layout | None:
    """The columns by name (MT5) or by place (MT4)."""
    if head.header:
        if not all(name.startswith("<") for name in head.header):
            return None
        found = named(head)
        if found is None:
            return None
        real, ticks = first_of(head, "vol"), first_of(head, "tickvol")
        numbers = {role: found.numbers[role] for role in PRICES}
        numbers |= {role: at for role, at in (("volume", real), ("ticks", ticks)) if at is not None}
        return replace(found, numbers=numbers, notes=(CLOCK,))
    if head.width != 7 or not DATE.fullmatch(head.rows[0][0]) or ":" not in head.rows[0][1]:
        return None
    numbers = {role: at + 2 for at, role in enumerate((*PRICES, "volume"))}
    return Layout(time=(0, 1), numbers=numbers, notes=(CLOCK,))


def finish(bars: RawBars, numbers: Mapping[str, Float64], head: Head) -> RawBars:
    """With ticks counted where no volume is given."""
    if "ticks" in numbers and (bars.volume is None or not bars.volume.any()):
        return replace(
            bars,
            volume=numbers["ticks"],
            notes=(*bars.notes, "volume is the number of ticks, as MetaTrader counts it"),
        )
    return bars


FORMAT = Format(
    Convention("metatrader", timezone=SERVER, calendar="24/5", exact_prices=True), layout, finish
)
