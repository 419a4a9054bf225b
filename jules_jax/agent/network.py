"""The actor-critic: two towers (LSTM, then ReLU layers) and a linear head on each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jules_jax import config
from jules_jax.agent import lstm

ACTOR, CRITIC = 0, 1
"""Places of the two towers on their shared axis."""


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
    """All weights, float32. Every leaf of `towers` has a leading axis of 2: actor, critic."""

    towers: Tower
    policy_head: Dense
    value_head: Dense


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
    )


def _init_tower(key: jax.Array, settings: config.Network, num_inputs: int) -> Tower:
    widths = (settings.lstm_hidden_size, *settings.net_arch)
    key_lstm, *keys = jax.random.split(key, len(widths))
    return Tower(
        lstm=lstm.init(key_lstm, num_inputs, settings.lstm_hidden_size),
        hidden=tuple(
            _init_dense(k, rows, columns, gain=math.sqrt(2.0))
            for k, rows, columns in zip(keys, widths[:-1], widths[1:], strict=True)
        ),
    )


def _init_dense(key: jax.Array, rows: int, columns: int, *, gain: float) -> Dense:
    kernel = jax.nn.initializers.orthogonal(gain)(key, (rows, columns), jnp.float32)
    return Dense(kernel=kernel, bias=jnp.zeros(columns, jnp.float32))


def initial_carry(params: Params, n: int) -> lstm.Carry:
    """The empty memory of `n` lanes, `[N, 2, H]` each: lanes lead, then actor and critic."""
    hidden_size = params.towers.lstm.recurrent_kernel.shape[-2]
    zeros = jnp.zeros((n, 2, hidden_size), jnp.float32)
    return lstm.Carry(hidden=zeros, cell=zeros)


def num_parameters(params: Params) -> int:
    """Number of weights; 89,604 with the default settings, 12 inputs and 3 actions."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


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
    high or highest (`jax.default_matmul_precision`).
    """
    return _apply(lstm.step, params, carry, obs, first, precision)


def apply_sequence(
    params: Params,
    carry: lstm.Carry,
    obs: jax.Array,
    first: jax.Array,
    *,
    precision: str = "default",
) -> tuple[lstm.Carry, jax.Array, jax.Array]:
    """`apply_step` over time: obs `[T, N, O]`, first `[T, N]` → carry, `[T, N, A]`, `[T, N]`."""
    return _apply(lstm.sequence, params, carry, obs, first, precision)


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
    with jax.default_matmul_precision(precision):
        _, features = _tower(lstm.step, critic, carry, obs, first)
        return _dense(params.value_head, features)[..., 0]


Recurrence = Callable[..., Any]
"""`lstm.step` or `lstm.sequence`: the only difference between acting and replaying."""


def _apply(
    recurrence: Recurrence,
    params: Params,
    carry: lstm.Carry,
    obs: jax.Array,
    first: jax.Array,
    precision: str,
) -> tuple[lstm.Carry, jax.Array, jax.Array]:
    towers = jax.vmap(partial(_tower, recurrence), in_axes=(0, 1, None, None), out_axes=(1, 0))
    with jax.default_matmul_precision(precision):
        carry, features = towers(params.towers, carry, obs, first)
        logits = _dense(params.policy_head, features[ACTOR])
        value = _dense(params.value_head, features[CRITIC])[..., 0]
    return carry, logits, value


def _tower(
    recurrence: Recurrence, tower: Tower, carry: lstm.Carry, obs: jax.Array, first: jax.Array
) -> tuple[lstm.Carry, jax.Array]:
    carry, features = recurrence(tower.lstm, carry, obs, first)
    for layer in tower.hidden:
        features = jax.nn.relu(_dense(layer, features))
    return carry, features


def _dense(layer: Dense, x: jax.Array) -> jax.Array:
    return x @ layer.kernel + layer.bias
