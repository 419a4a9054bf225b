"""The phases of a training update, each compiled and timed apart, in turns with the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from benchmarks.workload import Updates, measure
from jules_jax import config
from jules_jax.agent import ppo, rollout
from jules_jax.agent.learner import batch_of


def pieces(updates: Updates) -> dict[str, Callable[[], Any]]:
    """A run of each phase on the state of `updates`, as often as one update runs it.

    Rollout; advantages; the gathers of all minibatches; gradients of all minibatches, without
    their gathers; the optimizer's steps. Metrics of the update, shuffles and schedules are in none.
    """
    settings, learner = updates.settings, updates.learner
    # copies: an update is given its state for good
    state = jax.tree.map(jnp.copy, updates.state)
    env_params, lanes = updates.env_params, jnp.arange(settings.num_envs)

    @jax.jit
    def act(params: Any, lanes_state: Any, env_params: Any) -> Any:
        return rollout.collect(
            params,
            lanes_state,
            learner.env,
            env_params,
            n_steps=settings.ppo.n_steps,
            key=jax.random.key(0),
            lane_ids=lanes,
            step_metrics=measure,
            precision=settings.network.matmul_precision,
        )

    advantages = jax.jit(lambda steps, v_next: batch_of(steps, v_next, settings.ppo))
    _, steps, v_next, _ = act(state.params, state.lanes, env_params)
    batch = advantages(steps, v_next)
    carry, count = state.lanes.carry, settings.ppo.n_epochs * settings.ppo.num_minibatches
    size = settings.num_envs // settings.ppo.num_minibatches
    order = jax.random.permutation(jax.random.key(1), lanes)
    chosen = jnp.tile(order.reshape(-1, size), (settings.ppo.n_epochs, 1))
    gather, gradient = jax.jit(_gather_all), jax.jit(_gradients, static_argnums=(3, 4, 5))
    minibatch = jax.jit(_take)((carry, batch), chosen[0])
    grads = jax.tree.map(jnp.ones_like, state.params)
    step = jax.jit(_optimize, static_argnums=(3, 4))
    precision = settings.network.matmul_precision
    return {
        "rollout": lambda: act(state.params, state.lanes, env_params),
        "advantages": lambda: advantages(steps, v_next),
        "minibatch gathers": lambda: gather((carry, batch), chosen),
        "gradients": lambda: gradient(state.params, *minibatch, settings.ppo, count, precision),
        "optimizer": lambda: step(state.params, state.opt_state, grads, settings.ppo, count),
    }


def _take(tree: tuple[Any, ppo.Batch], lanes: jax.Array) -> tuple[Any, ppo.Batch]:
    carry, batch = tree
    return (
        jax.tree.map(lambda leaf: leaf[lanes], carry),
        jax.tree.map(lambda leaf: leaf[:, lanes], batch),
    )


def _gather_all(tree: tuple[Any, ppo.Batch], chosen: jax.Array) -> Any:
    # every minibatch replaces the one before: a loop's carry is written whatever is read of it
    start = _take(tree, chosen[0])
    return lax.scan(lambda _, lanes: (_take(tree, lanes), None), start, chosen)[0]


def _gradients(
    params: Any, carry: Any, batch: ppo.Batch, settings: config.PPO, count: int, precision: str
) -> Any:
    """`count` gradients of one minibatch, each at other weights, so that none is spared."""

    def body(params: Any, _: None) -> tuple[Any, None]:
        grads = jax.grad(ppo.loss, has_aux=True)(
            params, carry, batch, settings, precision=precision
        )[0]
        return jax.tree.map(lambda p, g: p - 1e-6 * g, params, grads), None

    return lax.scan(body, params, None, count)[0]


def _optimize(params: Any, opt_state: Any, grads: Any, settings: config.PPO, count: int) -> Any:
    optimizer = ppo.optimizer(settings)

    def body(weights: tuple[Any, Any], _: None) -> tuple[Any, None]:
        params, opt_state = weights
        updates, opt_state = optimizer.update(grads, opt_state)
        updates = jax.tree.map(lambda leaf: -settings.learning_rate * leaf, updates)
        return (optax.apply_updates(params, updates), opt_state), optax.tree.norm(grads)

    return lax.scan(body, (params, opt_state), None, count)
