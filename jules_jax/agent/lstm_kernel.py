"""`lstm.sequence` for a GPU: one launch forward and one backward, whatever the number of steps.

A program of either kernel owns a block of lanes for the whole sequence. The weights stay on the
chip, and so does the carry. Inputs are projected in the loop: the `[4H]` sums of a step are twenty
times the size of its inputs. The backward kernel computes the gates again from what entered them
and writes the gradients of their sums, `[T, N, 4H]`; those of the weights are one product outside,
without atomics, so the same bits every time. The arithmetic is in benchmarks/NOTES.md.

Pallas compiles the kernels by Triton, for NVIDIA GPUs from Ampere on (Mosaic GPU: from Hopper on).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jules_jax.agent.lstm import BF16, GATES, LSTM, Carry

WIDTHS = (16, 32, 64)
"""Widths H: Triton's products have sides of a power of two from 16 on; wider weights do not fit."""
INPUTS = 16
"""Least inputs of a step as the kernel sees them: those there are, a 1, and zeros."""
BLOCK, WIDE_BLOCK = 16, 32
"""Lanes of a program."""
WIDE = 2048
"""Lanes from which on blocks are wide: two towers' then fill 128 multiprocessors."""
WARPS, STAGES = 8, 2
"""What Triton is told: with eight warps neither kernel spills registers (benchmarks/NOTES.md)."""

Ref = Any
"""A block of an array, read and written by index."""


@dataclass(frozen=True)
class _How:
    """What a kernel is compiled for: precision is as `jax.default_matmul_precision` has it."""

    precision: str | None
    block: int
    interpret: bool

    @property
    def factor(self) -> Any:
        """The type of what products read, and of what is kept for them."""
        return jnp.bfloat16 if self.precision == BF16 else jnp.float32

    def dot(self, a: jax.Array, b: jax.Array, axes: tuple[int, int] = (1, 0)) -> jax.Array:
        """Sums, in float32, of products along an axis of each."""
        return lax.dot_general(
            a.astype(self.factor),
            b.astype(self.factor),
            (((axes[0],), (axes[1],)), ((), ())),
            precision=self.precision,
            preferred_element_type=jnp.float32,
        )


def sequence(
    params: LSTM,
    carry: Carry,
    x: jax.Array,
    first: jax.Array,
    *,
    block: int | None = None,
    interpret: bool = False,
) -> tuple[Carry, jax.Array]:
    """`lstm.sequence`: `x` `[T, N, I]` and `first` `[T, N]` give the last carry and `[T, N, H]`.

    The width H is one of `WIDTHS`. Products have the precision that `jax.default_matmul_precision`
    says; carries, gates and sums are float32.

    block: lanes of a program, a power of two of at least 16.
    interpret: as XLA's operations, on any device, slowly.
    """
    lanes = x.shape[1]
    precision = jax.default_matmul_precision.value
    block = block or blocks(lanes, precision)[0]
    how = _How(precision, block, interpret)
    if params.start is None:
        zeros = jnp.zeros_like(params.recurrent_kernel[:, 0])
        params = replace(params, start=Carry(zeros, zeros))
    params, carry, x, first = _varying_alike((params, carry, x, first))
    more = -lanes % block
    carry = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, more), (0, 0))), carry)
    x, first = jnp.pad(x, ((0, 0), (0, more), (0, 0))), jnp.pad(first, ((0, 0), (0, more)))
    last, hidden = _sequence(how, params, carry, x, first)
    return jax.tree.map(lambda leaf: leaf[:lanes], last), hidden[:, :lanes]


def blocks(lanes: int, precision: str | None) -> tuple[int, ...]:
    """Lanes that a program may have, best first: float32 products have no registers for many."""
    return (WIDE_BLOCK, BLOCK) if lanes >= WIDE and precision != "highest" else (BLOCK,)


def _varying_alike(tree: Any) -> Any:
    """Every leaf varying over the same axes of a `shard_map`: a kernel's operands have to."""
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves(tree)))

    def spread(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - _axes(leaf)))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(spread, tree)


def _axes(leaf: jax.Array) -> frozenset[str]:
    axes: frozenset[str] = jax.typeof(leaf).manual_axis_type.varying
    return axes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Kept:
    """What the gradient needs."""

    params: LSTM
    first: jax.Array  # [T, N]
    rows: jax.Array  # [T, N, P + H], a step's inputs, 1, zeros, and the hidden state before it
    cells: jax.Array  # [T, N, H], before the step


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sequence(
    how: _How, params: LSTM, carry: Carry, x: jax.Array, first: jax.Array
) -> tuple[Carry, jax.Array]:
    """The sequence of lanes that are whole blocks, in `how.precision`."""
    return _forward(how, params, carry, x, first)[0]


