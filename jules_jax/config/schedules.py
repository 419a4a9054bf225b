"""Schedules and ranges: numbers that move with training, and numbers that every episode draws.

    schedules:
      ppo.ent_coef: {linear: [0.03, 0.01]}            # from the first update to the last
      fills.bid_ask_spread_bps: {cosine: [0, 5]}      # slow at both ends
      simulator.momentum_strength: {piecewise: [[0, 0.02], [0.5, 0.02], [1, 0.012]]}
    randomise:
      fills.temporary_impact: [0.1, 0.2]              # uniform, drawn anew for every episode

Progress is the share of training done, 0 in the first update and 1 in the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SHAPES = ("linear", "cosine", "piecewise")

DRAWDOWN_WEIGHT = "reward.drawdown_weight"
NAMES = {
    DRAWDOWN_WEIGHT: ("reward.drawdown_weight_start", "reward.drawdown_weight_end"),
}
"""What a schedule may name besides a parameter, and the parameters that take its value: with both
ends alike, the drawdown weight is that value."""

FIXED = frozenset(
    (
        "account.initial_capital",  # these two give the market its smallest quantity
        "simulator.start_price",
        *NAMES[DRAWDOWN_WEIGHT],  # ends of schedules of their own, as are those below
        "reward.drawdown_schedule",
        "ppo.learning_rate_end",
        "ppo.ent_coef_end",
    )
)
"""Numbers that stay as they are in a run."""

SCHEDULED_SECTIONS = ("ppo", "account", "fills", "safeguards", "reward", "simulator")
RANDOMISED_SECTIONS = ("fills", "simulator")
BORROW_RATE = "account.borrow_rate"
"""The one cost that is not of the fills."""


@dataclass(frozen=True)
class Schedule:
    """The value of `key` over progress; `points` are (progress, value), progress ascending."""

    key: str
    shape: str
    points: tuple[tuple[float, float], ...]

    def at(self, progress: float) -> float:
        """The value at `progress`; before the first point and after the last it is theirs."""
        if progress <= self.points[0][0]:
            return self.points[0][1]
        for (start, low), (end, high) in pairwise(self.points):
            if progress <= end:
                share = (progress - start) / (end - start)
                if self.shape == "cosine":
                    share = 0.5 * (1.0 - math.cos(math.pi * share))
                return (1.0 - share) * low + share * high
        return self.points[-1][1]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Dotted keys of the parameters that take the value."""
        return NAMES.get(self.key, (self.key,))


@dataclass(frozen=True)
class Range:
    """The interval that an episode, or a path of the simulator, draws `key` from, uniformly."""

    key: str
    low: float
    high: float


def may_be_scheduled(key: str, kind: str) -> bool:
    """Whether the parameter `key`, of type `kind`, may move: a number that shapes no array."""
    section = key.partition(".")[0]
    return kind == "float" and section in SCHEDULED_SECTIONS and key not in FIXED


def may_be_randomised(key: str, kind: str) -> bool:
    """Whether episodes may draw the parameter: a cost, or a number of the simulated market."""
    ours = key.partition(".")[0] in RANDOMISED_SECTIONS or key == BORROW_RATE
    return ours and may_be_scheduled(key, kind)


def read_schedules(raw: Any, find_key: Callable[[str], str]) -> tuple[Schedule, ...]:
    """Schedules by key, from a mapping as above or its text; `find_key` completes names.

    Raises `ValueError` with what was found and what was expected.
    """
    return tuple(
        _schedule(name if name in NAMES else find_key(name), value)
        for name, value in sorted(_mapping(raw).items())
    )


def read_ranges(raw: Any, find_key: Callable[[str], str]) -> tuple[Range, ...]:
    """Ranges by key, likewise."""
    ranges = []
    for name, value in sorted(_mapping(raw).items()):
        low, high = _numbers(value, f"{name} is {value!r}, expected a range such as [1, 5]", 2)
        ranges.append(Range(find_key(name), low, high))
    return tuple(ranges)


def written(schedule: Schedule) -> dict[str, Any]:
    """A schedule's value in a file: `{linear: [0.03, 0.01]}`."""
    points = [list(point) for point in schedule.points]
    piecewise = schedule.shape == "piecewise"
    return {schedule.shape: points if piecewise else [value for _, value in points]}


def _mapping(raw: Any) -> Mapping[str, Any]:
    if isinstance(raw, str) and raw.strip():
        import yaml

        try:
            raw = yaml.load(raw, Loader=yaml.BaseLoader)
        except yaml.YAMLError:
            raise ValueError(f"{raw!r} is not YAML, expected {{key: ...}}") from None
    if isinstance(raw, str) or raw == ():
        return {}
    if not isinstance(raw, Mapping):
        raise ValueError(f"{raw!r} found, expected a mapping by key")
    return raw


def _schedule(key: str, value: Any) -> Schedule:
    expected = f"expected one of {', '.join(SHAPES)}, such as {{linear: [0.03, 0.01]}}"
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in SHAPES:
        raise ValueError(f"{key} is {value!r}, {expected}")
    shape, given = next(iter(value.items()))
    if shape != "piecewise":
        start, end = _numbers(given, f"{key} is {value!r}, expected {shape}: [start, end]", 2)
        return Schedule(key, shape, ((0.0, start), (1.0, end)))
    expected = (
        f"{key} is {value!r}, expected at least two points [progress, value], "
        "progress ascending from 0 to 1"
    )
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) < 2:
        raise ValueError(expected)
    points = [_numbers(point, expected, 2) for point in given]
    shares = [share for share, _ in points]
    if not all(a < b for a, b in pairwise(shares)) or shares[0] < 0 or shares[-1] > 1:
        raise ValueError(expected)
    return Schedule(key, shape, tuple((share, at) for share, at in points))


def _numbers(raw: Any, otherwise: str, count: int) -> tuple[float, ...]:
    try:
        if isinstance(raw, str) or len(raw) != count or any(isinstance(v, bool) for v in raw):
            raise TypeError
        return tuple(float(value) for value in raw)
    except (TypeError, ValueError):
        raise ValueError(otherwise) from None
