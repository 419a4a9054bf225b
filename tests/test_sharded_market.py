"""A market in parts: every device has paths of its own, and together they are one market."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jules_jax import config
from jules_jax.agent.learner import LANE
from jules_jax.errors import InputError
from jules_jax.market.feed import SimulatedFeed
from jules_jax.training import checkpoints, loop, preparation
from jules_jax.training.market import MARKET_KEY, Market
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARTS = 4
ROOT = Path(__file__).parents[1]
SHARDED = SETTINGS | {"market.sharded": "true", "devices": str(PARTS), "refresh_updates": "2"}


@pytest.fixture(scope="module")
def settings() -> config.Config:
    return config.load(SHARDED)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh(jax.devices()[:PARTS], (LANE,))


def test_parts_are_the_paths_of_one_market_of_them_all(settings: config.Config) -> None:
    key = jax.random.key(5)
    feed = SimulatedFeed(settings)
    paths = PARTS * settings.simulator.paths
    simulator = dataclasses.replace(settings.simulator, paths=paths)
    whole = SimulatedFeed(dataclasses.replace(settings, simulator=simulator))
    parts = [feed.generation(key, 3, part) for part in range(PARTS)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.generation(key, 3))


def test_every_device_has_its_part_now_and_after_the_next_generation(
    settings: config.Config, mesh: Mesh
) -> None:
    market, feed = Market(settings, mesh=mesh), SimulatedFeed(settings)
    key = jax.random.fold_in(jax.random.key(settings.seed), MARKET_KEY)
    for generation, update in ((0, 1), (1, 2)):
        assert market.refresh(update) == (generation == 1)
        found = market.on(mesh)
        assert found.rows.shape[0] == PARTS * market.data.rows.shape[0]
        for shard in found.rows.addressable_shards:
            part = mesh.devices.tolist().index(shard.device)
            expected = feed.resident(key, generation, part)
            np.testing.assert_array_equal(shard.data, expected.rows)
            np.testing.assert_array_equal(found.episodes, expected.episodes)


@pytest.mark.long
def test_parts_and_one_market_differ_by_chance_alone() -> None:
    """The shipped policy acts for an episode in each of 384 lanes, on 384 paths in all. On `easy`
    it earns alike on a market in parts and on one; on `null`, which shows that the test can tell,
    it does not."""
    place = ROOT / "checkpoints" / "phase1_smoke"
    course = {
        "devices": str(PARTS), "n_epochs": "1", "learning_rate": "1e-9",
        "total_timesteps": str(8 * 384 * 128),
    }  # fmt: skip
    rewards = {}
    for sharded, preset in ((False, "easy"), (True, "easy"), (True, "null")):
        changes = course | {"market.sharded": str(sharded).lower(), "simulator.preset": preset}
        changes["paths"] = str(384 // PARTS if sharded else 384)
        own = config.load(changes, file=place / "config.yaml")
        params = checkpoints.load_params(checkpoints.find(place), own)
        prepared = preparation.prepare(own, lambda text: None)
        state, total = preparation.with_weights(prepared.state, params), 0.0
        for _ in range(own.num_updates):
            state, metrics = prepared.learner.update(state, prepared.params)
            total += float(metrics["rollout/reward_sum"])
        rewards[sharded, preset] = total / own.num_envs * 1000 / (8 * 128)
    error = np.sqrt(2) * 6 / np.sqrt(384)  # an episode's reward has a standard deviation of 6
    assert abs(rewards[True, "easy"] - rewards[False, "easy"]) < 4 * error
    assert rewards[False, "easy"] - rewards[True, "null"] > 4 * error


def test_a_run_in_parts_goes_on_on_as_many_devices_only(tmp_path: Path) -> None:
    places = {"runs_dir": str(tmp_path / "r"), "checkpoint_dir": str(tmp_path / "c"), "name": "x"}
    run = config.load(SHARDED | places)
    loop.train(run, say=lambda text: None)
    with pytest.raises(InputError, match="4 devices trained, each on paths of its own"):
        loop.train(dataclasses.replace(run, devices=2), resume=True, say=lambda text: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"market.data": "bars.csv"}, "expected simulated paths"),
        ({"monitor.audit": "0.5"}, "expected one of them"),
    ],
)
def test_what_a_market_in_parts_cannot_do_is_said(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.load(SHARDED | changes)
