"""Everything that is to be known of one GPU, in one command.

    python -m benchmarks.gpu                        # writes benchmarks/results/<device>-<date>.json
    XLA_FLAGS=… python -m benchmarks.gpu --only loops     # what a flag of XLA's does to the loops
    JAX_PLATFORMS=cpu python -m benchmarks.gpu --quick    # that it runs; the figures mean nothing

parity: kernel against scan, and GPU against CPU. kernel: LSTM forward and backward at the sizes of
a minibatch, by implementation, precision and block, beside its floors. speed: environment, policy
in it, training, all variants in turns, beside the steps/s that are wanted. loops: which loops of an
update XLA launches as CUDA graphs. gates: seconds until the smoke run has passed its gates.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from benchmarks import smoke_gates, timing
from benchmarks.timing import Row
from benchmarks.workload import ROOT, Updates, acting, market_of, random_policy, smoke
from jules_jax import config
from jules_jax.agent import lstm, lstm_choice, lstm_kernel, network, policy
from jules_jax.agent.learner import Learner
from jules_jax.errors import InputError, run_command
from jules_jax.training import backend, metrics_file, provenance

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("highest", "default", "bf16")
WEIGHTS_TOLERANCE = 1e-4
"""How far weights may lie apart after two updates in float32."""
MIB = 2**20


@dataclass(frozen=True)
class Training:
    """Training at a size, with the steps/s that are wanted of it."""

    lanes: int
    epochs: int
    wanted: float


@dataclass(frozen=True)
class Plan:
    """What is measured, and how large."""

    trainings: tuple[Training, ...] = (
        Training(2_048, 10, 1e6),
        Training(16_384, 10, 4e6),
        Training(16_384, 1, 1e7),
    )
    n_steps: int = 128
    acting_lanes: int = 65_536
    environment_wanted: float = 2e8
    inference_wanted: float = 5e7
    kernel_lanes: tuple[int, ...] = (512, 4_096)
    blocks: tuple[int, ...] = (16, 32, 64)
    rounds: int = 5
    fast: bool = True


QUICK = Plan(
    trainings=(Training(16, 2, 1e6),),
    n_steps=8,
    acting_lanes=16,
    kernel_lanes=(16,),
    blocks=(16,),
    rounds=1,
    fast=False,
)
"""Small enough for a test; its figures are no one's."""


@dataclass(frozen=True)
class Device:
    """Where it runs, and the variants that can."""

    device: jax.Device
    plan: Plan

    @property
    def is_gpu(self) -> bool:
        return self.device.platform == "gpu"

    @property
    def implementations(self) -> tuple[str, ...]:
        return ("scan", "fused") if self.is_gpu else ("scan",)

    @property
    def precisions(self) -> tuple[str, ...]:
        """A CPU has only one."""
        return PRECISIONS if self.is_gpu else ("default",)

    def sequence(self, implementation: str, block: int | None = None) -> network.Recurrence:
        """An LSTM over time; where there is no GPU the kernel is interpreted."""
        if implementation == "scan":
            return lstm.sequence
        return partial(lstm_kernel.sequence, block=block, interpret=not self.is_gpu)


def parity(at: Device) -> list[Row]:
    """Deviations from the scan in float32, and from a CPU; the note says which are allowed."""
    rows = []
    for precision in PRECISIONS:
        found = lstm_choice.deviation(at.sequence("fused"), 64, precision)
        rows.append(_deviation(f"LSTM, {precision}", found, lstm_choice.TOLERANCE[precision]))
    if at.is_gpu:
        scan, fused = (_trained(at, at.device, name) for name in at.implementations)
        on_cpu = _trained(at, jax.devices("cpu")[0], "scan")
        rows.append(_deviation("weights after 2 updates", _apart(fused, scan), WEIGHTS_TOLERANCE))
        rows.append(_deviation("the same, GPU against CPU", _apart(scan, on_cpu), None))
    return rows


def _deviation(name: str, found: float, allowed: float | None) -> Row:
    if allowed is None:
        return Row(name, None, "", note=f"{found:.1e}; a rounding may choose another action")
    verdict = "yes" if found <= allowed else "NO"
    return Row(name, None, "", note=f"{found:.1e}, wanted ≤ {allowed:g}: {verdict}")


def _trained(at: Device, device: jax.Device, implementation: str) -> Any:
    """Weights after two updates of 64 lanes in float32."""
    settings = smoke(
        num_envs=64, n_steps=16, n_epochs=2, shuffle_groups=1, matmul_precision="highest"
    )
    choice = lstm_choice.Choice(implementation, "measured", at.sequence(implementation))
    env, env_params = market_of(settings)
    learner = Learner(env, settings, devices=[device], lstm_choice=choice)
    env_params = learner.replicate(env_params)
    state = learner.init(jax.random.key(0), env_params)
    for _ in range(2):
        state, _ = learner.update(state, env_params)
    return jax.device_get(state.params)


