"""The places a run writes to: claimed whole before work begins, given back whole if it cannot."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jules_jax import config
from jules_jax.config import CONFIG_FILE
from jules_jax.errors import InputError
from jules_jax.training import metrics_file, registry

GATES_FILE = "gates.json"
LATEST = "latest"
DEFAULTS = config.Config()
UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of a checkpoint that is still written, or never will be."""
POPULATION = "population"
"""Under a population's checkpoints: those of it as a whole, which it goes on from."""


@dataclass(frozen=True)
class RunDirectory:
    """Directories of one run; `made` are those that did not exist before, parents first.

    records: where this process writes what it has to tell of the run: `path`, unless it is one of
    several that keeps still. Its parent has the registry.
    """

    name: str
    path: Path
    checkpoints: Path
    records: Path
    made: tuple[Path, ...] = ()

    def release(self) -> None:
        """Removes what claiming made, as far as it is still empty but for the config."""
        for directory in (self.path, self.checkpoints) if self.made else ():
            (directory / CONFIG_FILE).unlink(missing_ok=True)
        _remove(self.made)


def name_of(settings: config.Config) -> str:
    """The run's name: `name`, or one made of the data or preset and the time (UTC)."""
    data = settings.market.data
    what = Path(data).name.split(".")[0] if data else settings.simulator.preset
    return settings.name or f"{what}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def claim(settings: config.Config) -> RunDirectory:
    """Makes the directories of a new run, or nothing.

    What a run of that name left that ended before its first checkpoint gives way. Raises
    `InputError` where a directory of another kind exists or cannot be made, or where the registry
    of runs cannot be written.
    """
    name = name_of(settings)
    run, checkpoints = Path(settings.runs_dir) / name, Path(settings.checkpoint_dir) / name
    made: list[Path] = []
    try:
        left = [directory for directory in (run, checkpoints) if directory.exists()]
        if (
            left
            and not is_taken(run)
            and all(_is_stillborn(each, name, run.parent) for each in left)
        ):
            for directory in left:
                shutil.rmtree(directory)
        for directory in (run, checkpoints):
            if directory.exists():
                raise InputError(f"{directory} exists already; choose another --name")
            _make(directory, made)
        registry.check(run.parent)
    except OSError as error:
        _remove(made)
        raise InputError(f"{error.filename} cannot be written: {error.strerror}") from None
    except InputError:
        _remove(made)
        raise
    return RunDirectory(name, run, checkpoints, run, tuple(made))


def _is_stillborn(directory: Path, name: str, runs_dir: Path) -> bool:
    """Whether a directory is of a run that ended before its first checkpoint was whole.

    It is empty, or the registry knows the run and there is nothing else than what runs begin with.
    """
    files = [path for path in directory.rglob("*") if not path.is_dir()]
    if directory.is_symlink() or not files:
        return not directory.is_symlink()
    return any(line["run"] == name for line in registry.read(runs_dir)) and all(
        path.name == CONFIG_FILE
        or path.name.startswith("events.out.tfevents")
        or UNFINISHED in str(path.relative_to(directory))
        or (path.name == metrics_file.FILE and path.stat().st_size == 0)
        for path in files
    )


def reopen(settings: config.Config) -> RunDirectory:
    """The directories of a run that is to go on.

    Raises `InputError` where they are not there, or cannot be written.
    """
    run = Path(settings.runs_dir) / settings.name
    checkpoints = Path(settings.checkpoint_dir) / settings.name
    for directory in (run, checkpoints):
        if not directory.is_dir():
            raise InputError(f"{directory}: no such directory, expected that of a run to resume")
        if not os.access(directory, os.W_OK):
            raise InputError(f"{directory} cannot be written: it is read-only")
    return RunDirectory(settings.name, run, checkpoints, run)


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Keeps a run's directory for this process while it trains there.

    The lock is the operating system's: a process that dies gives it back. Raises `InputError` where
    another process has it; a file system without locks is taken at its word.
    """
    directory = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{run}: another process is training this run, expected none"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(directory)


def is_taken(run: Path) -> bool:
    """Whether another process trains in a run's directory at this moment."""
    if not run.is_dir():
        return False
    try:
        with alone(run):
            return False
    except InputError:
        return True


def locate(run: str, runs_dir: str) -> Path | None:
    """The directory that `run` means: its name in `runs_dir`, or its directory; None for none."""
    for path in (Path(runs_dir) / run, Path(run)):
        if (path / CONFIG_FILE).is_file() or metrics_file.exists(path):
            return path
    return None


def saved_settings(
    run: str, runs_dir: str = DEFAULTS.runs_dir, checkpoint_dir: str = DEFAULTS.checkpoint_dir
) -> config.Layer:
    """The settings that a run goes on with, under its present name and place.

    run: `latest` (of those in the registry), or as of `locate`. Those of the newest checkpoint are
    taken, where it can be read, as a run may go on with others than it began with; it is looked for
    where the run's own config says, or where that cannot be read in `checkpoint_dir`. Raises
    `InputError` where there is no such run.
    """
    path = _latest(Path(runs_dir)) if run == LATEST else locate(run, runs_dir)
    if path is None:
        missing = Path(runs_dir) / run
        raise InputError(f"--resume {run}: no run {missing}, expected its name, or {LATEST}")
    layer: config.Layer = {}
    with suppress(InputError):
        layer = config.read_yaml(path / CONFIG_FILE)
    home = layer.get("checkpoint_dir")
    directory = Path(str(home.value) if home else checkpoint_dir) / path.name
    newest = _newest_config(directory) or _newest_config(directory / POPULATION)
    if newest:
        layer = config.read_dict(newest, f"in the newest checkpoint of {path}")
    if not layer:
        raise InputError(f"{path / CONFIG_FILE} cannot be read, and no checkpoint in {directory}")
    place = {"name": path.name, "runs_dir": str(path.parent)}
    return layer | {key: config.Setting(value, "of the run") for key, value in place.items()}


def _latest(runs_dir: Path) -> Path:
    """The run begun or resumed last, of those that are still there."""
    for line in reversed(registry.read(runs_dir)):
        if line["event"] in ("started", "resumed") and (runs_dir / line["run"]).is_dir():
            return runs_dir / str(line["run"])
    raise InputError(f"--resume {LATEST}: no run in {runs_dir}, expected one to go on with")


def _newest_config(directory: Path) -> dict[str, Any] | None:
    """The config in the newest checkpoint, read without what it takes to read the rest."""
    found = [path for path in directory.glob("*/meta/metadata") if path.parts[-3].isdigit()]
    if not found:
        return None
    try:
        newest = max(found, key=lambda path: int(path.parts[-3]))
        saved: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return saved


def _make(directory: Path, made: list[Path]) -> None:
    """Makes a directory and its missing parents; adds each to `made` at once."""
    missing = [directory, *(parent for parent in directory.parents if not parent.exists())]
    for path in reversed(missing):
        path.mkdir()
        made.append(path)


def _remove(made: list[Path] | tuple[Path, ...]) -> None:
    for path in reversed(made):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
