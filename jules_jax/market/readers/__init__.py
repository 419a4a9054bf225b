"""Readers: from files of bars to `Bars` and their exact times."""

from jules_jax.market.readers.ohlcv_csv import Source, read

__all__ = ["Source", "read"]
