"""Acceptance: a run's checkpoint judged by its gates, and the verdict written beside the run."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.config import CONFIG_FILE, Config
from jules_jax.errors import InputError
from jules_jax.evaluation import evidence as trials
from jules_jax.evaluation import gates
from jules_jax.evaluation.evidence import Evidence
from jules_jax.evaluation.gates import Estimate
from jules_jax.training import checkpoints, conformity, metrics_file, run_directory
from jules_jax.training.verdicts import Verdict


def judge(
    checkpoint: Path, settings: Config, *, say: Callable[[str], None] = lambda text: None
) -> Verdict:
    """Plays the policy at `checkpoint` and its controls, and judges them.

    checkpoint: one, or the directory of a run's, of which the newest that can be read is judged;
    `say` is told of others. settings: the config to judge by; where they say otherwise than the
    checkpoint's own about what was trained on, the gate `parameters` fails. Schedules stand at
    their end, and nothing is drawn by episode. Raises `InputError`.
    """
    began, settings = time.monotonic(), settings.for_evaluation()
    step, params = checkpoints.newest_params(checkpoint, settings, say)
    meta = checkpoints.load_meta(step)
    directory = run_of(step, settings)
    rows = _metrics(directory, int(meta["update"]))
    found = trials.gather(settings, params)
    trained_with = config.load(meta["config"])
    differing = (
        *found.differing,
        *conformity.changed(settings, trained_with),
        *conformity.unlike_asked(trained_with, rows),
    )
    found = dataclasses.replace(found, differing=tuple(dict.fromkeys(differing)))
    return Verdict(
        gates=gates.judge(found, settings, progress(rows)),
        warnings=gates.warnings(found),
        notes=(f"checkpoint  {step}", *(f"gates on    {note}" for note in found.notes)),
        checkpoint=step,
        directory=directory,
        means=_means(found),
        seconds=time.monotonic() - began,
        steps=int(rows[-1]["timesteps"]) if rows else 0,
    )


def _means(found: Evidence) -> dict[str, Estimate]:
    """Mean reward of an episode of every policy, by name."""
    logs = [found.sampled, found.greedy, found.random, found.flat]
    rewards = [gates.episode_rewards(log) for log in logs]
    return {
        name: gates.ratio(reward, 1.0, found.cluster[: len(reward)])
        for name, reward in zip(("sampled", "greedy", "random", "flat"), rewards, strict=True)
    }


def find(path: str, runs_dir: str = Config().runs_dir) -> Path:
    """The checkpoint at `path`, or the directory of those of the run there, which has some.

    A run is one as of `run_directory.locate`. Raises `InputError` where there is no checkpoint, or
    where it is a population's.
    """
    directory = run_directory.locate(path, runs_dir) or Path(path)
    if not directory.is_dir():
        raise InputError(
            f"{path}: no such run or checkpoint, expected runs/NAME or checkpoints/NAME"
        )
    if members := sorted(file.parent.name for file in directory.glob(f"*/{metrics_file.FILE}")):
        raise InputError(
            f"{directory} is a population's, expected one of its members: {', '.join(members)}"
        )
    if not (directory / metrics_file.FILE).is_file() or any(_steps(directory)):
        return _with_steps(directory)
    own = (directory / CONFIG_FILE).is_file()
    at_home = directory if own else directory.parent
    settings = config.load(file=at_home / CONFIG_FILE)
    name = directory.name if own else f"{directory.parent.name}/{directory.name}"
    return _with_steps(Path(settings.checkpoint_dir) / name)


def _with_steps(directory: Path) -> Path:
    checkpoints.find(directory)
    return directory


def run_of(step: Path, settings: Config) -> Path | None:
    """The directory of the run that wrote `step`; the checkpoint's own where metrics are there."""
    home, runs = step.parent, Path(settings.runs_dir)
    member = runs / home.parent.name / home.name
    for directory in (home, member, runs / home.name):
        if (directory / metrics_file.FILE).is_file():
            return directory
    return None


def judged(run: Path) -> str | None:
    """The name of the checkpoint that a run's verdict is of; None where there is no verdict."""
    try:
        verdict = json.loads((run / run_directory.GATES_FILE).read_text(encoding="utf-8"))
        return Path(verdict["checkpoint"]).name
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _steps(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name.isdigit()]


def _metrics(directory: Path | None, update: int) -> list[dict[str, Any]]:
    """The run's rows of metrics up to `update`."""
    if directory is None:
        return []
    return [row for row in metrics_file.read(directory) if row["update"] <= update]


def progress(rows: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """What `gates.judge` reads of training; NaN where a row has null."""
    names = ("train/explained_variance", "rollout/reward_var")
    return {
        name: np.array(
            [math.nan if row[name] is None else row[name] for row in rows if name in row], float
        )
        for name in names
    }
