"""GEMM share: the part of a training update that its matrix products alone would take.

`python -m benchmarks.gemm_share [--lanes N] [--rounds R]`. Share = Σ flopsᵢ / rateᵢ ÷ update time,
over every forward, dW and dX product of rollout and learning. Each rate is timed at its own shape
and in its own form (both towers as a batch, recurrent products one time step at a time, on all
devices at once, each with its share of the lanes), in turns with the update, in one process. A loop
of products also reads each step's operands out of an array; that alone is timed too, and said. The
gradient of a recurrent product by the observations is counted nowhere, since nothing needs it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import timing
from benchmarks.workload import Updates, market_of, smoke
from jules_jax import config
from jules_jax.agent import lstm, network

HELD = 16
"""Time steps whose operands a timed loop goes round: more would cost memory, fewer stay in L2."""
LEFT, RIGHT, BOTH = "left", "right", "both"


@dataclass(frozen=True)
class Product:
    """A product of an update: its einsum, its shapes, and how often an update takes it.

    It is timed as a loop of `steps` whose operand `moving` differs at every step, as the loop over
    time does it; large products go round a few weights, so that their results reuse one buffer.
    """

    name: str
    equation: str
    left: tuple[int, ...]
    right: tuple[int, ...]
    moving: str
    steps: int
    times: int  # in an update

    @property
    def flops(self) -> int:
        """Floating-point operations of one product: a multiplication and an addition each."""
        letters = "".join(re.findall(r"[a-z]+", self.equation.split("->")[0]))
        return 2 * math.prod(dict(zip(letters, self.left + self.right, strict=True)).values())


FORWARD, BY_INPUT, BY_WEIGHT = "bni,bio->bno", "bno,bio->bni", "bni,bno->bio"


def dense(
    name: str, sizes: tuple[int, int, int, int], steps: int, times: int, *, learn: bool
) -> list[Product]:
    """Forward and, to `learn`, dX and dW of a layer on `sizes` (towers, rows, inputs, outputs)."""
    b, n, i, o = sizes
    data, weights, result = (b, n, i), (b, i, o), (b, n, o)
    # Within the loop over time the data move; a product over all of it is timed on moving weights.
    moving, rounds = (LEFT, steps) if steps > 1 else (RIGHT, 4)
    products = [Product(f"{name}, forward", FORWARD, data, weights, moving, rounds, times)]
    if learn:
        products += [
            Product(f"{name}, dX", BY_INPUT, result, weights, moving, rounds, times),
            Product(f"{name}, dW", BY_WEIGHT, data, result, BOTH, steps, times),
        ]
    return products


def products(
    settings: config.Config, devices: int = 1, inputs: int = 12, actions: int = 3
) -> list[Product]:
    """Every product of an update on one of `devices` devices, with its share of the lanes."""
    rule, width = settings.ppo, settings.network.lstm_hidden_size
    steps, lanes, gates = rule.n_steps, settings.num_envs // devices, lstm.GATES * width
    minibatches = rule.n_epochs * rule.num_minibatches
    rows = lanes // rule.num_minibatches
    layers = (width, *settings.network.net_arch)
    shapes = list(itertools.pairwise(layers))
    heads = [(layers[-1], actions), (layers[-1], 1)]

    acting = [(2, lanes, inputs + width, gates), *((2, lanes, *shape) for shape in shapes)]
    acting += [(1, lanes, *shape) for shape in heads]
    found = []
    for sizes in acting:
        found += dense(f"rollout {_shape(sizes)}", sizes, steps, steps, learn=False)
    for shape in [(inputs + width, gates), *shapes, heads[1]]:
        sizes = (1, 2 * lanes, *shape)
        found += dense(f"closing values {_shape(sizes)}", sizes, 1, 1, learn=False)

    sizes = (2, rows, inputs + width, gates)
    forward, _, by_weight = dense(
        f"LSTM {_shape(sizes)}", sizes, steps, steps * minibatches, learn=True
    )
    sizes = (2, rows, width, gates)
    by_carry = dense(f"LSTM {_shape(sizes)}", sizes, steps, steps * minibatches, learn=True)[1]
    found += [forward, by_carry, by_weight]
    for towers, shape in [(2, shape) for shape in shapes] + [(1, shape) for shape in heads]:
        sizes = (towers, steps * rows, *shape)
        found += dense(f"layer {_shape(sizes)}", sizes, 1, minibatches, learn=True)
    return found


def _shape(sizes: tuple[int, int, int, int]) -> str:
    towers, rows, inputs, outputs = sizes
    return f"{towers} × [{rows:,}, {inputs}] @ [{inputs}, {outputs}]"


def timed(
    product: Product, precision: str, mesh: Mesh, *, multiplied: bool = True
) -> Callable[[], Any]:
    """A compiled run of `product.steps` products on every device of `mesh`, all at once.

    multiplied: else the run reads the moving operands of every step, and does nothing with them.
    """

    def operand(shape: tuple[int, ...], moves: bool) -> jax.Array:
        held = min(product.steps, HELD) if moves else 1
        return jax.random.normal(jax.random.key(len(shape)), (held, *shape), jnp.float32)

    left = operand(product.left, product.moving in (LEFT, BOTH))
    right = operand(product.right, product.moving in (RIGHT, BOTH))

    def multiply(left: jax.Array, right: jax.Array) -> jax.Array:
        with network.products(precision):
            return jnp.einsum(product.equation, left, right)

    def of_step(step: Any, left: jax.Array, right: jax.Array) -> Any:
        own = left[step % len(left)], right[step % len(right)]
        if multiplied:
            return multiply(*own)
        moving = (product.moving in (LEFT, BOTH), product.moving in (RIGHT, BOTH))
        return tuple(operand for operand, moves in zip(own, moving, strict=True) if moves)

    def run(left: jax.Array, right: jax.Array) -> Any:
        def body(step: jax.Array, last: Any) -> Any:
            del last  # overwritten: an addition would be timed with the product
            return of_step(step, left, right)

        shapes = jax.eval_shape(of_step, 0, left, right)
        start = jax.tree.map(lambda of: jnp.zeros(of.shape, of.dtype), shapes)
        return lax.fori_loop(0, product.steps, body, start)

    everywhere = PartitionSpec(*mesh.axis_names)
    run = jax.shard_map(run, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    compiled, copies = jax.jit(run), mesh.size
    left, right = (
        jax.device_put(jnp.tile(x, (copies, *[1] * (x.ndim - 1))), NamedSharding(mesh, everywhere))
        for x in (left, right)
    )
    return lambda: compiled(left, right)


Clocks = tuple[float, float]
"""Seconds of the wall clock and of all processor cores."""


def in_turns(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Clocks]]:
    """Both clocks of every run in every round, after one run of each to compile."""
    for run in runs.values():
        jax.block_until_ready(run())
    clocks: dict[str, list[Clocks]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            clocks[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return clocks


UPDATE = "update"
OPERANDS = ", its operands read"
"""After a product's name: the same loop without the product."""