def _apart(ours: Any, theirs: Any) -> float:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return float(np.max([np.abs(a - b).max() for a, b in pairs]))


def kernel(at: Device) -> list[Row]:
    """Forward and backward of both towers' LSTM over a minibatch, and its floors."""
    rows = []
    for lanes in at.plan.kernel_lanes:
        runs: dict[str, Callable[[], Any]] = {}
        for precision in at.precisions:
            name = f"{lanes:,} lanes, {precision}"
            runs[f"{name}, scan"] = _replay(at, lanes, precision, "scan", None)
            for block in at.plan.blocks if at.is_gpu else ():
                runs[f"{name}, fused, block {block}"] = _replay(
                    at, lanes, precision, "fused", block
                )
        seconds = timing.interleaved(_those_that_run(runs, rows), at.plan.rounds)
        steps = lanes * at.plan.n_steps
        for name in seconds:
            took = timing.median(seconds, name)
            rate = f"{floors().lstm * steps / took / 1e12:.3g} Tflop/s"
            rows.append(Row(name, steps / took, "steps/s", note=f"{took * 1e6:,.0f} µs, {rate}"))
    return rows


def _those_that_run(
    runs: Mapping[str, Callable[[], Any]], rows: list[Row]
) -> dict[str, Callable[[], Any]]:
    """The runs that compile; of the others, a row says why not (a block too large, say)."""
    found = {}
    for name, run in runs.items():
        try:
            jax.block_until_ready(run())
            found[name] = run
        except jax.errors.JaxRuntimeError as error:
            rows.append(_failed(name, error))
    return found


def _failed(name: str, error: Exception) -> Row:
    return Row(name, None, "", note=f"does not run: {str(error).partition(chr(10))[0]}")


def _replay(
    at: Device, lanes: int, precision: str, implementation: str, block: int | None
) -> Callable[[], Any]:
    """A compiled gradient of both towers' LSTM by its weights."""
    settings = config.Network()
    towers = network.init(jax.random.key(0), settings).towers.lstm
    carry = lstm.Carry(*jnp.zeros((2, 2, lanes, settings.lstm_hidden_size)))
    x = jax.random.normal(jax.random.key(1), (at.plan.n_steps, lanes, 12))
    first = jax.random.bernoulli(jax.random.key(2), 1e-3, x.shape[:2])
    sequence = jax.vmap(at.sequence(implementation, block), in_axes=(0, 0, None, None))

    @jax.jit
    def gradient(towers: lstm.LSTM, *inputs: Any) -> lstm.LSTM:
        with network.products(precision):
            return jax.grad(lambda towers: jnp.sum(sequence(towers, *inputs)[1]))(towers)

    return lambda: gradient(towers, carry, x, first)


@dataclass(frozen=True)
class Floors:
    """Least work of an environment step: operations of products, bytes of the device's memory.

    forward: of both towers, once. lstm: forward and backward of both LSTMs. training: acting and
    10 epochs. kernel_bytes: what both kernels and the weights' product move in an epoch.
    """

    forward: float
    lstm: float
    training: float
    kernel_bytes: float


def floors(factor_bytes: int = 4) -> Floors:
    """Of the default network; `factor_bytes` is 2 with bf16. docs/scaling.md has the formulas."""
    settings, inputs, padded = config.Network(), 12, lstm_kernel.INPUTS
    width = settings.lstm_hidden_size
    sides = (width, *settings.net_arch)
    recurrent = 2 * 2 * (inputs + width) * lstm.GATES * width
    layers = 2 * 2 * sum(a * b for a, b in itertools.pairwise(sides))
    forward = recurrent + layers + 2 * sides[-1] * (3 + 1)
    row, sums = (padded + width) * factor_bytes, lstm.GATES * width * factor_bytes
    forward_bytes = padded * factor_bytes + row + 2 * 4 * width  # reads x; rows, cells, hiddens
    backward_bytes = row + 2 * 4 * width + sums  # reads rows, cells, gradients; writes the sums'
    product_bytes = row + sums
    return Floors(
        forward=forward,
        lstm=3 * recurrent,
        training=forward * (1 + 3 * 10),
        kernel_bytes=2 * (forward_bytes + backward_bytes + product_bytes),
    )


