"""The policy that comes with the repository is the one its figures are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fresh_episodes
from jules_jax import config
from jules_jax.training import checkpoints

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "phase1_smoke"
EPISODES = 512


@pytest.fixture(scope="module")
def played():
    """Rewards of whole episodes of the shipped policy on paths of another seed, by policy."""
    settings = config.load({"seed": 77}, file=SHIPPED / "config.yaml").for_evaluation()
    params = checkpoints.load_params(checkpoints.find(SHIPPED), settings)
    return fresh_episodes.play(settings, params, EPISODES)


def test_the_shipped_checkpoint_is_small_and_says_what_it_is():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    meta = checkpoints.load_meta(checkpoints.find(SHIPPED))
    assert {"versions", "revision", "devices", "config"} <= set(meta)
    assert "dirty" not in meta["revision"]
    shipped = config.load(meta["config"])
    own = config.load(file=SHIPPED.parents[1] / "configs" / "phase1_smoke.yaml")
    free = {"name", "seed", "devices"}
    changed = set(config.differences(own, shipped)) - free
    assert not [key for key in changed if not key.startswith("monitor.")]  # what is only shown
    assert not any(b"/home" in (text := path.read_bytes()) or b"/tmp" in text for path in files)


def test_it_passed_every_gate_of_phase_1():
    verdict = json.loads((SHIPPED / "gates.json").read_text("utf-8"))
    assert verdict["passed"] and all(gate["passed"] for gate in verdict["gates"])


@pytest.mark.parametrize("name", ["sampled", "greedy", "random", "flat"])
def test_on_fresh_paths_it_earns_what_is_recorded(played, name):
    """Within four standard errors of the difference; doing nothing earns exactly nothing."""
    told = json.loads((SHIPPED / "gates.json").read_text("utf-8"))["episode_reward"][name]
    who = name if name in played.by_policy else f"trained, {name}"
    mean, error = played.mean(who, "reward")
    assert abs(mean - told["mean"]) <= 4 * np.hypot(error, told["standard_error"])
    if name == "sampled":
        assert mean > 4 * error  # it earns
