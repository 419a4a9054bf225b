"""How cost grows: `python -m benchmarks.cost_growth`, with lanes, rollout length, width, members.

Training of `configs/phase1_smoke.yaml` with one epoch. Every sweep takes its sizes in turns, round
after round; memory is what XLA says an update works in. `exponent` is the slope of log time on log
lanes, over all and between the two largest sizes: time no worse than linear is at most 1. Members:
the steps/s of M agents in one program over that of one agent trained M times; below 1 it no
longer pays. Writes benchmarks/results/cost_growth.json and docs/images/cost_growth.png; `--only
members` (or `sweeps`) measures that part and keeps what the file has of the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

from benchmarks import timing
from benchmarks.workload import ROOT, Updates, market_of, smoke
from jules_jax.errors import InputError, run_command
from jules_jax.training import backend

IMAGE = ROOT / "docs" / "images" / "cost_growth.png"
RESULTS = ROOT / "benchmarks" / "results" / "cost_growth.json"
MIB = 2**20
STEPS = 32  # of a rollout, where its length is not what varies
LANES = 384  # where their number is not what varies: those of the smoke configuration
MEMBERS = (2, 4, 8)
MEMBERS_LANES = (16, 64, 256, 384)
PARTS = ("sweeps", "members")
SHORTEST = 4096  # steps that a timed call has at least
BLUE, RED = "#1f5f99", "#b3261e"


@dataclass(frozen=True)
class Point:
    """Cost of an update at one size: seconds (median over rounds), steps/s and MiB."""

    size: int
    seconds: float
    steps_per_second: float
    memory_mib: float


@dataclass(frozen=True)
class Gain:
    """Steps/s of `members` in one program over the same, one after another; range over rounds."""

    lanes: int
    members: int
    gain: float
    least: float
    largest: float


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds on log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def crossover(gains: Sequence[Gain]) -> dict[int, int | None]:
    """By lanes, the fewest members that no longer pay (gain below 1); None: all measured do."""
    found: dict[int, int | None] = {}
    for lanes in sorted({gain.lanes for gain in gains}):
        losing = [g.members for g in gains if g.lanes == lanes and g.gain < 1]
        found[lanes] = min(losing, default=None)
    return found


def sweep(sizes: Sequence[int], build: Callable[[int], Updates], rounds: int) -> list[Point]:
    """The cost of an update at each size, in turns."""
    runs = {size: build(size) for size in sizes}
    seconds = timing.interleaved({str(size): run for size, run in runs.items()}, rounds)
    points = []
    for size, run in runs.items():
        own = timing.median(seconds, str(size))
        points.append(Point(size, own / run.repeat, run.steps / own, run.memory / MIB))
    return points


def member_gains(
    lanes: Sequence[int], members: Sequence[int], build: Callable[..., Updates], rounds: int
) -> list[Gain]:
    """The gain of training M members in one program, at several numbers of lanes."""
    gains = []
    for count in lanes:
        runs = {"1": build(num_envs=count)}
        runs |= {str(m): build(num_envs=count, members=m) for m in members}
        work = {name: float(run.steps) for name, run in runs.items()}
        seconds = timing.interleaved(runs, rounds)
        for m in members:
            gains.append(Gain(count, m, *timing.ratio(seconds, work, str(m), "1")))
        gc.collect()  # the runs hold their states
    return gains


def builder() -> Callable[..., Updates]:
    """`build(members=None, **changes)`: updates of the smoke configuration with one epoch."""
    env, params = market_of(smoke())

    def build(*, members: int | None = None, **changes: Any) -> Updates:
        settings = smoke(**({"n_epochs": 1, "n_steps": STEPS} | changes))
        steps = settings.num_envs * settings.ppo.n_steps * (members or 1)
        repeat = -(-SHORTEST // steps)
        return Updates(settings, env, params, members=members, repeat=repeat)

    return build


def points_table(name: str, points: Sequence[Point]) -> str:
    """The points of a sweep."""
    lines = [f"{name:>16}{'s/update':>12}{'steps/s':>12}{'MiB':>10}"]
    lines += [
        f"{p.size:>16,}{p.seconds:>12.3f}{p.steps_per_second:>12,.0f}{p.memory_mib:>10,.0f}"
        for p in points
    ]
    return "\n".join(lines)


def gains_table(gains: Sequence[Gain]) -> str:
    """The gains of members."""
    lines = [f"{'lanes':>16}{'members':>12}{'gain':>12}{'range':>14}"]
    lines += [
        f"{g.lanes:>16,}{g.members:>12}{g.gain:>12.2f}{g.least:>9.2f}–{g.largest:.2f}"
        for g in gains
    ]
    return "\n".join(lines)


def growth(points: Sequence[Point]) -> dict[str, float]:
    """Exponents of time per update: over all sizes, and between the two largest."""
    sizes, seconds = [p.size for p in points], [p.seconds for p in points]
    return {"all": exponent(sizes, seconds), "largest": exponent(sizes[-2:], seconds[-2:])}


def plot(
    sweeps: Mapping[str, list[Point]], gains: Sequence[Gain], heading: str, image: Path
) -> None:
    """Four panels: lanes, rollout length, width, members."""
    mpl.use("agg")
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    slopes = growth(sweeps["lanes"])
    titles = {
        "lanes": f"Lanes: time per update grows as lanes$^{{{slopes['all']:.2f}}}$ "
        f"(last two: {slopes['largest']:.2f})",
        "rollout length": f"Rollout length, {LANES} lanes",
        "LSTM width": f"LSTM width, {LANES} lanes",
    }
    for axis, (name, points) in zip(axes.flat, sweeps.items(), strict=False):
        sizes = [p.size for p in points]
        axis.plot(sizes, [p.steps_per_second for p in points], "o-", color=BLUE)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("steps/s", color=BLUE)
        beside = axis.twinx()
        beside.plot(sizes, [p.memory_mib for p in points], "s--", color=RED)
        beside.set_yscale("log", base=10)
        beside.yaxis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
        for axis_of_numbers in (axis.yaxis, beside.yaxis):
            axis_of_numbers.set_major_formatter("{x:,.0f}")
        beside.yaxis.set_minor_formatter("{x:,.0f}")
        beside.set_ylabel("memory of an update, MiB", color=RED)
        _sizes_axis(axis, sizes, name)
        axis.set_title(titles[name])
    _draw_members(axes.flat[3], gains)
    figure.suptitle(f"Cost of a training update, one epoch\n{heading}", fontsize=10)
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=120)
    plt.close(figure)


def _draw_members(axis: Any, gains: Sequence[Gain]) -> None:
    if not gains:
        axis.set_axis_off()
        axis.text(0.5, 0.5, "members: not measured", ha="center", transform=axis.transAxes)
        return
    for lanes, shade in zip(
        sorted({g.lanes for g in gains}), (BLUE, "#3d8f6e", RED, "0.3"), strict=False
    ):
        own = [g for g in gains if g.lanes == lanes]
        middle = np.array([g.gain for g in own])
        errors = np.abs(np.array([[g.least for g in own], [g.largest for g in own]]) - middle)
        members = [g.members for g in own]
        axis.errorbar(
            members, middle, errors, fmt="o-", capsize=3, color=shade, label=f"{lanes} lanes each"
        )
    axis.axhline(1.0, color="0.5", linestyle=":")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("steps/s over one after another")
    _sizes_axis(axis, sorted({g.members for g in gains}), "members in one program")
    axis.legend()
    axis.set_title("Members: above 1, one program pays")


def _sizes_axis(axis: Any, sizes: Sequence[int], label: str) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel(label)
    axis.grid(alpha=0.3)


SIZES = {
    "lanes": ("num_envs", (64, 256, 1024, 4096, 16384)),
    "rollout length": ("n_steps", (16, 32, 64, 128, 256)),
    "LSTM width": ("lstm_hidden_size", (16, 32, 64, 128, 256)),
}
"""What varies, by what it is called: its setting, and its values."""


def sweeps_part(every: slice, rounds: int) -> dict[str, Any]:
    """All sweeps, printed as they come."""
    build, found = builder(), {}
    for name, (key, sizes) in SIZES.items():
        found[name] = sweep(sizes[every], lambda size, key=key: build(**{key: size}), rounds)
        print(points_table(name, found[name]), flush=True)
        gc.collect()
    slopes = growth(found["lanes"])
    print(f"\ntime per update grows as lanes^{slopes['all']:.2f} (the two largest sizes: ", end="")
    print(f"lanes^{slopes['largest']:.2f}); no worse than linear: ", end="")
    print("yes" if max(slopes.values()) <= 1 else "NO", flush=True)
    points = {name: [dataclasses.asdict(p) for p in of] for name, of in found.items()}
    return {"sweeps": points, "exponent": slopes}


def members_part(every: slice, rounds: int) -> dict[str, Any]:
    """The gain of members, printed."""
    gains = member_gains(MEMBERS_LANES[every], MEMBERS[every], builder(), rounds)
    print(gains_table(gains))
    print(f"fewest members that no longer pay, by lanes: {crossover(gains)}")
    return {"members": [dataclasses.asdict(gain) for gain in gains], "crossover": crossover(gains)}


def draw(results: Mapping[str, Any], image: Path) -> None:
    """The figure of what a file of results holds."""
    sweeps = {name: [Point(**p) for p in of] for name, of in results["sweeps"].items()}
    gains = [Gain(**gain) for gain in results.get("members", [])]
    plot(sweeps, gains, results["hardware"]["sweeps"]["heading"], image)


def main() -> None:
    """Measures, prints, writes and draws. Raises `InputError` for a part that is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, two rounds")
    parser.add_argument("--only", default="", help=f"one of {', '.join(PARTS)}; default: all")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--image", type=Path, default=IMAGE)
    arguments = parser.parse_args()
    if arguments.only and arguments.only not in PARTS:
        raise InputError(f"--only: found {arguments.only!r}, expected one of {', '.join(PARTS)}")
    backend.use_compilation_cache()
    rounds = 2 if arguments.quick else arguments.rounds
    every = slice(None, None, 2 if arguments.quick else 1)
    kept = json.loads(arguments.json.read_text("utf-8")) if arguments.json.exists() else {}
    for part in [arguments.only] if arguments.only else PARTS:
        facts = timing.hardware()
        heading = timing.heading(facts)
        print(f"{heading}; medians of {rounds} rounds\n", flush=True)
        measured = sweeps_part if part == "sweeps" else members_part
        kept |= measured(every, rounds)
        about = facts | {"rounds": rounds, "heading": heading}
        kept["hardware"] = kept.get("hardware", {}) | {part: about}
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    if "sweeps" in kept:
        draw(kept, arguments.image)


if __name__ == "__main__":
    run_command(main)
