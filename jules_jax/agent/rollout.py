"""Acting: T steps of N lanes in one scan, and the values that close every sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jules_jax.agent import lstm, network, ppo
from jules_jax.env.metrics import MAXIMUM

Metrics = dict[str, jax.Array]
StepMetrics = Callable[[dict[str, Any], jax.Array, jax.Array], Metrics]
"""Pure `(info, action, logits [A]) -> {name: float32 scalar}` of one lane's step; only sums of its
values leave the device, and maxima over episodes."""
Watch = Callable[[Any, dict[str, Any]], Any]
"""Pure `(environment's state before a step, info) -> pytree`, leaves `[N, …]`, lanes leading."""


class Environment(Protocol):
    """The gymnax 1.0 contract, for one lane; a step that ends an episode returns a reset one.

    An environment may also have `with_time(state, time) -> state`, which sets a state's clock.
    """

    @property
    def num_actions(self) -> int:
        """Number of discrete actions A."""

    def reset(self, key: jax.Array, params: Any, /) -> tuple[jax.Array, Any]:
        """Start an episode: observation `[O]` and state."""

    def step(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any, /
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Observation, state, reward, terminated, truncated, info with `final_observation`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lanes:
    """The parallel episodes between two rollouts; every leaf has the lane axis first."""

    env_state: Any
    obs: jax.Array  # [N, O]
    first: jax.Array  # [N] bool, obs is the first of an episode
    carry: lstm.Carry  # [N, 2, H]
    whole: jax.Array  # [N] bool, the running episode counts in the episode metrics
    episode: Metrics  # [N] each, gathered over the running episode


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Transitions:
    """A rollout, `[T, N]` each."""

    obs: jax.Array  # [T, N, O], what the action was chosen on
    action: jax.Array  # int32
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    first: jax.Array  # bool, obs is the first of an episode
    terminated: jax.Array  # bool, the step ended the episode; nothing follows
    truncated: jax.Array  # bool, the step met the time limit
    ep_rew: jax.Array  # of the whole episode that the step ended; NaN where it ended none
    watched: Any = ()  # `Watched`, leaves [T, K, …], of the lanes that are


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Watched:
    """What an audit keeps of the steps of the first K lanes of each device, `[T, K, …]`."""

    obs: jax.Array
    first: jax.Array
    logits: jax.Array
    value: jax.Array
    seen: Any  # what the caller's `Watch` took of the step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Totals:
    """Sums over a rollout, `[N]` float32 each: over all steps, and over whole finished episodes.

    Names are `rew`, `len` and those of the caller's step metrics. Of one whose name ends in `_max`
    an episode's is the maximum over its steps (`env.metrics`).
    """

    steps: Metrics
    episodes: Metrics
    num_episodes: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Final:
    """What follows a lane's truncated step, kept until the scan ends."""

    obs: jax.Array  # [N, O]
    carry: lstm.Carry  # [N, H], the critic's, after the truncated step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Gathered:
    """Metrics of a rollout so far, M of them by sorted name, `[M, N]` each.

    One array of them all takes the CPU a fraction of the time of an array for each.
    """

    running: jax.Array  # over the running episodes
    steps: jax.Array
    episodes: jax.Array  # over those that ended, where they were whole
    num_episodes: jax.Array  # [N]
    is_maximum: jax.Array  # [M, 1] bool

    @classmethod
    def of(cls, episode: Metrics) -> _Gathered:
        """Nothing yet but what the running episodes have gathered."""
        running = jnp.stack([episode[name] for name in sorted(episode)])
        is_maximum = jnp.array([[name.endswith(MAXIMUM)] for name in sorted(episode)])
        none = jnp.zeros_like(running)
        return cls(running, none, none, none[0], is_maximum)

    def add(
        self, step: jax.Array, done: jax.Array, whole: jax.Array
    ) -> tuple[_Gathered, jax.Array]:
        """With one more step `[M, N]`; also the episodes `[M, N]` as that step leaves them."""
        more, most = self.running + step, jnp.maximum(self.running, step)
        episode = jnp.where(self.is_maximum, most, more)
        gathered = replace(
            self,
            running=jnp.where(done, 0.0, episode),
            steps=self.steps + step,
            episodes=self.episodes + jnp.where(done & whole, episode, 0.0),
            num_episodes=self.num_episodes + (done & whole),
        )
        return gathered, episode


