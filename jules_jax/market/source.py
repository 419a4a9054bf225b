"""Source: the bars of one symbol, from its files to the grid that is traded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import instruments, quality, readers, sessions
from jules_jax.market.bars import Bars
from jules_jax.market.instruments import Instrument
from jules_jax.market.quality import Inspected
from jules_jax.market.quality.report import Report
from jules_jax.market.readers.layout import PRICES
from jules_jax.market.readers.raw import Float64, Int64, RawBars
from jules_jax.market.sessions import Placement

BP = 1e-4

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Bars of one symbol on the host, one per slot of its sessions.

    bars: NumPy arrays `[G]`. time: `[G]` int64, UTC nanoseconds at which slots begin. instrument:
    with nothing left to be resolved. notes: what was read, assumed, repaired and dropped, one
    sentence each, to be printed at load.
    """

    symbol: str
    bars: Bars
    time: Int64
    instrument: Instrument
    notes: tuple[str, ...]


def load(
    found: readers.SymbolFiles, market: config.Market, given: Mapping[str, Instrument]
) -> Source:
    """The bars of the files `found` for one symbol; `given` are the instruments of the symbols.

    Raises `InputError` where the files cannot be read, are not sound, or do not suit the settings.
    """
    return from_raw(readers.read_symbol(found, market), market, given)


def from_raw(raw: RawBars, market: config.Market, given: Mapping[str, Instrument]) -> Source:
    """The same for rows already read: inspected, placed in sessions, gaps filled.

    A slot without a bar has the last price, no volume, and is not `valid`; it keeps the last quoted
    spread. A source without volume gets the instrument's average daily volume, spread evenly.
    """
    inspected, instrument, placement = examine(raw, market, given)
    sound = inspected.raw
    valid = placement.index >= 0
    # The row each slot takes its values from; the first slot has a bar.
    rows = np.maximum.accumulate(placement.index)
    volume, volume_notes = _volume(sound, rows[valid], instrument, placement.bars_per_session)
    flow = sound.signed_volume
    bars = Bars(
        **_prices(sound, rows, valid),
        volume=_fill(volume, valid),
        session=placement.session,
        bar_of_session=placement.bar_of_session,
        minute=placement.minute,
        session_length=placement.session_length,
        valid=valid,
        half_spread=_half_spread(sound, rows, instrument),
        signed_volume=None if flow is None else _fill(np.nan_to_num(flow[rows[valid]]), valid),
        bar_seconds=market.bar_seconds,
        bars_per_session=placement.bars_per_session,
        continuous=placement.continuous,
    )
    notes = (
        _summary(sound, placement, instrument),
        *raw.notes,
        *inspected.notes,
        *_session_notes(placement, market, instrument.calendar),
        *volume_notes,
    )
    return Source(sound.symbol, bars, placement.time, instrument, tuple(dict.fromkeys(notes)))


def reports(market: config.Market) -> Iterator[Report]:
    """What is to be said of each symbol of the files at `market.data`, for `data check`.

    Raises `InputError` after the report of a symbol that training would refuse.
    """
    given = instruments.read(market.symbols)
    for found in readers.find(market.data, market):
        raw = readers.read_symbol(found, market)
        inspected, instrument, placement = examine(raw, market, given)
        summary = _summary(inspected.raw, placement, instrument)
        notes = (summary, *raw.notes, *_session_notes(placement, market, instrument.calendar))
        sentences = tuple(note if note.endswith("?") else f"{note}." for note in notes)
        yield Report(inspected, placement, market.bar_seconds, sentences)
        kept = placement.index[placement.index >= 0]
        _volume(inspected.raw, kept, instrument, placement.bars_per_session)  # may refuse


def examine(
    raw: RawBars, market: config.Market, given: Mapping[str, Instrument]
) -> tuple[Inspected, Instrument, Placement]:
    """Sound bars with what was found on the way, their terms, and where they are in sessions.

    Where hardly a bar fits the sessions, the error carries what the inspection suspects: a wrong
    time zone is the usual reason.
    """
    # Terms come first: prices adjusted for splits are no multiples of a tick.
    instrument = instruments.resolve(raw.symbol, raw, market, given)
    market = replace(market, calendar=instrument.calendar)
    inspected = quality.inspect(raw, market)
    try:
        return inspected, instrument, _arrange(inspected.raw, market, instrument.calendar)
    except InputError as error:
        suspicions = [
            f.sentence for f in inspected.findings if f.kind in ("bar label", "time zone")
        ]
        raise InputError("; ".join([str(error).rstrip("."), *suspicions])) from None


def _arrange(raw: RawBars, market: config.Market, calendar: str) -> Placement:
    try:
        return sessions.arrange(
            raw.time,
            calendar=calendar,
            bar_seconds=market.bar_seconds,
            timezone=market.timezone or raw.convention.timezone,
            session_open=market.session_open,
            session_close=market.session_close,
            before_open_minutes=market.before_open_minutes,
            after_close_minutes=market.after_close_minutes,
        )
    except sessions.SlotError as error:
        raise InputError(f"{raw.where(error.row)}: {error}") from None
    except InputError as error:
        raise InputError(f"{name(raw)}: {error}") from None


def name(raw: RawBars) -> str:
    """How messages about a whole symbol begin: its file, or itself where it has several."""
    if len(raw.files) == 1:
        return raw.files[0]
    return f"{raw.symbol} ({raw.files[0]} and {len(raw.files) - 1:,} more)"


