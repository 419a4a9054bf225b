"""Generic OHLCV: a header with a time, open, high, low, close and maybe volume, in any order.

What has no standard name is told by its words or, a time, by its values (`layout.named`).
"""

from __future__ import annotations

from jules_jax.market.readers.layout import Format, named
from jules_jax.market.readers.raw import Convention

FORMAT = Format(Convention("ohlcv"), named)
