"""Built datasets: a folder of memory-mapped columns per symbol, and a manifest.

    DIR/manifest.json            what was built, from which files, with which options
    DIR/000-SPY/close.npy        one file per column of `Bars`, and the exact times
    DIR/000-SPY/rows-*.npy       table rows, kept between runs; may be deleted at any time

A dataset is built symbol by symbol, so that memory holds one symbol at a time, into a temporary
folder that takes its place when all is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import readers, source
from jules_jax.market.bars import Bars
from jules_jax.market.instruments import Instrument
from jules_jax.market.source import Source

FORMAT, SCHEMA = "jules_jax bars", 1
MANIFEST = "manifest.json"

COLUMNS: dict[str, type[np.generic]] = {
    "time": np.int64,
    **dict.fromkeys(("open", "high", "low", "close", "volume"), np.float32),
    **dict.fromkeys(("session", "bar_of_session", "minute", "session_length"), np.int32),
    "valid": np.bool_,
    **dict.fromkeys(("half_spread", "signed_volume"), np.float32),
}
"""Column files and their types; the last two exist where the source has them."""

OF_READING = tuple(
    field.name
    for field in dataclasses.fields(config.Market)
    if field.name not in ("data", "symbols", "sampling", "market_memory", "refresh_updates")
)
"""Options of `config.Market` that say how files are read: fixed once a dataset is built."""

OF_TRADING = ("tick", "quantity_step")
"""Those of them that a training run may still set."""


@dataclass(frozen=True)
class Symbol:
    """One symbol of a manifest.

    folder: of its columns. rows: slots of its sessions, `valid` of which traded. first, last: UTC
    times of bar starts, ISO 8601. columns: names of its files. sha256: of each of them, empty in a
    dataset built before they were taken.
    """

    symbol: str
    folder: str
    rows: int
    valid: int
    sessions: int
    first: str
    last: str
    bar_seconds: int
    bars_per_session: int
    continuous: bool
    instrument: dict[str, Any]
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    sha256: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """The symbol in one line."""
        return (
            f"{self.symbol:<12} {self.rows:>12,} slots, {self.valid:,} with a bar, in "
            f"{self.sessions:,} sessions, {self.first[:10]} to {self.last[:10]}"
        )


@dataclass(frozen=True)
class Manifest:
    """What a dataset holds and how it came about.

    sources: path, bytes and sha256 of every file read. options: the values of `OF_READING`.
    """

    sources: tuple[dict[str, Any], ...]
    options: dict[str, Any]
    symbols: tuple[Symbol, ...]


def is_dataset(path: str | Path) -> bool:
    """Whether `path` is a built dataset: a folder with a manifest."""
    return (Path(path) / MANIFEST).is_file()


def refuse_dataset(path: str | Path, why: str) -> None:
    """Raises `InputError` where `path` is a built dataset; `why` says that this is of no use."""
    if is_dataset(path):
        notes = f"its notes are in {MANIFEST}"
        raise InputError(f"{path}: is a built dataset, {why} ({notes}), expected files of bars")


def build(
    path: str,
    out: str | Path,
    market: config.Market,
    *,
    given: Mapping[str, Instrument] | None = None,
    progress: bool = True,
) -> Manifest:
    """Builds the dataset `out` from the files at `path`.

    Args:
      path: file, folder or glob of bars.
      out: folder to make; a dataset that is there already is replaced once the new one is whole.
      market: how the files are read.
      given: instruments of the user's, by symbol.
      progress: whether a pass of some seconds shows a bar on a terminal.

    Raises:
      InputError: the files cannot be read or are not sound, or `out` is something else. Nothing is
        left behind.
    """
    refuse_dataset(path, "which needs no building")
    out = Path(out)
    _require_replaceable(out)
    found = readers.find(path, market)
    temporary = out.parent / f".{out.name}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        manifest = _build_into(temporary, found, market, dict(given or {}), progress)
        _put_in_place(temporary, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _build_into(
    directory: Path,
    found: Sequence[readers.SymbolFiles],
    market: config.Market,
    given: dict[str, Instrument],
    progress: bool,
) -> Manifest:
    """Writes all columns and the manifest."""
    symbols: list[Symbol] = []
    sources: dict[Path, dict[str, Any]] = {}
    disable = None if progress else True  # None: shown on terminals only
    for one in tqdm(found, "build", unit=" symbols", delay=2, leave=False, disable=disable):
        loaded = source.load(one, market, given)
        folder = f"{len(symbols):03d}-{quote(one.symbol, safe='')}"
        symbols.append(_write(loaded, directory, folder))
        sources |= {file: _fingerprint(file) for file in one.files if file not in sources}
    options = {name: getattr(market, name) for name in OF_READING}
    manifest = Manifest(tuple(sources.values()), options, tuple(symbols))
    content = {"format": FORMAT, "schema": SCHEMA, **dataclasses.asdict(manifest)}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def _require_replaceable(out: Path) -> None:
    """Raises `InputError` where `out` holds anything but a dataset."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_dataset(out):
        raise InputError(f"{out}: exists and is not a dataset, expected a new or empty folder")
    own = {MANIFEST, *(symbol.folder for symbol in read_manifest(out).symbols)}
    if other := sorted({entry.name for entry in out.iterdir()} - own):
        raise InputError(
            f"{out}: holds {other[0]} beside a dataset, expected nothing else, as it is replaced"
        )