def speed(at: Device) -> list[Row]:
    """Steps per second of acting and of training, every variant in turn."""
    rows = _acting_rows(at)
    for training in at.plan.trainings:
        name = f"{training.lanes:,} lanes × {at.plan.n_steps}, {training.epochs} epochs"
        size = {"num_envs": training.lanes, "n_steps": at.plan.n_steps, "n_epochs": training.epochs}
        rows += _training_rows(at, name, partial(smoke, **size), at.precisions, training.wanted)
    if at.plan.fast:
        fast = partial(config.load, file=ROOT / "configs" / "fast.yaml")
        load = lambda **changes: fast(changes)  # noqa: E731
        rows += _training_rows(at, "configs/fast.yaml", load, ("default",), None)
    return rows


def _acting_rows(at: Device) -> list[Row]:
    settings = smoke()
    env, params = market_of(settings)
    weights = network.init(jax.random.key(0), settings.network)
    sizes = {"lanes": at.plan.acting_lanes, "length": at.plan.n_steps}
    runs: dict[str, Callable[[], Any]] = {
        "environment": acting(env, env.step, params, random_policy(), (), **sizes)
    }
    for precision in at.precisions:
        sampled = policy.from_network(greedy=False, precision=precision)
        name = f"policy in the environment, {precision}"
        runs[name] = acting(env, env.step, params, sampled, weights, **sizes)
    seconds = timing.interleaved(runs, at.plan.rounds)
    steps = at.plan.acting_lanes * at.plan.n_steps
    wanted = dict.fromkeys(runs, at.plan.inference_wanted)
    wanted["environment"] = at.plan.environment_wanted
    return [
        Row(name, steps / timing.median(seconds, name), "steps/s", wanted=_wanted(at, wanted[name]))
        for name in runs
    ]


def _training_rows(
    at: Device,
    name: str,
    load: Callable[..., config.Config],
    precisions: Sequence[str],
    wanted: float | None,
) -> list[Row]:
    env, params = market_of(load())
    runs: dict[str, Updates] = {}
    rows, notes = list[Row](), {}
    for precision in precisions:
        for implementation in at.implementations:
            began = time.perf_counter()
            settings = load(matmul_precision=precision, lstm_impl=implementation, devices=1)
            variant = f"{name}; {implementation}, {precision}"
            try:
                runs[variant] = Updates(settings, env, params)
            except jax.errors.JaxRuntimeError as error:
                rows.append(_failed(variant, error))
                continue
            notes[variant] = (
                f"{runs[variant].memory / MIB:,.0f} MiB by XLA's estimate, ready in "
                f"{time.perf_counter() - began:.0f} s"
            )
    seconds = timing.interleaved(runs, at.plan.rounds)
    return rows + [
        Row(
            variant,
            run.steps / timing.median(seconds, variant),
            "steps/s",
            wanted=_wanted(at, wanted),
            note=notes[variant],
        )
        for variant, run in runs.items()
    ]


def _wanted(at: Device, rate: float | None) -> float | None:
    """What is wanted is wanted of a GPU."""
    return rate if at.is_gpu else None


def loops(at: Device) -> list[Row]:
    """How the loops of an update are launched, by the plan that XLA writes down."""
    rows = []
    lanes, epochs = at.plan.trainings[0].lanes, at.plan.trainings[0].epochs
    for implementation in at.implementations:
        settings = smoke(
            num_envs=lanes,
            n_steps=at.plan.n_steps,
            n_epochs=epochs,
            lstm_impl=implementation,
            devices=1,
        )
        env, params = market_of(settings)
        learner = Learner(env, settings)
        state = learner.init(jax.random.key(0), params)
        with tempfile.TemporaryDirectory() as folder, _without_cache():
            learner.compile(state, params, {"xla_dump_to": folder})
            texts = [path.read_text("utf-8") for path in _thunks(Path(folder))]
        found = [loop for text in texts for loop in launches(text)]
        if not found:
            rows.append(Row(f"update, {implementation}", None, "", note="XLA wrote down no plan"))
        rows += [
            Row(f"loop {place}, {implementation}", None, "", note=str(loop))
            for place, loop in enumerate(found)
        ]
    return rows


@contextmanager
def _without_cache() -> Iterator[None]:
    """A program from the compilation cache comes without its plan."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


def _thunks(folder: Path) -> list[Path]:
    """XLA's plan of what it launches: after its last passes, or as it was if they did nothing."""
    last = sorted(folder.glob("*thunk_sequence_after_thunk_passes*"))
    return last or sorted(folder.glob("*thunk_sequence*"))


@dataclass(frozen=True)
class Loop:
    """A while loop: inside a CUDA graph it costs the host nothing."""

    depth: int
    in_graph: bool
    launches: int  # of an iteration, by the host; a graph is one
    graphs: int  # of those, graphs

    def __str__(self) -> str:
        if self.in_graph:
            return f"depth {self.depth}: inside a CUDA graph"
        return f"depth {self.depth}: {self.launches} launches an iteration, {self.graphs} of graphs"


