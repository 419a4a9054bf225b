"""Speed on this machine: `make bench`. One table; every ratio is from runs taken in turns.

`--only peers,phases` measures those sections, `--quick` with few rounds; `--json FILE` keeps the
rows with the hardware and the date. Sections: environment, peers, loop, phases, gemm, startup.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from gymnax.environments import environment

from benchmarks import phases, purejaxrl_style, startup, timing
from benchmarks.timing import Row
from benchmarks.workload import Updates, acting, market_of, multiply_adds, random_policy, smoke
from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.errors import InputError, run_command
from jules_jax.market.feed import SimulatedFeed
from jules_jax.training import backend

ORIGINAL_ENVIRONMENT = 1_400
"""Steps/s of the original environment alone, one thread (1,300 to 1,500)."""
LANES, LENGTH = 2048, 100
"""Lanes and steps of the runs without learning."""
MIB = 2**20


def environment_rows(rounds: int) -> list[Row]:
    """Market, environment, policy in the environment and training, each alone."""
    settings = config.load({"num_envs": LANES})
    env, params = market_of(settings)
    feed = SimulatedFeed(settings)
    weights = network.init(jax.random.key(0), settings.network)
    sizes: dict[str, int] = {"lanes": LANES, "length": LENGTH}
    base_step = lambda *args: environment.Environment.step.__wrapped__(env, *args)  # noqa: E731
    trained = policy.from_network(greedy=False)
    training = Updates(smoke(), *market_of(smoke()))
    runs: dict[str, Callable[[], Any]] = {
        "market": lambda: feed.generation(jax.random.key(2), 1),
        "environment": acting(env, env.step, params, random_policy(), (), **sizes),
        "environment, gymnax's own step": acting(
            env, base_step, params, random_policy(), (), **sizes
        ),
        "inference: policy in the environment": acting(
            env, env.step, params, trained, weights, **sizes
        ),
        "training, smoke (4 epochs)": training,
    }
    work = dict.fromkeys(runs, float(LANES * LENGTH)) | {
        "market": float(feed.generation_rows),
        "training, smoke (4 epochs)": float(training.steps),
    }
    seconds = timing.interleaved(runs, rounds)
    rows = [
        Row(name, work[name] / timing.median(seconds, name), "steps/s")
        for name in runs
        if name != "market"
    ]
    times_original = rows[0].rate / ORIGINAL_ENVIRONMENT if rows[0].rate else 0.0
    rows[0] = dataclasses.replace(
        rows[0], note=f"{times_original:,.0f} × the original's 1,300 to 1,500"
    )
    own = "environment, gymnax's own step"
    ratio = timing.ratio(seconds, work, "environment", own)
    rows.insert(1, Row("environment", None, "", "gymnax's own step", ratio))
    return [
        Row("market", work["market"] / timing.median(seconds, "market"), "bars/s"),
        *rows,
        Row("training, memory of an update", training.memory / MIB, "MiB", note="XLA's estimate"),
    ]


OURS = "jules_jax, smoke size (384 lanes)"
OURS_64 = "jules_jax, 64 lanes, batch 8,192"
OURS_1 = "jules_jax, 1 lane, batch 128"
BRIDGE_1 = "RecurrentPPO, 1 env, bridge"
LEAN_1 = "RecurrentPPO, 1 env, lean adapter"
LEAN_64 = "RecurrentPPO, 64 envs, batch 8,192"


def peer_rows(rounds: int) -> list[Row]:
    """Whole training with 10 epochs against sb3-contrib, where that is installed."""
    missing = [name for name in ("torch", "sb3_contrib") if not importlib.util.find_spec(name)]
    if missing:
        words = f"{' and '.join(missing)} not installed: pip install -e '.[peers]'"
        return [Row("sb3-contrib RecurrentPPO", None, "", note=words)]
    from benchmarks import peers

    env, params = market_of(smoke())
    single = smoke(num_envs=1, num_minibatches=1, n_epochs=10, devices=1)
    vector = smoke(num_envs=64, num_minibatches=1, n_epochs=10)
    ours = {
        OURS: Updates(smoke(n_epochs=10), env, params),
        OURS_64: Updates(vector, env, params),
        OURS_1: Updates(single, env, params, repeat=8),
    }
    runs: dict[str, Callable[[], Any]] = dict(ours)
    work = {name: float(run.steps) for name, run in ours.items()}
    theirs = {BRIDGE_1: (single, False, 4), LEAN_1: (single, True, 4), LEAN_64: (vector, True, 1)}
    notes = {}
    for name, (settings, lean, rollouts) in theirs.items():
        threads = peers.best_threads(settings, env, params, lean=lean)
        notes[name] = f"torch with {threads} thread{'s' if threads > 1 else ''}"
        runs[name] = peers.training(
            settings, env, params, threads=threads, lean=lean, rollouts=rollouts
        )
        work[name] = float(settings.num_envs * settings.ppo.n_steps * rollouts)
    seconds = timing.interleaved(runs, rounds)
    rates = {name: work[name] / timing.median(seconds, name) for name in runs}
    wanted = [
        *((OURS, BRIDGE_1, 30.0), (OURS, LEAN_1, None), (OURS, LEAN_64, 3.0)),
        *((OURS_64, LEAN_64, None), (OURS_1, BRIDGE_1, None), (OURS_1, LEAN_1, 5.0)),
    ]
    return [
        *(Row(name, rates[name], "steps/s", note=notes[name]) for name in theirs),
        *(
            Row(own, rates[own], "steps/s", name, timing.ratio(seconds, work, own, name), least)
            for own, name, least in wanted
        ),
    ]


def loop_rows(rounds: int) -> list[Row]:
    """Multiply-adds per second of training against a PureJaxRL-style loop, epochs the same.

    A step costs the multiply-adds of one forward pass times the same factor in both loops, so
    steps/s × multiply-adds of a forward pass is what compares networks of different size.
    """
    settings = smoke()
    env, params = market_of(settings)
    ours = Updates(settings, env, params)
    size = settings.network
    networks = {
        "PureJaxRL style, its network (width 128)": purejaxrl_style.SharedActorCritic(),
        "PureJaxRL style, our network": purejaxrl_style.SeparateActorCritic(
            hidden_size=size.lstm_hidden_size, net_arch=size.net_arch
        ),
    }
    alike = Updates(smoke(devices=1), env, params)  # one device, as the loop has
    own = {"jules_jax": ours, "jules_jax, on one device as the loop": alike}
    runs: dict[str, Callable[[], Any]] = dict(own)
    adds = {name: multiply_adds(run.state.params) for name, run in own.items()}
    for style, model in networks.items():
        runs[style], weights = _style_run(model, settings, env, params)
        adds[style] = multiply_adds(weights)
    seconds = timing.interleaved(runs, rounds)
    work = {style: float(count * ours.steps) for style, count in adds.items()}
    rates = {style: work[style] / timing.median(seconds, style) / 1e9 for style in runs}
    notes = {style: f"{count:,} a step" for style, count in adds.items()}
    unit = "GMAC/s"  # of forward passes: epochs and backward passes are a common factor
    return [
        *(Row(style, rates[style], unit, note=notes[style]) for style in networks),
        *(
            Row(
                name,
                rates[name],
                unit,
                style,
                timing.ratio(seconds, work, name, style),
                1.2,
                notes[name],
            )
            for name in own
            for style in networks
        ),
    ]


def _style_run(
    model: Any, settings: config.Config, env: Any, env_params: Any
) -> tuple[Callable[[], Any], Any]:
    """A run of one update of that loop, which keeps its state, and its weights."""
    init, train = purejaxrl_style.make_train(env, model, settings, num_updates=1)
    held = [init(jax.random.key(0), env_params)]
    weights = jax.eval_shape(lambda: held[0].train.params)

    def run() -> Any:
        held[0], losses = train(held[0], env_params)
        return losses

    return run, weights


def phase_rows(rounds: int) -> list[Row]:
    """Milliseconds of each phase of a smoke update on one device, and its share of the whole."""
    settings = smoke(devices=1)
    updates = Updates(settings, *market_of(settings))
    runs: dict[str, Callable[[], Any]] = phases.pieces(updates) | {"whole update": updates}
    seconds = timing.interleaved(runs, rounds)
    whole = timing.median(seconds, "whole update")
    rows = []
    for name in runs:
        own = timing.median(seconds, name)
        share = f"{own / whole:.0%} of the update, {updates.steps / own:,.0f} steps/s"
        rows.append(Row(name, own * 1e3, "ms", note=share))
    return rows


def gemm_rows(rounds: int) -> list[Row]:
    """The share of an update's time that its matrix products would take on their own."""
    if importlib.util.find_spec("benchmarks.gemm_share") is None:
        return [Row("GEMM share", None, "", note="benchmarks/gemm_share.py is not there")]
    from benchmarks import gemm_share

    share, table = gemm_share.measure(smoke(), rounds)
    print(table, flush=True)
    return [Row("GEMM share", share, "of 1", wanted=0.6)]


