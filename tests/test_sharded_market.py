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
from jules_jax.training import loop, preparation
from jules_jax.training.market import MARKET_KEY, Market
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARTS = 4
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


def test_training_in_parts_and_on_one_market_differ_by_chance_alone(
    settings: config.Config,
) -> None:
    """A first rollout of 256 lanes: mean reward and its spread, within four standard errors."""
    rewards = {}
    for sharded in (False, True):
        own = dataclasses.replace(
            settings,
            num_envs=256,
            market=dataclasses.replace(settings.market, sharded=sharded),
            simulator=dataclasses.replace(settings.simulator, paths=64 if sharded else 256),
        )
        prepared = preparation.prepare(own, lambda text: None)
        _, metrics = prepared.learner.update(prepared.state, prepared.params)
        steps = own.num_envs * own.ppo.n_steps
        mean, variance = metrics["rollout/reward_sum"] / steps, metrics["rollout/reward_var"]
        rewards[sharded] = float(mean), float(variance)
    (one, spread), (other, same) = rewards[False], rewards[True]
    error = np.sqrt((spread + same) / 256)  # as if the steps of an episode were all alike
    assert one != other and abs(one - other) < 4 * error
    assert 0.5 < spread / same < 2


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
