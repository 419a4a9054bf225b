"""Rows of a recorded symbol: from its bars and terms of trade to the lines of the table.

There is one way to compute them, whether they stay on the device or are served in generations, so
an episode cannot tell the two apart.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.market import features, table
from jules_jax.market.bars import Bars

if TYPE_CHECKING:
    from jules_jax.market.instruments import Instrument

Rows = NDArray[np.float32]
"""`[R, C]` on the host, in memory or mapped into it."""

DEFAULT_TICK, DEFAULT_QUANTITY_STEP = 0.01, 1.0
"""Dollars and shares, of simulated paths and of sources that do not say: a US equity's."""

EXACT_STEPS = 2**23
"""Most quantity steps in a full-size position: float32 holds their half-steps exactly."""

DEEPEST_FALL = 256.0
"""How far prices may fall from their first before sizes saturate. The step is fixed for the history
by its first price alone: by its lowest, it would tell of the future."""


class Terms(NamedTuple):
    """What a symbol is traded in: facts about it, fixed for its whole history.

    tick: dollars. unit: its smallest quantity, in the unit of its volume. quantity_step: the
    quantity that positions are counted in, `unit` or a power of ten times it.
    """

    tick: float
    unit: float
    quantity_step: float


def terms(bars: Bars, instrument: Instrument | None, settings: config.Config) -> Terms:
    """The terms of one symbol: those of `instrument`, else of `settings.market`, else defaults."""
    tick = (instrument and instrument.tick) or settings.market.tick or DEFAULT_TICK
    unit = (instrument and instrument.quantity_step) or settings.market.quantity_step
    unit = unit or DEFAULT_QUANTITY_STEP
    lowest = float(bars.open[0]) / DEEPEST_FALL
    return Terms(tick, unit, exact_step(settings.account, unit, lowest))


def exact_step(account: config.Account, unit: float, lowest_price: float) -> float:
    """A symbol's smallest quantity, raised by powers of ten until positions fit in float32.

    A full-size position at `lowest_price` (dollars), twice over for gains of the account, must be
    fewer than 2²³ steps, so that int32 and float32 arithmetic on quantities is exact.
    """
    quantity = 2.0 * account.max_position_size_pct * account.initial_capital / lowest_price
    step = unit
    while quantity / step >= EXACT_STEPS:
        step *= 10.0
    return step


def compute(bars: Bars, symbol_terms: Terms, windows: config.Features) -> Rows:
    """Rows `[B, C]` of one symbol's bars `[B]`, in time order.

    One long history is a scan of many small steps, which suits no accelerator: it runs on the CPU.
    Bars are padded to one of a few lengths, so that symbols share a compiled program; features are
    causal, so that the padding changes nothing before it.
    """
    count = len(bars.close)
    with jax.default_device(_host()):
        rows = _rows(
            _padded(bars, padded_length(count)),
            np.float32(symbol_terms.tick),
            np.float32(symbol_terms.quantity_step),
            windows=windows,
            unit=symbol_terms.unit,
        )
    return np.asarray(rows)[:count]


@partial(jax.jit, static_argnames=("windows", "unit"))
def _rows(
    bars: Bars, tick: jax.Array, step: jax.Array, *, windows: config.Features, unit: float
) -> jax.Array:
    computed = features.compute(bars, windows, unit)
    return table.build_rows(bars, computed, tick=tick, quantity_step=step)


def padded_length(count: int) -> int:
    """The least of 1, 1¼, 1½ and 1¾ times a power of two that holds `count` bars, at least 64."""
    quarter = max(1 << (max(count - 1, 1).bit_length() - 1) >> 2, 16)
    return -(-count // quarter) * quarter if count > 64 else 64


def _padded(bars: Bars, length: int) -> Bars:
    """`bars` followed by bars of a session of their own that did not trade, `length` in all."""
    extra = length - len(bars.close)

    def pad(name: str, values: Any) -> NDArray[Any]:
        column = np.asarray(values)
        last = column[-1:]
        if name == "session":
            last = last + 1
        elif name in ("volume", "signed_volume", "valid"):
            last = np.zeros_like(last)
        return np.concatenate([column, np.repeat(last, extra)])

    columns: dict[str, Any] = {
        name: pad(name, column)
        for name, column in vars(bars).items()
        if column is not None and np.ndim(column)
    }
    return replace(bars, **columns)


def _host() -> jax.Device | None:
    """The CPU, where the process has one as a device."""
    try:
        device: jax.Device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    return device
