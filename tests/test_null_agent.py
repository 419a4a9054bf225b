"""The negative control of benchmarks/null_agent.py: its verdict, and the control in short form."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jules_jax import config
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.comparison import Comparison
from tests.tiny import SETTINGS

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "null_agent.py"
EPISODES = 1000


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("null_agent", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def comparison_of(sampled: np.ndarray, greedy: np.ndarray) -> Comparison:
    index = np.arange(len(sampled))
    net = {"trained, sampled": {"pnl/net": sampled}, "trained, greedy": {"pnl/net": greedy}}
    return Comparison(Starts(index, index, index), net)


def test_a_mean_beyond_three_standard_errors_fails_the_control(script, monkeypatch):
    noise = np.tile([-1.0, 1.0], EPISODES // 2)  # its standard error is 1/√999 = 0.0316
    zero = np.zeros(EPISODES)
    cases = {0.094: 0, 0.096: 1, -5.0: 0}
    for mean, status in cases.items():
        played = comparison_of(noise + mean, zero)
        assert script.earning(played) == ["trained, sampled"] * status
        monkeypatch.setattr(script, "train_and_play", lambda *_, played=played: played)
        monkeypatch.setattr(script.comparison, "table", lambda _: "")
        assert script.main([]) == status
    assert script.earning(comparison_of(zero, zero)) == []
    one_path = Comparison(Starts(*[np.zeros(EPISODES, int)] * 3), played.episodes)
    assert script.earning(one_path) == list(script.TRAINED), "an error that is not known"


@pytest.mark.long
def test_an_agent_trained_without_spread_and_fees_earns_nothing_on_the_null_market(script):
    short = {
        **SETTINGS,
        "num_envs": 64,
        "n_steps": 64,
        "max_steps_in_episode": 128,
        "total_timesteps": 64 * 64 * 20,
        "sessions": 5,
        "lstm_hidden_size": 16,
        "net_arch": "16,16",
        "paths": 32,
    }
    settings = config.load({**short, **script.FREE, "simulator.preset": "null"})
    played = script.train_and_play(settings, EPISODES)
    assert not script.earning(played)
    sampled = played.episodes["trained, sampled"]
    assert sampled["trade/orders"].mean() > 1, "it trades"
    assert np.all(sampled["cost/spread"] < 1e-3) and np.all(sampled["cost/fees"] == 0)
    impact = sum(sampled[f"cost/{part}"] for part in ("temporary", "transient", "permanent"))
    assert np.all(impact > -1e-2), "positions end flat or pay for what they hold"
