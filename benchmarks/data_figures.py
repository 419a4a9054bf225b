"""The figures of docs/data.md: `python -m benchmarks.data_figures`."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from jules_jax import config
from jules_jax.market import simulator

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
PRESETS = ("null", "easy", "default", "hard", "stress")
BAR_COLOUR, WARNING_COLOUR = "#cfe3f5", "#b3261e"


def bar_label() -> None:
    """One bar under both label conventions, and when its close may be acted on."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 4.6), layout="constrained")
    _label_row(axes[0], 'market.bar_label = "start": the stamp is when the bar begins', 0)
    _label_row(axes[1], 'market.bar_label = "end": the stamp is when the bar ends', 1)
    axes[1].annotate(
        "read as a start label, this bar would seem to close at 09:32:\n"
        "the closing bar of the day is lost. The other mistake,\n"
        "start stamps read as end labels, shows every bar a bar early: look-ahead\n"
        "beside any other source, and the opening bar outside the session.",
        (1.02, 0.02),
        (1.45, -1.25),
        fontsize=8.5,
        color=WARNING_COLOUR,
        arrowprops={"arrowstyle": "->", "color": WARNING_COLOUR},
    )
    figure.savefig(IMAGES / "bar-label.png", dpi=110)


def _label_row(axes: Axes, title: str, stamp: int) -> None:
    for index in range(3):
        axes.add_patch(
            plt.Rectangle((index, 0), 1, 1, facecolor=BAR_COLOUR, edgecolor="white", lw=3)
        )
    axes.add_patch(plt.Rectangle((0, 0), 1, 1, fill=False, edgecolor="#1f5f99", lw=2))
    axes.text(0.5, 0.5, "one bar", ha="center", va="center", fontsize=10)
    for index in range(4):
        axes.text(index, -0.14, f"09:{30 + index}", ha="center", va="top", fontsize=9)
    axes.annotate(
        f"stamp 09:{30 + stamp}",
        (stamp, 1.0),
        (stamp, 1.38),
        ha="center",
        fontsize=10,
        weight="bold",
        arrowprops={"arrowstyle": "->", "lw": 1.6},
    )
    axes.annotate(
        "its close is known here;\nan order fills at the next open",
        (1.0, 0.5),
        (3.35, 0.5),
        va="center",
        fontsize=9,
        arrowprops={"arrowstyle": "->", "color": "#555555"},
    )
    axes.set(xlim=(-0.4, 5.6), ylim=(-1.3 if stamp else -0.3, 1.7), title=title)
    axes.title.set_fontsize(10)
    axes.axis("off")


def presets() -> None:
    """Three sessions of one path of every preset, price and volume."""
    figure, axes = plt.subplots(
        len(PRESETS), 2, figsize=(10, 2.0 * len(PRESETS)), layout="constrained", sharex=True
    )
    for row, preset in zip(axes, PRESETS, strict=True):
        settings = config.load({"simulator.preset": preset, "simulator.sessions": 5})
        half_spread = 0.5e-4 * settings.simulator.spread_bps
        bars = simulator.simulate(jax.random.key(1), settings.simulator, half_spread)
        shown = np.asarray(bars.session) >= 2
        row[0].plot(np.asarray(bars.close)[shown], lw=0.6, color="#1f5f99")
        row[0].set_ylabel(preset)
        row[1].plot(np.asarray(bars.volume)[shown], lw=0.4, color="#777777")
        row[1].set_yscale("log")
    axes[0, 0].set_title("close, dollars")
    axes[0, 1].set_title("volume, shares")
    for axis in axes[-1]:
        axis.set_xlabel("minute of three sessions")
    figure.savefig(IMAGES / "presets.png", dpi=100)


def main() -> None:
    """Writes the figures."""
    mpl.use("Agg")
    IMAGES.mkdir(parents=True, exist_ok=True)
    bar_label()
    if "--labels-only" not in sys.argv:
        presets()


if __name__ == "__main__":
    main()
