"""Reference policies: strategies to compare a trained one with."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jules_jax.agent.policy import Policy

SELL, HOLD, BUY = 0, 1, 2


def _no_carry(params: Any, lanes: int) -> tuple[()]:
    del params, lanes
    return ()


def random() -> Policy:
    """SELL, HOLD or BUY with equal probability."""

    def act(
        params: Any, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del params, obs, first
        draw = partial(jax.random.randint, shape=(), minval=SELL, maxval=BUY + 1)
        return carry, jax.vmap(draw)(keys)

    return Policy("random", _no_carry, act)


def flat() -> Policy:
    """HOLD, always."""

    def act(
        params: Any, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del params, keys, first
        return carry, jnp.full(obs.shape[0], HOLD, jnp.int32)

    return Policy("flat", _no_carry, act)
