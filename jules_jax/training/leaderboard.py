"""The leaderboard: how the members of a population stand, best first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORE = "pnl/net"
"""What members are ranked by: rewards would not compare where their penalties differ."""


@dataclass
class _Standing:
    """A member's newest scalars, its best score, and when that was."""

    scalars: Mapping[str, float]
    best: float = -np.inf
    update: int = 0
    copied_from: str = ""


class Leaderboard:
    """Best scores so far: `add` each update's scalars, then `scores` or `table`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._standings = {name: _Standing({}) for name in names}

    def add(self, update: int, scalars: Sequence[Mapping[str, float]]) -> None:
        """Takes every member's scalars after `update` (from 1), in the order of the names."""
        for standing, newest in zip(self._standings.values(), scalars, strict=True):
            standing.scalars = newest
            if newest.get(SCORE, -np.inf) > standing.best:
                standing.best, standing.update = newest[SCORE], update

    def copied(self, name: str, source: str) -> None:
        """A member goes on from another one's weights: what its own had earned says nothing now."""
        self._standings[name] = _Standing({}, copied_from=source)

    def snapshot(self) -> dict[str, Any]:
        """All that it knows, as JSON has it."""
        return {name: dataclasses.asdict(standing) for name, standing in self._standings.items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`."""
        self._standings = {name: _Standing(**standing) for name, standing in snapshot.items()}

    def scores(self) -> NDArray[np.float64]:
        """Newest scores, in the order of the names; −inf before a member's first whole episode."""
        return np.array([s.scalars.get(SCORE, -np.inf) for s in self._standings.values()])

    def table(self) -> str:
        """Members by their best score so far: dollars net and reward per episode, nats, sources."""
        width = max(len("member"), *map(len, self._standings))
        header = (
            f"{'member':<{width}}{'best net, $':>13}{'at update':>11}{'now, $':>11}{'reward':>9}"
            f"{'entropy':>9}  {'weights from'}"
        ).rstrip()
        ranked = sorted(self._standings.items(), key=lambda item: -item[1].best)
        lines = [header, "-" * len(header)]
        for name, of in ranked:
            now = of.scalars
            lines.append(
                f"{name:<{width}}{_shown(of.best, 13)}{of.update:>11,}"
                f"{_shown(now.get(SCORE), 11)}{_shown(now.get('rollout/ep_rew_mean'), 9)}"
                f"{_shown(-now.get('train/entropy_loss', np.nan), 9)}  {of.copied_from}".rstrip()
            )
        return "\n".join(lines)


def _shown(value: float | None, width: int) -> str:
    known = value is not None and np.isfinite(value)
    return f"{f'{value:,.2f}' if known else '–':>{width}}"