def start(
    params: network.Params,
    env: Environment,
    env_params: Any,
    *,
    key: jax.Array,
    lane_ids: jax.Array,
    max_steps_in_episode: int,
    step_metrics: StepMetrics | None = None,
) -> Lanes:
    """Lanes at a fresh start, `[N]`, lane `lane_ids[i]` from its own draws.

    Where the environment has `with_time` each lane's clock is set uniform in
    [0, max_steps_in_episode), so that lanes do not end together; such a first partial episode is
    left out of the episode totals.
    """
    keys = jax.vmap(jax.random.split)(lane_keys(key, lane_ids))
    obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(keys[:, 0], env_params)
    with_time = getattr(env, "with_time", None)
    if with_time is not None:
        draw = partial(jax.random.randint, shape=(), minval=0, maxval=max_steps_in_episode)
        env_state = jax.vmap(with_time)(env_state, jax.vmap(draw)(keys[:, 1]))
    n = len(lane_ids)

    def step(key: jax.Array, state: Any) -> Metrics:
        action, logits = jnp.int32(0), jnp.zeros(env.num_actions, jnp.float32)
        _, _, reward, _, _, info = env.step(key, state, action, env_params)
        return _measure(reward, info, action, logits, step_metrics)

    measured = jax.eval_shape(jax.vmap(step), keys[:, 0], env_state)
    lanes = Lanes(
        env_state=env_state,
        obs=obs,
        first=jnp.ones(n, bool),
        carry=network.initial_carry(params, n),
        whole=jnp.full(n, with_time is None),
        episode=jax.tree.map(lambda leaf: jnp.zeros(n, leaf.dtype), measured),
    )
    # An update compiles once only if what it is given has the types that it returns.
    strong: Lanes = jax.tree.map(lambda leaf: lax.convert_element_type(leaf, leaf.dtype), lanes)
    return strong


def _measure(
    reward: jax.Array,
    info: dict[str, Any],
    action: jax.Array,
    logits: jax.Array,
    step_metrics: StepMetrics | None,
) -> Metrics:
    """Everything summed over steps and episodes, for one lane: float32 scalars by name."""
    metrics = {} if step_metrics is None else step_metrics(info, action, logits)
    metrics = {"rew": reward, "len": jnp.ones_like(reward)} | metrics
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


