"""What a walk-forward found: folds, their tests joined, a table, and the numbers as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jules_jax.errors import InputError
from jules_jax.evaluation import out_of_sample
from jules_jax.evaluation.out_of_sample import Series
from jules_jax.evaluation.whole_split import Accounts
from jules_jax.market.rolling import Fold, Windows

FILE = "walk_forward.json"
OF_FOLDS = ("net_pnl", "gross_pnl", "cost_total_bp", "sharpe")


@dataclass(frozen=True)
class Tested:
    """A fold, the checkpoint that was tested, and what each policy did, by name."""

    fold: Fold
    checkpoint: Path
    accounts: dict[str, Accounts]

    def series(self, who: str) -> Series:
        """The sessions of the test under one policy."""
        return out_of_sample.series(self.accounts[who])


@dataclass(frozen=True)
class WalkForward:
    """All folds, oldest first.

    agents: ever trained, as the registry counts them; openings: of test splits. notes: sentences
    about the folds.
    """

    windows: Windows
    folds: tuple[Tested, ...]
    agents: int
    openings: int
    notes: tuple[str, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """Names; the first, the sampled policy, is the one that the sentence is about."""
        return tuple(self.folds[0].accounts)

    def joined(self, who: str) -> Series:
        """The tests of all folds as one history."""
        return out_of_sample.joined([tested.series(who) for tested in self.folds])

    @property
    def sentence(self) -> str:
        """Whether there is anything, in one sentence about the sampled policy.

        It is decided beforehand which policy that is: the better of two is chosen by the test.
        """
        who = self.policies[0]
        return out_of_sample.sentence(
            self.joined(who),
            who=who.rpartition(", ")[2],
            windows=len(self.folds),
            agents=self.agents,
        )


def table(found: WalkForward) -> str:
    """The folds of every policy, and all of them joined, as text."""
    header = (
        f"{'':<8}{'trained':<26}{'tested':<26}{'sessions':>8}{'net P&L, $':>13}{'gross, $':>12}"
        f"{'costs, bp':>11}{'fills':>8}{'Sharpe':>17}"
    )
    lines = []
    for who in found.policies:
        lines += [who, header, "-" * len(header)]
        for each in found.folds:
            name = f"fold {each.fold.number}"
            lines.append(_line(name, str(each.fold.train), str(each.fold.test), each.series(who)))
        lines += [_line("joined", "", "", found.joined(who)), ""]
    told = "± is one standard error; of a policy that draws, figures are means over its draws"
    return "\n".join([*lines, told, "", found.sentence])


def _line(name: str, train: str, test: str, of: Series) -> str:
    numbers = out_of_sample.metrics(of)
    costs, ratio = numbers["cost_total_bp"].value, numbers["sharpe"]
    return (
        f"{name:<8}{train:<26}{test:<26}{len(of.dates):>8}"
        f"{numbers['net_pnl'].value:>13,.2f}{numbers['gross_pnl'].value:>12,.2f}"
        f"{'–' if math.isnan(costs) else f'{costs:.2f}':>11}{of.fills.sum(axis=1).mean():>8,.0f}"
        f"{'–' if math.isnan(ratio.value) else f'{ratio.value:.2f} ± {ratio.error:.2f}':>17}"
    )


def as_json(found: WalkForward) -> dict[str, Any]:
    """What `report.json` has under `walk_forward`.

    `folds`, `overall` and `daily` are of the sampled policy, those of the others by name in
    `others`.
    """
    verdict, *others = found.policies
    return {
        "windows": str(found.windows),
        "policy": verdict,
        **_of_policy(found, verdict),
        "sentence": found.sentence,
        "trials": found.agents,
        "test_openings": found.openings,
        "notes": list(found.notes),
        "others": {who: _of_policy(found, who) for who in others},
    }


def _of_policy(found: WalkForward, who: str) -> dict[str, Any]:
    joined = found.joined(who)
    return {
        "folds": [_fold(each, who) for each in found.folds],
        "overall": _plain(joined),
        "daily": _daily(joined),
    }


def _daily(of: Series) -> dict[str, list[Any]]:
    """Net P&L of each session: the mean over draws, and where nine in ten of them lie."""
    low, high = np.quantile(of.net, [0.05, 0.95], axis=0)
    return {
        "labels": [str(date) for date in of.dates],
        "net": of.net.mean(axis=0).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
    }


def _fold(tested: Tested, who: str) -> dict[str, Any]:
    fold, accounts, of = tested.fold, tested.accounts[who], tested.series(who)
    numbers = _plain(of)
    return {
        "train": list(fold.train),
        "validation": list(fold.validation) if fold.validation else None,
        "test": list(fold.test),
        "sessions": len(of.dates),
        "symbols": list(accounts.symbols),
        "checkpoint": str(tested.checkpoint),
        "stopped_accounts": int(accounts.stopped.sum()),
        **{name: numbers[name]["value"] for name in OF_FOLDS},
        "sharpe_error": numbers["sharpe"]["error"],
        "metrics": numbers,
    }


def _plain(of: Series) -> dict[str, dict[str, float | None]]:
    return {name: metric.plain() for name, metric in out_of_sample.metrics(of).items()}


def write(found: WalkForward, directory: Path) -> Path:
    """Writes `walk_forward.json` in a directory, made where it is not there; `InputError`."""
    path = directory / FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(as_json(found), indent=1, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    return path