def _prices(raw: RawBars, rows: NDArray[np.intp], valid: NDArray[np.bool_]) -> dict[str, Float32]:
    """Open, high, low and close `[G]` float32: the last close where there is no bar."""
    limits = np.finfo(np.float32)
    prices, kept = {}, rows[valid]
    for column in PRICES:
        values: Float64 = getattr(raw, column)
        lost = ~((values[kept] >= limits.tiny) & (values[kept] <= limits.max))
        if lost.any():
            row = int(kept[lost.argmax()])
            raise InputError(
                f"{raw.where(row)}: {column} is {values[row]:g}, expected a price from "
                f"{limits.tiny:.3g} to {limits.max:.3g}, as float32 has no other"
            )
        prices[column] = np.where(valid, values[rows], raw.close[rows]).astype(np.float32)
    return prices


def _volume(
    raw: RawBars, kept: NDArray[np.intp], instrument: Instrument, bars_per_session: int
) -> tuple[Float64, list[str]]:
    """Volumes `[K]` of the bars kept, and what to say about them."""
    if raw.volume is not None and np.nan_to_num(raw.volume[kept]).any():
        volume = raw.volume[kept]
        lost = volume > np.finfo(np.float32).max
        if lost.any():
            row = int(kept[lost.argmax()])
            raise InputError(
                f"{raw.where(row)}: volume is {raw.volume[row]:g}, expected one that float32 holds"
            )
        return volume, _counted(int((volume == 0).sum()), "bar{s} with zero volume")
    found = "no column volume" if raw.volume is None else "volume is zero on every bar"
    if instrument.adv <= 0:
        raise InputError(
            f"{name(raw)}: {found}, expected traded volumes or an average daily volume, "
            "--market.adv."
        )
    slot_volume = instrument.adv / bars_per_session
    return np.full(kept.size, slot_volume), [
        f"{found}: every bar has {slot_volume:,.6g}, the given average daily volume "
        f"{instrument.adv:,.6g} spread over {bars_per_session} bars"
    ]


def _half_spread(raw: RawBars, rows: NDArray[np.intp], instrument: Instrument) -> Float32 | None:
    """Half-spreads `[G]` in return units: the last one quoted, else the instrument's, else none.

    Before the first quote it is the instrument's, or 0, which stands for the configured one.
    """
    given = 0.5 * BP * instrument.spread_bps
    quoted = raw.half_spread
    if quoted is None or not np.isfinite(quoted[rows]).any():
        return np.full(rows.size, given, np.float32) if given else None
    quoted = quoted[rows]
    last = np.maximum.accumulate(np.where(np.isfinite(quoted), np.arange(rows.size), -1))
    return np.where(last >= 0, quoted[last], given).astype(np.float32)


def _fill(values: Float64, valid: NDArray[np.bool_]) -> Float32:
    """Values `[K]` of the valid slots on the grid `[G]`, 0 elsewhere."""
    grid = np.zeros(valid.shape, np.float32)
    grid[valid] = values
    return grid


def _summary(raw: RawBars, placement: Placement, instrument: Instrument) -> str:
    first, last = placement.time[[0, -1]].view("datetime64[ns]").astype("datetime64[D]")
    bars = int((placement.index >= 0).sum())
    clock = f", naive times read as {raw.naive_in}" if raw.naive_in else ""
    return (
        f"{name(raw)}: {_plural(bars, 'bar{s}')} of {raw.symbol} in "
        f"{_plural(int(placement.session[-1]) + 1, 'session{s}')} of {instrument.calendar}, "
        f"{first} to {last}{clock}; tick {instrument.tick:g}, quantity step "
        f"{instrument.quantity_step:g}"
    )


def _session_notes(placement: Placement, market: config.Market, calendar: str) -> list[str]:
    unit = "minute" if market.bar_seconds == 60 else "bar"
    filled = f"{unit}{{s}} missing inside sessions, filled with the last price"
    closed = f"bar{{s}} on days without a session of {calendar} dropped"
    notes = [
        *_counted(placement.before_open, "bar{s} before the open dropped"),
        *_counted(placement.after_close, "bar{s} at or after the close dropped"),
        *_counted(placement.in_break, "bar{s} inside a break of the session dropped"),
        *_counted(placement.closed_days, closed),
        *_counted(placement.missing, filled),
        *_counted(placement.short, "session{s} shorter than the calendar's longest"),
        *_counted(placement.absent, f"session{{s}} of {calendar} without a bar, left out"),
        *_counted(placement.unaligned, "bar{s} that begin inside a slot, taken as that slot's"),
    ]
    if placement.leading and not placement.continuous:
        notes.append(f"the first session begins with its first bar, {unit} {placement.leading}")
    if placement.trailing and not placement.continuous:
        notes.append(
            "the last session ends with its last bar, "
            f"{_plural(placement.trailing, f'{unit}{{s}}')} before its close"
        )
    if placement.spacing > 1:
        notes.append(
            f"bars are {placement.spacing * market.bar_seconds} seconds apart or a multiple of it: "
            f"is {market.bar_seconds} seconds, market.bar_seconds, their length?"
        )
    return notes + sessions.suspicions(placement)


def _plural(count: int, text: str) -> str:
    return f"{count:,} {text.format(s='' if count == 1 else 's')}"


def _counted(count: int, text: str) -> list[str]:
    """A note that gives a count, where there is anything to count."""
    return [_plural(count, text)] if count else []
