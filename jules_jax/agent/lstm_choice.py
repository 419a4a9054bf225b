"""Which implementation of `lstm.sequence` trains, and why: the scan, or the fused GPU kernel."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax import config
from jules_jax.agent import lstm, network
from jules_jax.errors import InputError

TOLERANCE = {"highest": 1e-4, "high": 1e-2, "default": 1e-2, "bf16": 3e-2}
"""How far an implementation may lie from the scan in float32, as `deviation` measures it.

Rounding is to 24, 11 (tf32) and 8 bits; a product or a reset gone wrong deviates by some 1.
"""
LEAST_CAPABILITY = 8.0
"""Ampere: the first that Triton compiles for."""
STEPS, LANES, INPUTS = 16, 40, 12
"""Of the sequences that are compared; the lanes are no whole number of blocks."""


@dataclass(frozen=True)
class Choice:
    """What the learner replays its LSTM with."""

    name: str  # scan or fused
    why: str
    sequence: network.Recurrence

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def choose(settings: config.Config, device: jax.Device, lane_devices: int = 1) -> Choice:
    """The implementation that `network.lstm_impl` asks for, on `lane_devices` like `device`.

    `auto` is the kernel where there is one for the device and the width, and where it agrees with
    the scan on that very device. Raises `InputError` where a kernel that is asked for is not.
    """
    asked = settings.network.lstm_impl
    if asked == "scan":
        return Choice("scan", "as asked for", lstm.sequence)
    obstacle = _obstacle(settings.network, device)
    lanes = settings.num_envs // settings.ppo.num_minibatches // lane_devices
    found = (
        Choice("scan", obstacle, lstm.sequence)
        if obstacle
        else _if_it_agrees(settings.network, device, lanes)
    )
    if asked == "fused" and found.name == "scan":
        raise InputError(f"network.lstm_impl is fused and {found.why}, expected auto or scan")
    return found


def _kernel() -> Any:
    """The kernel's module; a CPU does without it and without Pallas."""
    return importlib.import_module("jules_jax.agent.lstm_kernel")


def _obstacle(settings: config.Network, device: jax.Device) -> str:
    """Why there is no kernel for the device, or for the width; empty where there is one."""
    if device.platform != "gpu":
        return f"the device is {device.device_kind}, for which there is no kernel"
    try:
        capability = float(device.compute_capability)
    except ValueError:
        return f"the GPU, {device.device_kind}, is not one of NVIDIA's"
    if capability < LEAST_CAPABILITY:
        return (
            f"the GPU has compute capability {capability:g}, the kernel needs {LEAST_CAPABILITY:g}"
        )
    try:
        widths = _kernel().WIDTHS
    except ImportError as error:
        return f"this version of jax has no Triton for Pallas ({error})"
    if settings.lstm_hidden_size not in widths:
        known = ", ".join(map(str, widths))
        return f"network.lstm_hidden_size is {settings.lstm_hidden_size}, the kernel's are {known}"
    return ""


def _if_it_agrees(settings: config.Network, device: jax.Device, lanes: int) -> Choice:
    """The kernel, where it runs on the device and is as near to the scan as rounding allows.

    Of a block that does not run, too large for the device's shared memory say, the next is tried.
    """
    kernel, precision = _kernel(), settings.matmul_precision
    allowed, obstacle = TOLERANCE[precision], ""
    for block in kernel.blocks(lanes, precision):
        sequence = partial(kernel.sequence, block=block)
        try:
            with jax.default_device(device):
                found = deviation(sequence, settings.lstm_hidden_size, precision)
        except Exception as error:  # whatever a compiler or a driver says, the scan still runs
            line = str(error).strip().partition("\n")[0]
            obstacle = f"the kernel does not run here ({line[:120]})"
            continue
        if found <= allowed:
            why = f"deviates by {found:.1e} from the scan, {allowed:g} is allowed"
            return Choice("fused", f"blocks of {block} lanes; {why}", sequence)
        obstacle = f"the kernel deviates by {found:.1e} here, at most {allowed:g} is allowed"
    return Choice("scan", obstacle, lstm.sequence)


def deviation(sequence: network.Recurrence, width: int, precision: str) -> float:
    """How far an implementation is from the scan in float32, both towers at once.

    The largest deviation of any output or gradient, as a share of its largest entry. Weights,
    learned starts, carries and inputs are drawn, and a fifth of all steps begin an episode.
    """
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def carry(*shape: int) -> lstm.Carry:
        return lstm.Carry(draw(*shape), draw(*shape))

    scale = width**-0.5
    params = lstm.LSTM(
        input_kernel=scale * draw(2, INPUTS, lstm.GATES * width),
        recurrent_kernel=scale * draw(2, width, lstm.GATES * width),
        bias=draw(2, lstm.GATES * width),
        start=carry(2, width),
    )
    x, first = draw(STEPS, LANES, INPUTS), jnp.asarray(rng.random((STEPS, LANES)) < 0.2)
    weights = carry(2, LANES, width), draw(2, STEPS, LANES, width)
    carries = carry(2, LANES, width)

    def run(sequence: network.Recurrence, precision: str) -> Any:
        def weighed(params: lstm.LSTM, carry: lstm.Carry, x: jax.Array) -> tuple[jax.Array, Any]:
            results = jax.vmap(sequence, in_axes=(0, 0, None, None))(params, carry, x, first)
            terms = jax.tree.map(lambda w, y: jnp.sum(w * y), weights, results)
            return sum(jax.tree.leaves(terms), start=jnp.float32(0)), results

        with network.products(precision):
            gradient = jax.jit(jax.grad(weighed, argnums=(0, 1, 2), has_aux=True))
            return jax.tree.leaves(jax.device_get(gradient(params, carries, x)))

    pairs = zip(run(sequence, precision), run(lstm.sequence, "highest"), strict=True)
    # not max(): it passes over a NaN
    return float(np.max([np.abs(ours - scan).max() / np.abs(scan).max() for ours, scan in pairs]))
