import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from jules_jax.evaluation import backtest, performance, statistics
from jules_jax.evaluation.statistics import (
    Interval,
    block_bootstrap_interval,
    bootstrap_interval,
    cluster_bootstrap_interval,
    interquartile_mean,
    mean_interval,
    paired_difference,
    probability_of_improvement,
    ratio_of_means,
)

FEW = {"resamples": 300}


def coverage(interval, truth, trials):
    """Share of `trials` intervals, each of fresh data, that hold the truth."""
    held = (interval(trial) for trial in range(trials))
    return np.mean([found.low <= truth <= found.high for found in held])


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end():
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -100]) == pytest.approx(3.5)  # of 2, 3, 4, 5
    assert interquartile_mean([9, 1, 2]) == pytest.approx(4.0)  # fewer than four: all are kept
    columns = np.array([[0, 8], [1, 9], [3, 11], [50, -50]])
    assert interquartile_mean(columns, axis=0) == pytest.approx([2.0, 8.5])
    assert interquartile_mean(columns) == pytest.approx(5.25)  # of 1, 3, 8, 9


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_interquartile_mean_is_between_the_quartiles_sorted_by_hand(scores):
    cut = len(scores) // 4
    kept = sorted(scores)[cut : len(scores) - cut]
    assert interquartile_mean(scores) == pytest.approx(sum(kept) / len(kept), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(("runs", "expected"), [(3, 0.75), (10, 0.92)])
def test_percentile_intervals_of_few_runs_are_too_narrow_as_the_module_says(runs, expected):
    rng = np.random.default_rng(runs)

    def interval(seed):
        return bootstrap_interval(rng.normal(size=runs), statistic=np.mean, seed=seed, **FEW)

    assert coverage(interval, 0.0, 500) == pytest.approx(expected, abs=0.045)


def test_strata_are_resampled_apart_so_differences_between_tasks_widen_nothing():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 3))
    same, apart = noise, noise + np.array([0.0, 100.0, -100.0])
    for shift in (same, apart):
        found = bootstrap_interval(shift, statistic=np.mean)
        error = np.sqrt((noise.var(axis=0) / 40).sum()) / 3  # of a stratified mean
        assert found.value == pytest.approx(shift.mean())
        assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_one_run_says_nothing_of_others():
    assert bootstrap_interval([3.0]) == Interval(3.0, -np.inf, np.inf)
    assert mean_interval([3.0]) == Interval(3.0, -np.inf, np.inf)
    assert mean_interval([3.0, 5.0], [7, 7]) == Interval(4.0, -np.inf, np.inf)


def test_the_same_seed_gives_the_same_interval_and_a_higher_level_a_wider_one():
    scores = np.random.default_rng(0).normal(size=12)
    assert bootstrap_interval(scores) == bootstrap_interval(scores)
    narrow, wide = (mean_interval(scores, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_an_interval_of_episodes_is_that_of_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=300)
    ends = stats.bootstrap(
        (values,), np.mean, n_resamples=8000, method="percentile", rng=1
    ).confidence_interval
    found = mean_interval(values, resamples=8000)
    assert found.value == pytest.approx(values.mean())
    width = ends.high - ends.low
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=0.03 * width)


def test_a_ratio_of_paired_episodes_is_that_of_scipy():
    rng = np.random.default_rng(0)
    oracle = rng.normal(10.0, 20.0, 400)
    agent = 0.5 * oracle + rng.normal(0.0, 5.0, 400)

    def ratio(x, y, axis=-1):
        return x.mean(axis=axis) / y.mean(axis=axis)

    ends = stats.bootstrap(
        (agent, oracle), ratio, paired=True, n_resamples=8000, method="percentile", rng=1
    ).confidence_interval
    found = ratio_of_means(agent, oracle, resamples=8000)
    width = ends.high - ends.low
    assert found.value == pytest.approx(agent.mean() / oracle.mean())
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=0.05 * width)
    assert width < 0.2  # pairing: each mean alone is known to 10 % and 20 %


def test_a_ratio_to_what_may_be_nothing_has_no_bounds():
    noise = np.random.default_rng(0).normal(size=50)
    assert ratio_of_means(noise + 1.0, noise).low == -np.inf
    assert ratio_of_means([1.0, 1.0], [0.0, 0.0]).high == np.inf


