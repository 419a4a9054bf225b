"""Gates on arrays: a run doctored to violate one fails exactly that one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from jules_jax import config
from jules_jax.evaluation import gates
from jules_jax.evaluation.backtest import StepLog
from jules_jax.evaluation.evidence import Evidence

N, T = 64, 200
SESSION = 50
SETTINGS = config.load(
    {"max_steps_in_episode": T, "gates.reward_min": 4, "gates.reward_max": 6, "seed": 1}
)
TRAINED = {
    "train/explained_variance": np.r_[np.full(90, -1.0), np.full(10, 0.3)],
    "rollout/reward_var": np.full(100, 0.01),
}
"""Only the last ten updates count."""


def sound_log() -> StepLog:
    """Episodes that pass: in position half of the time, 5 of reward each, few penalties."""
    rng = np.random.default_rng(0)
    exposed = np.tile(np.arange(T) % 20 < 10, (N, 1))
    change = np.where(exposed, rng.normal(0.0, 0.1, (N, T)), 0.0)
    change += np.where(exposed, (5.07 - change.sum(axis=1, keepdims=True)) / 100, 0.0)
    change += np.where(exposed, rng.normal(0.0, 0.5, (N, 1)) / 100, 0.0)
    same = np.where(np.arange(T) % 40 == 5, -0.014, 0.0) + np.zeros((N, T))
    equity = 1 + np.cumsum(change / 0.07, axis=1) / 50_000
    equity_peak = np.maximum.accumulate(np.maximum(equity, 1.0), axis=1)
    return StepLog(
        played=np.ones((N, T), bool),
        reward=np.float32(change + same),
        equity_change=np.float32(change),
        action_change=np.zeros((N, T), np.float32),
        same_action=np.float32(same),
        drawdown=np.zeros((N, T), np.float32),
        gross_pnl=np.float32(change / 0.07),
        net_pnl=np.float32(change / 0.07),
        equity=np.float32(equity),
        equity_peak=np.float32(equity_peak),
        trough=np.ones((N, T), np.float32),
        exposed=exposed,
        hard_breach=np.zeros((N, T), bool),
        escaped=np.zeros((N, T), bool),
        matters=np.tile(np.arange(T) % 10 == 0, (N, 1)),
        entropy=np.full((N, T), 0.6, np.float32),
        minute=np.float32(np.tile((np.arange(T) + 17) % SESSION, (N, 1))),
    )


def totals(reward: np.ndarray, gross: np.ndarray) -> StepLog:
    """A log of half of the episodes, whose first steps hold the totals."""
    log = {field.name: np.zeros((N // 2, T)) for field in dataclasses.fields(StepLog)}
    log["played"] = np.ones((N // 2, T), bool)
    log["reward"][:, 0], log["gross_pnl"][:, 0] = reward, gross
    return StepLog(**log)


def sound(**changes: object) -> Evidence:
    """Evidence that passes every gate, but for the `changes`."""
    noise = np.tile([-1.0, 1.0], N // 4)
    nothing = np.zeros(N // 2)
    evidence = Evidence(
        sampled=sound_log(),
        cluster=np.arange(N),
        greedy=totals(noise + 5, noise),
        random=totals(noise - 50, noise),
        flat=totals(nothing, nothing),
        null=totals(noise - 50, noise),
        differing=(),
    )
    return dataclasses.replace(evidence, **changes)


def log_with(**columns: object) -> Evidence:
    """The same, but for columns of the sampled policy's log."""
    return sound(sampled=dataclasses.replace(sound_log(), **columns))


def failures(evidence: Evidence, trained: dict | None = None) -> list[str]:
    judged = gates.judge(evidence, SETTINGS, TRAINED if trained is None else trained)
    return [gate.name for gate in judged if gate.failed]


def test_a_sound_run_passes_every_gate() -> None:
    judged = gates.judge(sound(), SETTINGS, TRAINED)
    assert [gate.name for gate in judged if gate.passed is not True] == []
    assert len(judged) == len({gate.name for gate in judged}) == 17


def cells(count: int, value: object, kind: type = float) -> np.ndarray:
    """`[N, T]` zeros but for `value` on one step of the first `count` episodes."""
    values = np.zeros((N, T), kind)
    values[:count, 150] = value
    return values


