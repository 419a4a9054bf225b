"""Judgement: what an assessment comes to, in figures and in one sentence, with all luck counted.

It is the same for one checkpoint and for the joined tests of a walk-forward.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.evaluation import overfitting, track_records
from jules_jax.evaluation.assessment import Assessment
from jules_jax.evaluation.prices import Prices
from jules_jax.evaluation.report import content
from jules_jax.evaluation.report.content import Luck
from jules_jax.evaluation.statistics import interquartile_mean
from jules_jax.training import market, registry, run_history

FEWEST_TRIALS = 10
FEWEST_BLOCKS = 16
"""Trials and sessions from which the probability of backtest overfitting is told; of as many
trials the variance of their Sharpe ratios is taken for known."""


@dataclass(frozen=True)
class Weights:
    """A checkpoint, and the SHA-256 of its weights."""

    checkpoint: Path
    digest: str


@dataclass(frozen=True)
class Judgement:
    """Of an assessment: its policies as `report.schema.POLICY`, and the sentence.

    settings: the resolved config that it was asked for with. weights: of all that was played.
    """

    settings: config.Config
    weights: tuple[Weights, ...]
    found: Assessment
    luck: Luck
    policies: dict[str, Any]
    sentence: str
    notes: tuple[str, ...]

    def text(self) -> str:
        """The table of all policies, the sentence, and the notes."""
        lines = [content.table(self.found, self.policies), "", self.sentence]
        return "\n".join([*lines, *(f"note        {note}" for note in self.notes)])


def judge(
    found: Assessment,
    settings: config.Config,
    weights: Sequence[Weights],
    *,
    procedure: str = "",
) -> Judgement:
    """Counts an assessment on recorded bars as a trial, and says what it comes to.

    procedure: how the weights were come by, in words, where they are not those of one checkpoint.
    """
    luck, notes = _luck(found, settings, weights, procedure)
    told = content.policies(found, luck)
    sentence = content.sentence(found, told, luck)
    return Judgement(
        settings, tuple(weights), found, luck, told, sentence, (*found.notes, *notes)
    )  # fmt: skip


def openings(settings: config.Config) -> int:
    """How often test splits have been looked at, by the registry."""
    runs = run_history.runs(registry.read(Path(settings.runs_dir)))
    return sum(each.test_openings for each in runs)


def ground_key(settings: config.Config, ground: Prices) -> str:
    """Names the sessions that track records are of: the bars by content, and the split."""
    text = json.dumps([market.fingerprint(settings.market), ground.split], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _luck(
    found: Assessment, settings: config.Config, weights: Sequence[Weights], procedure: str
) -> tuple[Luck, list[str]]:
    """What the trials so far make of the figures; on recorded bars this evaluation joins them."""
    runs_dir, ground = Path(settings.runs_dir), found.prices
    trials = run_history.trials(run_history.runs(registry.read(runs_dir)))
    if not ground.labels:
        return Luck(max(trials, 1), None), []
    key = ground_key(settings, ground)
    for name in (name for name, kind in found.kinds.items() if kind == "trained"):
        own = config.to_dict(settings) | {"policy": name, "procedure": procedure}
        record = track_records.trial(
            registry.config_hash(own),
            _digest(weights)[:12],
            ground.labels,
            interquartile_mean(found.days(name).returns, axis=0),
        )
        runs_dir.mkdir(parents=True, exist_ok=True)
        track_records.append(runs_dir, key, record)
    matrix, names = track_records.read(runs_dir, key, ground.labels)
    luck = Luck(max(trials, len(names)), _variance(matrix))
    notes = [
        f"{luck.trials:,} trials are counted against the Sharpe ratio, {len(names)} of them "
        "with returns on these sessions"
    ]
    if len(names) >= FEWEST_TRIALS and len(matrix) >= FEWEST_BLOCKS:
        cross = overfitting.probability_of_backtest_overfitting(matrix)
        notes.append(
            f"probability of backtest overfitting {cross.pbo:.0%} (cross-validation over "
            f"{len(names)} trials)"
        )
    else:
        notes.append(
            f"the probability of backtest overfitting needs {FEWEST_TRIALS} trials and "
            f"{FEWEST_BLOCKS} sessions, and there are {len(names)} and {len(matrix)}"
        )
    return luck, notes


def _digest(weights: Sequence[Weights]) -> str:
    """Of one checkpoint its own, of several that of theirs in order."""
    if len(weights) == 1:
        return weights[0].digest
    return hashlib.sha256("".join(each.digest for each in weights).encode()).hexdigest()


def _variance(matrix: NDArray[np.float64]) -> float | None:
    """Of the trials' Sharpe ratios, of returns `[D, K]`; None of too few to know it."""
    if matrix.shape[1] < FEWEST_TRIALS or len(matrix) < 2:
        return None
    return overfitting.variance_across_trials(matrix)
