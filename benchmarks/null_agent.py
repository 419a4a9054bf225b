"""What a trained agent earns where nothing can be earned: `python -m benchmarks.null_agent`.

An agent is trained on the preset `null`, whose mid price is a martingale, with spread, fees,
cooldown and penalties off: only impact stands between it and any flaw of fills, marking or data
that would pay for trading. The prints still bounce between bid and ask, as bait: filled at the
close that it saw, an agent would collect half the spread with every order. On fresh paths neither
its sampled nor its greedy policy may then earn more than 0 by more than three standard errors. The
exit status is 1 if one does. The same agent on the preset `easy` (`--preset easy`) has an edge to
find: there the check should fail.

The defaults are sized for about four minutes on two idle CPU cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import fresh_episodes
from benchmarks.fresh_episodes import Episodes
from jules_jax import config
from jules_jax.training import backend, checkpoints, loop

FREE: dict[str, Any] = {
    "fills.bid_ask_spread_bps": 0.0,
    "fills.fee_bps": 0.0,
    "fills.sell_fee_bps": 0.0,
    "market.tick": 1e-9,  # half a tick bounds the spread from below
    "account.borrow_rate": 0.0,
    "safeguards.trade_cooldown_steps": 1,
    "reward.action_change_penalty_factor": 0.0,
    "reward.same_action_penalty_factor": 0.0,
}
"""Nothing but impact is paid for trading, and every bar may be traded."""
LEARNER: dict[str, Any] = {"ppo.n_epochs": 4, "ppo.ent_coef": 0.01}
"""The learner of configs/phase1_smoke.yaml, which finds the edge of `easy`."""
TRAINED = ("trained, sampled", "trained, greedy")
ERRORS = 3.0
"""Standard errors that a mean must exceed 0 by to count as earning."""


def train_and_play(settings: config.Config, episodes: int) -> Episodes:
    """Trains as `settings` say and plays `episodes` fresh paths; leaves nothing on disk."""
    with tempfile.TemporaryDirectory() as directory:
        place = {"runs_dir": f"{directory}/runs", "checkpoint_dir": f"{directory}/checkpoints"}
        settings = config.load({**config.to_dict(settings), **place, "name": "null_agent"})
        result = loop.train(settings)
        params = checkpoints.load_params(Path(result.checkpoint), settings)
        return fresh_episodes.play(settings, params, episodes)


def earning(result: Episodes) -> list[str]:
    """The trained policies whose mean net P&L is not shown to be 0 or less, to `ERRORS`."""
    means = {name: result.mean(name, "pnl/net") for name in TRAINED}
    return [name for name, (mean, error) in means.items() if not mean <= ERRORS * error]


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 1 if a trained policy earns, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--preset", default="null", help="the simulator's preset")
    parser.add_argument("--num-envs", type=int, default=256, help="lanes")
    parser.add_argument("--updates", type=int, default=40, help="updates of 128 steps a lane")
    parser.add_argument("--episodes", type=int, default=1024, help="fresh paths to play on")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    given = parser.parse_args(argv)
    backend.use_compilation_cache()
    settings = config.load(
        {
            **FREE,
            **LEARNER,
            "simulator.preset": given.preset,
            "num_envs": given.num_envs,
            "total_timesteps": given.num_envs * given.updates * config.PPO().n_steps,
            "seed": given.seed,
        }
    )
    result = train_and_play(settings, given.episodes)
    print("", fresh_episodes.table(result), "", sep="\n")
    paid = earning(result)
    print(f"earns more than 0 by {ERRORS:g} standard errors: {', '.join(paid) or 'none'}")
    return int(bool(paid))


if __name__ == "__main__":
    sys.exit(main())
