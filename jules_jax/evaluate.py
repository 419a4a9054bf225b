"""`python -m jules_jax.evaluate`: what a trained agent earns on prices it has not seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jules_jax import config, errors, flags

if TYPE_CHECKING:
    from jules_jax.training.examination import Asked

MOST_EPISODES = 100_000
SUMMARY = (
    "Plays a checkpoint's policy, greedy and sampled, beside reference policies, on fresh paths or "
    "through held-out sessions of a file: what it nets, how sure that is, what it costs. "
    "Exit status 1 where the float64 twin disagrees. Parameters come from the checkpoint's own "
    "config; flags change them."
)
OPTIONS = {
    "checkpoint": "checkpoint directory, such as checkpoints/NAME (required)",
    "split": "validation or test: which held-out sessions of a file (default validation)",
    "episodes": "episodes on simulated paths, each on its own (default 1024)",
    "seeds": "on recorded bars, draws of what policies leave to chance: an account of each symbol "
    "in each (default 8)",
    "out": "directory for report.html, report.json and pictures",
    "audit": "keep so many episodes (200 at least), or that share, step by step in OUT/audit",
    "walk_forward": "train and test on rolling windows of sessions, such as "
    "train=60d,test=20d,step=20d; takes --config and --data where there is no checkpoint",
    "init_from": "checkpoint that every walk-forward fold begins with the weights of",
}
SWITCHES = {
    "replay_all": "re-derive every episode in the float64 twin, not 200",
    "stress": "a flash crash, a gap, an outage, wild, dear and thin markets",
    "capacity": "from $10,000 to $1,000,000,000 of capital",
    "sensitivity": "to spread, impact, cooldown and latency",
}
EXTRAS = ("stress", "capacity", "sensitivity")
OF_ONE = ("split", "episodes", "audit", *EXTRAS)
"""What is of one checkpoint, and of no walk-forward."""
PRINT = partial(print, flush=True)  # at once, in a pipe, too


def _split(text: str | None) -> Literal["validation", "test"]:
    if text not in (None, "validation", "test"):
        raise errors.InputError(f"--split is {text!r}, expected validation or test")
    return "test" if text == "test" else "validation"


def main() -> None:
    """The command."""
    parsed = flags.parse(
        sys.argv[1:],
        program="jules_jax.evaluate",
        summary=SUMMARY,
        options=OPTIONS,
        switches=SWITCHES,
        base=_base,
    )
    extras = parsed.extras
    split = _split(extras["split"])
    walks, recorded = bool(extras["walk_forward"]), bool(parsed.config.market.data)
    idle: tuple[str, ...] = OF_ONE if walks else ("init_from",)
    flags.refuse(extras, idle, "--walk-forward" if walks else "an evaluation of one checkpoint")
    idle = ("episodes",) if recorded else ("split", "seeds")
    flags.refuse(extras, idle, "recorded bars" if recorded else "simulated paths")
    episodes = flags.whole_number(extras, "episodes", default=1024, most=MOST_EPISODES)
    draws = flags.whole_number(extras, "seeds", default=8, most=1000)
    audited = flags.number_or_share(extras, "audit", most=MOST_EPISODES)
    if audited and not extras["out"]:
        raise errors.InputError("--audit needs --out, the directory that it is kept in")
    began = time.monotonic()
    from jules_jax.training import examination  # imports JAX, which --help must not wait for

    asked = examination.Asked(
        split=split,
        episodes=episodes,
        draws=draws,
        out=Path(extras["out"]) if extras["out"] else None,
        audited=audited,
        replay_all=extras["replay_all"],
        extras=tuple(name for name in EXTRAS if extras[name]),
    )
    agrees = (_walk_forward if extras["walk_forward"] else _examine)(parsed, asked)
    print(f"{time.monotonic() - began:.0f} s, start-up included")
    raise SystemExit(0 if agrees else 1)


def _examine(parsed: flags.Parsed, asked: Asked) -> bool:
    from jules_jax.training import backend, checkpoints, examination

    backend.use_compilation_cache()
    path, params = checkpoints.newest_params(
        Path(parsed.extras["checkpoint"]), parsed.config, PRINT
    )
    PRINT(f"checkpoint  {path}")
    return examination.examine(parsed.config, path, params, asked, PRINT)


def _walk_forward(parsed: flags.Parsed, asked: Asked) -> bool:
    """Trains and tests every fold; the checkpoint gives the config, not the weights."""
    from jules_jax.training import walk_forward

    return walk_forward.command(parsed.config, parsed.extras, asked, PRINT)


def _base(extras: Mapping[str, Any]) -> config.Layer:
    """The config of the checkpoint; a walk-forward may do without one."""
    if extras["walk_forward"] and extras["checkpoint"] is None:
        return {}
    return config.read_yaml(config.saved_with(extras["checkpoint"]))


if __name__ == "__main__":
    errors.run_command(main)
