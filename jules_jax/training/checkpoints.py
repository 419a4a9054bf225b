"""Checkpoints: the whole training state, its config and its versions, saved with orbax.

`state` holds everything that changes in training on the device, `params` the weights again on their
own, so that evaluation needs neither the optimizer nor the lanes, and `meta` (JSON) the rest, with
checksums of all three. The table of market data is never stored: it is rebuilt from the key and the
generation in `meta`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.devices import gathered
from jules_jax.agent.learner import TrainState
from jules_jax.config import CONFIG_FILE
from jules_jax.errors import InputError
from jules_jax.training import processes, provenance

SCHEMA_VERSION = 1
LATE_SECONDS = 0.2
"""That the other reads of a checkpoint take at most to end after one has failed."""
DAMAGED = "damaged"
"""What the name of a checkpoint that could not be read ends with, once a run goes on without it."""


class Unreadable(InputError):
    """A checkpoint that is damaged: what is in it is not what was written."""


def save(
    directory: Path,
    state: TrainState,
    *,
    generation: int,
    settings: config.Config,
    data: Mapping[str, str] | None = None,
) -> Path:
    """Writes one checkpoint of `state` under `directory`, named by its update; returns its path.

    data: fingerprints of the files of bars, see `Market`. Raises `InputError` where it cannot be
    written.
    """
    step = directory / str(_update_of(state))
    # of a run that was killed, and went on from before it
    processes.first_decides(lambda: discard(step) if step.exists() else None)
    with Checkpoints(directory, settings, data=data) as kept:
        path = kept.save(state, generation=generation)
        write_config(directory, settings)
    return path


def write_config(directory: Path, settings: config.Config) -> None:
    """Puts the config where `evaluate` looks for it; raises `InputError`."""
    if not processes.is_first():
        return
    with _told(directory, f"{CONFIG_FILE} cannot be written"):
        part = directory / f".{CONFIG_FILE}-{os.getpid()}"
        try:
            part.write_text(config.to_yaml(settings), encoding="utf-8")
            part.replace(directory / CONFIG_FILE)  # whole or not at all, whenever one is killed
        finally:
            part.unlink(missing_ok=True)


class Checkpoints:
    """The checkpoints of a run, written while it goes on: the newest few, and the best.

    A checkpoint appears whole or not at all: it is written under another name and renamed, and
    older ones are deleted only then. Use as a context manager; leaving it waits for the last one.

    scores: of checkpoints already there, by update.
    """

    def __init__(
        self,
        directory: Path,
        settings: config.Config,
        *,
        data: Mapping[str, str] | None = None,
        scores: Mapping[int, float] | None = None,
    ) -> None:
        self.directory = directory
        self.scores = dict(scores or {})
        self._settings = settings
        self._data = dict(data or {})
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_NewestAndBest(settings.checkpoints.keep, self.scores),
            cleanup_tmp_directories=True,  # of a run that was killed while it wrote
        )
        with _told(directory, "cannot be written to"):
            self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            with self._writing():
                self._manager.close()
        except InputError:
            if kind is None:  # else it would hide what went wrong first
                raise

    def save(
        self,
        state: TrainState,
        *,
        generation: int,
        run: Mapping[str, Any] | None = None,
        score: float | None = None,
    ) -> Path:
        """Begins to write a checkpoint, once the one before is whole; returns where it will be.

        `state` is copied: it may be donated at once. run: what a run needs to go on besides its
        state, as JSON has it. score: the best one's checkpoint is kept.

        Raises `InputError` where this one or the one before cannot be written.
        """
        copied = copy(state)
        step = _update_of(copied)
        if score is not None and np.isfinite(score):
            self.scores[step] = score
        meta = {
            "schema_version": SCHEMA_VERSION,
            "update": step,
            "generation": generation,
            **provenance.of(self._settings, num_devices(state)),
            "data": self._data,
            "digest": {"state": digest(copied), "params": digest(copied.params)},
        }
        if run is not None:
            meta["run"] = {**run, "scores": {str(at): value for at, value in self.scores.items()}}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(copied),
            params=ocp.args.StandardSave(copied.params),
            meta=ocp.args.JsonSave(meta | {"checksum": _checksum(meta)}),
        )
        with self._writing():
            self._manager.save(step, args=items, force=True)
        return self.directory / str(step)

    def wait(self) -> None:
        """Returns once the last checkpoint is whole; raises `InputError` where it cannot be."""
        with self._writing():
            self._manager.wait_until_finished()

    @property
    def best(self) -> int | None:
        """The update whose checkpoint has the best score, of those there."""
        return _best((int(path.name) for path in steps(self.directory)), self.scores)

    def _writing(self) -> AbstractContextManager[None]:
        found = steps(self.directory)
        then = f"; the newest whole one is {found[0]}" if found else ""
        return _told(self.directory, "a checkpoint cannot be written", then=then)


@dataclass(frozen=True)
class _NewestAndBest:
    """What orbax keeps: the `newest` newest steps, and the one with the best score."""

    newest: int
    scores: Mapping[int, float]

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        del context
        found = [checkpoint.step for checkpoint in checkpoints]
        kept = {*found[-self.newest :], _best(found, self.scores)}
        return [step in kept for step in found]


def _best(among: Iterable[int], scores: Mapping[int, float]) -> int | None:
    """The update with the best score, the newest of equal ones; None where none has a score."""
    scored = [step for step in among if step in scores]
    return max(scored, key=lambda step: (scores[step], step), default=None)


@contextmanager
def _told(
    subject: Path, what: str, *, kind: type[InputError] = InputError, then: str = ""
) -> Iterator[None]:
    """Turns whatever orbax raises into one sentence, and its own accounts of it into silence."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except Exception as error:
        if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
            raise  # no fault of the disk: another process is gone
        raise kind(f"{subject}: {what} ({_reason(error)}){then}") from None
    finally:
        log.setLevel(before)


