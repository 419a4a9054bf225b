"""`python -m jules_jax.gates RUN`: whether a trained policy may be trusted, gate by gate."""

from __future__ import annotations

import sys
from pathlib import Path

from jules_jax import config, errors, flags

PROGRAM = "jules_jax.gates RUN"
SUMMARY = (
    "Judges a run, or a checkpoint, by the gates of its config: fresh episodes of the sampled "
    "policy beside the greedy one and controls. Prints a table and what a failure means, and "
    "writes gates.json to the run's directory. Without --enforce it only reports: exit status 0."
)
COMMON = tuple(key for key in config.PARAMETERS if key.startswith("gates."))
RUNS_DIR = str(config.PARAMETERS["runs_dir"].default)
SWITCHES = {"enforce": "exit with status 1 where a gate fails"}


def main() -> None:
    """The command."""
    words = sys.argv[1:]
    place = words.pop(0) if words and not words[0].startswith("-") else None
    parsed = flags.parse(
        words,
        program=PROGRAM,
        summary=SUMMARY,
        switches=SWITCHES,
        common=COMMON,
        base=lambda extras: _settings(place, extras.get("runs_dir", RUNS_DIR)),
    )
    # these import JAX, which --help must not wait for
    from jules_jax.training import acceptance, backend

    backend.use_compilation_cache()
    backend.configure(parsed.config)
    checkpoint = _checkpoint(place, parsed.config.runs_dir)
    verdict = acceptance.judge(checkpoint, parsed.config, say=print)
    print(verdict.text(), flush=True)
    verdict.write()
    if verdict.directory is None:
        print("no run's directory was found, so that gates.json was not written")
    if parsed.extras["enforce"] and not verdict.passed:
        raise SystemExit(1)


def _settings(place: str | None, runs_dir: str) -> config.Layer:
    return config.read_yaml(config.saved_with(str(_checkpoint(place, runs_dir))))


def _checkpoint(place: str | None, runs_dir: str) -> Path:
    if place is None:
        raise errors.InputError("a RUN is missing, expected runs/NAME or checkpoints/NAME")
    from jules_jax.training import acceptance

    return acceptance.find(place, runs_dir)


if __name__ == "__main__":
    errors.run_command(main)
