"""Phases: configs trained one after the other, each from the weights of the one before.

A phase that fails its gates is the last: what comes after would only be built on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax

from jules_jax import config
from jules_jax.agent import devices, network
from jules_jax.agent.learner import groups_for
from jules_jax.errors import InputError
from jules_jax.market import readers, storage
from jules_jax.training import (
    acceptance,
    backend,
    loop,
    population,
    processes,
    run_directory,
    stopping,
)
from jules_jax.training.loop import Result
from jules_jax.training.preparation import Say

FOLDER = Path("configs")
"""Where a phase without a directory in its name is looked for."""


class Verdict(Protocol):
    """What the gates say of a checkpoint."""

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""

    def text(self) -> str:
        """The table, and what a failure means."""

    def write(self) -> None:
        """Puts it beside the run."""


Train = Callable[[config.Config, Path | None], Result]
"""Trains a config from the weights of a checkpoint, or from new ones."""
Judge = Callable[[Path, config.Config], Verdict]
"""The verdict on a checkpoint by the gates of its config."""


@dataclass(frozen=True)
class Phase:
    """A config and the name of its file, without the suffix."""

    name: str
    settings: config.Config


@dataclass(frozen=True)
class Course:
    """How the phases went: the runs, and whether the gates of all were passed."""

    runs: tuple[Result, ...]
    passed: bool


def read(names: str, flags: config.Layer) -> tuple[Phase, ...]:
    """The phases of `names`, files or names in `FOLDER` with commas between; flags are for all.

    A run is called `--name`, a hyphen and the phase, where there is a `--name`. Raises
    `InputError`.
    """
    phases = []
    for word in (word.strip() for word in names.split(",")):
        if not word:
            raise InputError(f"--phases is {names!r}, expected configs such as a.yaml,b.yaml")
        file = Path(word) if word.endswith((".yaml", ".yml")) else FOLDER / f"{word}.yaml"
        settings = config.resolve(config.read_yaml(file), flags)
        if "name" in flags and settings.name:
            settings = dataclasses.replace(settings, name=f"{settings.name}-{file.stem}")
        phases.append(Phase(file.stem, settings))
    return tuple(phases)


def check(phases: Sequence[Phase]) -> None:
    """Raises `InputError` for what would otherwise end the course in the middle of the night."""
    first = phases[0]
    for phase in phases:
        settings = phase.settings
        if _weights(settings) != _weights(first.settings):
            raise InputError(
                f"phase {phase.name} has another network than {first.name}, expected the same, as "
                "weights go from one to the next"
            )
        if population.is_asked(settings):
            raise InputError(f"phase {phase.name} is a population, expected a single agent")
        groups_for(settings, len(devices.available(settings.devices)))
        if settings.market.data and not storage.is_dataset(settings.market.data):
            readers.find(settings.market.data, settings.market)
        run_directory.claim(settings).release()
    names = [phase.settings.name for phase in phases if phase.settings.name]
    if len(set(names)) < len(names):
        raise InputError("two phases would have the same run directory, expected each phase once")


def _weights(settings: config.Config) -> Any:
    """Shapes of the weights, and how they hang together."""
    shapes = jax.eval_shape(lambda key: network.init(key, settings.network), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    return [(leaf.shape, leaf.dtype) for leaf in leaves], tree


def run(phases: Sequence[Phase], *, train: Train, judge: Judge, say: Say) -> Course:
    """Trains and judges each phase, from the last one's weights, as long as gates are passed.

    Raises `Stopped`, never with status 0: a course that was stopped has not been passed.
    """
    runs: list[Result] = []
    for number, phase in enumerate(phases, start=1):
        say(f"phase {number} of {len(phases)}: {phase.name}\n")
        after = ", ".join(each.name for each in phases[number:])
        left = f"; not begun: {after}" if after else ""
        with stopping.unfinished(f"phase {phase.name} was not judged{left}"):
            runs.append(train(phase.settings, runs[-1].checkpoint if runs else None))
        verdict = judge(runs[-1].checkpoint, phase.settings)
        say(f"\n{verdict.text()}\n")
        verdict.write()
        if not verdict.passed:
            say(f"phase {phase.name} failed its gates{left}")
            return Course(tuple(runs), passed=False)
    say(f"all {len(phases)} phases passed their gates; the last checkpoint: {runs[-1].checkpoint}")
    return Course(tuple(runs), passed=True)


def command(names: str, flags: config.Layer) -> int:
    """`train --phases NAMES`: reads, checks, trains and judges; the exit status, 1 for a failure.

    Raises `InputError` before anything is trained.
    """
    if processes.cluster(dict.fromkeys(("coordinator", "num_processes", "process_id"))):
        raise InputError("--phases is of one process, and a launcher started several")
    phases = read(names, flags)
    backend.use_compilation_cache()
    backend.configure(phases[0].settings)
    check(phases)

    def train(settings: config.Config, init_from: Path | None) -> Result:
        return loop.train(settings, init_from=init_from)

    return 0 if run(phases, train=train, judge=acceptance.judge, say=_say).passed else 1


def _say(text: str) -> None:
    print(text, flush=True)
