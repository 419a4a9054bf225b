"""Conformity: whether a policy learned with what it is judged by, and with what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jules_jax import config
from jules_jax.config import Config
from jules_jax.env import reward
from jules_jax.training import schedule

JUDGED = (
    "market",
    "simulator",
    "features",
    "account",
    "fills",
    "safeguards",
    "reward",
    "network",
    "ppo",
    "max_steps_in_episode",
)
"""Sections and keys that the policy must have learned with; the rest says how long, and where."""
OF_PPO = {
    "train/learning_rate": ("learning_rate", "learning_rate_end"),
    "train/ent_coef": ("ent_coef", "ent_coef_end"),
    "train/clip_range": ("clip_range", None),
}
"""Metrics of an update that are numbers of `ppo`, and what moves them unless it is negative."""
DRAWDOWN_WEIGHT = "risk/drawdown_weight"
TOLERANCE = 1e-4
"""Relative: a metric is a float32 mean of equal values."""


def changed(settings: Config, trained_with: Config) -> list[str]:
    """Keys of `JUDGED` that differ between the config to judge by and that of the checkpoint."""
    found = config.differences(trained_with.for_evaluation(), settings.for_evaluation())
    return [key for key in found if key.partition(".")[0] in JUDGED]


def unlike_asked(trained_with: Config, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose value in the last row of a run's metrics is not the config's at that update."""
    if not rows:
        return []
    row = rows[-1]
    asked = expected(trained_with, trained_with.progress(int(row["update"]) - 1))
    return [
        key
        for metric, (key, value) in asked.items()
        if row.get(metric) is not None
        and not np.isclose(row[metric], value, rtol=TOLERANCE, atol=1e-12)
    ]


def expected(trained_with: Config, progress: float) -> dict[str, tuple[str, float]]:
    """Key and value that a config asks for at `progress`, by the metric that has it.

    Numbers of `ppo` that move within an update are not among them.
    """
    at = trained_with.at(progress)
    found = {
        metric: (f"ppo.{name}", float(getattr(at.ppo, name)))
        for metric, (name, end) in OF_PPO.items()
        if end is None or getattr(at.ppo, end) < 0
    }
    weight = float(reward.drawdown_weight(jnp.float32(progress), at.reward))
    found[DRAWDOWN_WEIGHT] = ("reward.drawdown_weight", weight)
    for metric, value in schedule.scalars_at(progress, trained_with).items():
        found[metric] = (metric.removeprefix("schedule/"), value)
    return found
