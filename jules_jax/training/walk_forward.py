"""Walk-forward: trained on one stretch, tested on the next, again and again; the tests joined.

Every test is judged as any evaluation is: all reference policies beside the trained one, the same
costs, a replay in the float64 twin. Joined they are one history, and one report is written of it.
"""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jules_jax import config
from jules_jax.evaluation import assessment, audit, prices
from jules_jax.evaluation.assessment import Assessment
from jules_jax.evaluation.audit import Verification
from jules_jax.evaluation.report.content import Watched
from jules_jax.market import rolling
from jules_jax.market.rolling import Fold, Windows
from jules_jax.training import (
    backend,
    checkpoints,
    examination,
    folds,
    judgement,
    replay,
    reporting,
)
from jules_jax.training.examination import Asked
from jules_jax.training.judgement import Judgement, Weights
from jules_jax.training.preparation import Say
from jules_jax.training.replay import Recorder


@dataclass(frozen=True)
class Tested:
    """A fold after its test; the bars are not held any more.

    watched: accounts of the greedy policy, bar by bar.
    """

    fold: Fold
    weights: Weights
    found: Assessment
    verification: Verification
    watched: Watched


@dataclass(frozen=True)
class WalkForward:
    """All folds, oldest first, and what their tests come to together.

    notes: what is not tested, or may not be unseen.
    """

    windows: Windows
    folds: tuple[Tested, ...]
    judged: Judgement
    notes: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the twin agrees in every fold."""
        return all(each.verification.clean for each in self.folds)


def command(settings: config.Config, extras: Mapping[str, Any], asked: Asked, say: Say) -> bool:
    """`evaluate --walk-forward WINDOWS`: trains, tests, prints and writes; whether the twin agrees.

    extras: `walk_forward`, and `init_from` or None. Raises as `run` and `rolling.parse`.
    """
    windows, init_from = rolling.parse(extras["walk_forward"]), extras["init_from"]
    backend.use_compilation_cache()
    backend.configure(settings)
    weights = Path(init_from) if init_from else None
    return run(settings, windows, asked, init_from=weights, say=say).agrees


def run(
    settings: config.Config,
    windows: Windows,
    asked: Asked,
    *,
    init_from: Path | None = None,
    say: Say,
) -> WalkForward:
    """Trains and tests every fold of `market.data`, oldest first, and writes `asked.out`.

    A fold that was trained before, with the same config on the same bars, is not trained again; one
    that was interrupted goes on. `init_from` is a checkpoint that every fold begins with the
    weights of: none by default, and never those of the fold before.

    Raises:
      InputError: before anything is trained, where settings, bars or windows do not suit, where a
        run of another config has a fold's name, or where `asked.out` cannot be written.
      Diverged, Stopped: as of `loop.train`.
    """
    init_from = checkpoints.find(init_from) if init_from else None
    plan = folds.plan(settings, windows, init_from)
    if asked.out:
        reporting.claim(asked.out)
    say(f"walk-forward  {windows}: {len(plan.folds)} folds of {settings.market.data}")
    for note in plan.notes:
        say(f"              {note}")
    tested = []
    for fold, own in plan.folds:
        say(f"\nfold {fold.number}      trained {fold.train}, tested {fold.test}\n")
        checkpoint = folds.trained(own, fold, init_from, say)
        folds.count_opening(own, checkpoint)
        tested.append(_tested(fold, own, checkpoint, asked))
        gc.collect()  # the fold's learner and market, whose parts hold one another
    weights = [each.weights for each in tested]
    whole = assessment.joined([each.found for each in tested])
    judged = judgement.judge(whole, plan.settings, weights, procedure=str(windows))
    found = WalkForward(windows, tuple(tested), judged, plan.notes)
    told = as_json(found)
    _tell(found, told["folds"], say)
    if asked.out:
        for file in reporting.write(
            judged,
            asked.out,
            watched=[each.watched for each in tested],
            replay=replay.told([each.verification for each in tested]),
            parts={"walk_forward": told},
            notes=plan.notes,
        ):
            say(f"wrote {file}")
    return found


def _tested(fold: Fold, settings: config.Config, checkpoint: Path, asked: Asked) -> Tested:
    """A fold's test: all its sessions, under all policies."""
    final = settings.for_evaluation()
    params = checkpoints.load_params(checkpoint, settings)
    ground = prices.recorded(final, "test", asked.draws)
    with Recorder(final, checkpoint, params, ground, everything=asked.replay_all) as recorder:
        found = examination.play(final, params, ground, recorder)
        replayed = recorder.replayed()
    return Tested(
        fold,
        Weights(checkpoint, checkpoints.digest(params)),
        dataclasses.replace(found, prices=prices.without_bars(ground)),
        replayed.verification,
        replayed.watched[0],
    )


