"""The actor-critic: two towers (LSTM, then ReLU layers) and a linear head on each."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jules_jax import config
from jules_jax.agent import lstm, moments
from jules_jax.agent.moments import Moments
from jules_jax.env.observation import OBSERVATION_LIMIT, action_mask

Recurrence = Callable[..., Any]
"""`lstm.step` or `lstm.sequence`: the only difference between acting and replaying."""
ACTOR, CRITIC = 0, 1
"""Places of the two towers on their shared axis."""
NEVER = -1e9
"""Logit of an action that is masked: its probability is 0, its share of the entropy too."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """A linear layer: kernel `[in, out]`, bias `[out]`."""

    kernel: jax.Array
    bias: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tower:
    """What turns observations into features, actor or critic."""

    lstm: lstm.LSTM
    hidden: tuple[Dense, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    """What acting needs, float32. Every leaf of `towers` has a leading axis of 2: actor, critic."""

    towers: Tower
    policy_head: Dense
    value_head: Dense
    observations: Moments | None = None  # where they are standardised
    targets: Moments | None = None  # where the critic learns them standardised
    mask_actions: bool = field(default=False, metadata={"static": True})


def init(
    key: jax.Array, settings: config.Network, num_inputs: int = 12, num_actions: int = 3
) -> Params:
    """Orthogonal weights: gain √2 in hidden layers, 0.01 in the policy head, 1 in the value head.

    (Andrychowicz et al. 2021, "What matters for on-policy deep actor-critic methods", section 3.2:
    the small policy head makes the first policy near uniform.)
    """
    key_towers, key_policy, key_value = jax.random.split(key, 3)
    init_tower = partial(_init_tower, settings=settings, num_inputs=num_inputs)
    width = (settings.lstm_hidden_size, *settings.net_arch)[-1]
    return Params(
        # A loop, not a vmap, over the two: it compiles several times faster.
        towers=lax.map(init_tower, jax.random.split(key_towers, 2)),
        policy_head=_init_dense(key_policy, width, num_actions, gain=0.01),
        value_head=_init_dense(key_value, width, 1, gain=1.0),
        observations=moments.of_nothing(num_inputs)
        if settings.observation_scaling == "running"
        else None,
        targets=moments.of_nothing() if settings.normalize_targets else None,
        mask_actions=settings.mask_actions,
    )


def _init_tower(key: jax.Array, settings: config.Network, num_inputs: int) -> Tower:
    widths = (settings.lstm_hidden_size, *settings.net_arch)
    key_lstm, *keys = jax.random.split(key, len(widths))
    return Tower(
        lstm=lstm.init(
            key_lstm,
            num_inputs,
            settings.lstm_hidden_size,
            learn_start=settings.learn_initial_carry,
        ),
        hidden=tuple(
            _init_dense(k, rows, columns, gain=math.sqrt(2.0))
            for k, rows, columns in zip(keys, widths[:-1], widths[1:], strict=True)
        ),
    )


def _init_dense(key: jax.Array, rows: int, columns: int, *, gain: float) -> Dense:
    kernel = lstm.orthogonal(key, rows, columns, gain=gain)
    return Dense(kernel=kernel, bias=jnp.zeros(columns, jnp.float32))


def initial_carry(params: Params, n: int) -> lstm.Carry:
    """The empty memory of `n` lanes, `[N, 2, H]` each: lanes lead, then actor and critic."""
    hidden_size = params.towers.lstm.recurrent_kernel.shape[-2]
    zeros = jnp.zeros((n, 2, hidden_size), jnp.float32)
    return lstm.Carry(hidden=zeros, cell=zeros)


def observe_rollout(
    params: Params, obs: tuple[jax.Array, jax.Array], target: tuple[jax.Array, jax.Array]
) -> Params:
    """The moments with one more rollout's in them: mean and variance of `obs` `[O]`, `target` `[]`.

    Where targets are standardised the value head is rescaled, so that no value changes (PopArt, van
    Hasselt et al. 2016).
    """
    if params.observations is not None:
        params = replace(params, observations=moments.blend(params.observations, *obs))
    if params.targets is None:
        return params
    old, new, head = params.targets, moments.blend(params.targets, *target), params.value_head
    rescaled = Dense(
        kernel=head.kernel * old.sd / new.sd,
        bias=(old.sd * head.bias + old.mean - new.mean) / new.sd,
    )
    return replace(params, targets=new, value_head=rescaled)


def num_parameters(params: Params) -> int:
    """Number of weights; 89,604 with the default settings, 12 inputs and 3 actions."""
    weights = (params.towers, params.policy_head, params.value_head)
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


def apply_step(
    params: Params,
    carry: lstm.Carry,
    obs: jax.Array,
    first: jax.Array,
    *,
    precision: str = "default",
) -> tuple[lstm.Carry, jax.Array, jax.Array]:
    """One step: carry `[N, 2, H]`, obs `[N, O]`, first `[N]` → carry, logits `[N, A]`, value `[N]`.

    `first` zeroes the carry before the step. `precision` is that of matrix products: default,
    high or highest (`jax.default_matmul_precision`), or bf16.
    """
    return _apply(lstm.step, params, carry, obs, first, precision)


def apply_sequence(
    params: Params,
    carry: lstm.Carry,
    obs: jax.Array,
    first: jax.Array,
    *,
    precision: str = "default",
    remat: bool = False,
    sequence: Recurrence | None = None,
) -> tuple[lstm.Carry, jax.Array, jax.Array]:
    """`apply_step` over time: obs `[T, N, O]`, first `[T, N]` → carry, `[T, N, A]`, `[T, N]`.

    With `remat` a gradient keeps the carries between stretches of time alone, and computes the rest
    of a stretch again when it gets there (Chen et al. 2016, section 4.3).
    sequence: another implementation of `lstm.sequence`.
    """
    apply = partial(_apply, sequence or lstm.sequence, params)
    if not remat:
        return apply(carry, obs, first, precision)
    steps = len(first)
    cut = (steps // stretch_steps(steps), stretch_steps(steps))

    @partial(jax.checkpoint, prevent_cse=False)
    def stretch(
        carry: lstm.Carry, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[lstm.Carry, tuple[jax.Array, jax.Array]]:
        carry, logits, value = apply(carry, *inputs, precision)
        return carry, (logits, value)

    stretches = jax.tree.map(lambda leaf: leaf.reshape(*cut, *leaf.shape[1:]), (obs, first))
    carry, outputs = lax.scan(stretch, carry, stretches)
    logits, value = jax.tree.map(lambda leaf: leaf.reshape(steps, *leaf.shape[2:]), outputs)
    return carry, logits, value


def stretch_steps(steps: int) -> int:
    """Steps of a stretch: the divisor of all of them for which as few carries and steps are kept.

    That is the one next to their square root.
    """
    divisors = (length for length in range(1, steps + 1) if steps % length == 0)
    return min(divisors, key=lambda length: length + steps // length)


def products(precision: str) -> AbstractContextManager[Any]:
    """Within, matrix products are traced with this precision: one of `config.Network`'s."""
    context: AbstractContextManager[Any] = jax.default_matmul_precision(
        lstm.BF16 if precision == "bf16" else precision
    )
    return context


