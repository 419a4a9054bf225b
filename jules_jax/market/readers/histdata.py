"""HistData "Generic ASCII" minutes: `20170102 020000;1.05155;1.05197;1.05155;1.05190;0`.

No header, bid prices, no volume. HistData documents the clock as Eastern time without daylight
saving; files checked against announcements follow New York's wall clock instead, which is read
here. Times without daylight saving are `market.timezone: EST`.
"""

from __future__ import annotations

import re

from jules_jax.market.readers.layout import PRICES, Format, Layout
from jules_jax.market.readers.raw import Convention
from jules_jax.market.readers.table import Head

TIME = re.compile(r"\d{8} \d{6}")


def layout(head: Head) -> Layout | None:
    """The columns by place, if the first field is such a time; also its MetaTrader variant."""
    numbers = {role: at + 1 for at, role in enumerate((*PRICES, "volume"))}
    if head.header:
        return None
    if head.delimiter == ";" and head.width == 6 and TIME.fullmatch(head.rows[0][0]):
        return Layout(time=(0,), numbers=numbers)
    if head.path.name.startswith("DAT_MT_") and head.width == 7:
        return Layout(time=(0, 1), numbers={role: at + 1 for role, at in numbers.items()})
    return None


FORMAT = Format(Convention("histdata", calendar="24/5", exact_prices=True), layout)
