"""Readers: from anyone's files of bars to the rows of each symbol (`formats` is the table)."""

from jules_jax.market.readers.raw import Convention, RawBars
from jules_jax.market.readers.reading import read_symbol
from jules_jax.market.readers.symbols import SymbolFiles, find

__all__ = ["Convention", "RawBars", "SymbolFiles", "find", "read_symbol"]
