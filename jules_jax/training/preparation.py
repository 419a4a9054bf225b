"""What a run's first update needs, compiled: of a new run, or of one that goes on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jules_jax import config
from jules_jax.agent import lstm, network
from jules_jax.agent.devices import spread
from jules_jax.agent.learner import LANE, MEMBER, Learner, TrainState
from jules_jax.agent.lstm_choice import Choice
from jules_jax.env.episodes import Episodes
from jules_jax.env.metrics import step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.errors import InputError
from jules_jax.market import storage
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.table import MarketData
from jules_jax.training import (
    auditing,
    backend,
    checkpoints,
    dashboard,
    memory,
    population,
    processes,
    provenance,
    registry,
    resuming,
    schedule,
)
from jules_jax.training.market import Market, specs
from jules_jax.training.population import Member
from jules_jax.training.resuming import NOTHING_DONE, Saved
from jules_jax.training.run_directory import RunDirectory

Say = Callable[[str], None]

ANY_LSTM = Choice("scan", "where shapes alone are asked for", lstm.sequence)
"""What is not to be compared with anything on the device."""
LEARNER_KEY = 1
"""Folded into the seed's key for the learner's draws."""


@dataclass(frozen=True)
class Planned:
    """What is to be trained, short of compiling it; `members` is empty for a single agent."""

    settings: config.Config
    market: Market
    learner: Learner
    params: EnvParams
    members: tuple[Member, ...]


def plan(
    settings: config.Config,
    say: Say,
    *,
    generation: int = 0,
    members: tuple[Member, ...] | None = None,
) -> Planned:
    """The market of a `generation` and a learner for it, both told of to `say`.

    members: a population's agents, where they are not those that `settings` ask for. Raises
    `InputError` where the memory cannot hold it, of simulated paths before they are made; with
    `auto_lanes` the settings that come back have as many lanes as it holds.
    """
    if settings.deterministic:
        backend.use_deterministic_kernels()
    market = Market(settings, generation=generation) if settings.market.data else None
    table = market.data if market else table_of(settings, generation)

    def predicted(settings: config.Config) -> memory.Prediction:
        return memory.predict(*learner_of(settings, table, _agents(settings, members), ANY_LSTM))

    if settings.auto_lanes:
        asked = settings
        settings = processes.first_decides(lambda: memory.with_fewer_lanes(asked, predicted))
        few, many = settings.num_envs, asked.num_envs
        say(f"lanes       {few:,} of the {many:,} asked for are what memory holds")
    agents = _agents(settings, members)
    learner, params = learner_of(settings, table, agents)
    if "scan" in processes.everyones(learner.lstm.name) and learner.lstm.name != "scan":
        elsewhere = Choice("scan", "another process cannot use the kernel", lstm.sequence)
        learner, params = learner_of(settings, table, agents, elsewhere)
    needed = memory.predict(learner, params)
    needed.require()
    market = market or Market(settings, generation=generation, mesh=learner.mesh)
    processes.require_alike("bars", json.dumps(market.fingerprint, sort_keys=True))
    say(describe(learner, market, needed))
    params = dataclasses.replace(params, market=market.data)
    return Planned(settings, market, learner, params, agents)


def table_of(settings: config.Config, generation: int) -> MarketData:
    """The shapes of the table of simulated paths that `Market` will make."""
    feed = SimulatedFeed(settings)
    table: MarketData = jax.eval_shape(
        lambda key: feed.resident(key, generation), jax.random.key(0)
    )
    return table


def _agents(settings: config.Config, members: tuple[Member, ...] | None) -> tuple[Member, ...]:
    """The agents of a population: `members`, or those that the settings ask for."""
    if members is not None:
        return members
    return population.members(settings) if population.is_asked(settings) else ()


def learner_of(
    settings: config.Config,
    table: MarketData,
    members: tuple[Member, ...],
    lstm_choice: Choice | None = None,
) -> tuple[Learner, EnvParams]:
    """A learner of these agents, and the environment's numbers at the beginning."""
    params = make_params(settings, table, progress=0.0, randomise=True)
    if members:
        params = population.of_environment(params, members)
    axes = population.environment_axes(params) if members else None
    sharded = settings.market.sharded
    learner = Learner(
        Episodes(),
        settings,
        step_metrics=_step_metrics,
        members=len(members) or None,
        env_axes=axes,
        env_specs=specs(params, axes, sharded=sharded),
        return_edges=dashboard.RETURN_EDGES,
        watch=auditing.watch,
        watched=auditing.lanes_of(settings),
        lstm_choice=lstm_choice,
    )
    if sharded:
        rows, columns = table.rows.shape
        parts = jax.ShapeDtypeStruct((learner.lane_devices * rows, columns), table.rows.dtype)
        whole: Any = dataclasses.replace(table, rows=parts)  # type: ignore[arg-type]
        params = dataclasses.replace(params, market=whole)
    return learner, params


