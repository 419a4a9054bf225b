"""Does it learn? Trains `configs/phase1_smoke.yaml` on `easy` and on `null`, and judges both.

Passes (exit status 0) if, over fresh episodes on paths that training never saw, on `easy` the
random policy earns less than −3 standard errors of reward and the trained sampled policy more than
+3, in reward and in net P&L; and on `null` the trained greedy policy executes on fewer than 1 % of
steps: `python -m benchmarks.learns`.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from benchmarks import fresh_episodes
from benchmarks.fresh_episodes import Episodes
from jules_jax import config
from jules_jax.training import backend, checkpoints, loop

CONFIG = Path(__file__).parents[1] / "configs" / "phase1_smoke.yaml"
SAMPLED, GREEDY = "trained, sampled", "trained, greedy"


def train_and_play(preset: str, seed: int, episodes: int) -> tuple[Episodes, float]:
    """Episodes of a policy trained on `preset`, and the seconds its training took."""
    with tempfile.TemporaryDirectory() as directory:
        settings = config.load(
            {
                "preset": preset,
                "seed": seed,
                "name": preset,
                "checkpoints.validation_episodes": 0,
                "runs_dir": f"{directory}/runs",
                "checkpoint_dir": f"{directory}/checkpoints",
            },
            file=CONFIG,
        )
        result = loop.train(settings)
        params = checkpoints.load_params(result.checkpoint, settings)
    other = dataclasses.replace(settings, seed=seed + 1_000_000)
    return fresh_episodes.play(other, params, episodes), result.seconds


def failures(easy: Episodes, null: Episodes) -> list[str]:
    """Each requirement that does not hold, in words."""

    def sigmas(name: str, metric: str) -> float:
        mean, error = easy.mean(name, metric)
        return mean / error

    found = {
        f"random earns {sigmas('random', 'reward'):.1f} s.e. on easy, expected at most −3": (
            sigmas("random", "reward") > -3
        ),
        **{
            f"sampled earns {sigmas(SAMPLED, metric):.1f} s.e. of {metric} on easy, expected 3": (
                sigmas(SAMPLED, metric) < 3
            )
            for metric in ("reward", "pnl/net")
        },
    }
    still = null.by_policy[GREEDY]
    orders = still["trade/orders"].sum() / still["length"].sum()
    found[f"greedy executes on {orders:.2%} of steps on null, expected below 1 %"] = orders >= 0.01
    return [sentence for sentence, fails in found.items() if fails]


def main() -> int:
    """Trains, prints both tables and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=1024)
    arguments = parser.parse_args()
    backend.use_compilation_cache()
    easy, seconds = train_and_play("easy", arguments.seed, arguments.episodes)
    null, _ = train_and_play("null", arguments.seed, arguments.episodes)
    print(f"\neasy, trained in {seconds:.0f} s\n{fresh_episodes.table(easy)}")
    print(f"\nnull\n{fresh_episodes.table(null)}\n")
    found = failures(easy, null)
    print("\n".join(found) or "it learns")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
