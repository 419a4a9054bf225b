"""The grid of benchmarks/market_edge.py on the null market in short form, and its arithmetic."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.evaluation import reference_policies
from jules_jax.market import table

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "market_edge.py"
SHORT = {
    "simulator.bars_per_session": 60,
    "simulator.sessions": 5,
    "simulator.warmup_sessions": 1,
    "max_steps_in_episode": 60,
    "ppo.n_steps": 60,
    "safeguards.trade_cooldown_steps": 2,
}
PATHS = 24

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("market_edge", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def easy(script):
    settings = script.daily(config.load({**SHORT, "simulator.preset": "easy"}))
    return settings, script.simulate_days(settings, jax.random.key(3), PATHS)


@pytest.fixture(scope="module")
def grid_on_easy(script, easy):
    return script.play(script.RULE, easy[1], reference_policies.grid())


def test_a_grid_of_rules_nets_below_zero_on_the_null_market(script):
    settings = script.daily(config.load({**SHORT, "simulator.preset": "null"}))
    nets = script.null_grid(settings, PATHS, reference_policies.grid())
    assert len(nets) == 151
    assert script.earning(nets) == []
    busy = [net for net in nets if net.orders > 4]
    assert len(busy) > 10
    assert all(net.mean < 0 for net in busy)


@pytest.mark.long
def test_the_same_grid_has_a_rule_that_earns_on_easy(grid_on_easy):
    earned = {name: played["pnl/net"].mean() for name, played in grid_on_easy.items()}
    assert max(earned.values()) > 0


@pytest.mark.long
def test_told_the_drift_the_oracle_earns_more_than_any_rule(script, easy, grid_on_easy):
    _, days = easy
    name = "oracle 0.5 0"
    played = script.play(script.ORACLE, days, {name: script.oracles(days)[name]})[name]
    best = max(played["pnl/net"].mean() for played in grid_on_easy.values())
    assert played["pnl/net"].mean() > best


@pytest.mark.long
def test_the_rule_reported_is_the_best_of_the_days_it_is_picked_on(script, easy, grid_on_easy):
    _, days = easy
    found = script.best(script.RULE, days, days, lambda _: reference_policies.grid())
    nets = [played["pnl/net"] for played in grid_on_easy.values()]
    ratios = [net.mean() / net.std() for net in nets if net.any()]
    assert found.value == pytest.approx(np.sqrt(252) * max(ratios), rel=1e-4)
    assert found.low < found.value < found.high


def test_a_day_is_every_bar_of_one_session_and_no_other(script, easy):
    settings, days = easy
    first = table.read_row(days.params.market.rows, days.starts.row + 1)
    last = table.read_row(days.params.market.rows, days.starts.row + settings.max_steps_in_episode)
    assert np.all(first.session_open == 1) and np.all(last.session_close == 1)
    assert len(set(days.starts.row.tolist())) == PATHS * 4
    assert np.bincount(days.starts.cluster).tolist() == [4] * PATHS


def test_the_truth_is_of_the_paths_traded_and_of_the_bar_that_comes_next(easy):
    """The mid of a close is the next open, and its mean move is the drift: their slope is 1."""
    settings, days = easy
    steps = np.arange(
        1, settings.max_steps_in_episode + 1
    )  # within the session, as gaps are not drift
    rows = table.read_row(days.params.market.rows, days.starts.row[:, None] + steps)
    move = 1e4 * np.diff(np.log(np.asarray(rows.open, np.float64)), axis=1)  # of bar 1 to the last
    drift = np.asarray(days.drift, np.float64)
    error = np.sqrt(np.mean(move**2) / np.sum(drift**2))

    def slope(x):
        return np.sum(x * move) / np.sum(x**2)

    # Step t is decided on the close before bar t, so drift[:, t] is of the move over bar t.
    assert slope(drift[:, :-1]) == pytest.approx(1.0, abs=4 * error)


def test_a_sharpe_ratio_is_mean_over_sd_of_days_annualised(script):
    rng = np.random.default_rng(0)
    net, cluster = rng.normal(1.0, 10.0, 4000), np.repeat(np.arange(800), 5)
    found = script.sharpe("x", {"pnl/net": net, "trade/orders": np.ones(4000)}, cluster)
    assert found.value == pytest.approx(np.sqrt(252) * net.mean() / net.std(), rel=1e-9)
    # Days are independent here: the error of an annualised Sharpe ratio is √(252/n) (Lo 2002).
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(252 / 4000), rel=0.1)


def test_days_of_one_path_count_once_in_the_interval(script):
    rng = np.random.default_rng(0)
    once = rng.normal(1.0, 10.0, 400)
    copies = {"pnl/net": np.repeat(once, 10), "trade/orders": np.ones(4000)}
    found = script.sharpe("x", copies, np.repeat(np.arange(400), 10))
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(252 / 400), rel=0.15)


def test_a_rule_beyond_its_errors_fails_the_null_market(script):
    def nets(*means, grid=-4.0):
        rules = [script.Net(f"{i}", mean, 1.0, 5.0) for i, mean in enumerate(means)]
        return [script.Net("the grid", grid, 1.0, 5.0), *rules]

    assert script.earning(nets(-1.0, 2.5)) == []  # the 99.5 % point is 2.58
    assert script.earning(nets(-1.0, 2.6)) == ["1"]
    assert script.earning(nets(-1.0, grid=-2.9)) == ["the grid"]
    assert script.earning(nets(float("nan"))) == ["0"]


@pytest.mark.long
def test_candidates_play_beside_each_other_as_they_play_alone(script, easy, grid_on_easy):
    _, days = easy
    for name, parameters in list(reference_policies.grid().items())[::57]:
        alone = script.play(script.RULE, days, {name: parameters})[name]
        np.testing.assert_allclose(grid_on_easy[name]["pnl/net"], alone["pnl/net"], atol=1e-2)
