"""What a policy learned with, against what it is judged by and what its run was asked for."""

from __future__ import annotations

import pytest

from jules_jax import config
from jules_jax.training import conformity
from tests.tiny import SETTINGS

MOVING = config.load(
    {
        **SETTINGS,  # 4 updates
        "schedules": {
            "ppo.ent_coef": {"linear": [0.03, 0.0]},
            "fills.bid_ask_spread_bps": {"linear": [1, 4]},
        },
        "reward.drawdown_weight_start": 1000.0,
        "reward.drawdown_weight_end": 4000.0,
        "reward.drawdown_schedule": 1.0,
    }
)


def row_of(update: int, **other: float) -> dict[str, float]:
    """A row of metrics as a run of `MOVING` logs it, by hand; progress is (update − 1) / 3."""
    moved = (update - 1) / 3
    return {
        "update": update,
        "train/learning_rate": MOVING.ppo.learning_rate,
        "train/ent_coef": 0.03 * (1 - moved),
        "train/clip_range": MOVING.ppo.clip_range,
        "risk/drawdown_weight": 1000 + 3000 * moved,
        "schedule/ppo.ent_coef": 0.03 * (1 - moved),
        "schedule/fills.bid_ask_spread_bps": 1 + 3 * moved,
        **other,
    }


@pytest.mark.parametrize("update", [1, 2, 4])
def test_schedules_are_expected_where_they_were_at_the_checkpoint_s_update(update):
    assert conformity.unlike_asked(MOVING, [row_of(1), row_of(update)]) == []


@pytest.mark.parametrize(
    ("metric", "key"),
    [
        ("train/learning_rate", "ppo.learning_rate"),
        ("train/ent_coef", "ppo.ent_coef"),
        ("train/clip_range", "ppo.clip_range"),
        ("risk/drawdown_weight", "reward.drawdown_weight"),
        ("schedule/fills.bid_ask_spread_bps", "fills.bid_ask_spread_bps"),
    ],
)
def test_a_running_value_that_is_another_is_named(metric, key):
    row = row_of(2)
    row[metric] *= 1.01
    assert conformity.unlike_asked(MOVING, [row]) == [key]


def test_what_moves_within_an_update_and_what_is_not_logged_has_no_verdict():
    decaying = config.load({**SETTINGS, "learning_rate_end": 0.0})
    row = row_of(2) | {"train/learning_rate": 1.0, "train/ent_coef": decaying.ppo.ent_coef}
    row["risk/drawdown_weight"] = None
    assert conformity.unlike_asked(decaying, [row]) == []
    assert conformity.unlike_asked(decaying, []) == []


@pytest.mark.parametrize("key", ["gamma", "gae_lambda", "n_epochs", "fee_bps", "lstm_hidden_size"])
def test_any_number_of_learning_or_of_the_environment_that_is_another_is_named(key):
    value = {"gamma": "0.5", "gae_lambda": "0.1", "n_epochs": "7", "fee_bps": "9"}.get(key, "16")
    judged_by = config.load({**SETTINGS, key: value})
    (found,) = conformity.changed(judged_by, config.load(SETTINGS))
    assert found.endswith(f".{key}")
    longer = config.load({**SETTINGS, "total_timesteps": "4096", "seed": "9"})
    assert conformity.changed(longer, config.load(SETTINGS)) == []