def _forward(
    how: _How, params: LSTM, carry: Carry, x: jax.Array, first: jax.Array
) -> tuple[tuple[Carry, jax.Array], _Kept]:
    kernel, start = _weights(how, params), params.start
    assert start is not None
    width, inputs = params.recurrent_kernel.shape[0], x.shape[-1]
    unused = kernel.shape[0] - width - inputs
    one = jnp.pad(jnp.ones_like(x[..., :1]), ((0, 0), (0, 0), (0, unused - 1)))
    padded = jnp.concatenate([x, one], axis=-1).astype(how.factor)
    hidden, cell, rows, cells, hiddens = _launch(
        _forward_kernel,
        how,
        whole=(kernel, params.bias, start.hidden, start.cell),
        by_lane=(carry.hidden, carry.cell),
        by_step=(padded, first.astype(jnp.int32)),
        num_by_lane=2,
        out_by_step=((kernel.shape[0], how.factor), (width, jnp.float32), (width, jnp.float32)),
    )
    return (Carry(hidden, cell), hiddens), _Kept(params, first, rows, cells)


def _backward(
    how: _How, kept: _Kept, cotangents: tuple[Carry, jax.Array]
) -> tuple[LSTM, Carry, jax.Array, None]:
    last, d_hiddens = cotangents
    params, kernel = kept.params, _weights(how, kept.params)
    inputs, width = len(params.input_kernel), len(params.recurrent_kernel)
    d_hidden, d_cell, d_start_hidden, d_start_cell, d_sums = _launch(
        _backward_kernel,
        how,
        whole=(kernel, params.bias),
        by_lane=(last.hidden, last.cell),
        by_step=(kept.rows, kept.first.astype(jnp.int32), kept.cells, d_hiddens),
        num_by_lane=4,
        out_by_step=((GATES * width, how.factor),),
    )
    rows, flat = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (kept.rows, d_sums))
    d_kernel = how.dot(rows, flat, axes=(0, 0))
    d_params = LSTM(
        input_kernel=d_kernel[:inputs],
        recurrent_kernel=d_kernel[-width:],
        bias=d_kernel[inputs],  # the row of ones
        start=Carry(d_start_hidden.sum(axis=0), d_start_cell.sum(axis=0)),
    )
    d_x = how.dot(flat, params.input_kernel, axes=(1, 1)).reshape(*kept.first.shape, inputs)
    return d_params, Carry(d_hidden, d_cell), d_x, None


_sequence.defvjp(_forward, _backward)


def _weights(how: _How, params: LSTM) -> jax.Array:
    """Both kernels as one, `[P + H, 4H]`, with rows of zeros for what pads the inputs to P."""
    inputs = len(params.input_kernel)
    padded = max(INPUTS, pl.next_power_of_2(inputs + 1))
    input_kernel = jnp.pad(params.input_kernel, ((0, padded - inputs), (0, 0)))
    return jnp.concatenate([input_kernel, params.recurrent_kernel]).astype(how.factor)


def _launch(
    kernel: Callable[..., None],
    how: _How,
    *,
    whole: Sequence[jax.Array],
    by_lane: Sequence[jax.Array],
    by_step: Sequence[jax.Array],
    num_by_lane: int,
    out_by_step: Sequence[tuple[int, Any]],
) -> Sequence[jax.Array]:
    """Run `kernel` with a program for each block of lanes, on operands and results in this order.

    Operands are seen `whole` by every program, `by_lane` `[N, H]`, or `by_step` `[T, N, …]`.
    Results are `num_by_lane` of `[N, H]` float32, and `[T, N, entries]` of entries and types.
    """
    steps, lanes = by_step[0].shape[:2]
    varying = jax.typeof(by_step[0]).manual_axis_type
    result = partial(jax.ShapeDtypeStruct, manual_axis_type=varying)
    lane_result = result(by_lane[0].shape, jnp.float32)
    step_results = [result((steps, lanes, entries), dtype) for entries, dtype in out_by_step]

    def spec(shape: tuple[int, ...], lane_axis: int | None) -> pl.BlockSpec:
        block = tuple(how.block if axis == lane_axis else n for axis, n in enumerate(shape))
        place = lambda i: tuple(i if axis == lane_axis else 0 for axis in range(len(shape)))  # noqa: E731
        return pl.BlockSpec(block, place)

    results: Sequence[jax.Array] = pl.pallas_call(
        partial(kernel, how),
        grid=(lanes // how.block,),
        in_specs=[
            *(spec(leaf.shape, None) for leaf in whole),
            *(spec(leaf.shape, 0) for leaf in by_lane),
            *(spec(leaf.shape, 1) for leaf in by_step),
        ],
        out_specs=[
            *[spec(lane_result.shape, 0)] * num_by_lane,
            *(spec(leaf.shape, 1) for leaf in step_results),
        ],
        out_shape=[*[lane_result] * num_by_lane, *step_results],
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=STAGES),
        interpret=how.interpret,
    )(*whole, *by_lane, *by_step)
    return results


