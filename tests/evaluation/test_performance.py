import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jules_jax.evaluation import performance
from jules_jax.evaluation.performance import TrackRecord

FIGURES = [
    performance.annual_return,
    performance.volatility,
    performance.sharpe_ratio,
    performance.sortino,
    performance.max_drawdown,
    performance.calmar,
    performance.hit_rate,
    performance.profit_factor,
]
RETURNS = st.lists(st.floats(-0.05, 0.05).map(lambda x: round(x, 4)), min_size=2, max_size=40)


def days(seed=0, count=500):
    """Daily returns with fat tails and a skew."""
    rng = np.random.default_rng(seed)
    return 0.0005 + 0.01 * rng.standard_t(5, count) - 0.002 * rng.gamma(0.2, 5.0, count)


@pytest.fixture(scope="module")
def empyrical():
    return pytest.importorskip("empyrical", reason="empyrical-reloaded is not installed")


@pytest.mark.parametrize("seed", range(5))
def test_what_empyrical_does_not_compound_is_as_in_empyrical(empyrical, seed):
    returns = days(seed)
    assert performance.volatility(returns) == pytest.approx(empyrical.annual_volatility(returns))
    assert performance.sharpe_ratio(returns) == pytest.approx(empyrical.sharpe_ratio(returns))
    assert performance.sharpe(returns).value == pytest.approx(empyrical.sharpe_ratio(returns))
    assert performance.sortino(returns) == pytest.approx(empyrical.sortino_ratio(returns))


@pytest.mark.parametrize("seed", range(5))
def test_a_drawdown_that_does_not_compound_is_empyricals_of_the_equivalent_returns(empyrical, seed):
    """Growth factors of fixed-capital equity, given to a library that multiplies them."""
    returns = days(seed)
    equity = np.concatenate([[1.0], 1.0 + np.cumsum(returns)])
    compounded = equity[1:] / equity[:-1] - 1.0
    depth = -empyrical.max_drawdown(compounded)
    assert performance.max_drawdown(returns) == pytest.approx(depth)
    expected = returns.mean() * 252 / depth
    assert performance.calmar(returns) == pytest.approx(expected)
    assert performance.max_drawdown(returns) != pytest.approx(-empyrical.max_drawdown(returns))


def test_moments_are_those_of_scipy_and_kurtosis_is_the_full_one():
    returns = days()
    record = performance.track_record(returns)
    assert record.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1))
    assert record.periods == 500
    assert record.skewness == pytest.approx(stats.skew(returns))
    assert record.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False))
    assert record.kurtosis > 3


@pytest.mark.parametrize(
    ("sharpe", "periods", "expected"),
    [(0.5, 12, 0.306), (1.0, 12, 0.354), (1.5, 12, 0.421), (1.0, 60, 0.158), (3.0, 60, 0.303)],
)
def test_the_error_of_normal_returns_is_that_of_lo(sharpe, periods, expected):
    """Lo (2002), √((1 + SR²/2)/T); one period more here, where n − 1 stands for T."""
    error = performance.sharpe_error(TrackRecord(sharpe, periods + 1))
    assert error == pytest.approx(expected, abs=0.0006)


def test_the_error_is_the_spread_of_the_ratio_over_many_histories():
    """Skewed returns (gamma), whose losses are rare and large: Lo's error alone is too small."""
    rng = np.random.default_rng(0)
    histories = 1.0 - rng.gamma(0.5, 1.0, (8000, 500))
    record = performance.track_record(histories)
    spread = record.sharpe.std()
    assert np.median(performance.sharpe_error(record)) == pytest.approx(spread, rel=0.05)
    assert performance.sharpe_error(TrackRecord(record.sharpe.mean(), 500)) < 0.75 * spread


@pytest.mark.parametrize(("annual", "years"), [(0.5, 15.0), (1.0, 3.9), (2.0, 0.97), (3.0, 0.43)])
def test_years_of_daily_data_until_a_ratio_is_significant(annual, years):
    """Symmetric two-point returns have a kurtosis of 1; mixed with zeros they have 3."""
    day = np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0])  # variance 1/3, fourth moment 1/3
    returns = np.tile(day, 5000)
    returns = returns + annual / np.sqrt(252) * returns.std(ddof=1)
    found = performance.sharpe(returns)
    assert found.value == pytest.approx(annual)
    assert found.years_needed == pytest.approx(years, rel=0.03)


def test_with_the_years_it_needs_a_ratio_has_a_t_value_of_1_96():
    record = performance.track_record(days())
    found = performance.sharpe(days())
    later = record._replace(periods=found.years_needed * 252)
    assert abs(record.sharpe) / performance.sharpe_error(later) == pytest.approx(1.96)
    assert performance.sharpe(-days()).years_needed == pytest.approx(found.years_needed)
    assert found.error == pytest.approx(performance.sharpe_error(record) * np.sqrt(252))
    assert found.days == 500


def test_a_drawdown_by_hand():
    """Equity 1.0, 1.1, 0.99, 0.88, 1.1, 1.2, 1.14, 1.2."""
    found = performance.drawdown([0.1, -0.11, -0.11, 0.22, 0.1, -0.06, 0.06])
    assert found.depth == pytest.approx(0.2)  # 0.22 of 1.1
    assert (found.to_trough, found.to_recovery, found.longest) == (2, 3, 2)


