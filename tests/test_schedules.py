"""Schedules: numbers that move with training, from a config's words to the update that has them."""

import dataclasses
import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.config import Schedule
from jules_jax.env import reward
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.flags import parse
from jules_jax.market import feed
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.table import Row
from jules_jax.training import loop, population, schedule
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")


def settings_with(**values):
    return config.load(SETTINGS | values)


# --- the course of a number ------------------------------------------------------------------


def test_a_linear_schedule_is_a_line_and_a_cosine_half_a_wave():
    linear, cosine = (Schedule("ppo.ent_coef", shape, ((0, 2), (1, 6))) for shape in SHAPES[:2])
    assert [linear.at(p) for p in (0, 0.25, 0.5, 1)] == [2, 3, 4, 6]
    expected = [2, 4 - np.sqrt(2), 4, 4 + np.sqrt(2), 6]
    np.testing.assert_allclose([cosine.at(p) for p in (0, 0.25, 0.5, 0.75, 1)], expected)


SHAPES = ("linear", "cosine", "piecewise")
POINTS = st.lists(st.floats(0, 1), min_size=2, max_size=6, unique=True).flatmap(
    lambda shares: st.tuples(*(st.tuples(st.just(s), st.floats(-9, 9)) for s in sorted(shares)))
)


@given(POINTS, st.floats(0, 1))
def test_a_piecewise_schedule_interpolates_and_holds_its_ends(points, progress):
    course = Schedule("ppo.ent_coef", "piecewise", points)
    expected = np.interp(progress, *np.transpose(points))
    np.testing.assert_allclose(course.at(progress), expected, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@given(start=st.floats(-1e6, 1e6), end=st.floats(-1e6, 1e6))
def test_every_schedule_ends_exactly_where_it_says(shape, start, end):
    course = Schedule("ppo.ent_coef", shape, ((0.0, start), (1.0, end)))
    assert (course.at(0.0), course.at(1.0)) == (start, end)


# --- in words --------------------------------------------------------------------------------

FILE = """
schedules:
  ent_coef: {linear: [3e-2, 0]}
  reward.drawdown_weight: {cosine: [1500, 7500]}
  simulator.noise_bp: {piecewise: [[0, 3], [0.5, 4], [1, 4]]}
randomise:
  fills.fee_bps: [0.1, 1]
"""


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "phase.yaml"
    path.write_text(FILE)
    return str(path)


def test_a_file_s_schedules_are_read_written_and_read_back(written, tmp_path):
    settings = config.load(file=written)
    assert [(each.key, each.at(0), each.at(1)) for each in settings.schedules] == [
        ("ppo.ent_coef", 0.03, 0),
        ("reward.drawdown_weight", 1500, 7500),
        ("simulator.noise_bp", 3, 4),
    ]
    assert settings.randomise == (config.Range("fills.fee_bps", 0.1, 1.0),)
    (tmp_path / "again.yaml").write_text(config.to_yaml(settings))
    assert config.load(file=tmp_path / "again.yaml") == settings
    assert config.load(json.loads(json.dumps(config.to_dict(settings)))) == settings


def test_a_value_of_a_higher_layer_ends_a_schedule_and_a_range(written):
    def given_(*argv):
        return parse(("--config", written, *argv), program="p", summary="s").config

    assert len(given_().schedules) == 3
    once = given_("--ent-coef", "0.02", "--fee-bps", "2")
    left = [each.key for each in once.schedules]
    assert left == ["reward.drawdown_weight", "simulator.noise_bp"]
    assert once.randomise == () and once.at(0.5).ppo.ent_coef == 0.02
    # a preset is values too: the negative control stays one
    assert [each.key for each in given_("--preset", "null").schedules] == [
        "ppo.ent_coef",
        "reward.drawdown_weight",
    ]
    moved = given_("--schedules", "{ppo.gamma: {linear: [0.9, 0.99]}}")
    assert [each.key for each in moved.schedules] == ["ppo.gamma"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"schedules": {"entcoef": {"linear": [1, 2]}}}, "'entcoef' nearest 'ppo.ent_coef'"),
        ({"schedules": {"ent_coef": {"line": [1, 2]}}}, "ppo.ent_coef linear, cosine, piecewise"),
        ({"schedules": {"ent_coef": [1, 2]}}, "ppo.ent_coef [1, 2] linear, cosine, piecewise"),
        ({"schedules": {"ent_coef": {"cosine": [1]}}}, "ppo.ent_coef cosine: [start, end]"),
        ({"schedules": {"ent_coef": {"linear": [1, "x"]}}}, "ppo.ent_coef linear: [start, end]"),
        ({"schedules": {"gamma": {"piecewise": [[0, 1]]}}}, "ppo.gamma two points"),
        ({"schedules": {"gamma": {"piecewise": [[1, 1], [0, 1]]}}}, "ppo.gamma ascending"),
        ({"schedules": {"gamma": {"piecewise": [[0, 1], [2, 1]]}}}, "ppo.gamma from 0 to 1"),
        ({"schedules": 3}, "schedules in the given settings 3 mapping"),
        ({"schedules": "{a: ["}, "schedules not YAML"),
        ({"schedules": {"gamma": {"linear": [0.9, 1.1]}}}, "ppo.gamma 1.1 number from 0 to 1"),
        ({"schedules": {"n_steps": {"linear": [8, 16]}}}, "ppo.n_steps cannot move"),
        ({"schedules": {"initial_capital": {"linear": [1, 2]}}}, "account.initial_capital cannot"),
        ({"schedules": {"adam_eps": {"linear": ["nan", 1]}}}, "ppo.adam_eps nan above 0"),
        (
            {"schedules": {"ent_coef": {"linear": [0.1, 0]}}, "ent_coef_end": 0.0},
            "ppo.ent_coef ppo.ent_coef_end already",
        ),
        (
            {"schedules": {"soft_dd_pct": {"linear": [0.03, 0.05]}}},
            "soft_dd_pct 0.05 below hard_dd_pct",
        ),
        (
            {"schedules": {"ent_coef": {"linear": [1, 2]}, "ppo.ent_coef": {"linear": [1, 2]}}},
            "schedules a key comes twice",
        ),
        (
            {"schedules": {"noise_bp": {"linear": [3, 4]}}, "market.data": "x.csv"},
            "simulator.noise_bp no effect x.csv",
        ),
        ({"randomise": {"ppo.gamma": [0, 1]}}, "randomise: ppo.gamma cannot be drawn"),
        ({"randomise": {"fee_bps": [2, 1]}}, "fills.fee_bps from 2 to 1 lower end first"),
        ({"randomise": {"fee_bps": [-1, 1]}}, "randomise: fills.fee_bps -1 at least 0"),
        ({"randomise": {"fee_bps": 1}}, "fee_bps is 1, a range such as"),
        (
            {"schedules": {"fee_bps": {"linear": [1, 2]}}, "randomise": {"fee_bps": [1, 2]}},
            "fills.fee_bps schedules randomise one of them",
        ),
    ],
)
def test_a_schedule_or_range_that_cannot_be_is_told_in_a_sentence(values, words):
    with pytest.raises(InputError) as error:
        config.load(values)
    sentence = str(error.value)
    assert all(word.strip(",") in sentence for word in words.split()), sentence
    assert "\n" not in sentence


