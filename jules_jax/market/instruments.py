"""Instruments: what a symbol trades in, as told by a file of symbols or read off its prices."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jules_jax import config
from jules_jax.config import yaml_files
from jules_jax.config.validation import FLOAT32_MAX
from jules_jax.errors import InputError
from jules_jax.market.readers.raw import Float64, RawBars

if TYPE_CHECKING:
    import yaml

EQUITY_CALENDARS = frozenset(("regular", "XNYS", "NYSE", "XNAS", "NASDAQ", "XASE", "ARCX", "BATS"))
"""Calendars of US equities, and the one that knows no exchange: symbols of whole shares."""

WHOLE = 1.0
"""Quantity step of shares, and of sources without volume."""

MAX_DECIMALS = 10
"""Most decimals looked for; exchanges quote and trade in no smaller units."""

TICKS = (1, 2, 5, 25, 125)
"""Ticks seen in markets, as multiples of a price's last decimal: 0.5, 0.25, 0.125."""

OPENING = 2000
"""Bars of a history that its terms are read off: five days of minutes."""

ENOUGH = 400
"""Prices from which a tick above the last decimal is read: fewer could share a factor by chance."""


ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Largest relative error of a decimal text read as float64, and of a little arithmetic on it."""


@dataclass(frozen=True)
class Instrument:
    """What a symbol trades in; 0 and empty mean not given, before `resolve`.

    tick: smallest price change, dollars. quantity_step: smallest quantity. spread_bps: quoted
    spread, basis points of the price. adv: average daily volume, for sources without volume.
    calendar: of its sessions. weight: how often it is drawn in training, relative to others.
    """

    tick: float = 0.0
    quantity_step: float = 0.0
    spread_bps: float = 0.0
    adv: float = 0.0
    calendar: str = ""
    weight: float = 0.0


FIELDS = tuple(field.name for field in dataclasses.fields(Instrument))


def read(path: str | Path) -> dict[str, Instrument]:
    """Instruments by symbol from a YAML file, such as `BTCUSDT: {tick: 0.1, calendar: 24/7}`.

    An empty path has none.

    Raises `InputError`, naming the line, for a file that is missing, not YAML or no mapping of
    mappings, for an unknown or repeated key, and for a number that is not above 0.
    """
    instruments: dict[str, Instrument] = {}
    if not path:
        return instruments
    if not Path(path).exists():
        raise InputError(
            f"{path}: no such file; --symbols takes a YAML file of instruments, and what is read "
            "is for --data to say"
        )
    root = yaml_files.compose(path, "file of symbols", "such as SPY: {tick: 0.01}")
    for symbol, node, source in _pairs(root, path, "symbols"):
        values: dict[str, str | float] = {}
        for key, value, place in _pairs(node, path, f"settings of {symbol}, {source}"):
            if key not in FIELDS:
                nearest = difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.0)[0]
                raise InputError(f"unknown key {key!r} {place}, the nearest valid key is {nearest}")
            text = value.value if isinstance(value.value, str) else "a list"
            name = f"{key} of {symbol} {place}"
            values[key] = _calendar(text, name) if key == "calendar" else _number(text, name)
        instruments[symbol] = Instrument(**values)  # type: ignore[arg-type]  # by `FIELDS`
    return instruments


def unused(path: str, given: Mapping[str, Instrument], symbols: Collection[str]) -> list[str]:
    """A sentence on each symbol of the file at `path` that is not among the `symbols` read.

    A file may serve more data than one run reads, so this is no error; it may be a misspelling.
    """
    return [
        f"{path}: {name} is not among the symbols read"
        + "".join(f", did you mean {near}?" for near in difflib.get_close_matches(name, symbols, 1))
        for name in given
        if name not in symbols
    ]


def resolve(
    symbol: str, raw: RawBars, market: config.Market, given: Mapping[str, Instrument]
) -> Instrument:
    """The instrument of a symbol: as given for it, else as configured, else as its source has it.

    raw: its rows, of which the `OPENING` first in time count: terms hold for the whole history, so
    they must be known when it begins. Tick and quantity step are read off the decimals in use where
    prices are exact, and on other calendars than a US equity's. US equities trade in whole shares,
    and tick in no less than a cent from a dollar on, a hundredth of one below (SEC Rule 612, 17 CFR
    242.612), by the median price: trades, unlike quotes, print in finer steps. The spread and the
    average daily volume stay 0 where nobody gives them.
    """
    if raw.time.size > OPENING:
        raw = raw.select(raw.time <= np.partition(raw.time, OPENING - 1)[OPENING - 1])
    own = given.get(symbol, Instrument())
    configured = "" if market.calendar == "auto" else market.calendar
    calendar = own.calendar or configured or raw.convention.calendar
    equity = calendar in EQUITY_CALENDARS
    exact = raw.convention.exact_prices or not equity
    tick = own.tick or market.tick
    if not tick and exact:
        tick = unit_of(np.concatenate([raw.open, raw.high, raw.low, raw.close]), TICKS)
    if not (own.tick or market.tick) and equity:
        closes = raw.close[raw.close > 0]
        tick = max(tick, 0.0001 if closes.size and np.median(closes) < 1.0 else 0.01)
    step = own.quantity_step or market.quantity_step
    if not step and exact and raw.volume is not None:
        step = unit_of(raw.volume)
    return Instrument(
        tick=tick,
        quantity_step=step or WHOLE,
        spread_bps=own.spread_bps,
        adv=own.adv or market.adv,
        calendar=calendar,
        weight=own.weight or 1.0,
    )


def unit_of(values: Float64, multiples: tuple[int, ...] = (1,)) -> float:
    """The unit that all values are multiples of: the last decimal in use, or a multiple of it.

    Of the `multiples` the largest that fits is taken, where there are values enough to tell. Values
    with no end of decimals give the smallest unit that float64 can tell; no values above 0 give 0.
    """
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 0.0
    fitting = multiples if values.size >= ENOUGH else (1,)
    for decimals in range(MAX_DECIMALS + 1):
        scale = 10.0**decimals
        if ROUNDING * values.max() * scale > 0.1:
            break
        if _all_whole(values, scale):
            return max(n for n in fitting if _all_whole(values, scale / n)) / scale
    return float(10.0**-decimals)


def _all_whole(values: Float64, scale: float) -> bool:
    """Whether `values` `[B]` times `scale` are whole numbers, but for rounding."""
    for part in (values[:1000], values):  # most scales fail at once
        scaled = part * scale
        if not (np.abs(scaled - np.rint(scaled)) <= ROUNDING * scaled).all():
            return False
    return True


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and value <= FLOAT32_MAX):
        raise InputError(f"{name} is {text or 'empty'!r}, expected a number above 0")
    return value


def _calendar(text: str, name: str) -> str:
    if not text:
        raise InputError(f"{name} is empty, expected the name of a calendar")
    return "" if text == "auto" else text


def _pairs(node: yaml.Node, path: str | Path, what: str) -> Iterator[tuple[str, yaml.Node, str]]:
    """Key, value and place of each entry of a mapping, each key once."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise InputError(
            f"{path} line {node.start_mark.line + 1} has no {what}, expected such as "
            "SPY: {tick: 0.01, spread_bps: 0.5}"
        )
    yield from yaml_files.pairs(node, path)
