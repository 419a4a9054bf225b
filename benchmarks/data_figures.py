"""The figures of docs/data.md: `python -m benchmarks.data_figures`.

`python -m benchmarks.data_figures --sample FOLDER` writes the files that the page's commands run
on instead: simulated minutes of two made-up symbols, AAA with faults planted and BBB without.
`--battery` instead plays the battery of stylised facts on many years, and prints what fails.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from jules_jax import config
from jules_jax.market import simulator, source
from jules_jax.market import stylised_facts as facts
from jules_jax.market.bars import Bars
from jules_jax.market.quality import report
from jules_jax.market.stylised_facts import samples as fact_samples

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
PRESETS = ("null", "easy", "default", "hard", "stress")
BLUE, PALE, GREY, RED = "#1f5f99", "#cfe3f5", "#777777", "#b3261e"

BAR_LENGTH = 60
SPY = {"simulator.noise_bp": 3.1, "simulator.spread_bps": 0.6}
"""Noise per minute and quoted spread of SPY, as `config.Simulator` gives the first."""

BATTERY_SEEDS, POOLED_YEARS = 16, 4

FIRST_DAY, SAMPLE_SESSIONS = "2025-11-03", 40
EARLY_CLOSES = ("2025-11-28", "2025-12-24")
HOLIDAYS = ("2025-11-27", "2025-12-25")

READINGS = (
    ("stamps are starts", "start", 0, 0, "the bar is where it was"),
    ("stamps are ends", "end", 1, 0, "the bar is where it was"),
    (
        "stamps are ends",
        "start",
        1,
        1,
        "a bar late: the day's last bar falls on 16:00,\nafter the close, and is dropped",
    ),
    (
        "stamps are starts",
        "end",
        0,
        -1,
        "a bar early: look-ahead beside any other source;\n"
        "the first bar falls before the open and is dropped",
    ),
)
"""What a file has, how it is read, and where its stamp and the bar then seem to be, in bars."""


def bar_label() -> None:
    """One bar, 09:30 to 09:31, under both labels read both ways."""
    figure, axes = plt.subplots(
        len(READINGS), 1, figsize=(10, 5.2), layout="constrained", sharex=True
    )
    for panel, reading in zip(axes, READINGS, strict=True):
        _reading(panel, *reading)
    figure.suptitle(
        "One bar, of the trades from 09:30 to 09:31 (dashed where misread)", fontsize=11
    )
    figure.savefig(IMAGES / "bar-label.png", dpi=110)
    plt.close(figure)


def _reading(axes: Axes, has: str, label: str, stamp: int, place: int, outcome: str) -> None:
    right = place == 0
    axes.plot([-1.1, 3.1], [0, 0], color=GREY, lw=1)
    for minute in range(-1, 4):
        axes.plot([minute, minute], [-0.08, 0], color=GREY, lw=1)
        axes.text(minute, -0.16, f"09:{30 + minute}", ha="center", va="top", fontsize=9)
    outline = {"fill": False, "edgecolor": GREY, "lw": 1.2, "linestyle": "--"}
    axes.add_patch(plt.Rectangle((0, 0), 1, 0.8, **outline))
    colour = BLUE if right else RED
    face = PALE if right else "#f7d9d7"
    axes.add_patch(plt.Rectangle((place, 0), 1, 0.8, facecolor=face, edgecolor=colour, lw=2))
    axes.text(place + 0.5, 0.4, "read here", ha="center", va="center", fontsize=9, color=colour)
    axes.annotate(
        f"stamp 09:{30 + stamp}",
        (stamp, 0.8 if place in (stamp, stamp - 1) else 0.0),
        (stamp, 1.45),
        ha="center",
        fontsize=9,
        arrowprops={"arrowstyle": "->", "lw": 1.4},
    )
    mark = "✓" if right else "✗"
    axes.text(
        -1.35, 0.4, f"{has}\n--bar-label {label}  {mark}", ha="right", va="center", color=colour
    )
    axes.text(3.35, 0.4, outcome, va="center", fontsize=9, color=colour)
    axes.set(xlim=(-3.4, 7.4), ylim=(-0.6, 1.9))
    axes.axis("off")


def presets() -> None:
    """Three sessions of one path of every preset, price and volume, from the same key."""
    figure, axes = plt.subplots(
        len(PRESETS), 2, figsize=(11, 1.9 * len(PRESETS)), layout="constrained", sharex=True
    )
    for row, preset in zip(axes, PRESETS, strict=True):
        settings = config.load({"simulator.preset": preset, "simulator.sessions": 5})
        half_spread = 0.5 * simulator.BP * settings.simulator.spread_bps
        bars = simulator.simulate(jax.random.key(1), settings.simulator, half_spread)
        shown = np.asarray(bars.session) >= 2
        close, volume = np.asarray(bars.close)[shown], np.asarray(bars.volume)[shown]
        minute, slots = np.arange(close.size), settings.simulator.bars_per_session
        for first in range(0, close.size, slots):  # nights are gaps in the line
            part = slice(first, first + slots)
            row[0].plot(minute[part], close[part], lw=0.7, color=BLUE)
            row[1].plot(minute[part], volume[part], lw=0.5, color=GREY)
        row[0].set_ylabel(preset, fontsize=11, weight="bold")
        row[1].set_yscale("log")
        row[1].set_ylim(100, 3e5)
        for axis in row:
            axis.set_xticks([0, slots, 2 * slots, 3 * slots])
            axis.grid(axis="x", color="0.85")
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_title("close, dollars")
    axes[0, 1].set_title("volume, shares")
    for axis in axes[-1]:
        axis.set_xlabel("minute of three sessions")
    figure.savefig(IMAGES / "presets.png", dpi=90)
    plt.close(figure)


def stylised_facts() -> None:
    """Facts of `default` as it is and at SPY's scale, beside ranges of US names."""
    samples = {
        "default": {"simulator.preset": "default"},
        "default, SPY's scale": {"simulator.preset": "default", **SPY},
    }
    measured = {
        name: facts.measure(fact_samples.sample(config.load(values).simulator, BAR_LENGTH, 0))
        for name, values in samples.items()
    }
    drawing = facts.figure(measured)
    returns, size = drawing.axes[1], drawing.axes[2]
    for panel, name in ((returns, "ACF of r, "), (size, "ACF of |r|, ")):
        ranges = {key: band for key, band in facts.REFERENCE.items() if key.startswith(name)}
        for key, (low, high) in ranges.items():
            panel.plot([int(key.removeprefix(name))] * 2, [low, high], color="black", lw=3)
    size.plot([], [], color="black", lw=3, label="range of US names")
    size.legend(frameon=False, fontsize="small")
    drawing.savefig(IMAGES / "stylised-facts.png", dpi=75)


