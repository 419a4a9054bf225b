"""Resuming: what a run's checkpoint holds besides its state, written as it goes, read to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jules_jax import config
from jules_jax.agent.learner import TrainState
from jules_jax.errors import InputError
from jules_jax.training import checkpoints, population, provenance, run_directory
from jules_jax.training.auditing import Auditor
from jules_jax.training.checkpoints import Checkpoints
from jules_jax.training.market import Market
from jules_jax.training.monitor import Monitor
from jules_jax.training.population import Member
from jules_jax.training.validation import SCORE, Validation


@dataclass(frozen=True)
class Saved:
    """Where a run goes on from: nothing done, by default.

    done: updates it has behind it. monitor: what `Monitor.snapshot` gave then. scores: in
    validation, of checkpoints by update.
    """

    done: int = 0
    generation: int = 0
    members: tuple[Member, ...] = ()
    monitor: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[int, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


NOTHING_DONE = Saved()


def directory_of(run: Path, settings: config.Config) -> Path:
    """Where, in a run's directory of checkpoints, those lie that it goes on from.

    Those of a population as a whole have one of their own, beside its members'.
    """
    return run / run_directory.POPULATION if population.is_asked(settings) else run


def read(path: Path, settings: config.Config, *, allow: bool) -> Saved:
    """What the checkpoint at `path` holds, if the run may go on from it with `settings`.

    allow: whether `provenance.ON_REQUEST` may differ. Raises `InputError` where another key
    differs, where more updates are done than asked for, or where the checkpoint is no run's;
    `Unreadable` where it is damaged.
    """
    meta = checkpoints.load_meta(path)
    run, done = meta.get("run"), int(meta["update"])
    if run is None:
        raise InputError(f"{path}: holds an agent, not a run, expected a run's own checkpoint")
    changed = provenance.require_same_config(meta, settings, allow=allow)
    if done > settings.num_updates:
        raise InputError(
            f"{path}: {done} updates are done, and {settings.num_updates} were asked for, expected "
            "as many or more"
        )
    now = {key: value for key, (_, value) in changed.items()}
    members = tuple(
        Member(
            name, population.with_values(config.load(of), now, "asked for"), tuple(run["varied"])
        )
        for name, of in run["members"].items()
    )
    scores = {int(update): score for update, score in run["scores"].items()}
    return Saved(done, meta["generation"], members, run["monitor"], scores, meta)


class Keeper:
    """Validates a run and writes its checkpoints as it goes.

    newest: the last one written, or begun from; done: its update.
    """

    def __init__(
        self,
        settings: config.Config,
        market: Market,
        kept: Checkpoints,
        monitor: Monitor,
        validation: Validation,
        auditor: Auditor,
        *,
        done: int,
    ) -> None:
        self.newest = kept.directory / str(done)
        self._settings, self._market, self._kept = settings, market, kept
        self._monitor, self._validation, self._auditor = monitor, validation, auditor

    def wait(self) -> None:
        """Returns once the newest checkpoint is whole; raises `InputError` where it cannot be."""
        self._kept.wait()

    def is_due(self, update: int) -> bool:
        """Whether a checkpoint is to follow `update` (from 1)."""
        every, last = self._settings.checkpoint_updates, self._settings.num_updates
        return update % every == 0 or update == last

    def validate(self, state: TrainState, members: tuple[Member, ...]) -> dict[str, np.ndarray]:
        """Scalars by name, `[M]` of a population; see `Validation`."""
        return self._validation(state.params, members)

    def keep(
        self, state: TrainState, members: tuple[Member, ...], validated: Mapping[str, np.ndarray]
    ) -> None:
        """Writes a checkpoint; a population's score is that of its best member."""
        self._auditor.end_part()  # first: a run can then go on from the checkpoint, trail and all
        run = {
            "monitor": self._monitor.snapshot(),
            "members": {member.name: config.to_dict(member.settings) for member in members},
            "varied": list(members[0].varied) if members else [],
        }
        score = float(np.max(validated[SCORE])) if validated else None
        generation = self._market.generation
        self.newest = self._kept.save(state, generation=generation, run=run, score=score)
