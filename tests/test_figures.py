"""Figures of a run: what their lines and marks stand for."""

import dataclasses

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network
from jules_jax.env.record import StepRecord
from jules_jax.training import figures, market
from tests.tiny import SETTINGS

EPISODES, STEPS = 5, 6


@pytest.fixture
def record():
    """Five episodes of six steps; episode i earns i dollars a step, the last one ends after two."""
    zeros = np.zeros((EPISODES, STEPS))
    fields = {field.name: zeros.copy() for field in dataclasses.fields(StepRecord)}
    fields["forced"] = zeros.astype(bool)
    fields["time"] += np.arange(1, STEPS + 1)
    fields["net_pnl"] += np.arange(EPISODES)[:, None]
    fields["equity"] = 1.0 + fields["net_pnl"].cumsum(axis=1) / 50_000
    fields["mark_price"] += 100.0 + np.arange(STEPS)
    fields["reference_price"] = fields["mark_price"] - 0.5
    fields["quantity_step"] += 1.0
    for name in ("time", "net_pnl", "equity"):  # what follows a termination is zero
        fields[name][4, 2:] = 0.0
    return StepRecord(**fields)


def test_the_fan_s_median_is_the_median_of_the_episodes_still_running(record):
    (panel,) = figures.equity_fan(record, "title").axes
    median = next(line for line in panel.lines if line.get_label() == "median")
    dollars = np.array([2, 4, 4.5, 6, 7.5, 9])  # of five episodes, then of four
    np.testing.assert_allclose(median.get_ydata(), 100 * dollars / 50_000)
    assert len(panel.lines) == EPISODES + 2, "each episode, the median, and zero"


def test_the_episode_shown_is_the_one_of_median_pnl_with_its_fills_on_the_open(record):
    record.net_pnl[4, :2] = 50.0
    record.quantity[2] = [3, 0, 0, -3, 2, -2]
    record.forced[2] = [0, 0, 0, 0, 0, 1]
    figure = figures.one_episode(record, "after update 9")
    price = figure.axes[0]
    assert "12 dollars net" in price.get_title()
    marks = {each.get_label(): each.get_offsets().tolist() for each in price.collections}
    assert marks["buy"] == [[1, 99.5], [5, 103.5]]
    assert marks["sell"] == [[4, 102.5]]
    assert marks["forced"] == [[6, 105.0]]


def test_an_episode_that_ended_early_is_drawn_to_its_end(record):
    record.net_pnl[:4] = 0.0
    record.net_pnl[4, :2] = -1.0
    only = dataclasses.replace(
        record, **{f.name: getattr(record, f.name)[4:] for f in dataclasses.fields(record)}
    )
    equity = figures.one_episode(only, "x").axes[2]
    assert equity.lines[0].get_ydata().tolist() == [-1.0, -2.0]


def test_figures_after_the_first_compile_nothing(quick_compilation):
    settings = config.load({**SETTINGS, "figure_episodes": 4})
    data = market.Market(settings).data
    weights = network.init(jax.random.key(0), settings.network)
    compiled: list[str] = []

    def note(event: str, duration: float, **rest: object) -> None:
        compiled.extend([event] if event == "/jax/core/compile/backend_compile_duration" else [])

    figures.play(weights, settings, data, update=1, progress=0.0)
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        figures.play(weights, settings, data, update=2, progress=0.5)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert not compiled


@pytest.mark.parametrize(
    ("every", "due"), [(0, []), (3, [3, 6, 7]), (100, [7])], ids=["never", "at times", "at the end"]
)
def test_figures_are_due_every_so_many_updates_and_after_the_last(every, due):
    seven = config.load({"figures_every": every, "num_envs": 8, "total_timesteps": 7 * 8 * 128})
    assert [update for update in range(1, 8) if figures.is_due(update, seven)] == due
