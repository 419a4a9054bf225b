"""Proximal policy optimisation: advantages, and the clipped loss over whole sequences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jules_jax import config
from jules_jax.agent import lstm, moments, network
from jules_jax.env.params import register_section

register_section(config.PPO)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """What the loss reads of a rollout, `[T, N]` each (obs `[T, N, O]`)."""

    obs: jax.Array
    first: jax.Array
    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array


def gae(
    reward: jax.Array,
    value: jax.Array,
    v_next: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Generalised advantage estimates `[T, N]` (Schulman et al. 2016, eq. 16), all inputs `[T, N]`.

    `v_next[t]` is the value of the state that step t led to, whether or not the episode was cut
    there. A terminal state is worth nothing, and governs where a step is both terminated and
    truncated; after either the sum over later steps stops.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, v_next) - value
    decay = gamma * gae_lambda * (1.0 - (terminated | truncated))

    def body(
        advantage: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        delta_t, decay_t = step
        advantage = delta_t + decay_t * advantage
        return advantage, advantage

    return lax.scan(body, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=8)[1]


def loss(
    params: network.Params,
    carry: lstm.Carry,
    batch: Batch,
    settings: config.PPO,
    *,
    axis_name: str | None = None,
    precision: str = "default",
    sequence: network.Recurrence | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """PPO's clipped loss (Schulman et al. 2017, eq. 7 and 9) of a minibatch, and its statistics.

    `carry` `[N, 2, H]` is the one its lanes had at the rollout's start. Means are over this
    device's lanes: the caller averages loss and statistics over devices. Only
    the advantages' moments are taken over `axis_name` here, since they enter nonlinearly. The
    value loss is a plain mean squared error (of standardised values and targets, if they are).
    Statistics have Stable-Baselines3's definitions;
    `ratio_deviation` is max|ratio − 1|: on the first minibatch of an update it is rounding error,
    unless the replay does not reproduce the rollout.
    """
    _, logits, value = network.apply_sequence(
        params,
        carry,
        batch.obs,
        batch.first,
        precision=precision,
        remat=settings.remat,
        sequence=sequence,
    )
    log_probs = jax.nn.log_softmax(logits)
    log_ratio = log_prob_of(log_probs, batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    mean, variance = moments.over_devices(batch.advantage, axis_name)
    advantage = (batch.advantage - mean) / (jnp.sqrt(variance) + 1e-8)
    clipped = jnp.clip(ratio, 1.0 - settings.clip_range, 1.0 + settings.clip_range)

    policy_loss = -jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))
    scale = 1.0 if params.targets is None else lax.stop_gradient(params.targets.sd)
    value_loss = jnp.mean(jnp.square((value - batch.target) / scale))
    entropy_loss = jnp.mean(jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))
    total = policy_loss + settings.ent_coef * entropy_loss + settings.vf_coef * value_loss
    deviation = jnp.abs(ratio - 1.0)
    stats = {
        "loss": total,
        "policy_gradient_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_loss": entropy_loss,
        "approx_kl": jnp.mean(ratio - 1.0 - log_ratio),
        "clip_fraction": jnp.mean(deviation > settings.clip_range),
        "ratio_deviation": jnp.max(deviation),
    }
    return total, lax.stop_gradient(stats)


def optimizer(settings: config.PPO) -> optax.GradientTransformation:
    """Gradients clipped by their global norm, then Adam's direction, without the step size."""
    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.scale_by_adam(eps=settings.adam_eps),
    )


def at(settings: config.PPO, share: jax.Array) -> config.PPO:
    """The settings at `share` in [0, 1] of training: step size and entropy weight.

    Each moves linearly to its `…_end`; it is constant where that is negative.
    """

    def scheduled(start: Any, end: Any) -> Any:
        return jnp.where(end < 0, start, start + (end - start) * share)

    return replace(
        settings,
        learning_rate=scheduled(settings.learning_rate, settings.learning_rate_end),
        ent_coef=scheduled(settings.ent_coef, settings.ent_coef_end),
    )


def log_prob_of(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """The log-probability of each action: log_probs `[..., A]`, action `[...]` int32 → `[...]`."""
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
