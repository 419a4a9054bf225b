"""Acceptance: a run's checkpoint judged by its gates, and the verdict written beside the run."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX import summary

from jules_jax import config
from jules_jax.config import CONFIG_FILE, Config
from jules_jax.errors import InputError
from jules_jax.evaluation import evidence as trials
from jules_jax.evaluation import gates
from jules_jax.evaluation.evidence import Evidence
from jules_jax.evaluation.gates import Estimate, Gate
from jules_jax.training import checkpoints, metrics_file
from jules_jax.training.events import EventFile

FILE = "gates.json"
SCHEMA_VERSION = 1
JUDGED = (
    "market",
    "simulator",
    "features",
    "account",
    "fills",
    "safeguards",
    "reward",
    "network",
    "max_steps_in_episode",
)
"""What the policy must have been trained with; the rest of the config only changes the learning."""
LOGGED = {
    "train/learning_rate": ("learning_rate", "learning_rate_end"),
    "train/ent_coef": ("ent_coef", "ent_coef_end"),
    "train/clip_range": ("clip_range", None),
}
"""Metrics of a run that are numbers of `ppo`, and what moves them unless it is negative."""


@dataclass(frozen=True)
class Verdict:
    """What the gates say of a checkpoint. directory: where it is written, if anywhere."""

    gates: list[Gate]
    warnings: list[str]
    notes: tuple[str, ...]
    checkpoint: Path
    directory: Path | None
    means: dict[str, Estimate]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""
        return not any(gate.failed for gate in self.gates)

    def text(self) -> str:
        """The table, what each failure means and what to try, warnings, and the outcome."""
        failed = [gate for gate in self.gates if gate.failed]
        lines = [*self.notes, "", gates.table(self.gates), ""]
        played = ", ".join(
            f"{name} {mean.value:,.2f} ± {mean.error:.2f}" for name, mean in self.means.items()
        )
        lines += [f"reward an episode: {played}"]
        lines += [f"FAIL {gate.name}: {gate.advice}" for gate in failed]
        lines += [f"warning: {warning}" for warning in self.warnings]
        asked = sum(gate.passed is not None for gate in self.gates)
        outcome = f"{len(failed)} of {asked} gates failed" if failed else f"all {asked} gates pass"
        return "\n".join([*lines, f"{outcome} ({self.seconds:.0f} s)"])

    def to_dict(self) -> dict[str, Any]:
        """The content of `gates.json`; what is not a number is null."""
        rows = [
            {
                "gate": gate.name,
                "threshold": gate.asks,
                "value": _number(gate.value),
                "standard_error": _number(gate.error),
                "passed": gate.passed,
                "detail": gate.detail,
                "advice": gate.advice if gate.failed else "",
            }
            for gate in self.gates
        ]
        rewards = {
            name: {"mean": _number(mean.value), "standard_error": _number(mean.error)}
            for name, mean in self.means.items()
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "checkpoint": str(self.checkpoint),
            "passed": self.passed,
            "gates": rows,
            "episode_reward": rewards,
            "warnings": self.warnings,
            "played_on": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


def judge(checkpoint: Path, settings: Config) -> Verdict:
    """Plays the policy at `checkpoint` and its controls, judges them, and writes the verdict.

    `gates.json`, and a text in TensorBoard, go to the run's directory, where there is one.
    `settings` are the config to judge by; where they say otherwise than the checkpoint's own about
    what was trained on, the gate `parameters` fails. Schedules stand at their end, and nothing is
    drawn by episode. Raises `InputError`.
    """
    began, settings = time.monotonic(), settings.for_evaluation()
    step = checkpoints.find(checkpoint)
    meta = checkpoints.load_meta(step)
    directory = run_of(step, settings)
    rows = _metrics(directory, int(meta["update"]))
    found = trials.gather(settings, checkpoints.load_params(step, settings))
    found = dataclasses.replace(
        found,
        differing=(
            *found.differing,
            *changed(settings, config.load(meta["config"]).for_evaluation()),
            *_learned_with(settings, rows),
        ),
    )
    verdict = Verdict(
        gates=gates.judge(found, settings, progress(rows)),
        warnings=gates.warnings(found),
        notes=(f"checkpoint  {step}", *(f"gates on    {note}" for note in found.notes)),
        checkpoint=step,
        directory=directory,
        means=_means(found),
        seconds=time.monotonic() - began,
    )
    if directory is not None:
        _write(verdict, directory, steps=int(rows[-1]["timesteps"]) if rows else 0)
    return verdict


def _means(found: Evidence) -> dict[str, Estimate]:
    """Mean reward of an episode of every policy, by name."""
    logs = [found.sampled, found.greedy, found.random, found.flat]
    rewards = [gates.episode_rewards(log) for log in logs]
    return {
        name: gates.ratio(reward, 1.0, found.cluster[: len(reward)])
        for name, reward in zip(("sampled", "greedy", "random", "flat"), rewards, strict=True)
    }


def find(path: str) -> Path:
    """The checkpoint directory that a run, its directory, or a checkpoint at `path` means.

    Raises `InputError` where there is none, or where it is a population's.
    """
    directory = Path(path)
    named = Path(Config().runs_dir) / path
    if not directory.is_dir() and named.is_dir():
        directory = named
    if not directory.is_dir():
        raise InputError(
            f"{path}: no such run or checkpoint, expected runs/NAME or checkpoints/NAME"
        )
    if members := sorted(file.parent.name for file in directory.glob(f"*/{metrics_file.FILE}")):
        raise InputError(
            f"{directory} is a population's, expected one of its members: {', '.join(members)}"
        )
    if not (directory / metrics_file.FILE).is_file() or any(_steps(directory)):
        return checkpoints.find(directory)
    own = (directory / CONFIG_FILE).is_file()
    at_home = directory if own else directory.parent
    settings = config.load(file=at_home / CONFIG_FILE)
    name = directory.name if own else f"{directory.parent.name}/{directory.name}"
    return checkpoints.find(Path(settings.checkpoint_dir) / name)


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
        verdict = json.loads((run / FILE).read_text(encoding="utf-8"))
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


def changed(settings: Config, trained_with: Config) -> list[str]:
    """Keys of `JUDGED` that differ between the config to judge by and that of the checkpoint."""
    found = config.differences(trained_with, settings)
    return [key for key in found if key.partition(".")[0] in JUDGED]


def _learned_with(settings: Config, rows: list[dict[str, Any]]) -> list[str]:
    """Constant numbers of `ppo` that the run's last row of metrics has otherwise."""
    if not rows:
        return []
    keys = []
    for metric, (name, end) in LOGGED.items():
        moves = end is not None and getattr(settings.ppo, end) >= 0
        asked, logged = np.float32(getattr(settings.ppo, name)), rows[-1].get(metric)
        if not moves and logged is not None and np.float32(logged) != asked:
            keys.append(f"ppo.{name}")
    return keys


def _write(verdict: Verdict, directory: Path, *, steps: int) -> None:
    path = directory / FILE
    try:
        path.write_text(json.dumps(verdict.to_dict(), indent=2) + "\n", encoding="utf-8")
        with closing(EventFile(directory, suffix=".gates")) as events:
            events.add(summary.text("gates", markdown(verdict)), steps)
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be written: {error.strerror}") from None


def markdown(verdict: Verdict) -> str:
    """The verdict as TensorBoard shows texts."""
    lines = ["| gate | asks for | value ± s.e. | verdict | |", "|---|---|---|---|---|"]
    words = {None: "–", True: "pass", False: "**FAIL**"}
    for gate in verdict.gates:
        says = f"{gate.detail} {gate.advice if gate.failed else ''}".strip().replace("|", "\\|")
        asks = gate.asks.replace("|", "\\|")
        lines.append(
            f"| {gate.name} | {asks} | {gates.shown(gate)} | {words[gate.passed]} | {says} |"
        )
    return "\n".join([*lines, "", *(f"warning: {warning}" for warning in verdict.warnings)])


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
