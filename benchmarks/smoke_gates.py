"""The gates of the smoke run, seed by seed, and of the same run where nothing can be earned.

Trains `configs/phase1_smoke.yaml` with seeds 0, 1 and 2, which have to pass all gates, and with
seed 0 on preset `null`, which has to fail the reward band; each in a process of its own, as a
person would, with wall times of both commands.

    python -m benchmarks.smoke_gates                  # writes benchmarks/results/smoke_gates.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import timing

RESULTS = Path(__file__).parent / "results" / "smoke_gates.json"
CONFIG = "configs/phase1_smoke.yaml"
SEEDS = (0, 1, 2)
TRAINING_SECONDS, GATES_SECONDS = 240.0, 90.0
"""What training and gates may take, start-up included, on two cores."""


def measure(root: Path, name: str, *flags: str) -> dict[str, Any]:
    """Trains and judges one run below `root`; what it took, and what the gates say."""
    places = _places(root)
    train = ("train", "--config", CONFIG, "--gates.at-end", "false", "--name", name, *flags)
    trained = _seconds(*train, *places)
    judged = judge(root, name)
    verdict = json.loads((root / "runs" / name / "gates.json").read_text(encoding="utf-8"))
    return {
        "name": name,
        "flags": list(flags),
        "training_seconds": round(trained, 1),
        "gates_seconds": round(judged, 1),
        "passed": verdict["passed"],
        "failed": [gate["gate"] for gate in verdict["gates"] if gate["passed"] is False],
        "episode_reward": verdict["episode_reward"]["sampled"],
        "gates": {gate["gate"]: gate["value"] for gate in verdict["gates"]},
    }


def judge(root: Path, name: str) -> float:
    """Seconds that judging a run takes."""
    return _seconds("gates", name, *_places(root))


def _places(root: Path) -> tuple[str, ...]:
    return ("--runs-dir", str(root / "runs"), "--checkpoint-dir", str(root / "checkpoints"))


def _seconds(command: str, *words: str) -> float:
    """Wall time of a command of the package, start-up included."""
    began = time.monotonic()
    line = [sys.executable, "-m", f"jules_jax.{command}", *words]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def as_wanted(runs: list[dict[str, Any]]) -> dict[str, bool]:
    """What was asked for, and whether it is so."""
    easy, null = runs[:-1], runs[-1]
    return {
        f"{len(SEEDS)} of {len(SEEDS)} seeds pass every gate": all(run["passed"] for run in easy),
        "what null trained fails the reward band": "reward band" in null["failed"],
        f"training takes {TRAINING_SECONDS:.0f} s at most": all(
            run["training_seconds"] <= TRAINING_SECONDS for run in runs
        ),
        f"gates take {GATES_SECONDS:.0f} s at most": all(
            run["gates_seconds"] <= GATES_SECONDS for run in runs
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=RESULTS)
    asked = parser.parse_args()
    courses = [(f"seed-{seed}", "--seed", str(seed)) for seed in SEEDS]
    courses.append(("null", "--seed", "0", "--preset", "null"))
    runs = []
    with tempfile.TemporaryDirectory() as root:
        for name, *flags in courses:
            runs.append(measure(Path(root), name, *flags))
            run = runs[-1]
            outcome = "passes" if run["passed"] else f"fails {', '.join(run['failed'])}"
            times = f"{run['training_seconds']:.0f} s and {run['gates_seconds']:.0f} s of gates"
            print(f"{name:<8} {run['episode_reward']['mean']:6.2f}  {outcome}; {times}", flush=True)
    wanted = as_wanted(runs)
    for what, so in wanted.items():
        print(f"{'yes' if so else 'NO':<4}{what}")
    content = {
        "command": "python -m benchmarks.smoke_gates",
        "hardware": timing.hardware(),
        "wanted": wanted,
        "runs": runs,
    }
    asked.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if all(wanted.values()) else 1)


if __name__ == "__main__":
    main()
