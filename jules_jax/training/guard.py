"""The guard: stops a run at the first update that is not finite, and keeps what it began from.

An update's metrics are known only when the next one is under way and has taken the state. So the
guard holds copies of the states that the two newest updates began from; a state is small beside
the rollout made from it.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax import config
from jules_jax.agent.learner import TrainState
from jules_jax.errors import Diverged, InputError
from jules_jax.training import checkpoints, processes
from jules_jax.training.population import Member

DIRECTORY = "diverged"
"""Under the run's directory: the state, as a checkpoint, and `FILE`."""
FILE = "divergence.json"
CAUSES_FIRST = ("step_sum/", "episode_sum/", "rollout/", "train/", "state/")
"""Prefixes of metrics in the order of an update: what the environment did, then what it taught."""

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Start:
    """What an update began from: all it takes to run it again."""

    update: int  # its number, from 1
    state: TrainState
    generation: int  # of the market
    progress: float  # of the environment's schedules
    members: tuple[Member, ...] = ()  # of a population


@dataclass(frozen=True)
class Divergence:
    """A diverged update as it was recorded: its number, where it began, and all its metrics."""

    update: int
    generation: int
    progress: float
    members: Mapping[str, Any]  # configs by name, of a population
    metrics: Values


class Guard:
    """`hold` what an update is about to begin from, then `check` its metrics."""

    def __init__(self, run_dir: Path, settings: config.Config) -> None:
        self.directory = run_dir / DIRECTORY
        self._settings = settings
        self._held: deque[Start] = deque(maxlen=2)

    def hold(self, start: Start) -> None:
        """Copies what an update is about to take."""
        self._held.append(dataclasses.replace(start, state=checkpoints.copy(start.state)))

    def check(self, update: int, metrics: Values) -> None:
        """Raises `Diverged` where a metric of `update`, one of the two newest, is not finite.

        The state before it is written first: a checkpoint under `directory`, and `FILE` beside it.
        """
        names = offending(metrics)
        if not names:
            return
        start = next(start for start in self._held if start.update == update)
        path = _write(self.directory, start, metrics, self._settings)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        worst = _worst(metrics[names[0]], start.members)
        raise Diverged(
            f"update {update} of {self._settings.num_updates}: {names[0]} is {worst}{more}; "
            f"the state before it is in {path}, and "
            f"python -m jules_jax.train --replay {path} runs that update again"
        )


def offending(metrics: Values) -> list[str]:
    """Names of the metrics that are not finite, causes before effects."""
    names = [name for name, value in metrics.items() if not np.isfinite(value).all()]
    order = {prefix: place for place, prefix in enumerate(CAUSES_FIRST)}
    return sorted(names, key=lambda name: order.get(f"{name.split('/')[0]}/", len(order)))


@partial(jax.jit, static_argnames="of_members")
def magnitudes(state: TrainState, *, of_members: bool = False) -> dict[str, jax.Array]:
    """Largest magnitude in each part of what an update returned, NaN where it is not all finite.

    Of a population (`of_members`) each member's, `[M]`.

    An update's own metrics are taken before its last optimizer step, and would show what that one
    did an update late. An environment's state is its own affair: infinity may mean something in it.
    """
    found: dict[str, jax.Array] = (jax.vmap(_largest) if of_members else _largest)(state)
    return found


def _largest(state: TrainState) -> dict[str, jax.Array]:
    parts = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    lanes = parts.pop("lanes")
    parts |= {"carry": lanes.carry, "obs": lanes.obs}
    floats = {
        name: [leaf for leaf in jax.tree.leaves(part) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        for name, part in parts.items()
    }
    return {
        f"state/{name}": jnp.stack([_magnitude(leaf) for leaf in leaves]).max()
        for name, leaves in floats.items()
        if leaves
    }


def _magnitude(leaf: jax.Array) -> jax.Array:
    """Its maximum would not do: on a CPU the maximum over devices passes over a NaN."""
    return jnp.where(jnp.isfinite(leaf).all(), jnp.max(jnp.abs(leaf)), jnp.nan)


def load(path: Path) -> Divergence:
    """What was recorded of the diverged update at `path`, the directory that the run named.

    Raises `InputError` where that is none.
    """
    try:
        saved = json.loads((path / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a run's {DIRECTORY} directory ({error})") from None
    metrics = {name: np.array(value, np.float32) for name, value in saved.pop("metrics").items()}
    return Divergence(**saved, metrics=metrics)


def compare(recorded: Values, again: Values) -> str:
    """One sentence and the offending metrics' table: what a replayed update shows."""
    names = offending(recorded)
    same = recorded.keys() == again.keys() and all(
        np.array_equal(recorded[name], again[name], equal_nan=True) for name in recorded
    )
    verdict = "as recorded, bit for bit" if same else "not bit for bit as recorded"
    lines = [f"{len(again)} metrics, {len(offending(again))} of them not finite: {verdict}"]
    for name in names or offending(again):
        then, now = recorded.get(name), again.get(name)
        lines.append(f"  {name:<36} {_shown(then):>12} then {_shown(now):>12} now")
    return "\n".join(lines)


def _shown(value: np.ndarray | None) -> str:
    return "–" if value is None else _worst(value)


def _worst(value: np.ndarray, members: Sequence[Member] = ()) -> str:
    """The value; of several, the first that is not finite and whose it is."""
    flat = np.ravel(value)
    place = int(np.argmin(np.isfinite(flat)))
    name = members[place].name if members else str(place)
    return f"{flat[place]:g}" + (f" (member {name})" if flat.size > 1 else "")


def _write(directory: Path, start: Start, metrics: Values, settings: config.Config) -> Path:
    checkpoints.save(directory, start.state, generation=start.generation, settings=settings)
    record: dict[str, Any] = {
        "update": start.update,
        "generation": start.generation,
        "progress": start.progress,
        "members": {member.name: config.to_dict(member.settings) for member in start.members},
        "metrics": {name: _jsonable(np.asarray(value)) for name, value in metrics.items()},
    }
    if processes.is_first():
        (directory / FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return directory


def _jsonable(value: np.ndarray) -> Any:
    """Float32 as numbers, which float64 holds exactly, and as words where JSON has no number."""
    if value.ndim:
        return [_jsonable(entry) for entry in value]
    number = float(value)
    return number if np.isfinite(number) else str(number)
