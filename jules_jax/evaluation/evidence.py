"""Evidence: the episodes that a trained policy is judged on, beside those of its controls.

Episodes come in shards, each with draws and, where prices are simulated, paths of its own. A device
plays a shard at a time, so what is played does not depend on how many devices there are.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from jules_jax.agent import network, policy
from jules_jax.agent.policy import Policy
from jules_jax.config import PRESETS, Config
from jules_jax.env.params import EnvParams, make_params
from jules_jax.evaluation import backtest, reference_policies, unseen
from jules_jax.evaluation.backtest import Starts, StepLog
from jules_jax.market import dataset
from jules_jax.market.feed import market_data
from jules_jax.market.table import MarketData

GATES_KEY = 11
"""Folded into the seed's key: paths and draws that training and evaluation never see."""
SHARDS = 16
"""Shards that the sampled policy plays; devices that divide them share the work."""
CONTROL_SHARDS = 4
"""Shards that the greedy policy and the controls play."""
LANE = "lane"

Array = NDArray[Any]


@dataclass(frozen=True)
class Evidence:
    """Whole episodes of the sampled policy, and what else a policy is judged by.

    sampled: `[N, T]` leaves, NumPy arrays. cluster: `[N]`, see `Starts`. greedy, random, flat: M of
    the N episodes, on the first of the same prices. null: random orders where there is no edge,
    each episode on a path of its own. differing: parameters that the environment ran with and the
    config does not have, by dotted key. notes: what was played on, in words.
    """

    sampled: StepLog
    cluster: Array
    greedy: StepLog
    random: StepLog
    flat: StepLog
    null: StepLog
    differing: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Ground:
    """Prices that shards are played on.

    market(i): what the i-th shard of every device reads, `[D · R, C]` rows where spec is by lane.
    starts: of all shards, in order; rows count from the beginning of what a device holds.
    """

    config: Config
    mesh: Mesh
    market: Callable[[int], MarketData]
    starts: Starts
    spec: P
    notes: tuple[str, ...]

    @property
    def lanes(self) -> int:
        """Episodes in a shard."""
        return len(self.starts.row) // SHARDS

    def specs(self, env_params: EnvParams) -> EnvParams:
        """How parameters are spread over the devices."""
        specs: Any = jax.tree.map(lambda leaf: P(), env_params)
        market = dataclasses.replace(specs.market, rows=self.spec)
        replaced: EnvParams = dataclasses.replace(specs, market=market)
        return replaced

    def params(self, turn: int) -> EnvParams:
        """The environment's parameters, with the prices of a turn, on the devices."""
        env_params = make_params(self.config, self.market(turn))
        shardings = jax.tree.map(partial(NamedSharding, self.mesh), self.specs(env_params))
        placed: EnvParams = jax.device_put(env_params, shardings)
        return placed


class _Player(NamedTuple):
    """A policy, and how many shards it plays of which ground."""

    ground: _Ground
    key: jax.Array
    who: Policy
    params: Any
    shards: int

    @property
    def program(self) -> tuple[Any, ...]:
        """Players of which this is equal share a compiled program."""
        return self.who, self.ground.spec


def gather(
    config: Config,
    params: network.Params,
    *,
    sampled: Policy | None = None,
    greedy: Policy | None = None,
) -> Evidence:
    """Plays `config.gates.episodes` episodes, rounded up to whole shards, and the controls.

    The policies are those of the network, unless others are given, with `params` of their own kind.
    Prices are fresh simulated paths, or the validation sessions of `market.data`. Raises
    `InputError` where those cannot be had.
    """
    own_greedy, own_sampled = policy.trained(config.network)
    sampled, greedy = sampled or own_sampled, greedy or own_greedy
    mesh = _mesh()
    key = jax.random.fold_in(jax.random.key(config.seed), GATES_KEY)
    key_market, key_play, key_null = jax.random.split(key, 3)
    ground = _recorded(config, mesh) if config.market.data else _simulated(config, mesh, key_market)
    null = _simulated(_without_edge(config), mesh, key_null)
    chance = reference_policies.at_random()
    evenly, never = (
        jnp.asarray(each, jnp.float32)
        for each in (reference_policies.EVENLY, reference_policies.NEVER)
    )
    first = _first_turns([ground, null])
    differ = (differing(env_params, config) for env_params in first.values())
    keys = tuple(dict.fromkeys(itertools.chain(*differ)))
    log, greedily, random, flat, without_edge = _play(
        [
            _Player(ground, key_play, sampled, params, SHARDS),
            _Player(ground, key_play, greedy, params, CONTROL_SHARDS),
            _Player(ground, key_play, chance, evenly, CONTROL_SHARDS),
            _Player(ground, key_play, chance, never, CONTROL_SHARDS),
            _Player(null, key_null, chance, evenly, CONTROL_SHARDS),
        ],
        first,
    )
    return Evidence(
        sampled=log,
        cluster=ground.starts.cluster,
        greedy=greedily,
        random=random,
        flat=flat,
        null=without_edge,
        differing=keys,
        notes=ground.notes,
    )


def differing(env_params: EnvParams, config: Config) -> tuple[str, ...]:
    """Dotted keys whose value in the environment's parameters is not the config's."""
    keys = []
    for name in ("account", "fills", "safeguards", "reward"):
        running, asked = getattr(env_params, name), getattr(config, name)
        for field in dataclasses.fields(asked):
            value = getattr(asked, field.name)
            expected = np.float32(value) if isinstance(value, float) else value
            if not np.array_equal(getattr(running, field.name), expected):
                keys.append(f"{name}.{field.name}")
    if env_params.max_steps_in_episode != config.max_steps_in_episode:
        keys.append("max_steps_in_episode")
    if float(env_params.progress) != 1.0:
        keys.append("progress")
    return tuple(keys)