THUNK = re.compile(r"^( *)\d+: k(\w+)", re.MULTILINE)


def launches(plan: str) -> list[Loop]:
    """The loops of a thunk sequence as XLA prints it: what is nested is indented."""
    thunks = [(len(indent), kind) for indent, kind in THUNK.findall(plan)]
    found, above = [], list[tuple[int, str]]()
    for place, (indent, kind) in enumerate(thunks):
        above = [each for each in above if each[0] < indent]
        if kind == "While":
            depth = sum(each[1] == "While" for each in above)
            inside = any(each[1] == "CommandBuffer" for each in above)
            own = _own(thunks[place + 1 :], indent)
            found.append(Loop(depth, inside, len(own), own.count("CommandBuffer")))
        above.append((indent, kind))
    return found


def _own(following: Sequence[tuple[int, str]], indent: int) -> list[str]:
    """Kinds of what a loop launches itself, not by a graph or a loop within it."""
    inner = []
    for each in following:
        if each[0] <= indent:
            break
        inner.append(each)
    least = min((each[0] for each in inner), default=0)
    return [kind for depth, kind in inner if depth == least]


def gates(at: Device) -> list[Row]:
    """Seconds of the smoke run and of its gates, start-up and compilation included and without.

    The gates are judged a second time, with every program in the compilation cache.
    """
    if at.plan == QUICK:
        return [Row("smoke gates", None, "", note="not with --quick")]
    with tempfile.TemporaryDirectory() as root:
        run = smoke_gates.measure(Path(root), "seed-0", "--seed", "0")
        elapsed = metrics_file.read(Path(root) / "runs" / "seed-0")[-1]["time/time_elapsed"]
        again = smoke_gates.judge(Path(root), "seed-0")
    verdict = "passes" if run["passed"] else f"fails {', '.join(run['failed'])}"
    return [
        Row("smoke run, trained", run["training_seconds"], "s"),
        Row("smoke run, its gates", run["gates_seconds"], "s", note=verdict),
        Row("training after compilation", elapsed, "s", note="wanted, with the gates: < 10"),
        Row("gates, compiled before", again, "s", note="start-up included"),
    ]


SECTIONS: dict[str, Callable[[Device], list[Row]]] = {
    "parity": parity,
    "kernel": kernel,
    "speed": speed,
    "loops": loops,
    "gates": gates,
}


def facts_of(device: jax.Device) -> dict[str, Any]:
    """What the figures have to be read with."""
    memory = device.memory_stats() or {}
    return timing.hardware() | {
        "device": device.device_kind,
        "platform": device.client.platform_version.splitlines()[0],
        "device_memory_mib": round(memory.get("bytes_limit", 0) / MIB),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "revision": provenance.revision(),
    }


def main() -> None:
    """Prints the table of every section, and keeps it where the device is a GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"some of {', '.join(SECTIONS)}, with commas")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--json", type=Path, help="file for the results, also of a CPU")
    asked = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the gates' run needs some
    backend.use_compilation_cache()
    device = jax.devices()[0]
    at = Device(device, QUICK if asked.quick else Plan())
    if not (at.is_gpu or asked.quick):
        raise InputError(f"the device is {device.device_kind}, expected a GPU, or --quick")
    names = [name for name in asked.only.split(",") if name] or list(SECTIONS)
    for name in names:
        if name not in SECTIONS:
            raise InputError(f"--only: found {name!r}, expected some of {', '.join(SECTIONS)}")
    facts = facts_of(device)
    print(timing.heading(facts))
    if not at.is_gpu or asked.quick:
        print("no figure below says anything of what is wanted: a CPU, or tiny sizes")
    path = asked.json or (None if asked.quick else _path(device, str(facts["date"])))
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        found = SECTIONS[name](at)
        print(f"\n{name}\n{timing.as_table(found)}", flush=True)
        rows[name] = [dataclasses.asdict(row) for row in found]
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
        facts["peak_device_memory_mib"] = round(peak / MIB)
        if path:  # after every section: a later one may fail
            text = json.dumps({"hardware": facts, "rows": rows}, indent=1)
            path.write_text(text + "\n", encoding="utf-8")
    print(f"\npeak memory of the device: {facts['peak_device_memory_mib']:,} MiB")
    if path:
        print(f"written to {path}")
    if any(row["note"].endswith(": NO") for row in rows.get("parity", [])):
        raise SystemExit(1)


def _path(device: jax.Device, date: str) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", device.device_kind.lower()).strip("-")
    return RESULTS / f"{name}-{date[:10]}.json"


if __name__ == "__main__":
    run_command(main)