class _Cell:
    """The gates of a block of lanes, with the weights that the program holds."""

    def __init__(self, how: _How, kernel: Ref, bias: Ref) -> None:
        self.how = how
        self.width = bias.shape[0] // GATES
        self.inputs = kernel.shape[0] - self.width
        self.columns = [slice(k * self.width, (k + 1) * self.width) for k in range(GATES)]
        self.input_kernels = [kernel[: self.inputs, columns] for columns in self.columns]
        self.recurrent_kernels = [kernel[self.inputs :, columns] for columns in self.columns]
        self.biases = [bias[columns] for columns in self.columns]

    def gates(self, x: jax.Array, hidden: jax.Array) -> list[jax.Array]:
        """Admit, keep, candidate and emit, `[B, H]` each, as `lstm.step` has them."""
        sums = [
            self.how.dot(x, w) + self.how.dot(hidden, u) + b[None, :]
            for w, u, b in zip(self.input_kernels, self.recurrent_kernels, self.biases, strict=True)
        ]
        return [jnp.tanh(s) if k == 2 else jax.nn.sigmoid(s) for k, s in enumerate(sums)]

    def before(self, d_sums: Sequence[jax.Array]) -> jax.Array:
        """The gradient of the hidden state that entered the gates, from those of their sums."""
        each = zip(d_sums, self.recurrent_kernels, strict=True)
        return sum((self.how.dot(d, u, axes=(1, 1)) for d, u in each), start=jnp.float32(0))


def _forward_kernel(
    how: _How,
    kernel: Ref,
    bias: Ref,
    start_hidden: Ref,
    start_cell: Ref,
    hidden_before: Ref,
    cell_before: Ref,
    inputs: Ref,
    first: Ref,
    last_hidden: Ref,
    last_cell: Ref,
    rows: Ref,
    cells: Ref,
    hiddens: Ref,
) -> None:
    steps = inputs.shape[0]
    weights = _Cell(how, kernel, bias)
    start = start_hidden[:][None, :], start_cell[:][None, :]

    def step(t: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        fresh = first[t][:, None] != 0
        hidden, cell = (jnp.where(fresh, s, c) for s, c in zip(start, carry, strict=True))
        x = inputs[t]
        rows[t, :, : weights.inputs] = x
        rows[t, :, weights.inputs :] = hidden.astype(how.factor)
        cells[t] = cell
        admit, keep, candidate, emit = weights.gates(x, hidden)
        cell = keep * cell + admit * candidate
        hidden = emit * jnp.tanh(cell)
        hiddens[t] = hidden
        return hidden, cell

    carry = lax.fori_loop(0, steps, step, (hidden_before[:, :], cell_before[:, :]))
    last_hidden[:, :], last_cell[:, :] = carry


def _backward_kernel(
    how: _How,
    kernel: Ref,
    bias: Ref,
    d_last_hidden: Ref,
    d_last_cell: Ref,
    rows: Ref,
    first: Ref,
    cells: Ref,
    d_hiddens: Ref,
    d_hidden_before: Ref,
    d_cell_before: Ref,
    d_start_hidden: Ref,
    d_start_cell: Ref,
    d_sums: Ref,
) -> None:
    steps = rows.shape[0]
    weights = _Cell(how, kernel, bias)

    def step(back: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        t = steps - 1 - back
        d_hidden, d_cell, d_start_hidden, d_start_cell = carry
        cell = cells[t]
        admit, keep, candidate, emit = weights.gates(
            rows[t, :, : weights.inputs], rows[t, :, weights.inputs :]
        )
        squashed = jnp.tanh(keep * cell + admit * candidate)
        d_hidden += d_hiddens[t]
        d_cell += d_hidden * emit * (1.0 - squashed * squashed)
        each = [
            d_cell * candidate * admit * (1.0 - admit),
            d_cell * cell * keep * (1.0 - keep),
            d_cell * admit * (1.0 - candidate * candidate),
            d_hidden * squashed * emit * (1.0 - emit),
        ]
        for columns, d_sum in zip(weights.columns, each, strict=True):
            d_sums[t, :, columns] = d_sum.astype(how.factor)
        d_hidden, d_cell = weights.before(each), d_cell * keep
        fresh = first[t][:, None] != 0
        return (
            jnp.where(fresh, 0.0, d_hidden),
            jnp.where(fresh, 0.0, d_cell),
            d_start_hidden + jnp.where(fresh, d_hidden, 0.0),
            d_start_cell + jnp.where(fresh, d_cell, 0.0),
        )

    zeros = jnp.zeros(d_last_hidden.shape, jnp.float32)
    carry = (d_last_hidden[:, :], d_last_cell[:, :], zeros, zeros)
    carry = lax.fori_loop(0, steps, step, carry)
    for ref, value in zip(
        (d_hidden_before, d_cell_before, d_start_hidden, d_start_cell), carry, strict=True
    ):
        ref[:, :] = value