def _tell(found: WalkForward, told: Sequence[Mapping[str, Any]], say: Say) -> None:
    say("")
    for note in found.judged.found.prices.notes:
        say(f"prices      {note}")
    say(f"\n{table(told)}\n\n{found.judged.text()}\n")
    for each in found.folds:
        twin, name = each.verification, f"fold {each.fold.number}"
        if twin.clean:
            agrees = f"the twin agrees on {twin.steps:,} steps of {twin.episodes:,} accounts"
            say(f"{name:<12}{agrees}")
        else:
            say(f"{name:<12}the twin disagrees, believe nothing\n{audit.report(twin)}")


# -- what is told of folds -----------------------------------------------------------------------


def as_json(found: WalkForward) -> dict[str, Any]:
    """As `report.schema.WALK_FORWARD`."""
    judged = found.judged
    greedy = next(iter(judged.policies))
    return {
        "windows": str(found.windows),
        "folds": [_fold(each) for each in found.folds],
        "overall": judged.policies[greedy]["overall"],
        "sentence": judged.sentence,
        "trials": judged.luck.trials,
        "test_openings": judgement.openings(judged.settings),
        "notes": list(found.notes),
    }


def _fold(tested: Tested) -> dict[str, Any]:
    fold, found = tested.fold, tested.found
    greedy, sampled = (name for name, kind in found.kinds.items() if kind == "trained")
    net = {name: found.net_pnl(name).value for name in found.ledgers}
    best, own = assessment.best_reference(found.kinds, net), found.figures(greedy)
    return {
        "train": list(fold.train),
        "validation": list(fold.validation) if fold.validation else None,
        "test": list(fold.test),
        "sessions": len(found.prices.labels),
        "symbols": [found.prices.symbols[number] for number in found.symbols],
        "net_pnl": net[greedy],
        "sampled_net_pnl": net[sampled],
        "best_reference": best,
        "best_reference_net_pnl": net[best],
        "gross_pnl": own["gross_pnl"].value,
        "cost_total_bp": own["cost_total_bp"].value,
        "sharpe": own["sharpe"].value,
        "sharpe_error": own["sharpe"].error,
        "stopped_accounts": found.stopped(greedy),
        "checkpoint": str(tested.weights.checkpoint),
        "checkpoint_hash": tested.weights.digest,
    }


def table(folds: Sequence[Mapping[str, Any]]) -> str:
    """The folds as text, one a line: the greedy policy's figures, the others' net P&L.

    folds: as `report.schema.FOLD`, what is not known NaN.
    """
    head = (
        f"{'greedy':<8}{'trained':<26}{'tested':<26}{'sessions':>8}{'net P&L, $':>13}"
        f"{'gross, $':>13}{'costs, bp':>11}{'Sharpe':>17}{'stopped':>9}{'sampled, $':>13}"
        "  best reference, $"
    )
    return "\n".join([head, "-" * len(head), *(_line(*each) for each in enumerate(folds))])


def _line(number: int, fold: Mapping[str, Any]) -> str:
    trained, tested = (" to ".join(fold[name]) for name in ("train", "test"))
    costs, ratio, error = (fold[name] for name in ("cost_total_bp", "sharpe", "sharpe_error"))
    return (
        f"{f'fold {number}':<8}{trained:<26}{tested:<26}{fold['sessions']:>8}"
        f"{fold['net_pnl']:>13,.2f}{fold['gross_pnl']:>13,.2f}"
        f"{'–' if math.isnan(costs) else f'{costs:.2f}':>11}"
        f"{'–' if math.isnan(ratio) else f'{ratio:.2f} ± {error:.2f}':>17}"
        f"{fold['stopped_accounts']:>9}{fold['sampled_net_pnl']:>13,.2f}"
        f"  {fold['best_reference']} {fold['best_reference_net_pnl']:,.2f}"
    )
