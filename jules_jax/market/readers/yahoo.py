"""Yahoo exports: `Datetime,Open,High,Low,Close,Adj Close,Volume`, or three header lines.

yfinance writes `Price,Close,...`, `Ticker,AAPL,...`, `Datetime,,...`; the head joins these. Prices
are taken as traded: `Adj Close` moves by dividends days later, which no bar knew.
"""

from __future__ import annotations

from jules_jax.market.readers.layout import Format, Layout, named
from jules_jax.market.readers.raw import Convention
from jules_jax.market.readers.table import Head


def layout(head: Head) -> Layout | None:
    """The layout that the header tells, if it is Yahoo's."""
    return named(head) if "adj_close" in head.names or head.header_lines == 3 else None


FORMAT = Format(Convention("yahoo"), layout)
