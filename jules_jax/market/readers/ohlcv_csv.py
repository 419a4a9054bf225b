"""Plain OHLCV files: one CSV of bars for one symbol, gzipped or not, read on the host.

A file either loads, with notes that say what was found and dropped, or is refused in one sentence.
"""

from __future__ import annotations

import csv
import gzip
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.api import guess_datetime_format

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.bars import Bars
from jules_jax.market.sessions import (
    Int64,
    Sessions,
    clock_seconds,
    continuous_sessions,
    regular_sessions,
)

PRICES = ("open", "high", "low", "close")
TIME_COLUMNS = ("timestamp_utc", "datetime", "date_time", "timestamp", "date", "time")
"""Names of the time column; the first present is read, `date` and `time` joined to each other."""

EXAMPLE_TIME = "2025-09-15 09:30:00"

Mask = NDArray[np.bool_]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Bars of one symbol as read from a file, on the host.

    bars: NumPy arrays `[B]`. timestamps: `[B]` int64, UTC nanoseconds of bar *starts*. notes: what
    was read, assumed and dropped, one sentence each, to be printed at load.
    """

    symbol: str
    bars: Bars
    timestamps: Int64
    notes: tuple[str, ...]


def read(path: str | Path, market: config.Market) -> Source:
    """Bars of the CSV (or CSV.gz) at `path`, read with the conventions in `market`.

    Needs a header with a time column (`TIME_COLUMNS`), open, high, low, close and, unless
    `market.adv` is given, volume, in any order and case; other columns are ignored. Times are text
    in one format (ISO, or month first where the day does not tell); those with a UTC offset, and
    `timestamp_utc`, are exact, others are wall-clock times in `market.timezone`. All bars of the
    file must be sound, those outside session hours too, and every bar that is kept is `valid`.

    Raises `InputError` naming the file and the 1-based physical line, the value found and the value
    expected.
    """
    path = Path(path)
    if market.bar_label not in ("start", "end"):
        raise InputError(f"market.bar_label is {market.bar_label!r}, expected start or end.")
    try:
        ZoneInfo(market.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f"market.timezone is {market.timezone!r}, expected one such as America/New_York."
        ) from None
    frame, blank_lines = _load(path)
    timestamps, time_note = _bar_starts(path, frame, market)
    prices = _prices(path, frame)
    volume = _volume(path, frame)
    sessions = _sessions(path, frame, timestamps, market)
    kept = sessions.kept
    if volume is None:
        slot_volume = _assumed_volume(path, frame, market.adv) / sessions.bars_per_session
        volume = np.full(kept.shape, slot_volume, np.float32)
        volume_notes = [
            f"no volume in the file: every bar has {slot_volume:,.6g}, the given average daily "
            f"volume {market.adv:,.6g} spread over {sessions.bars_per_session} bars"
        ]
    else:
        volume_notes = _counted(int((volume[kept] == 0).sum()), "bar{s} with zero volume")
    bars = Bars(
        **{name: values[kept] for name, values in prices.items()},
        volume=volume[kept],
        session=sessions.session,
        bar_of_session=sessions.bar_of_session,
        minute=sessions.minute,
        session_length=sessions.session_length,
        valid=np.ones(sessions.session.shape, bool),
        bar_seconds=market.bar_seconds,
        bars_per_session=sessions.bars_per_session,
        continuous=market.calendar == "24/7",
    )
    notes = [
        f"{path}: {_summary(timestamps[kept], sessions, market)}; {time_note}",
        *_counted(blank_lines, "blank line{s} skipped"),
        *_session_notes(timestamps[kept], sessions, market),
        *volume_notes,
    ]
    return Source(_symbol(path), bars, timestamps[kept], tuple(notes))


def _load(path: Path) -> tuple[pd.DataFrame, int]:
    """The wanted columns under their plain names, indexed by physical line, and blank lines."""
    try:
        with _open(path) as file:
            header = next(csv.reader([file.readline()]), [])
            columns = [re.sub(r"\W+", "_", name.strip().lower()) for name in header]
            positions = _positions(path, header, columns)
            times = {positions[name]: str for name in TIME_COLUMNS if name in positions}
            with warnings.catch_warnings():
                # Raised where rows are longer than the header: their fields could be shifted.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(
                    file,
                    header=None,
                    names=list(range(len(header))),
                    index_col=False,
                    dtype=cast(Any, times),
                    skip_blank_lines=False,
                    skipinitialspace=True,
                    low_memory=False,
                )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a CSV of bars.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, expected a CSV file of bars.") from None
    except pd.errors.ParserWarning:
        raise InputError(
            f"{path}: rows have more fields than the {len(header)} of the header, expected as many."
        ) from None
    except pd.errors.ParserError as error:
        # The parser counts lines from 1, or rows from 0, and starts after the header.
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        reason = re.sub(r"line (\d+)", lambda found: f"line {int(found[1]) + 1}", reason)
        reason = re.sub(r"row (\d+)", lambda found: f"line {int(found[1]) + 2}", reason)
        raise InputError(f"{path}: not a CSV of bars: {reason}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: not a text file, expected a CSV of bars in UTF-8.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip file ({error}), expected a whole one.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    table.index = pd.RangeIndex(2, 2 + len(table))
    rows = table.dropna(how="all")
    if rows.empty:
        raise InputError(f"{path}: has a header but no bars, expected one bar a line.")
    frame = rows[list(positions.values())].set_axis(list(positions), axis="columns")
    return frame, len(table) - len(rows)


def _open(path: Path) -> TextIO:
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    opener = cast(Any, gzip.open if gzipped else open)
    return cast(TextIO, opener(path, "rt", encoding="utf-8-sig", newline=""))


def _positions(path: Path, header: list[str], columns: list[str]) -> dict[str, int]:
    """Where each wanted column is."""
    if not any(columns):
        raise InputError(f"{path}: is empty, expected a header line and bars.")
    wanted = (*TIME_COLUMNS, *PRICES, "volume")
    positions = {name: columns.index(name) for name in wanted if name in columns}
    missing = [name for name in PRICES if name not in positions]
    if not any(name in positions for name in TIME_COLUMNS):
        missing.insert(0, "time (one of " + ", ".join(TIME_COLUMNS) + ")")
    if missing:
        found = ", ".join(name.strip()[:30] for name in header[:20])
        raise InputError(f"{path}: line 1: no column {', '.join(missing)}; found {found!r}.")
    for name in positions:
        if columns.count(name) > 1:
            raise InputError(f"{path}: line 1: several columns {name!r}, expected one.")
    return positions


def _fail_where(path: Path, frame: pd.DataFrame, bad: Mask | np.bool_, describe: Any) -> None:
    """Raise on the first bad row, in the words of `describe(row)`."""
    if bad.any():
        at = int(bad.argmax())
        raise InputError(f"{path}: line {frame.index[at]}: {describe(frame.iloc[at])}.")


def _found(value: Any) -> str:
    if pd.isna(value):
        return "blank or NaN"
    return repr(value) if isinstance(value, str) else f"{value:g}"


def _numbers(path: Path, frame: pd.DataFrame, name: str) -> Float32:
    """Column `name` as float32 `[B]`; blanks become NaN, anything else must be a number."""
    values = pd.to_numeric(frame[name], errors="coerce")
    _fail_where(
        path,
        frame,
        (values.isna() & frame[name].notna()).to_numpy(),
        lambda row: f"{name} is {_found(row[name])}, expected a number",
    )
    with np.errstate(over="ignore"):
        return values.to_numpy(np.float32)


def _prices(path: Path, frame: pd.DataFrame) -> dict[str, Float32]:
    """Open, high, low and close `[B]`: positive, finite, and no high below its low."""
    prices = {name: _numbers(path, frame, name) for name in PRICES}
    # Judged as float32: a price that rounds to zero or overflows is not one we can use.
    bad = np.array([~((values > 0) & np.isfinite(values)) for values in prices.values()])
    if bad.any():
        name = PRICES[int(bad[:, bad.any(axis=0).argmax()].argmax())]
        _fail_where(
            path,
            frame,
            bad.any(axis=0),
            lambda row: f"{name} is {_found(row[name])}, expected a positive price",
        )
    _fail_where(
        path,
        frame,
        prices["high"] < prices["low"],
        lambda row: f"high {row['high']:g} is below low {row['low']:g}, expected at least that",
    )
    return prices


def _volume(path: Path, frame: pd.DataFrame) -> Float32 | None:
    """Volumes `[B]`, or None where the column is absent, or nothing but blanks and zeros."""
    if "volume" not in frame:
        return None
    values = _numbers(path, frame, "volume")
    if not np.nan_to_num(values).any():
        return None
    _fail_where(
        path,
        frame,
        ~((values >= 0) & np.isfinite(values)),
        lambda row: f"volume is {_found(row['volume'])}, expected zero or more",
    )
    return values


def _assumed_volume(path: Path, frame: pd.DataFrame, adv: float) -> float:
    """The configured average daily volume, which a source without volume needs."""
    if adv > 0:
        return adv
    found = "volume is zero on every bar" if "volume" in frame else "no column volume"
    raise InputError(
        f"{path}: {found}, expected traded volumes or an average daily volume (--adv)."
    )


def _bar_starts(path: Path, frame: pd.DataFrame, market: config.Market) -> tuple[Int64, str]:
    """UTC nanoseconds of bar starts `[B]`, strictly ascending, and how the stamps were read."""
    text, stamps, aware = _stamps(path, frame)
    zone = "UTC" if "timestamp_utc" in frame else market.timezone
    if not aware:
        stamps = stamps.dt.tz_localize(None).dt.tz_localize(
            zone, ambiguous="NaT", nonexistent="NaT"
        )
        _fail_where(
            path,
            frame.assign(text=text),
            stamps.isna().to_numpy(),
            lambda row: (
                f"the time {row['text']} is skipped or repeated by daylight saving in "
                f"{zone}, expected times that exist once (is market.timezone right?)"
            ),
        )
    try:
        nanoseconds = pd.DatetimeIndex(stamps).tz_convert("UTC").as_unit("ns").asi8
    except pd.errors.OutOfBoundsDatetime as error:
        raise InputError(f"{path}: {error}, expected years from 1678 to 2261.") from None
    _require_ascending(path, frame, text, nanoseconds)
    if market.bar_label == "end":
        nanoseconds = nanoseconds - market.bar_seconds * 1_000_000_000
    read_as = "with their UTC offset" if aware else f"as {zone} time"
    return nanoseconds, f"stamps read {read_as}, labelling the bar's {market.bar_label}"


def _stamps(path: Path, frame: pd.DataFrame) -> tuple[pd.Series[Any], pd.Series[Any], bool]:
    """Time texts, the times in them under the clock of the file as UTC, and if they had an offset.

    All must have the format of the first. A format that is guessed once, from the text alone, keeps
    out the parser's fallback, which would complete a bare `09:30` with today's date.
    """
    name = next(name for name in TIME_COLUMNS if name in frame)
    text = frame[name]
    if name == "date" and "time" in frame:
        text = text + " " + frame["time"]
    first = text.iloc[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the day comes first
        form = None if pd.isna(first) else guess_datetime_format(first)
    stamps = pd.to_datetime(text, format=form or "%Y-%m-%d %H:%M:%S", errors="coerce", utc=True)
    like = first if form else EXAMPLE_TIME
    _fail_where(
        path,
        frame.assign(text=text),
        stamps.isna().to_numpy(),
        lambda row: f"{name} is {_found(row['text'])}, expected a date and time like {like}",
    )
    return text, stamps, form is not None and "%z" in form.lower()


def _require_ascending(
    path: Path, frame: pd.DataFrame, text: pd.Series[Any], nanoseconds: Int64
) -> None:
    steps = np.diff(nanoseconds)
    if (steps > 0).all():
        return
    at = int((steps <= 0).argmax()) + 1
    relation = "repeats" if steps[at - 1] == 0 else "comes after the later"
    newest_first = (steps < 0).mean() > 0.5
    raise InputError(
        f"{path}: line {frame.index[at]}: the time {text.iloc[at]} {relation} "
        f"{text.iloc[at - 1]} of line {frame.index[at - 1]}, expected ascending times"
        f"{' (the file is newest first: reverse it)' if newest_first else ''}."
    )


def _sessions(
    path: Path, frame: pd.DataFrame, timestamps: Int64, market: config.Market
) -> Sessions:
    """The sessions of bars under the configured calendar; at least one bar is inside."""
    if market.calendar == "24/7":
        sessions = continuous_sessions(timestamps, bar_seconds=market.bar_seconds)
    elif market.calendar == "regular":
        opens = clock_seconds(market.session_open, "market.session_open")
        closes = clock_seconds(market.session_close, "market.session_close")
        if opens >= closes:
            raise InputError(
                f"market.session_close is {market.session_close}, expected a time after "
                f"market.session_open, {market.session_open}."
            )
        sessions = regular_sessions(
            timestamps,
            timezone=market.timezone,
            session_open=opens,
            session_close=closes,
            bar_seconds=market.bar_seconds,
        )
    else:
        raise InputError(f"market.calendar is {market.calendar!r}, expected regular or 24/7.")
    if not sessions.kept.any():
        raise InputError(
            f"{path}: none of its {len(frame):,} bars starts in session hours, "
            f"{market.session_open} to {market.session_close} {market.timezone}."
        )
    slots = sessions.session.astype(np.int64) * sessions.bars_per_session + sessions.bar_of_session
    crowded = np.concatenate([[False], np.diff(slots) <= 0])
    _fail_where(
        path,
        frame[sessions.kept],
        crowded,
        lambda row: (
            "a second bar in the same slot, expected one each "
            f"{market.bar_seconds} seconds (is market.bar_seconds right?)"
        ),
    )
    return sessions


def _summary(timestamps: Int64, sessions: Sessions, market: config.Market) -> str:
    zone = "UTC" if market.calendar == "24/7" else market.timezone
    first, last = pd.DatetimeIndex(timestamps[[0, -1]], tz="UTC").tz_convert(zone)
    count = int(sessions.session[-1]) + 1
    return (
        f"{_plural(timestamps.size, 'bar{s}')} in {_plural(count, 'session{s}')}, "
        f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    )


def _session_notes(timestamps: Int64, sessions: Sessions, market: config.Market) -> list[str]:
    unit = "minute" if market.bar_seconds == 60 else "bar"
    notes = [
        *_counted(sessions.before_open, f"bar{{s}} before {market.session_open} dropped"),
        *_counted(sessions.after_close, f"bar{{s}} at or after {market.session_close} dropped"),
        *_counted(sessions.missing, f"{unit}{{s}} missing inside sessions"),
        *_counted(sessions.short, f"session{{s}} shorter than {sessions.full_length} minutes"),
    ]
    spacing = np.diff(timestamps).min(initial=np.iinfo(np.int64).max) // 1_000_000_000
    if timestamps.size > 1 and spacing > market.bar_seconds:
        notes.append(
            f"bars are {spacing} seconds apart or more: is {market.bar_seconds} seconds, "
            "market.bar_seconds, their length?"
        )
    return notes


def _plural(count: int, text: str) -> str:
    return f"{count:,} {text.format(s='' if count == 1 else 's')}"


def _counted(count: int, text: str) -> list[str]:
    """A note that gives a count, where there is anything to count."""
    return [_plural(count, text)] if count else []


def _symbol(path: Path) -> str:
    """The file's name without its suffixes and bar length: `SPY_1min.csv.gz` is SPY."""
    stem = re.sub(r"(\.(csv|txt|gz))+$", "", path.name, flags=re.IGNORECASE)
    return re.sub(r"[_-]\d+ ?(s|sec|m|min|h)$", "", stem, flags=re.IGNORECASE)
