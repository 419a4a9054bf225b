"""Figures of a run: what the agent does at present, on a few episodes of its training market."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from jules_jax.agent import network, policy
from jules_jax.config import Config
from jules_jax.env.params import make_params
from jules_jax.env.record import StepRecord
from jules_jax.evaluation import backtest
from jules_jax.evaluation.audit import recording
from jules_jax.market.table import MarketData

DIRECTORY = "figures"
"""Of the images, in the run's directory."""
FIGURES_KEY = 100
"""Folded into the seed's key for the draws of these episodes, which nothing else uses."""
BANDS = ((0.05, 0.95, 0.15), (0.25, 0.75, 0.3))
"""Quantiles of the fan, and the opacity between them."""


def is_due(update: int, settings: Config) -> bool:
    """Whether figures are drawn after `update` (from 1): every so many, and after the last."""
    every = settings.monitor.figures_every
    return every > 0 and (update % every == 0 or update == settings.num_updates)


def play(
    params: network.Params, settings: Config, market: MarketData, *, update: int, progress: float
) -> StepRecord:
    """Records `[N, T]` of `monitor.figure_episodes` episodes of the sampled policy.

    They begin anywhere in the training market as it is now, with `progress` of the schedules.
    """
    starts = backtest.one_per_stretch(
        np.asarray(market.episodes), settings.monitor.figure_episodes, seed=update
    )
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(settings.seed), FIGURES_KEY), update)
    _, who = policy.trained(settings.network)
    env_params = make_params(settings, market, progress=progress)
    return recording.whole(recording.play(who, params, env_params, starts, key).record)


def equity_fan(record: StepRecord, title: str) -> Figure:
    """Equity of all episodes `[N, T]` in % of initial capital: each, their median and bands."""
    change = 100.0 * (np.where(record.time > 0, record.equity, np.nan) - 1.0)
    steps = np.arange(1, change.shape[1] + 1)
    drawing = Figure(figsize=(9.0, 4.5), layout="constrained")
    panel = drawing.subplots()
    panel.plot(steps, change.T, color="0.6", linewidth=0.6, alpha=0.6)
    for low, high, opacity in BANDS:
        below, above = np.nanquantile(change, (low, high), axis=0)
        label = f"{100 * low:.0f} to {100 * high:.0f} % of episodes"
        panel.fill_between(steps, below, above, color="C0", alpha=opacity, lw=0, label=label)
    panel.plot(steps, np.nanmedian(change, axis=0), color="C0", linewidth=2.0, label="median")
    panel.axhline(0.0, color="0.3", linewidth=0.8)
    panel.set(xlabel="step of the episode", ylabel="equity, change in %", title=title)
    panel.legend(loc="upper left", frameon=False)
    return drawing


def one_episode(record: StepRecord, title: str) -> Figure:
    """The episode with the median net P&L of `[N, T]`: fills on the price, position, equity."""
    net = np.asarray(record.net_pnl, np.float64).sum(axis=1)
    chosen = int(np.argsort(net)[len(net) // 2])
    one: StepRecord = jax.tree.map(lambda values: np.asarray(values)[chosen], record)
    steps = np.asarray(one.time)[one.time > 0]
    one = jax.tree.map(lambda values: values[: len(steps)], one)
    drawing = Figure(figsize=(9.0, 6.5), layout="constrained")
    price, position, equity = drawing.subplots(3, sharex=True, height_ratios=(4, 1, 2))
    _fills(price, one, steps)
    shares = np.asarray(one.position) * np.asarray(one.quantity_step)
    position.step(steps, shares, where="post", color="0.3", linewidth=0.9)
    position.fill_between(steps, shares, step="post", color="C0", alpha=0.3)
    position.set(ylabel="position")
    dollars = np.cumsum(np.asarray(one.net_pnl, np.float64))
    equity.plot(steps, dollars, color="C0", label="net of costs")
    gross = np.cumsum(np.asarray(one.price_pnl, np.float64))
    equity.plot(steps, gross, color="0.6", linewidth=0.9, label="before costs")
    equity.axhline(0.0, color="0.3", linewidth=0.8)
    equity.set(xlabel="step of the episode", ylabel="P&L, $")
    equity.legend(loc="upper left", frameon=False)
    price.set(title=f"{title}: the episode of median P&L, {dollars[-1]:,.0f} dollars net")
    return drawing


def _fills(panel: Axes, one: StepRecord, steps: NDArray[np.int32]) -> None:
    """The price of an episode `[T]`, and what was bought and sold, of one's own will or forced."""
    close = np.asarray(one.mark_price)
    panel.plot(steps, close, color="0.4", linewidth=0.8)
    quantity, forced = np.asarray(one.quantity), np.asarray(one.forced)
    for sign, marker, colour, name in ((1, "^", "C2", "buy"), (-1, "v", "C3", "sell")):
        filled = (np.sign(quantity) == sign) & ~forced
        where = steps[filled], np.asarray(one.reference_price)[filled]
        panel.scatter(*where, marker=marker, color=colour, s=28, label=name, zorder=3)
    imposed = ((quantity != 0) & forced) | (np.asarray(one.close_quantity) != 0)
    panel.scatter(
        steps[imposed], close[imposed], marker="x", color="k", s=24, label="forced", zorder=3
    )
    panel.set(ylabel="price, $")
    panel.legend(loc="upper left", frameon=False, ncols=3)


def draw(record: StepRecord, *, update: int) -> dict[str, NDArray[np.uint8]]:
    """All figures of records `[N, T]`, as images `[height, width, 3]` by name."""
    title = f"after update {update:,}"
    drawn = {
        "figures/equity": equity_fan(record, f"{len(record.time)} episodes {title}"),
        "figures/episode": one_episode(record, title),
    }
    return {name: _pixels(figure) for name, figure in drawn.items()}


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[:, :, :3].copy()


def write(images: Mapping[str, NDArray[np.uint8]], run_dir: Path, *, update: int) -> list[Path]:
    """Writes images as PNG files named by the update; returns where."""
    directory = run_dir / DIRECTORY
    directory.mkdir(exist_ok=True)
    paths = []
    for name, pixels in images.items():
        paths.append(directory / f"{Path(name).name}-{update:06}.png")
        imsave(paths[-1], pixels)
    return paths
