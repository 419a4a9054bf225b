"""The training loop: a Python `for` over one compiled, donated update."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.learner import Learner, TrainState
from jules_jax.env.metrics import step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.trading_env import TradingEnv
from jules_jax.training import checkpoints, registry, run_directory
from jules_jax.training.market import Market
from jules_jax.training.monitor import Monitor

LEARNER_KEY = 1
"""Folded into the seed's key for the learner's draws."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    name: str
    run_dir: Path
    checkpoint: Path
    scalars: dict[str, float]
    seconds: float


def use_compilation_cache() -> Path:
    """Keeps compiled programs in the user's cache, or where JAX_COMPILATION_CACHE_DIR says."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or home / "jules_jax" / "xla")
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return path


def describe(settings: config.Config, market: Market) -> str:
    """What is about to be trained, in a few lines."""
    ppo, data = settings.ppo, market.data
    devices = jax.devices()[: settings.devices or None]
    starts, rows = int(data.cumulative[-1]), data.rows
    shapes = jax.eval_shape(lambda key: network.init(key, settings.network), jax.random.key(0))
    source = settings.market.data or f"simulated paths, preset {settings.simulator.preset}"
    lines = [
        f"devices     {len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
        f"market      {source}",
        *(f"            {note}" for note in market.notes),
        f"            {rows.shape[0]:,} bars on the device ({rows.nbytes / 2**20:,.0f} MiB), "
        f"{starts:,} places to start an episode",
        f"training    {settings.num_envs:,} lanes × {ppo.n_steps} steps × "
        f"{settings.num_updates:,} updates = "
        f"{settings.num_envs * ppo.n_steps * settings.num_updates:,} steps",
        f"            {ppo.n_epochs} epochs of {ppo.num_minibatches} minibatches, batch_size "
        f"{settings.batch_size:,} steps; learning rate {ppo.learning_rate:g}, "
        f"entropy {ppo.ent_coef:g}",
        f"network     {network.num_parameters(shapes):,} parameters "
        f"(2 × LSTM({settings.network.lstm_hidden_size}) + {list(settings.network.net_arch)})",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Prepared:
    """Everything that the first update needs, compiled."""

    market: Market
    learner: Learner
    params: EnvParams
    state: TrainState


def _prepare(settings: config.Config, say: Callable[[str], None]) -> _Prepared:
    began = time.monotonic()
    market = Market(settings)
    learner = Learner(TradingEnv(settings), settings, step_metrics=_step_metrics)
    say(describe(settings, market))
    market_seconds = time.monotonic() - began

    params = make_params(settings, learner.replicate(market.data), progress=0.0)
    key = jax.random.fold_in(jax.random.key(settings.seed), LEARNER_KEY)
    state = learner.init(key, params)
    began = time.monotonic()
    memory = learner.compile(state, params)
    say(
        f"memory      about {(memory + market.data.rows.nbytes) / 2**20:,.0f} MiB\n"
        f"start-up    market {market_seconds:.1f} s, compilation {time.monotonic() - began:.1f} s"
    )
    return _Prepared(market, learner, params, state)


def train(settings: config.Config, *, say: Callable[[str], None] = print) -> Result:
    """Trains, writes the run directory and the checkpoint, and returns where they are.

    What goes wrong before the first update leaves nothing behind.
    """
    run = run_directory.claim(settings)
    try:
        prepared = _prepare(settings, say)
        (run.path / run_directory.CONFIG_FILE).write_text(config.to_yaml(settings), "utf-8")
        registry.append(
            run.path.parent,
            "started",
            run.name,
            config_hash=registry.config_hash(config.to_dict(settings)),
            seed=settings.seed,
            data=settings.market.data or f"preset {settings.simulator.preset}",
        )
    except BaseException:
        run.release()
        raise
    say(f"run         {run.path}\n")
    began, outcome, scalars = time.monotonic(), "failed", {}
    try:
        with Monitor(run.path, settings, settings.num_updates) as monitor:
            state = _updates(prepared, settings.num_updates, monitor)
        seconds, scalars = time.monotonic() - began, monitor.scalars
        checkpoint = checkpoints.save(
            run.checkpoints, state, generation=prepared.market.generation, settings=settings
        )
        outcome = "finished"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        registry.append(run.path.parent, outcome, run.name)
    return Result(run.name, run.path, checkpoint, scalars, seconds)


def _step_metrics(info: dict[str, Any], action: jax.Array, logits: jax.Array) -> Any:
    del action, logits
    return step_metrics(info["record"])


def _updates(prepared: _Prepared, updates: int, monitor: Monitor) -> TrainState:
    """All updates; the metrics of one are fetched once the next is under way."""
    market, learner = prepared.market, prepared.learner
    params, state = prepared.params, prepared.state
    pending: dict[str, jax.Array] | None = None
    for update in range(updates):
        if market.refresh(update):
            params = dataclasses.replace(params, market=learner.replicate(market.data))
        progress = jnp.float32(update / max(updates - 1, 1))
        params = dataclasses.replace(params, progress=progress)
        state, metrics = learner.update(state, params)
        if pending is not None:
            monitor.log(update, _fetch(pending))
        pending = metrics
    if pending is not None:
        monitor.log(updates, _fetch(pending))
    return state


def _fetch(metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    fetched: dict[str, np.ndarray] = jax.device_get(metrics)
    return fetched