def _mesh() -> Mesh:
    """As many of this process's devices as divide the shards."""
    devices = jax.local_devices()
    count = max(number for number in range(1, len(devices) + 1) if CONTROL_SHARDS % number == 0)
    return Mesh(devices[:count], (LANE,))


def _lanes(config: Config) -> int:
    """Episodes in a shard."""
    return -(-config.gates.episodes // SHARDS)


def _simulated(config: Config, mesh: Mesh, key: jax.Array) -> _Ground:
    """A fresh path for every episode; shard s is generation s of a feed."""
    lanes = _lanes(config)
    feed = unseen.fresh_feed(config, lanes)
    first, last = feed.starts
    offset = np.arange(lanes) * feed.path_bars
    stretches = np.stack([np.zeros(lanes, int), offset + first, offset + last], axis=1)
    every = np.tile(stretches, (SHARDS, 1))
    starts = backtest.one_per_stretch(every, len(every), (config.seed, GATES_KEY))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P()), out_specs=P(LANE), check_vma=False)
    def rows(key: jax.Array, turn: jax.Array) -> jax.Array:
        shard: Any = turn * mesh.size + jax.lax.axis_index(LANE)
        return feed.generation(key, shard)

    def market(turn: int) -> MarketData:
        return market_data(rows(key, jnp.int32(turn)), stretches, config.market.bar_seconds)

    notes = f"{len(every):,} episodes, each on a fresh path, preset {config.simulator.preset}"
    return _Ground(config, mesh, market, starts, P(LANE), (notes,))


def _recorded(config: Config, mesh: Mesh) -> _Ground:
    """The validation sessions of `market.data`, episodes without overlap played again and again."""
    split: Literal["validation"] = "validation"
    source, count = dataset.load(config), SHARDS * _lanes(config)
    market = source.market(split)
    starts = backtest.without_overlap(
        np.asarray(market.episodes), count, config.max_steps_in_episode
    )
    starts = Starts(*(leaf[:count] for leaf in (starts.row, starts.symbol, starts.cluster)))
    on_all = jax.device_put(market, NamedSharding(mesh, P()))
    notes = (
        f"{count:,} episodes on the {split} split of {config.market.data}, "
        f"{len(np.unique(starts.cluster))} that share no bar, played again with other draws",
        *source.notes,
        *source.plan(split).notes,
    )
    return _Ground(config, mesh, lambda turn: on_all, starts, P(), notes)


def _without_edge(config: Config) -> Config:
    """The same account, costs and limits on simulated paths without an edge."""
    simulator = dataclasses.replace(config.simulator, preset="null", **PRESETS["null"])
    market = dataclasses.replace(config.market, data="")
    return dataclasses.replace(config, simulator=simulator, market=market)


def _first_turns(grounds: list[_Ground]) -> dict[_Ground, EnvParams]:
    """Parameters of the first turn on every ground; their programs are compiled side by side."""
    with ThreadPoolExecutor() as pool:  # XLA compiles a program on one core
        return dict(zip(grounds, pool.map(lambda ground: ground.params(0), grounds), strict=True))


def _play(players: list[_Player], first: dict[_Ground, EnvParams]) -> list[StepLog]:
    """Every player's episodes, all its shards after one another, as NumPy arrays.

    first: of every ground, the parameters of its first turn.
    """
    with ThreadPoolExecutor() as pool:
        distinct = {player.program: player for player in players}
        compiling = pool.map(lambda p: _compile(p, first[p.ground]), distinct.values())
        programs = dict(zip(distinct, compiling, strict=True))
    played: list[list[Any]] = [[] for _ in players]
    for ground in first:
        own = [place for place, player in enumerate(players) if player.ground is ground]
        turns = -(-max(players[place].shards for place in own) // ground.mesh.size)
        for turn in range(turns):
            env_params = ground.params(turn) if turn else first[ground]
            for place in own:
                player = players[place]
                if turn * ground.mesh.size < player.shards:
                    result = programs[player.program](*_inputs(player, env_params, turn))
                    played[place].append(jax.device_get(result))
    return [jax.tree.map(lambda *parts: np.concatenate(parts), *parts) for parts in played]


def _inputs(player: _Player, env_params: EnvParams, turn: int) -> tuple[Any, ...]:
    """Arguments of a player's program: a shard for every device."""
    ground, devices = player.ground, player.ground.mesh.size
    chosen = slice(turn * devices * ground.lanes, (turn + 1) * devices * ground.lanes)
    shards = turn * devices + jnp.arange(devices)
    keys = jax.vmap(partial(jax.random.fold_in, player.key))(shards)
    everywhere, by_lane = NamedSharding(ground.mesh, P()), NamedSharding(ground.mesh, P(LANE))
    spread = (ground.starts.row[chosen], ground.starts.symbol[chosen], keys)
    return (
        jax.device_put(player.params, everywhere),
        env_params,
        *jax.device_put(spread, by_lane),
    )


def _compile(player: _Player, env_params: EnvParams) -> Any:
    """The program that plays a shard on every device."""

    def shard(
        params: Any, env_params: EnvParams, rows: jax.Array, symbols: jax.Array, keys: jax.Array
    ) -> StepLog:
        return backtest.step_log(player.who, params, env_params, rows, symbols, keys[0])

    program = jax.shard_map(
        shard,
        mesh=player.ground.mesh,
        in_specs=(P(), player.ground.specs(env_params), P(LANE), P(LANE), P(LANE)),
        out_specs=P(LANE),
        check_vma=False,
    )
    return jax.jit(program).lower(*_inputs(player, env_params, 0)).compile()
