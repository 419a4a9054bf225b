"""A long short-term memory cell whose carry an episode's first step resets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.custom_batching
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

GATES = 4
"""Blocks of H columns in every kernel, in this order: input, forget, candidate, output."""
SAVED = "gates"
"""The name under which a step's `[N, 4H]` sums are kept for the gradient."""
BF16 = "BF16_BF16_F32"
"""`jax.default_matmul_precision` of bfloat16 factors whose products are summed in float32."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LSTM:
    """Weights of one LSTM (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)."""

    input_kernel: jax.Array  # [I, 4H]
    recurrent_kernel: jax.Array  # [H, 4H]
    bias: jax.Array  # [4H]
    start: Carry | None = None  # [H] each, the learned carry of an episode's start; None: zeros


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Carry:
    """What an LSTM remembers from one step to the next, `[N, H]` float32 each."""

    hidden: jax.Array
    cell: jax.Array


def init(key: jax.Array, num_inputs: int, hidden_size: int, *, learn_start: bool = False) -> LSTM:
    """Weights with every gate's kernels orthogonal (gain 1) and a forget-gate bias of +1.

    The bias keeps the memory open at the start (Jozefowicz et al. 2015, section 2.2). With
    `learn_start` the carry that an episode begins with is a weight, zero at first.
    """
    zeros = jnp.zeros(hidden_size, jnp.float32)
    key_input, key_recurrent = jax.random.split(key)
    forget = jnp.arange(GATES * hidden_size) // hidden_size == 1
    return LSTM(
        input_kernel=_orthogonal_per_gate(key_input, num_inputs, hidden_size),
        recurrent_kernel=_orthogonal_per_gate(key_recurrent, hidden_size, hidden_size),
        bias=forget.astype(jnp.float32),
        start=Carry(zeros, zeros) if learn_start else None,
    )


def orthogonal(key: jax.Array, rows: int, columns: int, *, gain: float) -> jax.Array:
    """A kernel `[rows, columns]` with orthogonal rows or columns of length `gain`.

    Members of a population draw theirs one after the other: on a CPU a batch of QR decompositions
    waits for the threads of XLA's pool, on one of which it runs itself. With as many devices as
    cores none is left, and it waits for ever (jaxlib 0.10, `ParallelBatchMap`).
    """
    draw = jax.nn.initializers.orthogonal(gain)
    one_by_one = jax.custom_batching.sequential_vmap(lambda key: draw(key, (rows, columns)))
    kernel: jax.Array = one_by_one(key)
    return kernel


def _orthogonal_per_gate(key: jax.Array, rows: int, columns: int) -> jax.Array:
    draw = partial(orthogonal, rows=rows, columns=columns, gain=1.0)
    kernels = lax.map(draw, jax.random.split(key, GATES))
    return jnp.concatenate(list(kernels), axis=1)


def step(params: LSTM, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
    """One step on inputs `x` `[N, I]`; returns the new carry and its hidden state `[N, H]`.

    Where `first` `[N]` (bool) is true the carry is that of an episode's start, zero unless learned,
    *before* the step.
    """
    carry = _recur(params, _kernel(params), carry, x, first)
    return carry, carry.hidden


def sequence(params: LSTM, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
    """`step` over time: `x` `[T, N, I]` and `first` `[T, N]` give the last carry and `[T, N, H]`.

    For its gradient a step keeps its carry and the sums that enter its gates. What follows from
    them is computed again, for less than writing and reading it costs (benchmarks/NOTES.md).
    """
    kernel = _kernel(params)
    keep_sums = jax.checkpoint_policies.save_only_these_names(SAVED)

    @partial(jax.checkpoint, prevent_cse=False, policy=keep_sums)
    def body(carry: Carry, inputs: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
        carry = _recur(params, kernel, carry, *inputs)
        return carry, carry.hidden

    return lax.scan(body, carry, (x, first))


def _kernel(params: LSTM) -> jax.Array:
    """Both kernels as one, `[I + H, 4H]`: a step is one matrix product."""
    return jnp.concatenate([params.input_kernel, params.recurrent_kernel])


def _recur(params: LSTM, kernel: jax.Array, carry: Carry, x: jax.Array, first: jax.Array) -> Carry:
    start = params.start
    hidden = jnp.where(first[:, None], 0.0 if start is None else start.hidden, carry.hidden)
    cell = jnp.where(first[:, None], 0.0 if start is None else start.cell, carry.cell)
    gates = jnp.concatenate([x, hidden], axis=-1) @ kernel + params.bias
    admit, keep, candidate, emit = jnp.split(checkpoint_name(gates, SAVED), GATES, axis=-1)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(admit) * jnp.tanh(candidate)
    return Carry(hidden=jax.nn.sigmoid(emit) * jnp.tanh(cell), cell=cell)
