"""Rows of the table, against a plain loop over bars."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.market import features, table
from jules_jax.market.bars import Bars

# Three sessions: a full one, one with a missing and a halted minute, one that ends early.
SESSION = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2], np.int32)
MINUTE = np.array([0, 1, 2, 3, 0, 2, 3, 0, 1], np.int32)
LENGTH = np.array([4, 4, 4, 4, 4, 4, 4, 2, 2], np.int32)


def make_bars() -> Bars:
    rng = np.random.default_rng(0)
    close = np.float32(100 + rng.normal(size=9))
    opening = np.float32(close + 0.1 * rng.normal(size=9))
    return Bars(
        open=opening,
        high=np.maximum(opening, close) + np.float32(0.1),
        low=np.minimum(opening, close) - np.float32(0.1),
        close=close,
        volume=np.float32(rng.integers(100, 1000, 9)),
        session=SESSION,
        bar_of_session=MINUTE,
        minute=MINUTE,
        session_length=LENGTH,
        valid=np.arange(9) != 5,
        bars_per_session=4,
    )


@jax.jit
def build(bars: Bars) -> tuple[jax.Array, features.FeatureRow]:
    computed = features.compute(bars, config.Features())
    return table.build_rows(bars, computed, tick=0.01, quantity_step=10.0), computed


@pytest.mark.parametrize("continuous", [False, True])
def test_rows_equal_a_plain_loop(continuous: bool) -> None:
    bars = replace(make_bars(), continuous=continuous)
    rows, computed = build(bars)
    assert rows.shape == (9, table.NUM_COLUMNS) and rows.dtype == jnp.float32
    for t in range(9):
        row = table.read_row(rows, jnp.int32(t))
        first = t == 0 or SESSION[t] != SESSION[t - 1]
        last = t == 8 or SESSION[t] != SESSION[t + 1]
        expected = {
            "open": bars.open[t],
            "close": bars.close[t],
            "previous_close": bars.close[t - 1] if t else bars.open[0],
            "volume": 0.0 if t == 5 else bars.volume[t],
            "half_spread": 0.0,
            "minute": MINUTE[t],
            "minutes_left": table.NEVER_CLOSES if continuous else LENGTH[t] - MINUTE[t],
            "session_open": float(first and not continuous),
            "session_close": float(last and not continuous),
            "tick": np.float32(0.01),
            "quantity_step": 10.0,
            "bars_per_session": 4.0,
        }
        from_features = {
            name: np.asarray(getattr(computed, name))[t] for name in features.FeatureRow._fields
        }
        for name, value in (expected | from_features).items():
            np.testing.assert_array_equal(getattr(row, name), np.float32(value), err_msg=name)
        assert set(expected | from_features) == set(table.Row._fields)


def test_the_spread_of_the_source_is_kept() -> None:
    spread = np.linspace(1e-4, 5e-4, 9, dtype=np.float32)
    rows, _ = build(replace(make_bars(), half_spread=spread))
    np.testing.assert_array_equal(table.read_row(rows, jnp.arange(9)).half_spread, spread)


def test_a_batch_of_indices_reads_a_batch_of_rows() -> None:
    rows, _ = build(make_bars())
    index = jnp.array([[0, 8], [3, 3]])
    batch = table.read_row(rows, index)
    assert batch.close.shape == (2, 2) and batch.market.shape == (2, 2, 8)
    np.testing.assert_array_equal(batch.market[1, 0], table.read_row(rows, jnp.int32(3)).market)