def _reason(error: BaseException) -> str:
    """What an error begins with, or the system's where that is behind it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0].partition(": Error")[0][:120] if lines else type(error).__name__


@contextmanager
def _without_late_tracebacks() -> Iterator[None]:
    """After a read that failed, the others still under way find orbax's event loop closed.

    tensorstore prints a traceback for each of them, which says nothing of the checkpoint.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if str(error) != "Event loop is closed":
            before(kind, error, trace)

    sys.excepthook = hook
    try:
        yield
    except BaseException:
        time.sleep(LATE_SECONDS)
        raise
    finally:
        sys.excepthook = before


@jax.jit
def copy(state: TrainState) -> TrainState:
    """The same values in other buffers, which outlive a donation of `state`."""
    copied: TrainState = jax.tree.map(jnp.copy, state)  # jit alone would hand back the same buffers
    return copied


def _update_of(state: TrainState) -> int:
    return int(np.ravel(gathered(state.update))[0])  # the same for all members of a population


def num_devices(state: TrainState) -> int:
    """How many devices its lanes are spread over."""
    return len(jax.tree.leaves(state.lanes)[0].sharding.device_set)


def digest(tree: Any) -> str:
    """SHA-256 of the values, types and shapes of a tree's leaves, in their order."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):  # one by one: of many processes each is gathered whole
        values = np.ascontiguousarray(gathered(_plain(leaf)))
        sha.update(f"{values.dtype}{values.shape}".encode())
        sha.update(values.tobytes())
    return sha.hexdigest()


def _plain(leaf: jax.Array) -> jax.Array:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _checksum(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def steps(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, the newest first; none where it does not exist."""
    found = directory.iterdir() if directory.is_dir() else []
    return sorted((path for path in found if path.name.isdigit()), key=lambda path: -int(path.name))


def find(directory: Path) -> Path:
    """The newest checkpoint at `directory`: itself, or the highest-numbered one in it.

    Raises `InputError` where there is none.
    """
    if (directory / "meta" / "metadata").is_file():
        return directory
    if not directory.is_dir():
        raise InputError(f"{directory}: no such checkpoint directory")
    found = steps(directory)
    if not found:
        raise InputError(f"{directory}: no checkpoint found there, expected a numbered directory")
    return found[0]