def describe(learner: Learner, market: Market, predicted: memory.Prediction) -> str:
    """What is about to be trained, in a few lines."""
    settings, mesh, agents = learner.settings, learner.mesh, learner.members
    ppo, data, devices = settings.at(0.0).ppo, market.data, mesh.devices.ravel()
    starts, rows = int(data.cumulative[-1]), data.rows
    shapes = jax.eval_shape(lambda key: network.init(key, settings.network), jax.random.key(0))
    source = settings.market.data or f"simulated paths, preset {settings.simulator.preset}"
    lanes = auditing.lanes_of(settings)
    lines = [
        f"devices     {len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
        f"{_among_processes()}{backend.note(settings)}",
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
        f"            LSTM by {learner.lstm}",
        *schedule.describe(settings),
        *([f"audit       every step of {lanes:,} lanes"] if lanes else []),
        *([f"population  {agents} agents in one program, {_shared_out(mesh)}"] if agents else []),
        f"memory      {predicted.describe()}",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Prepared:
    """Everything that the first update needs, compiled; `members` is empty for a single agent.

    saved: where a resumed run goes on from.
    """

    settings: config.Config
    market: Market
    learner: Learner
    params: EnvParams
    state: TrainState
    members: tuple[Member, ...]
    saved: Saved = NOTHING_DONE


def prepare(
    settings: config.Config,
    say: Say,
    *,
    generation: int = 0,
    members: tuple[Member, ...] | None = None,
) -> Prepared:
    """The market of a `generation`, a learner's first state, and its compiled update.

    members: a population's agents, where they are not those that `settings` ask for. Tells `say`
    what is to be trained, and what starting took.
    """
    began = time.monotonic()
    planned = plan(settings, say, generation=generation, members=members)
    settings, market, learner = planned.settings, planned.market, planned.learner
    agents = planned.members
    market_seconds = time.monotonic() - began

    began = time.monotonic()
    params = on_devices(planned.params, market, learner)
    keys = [_learner_key(member.settings.seed) for member in agents]
    key = jnp.stack(keys) if agents else _learner_key(settings.seed)
    state = learner.init(key, params)
    counted = learner.compile(state, params) + market.data.rows.nbytes
    processes.everyones("ready")  # who is first in an exchange waits for the others 30 s only
    say(
        f"            XLA counts {counted / 2**20:,.0f} MiB for the compiled update\n"
        f"start-up    market {market_seconds:.1f} s, compilation {time.monotonic() - began:.1f} s"
    )
    return Prepared(settings, market, learner, params, state, agents)


def _among_processes() -> str:
    return f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""


def _shared_out(mesh: Mesh) -> str:
    """How a population's members and lanes are spread over the devices."""
    members, lanes = mesh.shape[MEMBER], mesh.shape[LANE]
    return f"devices: {members} of members × {lanes} of lanes"


def on_devices(params: EnvParams, market: Market, learner: Learner) -> EnvParams:
    """The environment's parameters on every device, with the market that is its own."""
    nothing: Any = ()
    copied: EnvParams = learner.replicate(dataclasses.replace(params, market=nothing))
    return dataclasses.replace(copied, market=market.on(learner.mesh))


def _learner_key(seed: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), LEARNER_KEY)


