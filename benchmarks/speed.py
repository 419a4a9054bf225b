"""Speed on this machine: `make bench`. Medians of interleaved runs; every ratio is from one run."""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment

from jules_jax import config
from jules_jax.agent.learner import Learner
from jules_jax.env.metrics import step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.trading_env import TradingEnv
from jules_jax.market.feed import SimulatedFeed
from jules_jax.training import loop

ORIGINAL_ENVIRONMENT = 1_400
"""Steps/s of the original environment alone, one thread (1,300 to 1,500)."""


def random_steps(
    env: TradingEnv, step: Callable[..., Any], params: EnvParams, lanes: int, length: int
) -> Callable[[], Any]:
    """A compiled run of `length` steps of a uniformly random policy in all lanes."""

    @jax.jit
    def run(key: jax.Array, state: Any, params: EnvParams) -> Any:
        def body(carry: tuple[Any, jax.Array], t: jax.Array) -> tuple[Any, None]:
            state, total = carry
            key_action, key_step = jax.random.split(jax.random.fold_in(key, t))
            action = jax.random.randint(key_action, (lanes,), 0, 3)
            keys = jax.random.split(key_step, lanes)
            obs, state, reward, *_ = jax.vmap(step, in_axes=(0, 0, 0, None))(
                keys, state, action, params
            )
            return (state, total + reward + obs.sum(axis=1)), None

        return jax.lax.scan(body, (state, jnp.zeros(lanes)), jnp.arange(length))[0]

    keys = jax.random.split(jax.random.key(0), lanes)
    _, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    return lambda: jax.block_until_ready(run(jax.random.key(1), state, params))


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each run, after one to compile, taken in turns."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def training_update(settings: config.Config, env: TradingEnv, params: EnvParams) -> Any:
    """A compiled training update that keeps its own state."""
    learner = Learner(env, settings, step_metrics=lambda info, *_: step_metrics(info["record"]))
    held = {"state": learner.init(jax.random.key(0), params)}

    def run() -> None:
        held["state"], metrics = learner.update(held["state"], params)
        jax.block_until_ready(metrics)

    return run


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lanes", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    loop.use_compilation_cache()
    settings = config.load({"num_envs": arguments.lanes})
    smoke = config.load(file="configs/phase1_smoke.yaml")
    feed = SimulatedFeed(settings)
    env = TradingEnv(settings)
    params = make_params(settings, feed.resident(jax.random.key(0), 0))
    one_epoch = dataclasses.replace(smoke, ppo=dataclasses.replace(smoke.ppo, n_epochs=1))
    base_step = lambda *args: environment.Environment.step.__wrapped__(env, *args)  # noqa: E731
    length = 100
    runs = {
        "market": lambda: jax.block_until_ready(feed.generation(jax.random.key(2), 1)),
        "environment": random_steps(env, env.step, params, arguments.lanes, length),
        "environment, gymnax's own step": random_steps(
            env, base_step, params, arguments.lanes, length
        ),
        "training, smoke (4 epochs)": training_update(smoke, env, params),
        "training, smoke with 1 epoch": training_update(one_epoch, env, params),
    }
    work = {
        "market": feed.generation_rows,
        "environment": arguments.lanes * length,
        "environment, gymnax's own step": arguments.lanes * length,
        "training, smoke (4 epochs)": smoke.num_envs * smoke.ppo.n_steps,
        "training, smoke with 1 epoch": smoke.num_envs * smoke.ppo.n_steps,
    }
    seconds = interleaved(runs, arguments.repeats)
    print(f"{platform.machine()}, {len(jax.devices())} × {jax.devices()[0].device_kind}, ", end="")
    print(f"{jax.local_device_count()} device(s), jax {jax.__version__}")
    for name, value in seconds.items():
        unit = "bars/s" if name == "market" else "steps/s"
        print(f"  {name:<34}{work[name] / value:>14,.0f} {unit}")
    speed = work["environment"] / seconds["environment"]
    print(f"  environment over the original's 1,300–1,500: {speed / ORIGINAL_ENVIRONMENT:,.0f} ×")


if __name__ == "__main__":
    main()
