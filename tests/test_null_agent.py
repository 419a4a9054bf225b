"""The negative control of benchmarks/null_agent.py: its verdict, and the control in short form."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import null_agent
from benchmarks.fresh_episodes import Episodes
from jules_jax import config
from tests.tiny import SETTINGS

EPISODES = 1000


def episodes_of(sampled: np.ndarray, greedy: np.ndarray) -> Episodes:
    """Episodes of such net P&L, a path each; what else the table tells of them is 0."""
    rest = ("reward", "pnl/gross", "trade/orders", "max_drawdown", "risk/hard_breaches")
    zeros = dict.fromkeys(rest, np.zeros(len(sampled)))
    net = {"trained, sampled": sampled, "trained, greedy": greedy}
    by_policy = {name: {"pnl/net": values, **zeros} for name, values in net.items()}
    return Episodes(np.arange(len(sampled)), by_policy)


def test_a_mean_beyond_three_standard_errors_fails_the_control(monkeypatch, capsys):
    noise = np.tile([-1.0, 1.0], EPISODES // 2)  # its standard error is 1/√999 = 0.0316
    zero = np.zeros(EPISODES)
    cases = {0.094: 0, 0.096: 1, -5.0: 0}
    for mean, status in cases.items():
        played = episodes_of(noise + mean, zero)
        assert null_agent.earning(played) == ["trained, sampled"] * status
        monkeypatch.setattr(null_agent, "train_and_play", lambda *_, played=played: played)
        assert null_agent.main([]) == status
        assert f"{mean:.2f} ± 0.03" in capsys.readouterr().out
    assert null_agent.earning(episodes_of(zero, zero)) == []
    one_path = Episodes(np.zeros(EPISODES, int), played.by_policy)
    assert null_agent.earning(one_path) == list(null_agent.TRAINED), "an error that is not known"


@pytest.mark.long
def test_an_agent_trained_without_spread_and_fees_earns_nothing_on_the_null_market():
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
    settings = config.load({**short, **null_agent.FREE, "simulator.preset": "null"})
    played = null_agent.train_and_play(settings, EPISODES)
    assert not null_agent.earning(played)
    sampled = played.by_policy["trained, sampled"]
    assert sampled["trade/orders"].mean() > 1, "it trades"
    assert np.all(sampled["cost/spread"] < 1e-3) and np.all(sampled["cost/fees"] == 0)
    impact = sum(sampled[f"cost/{part}"] for part in ("temporary", "transient", "permanent"))
    assert np.all(impact > -1e-2), "positions end flat or pay for what they hold"