def discard(step_path: Path) -> None:
    """Deletes a checkpoint, whether whole or not; raises `InputError`."""
    try:
        shutil.rmtree(step_path)
    except OSError as error:
        raise InputError(f"{step_path} cannot be deleted: {error.strerror}") from None


def set_aside(step_path: Path) -> Path:
    """Gives a checkpoint a name that none is looked for by, and returns it; raises `InputError`.

    It is not deleted: what could not be read may be whole, on a disk that was out of reach.
    """
    aside = step_path.with_name(f"{step_path.name}.{DAMAGED}")
    try:
        if aside.exists():
            shutil.rmtree(aside)
        return step_path.rename(aside)
    except OSError as error:
        raise InputError(f"{step_path} cannot be renamed: {error.strerror}") from None


def load_meta(step_path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint found by `find`.

    Raises `InputError` where its schema is another one, `Unreadable` where it is damaged.
    """
    try:
        meta: dict[str, Any] = json.loads((step_path / "meta" / "metadata").read_text("utf-8"))
        version, checksum = meta.get("schema_version"), meta.pop("checksum", None)
    except (OSError, ValueError, AttributeError) as error:
        raise Unreadable(f"{step_path}: not a readable jules_jax checkpoint ({error})") from None
    whole = checksum in (None, _checksum(meta))
    if version != SCHEMA_VERSION:
        kind = InputError if whole else Unreadable
        raise kind(f"{step_path}: schema version {version}, expected {SCHEMA_VERSION}")
    if not whole:
        raise Unreadable(f"{step_path}: meta is not as it was written")
    return meta


def write_meta(step_path: Path, meta: Mapping[str, Any]) -> None:
    """Gives a checkpoint of weights alone its JSON part, with a checksum."""
    place = step_path / "meta" / "metadata"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({**meta, "checksum": _checksum(meta)}, indent=1), "utf-8")


def restore(step_path: Path, like: TrainState) -> TrainState:
    """The state of the checkpoint, with the shapes and devices of `like`.

    Its weights alone, which evaluation reads, are looked at as well. Raises `InputError` where the
    shapes are others, `Unreadable` where either is damaged.
    """
    abstract: TrainState = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    _restore(step_path, "params", abstract.params)
    state: TrainState = _restore(step_path, "state", abstract)
    return state


def load_params(step_path: Path, settings: config.Config) -> network.Params:
    """The weights of a checkpoint, on one device.

    Raises `InputError` where its schema is another one, its network not the config's, or where it
    is damaged.
    """
    saved, asked = load_meta(step_path)["config"]["network"], config.to_dict(settings)["network"]
    for name in ("lstm_hidden_size", "net_arch"):
        if saved[name] != asked[name]:
            raise InputError(
                f"{step_path}: its network.{name} is {saved[name]}, and {asked[name]} was asked for"
            )
    abstract = jax.eval_shape(lambda key: network.init(key, settings.network), jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract
    )
    params: network.Params = _restore(step_path, "params", target)
    return params


def newest_params(
    directory: Path, settings: config.Config, say: Callable[[str], None]
) -> tuple[Path, network.Params]:
    """The newest checkpoint at `directory` that can be read, and its weights.

    One that is damaged is told of and passed over, unless `directory` is it. Raises as `find` and
    `load_params` do.
    """
    newest = find(directory)
    for step in [newest] if newest == directory else steps(directory):
        try:
            return step, load_params(step, settings)
        except Unreadable as error:
            if newest == directory:
                raise
            say(f"{error}; taking the one before")
    raise Unreadable(f"{directory}: no checkpoint there can be read")


def _restore(step_path: Path, item: str, target: Any) -> Any:
    """An item of a checkpoint, checked against its digest."""
    recorded = load_meta(step_path).get("digest", {}).get(item)
    args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
    misfit = f"{item} does not fit the configuration, or is damaged"

    def read() -> Any:
        with (
            _without_late_tracebacks(),
            _told(step_path, misfit, kind=Unreadable),
            ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer,
        ):
            return checkpointer.restore(step_path.resolve(), args=args)[item]

    restored = processes.all_can(read, Unreadable)
    if recorded not in (None, digest(restored)):
        raise Unreadable(f"{step_path}: {item} is damaged, its checksum is not the recorded one")
    return restored
