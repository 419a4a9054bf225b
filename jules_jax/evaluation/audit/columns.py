"""The columns of an audit: what one step, and what the beginning of one episode, is written as.

Two tables. A row of `steps` is a step: every field of `StepRecord`, the bar it executed in, what
the policy saw and thought, and what names it. A row of `episodes` is a beginning: the row and the
bar on whose close the first decision was taken, and the numbers that the episode drew for itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from jules_jax.env.record import StepRecord
from jules_jax.market.table import NUM_MARKET_ENTRIES, Row

SCHEMA_VERSION = 2

Array = NDArray[Any]
Columns = dict[str, Any]
"""Columns of one length by name: NumPy arrays, and `pyarrow.DictionaryArray` of texts."""

FIELDS = tuple(field.name for field in dataclasses.fields(StepRecord))
FLAGS = frozenset(
    (
        "forced", "action_matters", "capped_by_participation", "capped_by_cash", "trip_closed",
        "in_purgatory", "purgatory_entered", "escaped", "hard_breach", "locked", "lock_released",
        "early_warning", "alternation", "terminated",
    )
)  # fmt: skip
COUNTS = frozenset(
    (
        "row", "time", "symbol", "request", "outcome", "position_before", "lot", "quantity",
        "close_quantity", "position", "soft_breach_run", "cooldown_left", "chain", "repeats",
    )
)  # fmt: skip
BAR_COLUMNS = (
    *(f"bar_{name}" for name in Row._fields[:-1]),
    *(f"bar_market_{entry}" for entry in range(NUM_MARKET_ENTRIES)),
)
OBSERVED = (
    "rsi", "ema_fast", "ema_slow", "vwap", "clock_sin", "clock_cos", "volatility", "liquidity",
    "open_pnl", "drawdown", "cooldown", "position",
)  # fmt: skip
"""The entries of an observation, in order (docs/environment.md)."""
OBSERVATION_COLUMNS = tuple(f"observed_{name}" for name in OBSERVED)
LOGIT_COLUMNS = ("logit_sell", "logit_hold", "logit_buy")
WORDS = ("run", "policy", "checkpoint", "symbol_name")
"""Columns of text, which come first in both tables."""
NUMBER = "number_"
"""Before the key, in the name of the column of a number that every episode draws for itself."""

STEPS: dict[str, str] = {
    **dict.fromkeys(WORDS, "text"),
    "episode": "<i4",
    "step": "<i4",
    "timestamp_ns": "<i8",
    "progress": "<f8",
    **{name: "|b1" if name in FLAGS else "<i4" if name in COUNTS else "<f4" for name in FIELDS},
    **dict.fromkeys(BAR_COLUMNS, "<f4"),
    **dict.fromkeys(OBSERVATION_COLUMNS, "<f4"),
    **dict.fromkeys(LOGIT_COLUMNS, "<f4"),
    "value": "<f4",
}
"""Columns of `steps` and their types; `episode` and `step` count from 0."""
EPISODES: dict[str, str] = {
    **dict.fromkeys(WORDS, "text"),
    "episode": "<i4",
    "lane": "<i4",
    "symbol": "<i4",
    "start_row": "<i4",
    "start_timestamp_ns": "<i8",
    "start_time": "<i4",
    "steps": "<i4",
    "progress": "<f8",
    **dict.fromkeys(BAR_COLUMNS, "<f4"),
}
"""Columns of `episodes`. `start_time`: steps on the clock before the first, not 0 only in lanes
that begin a training run at different clocks. `steps`: how many follow, 0 where it is not known
when the episode begins, as in training."""
HASH = "row_hash"


def of_table(table: str, numbers: Iterable[str] = ()) -> dict[str, str]:
    """Columns and types of `steps` or `episodes`; `numbers`: dotted keys that episodes draw."""
    if table == "steps":
        return STEPS
    return EPISODES | {number_column(key): "<f4" for key in numbers}


def number_column(key: str) -> str:
    """The column of a number that episodes draw, of its dotted key."""
    return NUMBER + key.replace(".", "_")
