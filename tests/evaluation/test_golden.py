"""Golden runs: what the environment did yesterday, pinned.

Fixed seeds; the twin's discrete log (orders, fills, overrides) is pinned by its hash, thirty
statistics of twin and compiled environment by their values. A change that means to alter behaviour
re-pins them: `python -m tests.evaluation.test_golden`, and says why in its commit.
"""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jules_jax.env.record import StepRecord
from tests.evaluation.test_twin import CASES, Sweep, draw_sweep, play_sweep, replay_sweep

FILE = Path(__file__).with_name("golden.json")
LOG = (
    "request outcome forced position_before lot quantity close_quantity position trip_closed "
    "purgatory_entered escaped hard_breach locked lock_released alternation chain repeats"
).split()
SUMS = (
    "quantity close_quantity forced trip_closed purgatory_entered escaped hard_breach locked "
    "lock_released early_warning alternation chain repeats capped_by_participation capped_by_cash "
    "terminated in_purgatory reward reward_equity_change reward_action_change reward_same_action "
    "reward_drawdown reward_recovery_bonus reward_bootstrap_bonus drawdown equity"
).split()
SHARES = "cost_spread cost_temporary cost_transient cost_fees".split()


def golden_sweep(index: int) -> Sweep:
    return draw_sweep(CASES[index], seed=index, lanes=400, steps=300)


def log_hash(record: StepRecord) -> str:
    """SHA-256 of the discrete columns, in order, as little-endian int32."""
    columns = [np.asarray(getattr(record, name)).astype("<i4") for name in LOG]
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def statistics(sweep: Sweep, record: StepRecord) -> dict[str, float]:
    """Thirty numbers by name: sums over all steps, and costs as shares of capital."""
    capital = sweep.sections["account"].initial_capital.astype(np.float64)[:, None]
    sums = {name: float(np.sum(getattr(record, name), dtype=np.float64)) for name in SUMS}
    shares = {name: float(np.sum(getattr(record, name) / capital)) for name in SHARES}
    return sums | shares


def pinned() -> list[dict]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def differences(found: dict[str, float], expected: dict[str, float], tolerance: float) -> str:
    """One line for each statistic that moved; empty if none did."""
    return "\n".join(
        f"{name}: {expected[name]:.10g} pinned, {found[name]:.10g} now"
        for name in expected
        if abs(found[name] - expected[name]) > tolerance * max(abs(expected[name]), 1.0)
    )


@pytest.mark.parametrize("index", range(len(CASES)))
def test_the_twin_does_what_it_did(index):
    sweep, golden = golden_sweep(index), pinned()[index]
    record = replay_sweep(sweep)
    assert differences(statistics(sweep, record), golden["statistics"], 1e-9) == ""
    assert log_hash(record) == golden["log"]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_the_compiled_environment_does_what_it_did(index):
    sweep, golden = golden_sweep(index), pinned()[index]
    record = play_sweep(sweep)
    ended = np.asarray(record.terminated)
    live = np.cumsum(ended, axis=1) - ended == 0  # the twin is silent after a termination
    found = statistics(sweep, jax.tree.map(lambda leaf: np.where(live, leaf, 0), record))
    assert differences(found, golden["statistics"], 1e-5) == ""


def test_a_changed_statistic_is_printed():
    golden = pinned()[0]["statistics"]
    assert len(golden) == 30
    changed = golden | {"escaped": golden["escaped"] + 1}
    assert differences(changed, golden, 1e-9).startswith("escaped: ")
    assert differences(golden, golden, 1e-9) == ""


def main() -> None:
    """Pins what the twin does now, and prints what that changes."""
    before = pinned() if FILE.exists() else []
    now = []
    for index in range(len(CASES)):
        sweep = golden_sweep(index)
        record = replay_sweep(sweep)
        now.append({"log": log_hash(record), "statistics": statistics(sweep, record)})
        if index < len(before):
            print(f"case {index}:")
            print(differences(now[index]["statistics"], before[index]["statistics"], 0.0))
    FILE.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
