"""`python -m jules_jax.train`: train a recurrent agent on simulated paths or on your own bars."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jules_jax import config, errors, flags
from jules_jax.training import run_directory, stopping

SUMMARY = (
    "Trains an LSTM-PPO trading agent: market, fills, risk and learner are one compiled program. "
    "Without --data it trains on simulated paths; --config configs/phase1_smoke.yaml is the "
    "two-minute version."
)
SWITCHES = {
    "dry_run": "check config and data, say what would be trained, and exit",
    "enforce": "judge the run by its gates at the end, and exit with status 1 where one fails",
    "allow_config_change": "go on with another total_timesteps, or other settings of checkpoints",
}
OPTIONS = {
    "resume": "go on with a run from its newest checkpoint: its name, its directory, or latest",
    "init_from": "begin with the weights of a checkpoint, such as checkpoints/NAME",
    "profile": "directory for a jax.profiler trace of updates 2 and 3",
    "replay": "run a diverged update again: the directory that the run named",
    "coordinator": "HOST:PORT of process 0, where several processes train one run",
    "num_processes": "how many there are; Slurm, MPI and Kubernetes tell it themselves",
    "process_id": "which of them this one is, from 0",
    "phases": "configs to train one after the other, from the last one's weights, while gates pass",
}

PLACES = ("runs_dir", "checkpoint_dir")
"""Parameters that say where a run is to be found."""


def main() -> None:
    """The command."""
    parsed = flags.parse(
        sys.argv[1:],
        program="jules_jax.train",
        summary=SUMMARY,
        switches=SWITCHES,
        options=OPTIONS,
        base=_base,
        implied={"resume": run_directory.LATEST},
    )
    extras = parsed.extras
    if extras["phases"]:
        from jules_jax.training import phases

        raise SystemExit(phases.command(extras["phases"], parsed.given))
    began = time.monotonic()
    # these import JAX, which --help must not wait for
    from jules_jax.training import backend, processes

    backend.use_compilation_cache()
    with processes.joined(processes.cluster(extras), parsed.config):
        passed = _train(parsed, began)
    if extras["enforce"] and not passed:
        raise SystemExit(1)


def _train(parsed: flags.Parsed, began: float) -> bool:
    """Trains, or only looks at a run; whether it passed its gates, if it was judged.

    began: when the command did, by the monotonic clock.
    """
    from jules_jax.training import loop, preparation, processes, summary

    settings, extras = parsed.config, parsed.extras
    print(f"imports     {time.monotonic() - began:.1f} s", flush=True)
    if extras["dry_run"]:
        claim = run_directory.claim if extras["resume"] is None else run_directory.reopen
        processes.own(processes.first_decides(lambda: claim(settings))).release()
        preparation.plan(settings, print)
        return True
    if extras["replay"]:
        print(loop.replay(Path(extras["replay"]), settings))
        return True
    enforced = stopping.unfinished("it was not judged") if extras["enforce"] else nullcontext()
    with enforced:
        result = loop.train(
            settings,
            profile=Path(extras["profile"]) if extras["profile"] else None,
            init_from=Path(extras["init_from"]) if extras["init_from"] else None,
            resume=extras["resume"] is not None,
            allow_config_change=extras["allow_config_change"],
        )
    judged = extras["enforce"] or settings.gates.at_end
    return summary.conclude(result, judged=judged, profile=extras["profile"])


def _base(extras: Mapping[str, Any]) -> config.Layer:
    """What ranks below the flags: the configuration of what is resumed or run again."""
    others = [name for name in (*SWITCHES, *OPTIONS, "config") if extras[name] and name != "phases"]
    if extras["phases"] and others:
        raise errors.InputError(f"--phases goes with parameters only, found --{others[0]}")
    if extras["replay"] and extras["init_from"]:
        raise errors.InputError("--replay goes on from what the run kept, and not with --init-from")
    if extras["resume"] is not None:
        places = {name: extras[name] for name in PLACES if name in extras}
        return run_directory.saved_settings(extras["resume"], **places)
    if extras["replay"] is None:
        return {}
    return config.read_yaml(str(Path(extras["replay"]) / config.CONFIG_FILE))


if __name__ == "__main__":
    errors.run_command(main)
