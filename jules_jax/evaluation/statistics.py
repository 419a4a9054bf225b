"""Statistics of scores: point estimates with percentile bootstrap intervals.

Two shapes of scores, two bootstraps. Runs × tasks, one number each: runs are resampled within every
task (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice").
Seeds × episodes played on the same prices: seeds and episodes are resampled, each crossed with the
other (Owen & Eckles 2012, "Bootstrapping data arrays of arbitrary order"), so an interval holds the
luck of training and that of the paths.

Daily returns: days are resampled in blocks, because a day may depend on the one before it, or whole
episodes at a time, and any statistic of the days is taken of every resample.
Those of few days are too narrow as well: of 1,000 normal series of independent days a nominal 95 %
interval of the mean in blocks of 5 held it in 83 % at 19 days, 89 % at 30, 90 % at 60 and 94 % at
250; where a day takes over 0.3 of the one before, in 79, 84, 88 and 92 % (days drawn one by one:
80, 83, 84 and 85 %).

Percentile intervals of few runs are too narrow: a nominal 95 % interval of the mean of n normal
scores held it in 92 % of 4,000 trials at n = 10, in 84 % at n = 5 and in 75 % at n = 3
(tests/evaluation/test_statistics.py measures it).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Statistic = Callable[..., Any]
"""`(scores, axis=...) -> scores without that axis`: `interquartile_mean`, `np.mean`, `np.max`."""

Daily = Callable[[Array], Any]
"""`[..., D] -> [...]`, days in order: the functions of `performance`."""

LEVEL = 0.95
RESAMPLES = 2000
MEAN_BLOCK = 5
"""Days: a week."""
CHUNK = 2**21
"""Days of resamples that are held at once, 16 MiB of them."""


class Interval(NamedTuple):
    """An estimate and the ends of its interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """The three numbers in one format: `f"{interval:.2f}"` is `1.00 [0.50, 1.50]`."""
        value, low, high = (format(number, spec) for number in self)
        return f"{value} [{low}, {high}]"


def interquartile_mean(scores: ArrayLike, axis: int | None = None) -> Any:
    """Mean of the scores without the lowest and highest quarter (Agarwal et al. 2021, section 4.3).

    Of n scores ⌊n/4⌋ go at either end: fewer than four are all kept.
    """
    return stats.trim_mean(np.asarray(scores, np.float64), 0.25, axis=axis)


