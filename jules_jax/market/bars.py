"""Bars: the prices and volumes of one symbol in time order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax

Array = Any
"""A NumPy or JAX array: bars are built on the host and consumed on the device."""


def _static(default: Any) -> Any:
    return field(default=default, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bars:
    """Bars of one symbol, `[B]` each (or `[..., B]` for a batch of paths), in time order.

    Prices are dollars, volumes shares (or the source's unit), all float32. `session` numbers the
    sessions from 0; `bar_of_session` is the slot within the session (minute over the bar's
    length); `minute` counts from the session's open to the bar's *start*; `session_length` is in
    minutes (int32). A bar with `valid` false did not trade: its price is the last one, its volume
    0. `half_spread` is in return units (half the quoted spread over the price); `signed_volume` is
    true taker flow, where the source has it. On a `continuous` calendar (24/7) sessions are days
    on which nothing closes. `bars_per_session` is the number of slots of a full session.
    """

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    session: Array
    bar_of_session: Array
    minute: Array
    session_length: Array
    valid: Array
    half_spread: Array | None = None
    signed_volume: Array | None = None
    bar_seconds: int = _static(60)
    bars_per_session: int = _static(390)
    continuous: bool = _static(False)
