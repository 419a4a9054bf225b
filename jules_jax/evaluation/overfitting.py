"""How much of a backtest is the choice of the best of many.

Sharpe ratios, their variances and benchmarks here are those of one period (a day), not annualised.
Bailey & López de Prado (2012), "The Sharpe ratio efficient frontier", Journal of Risk 15(2), and
(2014), "The deflated Sharpe ratio", Journal of Portfolio Management 40(5); Bailey, Borwein, López
de Prado & Zhu (2017), "The probability of backtest overfitting", Journal of Computational Finance
20(4).
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from jules_jax.evaluation.performance import TrackRecord, sharpe_error

Array = NDArray[np.float64]

BLOCKS = 16
"""Of the cross-validation: 12,870 splits, as in the paper."""
MOST_BLOCKS = 20
"""184,756 splits; two blocks more are four times as many."""
CHUNK = 2**20
"""Scores of splits × configurations that are held at once."""
CONSTANT = 1e-12
"""Variance over mean square below which returns are taken to be all alike."""
DECIMALS = 12
"""Of scores that are compared: equal columns must tie, however their sums were rounded."""


class Overfitting(NamedTuple):
    """Cross-validation of the choice of the best configuration, over C splits.

    pbo: share of splits in which the configuration that was best in sample is below the median out
    of sample (at the median: half). logits: `[C]` of its rank out of sample, above 0 where it beat
    the median. slope: of its Sharpe ratio out of sample on that in sample: the degradation of
    performance, 1 for skill alone, 0 or below for luck. probability_of_loss: share of splits in
    which it lost money out of sample.
    """

    pbo: float
    logits: Array
    slope: float
    probability_of_loss: float


def probabilistic_sharpe(record: TrackRecord, benchmark: float = 0.0) -> Any:
    """Probability that the true Sharpe ratio is above a benchmark (2012, equation 11).

    NaN of fewer than two periods, or where the Sharpe ratio is NaN.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.divide(np.subtract(record.sharpe, benchmark), sharpe_error(record))
    return stats.norm.cdf(z)


def minimum_track_record_length(
    record: TrackRecord, benchmark: float = 0.0, confidence: float = 0.95
) -> Any:
    """Periods after which `probabilistic_sharpe` reaches the confidence (2012, equation 13).

    Its moments are supposed to stay what they are; `periods` is not used. Infinite where the Sharpe
    ratio is not above the benchmark.
    """
    above = np.subtract(record.sharpe, benchmark)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = sharpe_error(record._replace(periods=2))  # of one degree of freedom
        periods = 1.0 + np.square(error * stats.norm.ppf(confidence) / above)
    return np.where(above <= 0, np.inf, periods)[()]


def expected_maximum_sharpe(trials: float, variance: float = 1.0) -> float:
    """Expected best Sharpe ratio of trials without any skill (2014, equation 1).

    trials: independent ones, at least 1, of which alike trials are fewer than were run; variance:
    of the Sharpe ratios across trials. One trial chooses nothing: 0.
    """
    if not trials >= 1:
        raise ValueError(f"found {trials} trials, expected at least 1")
    if trials == 1:
        return 0.0
    upper, beyond = stats.norm.ppf([1.0 - 1.0 / trials, 1.0 - 1.0 / (trials * np.e)])
    expected = (1.0 - np.euler_gamma) * upper + np.euler_gamma * beyond
    return float(np.sqrt(variance) * max(expected, 0.0))


def variance_across_trials(returns: ArrayLike) -> float:
    """Variance of the Sharpe ratios of the columns of `[periods, trials]`.

    NaN of fewer than two columns. A column without variance has a ratio of 0, as in
    `probability_of_backtest_overfitting`.
    """
    matrix = _matrix(returns)
    if matrix.shape[1] < 2 or len(matrix) < 2:
        return float("nan")
    every = np.ones((1, len(matrix)))
    return float(_sharpes(every, np.ones(len(matrix)), matrix, matrix**2)[0].var(ddof=1))


def variance_of_luck(periods: int) -> float:
    """Of the Sharpe ratios of trials without skill, over so many periods: 1/(periods − 1)."""
    return 1.0 / max(periods - 1, 1)


