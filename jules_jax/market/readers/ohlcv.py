"""Generic OHLCV: a header that names a time, open, high, low, close and maybe volume, any order."""

from __future__ import annotations

from jules_jax.market.readers.layout import Format, named
from jules_jax.market.readers.raw import Convention

FORMAT = Format(Convention("ohlcv"), named)
