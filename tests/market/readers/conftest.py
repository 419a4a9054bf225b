"""Small files of every kind, written and read back."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jules_jax import config
from jules_jax.market import readers
from jules_jax.market.readers import RawBars


class Files:
    """Writes files under a folder and reads them as the program does."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, name: str, text: str | bytes) -> Path:
        data = text.encode() if isinstance(text, str) else text
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".gz"):
            data = gzip.compress(data)
        path.write_bytes(data)
        return path

    def zip(self, name: str, members: dict[str, str]) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in members.items():
                archive.writestr(member, text)
        return path

    def find(self, path: Path | None = None, **market: Any) -> list[readers.SymbolFiles]:
        return readers.find(str(path or self.folder), config.Market(**market))

    def read(self, path: Path | None = None, **market: Any) -> RawBars:
        (found,) = self.find(path, **market)
        return readers.read_symbol(found, config.Market(**market))

    def read_text(self, text: str | bytes, name: str = "SPY.csv", **market: Any) -> RawBars:
        return self.read(self.write(name, text), **market)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)