def measure(settings: config.Config, rounds: int) -> tuple[float, str]:
    """The share by wall clock, median over rounds, and a table of the products.

    The table has the share by processor time as well: the steadier one where others use the cores.
    """
    updates = Updates(settings, *market_of(settings))
    mesh = updates.learner.mesh
    every = products(settings, mesh.size)
    runs: dict[str, Callable[[], Any]] = {UPDATE: updates}
    precision = settings.network.matmul_precision
    runs |= {product.name: timed(product, precision, mesh) for product in every}
    runs |= {
        product.name + OPERANDS: timed(product, precision, mesh, multiplied=False)
        for product in every
    }
    clocks = in_turns(runs, rounds)
    return _share(every, clocks, clock=0), _table(settings, mesh.size, every, clocks)


def _share(
    every: list[Product], clocks: dict[str, list[Clocks]], *, clock: int, what: str = ""
) -> float:
    """Median over rounds of the products' time ÷ the update's; what: `OPERANDS` for theirs."""
    shares = []
    for turn, update in enumerate(clocks[UPDATE]):
        own = sum(clocks[p.name + what][turn][clock] * p.times / p.steps for p in every)
        shares.append(own / update[clock])
    return statistics.median(shares)


def _table(
    settings: config.Config, devices: int, every: list[Product], clocks: dict[str, list[Clocks]]
) -> str:
    def median(name: str, clock: int) -> float:
        return statistics.median(each[clock] for each in clocks[name])

    total = devices * sum(product.flops * product.times for product in every)
    lines = [
        f"  {settings.num_envs:,} lanes × {settings.ppo.n_steps} steps, {settings.ppo.n_epochs} "
        f"epochs × {settings.ppo.num_minibatches} minibatches on {devices} devices: "
        f"{total / 1e9:,.1f} Gflop; update "
        f"{median(UPDATE, 0):.2f} s, {median(UPDATE, 1):.2f} CPU-s",
        f"  {'product':<52}{'Gflop':>8}{'Gflop/s':>9}{'per CPU-s':>11}{'CPU-s':>8}",
    ]
    for product in every:
        work = devices * product.flops * product.times / 1e9
        done = devices * product.flops * product.steps / 1e9
        rates = [done / median(product.name, clock) for clock in (0, 1)]
        lines.append(
            f"  {product.name:<52}{work:>8.2f}{rates[0]:>9.1f}{rates[1]:>11.1f}"
            f"{work / rates[1]:>8.3f}"
        )
    wall, processor = (_share(every, clocks, clock=clock) for clock in (0, 1))
    lines.append(f"  GEMM share: {wall:.2f} of the wall clock, {processor:.2f} of processor time")
    wall, processor = (_share(every, clocks, clock=clock, what=OPERANDS) for clock in (0, 1))
    lines.append(
        f"  of which reading moving operands: {wall:.2f} of the wall clock, {processor:.2f} of "
        "processor time"
    )
    return "\n".join(lines)


def main() -> None:
    """Prints the table for `configs/phase1_smoke.yaml`, with other lanes if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, default=smoke().num_envs)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(timing.heading(timing.hardware()))
    print(measure(smoke(num_envs=arguments.lanes), arguments.rounds)[1])


if __name__ == "__main__":
    main()
