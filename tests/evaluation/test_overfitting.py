import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jules_jax.evaluation import overfitting, performance
from jules_jax.evaluation.overfitting import (
    deflated_sharpe,
    expected_maximum_sharpe,
    minimum_track_record_length,
    probabilistic_sharpe,
    probability_of_backtest_overfitting,
)
from jules_jax.evaluation.performance import TrackRecord

HEDGE_FUND = TrackRecord(1.585 / np.sqrt(12), 24, -2.448, 10.164)
"""Two years by month: Bailey & López de Prado (2012), sections 4 and 5."""
BEST_OF_MANY = TrackRecord(2.5 / np.sqrt(250), 1250, -3.0, 10.0)
"""Five years by day, annualised with 250: Bailey & López de Prado (2014), numerical example."""
VARIANCE_OF_MANY = 0.5 / 250


def noise(seed, periods=320, trials=20):
    return 0.01 * np.random.default_rng(seed).normal(size=(periods, trials))


def test_the_probabilistic_sharpe_ratio_of_the_paper():
    assert probabilistic_sharpe(HEDGE_FUND._replace(skewness=0.0, kurtosis=3.0)) == pytest.approx(
        0.982, abs=5e-4
    )
    assert probabilistic_sharpe(HEDGE_FUND) == pytest.approx(0.913, abs=5e-4)


