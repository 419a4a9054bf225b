"""`python -m jules_jax.calibrate`: the value of one setting at which agents earn what is asked."""

from __future__ import annotations

import itertools
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jules_jax import config, errors, flags

SUMMARY = (
    "Trains agents at several values of one setting, plays them on paths of their own, and chooses "
    "the value at which the mean episode reward is in the middle of a band, or penalties have a "
    "share of what is earned and lost. Exit status 1 where no value does. "
    "--config configs/phase1_smoke.yaml --target-band 4 6 is what the report did by hand."
)
OPTIONS = {
    "target_band": "LOW HIGH: mean episode reward in the middle, ± a quarter of the width",
    "target_share": "penalties over absolute equity changes, such as 0.05, ± a fifth of it",
    "key": "what to turn: account.position_size_pct (default), reward.reward_scaling, a penalty "
    "factor, another number, or a factor of several: edge, drawdown_weight",
    "between": "LOW HIGH: values to try (default: half the present one to twice it)",
    "points": "values in the grid (default 5)",
    "seeds": "agents trained at every value, at least 3 (default 3)",
    "confirmations": "values tried after the grid, on new seeds, until one holds; 0 picks from the "
    "grid (default 3)",
    "episodes": "episodes that every agent plays (default 1024)",
    "write": "YAML file for the choice, which may be that of --config (default: calibrated.yaml in "
    "the directory of the run)",
}
PAIRS = ("--target-band", "--between")
"""Flags with two numbers."""
LEAST_SEEDS = 3
MOST_CONFIRMATIONS = 9


def main() -> None:
    """The command."""
    given: dict[str, Any] = {}

    def base(extras: Mapping[str, Any]) -> config.Layer:
        given.update(extras)
        return {}

    parsed = flags.parse(
        _with_pairs(sys.argv[1:]),
        program="jules_jax.calibrate",
        summary=SUMMARY,
        options=OPTIONS,
        base=base,
    )
    extras, began = parsed.extras, time.monotonic()
    agents = flags.whole_number(extras, "seeds", default=3, most=999)
    if agents < LEAST_SEEDS:
        raise errors.InputError(f"--seeds is {agents}, expected at least {LEAST_SEEDS}")
    at_most = {"most": MOST_CONFIRMATIONS, "default": 3}
    none = extras["confirmations"] == "0"
    options: dict[str, Any] = {
        "band": _numbers(extras, "target_band", 2),
        "share": _numbers(extras, "target_share", 1),
        "key": extras["key"] or "account.position_size_pct",
        "between": _numbers(extras, "between", 2),
        "points": flags.whole_number(extras, "points", default=5, most=100),
        "agents": agents,
        "confirmations": 0 if none else flags.whole_number(extras, "confirmations", **at_most),
        "episodes": flags.whole_number(extras, "episodes", default=1024, most=100_000),
        "write": Path(extras["write"]) if extras["write"] else None,
        "command": shlex.join(["python", "-m", "jules_jax.calibrate", *sys.argv[1:]]),
    }
    # these import JAX, which --help must not wait for
    from jules_jax.training import backend
    from jules_jax.training.calibration import run

    backend.use_compilation_cache()
    backend.configure(parsed.config)
    file = Path(given["config"]) if given["config"] else None
    reached = run.calibrate(run.Request(parsed.config, file, **options))
    print(f"{time.monotonic() - began:,.0f} s, start-up included")
    if not reached:
        raise SystemExit(1)


def _with_pairs(argv: Sequence[str]) -> list[str]:
    """The words, two numbers after a flag of `PAIRS` made one."""
    words: list[str] = []
    for word in argv:
        if len(words) > 1 and words[-2] in PAIRS and not word.startswith("--"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def _numbers(extras: Mapping[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    """The option `name` as `count` finite numbers, ascending; None where it was not given."""
    text = extras[name]
    if text is None:
        return None
    try:
        numbers = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    bounds = (-float("inf"), *numbers, float("inf"))
    rising = all(a < b for a, b in itertools.pairwise(bounds))
    if len(numbers) != count or not rising:
        flag, wanted = name.replace("_", "-"), "a number"
        if count == 2:
            wanted = "two numbers, the smaller one first, such as 4 6"
        raise errors.InputError(f"--{flag} is {text!r}, expected {wanted}")
    return numbers


if __name__ == "__main__":
    errors.run_command(main)
