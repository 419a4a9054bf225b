"""What the original got wrong, where no other test holds it; and what docs/environment.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.config import Account, Fills
from jules_jax.env import fills
from jules_jax.env.metrics import step_metrics
from jules_jax.env.params import cast_section
from tests.env.episodes import ALL_IN, BUY, FREE, SELL, market, play, play_lanes, script

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "jules_jax").rglob("*.py"))
DOCUMENT = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
DEFECTS = DOCUMENT.split("## What the original did")[1].split("\n## ")[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# what is paid


@pytest.mark.parametrize("direction", [BUY, SELL])
def test_hold_keeps_a_position_long_or_short(direction):
    closes = 100 + np.cumsum(np.r_[0, np.random.default_rng(1).normal(0, 0.05, 60)])
    record = play(market(closes), script(60, {0: direction}))
    assert record.position[0] == record.quantity[0] == (125 if direction == BUY else -125)
    assert np.all(record.position == record.position[0]) and not record.quantity[1:].any()


def test_a_random_policy_is_paid_less_than_nothing():
    rng = np.random.default_rng(2)
    moves = 5e-4 * rng.standard_t(8, (64, 257))
    rows = np.stack([market(100 * np.cumprod(1 + move)) for move in moves])
    record, _ = play_lanes(rows, rng.integers(0, 3, (64, 256)))
    rewards = record.reward.sum(axis=1, dtype=np.float64)
    assert rewards.mean() < -3 * rewards.std(ddof=1) / np.sqrt(len(rewards))


def test_two_percent_of_equity_in_a_large_cap_cost_a_few_basis_points():
    """Ten shares of two million a day: the original charged 95 bp a side, some 210 a round trip."""
    record = play(
        market(np.full(31, 100.0)), script(30, {0: BUY, 20: SELL}),
        account=Account(position_size_pct=0.0201),
    )  # fmt: skip
    assert record.quantity[0] == 10 and record.position[-1] == 0
    impact = record.cost_temporary + record.cost_transient + record.cost_permanent
    in_bp = 1e4 / (10 * 100.0)
    assert 0.1 < in_bp * impact.sum() < 2
    assert 5 < -in_bp * record.net_pnl.sum() < 8  # a quoted spread of 5 bp, fees of 0.9 and impact


def test_a_drawdown_is_counted_in_the_metrics():
    equity = np.r_[1, 1, np.linspace(1, 0.955, 30), np.full(20, 0.955)]
    record = play(market(100 * equity), script(51, {0: BUY}), account=ALL_IN, fills=FREE)
    metrics = {name: float(np.sum(value)) for name, value in step_metrics(record).items()}
    beyond = np.count_nonzero((record.drawdown > 0.03) & (record.position != 0))
    assert metrics["risk/soft_breach_steps"] == beyond > 3
    assert metrics["risk/hard_breaches"] == metrics["risk/purgatory_entries"] == 1
    assert metrics["reward/drawdown"] < 0


# what the program is made of


def test_every_parameter_is_read_somewhere():
    read = {
        node.attr
        for path in PACKAGE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    unread = [key for key in config.PARAMETERS if key.rpartition(".")[2] not in read]
    assert unread == []


def test_nothing_draws_from_a_global_generator():
    for path in PACKAGE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                assert "random" not in [name.name for name in node.names], path
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random":
                assert node.attr in ("default_rng", "Generator", "SeedSequence"), path


# what docs/environment.md says


def test_every_defect_has_a_row_and_every_test_named_there_exists():
    rows = [line for line in DEFECTS.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, 23))
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            body = tree(ROOT / "tests" / file).body
            assert test in [getattr(node, "name", "") for node in body], f"{file}::{test}"


def test_the_cost_table_is_what_fills_cost():
    """Basis points of the traded value, from a rested book, at a daily sd of 120 bp."""
    shares, price, slots = 2e6, 100.0, 390
    cells = re.findall(r"^\| ([\d.]+) % \|(.*)\|$", DOCUMENT, re.MULTILINE)
    assert len(cells) == 6
    deep = fills.Liquidity(*np.float32([2.5e-4, 0.012 / slots**0.5, 0.012, shares / slots, shares]))
    section = cast_section(Fills())
    scale = fills.structural_lambda(section) * 0.012 * price / shares
    cost = jax.jit(fills.trade_costs)
    for size, row in cells:
        quantity = float(size) / 100 * shares
        parts = cost(quantity, 0.0, price, deep, fills.empty_book(), scale, section)
        found = [1e4 * float(part) / (quantity * price) for part in parts]
        spread, *impact, fees = found
        expected = [*impact, sum(impact), spread + fees + sum(impact)]
        told = [float(cell) for cell in row.split("|")[1:]]
        np.testing.assert_allclose(told, expected, atol=0.006, err_msg=size)