def test_a_cluster_counts_once_however_many_episodes_it_has():
    values, cluster = [1.0, 1.0, 1.0, 4.0], [0, 0, 0, 1]
    assert mean_interval(values, cluster).value == pytest.approx(2.5)
    assert ratio_of_means(values, np.ones(4), cluster).value == pytest.approx(2.5)
    assert (
        mean_interval(values, cluster).value
        == backtest.mean_and_error(np.array(values), np.array(cluster))[0]
    )


def test_repeating_the_episodes_of_a_cluster_narrows_nothing():
    once = np.random.default_rng(0).normal(1.0, 1.0, 100)
    ten = np.repeat(once, 10), np.repeat(np.arange(100), 10)
    assert mean_interval(*ten) == pytest.approx(mean_interval(once))
    mean, error = backtest.mean_and_error(*ten)
    found = mean_interval(*ten, resamples=8000)
    assert found.value == pytest.approx(mean)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_seeds_and_episodes_both_count_in_the_interval():
    """Ten seeds that differ by sd 3, on 200 episodes of sd 20 that all seeds share."""
    rng = np.random.default_rng(0)

    def interval(seed):
        scores = 3.0 * rng.normal(size=(10, 1)) + 20.0 * rng.normal(size=200)
        return mean_interval(scores, statistic=np.mean, seed=seed, **FEW)

    assert coverage(interval, 0.0, 200) == pytest.approx(0.94, abs=0.04)
    widths = [np.subtract(*interval(seed)[:0:-1]) for seed in range(40)]
    error = np.sqrt(3.0**2 / 10 * 0.9 + 20.0**2 / 200)  # 0.9: of ten, a bootstrap knows nine
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_the_share_of_several_seeds_is_that_of_the_middle_seeds():
    oracle = np.random.default_rng(0).normal(10.0, 1.0, 60)
    shares = np.array([0.1, 0.5, 0.6, 0.7, 0.8, 5.0])
    found = ratio_of_means(shares[:, None] * oracle, oracle)
    assert found.value == pytest.approx(0.65)  # the IQM leaves out 0.1 and 5.0
    assert 0.1 < found.low < 0.65 < found.high < 5.0


def test_what_two_policies_share_on_the_same_episodes_cancels_in_their_difference():
    market = np.random.default_rng(0).normal(0.0, 100.0, 50)
    assert paired_difference(market + 1.0, market) == pytest.approx(Interval(1.0, 1.0, 1.0))
    assert paired_difference([market + 1.0] * 3, market).value == pytest.approx(1.0)