def sinking(depth: float, first: int, last: int, episodes: int) -> dict[str, object]:
    """Equity `depth` below its peak from step `first` to before `last`, in position."""
    log = sound_log()
    equity, exposed = log.equity.copy(), log.exposed.copy()
    equity[:episodes, first:last] = (1 - depth) * log.equity_peak[:episodes, [first - 1]]
    exposed[:episodes, first:last] = True
    peak = np.maximum.accumulate(np.maximum(equity, np.float32(1)), axis=1)
    return {"equity": equity, "equity_peak": peak, "exposed": exposed}


def peak_reset(at: int, *, equity: float) -> dict[str, object]:
    """A peak that falls to equity, forgiving a drawdown of 3.1 % that began at step 20.

    The trough is 0.97 of the peak of 1: a recovery to 0.9991 is due its reset.
    """
    flat = np.ones((N, T), np.float32)
    path, peak, trough = flat.copy(), flat.copy(), flat.copy()
    path[0, 20:at], path[0, at:] = 0.9699, equity
    trough[0, 20:] = 0.9699
    peak[0, at:] = equity
    return {"equity": path, "equity_peak": peak, "trough": trough}


LOG = sound_log()
PENALISED = np.arange(T) % 4 == 0
VIOLATIONS = {
    "reward band": log_with(reward=LOG.reward - np.float32(2 / T)),
    "episode length": log_with(played=np.tile(np.arange(T) < T - 10, (N, 1))),
    "hard limit": log_with(hard_breach=cells(1, True, bool)),
    "entropy": log_with(entropy=np.where(LOG.matters, np.float32(0.39), np.float32(9))),
    "penalty frequency": log_with(action_change=np.where(PENALISED, -1e-4, 0.0) + 0 * LOG.reward),
    "penalty size": log_with(
        action_change=np.where(np.arange(T) % 20 == 0, -0.5, 0) + 0 * LOG.reward
    ),
    "penalty median": log_with(same_action=np.where(LOG.same_action < 0, -0.04, 0)),
    "drawdown share": log_with(
        drawdown=np.where(np.arange(T) % 20 < 3, -0.018, 0) + 0 * LOG.reward
    ),
    "prolonged drawdown": log_with(**sinking(0.035, 100, 151, episodes=1)),
    "false resets": log_with(**peak_reset(60, equity=0.998)),
    "escapes": log_with(escaped=cells(7, True, bool)),
    "Sharpe": log_with(net_pnl=LOG.net_pnl - np.float32(0.4)),
    "control: random": sound(random=totals(np.tile([-1.0, 1.0], N // 4) - 0.3, np.zeros(N // 2))),
    "control: null": sound(null=totals(np.zeros(N // 2), np.tile([-1.0, 1.0], N // 4) + 0.7)),
    "control: flat": sound(flat=totals(np.full(N // 2, 1e-7), np.zeros(N // 2))),
    "parameters": sound(differing=("fills.fee_bps",)),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_run_doctored_to_violate_a_gate_fails_exactly_that_one(name: str) -> None:
    assert failures(VIOLATIONS[name]) == [name]


def test_a_mean_above_the_band_says_recalibrate_and_below_does_not() -> None:
    gate = {high: _band(high) for high in (False, True)}
    assert gate[True].failed and "RECALIBRATE" in gate[True].advice
    assert gate[False].failed and "RECALIBRATE" not in gate[False].advice


def _band(high: bool) -> gates.Gate:
    shift = np.float32((2 if high else -2) / T)
    return gates.judge(log_with(reward=LOG.reward + shift), SETTINGS, TRAINED)[0]


def test_the_band_is_asked_for_only_where_the_config_has_one() -> None:
    settings = config.load({"max_steps_in_episode": T})
    gate = gates.judge(log_with(reward=LOG.reward + 9), settings, TRAINED)[0]
    assert gate.passed is None and not gate.failed


@pytest.mark.parametrize(
    "trained",
    [
        {},
        TRAINED | {"rollout/reward_var": np.r_[np.full(99, 0.01), 0.0]},
        TRAINED | {"train/explained_variance": np.r_[np.full(90, 0.9), np.full(10, 0.09)]},
        TRAINED | {"train/explained_variance": np.r_[np.full(99, 0.9), np.nan]},
    ],
    ids=["unknown", "rewards that do not vary", "too low at the end", "not finite"],
)
def test_a_critic_that_explains_nothing_or_has_nothing_to_explain_fails(trained: dict) -> None:
    assert failures(sound(), trained) == ["explained variance"]


def test_a_breach_and_a_long_soft_breach_are_seen_without_any_flag() -> None:
    judged = {
        g.name: g for g in gates.judge(log_with(**sinking(0.041, 90, 160, 2)), SETTINGS, TRAINED)
    }
    assert judged["hard limit"].value == judged["prolonged drawdown"].value == 2 / N
    assert judged["prolonged drawdown"].failed
    edge = {
        g.name: g for g in gates.judge(log_with(**sinking(0.035, 90, 140, 2)), SETTINGS, TRAINED)
    }
    assert edge["prolonged drawdown"].value == 0, "50 steps are not more than 50"


def resets(**columns: np.ndarray) -> int:
    log = dataclasses.replace(LOG, **columns)
    return gates.false_resets(log, soft=0.03, escape=0.03)


def test_resets_are_judged_by_equity_peak_and_trough() -> None:
    assert resets() == 0, "new peaks"
    assert resets(**peak_reset(60, equity=0.9992)) == 0, "3 % above the trough"
    assert resets(**peak_reset(60, equity=0.9985)) == 1, "2.9 % above it"
    early = peak_reset(60, equity=0.9992)
    early["equity"][0, 20:60] = early["trough"][0, 20:] = 0.975
    assert resets(**early) == 1, "never beyond the soft limit"
    lied = peak_reset(60, equity=0.9985)
    lied["trough"][0, 20:] = 0.9
    assert resets(**lied) == 1, "a recorded trough that equity never saw"
    invented = peak_reset(60, equity=0.9992)
    invented["equity_peak"][1, 100:] = 1.01
    assert resets(**invented) == 1, "a peak above any equity"
    after = peak_reset(60, equity=0.998)
    after["played"] = np.tile(np.arange(T) < 60, (N, 1))
    assert resets(**after) == 0, "steps after the end count for nothing"


def test_days_are_whole_sessions_between_two_opens() -> None:
    """Sessions open on steps 33, 83, 133 and 183, so that three are whole."""
    pnl, episode = gates.daily_pnl(dataclasses.replace(LOG, net_pnl=np.ones((N, T))))
    assert np.all(pnl == SESSION) and len(pnl) == 3 * N
    assert np.array_equal(episode, np.repeat(np.arange(N), 3))
    cut = np.tile(np.arange(T) < 190, (N, 1))
    ended = dataclasses.replace(LOG, net_pnl=np.ones((N, T)), played=cut)
    assert gates.daily_pnl(ended)[0].reshape(N, 4).tolist() == [[50, 50, 50, 7]] * N
    endless = dataclasses.replace(
        LOG, net_pnl=np.ones((N, T)), minute=np.tile(np.arange(T), (N, 1))
    )
    assert gates.daily_pnl(endless)[0].tolist() == [T] * N


def test_a_ratio_and_its_error_agree_with_a_bootstrap_over_clusters() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(200), 3)
    below = rng.uniform(0.5, 1.5, 600)
    above = 2 * below + np.repeat(rng.normal(0, 1, 200), 3)
    found = gates.ratio(above, below, cluster)
    assert found.value == pytest.approx(above.sum() / below.sum())
    sums = np.stack([np.bincount(cluster, above), np.bincount(cluster, below)])
    drawn = sums[:, rng.integers(0, 200, (4000, 200))].sum(axis=2)
    assert found.error == pytest.approx(np.std(drawn[0] / drawn[1]), rel=0.05)


def test_one_cluster_has_no_error_and_shows_no_daily_profit() -> None:
    assert math.isnan(gates.ratio(np.ones(4), 1.0, np.zeros(4)).error)
    assert "Sharpe" in failures(sound(cluster=np.zeros(N, int)))


def test_a_greedy_policy_that_earns_less_than_half_is_warned_of() -> None:
    noise = np.zeros(N // 2)
    assert gates.warnings(sound()) == []
    (warning,) = gates.warnings(sound(greedy=totals(noise + 2.4, noise)))
    assert "2.40" in warning and "greedy" in warning


def test_every_gate_says_what_its_failure_means_and_what_to_try() -> None:
    for gate in gates.judge(sound(), SETTINGS, TRAINED):
        assert len(gate.advice) > 40 and "\n" not in gate.advice


def test_the_table_shows_threshold_value_error_and_verdict() -> None:
    text = gates.table(gates.judge(VIOLATIONS["escapes"], SETTINGS, TRAINED))
    (line,) = [line for line in text.splitlines() if line.startswith("escapes")]
    assert "< 10% of episodes" in line and "10.938 ± 3.932 %" in line
    assert "FAIL" in line and "7 of 64 episodes" in line
