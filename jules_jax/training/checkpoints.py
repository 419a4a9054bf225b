"""Checkpoints: the whole training state, its config and its versions, saved with orbax.

`state` holds everything that changes in training, `params` the weights again on their own, so that
evaluation needs neither the optimizer nor the lanes. The table of market data is never stored: it
is rebuilt from the key and the generation in `meta`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.learner import TrainState
from jules_jax.errors import InputError

SCHEMA_VERSION = 1
PACKAGES = ("jules-jax", "jax", "jaxlib", "optax", "orbax-checkpoint", "numpy")


def save(directory: Path, state: TrainState, *, generation: int, settings: config.Config) -> Path:
    """Writes the checkpoint of `state` under `directory`, named by its update; returns its path."""
    step = int(np.ravel(state.update)[0])  # a population's members are all at the same
    meta = {
        "schema_version": SCHEMA_VERSION,
        "update": step,
        "generation": generation,
        "config": config.to_dict(settings),
        "devices": jax.device_count(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    with ocp.CheckpointManager(directory.resolve()) as manager:
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                params=ocp.args.StandardSave(state.params),
                meta=ocp.args.JsonSave(meta),
            ),
        )
        manager.wait_until_finished()
    (directory / "config.yaml").write_text(config.to_yaml(settings), encoding="utf-8")
    return directory / str(step)


def find(directory: Path) -> Path:
    """The newest checkpoint at `directory`: itself, or the highest-numbered one in it.

    Raises `InputError` where there is none.
    """
    if (directory / "meta" / "metadata").is_file():
        return directory
    if not directory.is_dir():
        raise InputError(f"{directory}: no such checkpoint directory")
    steps = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
    if not steps:
        raise InputError(f"{directory}: no checkpoint found there, expected a numbered directory")
    return directory / str(max(steps))


def load_meta(step_path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint found by `find`."""
    try:
        meta: dict[str, Any] = json.loads((step_path / "meta" / "metadata").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{step_path}: not a readable jules_jax checkpoint ({error})") from None
    if meta.get("schema_version") != SCHEMA_VERSION:
        found = meta.get("schema_version")
        raise InputError(f"{step_path}: schema version {found}, expected {SCHEMA_VERSION}")
    return meta


def load_params(step_path: Path, settings: config.Config) -> network.Params:
    """The weights of a checkpoint.

    Raises `InputError` where its schema is another one, or its network not the config's.
    """
    saved, asked = load_meta(step_path)["config"]["network"], config.to_dict(settings)["network"]
    for name in ("lstm_hidden_size", "net_arch"):
        if saved[name] != asked[name]:
            raise InputError(
                f"{step_path}: its network.{name} is {saved[name]}, and {asked[name]} was asked for"
            )
    abstract = jax.eval_shape(lambda key: network.init(key, settings.network), jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract
    )
    try:
        with ocp.CheckpointManager(step_path.parent.resolve()) as manager:
            restored = manager.restore(
                int(step_path.name),
                args=ocp.args.Composite(params=ocp.args.StandardRestore(target)),
            )
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{step_path}: weights cannot be restored ({reason})") from None
    params: network.Params = restored["params"]
    return params
