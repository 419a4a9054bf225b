"""Alpaca and Polygon bars: `t,o,h,l,c,v,vw,n`, or their long names; times are UTC.

Long names alone do not tell these from anyone's file with a VWAP: there, the times must have an
offset or count from 1970 too, so that no wall-clock time is taken for UTC.
"""

from __future__ import annotations

import re
from dataclasses import replace

from jules_jax.market.readers.layout import Format, Layout, named
from jules_jax.market.readers.raw import Convention
from jules_jax.market.readers.table import Head

EXACT = re.compile(r"\d{9,}|.*([Zz]|[+-]\d\d:?\d\d)")
"""Times that need no time zone."""


def layout(head: Head) -> Layout | None:
    """The layout that the header tells, if it is theirs."""
    names = {*head.names}
    short = {"t", "o", "h", "l", "c"} <= names
    counts = {"trade_count", "transactions", "n", "num_trades"} & names
    if not (short or ({"vwap", "vw", "window_start"} & names and counts)):
        return None
    found = named(head)
    if found is None or not (short or EXACT.fullmatch(head.rows[0][found.time[0]])):
        return None
    return replace(found, utc=True)


FORMAT = Format(Convention("alpaca", timezone="UTC"), layout)
