"""The configs of the repository: each is a whole program, and a shrunk one trains."""

from pathlib import Path

import jax
import pytest

from jules_jax import config
from jules_jax.agent.learner import Learner
from jules_jax.env.episodes import Episodes
from jules_jax.env.params import make_params
from jules_jax.market.feed import SimulatedFeed
from jules_jax.training import loop
from tests.tiny import SETTINGS

FOLDER = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
ONE_UPDATE = {"total_timesteps": 128, "name": "shrunk"}

each_config = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def shrunk(file, **values):
    """The config with few lanes, short episodes and a small network; all else is its own."""
    return config.resolve(config.read_yaml(file), config.read_dict(SETTINGS | ONE_UPDATE | values))


def in_full(name):
    return config.load(file=FOLDER / f"{name}.yaml")


@each_config
def test_every_config_is_a_whole_program(file):
    """Market, environment and an update are traced, which is where most mistakes show."""
    settings = shrunk(file)
    learner = Learner(Episodes(), settings)

    def run(key):
        data = SimulatedFeed(settings).resident(key, 0)
        params = make_params(settings, data, progress=0.0, randomise=True)
        return learner.update(learner.init(key, params), params)

    state, metrics = jax.eval_shape(run, jax.random.key(0))
    assert state.update.shape == () and "train/loss" in metrics


@pytest.mark.long
@each_config
@pytest.mark.usefixtures("quick_compilation")
def test_every_config_trains_when_shrunk(file, tmp_path):
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    run = loop.train(shrunk(file, **places), say=lambda text: None)
    assert run.checkpoint.is_dir()


def test_production_has_the_report_s_numbers_at_scale():
    report, production = in_full("phase1_report"), in_full("phase1_production")
    assert production.total_timesteps >= 50_000 and production.num_envs >= 1024
    first = production.at(0.0)
    for key in ("n_steps", "n_epochs", "learning_rate", "clip_range", "ent_coef", "vf_coef"):
        assert getattr(first.ppo, key) == getattr(report.ppo, key), key
    for section in ("reward", "safeguards", "fills", "features"):
        assert getattr(first, section) == getattr(report, section), section


def test_phase_2_is_stricter_than_phase_1_and_goes_on_from_its_weights():
    before, strict = in_full("phase1_production"), in_full("phase2_strict")
    assert strict.safeguards.terminate_on_hard and not before.safeguards.terminate_on_hard
    assert strict.safeguards.soft_dd_pct < before.safeguards.soft_dd_pct
    assert strict.safeguards.hard_dd_pct < before.safeguards.hard_dd_pct
    assert strict.network == before.network


def test_phase_2_trains_between_default_and_stress_and_is_judged_in_default():
    strict = in_full("phase2_strict")
    ranges = {each.key: (each.low, each.high) for each in strict.randomise}
    for name, value in config.PRESETS["stress"].items():
        low = config.PRESETS["default"][name]
        expected = None if low == value else (low, value)
        assert ranges.get(f"simulator.{name}") == expected, name
    assert (
        strict.for_evaluation().simulator
        == config.load({"preset": "default", "paths": strict.simulator.paths}).simulator
    )
