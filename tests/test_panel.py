"""The panel of a run on a terminal: what it says, and when a light is green."""

import io
import re

import pytest
from rich.console import Console

from jules_jax.config import Gates
from jules_jax.training.panel import LivePanel, Progress, lights, sparkline

GOOD = {
    "rollout/ep_rew_mean": 4.75,
    "rollout/ep_len_mean": 1000.0,
    "train/entropy_loss": -0.57,
    "train/explained_variance": 0.19,
    "reward/penalised_steps": 26.0,
    "risk/hard_breaches": 0.0,
    "risk/early_warnings": 0.0,
    "risk/escapes": 0.0,
    "pnl/net": 71.25,
}
HALFWAY = Progress(update=20, updates=40, steps=1_000_000, fps=10_000.0, elapsed=95.0)


def shown(progress, scalars, width=100):
    """What a terminal of `width` columns shows at the end."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with LivePanel("smoke", Gates(), console) as panel:
        panel.show(progress, scalars)
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", console.file.getvalue())


def test_the_panel_says_how_far_the_run_is_and_how_long_it_will_take():
    text = shown(HALFWAY, GOOD)
    for words in ("smoke", "update 20 of 40", "1,000,000 steps", "1:35 gone, 1:40 to go"):
        assert words in text
    for words in ("4.75", "71.25", "entropy 0.57", "penalised steps 2.6%"):
        assert words in text


def test_before_the_first_episode_has_ended_dashes_stand_for_what_is_not_known():
    text = shown(HALFWAY, {"train/entropy_loss": -1.09, "train/explained_variance": 0.0})
    assert "hard limit –" in text
    assert "entropy 1.09" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_panel_fits_its_terminal(width):
    assert max(map(len, shown(HALFWAY, GOOD, width).splitlines())) <= width


def test_on_a_terminal_of_80_columns_no_words_are_torn_apart():
    text = shown(HALFWAY, GOOD, 80)
    for words in ("net P&L, $", "approx. KL", "explained variance 0.19", "1:35 gone, 1:40 to go"):
        assert words in text


def test_all_lights_of_a_good_run_are_green():
    assert all(light.passes for light in lights(GOOD, Gates()))
    assert len(lights(GOOD, Gates())) == 6


@pytest.mark.parametrize(("reward", "passes"), [(3.9, False), (4.75, True), (6.1, False)])
def test_a_band_has_its_light_where_it_is_asked_for(reward, passes):
    found = lights(GOOD | {"rollout/ep_rew_mean": reward}, Gates(reward_min=4, reward_max=6))
    assert (found[0].gate, found[0].passes) == ("reward band", passes)


@pytest.mark.parametrize(
    ("gate", "scalar", "value"),
    [
        ("hard limit", "risk/hard_breaches", 0.001),
        ("entropy", "train/entropy_loss", -0.39),
        ("explained variance", "train/explained_variance", 0.09),
        ("penalised steps", "reward/penalised_steps", 201.0),
        ("early warnings", "risk/early_warnings", 0.02),
        ("escapes", "risk/escapes", 0.2),
    ],
)
def test_a_light_goes_out_where_its_gate_would_fail_and_no_other_does(gate, scalar, value):
    assert [
        light.gate for light in lights(GOOD | {scalar: value}, Gates()) if not light.passes
    ] == [gate]


def test_what_is_not_known_or_not_finite_has_no_verdict():
    assert all(light.passes is None for light in lights({}, Gates()))
    nan = lights(GOOD | {"train/explained_variance": float("nan")}, Gates())
    assert [light.gate for light in nan if light.passes is None] == ["explained variance"]


def test_a_sparkline_rises_with_its_values_and_is_never_wider_than_asked():
    assert sparkline([]) == ""
    assert sparkline([float("nan")]) == ""
    assert sparkline(range(8), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(range(8000), 8) == "▁▂▃▄▅▆▇█"
    assert len(set(sparkline([3.0] * 5))) == 1
