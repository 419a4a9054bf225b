"""The places a run writes to: claimed whole before work begins, given back whole if it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.training import registry

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class RunDirectory:
    """Directories of one run; `made` are those that did not exist before, parents first."""

    name: str
    path: Path
    checkpoints: Path
    made: tuple[Path, ...]

    def release(self) -> None:
        """Removes what claiming made, as far as it is still empty but for the config."""
        (self.path / CONFIG_FILE).unlink(missing_ok=True)
        _remove(self.made)


def name_of(settings: config.Config) -> str:
    """The run's name: `name`, or one made of the data or preset and the time (UTC)."""
    data = settings.market.data
    what = Path(data).name.split(".")[0] if data else settings.simulator.preset
    return settings.name or f"{what}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def claim(settings: config.Config) -> RunDirectory:
    """Makes the directories of a new run, or nothing.

    Raises `InputError` where one exists already or cannot be made, or where the registry of runs
    cannot be written.
    """
    name = name_of(settings)
    run, checkpoints = Path(settings.runs_dir) / name, Path(settings.checkpoint_dir) / name
    made: list[Path] = []
    try:
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
    return RunDirectory(name, run, checkpoints, tuple(made))


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
