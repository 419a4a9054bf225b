"""Numbers read as people write them, and the arithmetic behind tables and figures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jules_jax.evaluation.report import (
    decisions,
    drawing,
    figures,
    schema,
    sentences,
    tables,
    wording,
)
from tests.evaluation.report import made


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "dollars", "–"),
        (math.nan, "", "–"),
        (-1234.5, "dollars", "−$1,234"),
        (12.345, "dollars", "$12.35"),
        (-0.001, "dollars", "$0.00"),
        (-3.2e9, "dollars", "−$3.20B"),
        (1e30, "dollars", "$1e+30"),
        (0.0123, "share", "1.23\u202f%"),
        (-0.125, "share", "−12.5\u202f%"),
        (0.99999, "probability", "> 99.9\u202f%"),
        (0.0, "probability", "< 0.1\u202f%"),
        (0.885, "probability", "88.5\u202f%"),
        (3.9, "bp", "3.90\u202fbp"),
        (0.64, "years", "0.64\u202fyears"),
        (1703.2, "years", "1,703\u202fyears"),
        (7.0, "sessions", "7"),
    ],
)
def test_a_number_reads_as_it_is_written(value: float | None, unit: str, text: str) -> None:
    assert wording.show(value, unit) == text


def test_an_interval_tells_its_ends_else_its_error_else_nothing() -> None:
    ends = {"value": 0.02, "low": -0.01, "high": 0.05, "error": 0.015}
    assert wording.interval(ends, "share") == "−1.00 to 5.00\u202f%"
    assert wording.interval(ends | {"low": None}, "share") == "± 1.50\u202f%"
    assert wording.interval(ends | {"low": None, "error": None}, "share") == ""


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["", "dollars", "share"]))
def test_any_number_has_a_short_text_with_the_right_sign(value: float, unit: str) -> None:
    text = wording.show(value, unit)
    assert 0 < len(text) < 24
    assert value < 0 or wording.MINUS not in text


@given(
    st.floats(-1e7, 1e7),
    st.floats(0, 1e6),
    st.lists(st.floats(0, 50), min_size=6, max_size=6),
)
def test_the_waterfall_leads_from_gross_to_net(gross: float, paid: float, points: list[float]):
    metrics = {name: {"value": None} for name in schema.METRICS}
    metrics["gross_pnl"], metrics["net_pnl"] = {"value": gross}, {"value": gross - paid}
    for name, point in zip(schema.COSTS, points, strict=True):
        metrics[f"cost_{name}_bp"] = {"value": point}
    steps = figures.waterfall_steps(metrics)
    floating = [step for step in steps if not step.total]
    assert steps[0].change == gross and steps[-1].change == gross - paid
    assert gross + sum(step.change for step in floating) == pytest.approx(gross - paid, abs=1e-3)
    level = gross
    for step in floating:
        assert step.start == pytest.approx(level, abs=1e-3)
        level += step.change


def test_the_waterfall_of_hand_worked_costs() -> None:
    metrics = schema.plain(made.metrics(212.0, 41.0))
    steps = {step.name: step.change for step in figures.waterfall_steps(metrics)}
    assert steps["gross"] == 392.0 and steps["net"] == 212.0
    assert steps["spread"] == pytest.approx(-180.0 * 0.62)
    assert steps["if closed at the end"] == pytest.approx(210.8)


def test_a_raster_is_of_means_over_the_bars_that_there_were() -> None:
    report = schema.plain(made.full())
    minutes = np.arange(156)
    row = [1.0, -1.0] * 39 + [1.0, None] * 39
    report["policies"]["trained, greedy"]["raster"] = {
        "labels": ["a"],
        "minute": minutes.tolist(),
        "request": [row],
    }
    found = decisions.raster_rows(report)
    assert found is not None
    labels, starts, means = found
    assert labels == ["a"] and starts.tolist() == list(range(0, 156, 2))
    assert means[0].tolist() == [0.0] * 39 + [1.0] * 39


def test_a_raster_without_one_of_its_own_is_of_the_sessions_shown() -> None:
    report = schema.plain(made.full())
    report["policies"]["trained, greedy"]["raster"] = None
    found = decisions.raster_rows(report)
    assert found is not None
    assert [label.split(",")[0] for label in found[0]] == [
        "SPY 2026-01-05",
        "SPY 2026-01-06",
        "SPY 2026-01-07",
    ]


def test_every_policy_has_a_look_of_its_own_and_the_trained_ones_lead() -> None:
    found = drawing.roles(made.full()["policies"])
    assert found["trained, greedy"][0] == "greedy" and found["trained, sampled"][0] == "sampled"
    assert found["flat"][0] == "muted" and found["oracle"][0] == "oracle"
    assert len({str(look) for look in found.values()}) == len(found)


def luminance(colour: str) -> float:
    """Relative, by the Web Content Accessibility Guidelines 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [drawing.LIGHT, drawing.DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(palette: dict[str, str]) -> None:
    def contrast(role: str) -> float:
        pair = sorted((luminance(palette[role]), luminance(palette["paper"])))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    text = {"ink", "muted", "gain", "loss", "greedy"}  # words have these colours
    for role in palette.keys() - {"paper", "grid"}:
        assert contrast(role) >= (4.5 if role in text else 3.0), role
    assert set(palette) == set(drawing.LIGHT)
    assert len(set(palette.values())) == len(palette)


def test_a_table_tells_the_policy_only_where_rows_differ_in_it() -> None:
    report = schema.plain(made.full())
    one = tables.capacity(report)
    assert one is not None and "Policy" not in [name for name, _ in one.columns]
    report["capacity"][0]["policy"] = "flat"
    two = tables.capacity(report)
    assert two is not None and two.columns[0][0] == "Policy" and two.rows[0].cells[0].text == "flat"


def test_a_replay_that_disagrees_says_that_nothing_else_can_be_believed() -> None:
    report = schema.plain(made.negative())
    assert "disagreed on 3 episodes" in sentences.replay(report)
    assert "cannot be believed" in sentences.replay(report)