def collect(
    params: network.Params,
    lanes: Lanes,
    env: Environment,
    env_params: Any,
    *,
    n_steps: int,
    key: jax.Array,
    lane_ids: jax.Array,
    step_metrics: StepMetrics | None = None,
    watch: Watch | None = None,
    watched: int = 0,
    precision: str = "default",
) -> tuple[Lanes, Transitions, jax.Array, Totals]:
    """Act for `n_steps` = T steps; returns the lanes, transitions, `v_next` `[T, N]` and totals.

    `v_next[t]` values the state that step t led to: the final observation after the step's own
    carry where the episode was truncated, else the next value of the rollout. Since n_steps is at
    most the episode's length a lane truncates at most once, so those values and the bootstrap at
    the end are one batched critic call after the scan. The draws of lane `lane_ids[i]` `[N]` at
    step t depend on key, t and its id only, not on how lanes are spread over devices.

    Of the first `watched` lanes the transitions keep what `watch` takes of every step; with none
    the program is the one without it.
    """
    act = partial(_act, env=env, env_params=env_params, step_metrics=step_metrics)
    names = sorted(lanes.episode)

    def body(
        state: tuple[Lanes, _Final, _Gathered], t: jax.Array
    ) -> tuple[tuple[Lanes, _Final, _Gathered], Transitions]:
        lanes, final, gathered = state
        carry, logits, value = network.apply_step(
            params, lanes.carry, lanes.obs, lanes.first, precision=precision
        )
        keys = lane_keys(jax.random.fold_in(key, t), lane_ids)
        action, outcome, measured = jax.vmap(act)(keys, lanes.env_state, logits)
        obs, env_state, reward, terminated, truncated, info = outcome
        done = terminated | truncated
        gathered, episode = gathered.add(jnp.stack([measured[n] for n in names]), done, lanes.whole)
        transition = Transitions(
            obs=lanes.obs,
            action=action,
            log_prob=ppo.log_prob_of(jax.nn.log_softmax(logits), action),
            value=value,
            reward=reward.astype(jnp.float32),
            first=lanes.first,
            terminated=terminated,
            truncated=truncated,
            ep_rew=jnp.where(done & lanes.whole, episode[names.index("rew")], jnp.nan),
            watched=_watched(lanes, logits, value, info, watch, watched),
        )
        reached = _Final(info["final_observation"], network.critic_carry(carry))
        final = _select(truncated, reached, final)
        lanes = Lanes(
            env_state=env_state,
            obs=obs,
            first=done,
            carry=carry,
            whole=lanes.whole | done,
            episode={},
        )
        return (lanes, final, gathered), transition

    start = (replace(lanes, episode={}), _no_final(lanes), _Gathered.of(lanes.episode))
    (lanes, final, gathered), transitions = lax.scan(body, start, jnp.arange(n_steps))
    v_next = _next_values(params, lanes, final, transitions, precision)
    lanes = replace(lanes, episode=dict(zip(names, gathered.running, strict=True)))
    totals = Totals(
        steps=dict(zip(names, gathered.steps, strict=True)),
        episodes=dict(zip(names, gathered.episodes, strict=True)),
        num_episodes=gathered.num_episodes,
    )
    return lanes, transitions, v_next, totals


def _watched(
    lanes: Lanes,
    logits: jax.Array,
    value: jax.Array,
    info: dict[str, Any],
    watch: Watch | None,
    count: int,
) -> Any:
    """What is kept of a step of the first `count` lanes; nothing at all of none."""
    if watch is None or not count:
        return ()
    seen = Watched(lanes.obs, lanes.first, logits, value, watch(lanes.env_state, info))
    return jax.tree.map(lambda leaf: leaf[:count], seen)


def _act(
    key: jax.Array,
    env_state: Any,
    logits: jax.Array,
    *,
    env: Environment,
    env_params: Any,
    step_metrics: StepMetrics | None,
) -> tuple[jax.Array, tuple[Any, ...], Metrics]:
    """One lane's sampled action, what the environment made of it, and its step's metrics."""
    key_action, key_env = jax.random.split(key)
    action = jax.random.categorical(key_action, logits).astype(jnp.int32)
    outcome = env.step(key_env, env_state, action, env_params)
    return action, outcome, _measure(outcome[2], outcome[5], action, logits, step_metrics)


def lane_keys(key: jax.Array, lane_ids: jax.Array) -> jax.Array:
    """One key per lane, `[N]`, from a shared key and the lanes' global ids."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, lane_ids)


def _next_values(
    params: network.Params, lanes: Lanes, final: _Final, rollout: Transitions, precision: str
) -> jax.Array:
    """`v_next` `[T, N]`: truncated steps and the rollout's end are valued in one critic call."""
    last = _Final(lanes.obs, network.critic_carry(lanes.carry))
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), final, last)
    # A final observation belongs to the episode it ends: its carry is never zeroed.
    first = jnp.concatenate([jnp.zeros_like(lanes.first), lanes.first])
    value = network.critic_value(params, both.carry, both.obs, first, precision=precision)
    v_final, v_last = jnp.split(value, 2)
    following = jnp.concatenate([rollout.value[1:], v_last[None]])
    return jnp.where(rollout.truncated, v_final, following)


def _no_final(lanes: Lanes) -> _Final:
    nothing: _Final = jax.tree.map(
        jnp.zeros_like, _Final(lanes.obs, network.critic_carry(lanes.carry))
    )
    return nothing


def _select(condition: jax.Array, on_true: Any, on_false: Any) -> Any:
    """Leaf by leaf, `on_true` in the lanes where `condition` `[N]`, else `on_false`."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, on_true, on_false)
