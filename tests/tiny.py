"""A configuration small enough to train in a second, and bars to train it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

TINY = (
    "--num-envs", "8",
    "--n-steps", "16",
    "--n-epochs", "2",
    "--num-minibatches", "2",
    "--max-steps-in-episode", "32",
    "--total-timesteps", "512",
    "--paths", "4",
    "--sessions", "3",
    "--warmup-sessions", "1",
    "--bars-per-session", "60",
    "--lstm-hidden-size", "8",
    "--net-arch", "8,8",
    "--devices", "1",
    "--validation-episodes", "0",
    "--checkpoints.every", "100",
    "--figures-every", "0",
)  # fmt: skip

SETTINGS = {
    flag[2:].replace("-", "_"): value for flag, value in zip(TINY[::2], TINY[1::2], strict=True)
}
"""The same for `config.load`."""


def bars_frame(sessions: int = 12, bars: int = 60, seed: int = 0) -> pd.DataFrame:
    """Minute bars of consecutive weekdays from 09:30, prices near 100 dollars."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2025-03-03", periods=sessions)
    times = [day + pd.Timedelta(minutes=570 + i) for day in days for i in range(bars)]
    close = 100 * np.exp(np.cumsum(rng.normal(0, 5e-4, len(times))))
    open_ = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open_, close) * 1.0002, np.minimum(open_, close) * 0.9998
    volume = rng.integers(2_000, 20_000, len(times))
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    frame = pd.DataFrame({"datetime": times, **columns})
    return frame.round(dict.fromkeys(columns, 4))


def write_bars(path: Path, **options: int) -> Path:
    """`bars_frame` as a CSV file."""
    bars_frame(**options).to_csv(path, index=False)
    return path