def startup_rows(rounds: int) -> list[Row]:
    """From the smoke configuration's command to its first update's line."""
    del rounds  # a cold start is one
    rows = []
    names = ("start-up, cold", "start-up, cached")
    for name, run, most in zip(names, startup.cold_and_warm(), (45.0, 15.0), strict=True):
        parts = ", ".join(f"{part} {value:.1f} s" for part, value in run.parts.items())
        note = f"{parts}; CPU {run.cpu_seconds:.1f} s, peak memory {run.peak_mib:,.0f} MiB"
        rows.append(Row(name, run.seconds, "s", wanted=most, note=note))
    return rows


SECTIONS: dict[str, Callable[[int], list[Row]]] = {
    "environment": environment_rows,
    "peers": peer_rows,
    "loop": loop_rows,
    "phases": phase_rows,
    "gemm": gemm_rows,
    "startup": startup_rows,
}


def chosen(names: str) -> Sequence[str]:
    """Sections by their names, commas between them; all for none. Raises `InputError`."""
    found = [name for name in names.split(",") if name]
    for name in found:
        if name not in SECTIONS:
            raise InputError(f"--only: found {name!r}, expected some of {', '.join(SECTIONS)}")
    return found or list(SECTIONS)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="sections, commas between them; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", type=Path, help="file for hardware, date and all rows")
    arguments = parser.parse_args()
    backend.use_compilation_cache()
    facts = timing.hardware()
    rounds = 3 if arguments.quick else arguments.rounds
    print(f"{timing.heading(facts)}; medians of {rounds} rounds\n", flush=True)
    sections: dict[str, list[Row]] = {}
    for name in chosen(arguments.only):
        sections[name] = SECTIONS[name](rounds)
        print(f"{name}\n{timing.as_table(sections[name])}\n", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak memory of all this: {peak:,.0f} MiB")
    if arguments.json:
        rows = {
            name: [dataclasses.asdict(row) for row in found] for name, found in sections.items()
        }
        facts |= {"rounds": rounds, "peak_memory_mib": round(peak)}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"hardware": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