def critic_carry(carry: lstm.Carry) -> lstm.Carry:
    """The critic's half of a carry: `[N, 2, H]` → `[N, H]`."""
    return lstm.Carry(hidden=carry.hidden[:, CRITIC], cell=carry.cell[:, CRITIC])


def critic_value(
    params: Params,
    carry: lstm.Carry,
    obs: jax.Array,
    first: jax.Array,
    *,
    precision: str = "default",
) -> jax.Array:
    """Values `[N]` of observations `[N, O]` after a critic carry `[N, H]`; the actor is not run."""
    critic = jax.tree.map(lambda leaf: leaf[CRITIC], params.towers)
    with products(precision):
        _, features = _tower(lstm.step, critic, carry, _standardise(params, obs), first)
        return _value(params, features)


def _apply(
    recurrence: Recurrence,
    params: Params,
    carry: lstm.Carry,
    obs: jax.Array,
    first: jax.Array,
    precision: str,
) -> tuple[lstm.Carry, jax.Array, jax.Array]:
    towers = jax.vmap(partial(_tower, recurrence), in_axes=(0, 1, None, None), out_axes=(1, 0))
    with products(precision):
        carry, features = towers(params.towers, carry, _standardise(params, obs), first)
        logits = _dense(params.policy_head, features[ACTOR])
        value = _value(params, features[CRITIC])
    if params.mask_actions:
        logits = jnp.where(action_mask(obs), logits, NEVER)
    return carry, logits, value


def _standardise(params: Params, obs: jax.Array) -> jax.Array:
    if params.observations is None:
        return obs
    known = lax.stop_gradient(params.observations)
    return jnp.clip((obs - known.mean) / known.sd, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)


def _value(params: Params, features: jax.Array) -> jax.Array:
    value = _dense(params.value_head, features)[..., 0]
    if params.targets is None:
        return value
    known = lax.stop_gradient(params.targets)
    return known.mean + known.sd * value


def _tower(
    recurrence: Recurrence, tower: Tower, carry: lstm.Carry, obs: jax.Array, first: jax.Array
) -> tuple[lstm.Carry, jax.Array]:
    carry, memory = recurrence(tower.lstm, carry, obs, first)
    # One axis of steps and lanes: with two, weight gradients would copy both of their factors.
    features = memory.reshape(-1, memory.shape[-1])
    for layer in tower.hidden:
        features = jax.nn.relu(_dense(layer, features))
    return carry, features.reshape(*first.shape, features.shape[-1])


def _dense(layer: Dense, x: jax.Array) -> jax.Array:
    return x @ layer.kernel + layer.bias
