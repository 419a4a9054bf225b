"""Scale of recorded data: a documented fraction of 10 years × 100 symbols of minute bars.

`python -m benchmarks.dataset_scale [--symbols 2] [--years 10]` writes CSV files of a random walk (2
symbols × 10 years are 1.97 million of 98 million rows, one fiftieth), then reads, builds and serves
them, each in a process of its own, and prints rows per second and peak memory. The build streams
symbol by symbol, so its memory is that of the longest symbol, whatever their number.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

SESSION_BARS, SESSIONS_PER_YEAR, SYMBOLS_IN_FULL, YEARS_IN_FULL = 390, 252, 100, 10
STEPS, UPDATES = 1000, 4
MARGIN_GIB = 0.25
"""Memory of a device in the serving stage, as a share of the table: eight blocks to an epoch."""


def write_files(folder: Path, symbols: int, years: int) -> int:
    """Minute bars of business days, one CSV per symbol; returns the rows of all."""
    days = pd.bdate_range("2015-01-02", periods=SESSIONS_PER_YEAR * years, tz="America/New_York")
    days = days[~days.strftime("%m-%d").isin(["01-01", "07-04", "12-25"])]
    minute = pd.to_timedelta(570 + np.arange(SESSION_BARS), unit="min")
    wall = (days.tz_localize(None).values[:, None] + minute.values[None]).ravel()
    stamps = pd.DatetimeIndex(wall).tz_localize("America/New_York").tz_convert("UTC")
    text = stamps.strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy()
    for number in range(symbols):
        rng = np.random.default_rng(number)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 3e-4, len(text))))
        open_ = np.concatenate([[100.0], close[:-1]])
        frame = pd.DataFrame(
            {
                "timestamp": text,
                "open": open_.round(4),
                "high": (np.maximum(open_, close) * 1.0002).round(4),
                "low": (np.minimum(open_, close) * 0.9998).round(4),
                "close": close.round(4),
                "volume": rng.integers(1_000, 50_000, len(text)),
            }
        )
        frame.to_csv(folder / f"SYM{number}.csv", index=False)
    return symbols * len(text)


def stage(name: str, folder: Path) -> dict[str, float]:
    """One measured stage, run in a process of its own."""
    from jules_jax import config
    from jules_jax.market import readers, storage

    files, out, market = str(folder / "csv"), folder / "set", config.Market()
    began = time.perf_counter()
    if name == "read CSV":
        rows = sum(len(readers.read_symbol(f, market).time) for f in readers.find(files, market))
    elif name == "build":
        rows = sum(symbol.rows for symbol in storage.build(files, out, market).symbols)
    else:
        return _serve(name, out)
    return _measured(rows, time.perf_counter() - began)


def _serve(name: str, out: Path) -> dict[str, float]:
    import jax

    from jules_jax import config
    from jules_jax.market import dataset, storage
    from jules_jax.market.dataset_feed import GIB, ROW_BYTES

    rows = sum(symbol.rows for symbol in storage.read_manifest(out).symbols)
    memory = MARGIN_GIB * rows * ROW_BYTES / GIB
    settings = config.load({"market.data": str(out), "market.market_memory": memory})
    began = time.perf_counter()
    feed = dataset.load(settings).feed("train")
    assert feed is not None
    if name == "features and rows":
        return _measured(rows, time.perf_counter() - began)
    key = jax.random.key(0)
    data = jax.block_until_ready(feed.resident(key, 0))
    data = jax.block_until_ready(feed.advance(data, key, 1))
    began = time.perf_counter()
    for g in range(2, 2 + UPDATES):
        data = jax.block_until_ready(feed.advance(data, key, g))
    seconds = time.perf_counter() - began
    return _measured(UPDATES * feed.generation_rows, seconds) | {"generations": UPDATES}


def _measured(rows: int, seconds: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux
    return {"rows": rows, "seconds": seconds, "peak_mib": peak}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=2)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--stage", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(stage(arguments.stage[0], Path(arguments.stage[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "csv").mkdir()
        rows = write_files(folder / "csv", arguments.symbols, arguments.years)
        full = SESSION_BARS * SESSIONS_PER_YEAR * SYMBOLS_IN_FULL * YEARS_IN_FULL
        print(f"{platform.machine()}: {arguments.symbols} symbols × {arguments.years} years, ")
        print(f"{rows:,} rows, 1/{full / rows:.0f} of 10 years × 100 symbols\n")
        print(f"{'':<22}{'rows/s':>14}{'seconds':>10}{'peak MiB':>11}")
        for one in ("read CSV", "build", "features and rows", "serve a generation"):
            command = [sys.executable, "-m", "benchmarks.dataset_scale", "--stage", one, name]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(f"{one} failed:\n{run.stderr}")
            found = json.loads(run.stdout.splitlines()[-1])
            seconds = found["seconds"] / found.get("generations", 1)
            print(
                f"{one:<22}{found['rows'] / found['seconds']:>14,.0f}{seconds:>10.2f}"
                f"{found['peak_mib']:>11,.0f}"
            )


if __name__ == "__main__":
    main()
