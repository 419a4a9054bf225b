"""The dashboards: how TensorBoard groups a run's scalars, and the histograms beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tensorboardX import summary
from tensorboardX.proto.summary_pb2 import Summary

from jules_jax.env.metrics import COSTS, REQUESTS
from jules_jax.training.events import EventFile

RETURN_EDGES = tuple(np.sinh(np.linspace(-10.0, 10.0, 201)).tolist())
"""Edges of the histogram of episode rewards: a tenth apart near 0, a tenth of the reward far from
it, up to ±11,000. They are fixed, so that the device can count between them."""

LAYOUT: dict[str, dict[str, list[str]]] = {
    "1 learning": {
        "episode reward": ["rollout/ep_rew_mean"],
        "P&L per episode, $": ["pnl/net", "pnl/gross"],
        "explained variance": ["train/explained_variance"],
        "entropy loss, nats": ["train/entropy_loss"],
        "approximate KL, clip fraction": ["train/approx_kl", "train/clip_fraction"],
        "losses": ["train/loss", "train/value_loss", "train/policy_gradient_loss"],
    },
    "2 reward": {
        "terms per episode": [
            f"reward/{term}"
            for term in ("equity_change", "action_change", "same_action", "drawdown")
        ],
        "bonuses per episode": ["reward/recovery_bonus", "reward/bootstrap_bonus"],
        "penalised steps per episode": ["reward/penalised_steps"],
    },
    "3 risk": {
        "drawdown": ["risk/drawdown_mean", "risk/drawdown_max"],
        "soft breach, share of steps": ["risk/soft_breach_rate"],
        "hard breaches per episode": ["risk/hard_breaches"],
        "purgatory per episode": ["risk/purgatory_entries", "risk/escapes"],
        "steps under an early warning": ["risk/early_warnings"],
        "drawdown weight": ["risk/drawdown_weight"],
    },
    "4 trading": {
        "requests, share of steps": [f"action/{name}" for name in REQUESTS],
        "trades per episode": ["trade/trades_per_episode", "trade/round_trips"],
        "turnover per episode, $": ["trade/turnover"],
        "bars held": ["trade/holding_bars"],
        "requests refused per episode": ["trade/cooldown_blocked", "trade/rejected"],
        "chains of alternations per episode": ["trade/chains"],
    },
    "5 cost": {
        "basis points of turnover": [f"cost/{name}_bp" for name in COSTS],
    },
    "6 speed": {
        "steps per second": ["time/fps"],
    },
}
"""Charts by group; numbered, as TensorBoard sorts them by name."""


def write_layout(events: EventFile) -> None:
    """Tells TensorBoard's Custom Scalars page how to group the charts."""
    groups = {
        group: {
            title: ["Multiline", [f"^{tag}$" for tag in tags]] for title, tags in charts.items()
        }
        for group, charts in LAYOUT.items()
    }
    events.add(summary.custom_scalars(groups))


def write_scalars(events: EventFile, scalars: Mapping[str, float | None], steps: int) -> None:
    """Writes an update's scalars as one event, which costs far less than one each.

    What is None is not written.
    """
    values = [
        Summary.Value(tag=name, simple_value=value)
        for name, value in scalars.items()
        if value is not None
    ]
    events.add(Summary(value=values), steps)


def histograms(metrics: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """The learner's histograms, `[M, bins]` float64 by name; M is 1 for a single agent."""
    return {
        name: np.atleast_2d(np.asarray(counts, np.float64))
        for name, counts in metrics.items()
        if name.startswith("histogram/")
    }


def write_histograms(
    events: EventFile, raw: Mapping[str, float], returns: ArrayLike | None, steps: int
) -> None:
    """An update's histograms: what was requested, and the rewards of the episodes that ended.

    raw: the update's sums, of which `step_sum/action/*` are counts. returns: counts between
    `RETURN_EDGES` `[K + 1]`. An update in which no episode ended has no histogram of rewards.
    """
    requests = [raw.get(f"step_sum/action/{name}", 0.0) for name in REQUESTS]
    if sum(requests) > 0:
        _write(events, "histogram/action", requests, np.arange(3) - 1.0, [-0.5, 0.5, 1.5], steps)
    if returns is not None and np.sum(returns) > 0:
        edges = np.array(RETURN_EDGES)
        # what lies beyond the last edges is shown just outside of them
        limits = np.append(edges, 2 * edges[-1])
        middles = limits - np.diff(limits, prepend=2 * edges[0]) / 2
        _write(events, "histogram/ep_rew", returns, middles, limits, steps)


def _write(
    events: EventFile,
    name: str,
    counts: ArrayLike,
    middles: ArrayLike,
    limits: ArrayLike,
    steps: int,
) -> None:
    """Writes counts of bins that end at `limits`, only from the first used bin to the last."""
    counts, middles, limits = (np.asarray(each, np.float64) for each in (counts, middles, limits))
    used = np.flatnonzero(counts)
    # TensorBoard takes a bin's beginning from the bin before
    chosen = slice(max(used[0] - 1, 0), used[-1] + 1)
    histogram = summary.histogram_raw(
        name,
        min=float(middles[used[0]]),
        max=float(middles[used[-1]]),
        num=int(counts.sum()),
        sum=float(counts @ middles),
        sum_squares=float(counts @ middles**2),
        bucket_limits=limits[chosen].tolist(),
        bucket_counts=counts[chosen].tolist(),
    )
    events.add(histogram, steps)