def test_evaluation_reads_the_end_of_every_schedule_and_draws_nothing(written):
    final = config.load(file=written).for_evaluation()
    assert (final.schedules, final.randomise) == ((), ())
    assert (final.ppo.ent_coef, final.simulator.noise_bp) == (0.0, 4.0)
    weights = (final.reward.drawdown_weight_start, final.reward.drawdown_weight_end)
    assert weights == (7500.0, 7500.0)
    assert final.fills == config.Fills()
    settings = settings_with(schedules={"bid_ask_spread_bps": {"linear": [0, 3]}})
    data = SimulatedFeed(settings).fresh(jax.random.key(0))
    assert make_params(settings, data).fills.bid_ask_spread_bps == 3.0


# --- in training -----------------------------------------------------------------------------

MOVING = {
    "ppo.ent_coef": {"linear": [0.03, 0.0]},
    "fills.bid_ask_spread_bps": {"cosine": [0, 6]},
    "reward.drawdown_weight": {"piecewise": [[0, 1000], [0.5, 5000]]},
}


def test_an_update_has_the_numbers_of_its_progress():
    settings = settings_with(schedules=MOVING)
    params = make_params(settings, SimulatedFeed(settings).fresh(jax.random.key(0)), progress=0.0)
    assert params.fills.bid_ask_spread_bps == 0.0
    spread, weight, entropy = [], [], []
    for progress in (0.0, 0.25, 0.5, 1.0):
        params, ppo = schedule.numbers_at(progress, settings, (), params)
        spread.append(params.fills.bid_ask_spread_bps)
        weight.append(reward.drawdown_weight(params.progress, params.reward))
        entropy.append(ppo.ent_coef)
    np.testing.assert_allclose(spread, [0, 3 - 1.5 * np.sqrt(2), 3, 6], rtol=1e-6)
    np.testing.assert_allclose(weight, [1000, 3000, 5000, 5000], rtol=1e-6)
    np.testing.assert_allclose(entropy, [0.03, 0.0225, 0.015, 0])


