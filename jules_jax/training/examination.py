"""Examination: checkpoints judged on prices that they have not seen, from weights to report.

Everything that is told is played here, and a sample is re-derived in the float64 twin: where that
disagrees, nothing that was told is to be believed, and the command fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jules_jax import config
from jules_jax.agent import network
from jules_jax.evaluation import assessment, audit, prices
from jules_jax.evaluation.assessment import Assessment
from jules_jax.evaluation.prices import Prices
from jules_jax.market.splits import Split
from jules_jax.training import (
    acceptance,
    checkpoints,
    judgement,
    replay,
    reporting,
    run_directory,
    run_history,
    scenarios,
)
from jules_jax.training.judgement import Weights
from jules_jax.training.replay import Recorder

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What an examination is to do beyond playing.

    episodes: on simulated paths; draws: accounts of each symbol on recorded bars. audited: how many
    episodes, or which share of them, are kept in `out`/audit; 0: none. extras: of stress, capacity
    and sensitivity, those asked for.
    """

    split: Split = "validation"
    episodes: int = 1024
    draws: int = 8
    out: Path | None = None
    audited: float = 0.0
    replay_all: bool = False
    extras: tuple[str, ...] = ()


def examine(
    settings: config.Config, checkpoint: Path, params: network.Params, asked: Asked, say: Say
) -> bool:
    """Plays, prints, checks and writes; whether the twin agrees.

    settings: of the checkpoint, with what was changed. Raises `InputError` where prices, registry
    or `asked.out` cannot be had.
    """
    final = settings.for_evaluation()
    ground = _prices(final, asked)
    if asked.out:
        reporting.claim(asked.out, trail=bool(asked.audited))
    if asked.split == "test" and settings.market.data:
        run_history.opened_test_split(settings, checkpoint)
        say(f"test split  opened {judgement.openings(settings)} times so far, this one included")
    for note in ground.notes:
        say(f"prices      {note}")
    trail = asked.out / "audit" if asked.out and asked.audited else None
    with Recorder(
        final, checkpoint, params, ground,
        audited=asked.audited, everything=asked.replay_all, trail=trail,
    ) as recorder:  # fmt: skip
        found = play(final, params, ground, recorder)
        weights = Weights(checkpoint, checkpoints.digest(params))
        judged = judgement.judge(found, settings, [weights])
        say(f"\n{judged.text()}")
        parts: dict[str, Any] = {"gates": _gates(settings, checkpoint)}
        for name in asked.extras:
            parts[name], text = scenarios.lines(name, final, params, asked.split)
            say(f"\n{text}")
        replayed = recorder.replayed()
    say(f"\n{audit.report(replayed.verification)}")
    if trail:
        say(f"wrote {trail}; check it with: python -m jules_jax.audit verify {trail}")
    if asked.out:
        for file in reporting.write(
            judged,
            asked.out,
            watched=replayed.watched[:1],
            replay=replay.told([replayed.verification]),
            parts=parts,
        ):
            say(f"wrote {file}")
    return replayed.verification.clean


def play(
    final: config.Config, params: network.Params, ground: Prices, recorder: Recorder
) -> Assessment:
    """All accounts under all policies; a bar on a terminal shows how far it is."""
    with tqdm(total=ground.accounts, desc="accounts", leave=False, disable=None) as bar:
        return assessment.assess(
            final, params, ground,
            say=lambda done, of: bar.update(done - bar.n) and None, recorder=recorder,
        )  # fmt: skip


def _prices(final: config.Config, asked: Asked) -> Prices:
    if final.market.data:
        return prices.recorded(final, asked.split, asked.draws)
    return prices.simulated(final, asked.episodes)


def _gates(settings: config.Config, checkpoint: Path) -> dict[str, Any] | None:
    """The verdict of the checkpoint's run, or of the directory it was shared in, if it has one."""
    run = acceptance.run_of(checkpoint, settings)
    for place in (run, checkpoint.parent):
        if place is not None and (file := place / run_directory.GATES_FILE).is_file():
            verdict: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return verdict
    return None
