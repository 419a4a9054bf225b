"""Provenance: what a checkpoint says of the run it is of, and what may be another when it goes on.

A run goes on bit for bit with the same config, bars, code and devices. Config and bars are checked,
as they would make it another run; of code, versions and devices one is told.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jules_jax import config
from jules_jax.errors import InputError

PACKAGES = ("jules-jax", "jax", "jaxlib", "optax", "orbax-checkpoint", "numpy")
ROOT = Path(__file__).resolve().parents[2]

ALWAYS_FREE = (
    "name",
    "runs_dir",
    "checkpoint_dir",
    "devices",
    "population.member_devices",
    "memory_limit_gib",
    "market.data",
    "market.symbols",
    "network.lstm_impl",
)
"""Keys that may differ when a run goes on: where things lie and what computes them. The bars are
compared by content."""

ON_REQUEST = ("total_timesteps", "checkpoints.", "monitor.", "gates.")
"""Keys, and sections of keys, that may with `--allow-config-change`: how long, and what is told."""


@functools.cache
def revision() -> str:
    """The commit that runs, with `-dirty` after it where files differ, else the version."""
    if (ROOT / ".git").exists():
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return version("jules-jax")
        if done.returncode == 0:
            return done.stdout.strip()
    return version("jules-jax")


def of(settings: config.Config, devices: int) -> dict[str, Any]:
    """Config, devices, versions and code revision, as JSON has them."""
    return {
        "config": config.to_dict(settings),
        "devices": devices,
        "versions": {name: version(name) for name in PACKAGES},
        "revision": revision(),
    }


def changes(meta: Mapping[str, Any], settings: config.Config) -> dict[str, tuple[Any, Any]]:
    """Keys of the config that are not as the checkpoint has them: what it has, what is asked."""
    found = config.differences(config.load(meta["config"]), settings)
    return {key: values for key, values in found.items() if key not in ALWAYS_FREE}


def require_same_config(
    meta: Mapping[str, Any], settings: config.Config, *, allow: bool
) -> dict[str, tuple[Any, Any]]:
    """`changes`, all of them allowed; raises `InputError` naming one that is not."""
    found = changes(meta, settings)
    for key, (saved, asked) in found.items():
        free = any(key == name or (name[-1] == "." and key.startswith(name)) for name in ON_REQUEST)
        if not free:
            raise InputError(
                f"{key} is {saved!r} in the run and {asked!r} was asked for, expected the same: a "
                "run goes on as it is, and --init-from starts another one with its weights"
            )
        if not allow:
            raise InputError(
                f"{key} is {saved!r} in the run and {asked!r} was asked for, expected the same, or "
                "--allow-config-change"
            )
    return found


def require_same_data(meta: Mapping[str, Any], data: Mapping[str, str]) -> None:
    """Raises `InputError` naming a file of bars that is not as the run read it."""
    saved = meta["data"]
    for name in sorted(saved.keys() | data.keys()):
        if saved.get(name) != data.get(name):
            how = "is new" if name not in saved else "is gone" if name not in data else "changed"
            raise InputError(
                f"market.data: {name} {how} since the run began, expected the same bars"
            )


def notes(meta: Mapping[str, Any], devices: int) -> list[str]:
    """Sentences on what is another now, and what that means for the run."""
    found, now = [], {name: version(name) for name in PACKAGES}
    if meta["devices"] != devices:
        found.append(
            f"{devices} devices now and {meta['devices']} before: results agree to rounding, not "
            "bit for bit"
        )
    other = [
        f"{k} {v} before and {now.get(k)} now"
        for k, v in meta["versions"].items()
        if v != now.get(k)
    ]
    if meta["revision"] != revision():
        other.append(f"code {meta['revision']} before and {revision()} now")
    if other:
        found.append(f"{', '.join(other)}: results need not be those of an uninterrupted run")
    return found
