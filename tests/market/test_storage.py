"""Built datasets: what goes in comes out; nothing half-written, nothing foreign replaced."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jules_jax.config import Market
from jules_jax.errors import InputError
from jules_jax.market import storage
from jules_jax.market.source import Source
from tests.market.recorded import make_source

MARKET = Market(bar_label="end", timezone="UTC")
SPY = make_source("SPY")
BTC = make_source("BTC/USD", continuous=True, tick=0.1, quantity_step=1e-5, weight=2.0, seed=1)
BTC = dataclasses.replace(
    BTC,
    bars=dataclasses.replace(
        BTC.bars, half_spread=BTC.bars.volume * 0, signed_volume=BTC.bars.volume / 2
    ),
)


def build(
    monkeypatch: pytest.MonkeyPatch, out: Path, sources: Sequence[Source], *, fail_at: str = ""
) -> storage.Manifest:
    """Builds `out` from files that "hold" `sources`, one each; `fail_at` is not sound."""
    files = {}
    for one in sources:
        file = out.parent / f"{one.symbol.replace('/', '')}.csv"
        file.write_text(f"bars of {one.symbol}")
        files[one.symbol] = SimpleNamespace(symbol=one.symbol, files=(file,), format="ohlcv")

    def load(found, market, given):
        assert market is MARKET
        if found.symbol == fail_at:
            raise InputError(f"{found.files[0]}: line 7: not sound")
        return next(one for one in sources if one.symbol == found.symbol)

    monkeypatch.setattr(storage.readers, "find", lambda *_: list(files.values()), raising=False)
    monkeypatch.setattr(storage.source, "load", load)
    return storage.build(str(out.parent), out, MARKET, progress=False)


def test_symbols_come_out_as_they_went_in_and_mapped(monkeypatch, tmp_path: Path) -> None:
    build(monkeypatch, tmp_path / "set", [SPY, BTC])
    for found, expected in zip(storage.open_dataset(tmp_path / "set"), (SPY, BTC), strict=True):
        assert (found.symbol, found.notes) == (expected.symbol, expected.notes)
        assert found.instrument == expected.instrument
        np.testing.assert_array_equal(found.time, expected.time)
        for field in dataclasses.fields(expected.bars):
            a, b = getattr(found.bars, field.name), getattr(expected.bars, field.name)
            np.testing.assert_array_equal(a, b)
            if isinstance(b, np.ndarray):
                assert isinstance(a, np.memmap) and a.dtype == b.dtype


def test_the_manifest_says_what_was_built_from_what_and_how(monkeypatch, tmp_path: Path) -> None:
    built = build(monkeypatch, tmp_path / "set", [SPY, BTC])
    assert built == storage.read_manifest(tmp_path / "set")
    content = b"bars of BTC/USD"
    assert built.sources[1] == {
        "path": str(tmp_path / "BTCUSD.csv"),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert built.options["bar_label"] == "end" and built.options["timezone"] == "UTC"
    assert not {"data", "sampling", "market_memory", "refresh_updates"} & set(built.options)
    spy, btc = built.symbols
    assert (spy.rows, spy.sessions, spy.valid) == (360, 12, np.count_nonzero(SPY.bars.valid))
    assert (spy.first, spy.last) == ("2025-03-03T14:30:00Z", "2025-03-14T14:59:00Z")
    assert btc.continuous and btc.instrument["quantity_step"] == 1e-5
    assert {"half_spread", "signed_volume"} <= set(btc.columns) - set(spy.columns)


def test_building_twice_gives_the_same_files_byte_for_byte(monkeypatch, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        files = sorted((tmp_path / "set").rglob("*.*"))
        return {file.name: file.read_bytes() for file in files if file.is_file()}

    build(monkeypatch, tmp_path / "set", [SPY, BTC])
    first = content()
    build(monkeypatch, tmp_path / "set", [SPY, BTC])
    assert content() == first
    build(monkeypatch, tmp_path / "set", [SPY])
    assert [one.symbol for one in storage.open_dataset(tmp_path / "set")] == ["SPY"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"set", "SPY.csv", "BTCUSD.csv"}


@pytest.mark.parametrize("there", [False, True])
def test_a_build_that_fails_leaves_what_was_there(monkeypatch, tmp_path, there: bool) -> None:
    if there:
        build(monkeypatch, tmp_path / "set", [SPY])
    with pytest.raises(InputError, match="line 7: not sound"):
        build(monkeypatch, tmp_path / "set", [SPY, BTC], fail_at="BTC/USD")
    folders = [entry.name for entry in tmp_path.iterdir() if entry.is_dir()]
    assert folders == ["set"] * there
    if there:
        assert len(storage.open_dataset(tmp_path / "set")) == 1


def test_a_folder_that_holds_anything_else_is_not_replaced(monkeypatch, tmp_path: Path) -> None:
    out = tmp_path / "set"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a dataset, expected a new or empty folder"):
        build(monkeypatch, out, [SPY])
    (out / "thesis.tex").unlink()
    build(monkeypatch, out, [SPY])
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.tex beside a dataset"):
        build(monkeypatch, out, [SPY])
    assert (out / "thesis.tex").read_text() == "years of work"


def test_a_dataset_is_not_built_from_a_dataset(monkeypatch, tmp_path: Path) -> None:
    build(monkeypatch, tmp_path / "set", [SPY])
    with pytest.raises(InputError, match="a built dataset, which needs no building"):
        storage.build(str(tmp_path / "set"), tmp_path / "other", MARKET)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: (d / "000-SPY/close.npy").unlink(), r"close\.npy: missing"),
        (lambda d: truncate(d / "000-SPY/close.npy"), r"close\.npy: damaged"),
        (lambda d: (d / "000-SPY/close.npy").write_bytes(b""), r"close\.npy: damaged"),
        (lambda d: (d / "000-SPY/time.npy").unlink(), r"time\.npy: missing"),
        (lambda d: np.save(d / "000-SPY/open.npy", np.ones(360)), "float64 of shape .* float32"),
        (lambda d: np.save(d / "000-SPY/low.npy", np.float32([1])), r"shape \(1,\).*360 values"),
        (lambda d: truncate(d / storage.MANIFEST), "damaged"),
        (lambda d: edit(d, schema=99), "schema 99, expected .* build the dataset anew"),
        (lambda d: edit(d, format="other"), "format 'other'"),
        (lambda d: edit(d, symbols=[]), "lists no symbol"),
        (lambda d: edit(d, symbols=[{"symbol": "SPY"}]), "damaged"),
        (lambda d: (d / storage.MANIFEST).unlink(), "cannot be read"),
    ],
)
def test_a_damaged_dataset_is_refused_in_one_sentence(monkeypatch, tmp_path, damage, said) -> None:
    build(monkeypatch, tmp_path / "set", [SPY])
    damage(tmp_path / "set")
    with pytest.raises(InputError, match=said):
        storage.open_dataset(tmp_path / "set")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def edit(directory: Path, **changes: object) -> None:
    file = directory / storage.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_kept_rows_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    file = tmp_path / "rows-1.npy"
    assert storage.cached_rows(file, (4, 3)) is None
    storage.cache_rows(file, rows)
    np.testing.assert_array_equal(storage.cached_rows(file, (4, 3)), rows)
    assert storage.cached_rows(file, (5, 3)) is None
    truncate(file) if file.stat().st_size > 100 else None
    assert storage.cached_rows(file, (4, 3)) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows-1.npy"]
    with pytest.raises(InputError, match="cannot be written"):
        storage.cache_rows(tmp_path / "absent" / "rows.npy", rows)
