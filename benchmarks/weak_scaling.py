"""What more GPUs are predicted to give: `python -m benchmarks.weak_scaling --update-seconds 0.26`.

Weak scaling: every GPU keeps its lanes, and more of them have more lanes in all. An update then
takes what it takes on one GPU, and what the GPUs tell each other (docs/scaling.md):

    T(D) = T(1) + M [ R a log2(D) + 2 (D - 1) / D B / b ]

M minibatches of an update, each with R all-reduces that wait for one another, a seconds of latency
a doubling of the GPUs, B bytes of gradients, b bytes/s of the slowest link. T(1) is to be measured;
a and b are of the network, and assumed unless given. Prints a table, measures nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import jax

from jules_jax import config
from jules_jax.agent import network

ROUNDS = 4
"""All-reduces of a minibatch in a row: mean and variance of the advantages, gradients, ratio."""
GPUS = (1, 2, 4, 8, 16, 64, 256, 1024)


def bytes_of_gradients(settings: config.Config) -> int:
    """Of one minibatch, float32."""
    shapes = jax.eval_shape(lambda key: network.init(key, settings.network), jax.random.key(0))
    return 4 * network.num_parameters(shapes)


def seconds(
    gpus: int, alone: float, minibatches: int, size: int, latency: float, bandwidth: float
) -> float:
    """T(D) of an update, for D = `gpus`."""
    if gpus == 1:
        return alone
    exchange = ROUNDS * latency * math.log2(gpus) + 2 * (gpus - 1) / gpus * size / bandwidth
    return alone + minibatches * exchange


def table(
    settings: config.Config, alone: float, latency: float, bandwidth: float, sizes: Sequence[int]
) -> str:
    """Milliseconds of an update, efficiency and steps/s by number of GPUs."""
    minibatches = settings.ppo.n_epochs * settings.ppo.num_minibatches
    size = bytes_of_gradients(settings)
    steps = settings.num_envs * settings.ppo.n_steps
    lines = [f"{'GPUs':>6}{'ms an update':>15}{'efficiency':>12}{'steps/s':>16}"]
    for gpus in sizes:
        found = seconds(gpus, alone, minibatches, size, latency, bandwidth)
        lines.append(
            f"{gpus:>6,}{1e3 * found:>15.1f}{alone / found:>11.1%} {gpus * steps / found:>15,.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update-seconds", type=float, required=True, help="T(1), measured")
    parser.add_argument("--lanes", type=int, default=2048, help="of each GPU")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--latency-us", type=float, default=20.0, help="a, assumed")
    parser.add_argument("--gigabytes-per-second", type=float, default=25.0, help="b, assumed")
    given = parser.parse_args()
    settings = config.load({"num_envs": str(given.lanes), "ppo.n_epochs": str(given.epochs)})
    print(
        f"predicted, not measured: {given.lanes:,} lanes each, {given.epochs} epochs, "
        f"{bytes_of_gradients(settings):,} bytes of gradients a minibatch, "
        f"{given.latency_us:g} µs a doubling, {given.gigabytes_per_second:g} GB/s"
    )
    latency, bandwidth = 1e-6 * given.latency_us, 1e9 * given.gigabytes_per_second
    print(table(settings, given.update_seconds, latency, bandwidth, GPUS))


if __name__ == "__main__":
    main()
