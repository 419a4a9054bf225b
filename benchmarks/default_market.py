"""Does the LSTM beat the best rule where regimes are hidden? `python -m benchmarks.default_market`.

For every seed: `python -m jules_jax.train --config configs/fast.yaml`, then the same with
`configs/default_market.yaml` and `--init-from` the first run's weights (why is said there). Every
checkpoint of the second stage plays validation paths, greedy and sampled, and the last one plays
others, beside the best rule of the grid and the oracle, both picked on others yet. What an agent
nets beyond the rule is of the same episodes; 95 % intervals over seeds and paths. The verdict is
the greedy policy's. Paths of seed 1000 have chosen the length of the second stage, so those of
seed 1001 judge it. `--again DIRECTORY` judges what `--keep DIRECTORY` has kept, without training.
Writes benchmarks/results/default_market.json and docs/images/default_market.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks import populations, references
from benchmarks.ablation import Use
from benchmarks.references import Days
from benchmarks.workload import ROOT
from jules_jax import config
from jules_jax.agent import network
from jules_jax.errors import InputError
from jules_jax.evaluation.statistics import (
    Interval,
    mean_interval,
    paired_difference,
    ratio_of_means,
)
from jules_jax.training import backend, checkpoints, loop

FIRST = ROOT / "configs" / "fast.yaml"
SECOND = ROOT / "configs" / "default_market.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "default_market.json"
IMAGE = ROOT / "docs" / "images" / "default_market.png"
HOW = {"sampled": populations.SAMPLED, "greedy": populations.GREEDY}
BLUE, RED = "#1f5f99", "#b3261e"


@dataclass(frozen=True)
class Judged:
    """Dollars an episode of agents after some steps of the second stage, sampled and greedy."""

    steps: int
    net: dict[str, Interval]
    beyond_rule: dict[str, Interval]
    share: dict[str, Interval]  # of the oracle's
    per_seed: dict[str, list[float]]


def train(seed: int, places: config.Config, steps: int | None) -> list[Path]:
    """Both stages of a seed; the checkpoints of the second, the first one first.

    places: its directories, and devices, are taken. steps: of the second stage, if not its own.
    """
    where = {"runs_dir": places.runs_dir, "checkpoint_dir": places.checkpoint_dir}
    common: dict[str, Any] = where | {"seed": seed, "devices": places.devices}
    length = {} if steps is None else {"total_timesteps": steps}
    first = config.load(common | {"name": f"easy-{seed}"}, file=FIRST)
    kept = {"name": f"default-{seed}", "checkpoints.keep": 1000}
    second = config.load(common | kept | length, file=SECOND)
    begun = loop.train(first)
    return sorted(
        checkpoints.steps(loop.train(second, init_from=begun.checkpoint).checkpoint.parent),
        key=lambda path: int(path.name),
    )


def stacked(weights: Sequence[network.Params]) -> network.Params:
    """Agents as one population, leaves `[M, ...]`."""
    population: network.Params = jax.tree.map(lambda *leaves: np.stack(leaves), *weights)
    return population


def kept(seed: int, places: config.Config) -> list[Path]:
    """Checkpoints of the second stage of a seed trained before, the first one first."""
    directory = Path(places.checkpoint_dir) / f"default-{seed}"
    found = sorted(checkpoints.steps(directory), key=lambda path: int(path.name))
    if not found:
        raise InputError(f"{directory}: found no checkpoint, expected those of `--keep`")
    return found


def judge(
    steps: int,
    weights: network.Params,
    days: Days,
    earned: Mapping[str, np.ndarray],
    key: jax.Array,
) -> Judged:
    """What agents `[M]` net on some days, where oracle and rule (in that order) net `[N]` each."""
    oracle, rule = earned.values()
    net = {how: populations.play(who, weights, days, key) for how, who in HOW.items()}
    return Judged(
        steps,
        {how: mean_interval(of) for how, of in net.items()},
        {how: paired_difference(of, rule) for how, of in net.items()},
        {how: ratio_of_means(of, oracle) for how, of in net.items()},
        {how: of.mean(axis=1).tolist() for how, of in net.items()},
    )


def figure(curve: Sequence[Judged], last: Judged, episodes: int) -> Any:
    """What agents net beyond the rule on the same episodes, by steps; the last on other paths."""
    with mpl.rc_context({"font.size": 9}):
        drawn, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        steps = np.array([point.steps / 1e6 for point in curve])
        for place, (how, colour) in enumerate((("sampled", BLUE), ("greedy", RED))):
            of = [point.beyond_rule[how] for point in curve]
            axes.plot(steps, [net.value for net in of], "o-", color=colour, ms=3, label=how)
            axes.fill_between(
                steps, [n.low for n in of], [n.high for n in of], color=colour, alpha=0.15, lw=0
            )
            end = last.beyond_rule[how]
            spread = [[end.value - end.low], [end.high - end.value]]
            at = steps[-1] * (1.03 + 0.02 * place)
            axes.errorbar([at], [end.value], spread, fmt="s", color=colour, capsize=3)
        axes.axhline(0, color="black", lw=0.8)
        axes.text(steps[-1], -1, "the best rule", ha="right", va="top")
        axes.set(
            xlabel="million steps on `default`, after a million on `easy`",
            ylabel="net P&L per episode beyond the best rule's, $",
            title=f"Lines: validation paths. Squares: {episodes:,} others",
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    return drawn


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, plays, prints, writes; 1 where the greedy policy does not beat the rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=1, help="agents, one after the other")
    parser.add_argument("--first-seed", type=int, default=1, help="of the agents")
    parser.add_argument("--timesteps", type=int, help="of the second stage; default: the config's")
    parser.add_argument("--episodes", type=int, default=8192, help="fresh ones, a path each")
    parser.add_argument("--seed", type=int, default=1001, help="of the paths that are played")
    parser.add_argument("--keep", type=Path, help="directory for the runs; default: none is kept")
    parser.add_argument("--again", type=Path, help="directory of runs kept before, to judge")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=IMAGE)
    given = parser.parse_args(argv)
    backend.use_compilation_cache()
    try:
        return run(given)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def run(given: argparse.Namespace) -> int:
    """The command with its arguments."""
    settings = config.load({"seed": given.seed}, file=SECOND).for_evaluation()
    key = jax.random.key(given.seed)
    few, many = max(given.episodes // 8, 1), given.episodes

    def days(use: Use, count: int) -> Days:
        return references.simulate(settings, jax.random.fold_in(key, use), count)

    oracle, rule = references.best_of([days(Use.PICKING, few), days(Use.PICKING_AGAIN, many)])
    validation, report = days(Use.VALIDATION, few), days(Use.REPORT, many)
    on_validation, on_report = (
        {of.name: of.net(played) for of in (oracle, rule)} for played in (validation, report)
    )
    for name, net in on_report.items():
        print(f"{name}: {mean_interval(net):.1f}")

    with tempfile.TemporaryDirectory() as scratch:
        root = given.again or given.keep or Path(scratch)
        places = config.load({"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "kept")})
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        trained = [
            kept(seed, places) if given.again else train(seed, places, given.timesteps)
            for seed in seeds
        ]
        points = [
            (
                int(checkpoints.load_meta(of_seeds[0])["update"]),
                stacked([checkpoints.load_params(path, settings) for path in of_seeds]),
            )
            for of_seeds in zip(*trained, strict=True)
        ]
    playing = jax.random.fold_in(key, Use.PLAY)
    update_steps = settings.num_envs * settings.ppo.n_steps
    curve = [judge(n * update_steps, of, validation, on_validation, playing) for n, of in points]
    last = judge(points[-1][0] * update_steps, points[-1][1], report, on_report, playing)
    for how in HOW:
        print(
            f"{how}: {last.net[how]:.1f}   beyond the rule: {last.beyond_rule[how]:.1f}   "
            f"of the oracle's: {last.share[how]:.1%}"
        )
    found = {
        "about": {"seeds": list(seeds), "episodes": given.episodes, "seed": given.seed},
        "picking": {
            "rules": len(rule.means[0]),
            "paths": [few, many],
            "best": [dict(list(stage.items())[: references.FINALISTS]) for stage in rule.means],
        },
        "references": {name: mean_interval(net) for name, net in on_report.items()},
        "last": dataclasses.asdict(last),
        "curve": [dataclasses.asdict(point) for point in curve],
    }
    given.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    figure(curve, last, given.episodes).savefig(given.figure, dpi=120)
    return int(not last.beyond_rule["greedy"].low > 0)


if __name__ == "__main__":
    sys.exit(main())
