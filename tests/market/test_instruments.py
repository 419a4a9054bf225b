"""Instruments: the file of symbols, and what is read off prices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.instruments import OPENING, Instrument, read, resolve, unit_of, unused
from jules_jax.market.readers.raw import Convention, RawBars

EQUITY = Convention("ohlcv")
BINANCE = Convention("binance", timezone="UTC", calendar="24/7", exact_prices=True)


def raw_of(close: np.ndarray, volume: np.ndarray | None, convention: Convention) -> RawBars:
    count = close.size
    return RawBars(
        symbol="ABC",
        files=("ABC.csv",),
        file=np.zeros(count, np.int32),
        line=np.arange(2, count + 2),
        time=np.arange(count) * 60 * 10**9,
        open=close,
        high=close,
        low=close,
        close=close,
        volume=volume,
        signed_volume=None,
        half_spread=None,
        convention=convention,
    )


def texts(rng: np.random.Generator, center: float, decimals: int, unit: int = 1) -> np.ndarray:
    """Prices as files have them: decimal texts of multiples of `unit` of the last decimal."""
    whole = rng.integers(int(center * 10**decimals) // unit, size=500) // 20 + 1
    return np.array([float(f"{number * unit}e-{decimals}") for number in whole])


def test_a_file_of_symbols_is_read_with_every_key(tmp_path: Path):
    path = tmp_path / "symbols.yaml"
    path.write_text(
        "BTCUSDT: {tick: 0.1, quantity_step: 1e-3, spread_bps: 0.2, calendar: 24/7}\n"
        "ON:\n  adv: 5e6\n  weight: 2\n  calendar: auto\n"
    )
    assert read(path) == {
        "BTCUSDT": Instrument(tick=0.1, quantity_step=0.001, spread_bps=0.2, calendar="24/7"),
        "ON": Instrument(adv=5e6, weight=2.0),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("SPY: {tik: 1}", r"unknown key 'tik' in .*s\.yaml line 1, the nearest valid key is tick"),
        ("A: {tick: 1}\nSPY:\n  adv: none", r"adv of SPY in .* line 3 is 'none', .* above 0"),
        ("SPY: {weight: 0}", r"weight of SPY .* is '0', expected a number above 0"),
        ("SPY: {tick: nan}", r"tick of SPY .* is 'nan', expected a number above 0"),
        ("SPY: {tick: [1, 2]}", r"tick of SPY .* is 'a list', expected a number"),
        ("SPY: {calendar: }", r"calendar of SPY .* line 1 is empty"),
        ("SPY: {tick: 1}\nSPY: {tick: 2}", r"SPY is set twice, .* line 1 and .* line 2"),
        ("SPY: {tick: 1, tick: 2}", r"tick is set twice"),
        ("SPY: 0.01", r"line 1 has no settings of SPY"),
        ("- SPY", r"line 1 has no symbols"),
        ("", r"s\.yaml is empty"),
        ("SPY: {tick", r"s\.yaml line \d is not valid YAML"),
    ],
)
def test_a_file_of_symbols_that_is_wrong_is_refused_with_its_line(
    tmp_path: Path, text: str, sentence: str
):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read(path)


def test_a_missing_file_of_symbols_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.yaml: no such file; --symbols takes"):
        read(tmp_path / "none.yaml")


def test_what_is_given_for_a_symbol_comes_before_settings_and_those_before_the_source():
    raw = raw_of(np.array([100.0, 101.5]), np.array([1.0, 2.0]), EQUITY)
    market = config.Market(tick=0.5, quantity_step=10.0, adv=7.0, calendar="XLON")
    given_ = {"ABC": Instrument(0.25, 5.0, 1.5, 9.0, "XTKS", 3.0)}
    assert resolve("ABC", raw, market, given_) == given_["ABC"]
    configured = Instrument(0.5, 10.0, 0.0, 7.0, "XLON", 1.0)
    assert resolve("ABC", raw, market, {"XYZ": given_["ABC"]}) == configured
    own = Instrument(0.01, 1.0, 0.0, 0.0, "XNYS", 1.0)
    assert resolve("ABC", raw, config.Market(), {}) == own


def test_equities_tick_in_cents_from_a_dollar_on_whatever_decimals_their_prices_have():
    for close, tick in ((1.0, 0.01), (0.9999, 0.0001), (431.12345, 0.01)):
        raw = raw_of(np.array([close] * 3), np.array([1.5, 2.0, 3.0]), EQUITY)
        found = resolve("ABC", raw, config.Market(), {})
        assert (found.tick, found.quantity_step, found.calendar) == (tick, 1.0, "XNYS")


@pytest.mark.parametrize(
    ("center", "decimals", "unit", "tick"),
    [
        (95_000, 1, 1, 0.1),
        (95_000, 1, 5, 0.5),
        (1e-3, 7, 1, 1e-7),
        (4_500, 2, 25, 0.25),
        (30, 0, 1, 1.0),
    ],
)
def test_exact_prices_tell_tick_and_quantity_step(
    center: float, decimals: int, unit: int, tick: float
):
    rng = np.random.default_rng(1)
    prices, volumes = texts(rng, center, decimals, unit), texts(rng, 3_000, 3)
    found = resolve("ABC", raw_of(prices, volumes, BINANCE), config.Market(), {})
    assert (found.tick, found.quantity_step, found.calendar) == (tick, 0.001, "24/7")


def test_trades_between_two_cents_do_not_make_an_equity_tick_finer():
    lean = Convention("lean", exact_prices=True)
    prices = np.array([168.25, 168.2551, 168.26])
    assert resolve("SPY", raw_of(prices, None, lean), config.Market(), {}).tick == 0.01
    index_future = np.arange(4_000, 4_200, 0.25)  # 800 prices: no finer tick, though in dollars
    assert resolve("ES", raw_of(index_future, None, lean), config.Market(), {}).tick == 0.25


def test_foreign_exchange_does_not_tick_in_cents():
    prices = np.array([1.05522, 1.05529, 1.0553])
    fx = Convention("histdata", calendar="24/5")
    found = resolve("EURUSD", raw_of(prices, np.zeros(3), fx), config.Market(), {})
    assert (found.tick, found.quantity_step) == (1e-5, 1.0)
    # The same file of bars under another calendar than a US equity's.
    market = replace(config.Market(), calendar="CMES")
    assert resolve("6E", raw_of(prices, None, EQUITY), market, {}).tick == 1e-5


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 10**7), min_size=1, max_size=30),
    st.integers(0, 8),
    st.sampled_from([0.0, 1e-16, -2e-16, 4e-16]),
)
def test_the_unit_is_the_last_decimal_in_use_despite_rounding(
    numbers: list[int], decimals: int, error: float
):
    values = np.array([float(f"{number}e-{decimals}") for number in numbers]) * (1 + error)
    used = [
        f"{number:0{decimals + 1}d}"[-decimals:].rstrip("0") if decimals else ""
        for number in numbers
    ]
    assert unit_of(values) == float(f"1e-{max(map(len, used))}")


def test_volumes_in_round_lots_do_not_make_a_step_and_nothing_traded_makes_none():
    assert unit_of(np.full(1000, 300.0)) == 1.0
    assert unit_of(np.zeros(5)) == 0.0


def test_values_without_an_end_of_decimals_have_a_small_unit():
    assert 0 < unit_of(np.array([1 / 3, 2 / 7])) <= 1e-9
    assert 0 < unit_of(np.array([1e6 / 3])) <= 1e-7


def test_terms_are_read_off_the_first_bars_alone():
    """A history that begins at 40 cents and ends at $5 trades in its first tick throughout."""
    early, late = np.full(OPENING, 0.41), np.full(4 * OPENING, 5.25)
    prices = np.concatenate([early, late])
    ascending = raw_of(prices, None, EQUITY)
    newest_first = ascending.select(slice(None, None, -1))
    for raw in (ascending, newest_first, ascending.select(slice(0, OPENING))):
        assert resolve("ABC", raw, config.Market(), {}).tick == 0.0001
    exact = raw_of(np.concatenate([early, late + 0.0001]), None, BINANCE)
    assert resolve("ABC", exact, config.Market(), {}).tick == 0.01


def test_a_symbol_of_the_file_that_nothing_has_is_told():
    given_ = {"SPY": Instrument(), "SPYY": Instrument(), "ZZ": Instrument()}
    assert unused("symbols.yaml", given_, ["SPY", "QQQ"]) == [
        "symbols.yaml: SPYY is not among the symbols read, did you mean SPY?",
        "symbols.yaml: ZZ is not among the symbols read",
    ]
