"""The report's constants are the running defaults; every deviation is listed with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jules_jax import config
from jules_jax.config import Config

REPOSITORY = Path(__file__).resolve().parents[1]
SEED = REPOSITORY / ".." / "shared" / "seed.txt"

REPORT = {
    "reward_scaling": 0.07,
    "recovery_bonus_amount": 0.01,
    "bootstrap_bonus_amount": 0.01,
    "lambda_start": 1500.0,
    "lambda_end": 7500.0,
    "action_change_penalty_factor": 5.0,
    "same_action_penalty_factor": 0.2,
    "trade_cooldown_steps": 10,
    "soft_dd_pct": 0.03,
    "hard_dd_pct": 0.04,
    "terminate_on_hard": False,
    "purgatory_escape_threshold_pct": 0.03,
    "policy": "RecurrentPPO",
    "net_arch": (128, 128),
    "lstm_hidden_size": 64,
    "activation_fn": "ReLU",
    "learning_rate": 0.0005,
    "n_epochs": 10,
    "clip_range": 0.3,
    "ent_coef": 0.03,
    "batch_size": 128,
    "n_steps": 128,
    "lookback_window": 50,
    "episode_length": 1000,
    "action_space": "Discrete(3)",
    "observation_space": "Box(12,)",
    "bid_ask_spread_bps": 5.0,
    "impact_decay": 0.7,
    "temporary_impact_decay": 0.5,
    "enable_bid_ask_bounce": True,
}
"""The report's section "current system configuration", name by name."""

PLACES = {
    "reward_scaling": "reward.reward_scaling",
    "recovery_bonus_amount": "reward.recovery_bonus_amount",
    "bootstrap_bonus_amount": "reward.bootstrap_bonus_amount",
    "lambda_start": "reward.drawdown_weight_start",
    "lambda_end": "reward.drawdown_weight_end",
    "action_change_penalty_factor": "reward.action_change_penalty_factor",
    "same_action_penalty_factor": "reward.same_action_penalty_factor",
    "trade_cooldown_steps": "safeguards.trade_cooldown_steps",
    "soft_dd_pct": "safeguards.soft_dd_pct",
    "hard_dd_pct": "safeguards.hard_dd_pct",
    "terminate_on_hard": "safeguards.terminate_on_hard",
    "purgatory_escape_threshold_pct": "safeguards.purgatory_escape_threshold_pct",
    "net_arch": "network.net_arch",
    "lstm_hidden_size": "network.lstm_hidden_size",
    "learning_rate": "ppo.learning_rate",
    "n_epochs": "ppo.n_epochs",
    "clip_range": "ppo.clip_range",
    "ent_coef": "ppo.ent_coef",
    "batch_size": "batch_size",
    "n_steps": "ppo.n_steps",
    "lookback_window": "features.lookback_window",
    "episode_length": "max_steps_in_episode",
    "bid_ask_spread_bps": "fills.bid_ask_spread_bps",
    "impact_decay": "fills.impact_decay",
    "temporary_impact_decay": "fills.temporary_impact_decay",
    "enable_bid_ask_bounce": "simulator.enable_bid_ask_bounce",
}
"""Where each of them is in the config: the path of an attribute of `Config`."""

NOT_PARAMETERS = {
    "policy": "the one agent there is",
    "activation_fn": "part of the network, tested with it",
    "action_space": "part of the environment, tested with it",
    "observation_space": "part of the environment, tested with it",
}

DEVIATIONS: dict[str, dict[str, str]] = {
    "defaults": {
        "batch_size": "derived, num_envs · n_steps / num_minibatches: 65,536 for 2,048 lanes in 4",
    },
    "phase1_smoke.yaml": {
        "batch_size": "derived: 12,288 for 384 lanes in 4 minibatches",
        "n_epochs": "4 instead of 10, so that a CPU is done in about two minutes",
        "ent_coef": "0.01 instead of 0.03, so that a run this short becomes decisive",
    },
    "phase1_report.yaml": {},
}
"""Which of the report's values a config does not have, and why."""


def running(profile: str) -> Config:
    return Config() if profile == "defaults" else config.load(file=REPOSITORY / "configs" / profile)


def value_at(tree: Config, path: str) -> Any:
    value: Any = tree
    for name in path.split("."):
        value = getattr(value, name)
    return value


def read_section(text: str) -> dict[str, Any]:
    """`name: value   # comment` lines between the section's heading and the next chapter's."""
    start = text.index("CURRENT SYSTEM CONFIGURATION")
    section = text[start : text.index("PERFORMANCE METRICS", start)]
    pairs = (line.split("#")[0].partition(":") for line in section.splitlines())
    return {name.strip(): read_value(value.strip()) for name, _, value in pairs if value.strip()}


def read_value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("["):
        return tuple(int(item) for item in text.strip("[]").split(","))
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize("profile", DEVIATIONS)
def test_every_number_of_the_report_is_the_running_one_except_the_listed(profile):
    tree = running(profile)
    different = {name for name, path in PLACES.items() if value_at(tree, path) != REPORT[name]}
    assert different == set(DEVIATIONS[profile])


def test_every_name_of_the_report_has_a_place_or_a_reason_for_none():
    assert set(REPORT) == set(PLACES) | set(NOT_PARAMETERS)
    assert not set(PLACES) & set(NOT_PARAMETERS)


def test_the_table_is_the_report_s():
    if not SEED.exists():
        pytest.skip("../shared/seed.txt, the report, is not beside the checkout")
    found = read_section(SEED.read_text(encoding="utf-8", errors="replace"))
    assert found == REPORT


def test_the_derived_deviations_have_the_values_their_reasons_state():
    assert running("defaults").batch_size == 65_536
    assert running("phase1_smoke.yaml").batch_size == 12_288