def battery() -> None:
    """How often `default` at SPY's scale passes the battery, by what it is judged on.

    Medians of five years are what `data stylised-facts` judges; single years, and four pooled, tell
    how much noise and how little power other samples would have.
    """
    whole = config.load({"simulator.preset": "default", **SPY})
    params = replace(whole.simulator, sessions=fact_samples.SESSIONS, warmup_sessions=1)
    half_spread = 0.5 * simulator.BP * params.spread_bps
    samples = ("median of five years", "one year", f"{POOLED_YEARS} years pooled")
    misses: dict[str, list[str]] = {name: [] for name in samples}

    @jax.jit
    def years(key: jax.Array) -> Bars:
        paths = jnp.arange(POOLED_YEARS)
        return jax.vmap(lambda i: simulator.simulate_path(key, i, params, half_spread))(paths)

    for seed in range(BATTERY_SEEDS):
        pooled = jax.tree.map(np.asarray, years(jax.random.key(seed)))
        judged = facts.of_config(replace(whole, seed=seed))[0]["default"]
        year = facts.measure(jax.tree.map(lambda x: x[0], pooled))
        for name, found in zip(samples, (judged, year, facts.measure(pooled)), strict=True):
            failed = [c for c in facts.battery(found, half_spread) if not c.passes]
            told = [f"{c.name} {c.value:.4f} not in {c.low:.4f} … {c.high:.4f}" for c in failed]
            misses[name] += [f"seed {seed}: {'; '.join(told)}"] if told else []
    for name, lines in misses.items():
        print(f"{name}: {BATTERY_SEEDS - len(lines)} of {BATTERY_SEEDS} seeds pass every line")
        print("".join(f"  {line}\n" for line in lines), end="")