def test_the_probability_of_improvement_is_a_share_of_pairs_of_runs():
    assert probability_of_improvement([1, 2, 3], [2, 0]).value == pytest.approx(4.5 / 6)
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 1.0, 40), rng.normal(0.0, 1.0, 50)
    found = probability_of_improvement(x, y)
    assert found.value == pytest.approx(stats.mannwhitneyu(x, y).statistic / (40 * 50))
    assert found.low < found.value < found.high
    tasks = probability_of_improvement(np.stack([x, x], 1), np.stack([y, y + 10.0], 1))
    assert tasks.value == pytest.approx(found.value / 2, abs=1e-3)  # never above y + 10


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-100, 100), st.floats(0.01, 100))
def test_intervals_move_with_their_scores(seed, shift, scale):
    scores = np.random.default_rng(seed).normal(size=(4, 20))
    found, moved = mean_interval(scores), mean_interval(scale * scores + shift)
    assert moved == pytest.approx(Interval(*(scale * np.asarray(found) + shift)), abs=1e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="clusters' labels"):
        mean_interval(np.zeros((2, 5)), np.arange(4))
    with pytest.raises(ValueError, match="tasks"):
        probability_of_improvement(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval([])


def test_an_interval_reads_as_a_value_and_its_ends():
    assert f"{Interval(1.0, 0.5, 1.25):.2f}" == "1.00 [0.50, 1.25]"


def mean(returns):
    return returns.mean(axis=-1)


def dependent_days(rng, days, memory):
    """AR(1) days of mean 0 and standard deviation 1."""
    shocks = rng.normal(size=days) * np.sqrt(1.0 - memory**2)
    shocks[0] = rng.normal()
    return signal.lfilter([1.0], [1.0, -memory], shocks)


def width(interval):
    return interval.high - interval.low


@pytest.mark.parametrize("statistic", [performance.sharpe_ratio, performance.max_drawdown])
def test_an_interval_of_days_is_that_of_arch(statistic):
    arch = pytest.importorskip("arch.bootstrap", reason="arch is not installed")
    days = 0.001 + 0.01 * dependent_days(np.random.default_rng(0), 250, 0.3)
    theirs = arch.StationaryBootstrap(5, days, seed=1)
    low, high = theirs.conf_int(statistic, 4000, method="percentile")[:, 0]
    found = block_bootstrap_interval(days, statistic, resamples=4000)
    assert found.value == statistic(days)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_resampled_days_go_on_for_a_block_and_none_is_preferred():
    drawn = statistics._stationary(4000, 20, 5.0, np.random.default_rng(0))
    follows = (np.diff(drawn, axis=1) - 1) % 20 == 0
    assert follows.mean() == pytest.approx(0.8 + 0.2 / 20, abs=0.01)
    shares = np.bincount(drawn.ravel(), minlength=20) / drawn.size
    assert shares == pytest.approx(np.full(20, 0.05), abs=0.003)


def test_days_of_their_own_are_resampled_as_scipy_does():
    days = np.random.default_rng(0).gamma(2.0, size=200)
    ends = stats.bootstrap(
        (days,), np.mean, n_resamples=8000, method="percentile", rng=1
    ).confidence_interval
    found = block_bootstrap_interval(days, mean, mean_block=1, resamples=8000)
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=0.03 * width(found))


@pytest.mark.parametrize(("block", "expected"), [(1, 0.80), (5, 0.92), (15, 0.93)])
def test_blocks_hold_the_truth_of_days_that_depend_on_each_other(block, expected):
    """A memory of 0.4 a day makes the error of a mean 1.53 times that of independent days."""
    rng = np.random.default_rng(block)

    def interval(seed):
        days = dependent_days(rng, 400, 0.4)
        return block_bootstrap_interval(days, mean, mean_block=block, seed=seed, **FEW)

    assert coverage(interval, 0.0, 400) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("days", "memory", "expected"), [(19, 0.0, 0.83), (19, 0.3, 0.79), (30, 0.0, 0.89)]
)
def test_intervals_of_few_days_are_too_narrow_as_the_module_says(days, memory, expected):
    rng = np.random.default_rng(days)

    def interval(seed):
        return block_bootstrap_interval(dependent_days(rng, days, memory), mean, seed=seed, **FEW)

    assert coverage(interval, 0.0, 600) == pytest.approx(expected, abs=0.045)


def test_seeds_that_did_the_same_on_the_same_days_narrow_nothing():
    days = np.random.default_rng(0).normal(size=120)
    alone = block_bootstrap_interval(days, performance.sharpe_ratio)
    assert block_bootstrap_interval([days] * 7, performance.sharpe_ratio) == pytest.approx(alone)


def test_days_and_seeds_both_count_in_the_interval_of_days():
    rng = np.random.default_rng(0)
    widths = []
    for seed in range(40):
        daily = 0.3 * rng.normal(size=(10, 1)) + 2.0 * rng.normal(size=200)
        found = block_bootstrap_interval(daily, mean, over_seeds=np.mean, seed=seed, **FEW)
        widths.append(width(found))
    error = np.sqrt(0.3**2 / 10 * 0.9 + 2.0**2 / 200)  # 0.9: of ten, a bootstrap knows nine
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_the_days_of_several_seeds_are_judged_by_the_middle_seeds():
    days = np.random.default_rng(0).normal(size=60)
    daily = days + np.array([0.0, 1.0, 2.0, 3.0, 4.0, 50.0])[:, None]
    assert block_bootstrap_interval(daily, mean).value == pytest.approx(days.mean() + 2.5)


