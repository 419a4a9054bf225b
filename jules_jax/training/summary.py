"""The last words of a training run: what it reached, and what to do next."""

from __future__ import annotations

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


def next_steps(result: Result, python: str) -> str:
    """Commands to go on with; `python` is how to call the one that runs this."""
    return (
        f"\nNext:\n"
        f"  {python} -m jules_jax.evaluate --checkpoint {result.checkpoint.parent}\n"
        f"  tensorboard --logdir {result.run_dir.parent}   (after: pip install tensorboard)"
    )
