"""Distances between the laws of returns of two samples.

A yardstick says how far real bars are from themselves: the odd sessions of a symbol against its
even ones. A classifier that is trained to tell two samples apart is the other usual test; it is not
made here, as its verdict depends on the features it is given.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jules_jax.market.stylised_facts.measures import Facts, Float64


def kolmogorov_smirnov(x: Float64, y: Float64) -> float:
    """Largest distance between the distribution functions of samples `x` `[N]` and `y` `[M]`."""
    x, y = np.sort(x), np.sort(y)
    at = np.concatenate([x, y])
    below = [np.searchsorted(sample, at, side="right") / len(sample) for sample in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


def wasserstein(x: Float64, y: Float64) -> float:
    """Mean distance between quantiles of two samples `[N]` of one size, in units of theirs."""
    return float(np.abs(np.sort(x) - np.sort(y)).mean())


def lines(name: str, simulated: Facts, others: Mapping[str, Facts]) -> str:
    """What a report says of the paths called `name` against recorded symbols `others`, by name."""
    told = [
        f"{'distance of r in its sd':<34}{'KS':>8}{'odd / even':>12}"
        f"{'Wasserstein-1':>16}{'odd / even':>12}"
    ]
    for other, facts in others.items():
        distances = [
            measure(*pair)
            for measure in (kolmogorov_smirnov, wasserstein)
            for pair in ((simulated.scores, facts.scores), tuple(facts.scores_of_halves))
        ]
        cells = [f"{d:>{w}.3f}" for d, w in zip(distances, (8, 12, 16, 12), strict=True)]
        told.append(f"{f'{name} to {other}':<34}" + "".join(cells))
    return "\n".join(told)
