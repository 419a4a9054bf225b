"""What every reader returns: the rows of one symbol as its files have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Convention:
    """What a format says about its bars, where the configuration leaves it open.

    name: of the format, as `market.format` spells it. timezone: of naive times. calendar: of the
    sessions. exact_prices: prices and volumes are multiples of tick and quantity step, so these can
    be read off the decimals.
    """

    name: str
    timezone: str = "America/New_York"
    calendar: str = "XNYS"
    exact_prices: bool = False


@dataclass(frozen=True)
class RawBars:
    """Rows `[B]` of one symbol in the order of its files: nothing dropped, nothing repaired.

    time: UTC nanoseconds of the stamps as written, labels of a bar's start or end as the source has
    it. Prices in dollars and volumes in the source's unit are float64 and NaN where blank; volume
    is None where there is no such column. signed_volume: true taker flow (buys less sells), where
    the source has it. half_spread: half the quoted spread over the mid, in return units, where it
    has quotes. `file` and `line` say where a row is from: an index into `files`, and a 1-based
    physical line (row of a Parquet file). naive_in: the time zone that stamps without an offset
    were read in, empty where they are exact. notes: what the reader itself skipped or assumed, one
    sentence each.
    """

    symbol: str
    files: tuple[str, ...]
    file: Int32
    line: Int64
    time: Int64
    open: Float64
    high: Float64
    low: Float64
    close: Float64
    volume: Float64 | None
    signed_volume: Float64 | None
    half_spread: Float64 | None
    convention: Convention
    naive_in: str = ""
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """`FILE: line 12`, for messages about one row."""
        return f"{self.files[self.file[row]]}: line {self.line[row]}"

    def select(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> RawBars:
        """The same with some rows only, or in another order."""
        arrays: dict[str, Any] = {
            name: None if (column := getattr(self, name)) is None else column[rows]
            for name in (
                "file", "line", "time", "open", "high", "low", "close", "volume",
                "signed_volume", "half_spread",
            )
        }  # fmt: skip
        return replace(self, **arrays)
