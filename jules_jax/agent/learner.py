"""The learner: one compiled, donated update, the same program on one device or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jules_jax import config
from jules_jax.agent import lstm, moments, network, ppo, rollout
from jules_jax.agent.devices import available, spread
from jules_jax.agent.lstm_choice import Choice, choose
from jules_jax.agent.rollout import Metrics
from jules_jax.env.params import cast_section
from jules_jax.errors import InputError

LANE = "lane"
"""The mesh axis that lanes are spread over."""
MEMBER = "member"
"""The mesh axis that a population's members are spread over."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that changes in training: saved whole, it resumes bit for bit.

    `lanes` is spread over the devices, the rest is a copy on each; of a population each device has
    its own members' part of everything. `key` never changes: the draws of an update come from
    `fold_in(key, update)`.
    """

    params: network.Params
    opt_state: optax.OptState
    lanes: rollout.Lanes
    key: jax.Array
    update: jax.Array  # int32, updates done


REPLICATED: Any = PartitionSpec()


class Learner:
    """Recurrent PPO on an environment: `init`, then `update` again and again.

    With `members` = M it trains a population of M agents, all in one program: the key and every
    leaf of the state have a leading axis of M, and so have the metrics. Hyper-parameters that are
    numbers, and environment parameters named in `env_axes`, may differ between members. The mesh
    then has two axes, members × lanes; nothing is ever sent along the first.
    """

    def __init__(
        self,
        env: rollout.Environment,
        settings: config.Config,
        *,
        step_metrics: rollout.StepMetrics | None = None,
        devices: Sequence[jax.Device] | None = None,
        members: int | None = None,
        env_axes: Any = None,
        env_specs: Any = None,
        return_edges: Sequence[float] = (),
        watch: rollout.Watch | None = None,
        watched: int = 0,
        lstm_choice: Choice | None = None,
    ) -> None:
        """Plan the program for `devices`, by default `settings.devices` of those there (0: all).

        env_axes: a prefix of `env_params` as `jax.vmap` takes it, 0 where leaves are `[M, …]`, one
        for each member, None (all of it, by default) where members share them.
        env_specs: a prefix of `env_params`, how its parts are spread over the mesh where they are
        not what `specs_of` makes of `env_axes`.
        return_edges: ascending, K of them: metrics then have `histogram/ep_rew`.
        watch, watched: what `update_watched` returns of the steps of the first `watched` lanes.
        lstm_choice: what replays the LSTM, instead of what `settings.network.lstm_impl` asks for.

        Raises `InputError` where lanes, minibatches, shuffle groups, members and devices do not
        divide, where a rollout is longer than an episode, or where the LSTM asked for does not run
        here.
        """
        devices = available(settings.devices) if devices is None else devices
        self.env = env
        self.settings = settings
        self.step_metrics = step_metrics
        self.mesh = mesh_of(devices, settings, members)
        self.shuffle_groups = groups_for(settings, self.lane_devices)
        self.lstm = lstm_choice or choose(settings, self.mesh.local_devices[0], self.lane_devices)
        self.members = members
        self.return_edges = tuple(return_edges)
        self.watch, self.watched = watch, watched
        self._ppo = cast_section(settings.ppo)
        init: Callable[..., Any] = self._init_shard
        update: Callable[..., Any] = self._update_shard
        lead: tuple[str, ...] = ()
        if members is not None:
            self._ppo = self._for_each_member(self._ppo)
            init = jax.vmap(init, in_axes=(0, env_axes))
            update = jax.vmap(update, in_axes=(0, env_axes, 0))
            lead = (MEMBER,)
        own: Any = PartitionSpec(*lead)
        by_lane: Any = PartitionSpec(*lead, LANE)
        watched_lanes = PartitionSpec(*lead, None, LANE)
        state = TrainState(own, own, by_lane, own, own)
        numbers = specs_of(env_axes) if env_specs is None else env_specs
        shard = partial(jax.shard_map, mesh=self.mesh)
        init = shard(init, in_specs=(own, numbers), out_specs=state)
        update = shard(
            update, in_specs=(state, numbers, own), out_specs=(state, own, watched_lanes)
        )
        self._init: Callable[..., TrainState] = jax.jit(init)
        self._update = jax.jit(update, donate_argnums=0)
        self._run_update: Callable[..., tuple[TrainState, Metrics, Any]] = self._update

    @property
    def lane_devices(self) -> int:
        """Devices that an agent's lanes are spread over: all, unless members share them out."""
        return int(self.mesh.shape[LANE])

    def replicate(self, tree: Any) -> Any:
        """Copy a pytree (environment parameters) to every device, once instead of each update."""
        return spread(tree, NamedSharding(self.mesh, REPLICATED))

    def _for_each_member(self, settings: config.PPO) -> config.PPO:
        """Hyper-parameters `[M]`; those that are scalars are the same for all members."""

        def spread(leaf: jax.Array) -> jax.Array:
            return jnp.broadcast_to(jnp.asarray(leaf, jnp.float32), self.members)

        each: config.PPO = jax.tree.map(spread, settings)
        return each

    def init(self, key: jax.Array, env_params: Any) -> TrainState:
        """New weights, and every lane at a fresh start; with members, a key `[M]` for each.

        Where the environment has `with_time(state, time)` each lane's clock is set uniform in
        [0, max_steps_in_episode), so that lanes do not end together; that first partial episode is
        left out of the episode metrics.
        """
        return self._init(key, env_params)

    def compile(
        self, state: TrainState, env_params: Any, options: dict[str, str | bool] | None = None
    ) -> int:
        """Compile `update` for these shapes; returns the bytes it works in, by XLA's estimate.

        options: of the compiler, by the names of XLA's flags.
        """
        lowered = self._update.lower(state, env_params, self._ppo)
        compiled = lowered.compile(compiler_options=options)
        self._run_update = compiled
        memory = compiled.memory_analysis()
        if memory is None:
            return 0
        return int(memory.temp_size_in_bytes + memory.output_size_in_bytes)

    def update(
        self, state: TrainState, env_params: Any, settings: config.PPO | None = None
    ) -> tuple[TrainState, Metrics]:
        """One rollout and `n_epochs` passes over it; `state` is donated: use the one returned.

        settings: numbers that replace those of `ppo`, float32 scalars or, with members, `[M]`;
        what is counted (epochs, minibatches) stays.

        Metrics are float32 scalars over all lanes and devices. `train/*`: Stable-Baselines3's
        names, means over minibatches, but `train/ratio_deviation` (max|ratio − 1|),
        `train/learning_rate` and `train/ent_coef` of the first; `train/grad_norm` is before
        clipping. `rollout/`: `reward_sum`, `reward_var` over steps; `ep_rew_sum`, `ep_len_sum` over
        `episodes` finished whole episodes. The caller's step metrics `x`: `step_sum/x`,
        `episode_sum/x`. With `return_edges` `histogram/ep_rew` `[K + 1]` counts those episodes by
        their reward: at most the first edge, …, above the last.
        """
        state, metrics, _ = self.update_watched(state, env_params, settings)
        return state, metrics

    def update_watched(
        self, state: TrainState, env_params: Any, settings: config.PPO | None = None
    ) -> tuple[TrainState, Metrics, Any]:
        """`update`, and every step of the watched lanes: `rollout.Watched`, () where there is none.

        Its leaves are `[T, K, …]`, lanes by their global numbers; K may exceed what was asked for
        where lanes are spread over several devices.
        """
        if settings is None:
            settings = self._ppo
        elif self.members is None:
            settings = cast_section(settings)
        else:
            settings = self._for_each_member(settings)
        return self._run_update(state, env_params, settings)

    def _lane_ids(self) -> jax.Array:
        """Global ids `[N / D]` of this device's lanes."""
        lanes = self.settings.num_envs // self.lane_devices
        return lax.axis_index(LANE) * lanes + jnp.arange(lanes)

    def _init_shard(self, key: jax.Array, env_params: Any) -> TrainState:
        key, key_params, key_lanes = jax.random.split(key, 3)
        obs, _ = jax.eval_shape(self.env.reset, key, env_params)
        params = network.init(
            key_params, self.settings.network, obs.shape[-1], self.env.num_actions
        )
        lanes = rollout.start(
            params,
            self.env,
            env_params,
            key=key_lanes,
            lane_ids=self._lane_ids(),
            max_steps_in_episode=self.settings.max_steps_in_episode,
            step_metrics=self.step_metrics,
        )
        opt_state = ppo.optimizer(self.settings.ppo).init(params)
        return TrainState(params, opt_state, lanes, key, jnp.int32(0))

    def _update_shard(
        self, state: TrainState, env_params: Any, settings: config.PPO
    ) -> tuple[TrainState, Metrics, Any]:
        """An update as one device sees it: its own lanes, reductions over `LANE`."""
        key_rollout, key_shuffle = jax.random.split(jax.random.fold_in(state.key, state.update))
        lanes, steps, v_next, totals = rollout.collect(
            state.params,
            state.lanes,
            self.env,
            env_params,
            n_steps=settings.n_steps,
            key=key_rollout,
            lane_ids=self._lane_ids(),
            step_metrics=self.step_metrics,
            watch=self.watch,
            watched=min(self.watched, self.settings.num_envs // self.lane_devices),
            precision=self.settings.network.matmul_precision,
        )
        batch = batch_of(steps, v_next, settings)
        learned, stats = self._learn(state, batch, settings, key_shuffle)
        metrics = stats | _rollout_metrics(steps, batch, totals)
        metrics["train/clip_range"] = jnp.asarray(settings.clip_range)
        if self.return_edges:
            metrics["histogram/ep_rew"] = _count_between(self.return_edges, steps.ep_rew)
        params = network.observe_rollout(
            learned.params,
            moments.over_devices(batch.obs, LANE, axis=(0, 1)),
            moments.over_devices(batch.target, LANE),
        )
        state = replace(learned, params=params, lanes=lanes, update=state.update + 1)
        return state, metrics, steps.watched

    def _learn(
        self, state: TrainState, batch: ppo.Batch, settings: config.PPO, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """All optimizer steps of an update, on a rollout that began with `state.lanes.carry`."""
        minibatches = self._minibatches(key)
        steps = len(minibatches)
        last = max(self.settings.num_updates * steps - 1, 1)

        def body(
            weights: tuple[network.Params, optax.OptState], inputs: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[network.Params, optax.OptState], Metrics]:
            params, opt_state = weights
            step, lanes = inputs
            carry = jax.tree.map(lambda leaf: leaf[lanes], state.lanes.carry)
            minibatch = jax.tree.map(lambda leaf: leaf[:, lanes], batch)
            now = ppo.at(settings, jnp.minimum(step / last, 1.0))
            grads, stats = self._gradient(params, carry, minibatch, now)
            updates, opt_state = ppo.optimizer(now).update(grads, opt_state)
            updates = jax.tree.map(lambda leaf: -now.learning_rate * leaf, updates)
            stats |= {
                "grad_norm": optax.tree.norm(grads),
                "learning_rate": jnp.asarray(now.learning_rate),
                "ent_coef": jnp.asarray(now.ent_coef),
            }
            return (optax.apply_updates(params, updates), opt_state), stats

        counter = state.update * steps + jnp.arange(steps)
        weights = (state.params, state.opt_state)
        (params, opt_state), stats = lax.scan(body, weights, (counter, minibatches))
        of_first = ("ratio_deviation", "learning_rate", "ent_coef")
        metrics = {
            f"train/{name}": values[0] if name in of_first else jnp.mean(values)
            for name, values in stats.items()
        }
        return replace(state, params=params, opt_state=opt_state), metrics

    def _gradient(
        self,
        params: network.Params,
        carry: lstm.Carry,
        minibatch: ppo.Batch,
        settings: config.PPO,
    ) -> tuple[network.Params, Metrics]:
        """Gradient of the loss over the lanes of all devices, and its statistics."""

        def loss(params: network.Params) -> tuple[jax.Array, Metrics]:
            return ppo.loss(
                params,
                carry,
                minibatch,
                settings,
                axis_name=LANE,
                precision=self.settings.network.matmul_precision,
                sequence=self.lstm.sequence,
            )

        # Each device differentiates its own copy and the gradients meet once. Of weights that all
        # devices share, shard_map would sum them itself, but at every step of the LSTM.
        own = lax.pcast(params, LANE, to="varying")
        grads, stats = jax.grad(loss, has_aux=True)(own)
        deviation = lax.pmax(stats.pop("ratio_deviation"), LANE)
        grads, stats = lax.pmean((grads, stats), LANE)
        return grads, stats | {"ratio_deviation": deviation}

    def _minibatches(self, key: jax.Array) -> jax.Array:
        """This device's lanes in each optimizer step, `[n_epochs · num_minibatches, lanes]`.

        They are N / (D · num_minibatches) of its N / D. Groups of neighbouring lanes are shuffled
        within themselves, and the m-th minibatch is the m-th slice of every group: no lane changes
        device, and which lanes meet in a minibatch does not depend on the number of devices.
        """
        settings = self.settings.ppo
        groups = self.shuffle_groups // self.lane_devices
        lanes = self.settings.num_envs // self.shuffle_groups
        local = jnp.arange(groups)
        group_ids = lax.axis_index(LANE) * groups + local

        def epoch(key: jax.Array) -> jax.Array:
            permute = partial(jax.random.permutation, x=lanes)
            order = jax.vmap(permute)(rollout.lane_keys(key, group_ids)) + lanes * local[:, None]
            slices = order.reshape(groups, settings.num_minibatches, -1)
            return jnp.swapaxes(slices, 0, 1).reshape(settings.num_minibatches, -1)

        epochs = jax.vmap(epoch)(jax.random.split(key, settings.n_epochs))
        return epochs.reshape(settings.n_epochs * settings.num_minibatches, -1)


def batch_of(steps: rollout.Transitions, v_next: jax.Array, settings: config.PPO) -> ppo.Batch:
    """What the loss reads of a rollout, with advantages and targets from `v_next` `[T, N]`."""
    advantage = ppo.gae(
        steps.reward,
        steps.value,
        v_next,
        steps.terminated,
        steps.truncated,
        settings.gamma,
        settings.gae_lambda,
    )
    return ppo.Batch(
        obs=steps.obs,
        first=steps.first,
        action=steps.action,
        log_prob=steps.log_prob,
        advantage=advantage,
        target=advantage + steps.value,
    )


def _rollout_metrics(
    steps: rollout.Transitions, batch: ppo.Batch, totals: rollout.Totals
) -> Metrics:
    """Metrics of a rollout, over the lanes of all devices."""
    sums = jax.tree.map(lambda leaf: lax.psum(jnp.sum(leaf), LANE), totals)
    _, unexplained = moments.over_devices(batch.target - steps.value, LANE)
    _, variance = moments.over_devices(batch.target, LANE)
    explained = 1.0 - unexplained / jnp.where(variance > 0, variance, jnp.inf)
    own = {"rew", "len"}
    return {
        "train/explained_variance": jnp.where(variance > 0, explained, 0.0),
        "rollout/reward_sum": sums.steps["rew"],
        "rollout/reward_var": moments.over_devices(steps.reward, LANE)[1],
        "rollout/ep_rew_sum": sums.episodes["rew"],
        "rollout/ep_len_sum": sums.episodes["len"],
        "rollout/episodes": sums.num_episodes,
        **{f"step_sum/{name}": total for name, total in sums.steps.items() if name not in own},
        **{
            f"episode_sum/{name}": total for name, total in sums.episodes.items() if name not in own
        },
    }


def _count_between(edges: Sequence[float], values: jax.Array) -> jax.Array:
    """How many values of all devices lie between neighbouring edges, `[K + 1]`; NaN is none."""
    place = jnp.searchsorted(jnp.asarray(edges, jnp.float32), values.ravel())
    counts = jnp.zeros(len(edges) + 1, jnp.float32).at[place].add(~jnp.isnan(values.ravel()))
    total: jax.Array = lax.psum(counts, LANE)
    return total


def specs_of(env_axes: Any) -> Any:
    """How environment parameters are spread: a member's own over `MEMBER`, the others not."""
    return jax.tree.map(
        lambda axis: REPLICATED if axis is None else PartitionSpec(MEMBER),
        env_axes,
        is_leaf=lambda axis: axis is None,
    )


def mesh_of(devices: Sequence[jax.Device], settings: config.Config, members: int | None) -> Mesh:
    """The devices by lanes, or by members × lanes where there are M = `members` of them.

    `population.member_devices` is the first axis of the latter: 0 takes the most that divide both
    M and the devices, since members have nothing to tell each other.

    Raises `InputError` where it divides one of them only.
    """
    if members is None:
        return Mesh(list(devices), (LANE,))
    count = settings.population.member_devices or math.gcd(len(devices), members)
    if len(devices) % count or members % count:
        raise InputError(
            f"population.member_devices is {count}, expected a divisor of both the {len(devices)} "
            f"devices and the {members} agents, or 0"
        )
    return Mesh(np.reshape(np.array(devices), (count, -1)), (MEMBER, LANE))


def groups_for(settings: config.Config, num_devices: int) -> int:
    """Groups G of lanes that are shuffled among themselves; they never depend on the devices.

    num_devices: those that lanes are spread over.

    Raises `InputError` where the settings are not valid, or where the devices do not divide G.
    """
    config.validate(settings)
    groups = settings.shuffle_groups
    if groups % num_devices:
        raise InputError(
            f"{num_devices} devices do not divide the {groups} shuffle groups of lanes, expected "
            f"ppo.shuffle_groups to be a multiple of {num_devices}, or fewer devices"
        )
    return groups
