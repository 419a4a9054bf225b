"""Evidence end to end: what is played for the gates, and doctored policies and environments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.config import Config
from jules_jax.env.params import EnvParams, make_params
from jules_jax.evaluation import evidence, gates, reference_policies
from jules_jax.evaluation.backtest import StepLog
from jules_jax.evaluation.evidence import CONTROL_SHARDS, SHARDS, Evidence
from tests.tiny import SETTINGS as TINY
from tests.tiny import write_bars

pytestmark = pytest.mark.usefixtures("quick_compilation")

SETTINGS = config.load(
    {
        **TINY,
        "max_steps_in_episode": 96,
        "sessions": 6,
        "bars_per_session": 40,
        "gates.episodes": 250,
        "gates.reward_min": 4,
        "gates.reward_max": 6,
        "soft_dd_pct": 0.001,  # within reach of a few minutes
        "hard_dd_pct": 0.9,
    }
)
EPISODES = 256
TRAINED = {"train/explained_variance": [0.5], "rollout/reward_var": [1.0]}
CHANCE = reference_policies.at_random()
EVENLY = jnp.asarray(reference_policies.EVENLY, jnp.float32)


@pytest.fixture(scope="module")
def random() -> Evidence:
    """Everything, of orders at random in the place of the trained policy."""
    return evidence.gather(SETTINGS, EVENLY, sampled=CHANCE, greedy=CHANCE)


def failures(found: Evidence, settings: Config = SETTINGS) -> set[str]:
    return {gate.name for gate in gates.judge(found, settings, TRAINED) if gate.failed}


def as_trained(log: StepLog, found: Evidence) -> Evidence:
    return dataclasses.replace(found, sampled=log, cluster=found.cluster[: len(log.reward)])


def test_episodes_are_full_and_each_on_a_path_of_its_own(random: Evidence) -> None:
    assert random.sampled.reward.shape == (EPISODES, 96)
    assert random.flat.reward.shape == (EPISODES * CONTROL_SHARDS // SHARDS, 96)
    assert np.array_equal(random.cluster, np.arange(EPISODES))
    moves = random.sampled.gross_pnl.round(6)
    assert len(np.unique(moves, axis=0)) == EPISODES


def test_controls_share_the_prices_and_random_orders_are_those_of_the_sampled(
    random: Evidence,
) -> None:
    """The same policy, prices and draws: bit for bit."""
    few = len(random.random.reward)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[:few], b), random.sampled, random.random
    )
    assert not np.array_equal(random.null.reward, random.random.reward)


def test_random_and_flat_in_the_place_of_a_trained_policy_fail(random: Evidence) -> None:
    assert {"reward band", "Sharpe"} <= failures(random)
    assert failures(as_trained(random.flat, random)) == {"reward band", "entropy", "Sharpe"}


def test_controls_of_a_sound_environment_pass(random: Evidence) -> None:
    of_others = {"control: random", "control: null", "control: flat", "parameters", "false resets"}
    assert not failures(random) & of_others
    assert np.any(random.sampled.escaped), "there were resets to judge"
    np.testing.assert_allclose(random.sampled.entropy, np.log(3), rtol=1e-6)


def test_entropy_is_read_only_where_the_action_can_have_an_effect(random: Evidence) -> None:
    """Nine decisions after an order are refused whatever they are, so no position opens there."""
    matters, before = random.sampled.matters, random.sampled.exposed[:, :-1]
    traded = before != random.sampled.exposed[:, 1:]
    assert 0.05 < matters.mean() < 0.5
    forced = random.sampled.minute[:, 1:] >= 35
    assert np.all(matters[:, 1:][traded & ~forced])


@pytest.fixture(scope="module")
def play():
    """`play(doctored parameters)`: the first shards of the same episodes, other parameters."""
    key = jax.random.fold_in(jax.random.key(SETTINGS.seed), evidence.GATES_KEY)
    key_market, key_play, _ = jax.random.split(key, 3)
    ground = evidence._simulated(SETTINGS, evidence._mesh(), key_market)
    player = evidence._Player(ground, key_play, CHANCE, EVENLY, CONTROL_SHARDS)
    params = ground.params(0)
    program = evidence._compile(player, params)

    def doctored(**changes: float) -> StepLog:
        sections: dict[str, dict[str, jax.Array]] = {}
        for key, value in changes.items():
            section, _, name = key.partition("__")
            old = getattr(getattr(params, section), name)
            sections.setdefault(section, {})[name] = jax.device_put(
                jnp.float32(value), old.sharding
            )
        new = {s: dataclasses.replace(getattr(params, s), **v) for s, v in sections.items()}
        environment: EnvParams = dataclasses.replace(params, **new)
        log: StepLog = program(*evidence._inputs(player, environment, 0))
        return jax.device_get(log)

    return doctored


def test_what_is_logged_is_what_a_backtest_sums(random: Evidence, play) -> None:
    log = play()
    few = len(log.reward)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:few]), log, random.sampled)


def test_an_environment_that_forgives_drawdowns_fails_false_resets(random: Evidence, play) -> None:
    log = play(safeguards__purgatory_escape_threshold_pct=1e-4)
    assert "false resets" not in failures(as_trained(play(), random))
    assert "false resets" in failures(as_trained(log, random))


def test_an_environment_that_breaches_fails_the_hard_limit(random: Evidence, play) -> None:
    assert "hard limit" not in failures(random)
    log = play(safeguards__hard_dd_pct=0.002)
    assert "hard limit" in failures(as_trained(log, random))


def test_an_environment_without_costs_fails_the_control_of_random_orders(
    random: Evidence, play
) -> None:
    free = play(
        fills__bid_ask_spread_bps=0.0,
        fills__fee_bps=0.0,
        fills__sell_fee_bps=0.0,
        reward__action_change_penalty_factor=0.0,
        reward__same_action_penalty_factor=0.0,
        reward__drawdown_weight_end=0.0,
    )
    found = dataclasses.replace(random, random=free)
    assert failures(found) - failures(random) == {"control: random"}


def test_heavy_penalties_fail_their_gates(random: Evidence, play) -> None:
    dear = {"penalty size"} & failures(
        as_trained(play(reward__action_change_penalty_factor=500.0), random)
    )
    assert dear and "penalty size" not in failures(random)
    deep = failures(as_trained(play(reward__drawdown_weight_end=1e9), random))
    assert "drawdown share" in deep


def test_a_parameter_that_runs_with_another_value_is_named() -> None:
    running = make_params(SETTINGS, None)
    assert evidence.differing(running, SETTINGS) == ()
    other = dataclasses.replace(
        SETTINGS,
        fills=dataclasses.replace(SETTINGS.fills, fee_bps=0.0),
        reward=dataclasses.replace(SETTINGS.reward, thrash_window=5),
    )
    assert evidence.differing(running, other) == ("fills.fee_bps", "reward.thrash_window")
    early = dataclasses.replace(running, progress=jnp.float32(0.5))
    assert evidence.differing(early, SETTINGS) == ("progress",)


@pytest.mark.long
def test_recorded_bars_are_judged_on_their_validation_sessions(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "XYZ.csv", sessions=24)
    hours = {"market.calendar": "regular", "market.session_close": "10:30"}  # of 60 bars, none empty
    dear = {"fills.fee_bps": 20, "gates.episodes": 64}  # 16 short episodes at random show a loss
    recorded = config.load({**TINY, **hours, **dear, "market.data": str(file)})
    found = evidence.gather(recorded, EVENLY, sampled=CHANCE, greedy=CHANCE)
    assert found.sampled.reward.shape == (64, 32)
    assert 1 < len(np.unique(found.cluster)) < 64, "played again and again"
    assert "validation split" in found.notes[0]
    assert np.all(found.flat.reward == 0) and found.differing == ()
    assert not failures(found, recorded) & {"control: random", "control: flat", "false resets"}
    assert len(gates.daily_pnl(found.sampled)[0]) == 64, "no session of 60 bars fits an episode"