def quality() -> None:
    """The plot of `data check --report`, of the sample's file with faults."""
    with tempfile.TemporaryDirectory() as folder:
        sample(Path(folder))
        files = replace(config.Market(), data=str(Path(folder) / "AAA_1min.csv"))
        (one,) = source.reports(files)
    report.figure(one).savefig(IMAGES / "quality.png", dpi=80)


def sample(folder: Path) -> None:
    """Writes AAA, with faults, and BBB, without: 40 sessions of `default` in New York's time."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, symbol in enumerate(("AAA", "BBB")):
        frame = _minutes(jax.random.key(number))
        if symbol == "AAA":
            frame = _damage(frame)
        frame.to_csv(folder / f"{symbol}_1min.csv", index=False)


def _minutes(key: jax.Array) -> pd.DataFrame:
    """Bars of the simulator under the dates of late 2025, cut short where the exchange was."""
    settings = config.load({"simulator.preset": "default", "simulator.sessions": SAMPLE_SESSIONS})
    half_spread = 0.5 * simulator.BP * settings.simulator.spread_bps
    bars = simulator.simulate(key, settings.simulator, half_spread)
    days = pd.bdate_range(FIRST_DAY, periods=SAMPLE_SESSIONS + len(HOLIDAYS))
    days = days.drop(pd.DatetimeIndex(HOLIDAYS))
    slots = settings.simulator.bars_per_session
    minutes = pd.to_timedelta(570 + np.arange(slots), unit="min")
    stamps = pd.DatetimeIndex((days.values[:, None] + minutes.values[None]).ravel())
    prices = {
        name: np.asarray(getattr(bars, name), np.float64).round(2)
        for name in ("open", "high", "low", "close")
    }
    volume = np.asarray(bars.volume).astype(np.int64)
    frame = pd.DataFrame({"datetime": stamps, **prices, "volume": volume})
    early = stamps.normalize().isin(pd.DatetimeIndex(EARLY_CLOSES))
    return frame[~(early & (stamps.hour >= 13))].reset_index(drop=True)


def _damage(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with gaps, a halt, a bad print, copies, swapped rows, a blank and a new feed."""
    slots, rng = 390, np.random.default_rng(0)
    frame.loc[: 12 * slots - 1, "volume"] = frame["volume"][: 12 * slots] // 25 + 1  # another feed
    frame.loc[8 * slots + 100, "low"] = round(0.93 * frame["low"][8 * slots + 100], 2)
    frame.loc[15 * slots + 200, "close"] = np.nan
    halt = np.arange(5 * slots + 120, 5 * slots + 165)
    stale = np.arange(22 * slots, 22 * slots + 15)
    frame.loc[stale, ["open", "high", "low", "close"]] = frame["close"][22 * slots - 1]
    frame.loc[stale, "volume"] = 0
    gone = np.union1d(halt, rng.choice(np.arange(1, len(frame) - 1), 6, replace=False))
    gone = np.setdiff1d(gone, [15 * slots + 200, 8 * slots + 100])
    order = np.delete(np.arange(len(frame)), gone)
    order[[2_000, 2_001]] = order[[2_001, 2_000]]
    order = np.insert(order, [3_000, 3_001, 3_002], order[[3_000, 3_001, 3_002]])
    return frame.iloc[order]


def main() -> None:
    """Writes the figures, or the sample."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sample", type=Path, metavar="FOLDER", help="write the sample files only")
    parser.add_argument("--battery", action="store_true", help="print how the battery fares only")
    given = parser.parse_args()
    if given.sample:
        sample(given.sample)
        return
    if given.battery:
        battery()
        return
    mpl.use("Agg")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for draw in (bar_label, presets, stylised_facts, quality):
        draw()


if __name__ == "__main__":
    main()
