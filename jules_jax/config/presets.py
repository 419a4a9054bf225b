"""Presets of the simulator."""

from __future__ import annotations

from typing import Any

_EASY: dict[str, Any] = {
    "noise_bp": 3.0,
    "innovation_dof": 8.0,
    "mispricing": "ou",
    "mispricing_sd_bp": 18.0,
    "reversion_strength": 0.0,
    "momentum_strength": 0.0,
    "day_volatility_sd": 0.36,
    "hour_volatility_sd": 0.20,
    "minute_volatility_sd": 0.22,
    "jumps_per_session": 0.15,
    "jump_scale": 5.0,
    "overnight_ratio": 0.70,
}
_DEFAULT = _EASY | {
    "noise_bp": 8.0,
    "innovation_dof": 10.0,
    "mispricing_sd_bp": 0.0,
    "reversion_strength": 0.014,
    "momentum_strength": 0.012,
    "day_volatility_sd": 0.28,
    "hour_volatility_sd": 0.28,
    "minute_volatility_sd": 0.22,
    "jump_scale": 4.0,
    "overnight_ratio": 0.54,
}
PRESETS: dict[str, dict[str, Any]] = {
    "easy": _EASY,
    "null": _EASY | {"mispricing": "martingale"},
    "default": _DEFAULT,
    "hard": _DEFAULT | {"reversion_strength": 0.009, "momentum_strength": 0.008},
    "stress": _DEFAULT | {"noise_bp": 14.0, "jumps_per_session": 0.5, "jump_scale": 6.0},
}
"""Presets of the simulator: values that replace the defaults; a file or a flag overrides them.

All presets set the same keys, so that choosing another one leaves nothing of the last behind.
"""