def bootstrap_interval(
    scores: ArrayLike,
    *,
    statistic: Statistic = interquartile_mean,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic of all scores `[R]` or `[R, K]`, R runs of K tasks, and its stratified interval.

    Runs are resampled within each task, independently of the other tasks (Agarwal et al. 2021,
    section 4.1). One run says nothing of others: its interval is unbounded.
    """
    tasks = _tasks(scores)

    def pooled(*samples: Array, axis: int = -1) -> Any:
        return statistic(np.concatenate(samples, axis=axis), axis=axis)

    if len(tasks[0]) < 2:
        return Interval(float(pooled(*tasks)), -np.inf, np.inf)
    return _resampled(tuple(tasks), pooled, level, resamples, seed)


def probability_of_improvement(
    scores: ArrayLike,
    baseline: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Chance that a run scores above a run of the baseline, ties half, averaged over tasks.

    scores `[R]` or `[R, K]`, baseline `[Q]` or `[Q, K]`, R and Q at least 2: the Mann-Whitney
    statistic over R·Q (Agarwal et al. 2021, section 4.3), runs of both resampled in each task.
    """
    ours, theirs = _tasks(scores), _tasks(baseline)
    if len(ours) != len(theirs):
        raise ValueError(f"found {len(ours)} and {len(theirs)} tasks, expected as many")

    def chance(*samples: Array, axis: int = -1) -> Any:
        x, y = (
            np.stack([np.moveaxis(sample, axis, -1) for sample in half])
            for half in (samples[: len(ours)], samples[len(ours) :])
        )
        above = np.sign(x[..., :, None] - y[..., None, :])
        return 0.5 + 0.5 * above.mean(axis=(0, -2, -1))

    return _resampled((*ours, *theirs), chance, level, resamples, seed)


def mean_interval(
    values: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    statistic: Statistic = interquartile_mean,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic over seeds of the mean over episodes: values `[N]` of one policy, or `[S, N]`.

    cluster: `[N]`; episodes of one cluster share prices and are resampled together (by default
    each stands alone). The mean is that of the clusters' means, as in `backtest.mean_and_error`.
    All seeds play the same episodes: seeds and clusters are resampled, crossed. One seed is
    taken as given, and fewer than two clusters make the interval unbounded.
    """
    episodes = _by_cluster(values, cluster)
    weights, seeds = _draws(episodes, resamples, seed)
    bounded = episodes.shape[1] > 1
    found, drawn = episodes.mean(axis=1), weights @ episodes.T
    return _percentiles(found, drawn, seeds, statistic, level, bounded=bounded)


def paired_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    statistic: Statistic = interquartile_mean,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """`mean_interval` of values − baseline on the same episodes, `[N]` or `[S, N]` each."""
    difference = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    return mean_interval(difference, cluster, statistic=statistic, **options)


def ratio_of_means(
    numerator: ArrayLike,
    denominator: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    mean_block: float = 1.0,
    statistic: Statistic = interquartile_mean,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic over seeds of mean(numerator) / mean(denominator) of the same episodes.

    numerator `[N]` or `[S, N]`, denominator `[N]` (or `[S, N]`), cluster `[N]`: as of
    `mean_interval`. Both are resampled together; with a mean_block above 1, of days in order, in
    runs that are so long on average, as of `block_bootstrap_interval`. Where a resampled
    denominator is not of the estimate's sign the ratio has no bounded interval (Fieller 1954), and
    none is given.
    """
    over, under = _by_cluster(numerator, cluster), _by_cluster(denominator, cluster)
    weights, seeds = _draws(over, resamples, seed, mean_block)
    below, drawn = under.mean(axis=1), weights @ under.T
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = weights @ over.T / drawn
        found = over.mean(axis=1) / below
    one_sign = np.all(np.sign(drawn) == np.sign(below)) and np.all(below != 0)
    bounded = bool(one_sign) and over.shape[1] > 1
    return _percentiles(found, ratios, seeds, statistic, level, bounded=bounded)


def block_bootstrap_interval(
    daily: ArrayLike,
    statistic: Daily,
    *,
    mean_block: float = MEAN_BLOCK,
    over_seeds: Statistic = interquartile_mean,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic of daily returns `[D]`, or over seeds that of each row of `[S, D]`.

    Stationary bootstrap (Politis & Romano 1994): days are drawn in runs that start anywhere, last
    mean_block days on average and go on from the first after the last. All seeds saw the same days:
    they get the same resampled days, and are resampled themselves, crossed; one seed is taken as
    given. Resamples whose statistic is NaN, such as a Sharpe ratio without variance, are left out;
    of fewer than two days the interval is unbounded.
    """
    returns = np.atleast_2d(np.asarray(daily, np.float64))
    if returns.ndim != 2 or not returns.size or mean_block < 1:
        found = f"daily returns of shape {np.shape(daily)} and blocks of {mean_block}"
        raise ValueError(
            f"found {found}, expected [days] or [seeds, days], and blocks of 1 or more"
        )
    seeds, days = returns.shape
    estimate = np.asarray(statistic(returns))
    if days < 2:
        return Interval(float(over_seeds(estimate, axis=-1)), -np.inf, np.inf)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            np.asarray(statistic(returns[:, _stationary(count, days, mean_block, rng)])).T
            for count in _chunks(resamples, returns.size)
        ]
    )
    shuffled = rng.integers(seeds, size=(resamples, seeds))
    return _percentiles(estimate, drawn, shuffled, over_seeds, level, bounded=True)


def cluster_bootstrap_interval(
    values: ArrayLike,
    cluster: ArrayLike,
    statistic: Daily,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic of values `[D]`, of which those of one cluster `[D]` are resampled together.

    For sessions of simulated paths, whose cluster is the episode, or round trips of a session.
    Values of a cluster stay in their order. NaN resamples are left out, and of fewer than
    two clusters the interval is unbounded, as in `block_bootstrap_interval`.
    """
    array, labels = np.asarray(values, np.float64), np.asarray(cluster)
    if array.ndim != 1 or not array.size or labels.shape != array.shape:
        found = f"values of shape {array.shape} in clusters of shape {labels.shape}"
        raise ValueError(f"found {found}, expected [D] of both")
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    value, clusters = float(statistic(array)), len(sizes)
    if clusters < 2:
        return Interval(value, -np.inf, np.inf)
    ordered, rng = array[np.argsort(index, kind="stable")], np.random.default_rng(seed)
    if np.all(sizes == sizes[0]):
        each = ordered.reshape(clusters, -1)
        samples: list[Any] = [
            statistic(each[rng.integers(clusters, size=(count, clusters))].reshape(count, -1))
            for count in _chunks(resamples, array.size)
        ]
        return Interval(value, *_ends(np.concatenate(samples), level))
    begin = np.cumsum(sizes) - sizes
    samples = []
    for _ in range(resamples):
        drawn = rng.integers(clusters, size=clusters)
        lengths = sizes[drawn]
        skipped = np.repeat(begin[drawn] - (np.cumsum(lengths) - lengths), lengths)
        samples.append(statistic(ordered[skipped + np.arange(len(skipped))]))
    return Interval(value, *_ends(np.array(samples, np.float64), level))


def _tasks(scores: ArrayLike) -> list[Array]:
    """The columns of scores `[R]` or `[R, K]`."""
    array = np.asarray(scores, np.float64)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"found scores of shape {array.shape}, expected [runs] or [runs, tasks]")
    return list(array.T) if array.ndim == 2 else [array]


def _resampled(
    samples: tuple[Array, ...], statistic: Statistic, level: float, resamples: int, seed: int
) -> Interval:
    """SciPy's percentile bootstrap of samples that are independent of each other."""
    ends = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(statistic(*samples)), float(ends.low), float(ends.high))


def _by_cluster(values: ArrayLike, cluster: ArrayLike | None) -> Array:
    """Means of the clusters, `[S, C]`, of values `[N]` or `[S, N]`."""
    array = np.atleast_2d(np.asarray(values, np.float64))
    if array.ndim != 2 or not array.size:
        raise ValueError(f"found values of shape {array.shape}, expected [episodes] or [seeds, …]")
    if cluster is None:
        return array
    _, index = np.unique(np.asarray(cluster), return_inverse=True)
    if len(index) != array.shape[1]:
        raise ValueError(f"found {len(index)} clusters' labels of {array.shape[1]} episodes")
    return np.stack([np.bincount(index, row) for row in array]) / np.bincount(index)


def _draws(
    episodes: Array, resamples: int, seed: int, mean_block: float = 1.0
) -> tuple[Array, NDArray[np.int64]]:
    """Weights `[B, C]` of resampled clusters, which sum to 1, and resampled seeds `[B, S]`."""
    seeds, clusters = episodes.shape
    rng = np.random.default_rng(seed)
    # Each resample counts its clusters in a row of its own: several times faster than multinomials.
    if mean_block > 1:
        drawn = _stationary(resamples, clusters, mean_block, rng)
    else:
        drawn = rng.integers(clusters, size=(resamples, clusters))
    rows = drawn + clusters * np.arange(resamples)[:, None]
    counts = np.bincount(rows.ravel(), minlength=resamples * clusters).reshape(rows.shape)
    return counts / clusters, rng.integers(seeds, size=(resamples, seeds))


def _percentiles(
    found: Array,
    drawn: Array,
    seeds: NDArray[np.int64],
    statistic: Statistic,
    level: float,
    *,
    bounded: bool,
) -> Interval:
    """The statistic of the seeds' values `[S]`; its interval from values drawn `[B, S]`."""
    value = float(statistic(found, axis=-1))
    if not bounded:
        return Interval(value, -np.inf, np.inf)
    samples = np.take_along_axis(drawn, seeds, axis=1)
    return Interval(value, *_ends(np.asarray(statistic(samples, axis=-1)), level))


def _chunks(resamples: int, size: int) -> list[int]:
    """Counts of resamples, which sum to all of them, of `size` numbers each."""
    at_once = max(CHUNK // size, 1)
    whole, rest = divmod(resamples, at_once)
    return [at_once] * whole + [rest] * (rest > 0)


def _stationary(
    count: int, days: int, mean_block: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Days `[count, days]` of resamples of the stationary bootstrap."""
    place = np.arange(days)
    starts = rng.random((count, days)) < 1.0 / mean_block
    begun = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    first = np.take_along_axis(rng.integers(days, size=(count, days)), begun, axis=1)
    return np.asarray((first + place - begun) % days)


def _ends(samples: Array, level: float) -> tuple[float, float]:
    """Percentiles of the samples that are not NaN, never between a number and infinity."""
    kept = np.sort(samples[~np.isnan(samples)])
    if not kept.size:
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    if np.isfinite(kept).all():
        low, high = np.quantile(kept, [tail, 1.0 - tail])
    else:
        last = kept.size - 1
        low, high = kept[math.floor(tail * last)], kept[math.ceil((1.0 - tail) * last)]
    return float(low), float(high)
