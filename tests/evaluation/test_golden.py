"""Golden runs: what the environment did yesterday, pinned.

Fixed seeds; each column of the twin's discrete log (orders, fills, overrides) is pinned by its
hash, thirty statistics of twin and compiled environment by their values. A change that means to
alter behaviour re-pins them: `python -m tests.evaluation.test_golden`, and says why in its commit.
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


def log_hashes(record: StepRecord) -> dict[str, str]:
    """SHA-256 of each discrete column, as little-endian int32."""
    columns = {name: np.asarray(getattr(record, name)).astype("<i4") for name in LOG}
    return {name: hashlib.sha256(c.tobytes()).hexdigest() for name, c in columns.items()}


def moved(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Columns of the log that are not what they were."""
    return [name for name in expected if found[name] != expected[name]]


def statistics(sweep: Sweep, record: StepRecord) -> dict[str, float]:
    """Thirty numbers by name: sums over all steps, and costs as shares of capital."""
    capital = sweep.sections["account"].initial_capital.astype(np.float64)[:, None]
    sums = {name: float(np.sum(getattr(record, name), dtype=np.float64)) for name in SUMS}
    shares = {name: float(np.sum(getattr(record, name) / capital)) for name in SHARES}
    return sums | shares


def pinned() -> list[dict]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def differences(
    found: dict[str, float],
    expected: dict[str, float],
    tolerance: float,
    sizes: dict[str, float] | None = None,
) -> str:
    """One line for each statistic that moved; empty if none did.

    A sum may move by `tolerance` of itself, or a tenth of that of the sum of `sizes`, if given.
    """

    def allowed(name: str) -> float:
        size = 0.1 * sizes[name] if sizes else 0.0
        return tolerance * max(abs(expected[name]), size, 1.0)

    return "\n".join(
        f"{name}: {expected[name]:.10g} pinned, {found[name]:.10g} now"
        for name in expected
        if abs(found[name] - expected[name]) > allowed(name)
    )


@pytest.mark.parametrize("index", range(len(CASES)))
def test_the_twin_does_what_it_did(index):
    sweep, golden = golden_sweep(index), pinned()[index]
    record = replay_sweep(sweep)
    assert differences(statistics(sweep, record), golden["statistics"], 1e-9) == ""
    assert moved(log_hashes(record), golden["log"]) == []


@pytest.mark.parametrize("index", range(len(CASES)))
def test_the_compiled_environment_does_what_it_did(index):
    sweep, golden = golden_sweep(index), pinned()[index]
    record = play_sweep(sweep)
    ended = np.asarray(record.terminated)
    live = np.cumsum(ended, axis=1) - ended == 0  # the twin is silent after a termination
    record = jax.tree.map(lambda leaf: np.where(live, leaf, 0), record)
    found, sizes = statistics(sweep, record), statistics(sweep, jax.tree.map(abs, record))
    assert differences(found, golden["statistics"], 1e-5, sizes) == ""


def test_a_changed_statistic_is_printed():
    golden = pinned()[0]["statistics"]
    assert len(golden) == 30
    changed = golden | {"escaped": golden["escaped"] + 1}
    assert differences(changed, golden, 1e-9).startswith("escaped: ")
    assert differences(golden, golden, 1e-9) == ""


def test_a_changed_column_of_the_log_is_named():
    golden = pinned()[0]["log"]
    assert list(golden) == LOG
    assert moved(golden | {"lot": "other"}, golden) == ["lot"]
    assert moved(golden, golden) == []


def main() -> None:
    """Pins what the twin does now, and prints what that changes."""
    before = pinned() if FILE.exists() else []
    now = []
    for index in range(len(CASES)):
        sweep = golden_sweep(index)
        record = replay_sweep(sweep)
        now.append({"log": log_hashes(record), "statistics": statistics(sweep, record)})
        if index < len(before):
            columns = moved(now[index]["log"], before[index]["log"])
            print(f"case {index}: columns of the log that moved: {columns}")
            print(differences(now[index]["statistics"], before[index]["statistics"], 0.0))
    FILE.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
