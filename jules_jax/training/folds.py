"""Folds: the runs of a walk-forward, each trained on its stretch, gone on with, or found finished.

A fold is a run like any other, `NAME-fold0` and so on: a trial in the registry, whose config has
its dates. Which of its checkpoints is tested is decided before the test is looked at: the last, or,
where the end of the training window is held out to validate on, the one that did best there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.evaluation import prices
from jules_jax.market import dataset, rolling, splits
from jules_jax.market.dataset import Dataset
from jules_jax.market.rolling import Fold, Windows
from jules_jax.market.splits import Dates
from jules_jax.training import (
    checkpoints,
    loop,
    market,
    population,
    provenance,
    registry,
    run_history,
)
from jules_jax.training.preparation import Say


@dataclass(frozen=True)
class Plan:
    """Folds, oldest first, the config of each one's run, and sentences about them all."""

    settings: config.Config
    folds: tuple[tuple[Fold, config.Config], ...]
    notes: tuple[str, ...]


def plan(settings: config.Config, windows: Windows, init_from: Path | None) -> Plan:
    """Cuts `market.data` into folds; nothing is trained or written yet.

    init_from: a checkpoint that every fold begins with the weights of. Raises `InputError` where
    settings, bars or windows do not suit, or where a run of another config has a fold's name.
    """
    settings = _named(settings)
    recorded = dataset.load(settings)
    dates = _dates(recorded)
    cut = rolling.folds(dates, windows, settings.splits)
    asked = [_settings_of(fold, settings) for fold in cut]
    notes = (*_notes_of_plans(recorded, cut, asked), *_notes(dates, cut, init_from))
    digests = market.fingerprint(settings.market)
    for each in asked:
        _require_free(each, digests, init_from)
    return Plan(settings, tuple(zip(cut, asked, strict=True)), notes)


def trained(settings: config.Config, fold: Fold, init_from: Path | None, say: Say) -> Path:
    """The checkpoint to test: of a run made now, gone on with, or finished before.

    settings: of the fold's run. Raises `Diverged` or `Stopped` as `loop.train` does.
    """
    directory = Path(settings.checkpoint_dir) / settings.name
    found = checkpoints.steps(directory)
    if not found:
        loop.train(settings, init_from=init_from, say=say)
    elif int(found[0].name) < settings.num_updates:
        loop.train(settings, resume=True, say=say)
    else:
        say(f"trained before: {directory}")
    return _chosen(directory, fold)


def _chosen(directory: Path, fold: Fold) -> Path:
    """The last checkpoint of a finished run, or the best by validation where there was one."""
    kept = checkpoints.steps(directory)
    if fold.validation is None:
        return kept[0]
    scores = checkpoints.load_meta(kept[0])["run"]["scores"]
    scored = [path for path in kept if path.name in scores]
    return max(scored, key=lambda path: (scores[path.name], int(path.name)), default=kept[0])


def count_opening(settings: config.Config, checkpoint: Path) -> None:
    """Enters in the registry that a test was looked at, once for a fold's checkpoint."""
    for line in registry.read(Path(settings.runs_dir)):
        opened = line["run"] == settings.name and line["event"] == run_history.OPENED
        if opened and line.get("checkpoint") == str(checkpoint):
            return
    run_history.opened_test_split(settings, checkpoint)


def _named(settings: config.Config) -> config.Config:
    """With a name that is the same each time, as a finished fold is found by it."""
    if not settings.market.data:
        raise InputError("--walk-forward needs bars: market.data is empty, expected --data FILES")
    if population.is_asked(settings):
        raise InputError("--walk-forward trains one agent a fold, expected no population")
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", Path(settings.market.data).name.split(".")[0]).strip("-")
    return dataclasses.replace(settings, name=settings.name or f"walk-{stem or 'bars'}")


def _dates(recorded: Dataset) -> Dates:
    """Session dates of all symbols together, from `splits.train_from` to `splits.test_until`."""
    each = [splits.history(one.symbol, one.bars, one.time).dates for one in recorded.sources]
    return splits.used(np.unique(np.concatenate(each)), recorded.config.splits)


def _settings_of(fold: Fold, settings: config.Config) -> config.Config:
    """The config of a fold's run; without sessions to validate on, nothing is validated."""
    kept = settings.checkpoints
    if fold.validation is None:
        kept = dataclasses.replace(kept, validation_episodes=0)
    return dataclasses.replace(
        settings, name=f"{settings.name}-fold{fold.number}", splits=fold.splits, checkpoints=kept
    )


def _notes_of_plans(
    recorded: Dataset, cut: Sequence[Fold], asked: Sequence[config.Config]
) -> list[str]:
    """Symbols left out; raises `InputError` where a window is too short to train on or to test."""
    notes: list[str] = []
    for fold, settings in zip(cut, asked, strict=True):
        of_fold = dataclasses.replace(recorded, config=settings)
        notes += of_fold.plan("train").notes
        notes += of_fold.plan("validation").notes if fold.validation else ()
        notes += prices.unplayed(of_fold, "test")
    return notes


def _notes(dates: Dates, cut: Sequence[Fold], init_from: Path | None) -> list[str]:
    """What is not tested, and what may not be unseen."""
    notes, last = [], cut[-1].test.last
    if left := int(np.count_nonzero(dates > np.datetime64(last))):
        notes.append(f"sessions after {last} are not used: {left}, too few for one more fold")
    if init_from:
        notes.append(
            f"every fold begins with the weights of {init_from}: what those were trained on is not "
            "unseen"
        )
    return notes


def _require_free(
    settings: config.Config, digests: Mapping[str, str], init_from: Path | None
) -> None:
    """Raises `InputError` where a run has the fold's name that is not the one asked for."""
    run = Path(settings.runs_dir) / settings.name
    found = checkpoints.steps(Path(settings.checkpoint_dir) / settings.name)
    if not found:
        if run.exists():
            raise InputError(
                f"{run} exists without a checkpoint, expected a run's; choose a --name"
            )
        return
    meta = checkpoints.load_meta(found[0])
    for key, (saved, asked) in provenance.changes(meta, settings).items():
        raise InputError(
            f"{run} was trained with {key} {saved!r}, and {asked!r} is asked for, expected the "
            "same or another --name"
        )
    provenance.require_same_data(meta, digests)
    began, begins = _origin(settings), str(init_from) if init_from else None
    if began != begins:
        raise InputError(
            f"{run} began with {f'the weights of {began}' if began else 'new weights'}, and "
            f"{f'those of {begins}' if begins else 'new ones'} are asked for, expected the same "
            "or another --name"
        )


def _origin(settings: config.Config) -> str | None:
    """The checkpoint that a run began with the weights of, as the registry has it."""
    lines = registry.read(Path(settings.runs_dir))
    began = [x for x in lines if x["run"] == settings.name and x["event"] == "started"]
    return began[-1].get("init_from") if began else None
