"""Figure of stylised facts: tails, memory, daily shapes and quantiles of several samples."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jules_jax.errors import InputError
from jules_jax.market.stylised_facts.measures import MAX_LAG, NORMAL_POINTS, TAIL_POINTS, Facts

REFERENCE_LINE: dict[str, Any] = {"color": "0.6", "linewidth": 1.0, "linestyle": "--", "zorder": 0}


def figure(measured: Mapping[str, Facts]) -> Figure:
    """One line per sample in each of six panels; samples by the name of their line.

    Tails P(|z| > x) and quantiles of deseasonalised returns in their standard deviations, beside
    the normal law; autocorrelations of returns and of their size; mean absolute return and volume
    by half hour, each relative to its own mean. Raises `InputError` for no samples.
    """
    if not measured:
        raise InputError("no facts to draw, expected at least one sample")
    drawing = Figure(figsize=(13.0, 8.0), layout="constrained")
    panels = drawing.subplots(2, 3).ravel()
    draw = (_tails, _acf_of_returns, _acf_of_size, _volatility, _volume, _quantiles)
    for panel, function in zip(panels, draw, strict=True):
        function(panel, measured)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize="small")
    return drawing


def _tails(panel: Axes, measured: Mapping[str, Facts]) -> None:
    normal = [2.0 * NormalDist().cdf(-x) for x in TAIL_POINTS]
    panel.loglog(TAIL_POINTS, normal, label="normal", **REFERENCE_LINE)
    for name, facts in measured.items():
        panel.loglog(TAIL_POINTS, np.where(facts.tail > 0, facts.tail, np.nan), label=name)
    panel.set(title="Tails", xlabel="x, sd", ylabel="P(|z| > x)", xlim=(0.3, 30.0), ylim=(1e-6, 1))


def _acf_of_returns(panel: Axes, measured: Mapping[str, Facts]) -> None:
    panel.axhline(0.0, **REFERENCE_LINE)
    for facts in measured.values():
        panel.plot(np.arange(1, 31), facts.acf_return[:30], marker=".")
    panel.set(title="Autocorrelation of returns", xlabel="lag, bars")


def _acf_of_size(panel: Axes, measured: Mapping[str, Facts]) -> None:
    lags = np.arange(1, MAX_LAG + 1)
    for facts in measured.values():
        panel.loglog(lags, np.where(facts.acf_size > 0, facts.acf_size, np.nan))
    panel.set(title="Autocorrelation of |r|, deseasonalised", xlabel="lag, bars")
    panel.set_ylim(5e-3, 1.0)


def _volatility(panel: Axes, measured: Mapping[str, Facts]) -> None:
    _shape(panel, {name: facts.volatility_shape for name, facts in measured.items()})
    panel.set(title="|r| by half hour", ylabel="relative to the mean")


def _volume(panel: Axes, measured: Mapping[str, Facts]) -> None:
    _shape(panel, {name: facts.volume_shape for name, facts in measured.items()})
    panel.set(title="Volume by half hour", ylabel="relative to the mean")


def _shape(panel: Axes, shapes: Mapping[str, np.ndarray]) -> None:
    """Against the share of the session gone, as sessions differ in length."""
    panel.axhline(1.0, **REFERENCE_LINE)
    for shape in shapes.values():
        panel.plot((np.arange(len(shape)) + 0.5) / len(shape), shape, marker=".")
    panel.set(xlabel="share of the session", xlim=(0.0, 1.0))
    panel.set_ylim(bottom=0.0)


def _quantiles(panel: Axes, measured: Mapping[str, Facts]) -> None:
    panel.plot(NORMAL_POINTS, NORMAL_POINTS, **REFERENCE_LINE)
    for facts in measured.values():
        panel.plot(NORMAL_POINTS, facts.quantiles)
    panel.set(title="Quantiles", xlabel="normal, sd", ylabel="z, sd")
    panel.set_ylim(-12.0, 12.0)
