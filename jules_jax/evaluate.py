"""`python -m jules_jax.evaluate`: what a trained agent earns on prices it has not seen."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Literal

from jules_jax import config, errors, flags
from jules_jax.training.run_directory import CONFIG_FILE

MOST_EPISODES = 100_000
SUMMARY = (
    "Plays whole episodes of a checkpoint's policy, greedy and sampled, beside a random and a flat "
    "one: on fresh simulated paths, or on the held-out sessions of a file. Parameters come from "
    "the checkpoint's own config; flags change them."
)
OPTIONS = {
    "checkpoint": "checkpoint directory, such as checkpoints/NAME (required)",
    "split": "validation or test: which held-out sessions of a file (default validation)",
    "episodes": "episodes to play (default 1024)",
    "audit": "directory for a replayable record of the first 8 episodes, step by step",
}


def _split(text: str | None) -> Literal["validation", "test"]:
    match text:
        case None | "validation":
            return "validation"
        case "test":
            return "test"
    raise errors.InputError(f"--split is {text!r}, expected validation or test")


def main() -> None:
    """The command."""
    parsed = flags.parse(
        sys.argv[1:],
        program="jules_jax.evaluate",
        summary=SUMMARY,
        options=OPTIONS,
        base=lambda extras: config.read_yaml(_config_file(extras["checkpoint"])),
    )
    split = _split(parsed.extras["split"])
    if parsed.extras["split"] and not parsed.config.market.data:
        raise errors.InputError("--split needs bars of a file, and this run is on simulated paths")
    episodes = flags.whole_number(parsed.extras, "episodes", default=1024, most=MOST_EPISODES)
    began = time.monotonic()
    # these import JAX, which --help must not wait for
    from jules_jax.evaluation import comparison
    from jules_jax.training import backend, checkpoints, run_history

    backend.use_compilation_cache()
    place = Path(parsed.extras["checkpoint"])
    path, params = checkpoints.newest_params(place, parsed.config, print)
    held_out = comparison.hold_out(parsed.config, split=split, episodes=episodes)
    print(f"checkpoint  {path}")
    print("\n".join(held_out.notes))
    if split == "test":
        run_history.opened_test_split(parsed.config, path)
    result = comparison.compare(parsed.config, params, held_out)
    print(f"\n{comparison.table(result)}\n")
    if parsed.extras["audit"]:
        for file in comparison.audit(parsed.config, params, held_out, Path(parsed.extras["audit"])):
            print(f"wrote {file}; check it with: python -m jules_jax.audit replay {file}")
    print(f"{time.monotonic() - began:.0f} s, start-up included")


def _config_file(checkpoint: str | None) -> Path:
    """The resolved config that was saved with a checkpoint."""
    if checkpoint is None:
        raise errors.InputError("--checkpoint is missing, expected a checkpoint directory")
    directory = Path(checkpoint)
    if not directory.is_dir():
        raise errors.InputError(f"{directory}: no such checkpoint directory")
    for place in (directory, directory.parent):
        if (place / CONFIG_FILE).is_file():
            return place / CONFIG_FILE
    if members := sorted(path.parent.name for path in directory.glob(f"*/{CONFIG_FILE}")):
        raise errors.InputError(
            f"{directory} is a population's, expected one of its members: {', '.join(members)}"
        )
    raise errors.InputError(
        f"{directory}: no {CONFIG_FILE} there, expected one beside a checkpoint"
    )


if __name__ == "__main__":
    errors.run_command(main)