def begin(settings: config.Config, run: RunDirectory, say: Say, init_from: Path | None) -> Prepared:
    """A new run, entered in the registry; `init_from` as of `loop.train`."""
    found = checkpoints.newest_params(init_from, settings, say) if init_from else None
    prepared = prepare(settings, say)
    origin: dict[str, str] = {}
    if found:
        path, weights = found
        prepared = dataclasses.replace(prepared, state=with_weights(prepared.state, weights))
        origin = {"init_from": str(path)}
        say(f"weights     from {path}")
    _write_config(run, prepared)
    registry.append(
        run.records.parent,
        "started",
        run.name,
        config_hash=registry.config_hash(config.to_dict(prepared.settings)),
        seed=settings.seed,
        agents=max(len(prepared.members), 1),
        data=settings.market.data or f"preset {settings.simulator.preset}",
        **origin,
    )
    return prepared


def with_weights(state: TrainState, params: network.Params) -> TrainState:
    """A new run's state with other weights, every member's where it is a population's."""
    weights = jax.tree.map(
        lambda new, old: spread(jnp.broadcast_to(new, old.shape), old.sharding),
        params,
        state.params,
    )
    return dataclasses.replace(state, params=weights)


def resume(settings: config.Config, run: RunDirectory, say: Say, *, allow: bool) -> Prepared:
    """A run as its newest checkpoint has it, entered in the registry.

    A checkpoint that cannot be read is told of and renamed: the run goes on from the one before,
    and will write the same one again.
    """
    directory = resuming.directory_of(run.checkpoints, settings)
    found = processes.first_decides(lambda: checkpoints.steps(directory))
    if not found:
        raise InputError(
            f"{directory}: no checkpoint to resume; a run that ended before its first one begins "
            f"again, under the same --name {run.name}"
        )
    damaged: list[Path] = []
    for path in found:
        try:
            prepared = _restored(path, settings, say, allow=allow)
            break
        except checkpoints.Unreadable as error:
            say(f"checkpoint  {error}; going on from the one before")
            damaged.append(path)
    else:
        raise InputError(f"{directory}: none of {len(found)} checkpoints can be read")
    for each in damaged:
        aside = processes.first_decides(partial(checkpoints.set_aside, each))
        say(f"checkpoint  {each} is now {aside}")
    say(f"resuming    {path}, after update {prepared.saved.done} of {settings.num_updates}")
    _write_config(run, prepared)
    registry.append(
        run.records.parent,
        "resumed",
        run.name,
        config_hash=registry.config_hash(config.to_dict(settings)),
        update=prepared.saved.done,
    )
    return prepared


def _write_config(run: RunDirectory, prepared: Prepared) -> None:
    """Puts a run's config beside its metrics and, of a single agent, beside its checkpoints."""
    checkpoints.write_config(run.path, prepared.settings)
    if not prepared.members:
        checkpoints.write_config(run.checkpoints, prepared.settings)


def _restored(path: Path, settings: config.Config, say: Say, *, allow: bool) -> Prepared:
    """A run as the checkpoint at `path` has it; raises as `resuming.read` does."""
    read = partial(resuming.read, path, settings, allow=allow)
    saved = processes.all_can(read, checkpoints.Unreadable)
    prepared = prepare(settings, say, generation=saved.generation, members=saved.members)
    provenance.require_same_data(saved.meta, prepared.market.fingerprint)
    if storage.is_dataset(settings.market.data):
        storage.require_as_built(settings.market.data)
    before, now = saved.meta["devices"], checkpoints.num_devices(prepared.state)
    if settings.market.sharded and before != now:
        raise InputError(
            f"{path}: {before} devices trained, each on paths of its own (market.sharded), and "
            f"there are {now}, expected as many: lanes would go on with the prices of others"
        )
    state = checkpoints.restore(path, prepared.state)
    for note in provenance.notes(saved.meta, checkpoints.num_devices(state)):
        say(f"note        {note}")
    return dataclasses.replace(prepared, state=state, saved=saved)


def _step_metrics(info: dict[str, Any], action: jax.Array, logits: jax.Array) -> Any:
    del action, logits
    return step_metrics(info["record"])