def test_a_sweep_over_a_scheduled_number_replaces_its_schedule(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("fills.bid_ask_spread_bps: [1, 2]\n")
    settings = settings_with(schedules=MOVING, sweep=str(path))
    members = population.members(settings)
    params = make_params(settings, SimulatedFeed(settings).fresh(jax.random.key(0)))
    params, ppo = schedule.numbers_at(0.5, settings, members, params)
    np.testing.assert_array_equal(params.fills.bid_ask_spread_bps, [1, 2])
    np.testing.assert_allclose(ppo.ent_coef, [0.015, 0.015], rtol=1e-6)
    np.testing.assert_allclose(params.reward.drawdown_weight_end, [5000, 5000])


def test_a_sweep_over_what_episodes_draw_is_refused(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("fills.fee_bps: [1, 2]\n")
    with pytest.raises(InputError, match=r"fills\.fee_bps is in sweep .* and in randomise"):
        population.members(settings_with(randomise={"fee_bps": [0, 1]}, sweep=str(path)))


def test_a_run_follows_its_schedules_without_compiling_again(tmp_path, monkeypatch):
    """Programs compiled by update: none after the second generation of the market has come."""
    compiled, by_update = Counter(), {}

    def count(event, duration, **_):
        compiled["programs"] += event == "/jax/core/compile/backend_compile_duration"

    original = loop.Monitor.log

    def log(self, update, metrics):
        original(self, update, metrics)
        by_update[update] = compiled["programs"]

    monkeypatch.setattr(loop.Monitor, "log", log)
    settings = settings_with(
        total_timesteps=128 * 8,  # 8 updates, a generation every 2
        name="moving",
        runs_dir=str(tmp_path / "runs"),
        checkpoint_dir=str(tmp_path / "checkpoints"),
        schedules=MOVING | {"simulator.noise_bp": {"linear": [3, 6]}},
        randomise={"fills.fee_bps": [0, 1], "simulator.mispricing_sd_bp": [10, 20]},
    )
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        run = loop.train(settings, say=lambda text: None)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert by_update[1] > 0
    assert by_update[8] == by_update[4]
    rows = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()]
    shares = np.arange(8) / 7
    np.testing.assert_allclose([row["train/ent_coef"] for row in rows], 0.03 * (1 - shares), 1e-6)
    np.testing.assert_allclose(
        [row["schedule/fills.bid_ask_spread_bps"] for row in rows],
        3 - 3 * np.cos(np.pi * shares),
        atol=1e-12,
    )


# --- in the simulated market -----------------------------------------------------------------


KEY = jax.random.key(3)
CLOSE = Row._fields.index("close")


def assert_same_market(found, expected):
    """Up to the rounding of a number that is an argument, not a constant, of the program."""
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


def log_returns(rows, settings):
    by_path = np.asarray(rows)[:, CLOSE].reshape(settings.simulator.paths, -1)
    return np.diff(np.log(by_path), axis=1)


def test_a_generation_has_the_market_of_its_progress_and_evaluation_the_last():
    course = {"piecewise": [[0, 2], [2 / 3, 30]]}
    settings = settings_with(schedules={"simulator.noise_bp": course})
    moving, end = SimulatedFeed(settings), SimulatedFeed(settings_with(noise_bp=30))
    # 4 updates, a generation every 2: the second comes with the third update, at 2/3
    for g in (1, 9):
        assert_same_market(moving.generation(KEY, g), end.generation(KEY, g))
    first, last = moving.generation(KEY, 0), end.generation(KEY, 0)
    assert log_returns(first, settings).std() < 0.5 * log_returns(last, settings).std()
    np.testing.assert_array_equal(moving.fresh(KEY).rows, last)


def test_every_path_of_training_draws_its_own_numbers():
    """Path p is what it would be in a market where all had its number."""
    drawn = {"simulator.noise_bp": [1, 9]}
    settings = settings_with(randomise=drawn)
    moving = SimulatedFeed(settings_with(schedules={"simulator.noise_bp": {"linear": [3, 4]}}))
    rows = SimulatedFeed(settings).generation(KEY, 0)
    paths = jnp.arange(settings.simulator.paths)
    numbers = jax.vmap(lambda p: feed._drawn(settings, jax.random.fold_in(KEY, 0), p))(paths)
    noise = np.asarray(numbers["noise_bp"])
    assert len(set(noise)) == len(noise) and (noise >= 1).all() and (noise < 9).all()
    for path, value in enumerate(noise[:2]):
        all_alike = feed._generation(
            moving, KEY, jnp.int32(0), jnp.int32(0), {"noise_bp": jnp.float32(value)}
        )
        own = slice(path * moving.path_bars, (path + 1) * moving.path_bars)
        assert_same_market(rows[own], all_alike[own])


@pytest.mark.parametrize(
    "name",
    [f.name for f in dataclasses.fields(config.Simulator) if f.type == "float"],
)
def test_every_number_of_the_simulator_may_move_but_the_first_price(name):
    value = getattr(config.load({"preset": "default"}).simulator, name)
    moving = {f"simulator.{name}": {"linear": [value, value]}}
    values = {"preset": "default", "symbols_per_market": 2, "schedules": moving}
    if name == "start_price":
        with pytest.raises(InputError, match="cannot move"):
            settings_with(**values)
        return
    shape = jax.eval_shape(lambda: SimulatedFeed(settings_with(**values)).generation(KEY, 0))
    assert shape.dtype == np.float32
