"""The training loop: a Python `for` over one compiled, donated update."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.learner import Learner, TrainState
from jules_jax.env.episodes import Episodes
from jules_jax.env.metrics import step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.errors import Diverged
from jules_jax.training import (
    checkpoints,
    dashboard,
    figures,
    guard,
    population,
    registry,
    run_directory,
)
from jules_jax.training.guard import Guard
from jules_jax.training.market import Market
from jules_jax.training.monitor import Monitor
from jules_jax.training.population import Member
from jules_jax.training.profile import Profile

Say = Callable[[str], None]

LEARNER_KEY = 1
"""Folded into the seed's key for the learner's draws."""


@dataclass(frozen=True)
class Result:
    """A finished run; of a population, the checkpoint and scalars are those of the best member."""

    name: str
    run_dir: Path
    checkpoint: Path
    scalars: dict[str, float]
    seconds: float
    leaderboard: str = ""


def _print_at_once(text: str) -> None:
    print(text, flush=True)  # in a pipe, too


def describe(settings: config.Config, market: Market) -> str:
    """What is about to be trained, in a few lines."""
    ppo, data = settings.ppo, market.data
    devices = jax.devices()[: settings.devices or None]
    starts, rows = int(data.cumulative[-1]), data.rows
    shapes = jax.eval_shape(lambda key: network.init(key, settings.network), jax.random.key(0))
    source = settings.market.data or f"simulated paths, preset {settings.simulator.preset}"
    lines = [
        f"devices     {len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
        f"market      {source}",
        *(f"            {note}" for note in market.notes),
        f"            {rows.shape[0]:,} bars on the device ({rows.nbytes / 2**20:,.0f} MiB), "
        f"{starts:,} places to start an episode",
        f"training    {settings.num_envs:,} lanes × {ppo.n_steps} steps × "
        f"{settings.num_updates:,} updates = "
        f"{settings.num_envs * ppo.n_steps * settings.num_updates:,} steps",
        f"            {ppo.n_epochs} epochs of {ppo.num_minibatches} minibatches, batch_size "
        f"{settings.batch_size:,} steps; learning rate {ppo.learning_rate:g}, "
        f"entropy {ppo.ent_coef:g}",
        f"network     {network.num_parameters(shapes):,} parameters "
        f"(2 × LSTM({settings.network.lstm_hidden_size}) + {list(settings.network.net_arch)})",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Prepared:
    """Everything that the first update needs, compiled; `members` is empty for a single agent."""

    settings: config.Config
    market: Market
    learner: Learner
    params: EnvParams
    state: TrainState
    members: tuple[Member, ...]


def _prepare(
    settings: config.Config,
    say: Say,
    *,
    generation: int = 0,
    members: tuple[Member, ...] | None = None,
) -> _Prepared:
    began = time.monotonic()
    if members is None:
        members = population.members(settings) if population.is_asked(settings) else ()
    market = Market(settings, generation=generation)
    params = make_params(settings, market.data, progress=0.0)
    learner = Learner(
        Episodes(),
        settings,
        step_metrics=_step_metrics,
        members=len(members) or None,
        env_axes=population.environment_axes(params) if members else None,
        return_edges=dashboard.RETURN_EDGES,
    )
    say(describe(settings, market))
    if members:
        say(f"population  {len(members)} agents in one program")
    market_seconds = time.monotonic() - began

    began = time.monotonic()
    params = learner.replicate(population.of_environment(params, members) if members else params)
    keys = [_learner_key(member.settings.seed) for member in members]
    key = jnp.stack(keys) if members else _learner_key(settings.seed)
    state = learner.init(key, params)
    memory = learner.compile(state, params)
    say(
        f"memory      about {(memory + market.data.rows.nbytes) / 2**20:,.0f} MiB\n"
        f"start-up    market {market_seconds:.1f} s, compilation {time.monotonic() - began:.1f} s"
    )
    return _Prepared(settings, market, learner, params, state, members)


def _learner_key(seed: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), LEARNER_KEY)


def train(
    settings: config.Config, *, profile: Path | None = None, say: Say = _print_at_once
) -> Result:
    """Trains, writes the run directory and the checkpoint, and returns where they are.

    `profile` is a directory for a trace of two early updates. What goes wrong before the first
    update leaves nothing behind.

    Raises:
      InputError: bad settings, data or directories.
      Diverged: an update was not finite. The registry says so, and `guard.DIRECTORY` in the run's
        directory has the last good state; there is no other checkpoint of the run's end.
    """
    trace = Profile(profile, settings.num_updates) if profile else None
    run = run_directory.claim(settings)
    try:
        prepared = _prepare(settings, say)
        (run.path / run_directory.CONFIG_FILE).write_text(config.to_yaml(settings), "utf-8")
        registry.append(
            run.path.parent,
            "started",
            run.name,
            config_hash=registry.config_hash(config.to_dict(settings)),
            seed=settings.seed,
            agents=max(len(prepared.members), 1),
            data=settings.market.data or f"preset {settings.simulator.preset}",
        )
    except BaseException:
        run.release()
        raise
    say(f"run         {run.path}\n")
    began, outcome = time.monotonic(), "failed"
    try:
        with Monitor(run.path, settings, [member.name for member in prepared.members]) as monitor:
            guarded = Guard(run.path, settings)
            state, members = _updates(prepared, monitor, guarded, trace, say)
        seconds, best = time.monotonic() - began, monitor.best
        saved = _save(run.checkpoints, prepared, state, members)
        outcome = "finished"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    except Diverged:
        outcome = "diverged"
        raise
    finally:
        registry.append(run.path.parent, outcome, run.name)
    return Result(
        run.name, run.path, saved[best], monitor.scalars[best], seconds, monitor.leaderboard()
    )


def _save(
    directory: Path, prepared: _Prepared, state: TrainState, members: tuple[Member, ...]
) -> list[Path]:
    """Writes the checkpoint of the agent, or of every member; each is one of a single agent."""
    generation = prepared.market.generation
    if not members:
        return [
            checkpoints.save(directory, state, generation=generation, settings=prepared.settings)
        ]
    return [
        checkpoints.save(
            directory / member.name,
            population.of_member(state, place),
            generation=generation,
            settings=member.settings,
        )
        for place, member in enumerate(members)
    ]


def replay(path: Path, settings: config.Config, *, say: Say = _print_at_once) -> str:
    """Runs a diverged update again from what the guard kept at `path`; returns what it shows.

    With the `settings` saved there, and as many devices, its metrics are those recorded, bit for
    bit; other settings tell whether, say, a smaller step would have survived. Raises `InputError`.
    """
    divergence = guard.load(path)
    members = tuple(Member(name, config.load(of)) for name, of in divergence.members.items())
    prepared = _prepare(settings, say, generation=divergence.generation, members=members)
    state = guard.restore(path, prepared.state)
    params = dataclasses.replace(prepared.params, progress=jnp.float32(divergence.progress))
    _, metrics = _update(prepared.learner, state, params, members)
    return f"update {divergence.update}    {guard.compare(divergence.metrics, _fetch(metrics))}"


def _step_metrics(info: dict[str, Any], action: jax.Array, logits: jax.Array) -> Any:
    del action, logits
    return step_metrics(info["record"])


def _update(
    learner: Learner, state: TrainState, params: EnvParams, members: tuple[Member, ...]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """An update, with what the guard looks at among its metrics."""
    numbers = population.of_learner(members) if members else None
    state, metrics = learner.update(state, params, numbers)
    return state, metrics | guard.magnitudes(state, of_members=bool(members))


def _updates(
    prepared: _Prepared, monitor: Monitor, guarded: Guard, trace: Profile | None, say: Say
) -> tuple[TrainState, tuple[Member, ...]]:
    """All updates; the metrics of one are fetched once the next is under way.

    The first one's are fetched at once, as whoever waits wants to see that it runs; so are those
    that decide who goes on from whose weights.
    """
    market, learner, settings = prepared.market, prepared.learner, prepared.settings
    params, state, members = prepared.params, prepared.state, prepared.members
    updates, exploit_every = settings.num_updates, settings.population.exploit_every
    began = time.monotonic()

    def finish(update: int, metrics: dict[str, jax.Array]) -> None:
        fetched = _fetch(metrics)
        if update == 1:
            say(f"update 1    {time.monotonic() - began:.1f} s")
        monitor.log(update, fetched)
        guarded.check(update, fetched)

    pending: tuple[int, dict[str, jax.Array]] | None = None
    for update in range(1, updates + 1):
        if market.refresh(update - 1):
            params = dataclasses.replace(params, market=learner.replicate(market.data))
        progress = (update - 1) / max(updates - 1, 1)
        params = dataclasses.replace(params, progress=jnp.float32(progress))
        start = guard.Start(update, state, market.generation, progress, members)
        guarded.hold(start)
        if trace:
            trace.before(update)
        state, metrics = _update(learner, state, params, members)
        if figures.is_due(update, settings):  # now, before the next update takes the weights
            of = [member.settings for member in members]
            monitor.draw(update, state.params, of, market.data, progress)
        if trace and trace.after(update, metrics):
            say(f"profile     {trace.directory}")
        if pending:
            finish(*pending)
        pending = (update, metrics)
        exploits = bool(members and exploit_every) and update % exploit_every == 0
        if update == 1 or exploits:
            finish(*pending)
            pending = None
        if exploits and update < updates:
            source, members = population.evolve(members, monitor.scores(), update, settings)
            state = population.copy_weights(state, source)
            params = learner.replicate(population.of_environment(params, members))
            monitor.copied(source)
    if pending:
        finish(*pending)
    return state, members


def _fetch(metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    fetched: dict[str, np.ndarray] = jax.device_get(metrics)
    return fetched
