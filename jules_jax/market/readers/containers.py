"""Files on disk and the bytes in them: plain, gzip, zstd, zip with one or several members."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from jules_jax.errors import InputError

HEAD_BYTES = 1 << 16
"""How much of a file is unpacked to tell its format."""

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """A file of rows: a file on disk, or one `member` of a zip. `name` is its name in messages."""

    path: Path
    member: str = ""
    name: str = ""


def parts(path: Path) -> list[Part]:
    """The files of rows at `path`: itself, or the members of a zip, its CSVs if it has any."""
    if _magic(path) != b"PK\x03\x04":
        return [Part(path, name=str(path))]
    with _told(str(path)), zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if not name.startswith(("__MACOSX", "."))]
    members = [name for name in members if not name.endswith("/")]
    # Vendors add reports as text beside the CSV.
    members = [name for name in members if name.lower().endswith(".csv")] or members
    if not members:
        raise InputError(f"{path}: is an empty zip, expected a CSV of bars inside.")
    if len(members) == 1:
        return [Part(path, members[0], str(path))]
    return [Part(path, member, f"{path}/{member}") for member in members]


def is_parquet(part: Part) -> bool:
    """Whether the part is a Parquet file."""
    return not part.member and _magic(part.path) == b"PAR1"


def read(part: Part, size: int = -1) -> bytes:
    """The text of a part as UTF-8 without byte-order marks: all, or its first `size` bytes.

    Raises `InputError` naming the file where it cannot be read, is damaged or is not text.
    """
    with _told(part.name), _open(part) as file:
        data = file.read() if size < 0 else file.read(size)  # pyarrow has no read(-1)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # as MetaTrader writes
        data = data.decode("utf-16", errors="replace").encode()
    if b"\0" in data[:4096]:
        raise InputError(f"{part.name}: not a text file, expected a CSV of bars in UTF-8.")
    if BOM in data:  # also in the middle, where exports were joined
        data = data.replace(BOM, b"")
    if b"\r" in data and b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    return data


def _magic(path: Path) -> bytes:
    with _told(str(path)), open(path, "rb") as file:
        return file.read(4)


def _open(part: Part) -> IO[bytes]:
    magic = _magic(part.path)
    if part.member:
        # The archive stays open for as long as its member is.
        return zipfile.ZipFile(part.path).open(part.member)
    if magic[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.open(part.path, "rb"))
    if magic == b"\x28\xb5\x2f\xfd":
        return cast(IO[bytes], pa.input_stream(str(part.path), compression="zstd"))
    return open(part.path, "rb")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what can go wrong with a file into one sentence that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name}: no such file, expected bars.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: damaged gzip or zip ({error}), expected a whole one.") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{name}: damaged zip ({error}), expected a whole one.") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{name}: damaged file ({error}), expected a whole one.") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}).") from None