def deflated_sharpe(record: TrackRecord, trials: float, variance: float | None = None) -> Any:
    """Probability that the best of some trials has a Sharpe ratio above what luck alone expects.

    `probabilistic_sharpe` against `expected_maximum_sharpe` (2014, equation 2). variance: of the
    Sharpe ratios across trials; where it is not known, that of luck alone, 1/(periods − 1).
    """
    if variance is None:
        variance = variance_of_luck(record.periods)
    return probabilistic_sharpe(record, expected_maximum_sharpe(trials, variance))


def probability_of_backtest_overfitting(returns: ArrayLike, blocks: int = BLOCKS) -> Overfitting:
    """Combinatorially symmetric cross-validation of returns `[periods, configurations]` (2017).

    Periods are cut into an even number of consecutive blocks, as equal as can be; each half of the
    blocks in turn is the sample in which the best Sharpe ratio is chosen, and the other half the
    one it is ranked in. Ranks are shared by ties; what ties for the best is averaged. A column
    without variance in a half, such as a policy that does not trade, scores 0 there. With
    fewer than two configurations, or than two periods in a half, pbo is NaN and there are no
    logits. Raises `ValueError` where blocks are odd or more than 20, or more than the periods.
    """
    matrix = _matrix(returns)
    if blocks % 2 or not 2 <= blocks <= MOST_BLOCKS:
        raise ValueError(f"found {blocks} blocks, expected an even number from 2 to {MOST_BLOCKS}")
    periods, configurations = matrix.shape
    if configurations < 2 or periods < 4:
        return Overfitting(np.nan, np.empty(0), np.nan, np.nan)
    if periods < blocks:
        raise ValueError(f"found {periods} periods, expected at least {blocks}, one a block")
    parts = np.array_split(matrix, blocks)
    sizes = np.array([len(part) for part in parts], np.float64)
    sums = np.stack([part.sum(axis=0) for part in parts])
    squares = np.stack([(part**2).sum(axis=0) for part in parts])
    splits = _halves(blocks)
    at_once = max(CHUNK // configurations, 1)
    inside, outside, rank = (
        np.concatenate(each)
        for each in zip(
            *(
                _best(
                    _sharpes(chosen, sizes, sums, squares),
                    _sharpes(1.0 - chosen, sizes, sums, squares),
                )
                for chosen in np.split(splits, range(at_once, len(splits), at_once))
            ),
            strict=True,
        )
    )
    relative = rank / (configurations + 1)
    logits = np.log(relative / (1.0 - relative))
    # As NaN, and not as a warning, where the best is equally good in all samples.
    spread = inside.var() if np.ptp(inside) > 0 else np.nan
    return Overfitting(
        pbo=float(np.mean(0.5 - 0.5 * np.sign(np.round(logits, DECIMALS)))),
        logits=logits,
        slope=float(np.mean((inside - inside.mean()) * (outside - outside.mean())) / spread),
        probability_of_loss=float(np.mean(outside < 0)),
    )


def _matrix(returns: ArrayLike) -> Array:
    matrix = np.asarray(returns, np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"found returns of shape {matrix.shape}, expected [periods, trials]")
    return matrix


def _halves(blocks: int) -> Array:
    """Every choice of half of the blocks, `[C, blocks]`, 1 where a block is chosen."""
    chosen = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    halves = np.zeros((len(chosen), blocks))
    np.put_along_axis(halves, chosen, 1.0, axis=1)
    return halves


def _sharpes(chosen: Array, sizes: Array, sums: Array, squares: Array) -> Array:
    """Sharpe ratios `[C, N]` over chosen blocks `[C, S]` of sizes `[S]` and sums `[S, N]`."""
    periods = (chosen @ sizes)[:, None]
    mean, square = chosen @ sums / periods, chosen @ squares / periods
    variance = square - mean**2
    varies = variance > CONSTANT * square
    deviation = np.sqrt(np.where(varies, variance * periods / np.maximum(periods - 1, 1), 1.0))
    scores: Array = np.where(varies, mean / deviation, 0.0)
    return scores.round(DECIMALS)


def _best(inside: Array, outside: Array) -> tuple[Array, Array, Array]:
    """Of each split `[C, N]` its best in sample: its scores in and out, its rank out, 1 … N."""
    highest = inside.max(axis=1)
    best = inside == highest[:, None]
    share = best / best.sum(axis=1, keepdims=True)
    rank = stats.rankdata(outside, axis=1)
    return highest, (share * outside).sum(axis=1), (share * rank).sum(axis=1)