def _put_in_place(temporary: Path, out: Path) -> None:
    """Renames the new folder; an old one is moved aside first and deleted last."""
    old = temporary.with_name(temporary.name + "-old")
    if out.exists():
        out.rename(old)
    temporary.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write(loaded: Source, directory: Path, folder: str) -> Symbol:
    """One symbol's columns as files, and its entry in the manifest."""
    (directory / folder).mkdir()
    bars, written = loaded.bars, dict[str, str]()
    for name, kind in COLUMNS.items():
        column = loaded.time if name == "time" else getattr(bars, name)
        if column is not None:
            file = directory / folder / f"{name}.npy"
            np.save(file, np.ascontiguousarray(column, kind))
            written[name] = _sha256(file)
    first, last = np.asarray(loaded.time)[[0, -1]].astype("datetime64[ns]").astype("datetime64[s]")
    return Symbol(
        symbol=loaded.symbol,
        folder=folder,
        rows=len(bars.close),
        valid=int(np.count_nonzero(bars.valid)),
        sessions=int(np.count_nonzero(np.diff(bars.session)) + 1),
        first=f"{first}Z",
        last=f"{last}Z",
        bar_seconds=bars.bar_seconds,
        bars_per_session=bars.bars_per_session,
        continuous=bars.continuous,
        instrument=dataclasses.asdict(loaded.instrument),
        columns=tuple(written),
        notes=tuple(loaded.notes),
        sha256=written,
    )


def _fingerprint(file: Path) -> dict[str, Any]:
    return {"path": str(file), "bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(directory: str | Path) -> dict[str, str]:
    """SHA-256 of each symbol's bars and terms, as they were built, by symbol.

    Where the files were, when the dataset was built and where it lies now is not in it. Of a
    dataset built before its columns had checksums it is that of the manifest.
    """
    symbols = read_manifest(directory).symbols
    if not all(one.sha256 for one in symbols):
        return {MANIFEST: _sha256(Path(directory) / MANIFEST)}
    digests = {}
    for one in symbols:
        of = [one.sha256, one.instrument, one.bar_seconds, one.bars_per_session, one.continuous]
        digests[one.symbol] = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    return digests


def require_as_built(directory: str | Path) -> None:
    """Raises `InputError` naming a column that is not as it was built; reads all of them."""
    for one in read_manifest(directory).symbols:
        for name, digest in one.sha256.items():
            file = Path(directory) / one.folder / f"{name}.npy"
            try:
                found = _sha256(file)
            except OSError as error:
                raise InputError(f"{file} cannot be read: {error.strerror}") from None
            if found != digest:
                raise InputError(
                    f"{file}: changed since the dataset was built, expected it as its {MANIFEST} "
                    "says"
                )


def read_manifest(directory: str | Path) -> Manifest:
    """The manifest of a dataset; raises `InputError` where it is missing or damaged."""
    file = Path(directory) / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if (content["format"], content["schema"]) != (FORMAT, SCHEMA):
            raise InputError(
                f"{file}: format {content['format']!r}, schema {content['schema']!r}, expected "
                f"{FORMAT!r}, schema {SCHEMA}: build the dataset anew"
            )
        symbols = tuple(
            Symbol(**{**entry, "columns": tuple(entry["columns"]), "notes": tuple(entry["notes"])})
            for entry in content["symbols"]
        )
        manifest = Manifest(tuple(content["sources"]), dict(content["options"]), symbols)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: damaged ({type(error).__name__}: {error}), expected the manifest of a dataset"
        ) from None
    if not symbols:
        raise InputError(f"{file}: lists no symbol, expected at least one")
    return manifest


def open_dataset(directory: str | Path) -> tuple[Source, ...]:
    """The symbols of a dataset, their columns mapped into memory: nothing is read until it is used.

    Raises `InputError` naming the file where the manifest or a column is missing or damaged.
    """
    return tuple(_open(Path(directory), entry) for entry in read_manifest(directory).symbols)


def _open(directory: Path, entry: Symbol) -> Source:
    columns: dict[str, NDArray[Any]] = {
        name: _map(directory / entry.folder / f"{name}.npy", entry.rows, COLUMNS[name])
        for name in COLUMNS
        if name in entry.columns or name not in ("half_spread", "signed_volume")
    }
    try:
        instrument = Instrument(**entry.instrument)
    except TypeError as error:
        raise InputError(
            f"{directory / MANIFEST}: instrument of {entry.symbol} is damaged ({error}), expected "
            f"{', '.join(field.name for field in dataclasses.fields(Instrument))}"
        ) from None
    time = columns.pop("time")
    bars = Bars(
        **columns,
        bar_seconds=entry.bar_seconds,
        bars_per_session=entry.bars_per_session,
        continuous=entry.continuous,
    )
    return Source(entry.symbol, bars, time, instrument, entry.notes)


def _map(file: Path, rows: int, kind: type[np.generic]) -> NDArray[Any]:
    try:
        column: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{file}: missing, expected a column of {rows:,} values") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{file}: damaged ({error}), expected a column of {rows:,} values"
        ) from None
    if column.shape != (rows,) or column.dtype != kind:
        raise InputError(
            f"{file}: {column.dtype} of shape {column.shape} found, expected {rows:,} values of "
            f"{np.dtype(kind)}"
        )
    return column


def cached_rows(file: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Table rows `shape` that `cache_rows` wrote, mapped into memory; None where there are none."""
    try:
        rows: NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, or damaged: computed anew
        return None
    return rows if rows.shape == shape and rows.dtype == np.float32 else None


def cache_rows(file: Path, rows: NDArray[np.float32]) -> None:
    """Keeps table rows `[B, C]` in a file that appears whole.

    Raises `InputError` where it cannot be written.
    """
    part = file.with_name(f"{file.name}-{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.save(stream, rows)
        part.replace(file)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}), expected a folder with room for the "
            "table rows that generations are served from"
        ) from None
    finally:
        part.unlink(missing_ok=True)
