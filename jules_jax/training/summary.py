"""The last words of a training run: what it reached, and what to do next."""

from __future__ import annotations

import os
import sys

from jules_jax import config
from jules_jax.training import acceptance, processes
from jules_jax.training.loop import Result
from jules_jax.training.monitor import EPISODE_WINDOW

TABLE = {
    "rollout/ep_rew_mean": "episode reward",
    "pnl/net": "net P&L per episode, $",
    "pnl/gross": "gross P&L per episode, $",
    "trade/orders": "orders per episode",
    "risk/hard_breaches": "hard breaches per episode",
    "train/entropy_loss": "entropy_loss, nats",
    "train/explained_variance": "explained variance",
    "time/fps": "steps per second",
}


def figures(result: Result) -> str:
    """What was reached: of a population, how its members stand, and the best of them."""
    lines = []
    if result.leaderboard:
        lines += ["", result.leaderboard, "", "the best of them at the end:"]
    lines += [
        "",
        f"trained in {result.seconds:,.0f} s; the last {EPISODE_WINDOW} episodes or more:",
    ]
    for key, label in TABLE.items():
        value = result.scalars.get(key)
        lines.append(f"  {label:<28} {'–' if value is None else format(value, ',.3f'):>14}")
    if result.best is not None:
        lines += ["", f"The checkpoint that did best in validation is of update {result.best}"]
    return "\n".join(lines)


def conclude(result: Result, *, judged: bool, profile: str | None) -> bool:
    """Prints what came of a run, and its gates where it is `judged`; whether all are passed."""
    print(figures(result))
    passed = True
    if judged:
        settings = config.load(file=result.checkpoint.parent / config.CONFIG_FILE)
        verdict = acceptance.judge(result.checkpoint, settings)
        print(f"\n{verdict.text()}", flush=True)
        if processes.is_first():
            verdict.write()
        passed = verdict.passed
    if profile:
        print(f"\nThe trace is in {profile}: TensorBoard, or Perfetto for its *.trace.json.gz")
    print(next_steps(result))
    return passed


def next_steps(result: Result) -> str:
    """Commands to go on with."""
    inside = os.path.relpath(sys.executable)
    # `make train` uses a Python that is not on the PATH
    python = "python" if inside.startswith(os.pardir) else inside
    return (
        f"\nNext:\n"
        f"  {python} -m jules_jax.evaluate --checkpoint {result.checkpoint.parent}\n"
        f"  tensorboard --logdir {result.run_dir.parent}   (after: pip install tensorboard)"
    )
