"""Rows of recorded symbols: exact quantities at any price, one program for many lengths."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import features, feed, rows, table
from tests.market.recorded import make_source

SETTINGS = config.Config(max_steps_in_episode=20)
CLOSES = table.Row._fields.index("session_close")


@pytest.mark.parametrize(
    ("price", "unit", "expected"),
    [
        (100.0, 1.0, 1.0),  # 950 shares
        (0.5, 1e-4, 0.1),  # 190,000 coins are 1.9e9 steps of 1e-4, and 1.9e6 of 0.1
        (30_000.0, 1e-4, 1e-4),  # 3.2 coins
        (1e-3, 1.0, 100.0),  # 95 million shares
    ],
)
def test_the_quantity_step_grows_until_a_full_position_is_exact(
    price: float, unit: float, expected: float
) -> None:
    found = rows.exact_step(SETTINGS.account, unit, price)
    assert found == pytest.approx(expected)
    assert 2 * 0.95 * 50_000 / price / found < 2**23


def test_terms_are_the_instruments_then_the_configurations_then_an_equitys() -> None:
    bars = make_source().bars
    set_by_hand = replace(SETTINGS, market=config.Market(tick=0.5, quantity_step=10.0))
    own = make_source(tick=0.25, quantity_step=2.0).instrument
    unknown = make_source(tick=0.0, quantity_step=0.0).instrument
    assert rows.terms(bars, own, set_by_hand) == (0.25, 2.0, 2.0)
    assert rows.terms(bars, unknown, set_by_hand) == (0.5, 10.0, 10.0)
    assert rows.terms(bars, None, SETTINGS) == (0.01, 1.0, 1.0)


def test_padding_changes_no_bit_of_the_rows_before_it() -> None:
    one = make_source(sessions=3, slots=97)
    terms = rows.terms(one.bars, one.instrument, SETTINGS)
    windows = SETTINGS.features

    @jax.jit
    def unpadded(bars):
        computed = features.compute(bars, windows, terms.unit)
        return table.build_rows(bars, computed, tick=terms.tick, quantity_step=1.0)

    found = rows.compute(one.bars, terms, windows)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, unpadded(one.bars))
    assert found[-1, CLOSES] == 1


def test_lengths_are_few_and_waste_little() -> None:
    counts = np.arange(1, 5_000)
    lengths = np.asarray([rows.padded_length(int(count)) for count in counts])
    assert np.all(lengths >= counts)
    assert np.all(lengths[64:] <= 1.25 * counts[64:])
    assert len(set(lengths.tolist())) < 4 * np.log2(5_000)


def test_bars_of_two_lengths_are_refused() -> None:
    five = make_source(bar_seconds=300)
    with pytest.raises(InputError, match="expected one length"):
        feed.from_bars([(make_source().bars, (60, 80)), (five.bars, (60, 80))], SETTINGS)


def test_terms_do_not_know_how_far_prices_will_fall() -> None:
    one = make_source(tick=0.01, quantity_step=1e-4)
    fallen = one.bars.low.copy()
    fallen[-1] = one.bars.open[0] / 200
    later = replace(one.bars, low=fallen)
    assert rows.terms(later, one.instrument, SETTINGS) == rows.terms(
        one.bars, one.instrument, SETTINGS
    )
