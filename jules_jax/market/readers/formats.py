"""The table of formats.

To add one, write one function in a module of its own and one test: `layout(head)` returns where the
columns are, or None where the first lines are not of the format; `finish` is for what is left to do
with the numbers, if anything. Then name it here, before any format that would also take its files,
and in `config.Market.format`.
"""

from __future__ import annotations

from jules_jax.errors import InputError
from jules_jax.market.readers import (
    alpaca,
    binance,
    databento,
    histdata,
    lean,
    metatrader,
    ohlcv,
    yahoo,
)
from jules_jax.market.readers.layout import Format, Layout, missing
from jules_jax.market.readers.table import Head

FORMATS: dict[str, Format] = {
    module.FORMAT.convention.name: module.FORMAT
    for module in (lean, histdata, metatrader, binance, databento, yahoo, alpaca, ohlcv)
}
"""Formats by name, in the order in which they are tried; plain OHLCV takes what is left."""


def recognise(head: Head, wanted: str) -> tuple[Format, Layout]:
    """The format of a file and where its columns are; `wanted` is `market.format`.

    Raises `InputError` that says what was found and what is needed.
    """
    if wanted not in ("auto", *FORMATS):
        choices = ", ".join(FORMATS)
        raise InputError(f"market.format is {wanted!r}, expected auto or one of {choices}.")
    for name, form in FORMATS.items():
        if wanted in ("auto", name) and (layout := form.layout(head)) is not None:
            return form, layout
    shown = ", ".join(field[:30] for field in (head.header or head.rows[0])[:20])
    if wanted not in ("auto", "ohlcv"):
        raise InputError(f"{head.name}: line 1: {shown!r} is not of the format {wanted}.")
    if head.header:
        lacking = ", ".join(missing(head))
        raise InputError(f"{head.name}: line 1: no column {lacking}; found {shown!r}.")
    raise InputError(
        f"{head.name}: line {head.header_lines + 1}: a row without a header and of no known "
        f"format, {shown!r}; expected a header with time, open, high, low, close and volume."
    )
