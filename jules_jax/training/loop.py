"""The training loop: a Python `for` over one compiled, donated update."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jules_jax import config
from jules_jax.agent.devices import gathered
from jules_jax.agent.learner import Learner, TrainState
from jules_jax.env.params import EnvParams
from jules_jax.errors import Diverged, InputError, Stopped
from jules_jax.training import (
    checkpoints,
    figures,
    guard,
    memory,
    population,
    preparation,
    processes,
    registry,
    resuming,
    run_directory,
    schedule,
    stopping,
)
from jules_jax.training.auditing import Auditor, Taken
from jules_jax.training.checkpoints import Checkpoints
from jules_jax.training.guard import Guard
from jules_jax.training.monitor import Monitor
from jules_jax.training.population import Member
from jules_jax.training.preparation import Prepared, Say
from jules_jax.training.profile import Profile
from jules_jax.training.resuming import NOTHING_DONE, Keeper
from jules_jax.training.run_directory import RunDirectory
from jules_jax.training.stopping import Stopping
from jules_jax.training.validation import Validation


@dataclass(frozen=True)
class Result:
    """A finished run; of a population, the checkpoint and scalars are those of the best member.

    best: the update whose checkpoint did best in validation, None where there was none.
    """

    name: str
    run_dir: Path
    checkpoint: Path
    scalars: dict[str, float]
    seconds: float
    leaderboard: str = ""
    best: int | None = None


def _print_at_once(text: str) -> None:
    print(text, flush=True)  # in a pipe, too


def train(
    settings: config.Config,
    *,
    profile: Path | None = None,
    init_from: Path | None = None,
    resume: bool = False,
    allow_config_change: bool = False,
    say: Say = _print_at_once,
) -> Result:
    """Trains, writes the run directory and the checkpoints, and returns where they are.

    `profile` is a directory for a trace of two early updates. What goes wrong before the first
    update leaves nothing behind. `init_from` is a checkpoint to begin with the weights of. `resume`
    goes on with the run `settings.name` from its newest checkpoint, with the settings it has but
    for `provenance.ALWAYS_FREE` and, with `allow_config_change`, `provenance.ON_REQUEST`. Of a run
    whose updates are all done that is what a kill may have left out: its members' checkpoints.

    Raises:
      InputError: bad settings, data or directories, or a disk that cannot be read or written.
      Diverged: an update was not finite. The registry says so, and `guard.DIRECTORY` in the run's
        directory has the last good state; there is no checkpoint of later ones.
      Stopped: by a signal, after a checkpoint.
    """
    if resume and (profile or init_from):
        raise InputError("--profile and --init-from are for a run's beginning, not with --resume")
    trace = Profile(profile, settings.num_updates) if profile else None
    processes.require_alike("settings", config.to_yaml(settings))
    take = run_directory.reopen if resume else run_directory.claim
    run = processes.own(processes.first_decides(lambda: take(settings)))
    with processes.first_enters(run_directory.alone(run.records)), memory.exhaustion_told():
        try:
            if resume:
                prepared = preparation.resume(settings, run, say, allow=allow_config_change)
            else:
                prepared = preparation.begin(settings, run, say, init_from)
            began = time.monotonic()
            validation = Validation(prepared.settings, prepared.market)
            seconds = time.monotonic() - began
        except BaseException:
            run.release()
            raise
        say(f"validation  {validation.note}; {seconds:.1f} s\nrun         {run.path}\n")
        return _trained(prepared, run, validation, trace, say)


def _trained(
    prepared: Prepared,
    run: RunDirectory,
    validation: Validation,
    trace: Profile | None,
    say: Say,
) -> Result:
    """All updates of a run, and its last lines in the registry."""
    settings, market, saved = prepared.settings, prepared.market, prepared.saved
    names = [member.name for member in prepared.members]
    directory = resuming.directory_of(run.checkpoints, settings)
    began, outcome = time.monotonic(), "failed"
    try:
        with (
            Checkpoints(directory, settings, data=market.fingerprint, scores=saved.scores) as kept,
            Monitor(
                run.records, settings, names, after=saved.done, snapshot=saved.monitor
            ) as monitor,
            Auditor(run.records, settings, market, after=saved.done) as auditor,
            Stopping(say) as stop,
        ):
            keeper = Keeper(settings, market, kept, monitor, validation, auditor, done=saved.done)
            guarded = Guard(run.path, settings)
            state, members = _updates(prepared, monitor, guarded, keeper, auditor, stop, trace, say)
            saved_at = _save_members(run.checkpoints, prepared, state, members)
            kept.wait()
            best = monitor.best
            checkpoint = saved_at[best] if saved_at else keeper.newest
            outcome = "finished"
    except (KeyboardInterrupt, Stopped):
        outcome = "interrupted"
        raise
    except Diverged:
        outcome = "diverged"
        raise
    except OSError as error:
        raise InputError(
            f"{error.filename or run.path}: {error.strerror or error}; the run goes on from its "
            f"newest checkpoint with --resume {run.name}"
        ) from None
    finally:
        with suppress(InputError):  # a full disk has been told of
            registry.append(run.records.parent, outcome, run.name)
    # in the last update: whoever trains a run after this one is to stop, too
    if asked := processes.anyones(stop.asked):
        raise _stopped(asked, settings.num_updates, settings.num_updates, run.path)
    seconds = time.monotonic() - began
    return Result(
        run.name, run.path, checkpoint, monitor.scalars[best], seconds, monitor.leaderboard(),
        kept.best,
    )  # fmt: skip


def _save_members(
    directory: Path, prepared: Prepared, state: TrainState, members: tuple[Member, ...]
) -> list[Path]:
    """Writes the checkpoint of every member; each is one of a single agent."""
    return [
        checkpoints.save(
            directory / member.name,
            population.of_member(state, place),
            generation=prepared.market.generation,
            settings=member.settings,
            data=prepared.market.fingerprint,
        )
        for place, member in enumerate(members)
    ]


def replay(path: Path, settings: config.Config, *, say: Say = _print_at_once) -> str:
    """Runs a diverged update again from what the guard kept at `path`; returns what it shows.

    With the `settings` saved there, and as many devices, its metrics are those recorded, bit for
    bit; other settings tell whether, say, a smaller step would have survived. Of a population, what
    differs from the settings saved there holds for every member. Raises `InputError`.
    """
    divergence = guard.load(path)
    saved = config.read_yaml(str(path / config.CONFIG_FILE))
    found = config.differences(config.resolve(saved), settings)
    changed = {key: value for key, (_, value) in found.items()}
    members = tuple(
        Member(name, population.with_values(config.load(of), changed, "replayed"))
        for name, of in divergence.members.items()
    )
    prepared = preparation.prepare(settings, say, generation=divergence.generation, members=members)
    state = checkpoints.restore(checkpoints.find(path), prepared.state)
    params, numbers = schedule.numbers_at(
        divergence.progress, prepared.settings, members, prepared.params
    )
    _, metrics, _ = _update(prepared.learner, state, params, members, numbers)
    return f"update {divergence.update}    {guard.compare(divergence.metrics, _fetch(metrics))}"


def _update(
    learner: Learner,
    state: TrainState,
    params: EnvParams,
    members: tuple[Member, ...],
    numbers: config.PPO | None,
) -> tuple[TrainState, dict[str, jax.Array], Any]:
    """An update, with what the guard looks at among its metrics, and what is audited of it."""
    state, metrics, watched = learner.update_watched(state, params, numbers)
    return state, metrics | guard.magnitudes(state, of_members=bool(members)), watched


def _updates(
    prepared: Prepared,
    monitor: Monitor,
    guarded: Guard,
    keeper: Keeper,
    auditor: Auditor,
    stop: Stopping,
    trace: Profile | None,
    say: Say,
) -> tuple[TrainState, tuple[Member, ...]]:
    """All updates; the metrics of one are fetched once the next is under way.

    The first one's are fetched at once, as whoever waits wants to see that it runs; so are those
    that decide who goes on from whose weights, and those of a state that is to be kept: nothing
    that diverged is.
    """
    market, learner, settings = prepared.market, prepared.learner, prepared.settings
    params, state, members = prepared.params, prepared.state, prepared.members
    updates, exploit_every = settings.num_updates, settings.population.exploit_every
    began, first = time.monotonic(), prepared.saved.done + 1
    if prepared.saved is NOTHING_DONE:
        keeper.keep(state, members, {})
        say(f"checkpoint  of the beginning; {time.monotonic() - began:.1f} s")
        began = time.monotonic()

    def finish(
        update: int,
        metrics: dict[str, jax.Array],
        taken: Taken | None,
        validated: Mapping[str, np.ndarray],
    ) -> None:
        fetched = _fetch(metrics)
        auditor.write(taken)
        if update == first:
            keeper.wait()  # what has a row of metrics can go on
            say(f"update {update}    {time.monotonic() - began:.1f} s")
        monitor.log(update, fetched | dict(validated))
        guarded.check(update, fetched)

    pending: tuple[int, dict[str, jax.Array], Taken | None] | None = None
    for update in range(first, updates + 1):
        if market.refresh(update - 1):
            params = dataclasses.replace(params, market=market.on(learner.mesh))
        progress = settings.progress(update - 1)
        params, numbers = schedule.numbers_at(progress, settings, members, params)
        start = guard.Start(update, state, market.generation, progress, members)
        guarded.hold(start)
        if trace:
            trace.before(update)
        state, metrics, watched = _update(learner, state, params, members, numbers)
        taken = auditor.take(update, progress, watched, params)
        if figures.is_due(update, settings):  # now, before the next update takes the weights
            of = [member.settings for member in members]
            monitor.draw(update, state.params, of, market.data, progress)
        if trace and trace.after(update, metrics):
            say(f"profile     {trace.directory}")
        if pending:
            finish(*pending, {})
        pending = (update, metrics, taken)
        asked, due = processes.stop_after(stop.asked, update), keeper.is_due(update)
        exploits = bool(members and exploit_every) and update % exploit_every == 0
        validated = keeper.validate(state, members) if due else {}
        if update == first or exploits or due or asked:
            finish(*pending, validated)
            pending = None
        if exploits and update < updates:
            source, members = population.evolve(members, monitor.scores(), update, settings)
            state = population.copy_weights(state, source)
            params = population.of_environment(params, members)
            params = preparation.on_devices(params, market, learner)
            monitor.copied(source)
        if due or asked:
            keeper.keep(state, members, validated)
        if asked and update < updates:
            raise _stopped(asked, update, updates, monitor.directory)
    return state, members


def _stopped(asked: signal.Signals, update: int, updates: int, run: Path) -> Stopped:
    then = "goes on" if update < updates else "judges it by its gates"
    return Stopped(
        f"by {asked.name} after update {update} of {updates}, with a checkpoint; "
        f"python -m jules_jax.train --resume {run} {then}",
        stopping.STATUS[asked],
    )


def _fetch(metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    fetched: dict[str, np.ndarray] = gathered(metrics)
    return fetched