def test_what_has_no_value_in_a_resample_is_left_out_and_what_has_no_bound_has_none():
    traded_once = np.zeros(12)
    traded_once[3] = 0.02
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = block_bootstrap_interval(traded_once, performance.sharpe_ratio)
        assert found.low <= found.value <= found.high < np.inf
        gains = block_bootstrap_interval([0.01, 0.02, 0.03, -0.01], performance.sortino)
        assert gains.low < gains.value < gains.high == np.inf
        nothing = block_bootstrap_interval(np.zeros(12), performance.sharpe_ratio)
        assert np.isnan(nothing).all()
    assert block_bootstrap_interval([0.5], mean) == Interval(0.5, -np.inf, np.inf)


def test_sessions_of_an_episode_are_resampled_together():
    """A mean of all sessions, of episodes of 1 to 9, against the error of a ratio of sums."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 10, size=300)
    cluster = np.repeat(np.arange(300), sizes)
    values = 1.0 + rng.normal(size=300)[cluster] + 0.5 * rng.normal(size=len(cluster))
    found = cluster_bootstrap_interval(values, cluster, mean)
    sums = np.bincount(cluster, values)
    error = np.sqrt(np.sum((sums - sizes * values.mean()) ** 2)) / len(values)
    assert found.value == pytest.approx(values.mean())
    assert width(found) == pytest.approx(2 * 1.96 * error, rel=0.08)
    alone = cluster_bootstrap_interval(values, np.arange(len(values)), mean)
    assert width(alone) < 0.6 * width(found)


def test_episodes_of_one_length_are_those_of_any_length():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(100), 4)
    values = rng.normal(size=100)[cluster] + rng.normal(size=400)
    equal = cluster_bootstrap_interval(values, cluster, performance.sharpe_ratio)
    longer = np.append(values, 0.0), np.append(cluster, 99)
    any_length = cluster_bootstrap_interval(*longer, performance.sharpe_ratio)
    assert any_length == pytest.approx(equal, abs=0.06 * width(equal))
    averages = mean_interval(values, cluster, resamples=8000)
    found = cluster_bootstrap_interval(values, cluster, mean, resamples=8000)
    assert found == pytest.approx(averages, abs=0.03 * width(averages))


def test_sessions_of_an_episode_may_lie_anywhere_and_keep_their_order():
    values, cluster = np.arange(600.0), np.tile(["b", "a"], 300)
    seen = []

    def statistic(sessions):
        seen.extend(np.atleast_2d(sessions))
        return sessions.sum(axis=-1)

    cluster_bootstrap_interval(values, cluster, statistic, resamples=50)
    halves = {tuple(half) for sessions in seen[1:] for half in np.split(sessions, 2)}
    assert halves == {tuple(values[::2]), tuple(values[1::2])}


@pytest.mark.parametrize("shape", [(200_000,), (10, 20_000)])
def test_many_sessions_take_little_memory(shape):
    daily = np.random.default_rng(0).normal(size=shape)
    tracemalloc.start()
    block_bootstrap_interval(daily, performance.sharpe_ratio, resamples=40)
    cluster_bootstrap_interval(
        daily.ravel(), np.arange(200_000) // 3, performance.sharpe_ratio, resamples=5
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


def test_days_that_do_not_fit_are_refused():
    for daily in ([], np.zeros((2, 3, 4))):
        with pytest.raises(ValueError, match="expected"):
            block_bootstrap_interval(daily, mean)
    with pytest.raises(ValueError, match="blocks of 0"):
        block_bootstrap_interval(np.zeros(5), mean, mean_block=0)
    with pytest.raises(ValueError, match="expected"):
        cluster_bootstrap_interval(np.zeros(5), np.zeros(4), mean)


def test_a_ratio_of_days_that_remember_each_other_has_the_wider_interval_in_blocks():
    """Of an AR(1) of 0.7 the mean of 60 days spreads √((1 + 0.7)/(1 − 0.7)) = 2.4 times as far."""
    rng, wider = np.random.default_rng(3), []
    for _ in range(20):
        noise = np.zeros(60)
        for day in range(1, 60):
            noise[day] = 0.7 * noise[day - 1] + rng.normal()
        one, block = (
            statistics.ratio_of_means(noise, np.ones(60), mean_block=length) for length in (1, 5)
        )
        wider.append((block.high - block.low) / (one.high - one.low))
    assert 1.3 < np.mean(wider) < 2.4