def test_a_fall_that_has_not_recovered_has_no_end_yet():
    found = performance.drawdown([0.5, -0.3, 0.1, 0.1, 0.05])
    assert found.depth == pytest.approx(0.2)
    assert (found.to_trough, found.to_recovery, found.longest) == (1, np.inf, 4)


def test_equity_that_is_back_to_the_last_bit_but_one_has_recovered():
    returns = np.array([0.3, -0.6, 0.6 / 3, 0.6 / 3, 0.6 / 3, 0.0])
    assert 1.0 + returns.cumsum()[-1] < 1.0 + returns[0]  # as floats add up
    found = performance.drawdown(returns)
    assert (found.to_trough, found.to_recovery, found.longest) == (1, 4, 3)


def test_the_longest_fall_need_not_be_the_deepest():
    found = performance.drawdown([-0.5, 0.6, -0.01, 0.001, 0.001, 0.001])
    assert found.depth == pytest.approx(0.5)
    assert (found.to_trough, found.to_recovery, found.longest) == (1, 2, 4)


def test_losses_beyond_the_capital_are_a_drawdown_above_1():
    assert performance.max_drawdown([-0.8, -0.7]) == pytest.approx(1.5)


@settings(deadline=None)
@given(RETURNS)
def test_a_drawdown_is_that_of_a_loop_over_days(returns):
    equity = np.concatenate([[1.0], 1.0 + np.cumsum(returns)]).round(9)
    depths, peak, since, longest = [], equity[0], 0, 0
    for day, value in enumerate(equity):
        if value >= peak:
            peak, since = value, day
        depths.append((peak - value) / peak)
        longest = max(longest, day - since)
    found = performance.drawdown(returns)
    assert found.depth == pytest.approx(max(depths), abs=1e-9)
    assert found.longest == longest
    series = pd.Series(equity)
    assert found.depth == pytest.approx(1 - (series / series.cummax()).min(), abs=1e-9)


def test_hits_and_profits_by_hand():
    trips = [30.0, -10.0, 0.0, 20.0, -15.0, 0.0]
    assert performance.hit_rate(trips) == pytest.approx(0.5)  # two of four: zeros are neither
    assert performance.profit_factor(trips) == pytest.approx(2.0)  # 50 over 25


def test_what_has_no_value_is_nan_what_has_no_bound_is_infinite_and_nothing_warns():
    """Of nothing, of one day, of days alike (0.1 has no exact mean), of gains and of losses."""
    nan, inf = np.nan, np.inf
    up = pytest.approx(20.0 * 252)
    expected = {
        "annual_return": (nan, 25.2, 0.0, 25.2, up, -up.expected),
        "volatility": (nan, nan, 0.0, 0.0, None, None),
        "sharpe_ratio": (nan, nan, nan, nan, None, None),
        "sortino": (nan, inf, nan, inf, inf, None),
        "max_drawdown": (0.0, 0.0, 0.0, 0.0, 0.0, 40.0),
        "calmar": (nan, inf, nan, inf, inf, None),
        "hit_rate": (nan, 1.0, nan, 1.0, 1.0, 0.0),
        "profit_factor": (nan, inf, nan, inf, inf, 0.0),
    }
    series = ([], [0.1], [0.0] * 7, [0.1] * 7, [10.0, 30.0], [-10.0, -30.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in FIGURES:
            for returns, value in zip(series, expected[figure.__name__], strict=True):
                if value is not None:
                    found = figure(returns)
                    assert found == pytest.approx(value, nan_ok=True), (figure.__name__, returns)
        for returns in series[:4]:
            found = performance.sharpe(returns)
            assert np.isnan([found.value, found.error, found.years_needed]).all()
            assert performance.drawdown(returns) == (0.0, 0, 0, 0)
        flat = performance.sharpe([0.01, -0.01])
        assert flat.value == 0 and flat.years_needed == inf and np.isfinite(flat.error)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_figures_of_many_series_are_those_of_each(figure):
    series = np.stack([days(seed, 60) for seed in range(6)]).reshape(2, 3, 60)
    series[0, 1] = 0.0
    together = figure(series)
    assert together.shape == (2, 3)
    for place in np.ndindex(2, 3):
        assert figure(series[place]) == pytest.approx(together[place], nan_ok=True)


def test_named_figures_of_many_series_are_those_of_each():
    series = np.stack([days(seed, 60) for seed in range(6)]).reshape(2, 3, 60)
    for figure in (performance.sharpe, performance.track_record, performance.drawdown):
        together = figure(series)
        for place in np.ndindex(2, 3):
            for name, alone in figure(series[place])._asdict().items():
                many = np.broadcast_to(getattr(together, name), (2, 3))
                assert many[place] == pytest.approx(alone), name


@settings(deadline=None)
@given(RETURNS, st.floats(0.1, 10.0))
def test_leverage_changes_neither_ratios_nor_hits(returns, leverage):
    returns = np.asarray(returns)
    for figure in FIGURES:
        name = figure.__name__
        if name in ("sharpe_ratio", "sortino", "hit_rate", "profit_factor"):
            found, moved = figure(returns), figure(leverage * returns)
            assert moved == pytest.approx(found, rel=1e-6, abs=1e-6, nan_ok=True), name
        elif name in ("annual_return", "volatility"):
            assert figure(leverage * returns) == pytest.approx(leverage * figure(returns), abs=1e-9)


def test_one_number_is_no_series():
    with pytest.raises(ValueError, match="expected daily returns"):
        performance.sharpe(0.1)
