"""Real files of many vendors, against what their manifest says; skipped where they are absent."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jules_jax import config
from jules_jax.market import readers

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
END_LABELS = ("us_equity_1min_desc", "futures_cme_1min")
FORMATS = {
    "us_equity_1min_rth": "ohlcv",
    "us_equity_1min_ext": "ohlcv",
    "us_equity_1min_desc": "ohlcv",
    "us_index_1min": "ohlcv",
    "us_equity_1min_parquet": "ohlcv",
    "us_equity_lean_minute": "lean",
    "crypto_binance_1m": "binance",
    "fx_histdata_m1": "histdata",
    "futures_cme_1min": "ohlcv",
}

pytestmark = pytest.mark.skipif(
    not (SHARED / "MANIFEST.json").exists(), reason="real files (../shared/data) are absent"
)


def manifest(folder):
    entries = json.loads((SHARED / "MANIFEST.json").read_text())
    return [entry for entry in entries if entry["file"].startswith(folder + "/")]


@pytest.mark.parametrize("folder", FORMATS)
def test_every_file_has_the_rows_and_range_of_its_manifest(folder):
    shift = pd.Timedelta(minutes=int(folder in END_LABELS))
    seen = 0
    for entry in manifest(folder):
        if "rows" not in (entry.get("profile") or {}):
            continue  # quotes
        (found,) = readers.find(str(SHARED / entry["file"]), config.Market())
        bars = readers.read_symbol(found, config.Market())
        assert found.format == bars.convention.name == FORMATS[folder]
        assert bars.time.size == entry["profile"]["rows"], entry["file"]
        first, last = pd.DatetimeIndex([bars.time.min(), bars.time.max()], tz="UTC") - shift
        assert str(first) == entry["profile"]["first_utc"], entry["file"]
        assert str(last) == entry["profile"]["last_utc"], entry["file"]
        assert np.isfinite([bars.open, bars.high, bars.low, bars.close]).all()
        seen += 1
    assert seen


def test_folders_are_the_symbols_that_they_hold():
    def symbols(folder):
        found = readers.find(str(SHARED / folder), config.Market())
        return {one.symbol: len(one.files) for one in found}

    lean = {"AAPL": 3, "AIG": 6, "BAC": 12, "IBM": 12, "SPY": 12}
    assert symbols("us_equity_lean_minute") == lean
    assert symbols("fx_histdata_m1") == {"EURUSD": 3}
    assert symbols("crypto_binance_1m") == {
        "AVAXUSDT": 1, "BTCUSDT": 2, "BTCUSD_PERP": 2, "ETHUSDT": 2, "NEARUSDT": 1
    }  # fmt: skip


def test_lean_quotes_give_spreads_of_a_cent():
    (found,) = readers.find(str(SHARED / "us_equity_lean_minute" / "spy"), config.Market())
    bars = readers.read_symbol(found, config.Market())
    # One cent on about 168 dollars, half of it.
    assert np.nanmedian(bars.half_spread) == pytest.approx(0.005 / np.median(bars.close), rel=0.02)
    assert np.isfinite(bars.half_spread).mean() > 0.95


def test_true_order_flow_is_within_the_volume():
    (found,) = readers.find(str(SHARED / "crypto_binance_1m" / "NEAR*"), config.Market())
    bars = readers.read_symbol(found, config.Market())
    assert (np.abs(bars.signed_volume) <= bars.volume + 1e-6).all()
    assert np.corrcoef(bars.signed_volume, bars.close - bars.open)[0, 1] > 0.5


def test_columns_of_the_index_file_are_not_mixed_up():
    path = SHARED / "us_index_1min" / "SP500_NOV2019_IDay.csv"  # close before high and low
    (found,) = readers.find(str(path), config.Market())
    bars = readers.read_symbol(found, config.Market())
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
