"""The Gymnasium bridges: the same episodes under Gymnasium's contract."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import warnings

import gymnasium
import gymnax
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from jules_jax import config
from jules_jax.env import gymnasium_bridge
from jules_jax.env.gymnasium_bridge import TradingGymnasiumEnv, TradingGymnasiumVectorEnv
from jules_jax.env.record import Outcome, StepRecord
from jules_jax.env.trading_env import TradingEnv
from tests.tiny import SETTINGS

LANES, STEPS = 4, 80
FRAGILE = SETTINGS | {
    "soft_dd_pct": "0.0002",
    "hard_dd_pct": "0.0004",
    "terminate_on_hard": "true",
}
"""A few dollars lost end an episode: some of its 32-step episodes terminate, others truncate."""


@pytest.fixture(scope="module")
def settings():
    return config.load(FRAGILE)


@pytest.fixture(scope="module")
def params(settings):
    return TradingEnv(settings).default_params


@pytest.fixture(scope="module")
def actions():
    return np.random.default_rng(0).integers(0, 3, (STEPS, LANES))


def close(a, b):
    """Whether two infos are equal to float32 rounding, whatever number types they use.

    A program for many lanes may round the last bit differently from one for a single lane.
    """
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[name], b[name]) for name in a)
    if np.asarray(a).dtype != object:
        return np.allclose(a, b, rtol=1e-6, atol=1e-6)
    return all(
        x is y or x == y if isinstance(x, str | None) else close(x, y)
        for x, y in zip(a, b, strict=True)
    )


def test_the_environment_passes_gymnasiums_checker(params):
    gymnasium_bridge.register_gymnasium()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("JulesTrading-v0", params=params).unwrapped)


def test_spaces_are_twelve_float32_entries_and_three_actions(params):
    env = TradingGymnasiumEnv(params=params)
    assert env.observation_space == gymnasium.spaces.Box(-5, 5, (12,), np.float32)
    assert env.action_space == gymnasium.spaces.Discrete(3)
    vector = TradingGymnasiumVectorEnv(LANES, params=params)
    assert vector.observation_space.shape == (LANES, 12)
    assert vector.action_space == gymnasium.spaces.MultiDiscrete([3] * LANES)


def test_an_episode_is_that_of_the_compiled_environment(params, actions):
    env, compiled = TradingGymnasiumEnv(params=params), TradingEnv()
    obs, _ = env.reset(seed=7)
    key = jax.random.fold_in(jax.random.key(7), 0)
    expected, state = compiled.reset(key, params)
    np.testing.assert_array_equal(obs, expected)
    for action in actions[:, 0]:
        obs, reward, terminated, truncated, info = env.step(action)
        _, state, *expected, rest = compiled.step(key, state, int(action), params)
        np.testing.assert_array_equal(obs, rest["final_observation"])
        assert (reward, terminated, truncated) == tuple(np.asarray(x).item() for x in expected)
        assert info["equity"] == float(rest["record"].equity)
        if terminated or truncated:
            return
    pytest.fail("the episode has no end")


def test_the_last_step_returns_the_last_observation_and_the_next_needs_a_reset(params):
    env = TradingGymnasiumEnv(params=params)
    with pytest.raises(gymnasium.error.ResetNeeded, match="expected reset"):
        env.step(1)
    first, _ = env.reset(seed=1)
    for _ in range(32):
        obs, _, terminated, truncated, info = env.step(1)
    assert (terminated, truncated, info["time"]) == (False, True, 32)
    row = int(info["row"])
    market = np.asarray(params.market.rows)[row, -8:]
    np.testing.assert_array_equal(obs[:8], np.clip(market, -5, 5))  # the bar of the last step
    assert not np.array_equal(obs, first)
    with pytest.raises(gymnasium.error.ResetNeeded, match="expected reset"):
        env.step(1)


def test_info_is_plain_numbers_of_the_whole_record_and_the_outcomes_name(params):
    env = TradingGymnasiumEnv(params=params)
    env.reset(seed=3)
    *_, info = env.step(2)
    assert set(info) == {field.name for field in dataclasses.fields(StepRecord)}
    assert info.pop("outcome") in Outcome.__members__
    assert {type(value) for value in info.values()} == {bool, int, float}
    assert math.isclose(info["equity"] - 1, info["net_pnl"] / 50_000, abs_tol=1e-7)


def test_the_vector_environment_is_gymnasiums_own_vector_of_single_ones(params, actions):
    vector = TradingGymnasiumVectorEnv(LANES, params=params)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    reference = SyncVectorEnv(
        [lambda: TradingGymnasiumEnv(params=params)] * LANES,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    ends = np.zeros(2, int)
    np.testing.assert_array_equal(vector.reset(seed=11)[0], reference.reset(seed=11)[0])
    for action in actions:
        *found, info = vector.step(action)
        *expected, expected_info = reference.step(action)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        assert close(info, expected_info)
        ends += [found[2].sum(), found[3].sum()]
    assert ends.min() > 0, "both kinds of end were to be compared"


def test_the_same_seed_gives_the_same_episodes_and_another_seed_others(params):
    env, again = (TradingGymnasiumVectorEnv(LANES, params=params) for _ in range(2))
    first, second = env.reset(seed=5)[0], env.reset()[0]
    np.testing.assert_array_equal(first, again.reset(seed=5)[0])
    np.testing.assert_array_equal(second, again.reset()[0])
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, env.reset(seed=500)[0])
    unseeded = [TradingGymnasiumVectorEnv(LANES, params=params).reset()[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_names_can_be_registered_twice_and_make_the_environment(settings):
    for _ in range(2):
        gymnasium_bridge.register_gymnax()
        gymnasium_bridge.register_gymnasium()
    env, made = gymnax.make("JulesTrading-v0", config=settings)
    assert isinstance(env, TradingEnv)
    assert made.max_steps_in_episode == 32
    vector = gymnasium.make_vec("JulesTrading-v0", num_envs=LANES, config=settings)
    assert isinstance(vector.unwrapped, TradingGymnasiumVectorEnv)
    assert vector.reset(seed=0)[0].shape == (LANES, 12)


def test_without_gymnasium_one_sentence_says_so():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "from jules_jax import errors\n"
        "errors.run_command(lambda: __import__('jules_jax.env.gymnasium_bridge'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: gymnasium is missing")
    assert len(done.stderr.splitlines()) == 1


def test_stable_baselines3_trains_on_it(params):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    env = TradingGymnasiumEnv(params=params)
    model = sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(total_timesteps=128)
    assert model.num_timesteps == 128