@pytest.mark.parametrize(
    ("a_year", "skewness", "kurtosis", "years"),
    [(252, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_the_minimum_track_records_of_the_paper(a_year, skewness, kurtosis, years):
    """An annual Sharpe ratio of 2, to be above 1 with 95 % confidence."""
    record = TrackRecord(2 / np.sqrt(a_year), np.nan, skewness, kurtosis)
    periods = minimum_track_record_length(record, 1 / np.sqrt(a_year))
    assert periods / a_year == pytest.approx(years, abs=0.005)


@settings(deadline=None)
@given(st.floats(0.01, 0.5), st.floats(-0.5, 0.0), st.floats(-1.0, 1.0), st.floats(0.55, 0.99))
def test_after_the_minimum_track_record_the_probability_is_the_confidence(
    sharpe, benchmark, skewness, confidence
):
    record = TrackRecord(sharpe, 2, skewness, 5.0)
    record = record._replace(periods=minimum_track_record_length(record, benchmark, confidence))
    assert probabilistic_sharpe(record, benchmark) == pytest.approx(confidence)


def test_no_track_record_is_long_enough_for_a_ratio_below_the_benchmark():
    assert minimum_track_record_length(TrackRecord(0.1, 100), 0.1) == np.inf
    assert minimum_track_record_length(TrackRecord(-0.1, 100)) == np.inf


@pytest.mark.parametrize(
    ("trials", "expected"),
    [(5, 1.19), (10, 1.57), (20, 1.90), (50, 2.28), (100, 2.53), (1000, 3.26)],
)
def test_the_best_of_trials_without_skill(trials, expected):
    assert expected_maximum_sharpe(trials) == pytest.approx(expected, abs=0.006)
    best = np.random.default_rng(trials).normal(size=(4000, trials)).max(axis=1).mean()
    assert expected_maximum_sharpe(trials) == pytest.approx(best, abs=0.05)
    assert expected_maximum_sharpe(trials, 0.25) == pytest.approx(expected / 2, abs=0.003)


def test_one_trial_chooses_nothing_and_more_expect_more():
    expected = [expected_maximum_sharpe(trials) for trials in (1, 1.05, 2, 3, 10, 1e6)]
    assert expected[:2] == [0.0, 0.0]
    assert np.all(np.diff(expected) >= 0) and expected[2] > 0.5
    with pytest.raises(ValueError, match="at least 1"):
        expected_maximum_sharpe(0)


def test_the_deflated_sharpe_ratio_of_the_paper():
    benchmark = expected_maximum_sharpe(100, VARIANCE_OF_MANY)
    assert benchmark == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(BEST_OF_MANY, 100, VARIANCE_OF_MANY) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(BEST_OF_MANY, 46, VARIANCE_OF_MANY) == pytest.approx(0.9505, abs=5e-5)
    normal = BEST_OF_MANY._replace(skewness=0.0, kurtosis=3.0)
    assert deflated_sharpe(normal, 88, VARIANCE_OF_MANY) == pytest.approx(0.9505, abs=5e-5)


def test_of_one_trial_nothing_is_deflated():
    assert deflated_sharpe(BEST_OF_MANY, 1, 0.5) == probabilistic_sharpe(BEST_OF_MANY)


def test_the_best_of_noise_is_deflated_to_chance():
    """Without the trials' variance, that of luck alone; with it, that of the matrix."""
    found = []
    for seed in range(200):
        returns = noise(seed, periods=250, trials=50)
        best = performance.track_record(returns.T[np.argmax(performance.sharpe_ratio(returns.T))])
        variance = overfitting.variance_across_trials(returns)
        found.append(
            (
                probabilistic_sharpe(best),
                deflated_sharpe(best, 50),
                deflated_sharpe(best, 50, variance),
            )
        )
    probabilistic, *deflated = np.mean(found, axis=0)
    assert probabilistic > 0.97
    assert deflated == pytest.approx([0.5, 0.5], abs=0.05)


def test_the_variance_across_trials_is_that_of_their_daily_ratios():
    returns = noise(0)
    ratios = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
    assert overfitting.variance_across_trials(returns) == pytest.approx(ratios.var(ddof=1))
    assert np.isnan(overfitting.variance_across_trials(returns[:, :1]))
    flat = np.concatenate([returns, np.zeros((len(returns), 1))], axis=1)
    expected = np.append(ratios, 0.0).var(ddof=1)
    assert overfitting.variance_across_trials(flat) == pytest.approx(expected)


def cross_validation(returns, blocks):
    """CSCV split by split, as the paper tells it."""
    parts = np.array_split(np.arange(len(returns)), blocks)
    logits, ins, outs = [], [], []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        rows = np.concatenate([parts[block] for block in chosen])
        inside = np.isin(np.arange(len(returns)), rows)
        ratio = [half.mean(axis=0) / half.std(axis=0, ddof=1) for half in
                 (returns[inside], returns[~inside])]  # fmt: skip
        best = np.argmax(ratio[0])
        relative = stats.rankdata(ratio[1])[best] / (returns.shape[1] + 1)
        logits.append(np.log(relative / (1 - relative)))
        ins.append(ratio[0][best])
        outs.append(ratio[1][best])
    return np.array(logits), np.array(ins), np.array(outs)


@pytest.mark.parametrize(("periods", "trials", "blocks"), [(64, 10, 8), (61, 7, 6), (16, 3, 8)])
def test_the_probability_of_overfitting_is_that_of_a_loop_over_splits(periods, trials, blocks):
    returns = noise(3, periods, trials) + np.linspace(-0.002, 0.003, trials)
    logits, inside, outside = cross_validation(returns, blocks)
    found = probability_of_backtest_overfitting(returns, blocks)
    np.testing.assert_allclose(found.logits, logits, atol=1e-12)
    expected = np.mean(logits < -1e-12) + 0.5 * np.mean(np.abs(logits) < 1e-12)
    assert found.pbo == pytest.approx(expected)
    assert found.slope == pytest.approx(stats.linregress(inside, outside).slope)
    assert found.probability_of_loss == pytest.approx(np.mean(outside < 0))


def test_the_best_of_noise_is_below_the_median_half_the_time():
    """One draw says little: its splits share the same returns."""
    found = [probability_of_backtest_overfitting(noise(seed, 160), 8) for seed in range(150)]
    assert np.mean([each.pbo for each in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([each.probability_of_loss for each in found]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([each.slope for each in found]) < 0


def test_one_configuration_that_dominates_is_never_overfitted():
    returns = noise(0)
    returns[:, 7] += 0.02
    found = probability_of_backtest_overfitting(returns)
    assert found.pbo == 0.0 and found.probability_of_loss == 0.0
    assert found.logits.shape == (12870,)
    assert found.logits == pytest.approx(np.log(20 / 21 / (1 - 20 / 21)))


def test_what_gains_in_one_half_and_loses_in_the_other_is_always_overfitted():
    """Each configuration is good in one block alone, and worse the better it is there."""
    rng = np.random.default_rng(0)
    returns = 1e-4 * rng.normal(size=(80, 8))
    for block in range(8):
        returns[10 * block : 10 * block + 10, block] += 0.01
        returns[:, block] -= 0.01 / 8
    found = probability_of_backtest_overfitting(returns, 8)
    assert found.pbo == 1.0 and found.probability_of_loss == 1.0


def test_configurations_that_are_alike_say_nothing():
    returns = np.repeat(noise(0, 64, 1), 5, axis=1) * np.array([1.0, 2.0, 0.3, 1.0, 7.0])
    found = probability_of_backtest_overfitting(returns, 8)
    assert found.pbo == 0.5
    assert found.logits == pytest.approx(np.zeros(70))


def test_policies_that_do_not_trade_score_nothing_and_warn_of_nothing():
    returns = np.concatenate([noise(0, 64, 3) - 0.05, np.zeros((64, 1))], axis=1)
    half = np.concatenate([noise(0, 32, 3), np.zeros((32, 3))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = probability_of_backtest_overfitting(returns, 8)
        assert found.pbo == 0.0  # not to trade is the best everywhere
        assert found.probability_of_loss == 0.0 and np.isnan(found.slope)
        assert probability_of_backtest_overfitting(np.zeros((64, 4)), 8).pbo == 0.5
        assert probability_of_backtest_overfitting(np.full((64, 4), 0.1), 8).pbo == 0.5
        assert np.isfinite(probability_of_backtest_overfitting(half, 8).logits).all()


def test_what_ties_for_the_best_is_averaged():
    """In the first block two do nothing, and the third loses; in the second they come apart."""
    good, bad, middle = (mean + np.array([0.01, -0.01] * 4) for mean in (0.03, -0.03, 0.001))
    quiet, losing = np.zeros(8), -0.02 + np.array([0.01, -0.01] * 4)
    columns = [(quiet, bad), (quiet, good), (losing, middle)]
    returns = np.stack([np.concatenate(column) for column in columns], axis=1)
    found = probability_of_backtest_overfitting(returns, 2)
    best_of_first, best_of_second = found.logits
    assert best_of_first == pytest.approx(0.0)  # the mean of ranks 1 and 3 of 3
    assert best_of_second == pytest.approx(np.log(2.5 / 1.5))  # it shares ranks 2 and 3
    assert found.probability_of_loss == 0.0


def test_returns_that_never_change_are_no_skill_whatever_their_sums_were_rounded_to():
    returns = np.concatenate([noise(0, 61, 3) + 0.01, np.full((61, 1), 0.1)], axis=1)
    found = probability_of_backtest_overfitting(returns, 8)
    without = probability_of_backtest_overfitting(returns * [1, 1, 1, 0], 8)
    np.testing.assert_array_equal(found.logits, without.logits)
    assert found.slope == without.slope


def test_order_and_size_of_configurations_change_nothing():
    returns = noise(1) + np.linspace(0, 0.002, 20)
    order = np.random.default_rng(0).permutation(20)
    found = probability_of_backtest_overfitting(returns)
    moved = probability_of_backtest_overfitting((returns * np.linspace(1, 9, 20))[:, order])
    np.testing.assert_allclose(found.logits, moved.logits, atol=1e-12)
    assert found.slope == pytest.approx(moved.slope)


def test_chunks_change_nothing(monkeypatch):
    found = probability_of_backtest_overfitting(noise(2), 10)
    monkeypatch.setattr(overfitting, "CHUNK", 900)
    again = probability_of_backtest_overfitting(noise(2), 10)
    np.testing.assert_allclose(found.logits, again.logits, atol=1e-12)


def test_with_too_little_nothing_is_said():
    for returns in (noise(0, 64, 1), noise(0, 3, 5), np.empty((0, 0))):
        found = probability_of_backtest_overfitting(returns, 8)
        assert np.isnan(found.pbo) and not len(found.logits)
    with pytest.raises(ValueError, match="even"):
        probability_of_backtest_overfitting(noise(0), 7)
    with pytest.raises(ValueError, match="at least 16"):
        probability_of_backtest_overfitting(noise(0, 10))
    with pytest.raises(ValueError, match="expected"):
        probability_of_backtest_overfitting(np.zeros(10))
