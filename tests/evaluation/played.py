"""Accounts for tests of evaluations: two symbols of unequal length, and a few simulated paths."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from jules_jax import config
from jules_jax.evaluation import prices
from jules_jax.evaluation.prices import Prices
from tests.tiny import SETTINGS, bars_frame

VALIDATION, TEST = "2025-03-10", "2025-03-14"
EAGER = SETTINGS | {"trade_cooldown_steps": "1"}


def write(root: Path) -> Path:
    """AAA has twelve sessions, BBB ends on the day that AAA's validation does, a session short."""
    whole, other = (bars_frame(sessions=12, bars=390, seed=seed) for seed in (1, 2))
    day = other["datetime"].dt.normalize()
    whole.to_csv(root / "AAA.csv", index=False)
    other[day != pd.Timestamp("2025-03-11")].to_csv(root / "BBB.csv", index=False)
    return root


def recorded_settings(root: Path, **changes: str) -> config.Config:
    chosen = {"validation_from": VALIDATION, "test_from": TEST, "embargo_sessions": "0"}
    return config.load(EAGER | chosen | {"market.data": str(root)} | changes)


@cache
def simulated() -> Prices:
    """Six accounts, each for an episode of 150 steps on a path of sessions of 60 bars."""
    settings = {**EAGER, "max_steps_in_episode": "150", "sessions": "5"}
    return prices.simulated(config.load(settings).for_evaluation(), 6)
