"""Search: which values of a setting are tried, and which is chosen, for a response that is noisy.

A grid comes first, all values from the same seeds, so that what they share cancels between them.
The monotone fit of what it shows is solved for the aim; that value is then measured on new seeds,
as the best of several is partly the luckiest, and joins the fit. The first value that holds on new
seeds is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

DIGITS = 3
"""Significant digits of the values tried: what is chosen is written down and typed again."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """What a value of the setting led to: a mean over agents, and its standard error over them."""

    value: float
    mean: float
    error: float
    agents: int


@dataclass(frozen=True)
class Target:
    """Responses from `aim` − `tolerance` to `aim` + `tolerance` are what is looked for."""

    aim: float
    tolerance: float

    def holds(self, response: Response) -> bool:
        """Whether the mean is within the tolerance."""
        return self.distance(response) <= self.tolerance

    def distance(self, response: Response) -> float:
        """Of the mean from the aim."""
        return abs(response.mean - self.aim)


@dataclass(frozen=True)
class Outcome:
    """All responses, in the order measured; the one chosen, or the nearest where none held."""

    responses: tuple[Response, ...]
    best: Response
    reached: bool


Measure = Callable[[Sequence[float], int], Sequence[Response]]
"""`(values, round) -> a response to each`; rounds, from 0, have seeds of their own."""


def grid(low: float, high: float, points: int) -> tuple[float, ...]:
    """`points` (2 or more) values from low to high, by a constant factor, or step from a low of 0.

    Values that are the same to `DIGITS` are tried once.
    """
    spaced = np.geomspace(low, high, points) if low > 0 else np.linspace(low, high, points)
    return tuple(dict.fromkeys(rounded(float(value)) for value in spaced))


def rounded(value: float) -> float:
    """The value to `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def fit(responses: Sequence[Response]) -> tuple[Array, Array]:
    """Values, ascending, and the monotone least-squares fit of their means, weighted by agents.

    Of rising and falling the one that fits better. Responses to one value are one point.
    """
    tried = np.array([each.value for each in responses])
    agents = np.array([each.agents for each in responses], np.float64)
    means = np.array([each.mean for each in responses])
    values, index = np.unique(tried, return_inverse=True)
    weights = np.bincount(index, agents)
    pooled = np.bincount(index, agents * means) / weights
    fits = [
        optimize.isotonic_regression(pooled, weights=weights, increasing=rising).x
        for rising in (True, False)
    ]
    misfits = [np.sum(weights * (pooled - fitted) ** 2) for fitted in fits]
    return values, fits[int(np.argmin(misfits))]


def solve(responses: Sequence[Response], aim: float) -> float | None:
    """The value at which the fit is `aim`, linear in between; None where it never is.

    Where the fit is flat at the aim, the middle of the flat stretch.
    """
    values, fitted = fit(responses)
    levels, index = np.unique(fitted, return_inverse=True)
    if not levels[0] <= aim <= levels[-1]:
        return None
    at_level = np.searchsorted(levels, aim)
    if levels[at_level] == aim:
        flat = values[index == at_level]
        return float(0.5 * (flat[0] + flat[-1]))
    below, above = values[index == at_level - 1], values[index == at_level]
    rising = below[-1] < above[0]
    ends = (below[-1], above[0]) if rising else (below[0], above[-1])
    return float(np.interp(aim, levels[at_level - 1 : at_level + 1], ends))


def search(
    measure: Measure, target: Target, values: Sequence[float], *, confirmations: int
) -> Outcome:
    """Measures the grid of `values`, then the fit's solution until it holds on new seeds.

    After as many `confirmations` without that, or where the fit never is the aim, nothing is
    reached and the nearest response is told of. With 0 of them the nearest of the grid is taken at
    its word.
    """
    responses = list(measure(values, 0))
    for turn in range(1, confirmations + 1):
        value = _next_value(responses, target)
        if value is None:
            break
        (response,) = measure([value], turn)
        responses.append(response)
        if target.holds(response):
            return Outcome(tuple(responses), response, True)
    # on new seeds, where there were any: the nearest of the grid may only have been lucky
    nearest = min(responses[len(values) :] or responses, key=target.distance)
    reached = confirmations == 0 and target.holds(nearest)
    return Outcome(tuple(responses), nearest, reached)


def _next_value(responses: Sequence[Response], target: Target) -> float | None:
    """The fit's solution; where the aim is just outside of the fit, the nearest that would do."""
    solution = solve(responses, target.aim)
    if solution is not None:
        return rounded(solution)
    nearest = min(responses, key=target.distance)
    return nearest.value if target.holds(nearest) else None
