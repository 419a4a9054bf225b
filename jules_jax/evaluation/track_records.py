"""Returns by period of every trial that was evaluated, so that a choice among them can be judged.

One file for each data and split, `track_records/KEY.jsonl` in the directory of runs, and a line for
each evaluation, never changed: what was seen once has been seen. The probability of backtest
overfitting and the variance of trials in the deflated Sharpe ratio are read from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jules_jax.errors import InputError

DIRECTORY = "track_records"


@dataclass(frozen=True)
class Trial:
    """Net returns of one evaluated checkpoint, by period.

    config_hash, checkpoint_hash: together its name. labels: of periods, such as dates, in order.
    returns: net P&L over capital, one a label. Raises `ValueError` where those are not as many, or
    not finite.
    """

    config_hash: str
    checkpoint_hash: str
    labels: tuple[str, ...]
    returns: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.returns):
            found = f"{len(self.labels)} labels and {len(self.returns)} returns"
            raise ValueError(f"found {found}, expected as many")
        if not np.isfinite(np.asarray(self.returns, np.float64)).all():
            raise ValueError("found returns that are not finite")

    @property
    def name(self) -> str:
        """`config:checkpoint`."""
        return f"{self.config_hash}:{self.checkpoint_hash}"


class Trials(NamedTuple):
    """Trials of the same periods: returns `[periods, trials]`, and the trials' names in order."""

    returns: NDArray[np.float64]
    names: tuple[str, ...]


def trial(
    config_hash: str, checkpoint_hash: str, labels: Sequence[object], returns: Sequence[float]
) -> Trial:
    """A `Trial` of labels of any kind and of returns that may be an array `[periods]`."""
    numbers = tuple(float(number) for number in returns)
    return Trial(config_hash, checkpoint_hash, tuple(str(label) for label in labels), numbers)


def append(runs_dir: Path, key: str, record: Trial) -> None:
    """Adds a line for a trial to the file of `key`, which names data and split.

    The line is one write to the end of the file, so that runs may append at the same time. What a
    write that was cut short has left becomes a line of its own.
    """
    path = _path(runs_dir, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
    with open(path, "ab+", buffering=0) as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read(1) != b"\n":
                line = b"\n" + line
        file.write(line)


def read(runs_dir: Path, key: str, labels: Sequence[object] | None = None) -> Trials:
    """The trials of `key` that have these labels, by default those of the line added last.

    A checkpoint that was evaluated several times counts once, as it was evaluated last, in
    the place where it came first. No trials, `[0, 0]`, where there is no file. Raises `InputError`
    at a line that cannot be read.
    """
    path = _path(runs_dir, key)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        return Trials(np.empty((0, 0)), ())
    wanted = found[-1].labels if labels is None else tuple(str(label) for label in labels)
    latest = {each.name: each for each in found if each.labels == wanted}
    returns = np.array([each.returns for each in latest.values()], np.float64)
    return Trials(returns.reshape(len(latest), len(wanted)).T, tuple(latest))


def _path(runs_dir: Path, key: str) -> Path:
    if not re.fullmatch(r"\w[\w.-]*", key, re.ASCII):
        raise ValueError(f"found key {key!r}, expected letters, digits, dots, hyphens")
    return Path(runs_dir) / DIRECTORY / f"{key}.jsonl"


def _parsed(path: Path, number: int, line: str) -> Trial:
    try:
        fields = json.loads(line)
        return trial(**fields)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}, line {number}: found what is no track record ({error}), expected "
            "config_hash, checkpoint_hash, labels and returns; take the line out to go on"
        ) from None
