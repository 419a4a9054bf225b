"""Episodes in one lane, one after the other: start, step, start again, as a learner takes them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jules_jax.env.observation import observe
from jules_jax.env.params import EnvParams
from jules_jax.env.staging import make_stage
from jules_jax.env.transition import EnvState, initial_state, transition
from jules_jax.market.randomness import within
from jules_jax.market.table import MarketData, read_row

NUM_ACTIONS = 3
SMALL_TABLE = 256
"""Up to this many stretches, comparing with all is faster than a binary search."""


def draw_start(key: jax.Array, market: MarketData) -> tuple[jax.Array, jax.Array]:
    """A start row, uniform over all admissible ones, and its symbol; int32 scalars.

    Where the market has shares, the stretch is drawn by them and the row uniformly within it.
    """
    bounds = market.cumulative if market.shares is None else market.shares
    total = bounds[-1].astype(jnp.uint32)
    # the bias of a remainder is below total/2³², 1e-3 at four million starts; none for shares
    bits = jax.random.bits(key, () if market.shares is None else (2,), jnp.uint32)
    ticket = ((bits if market.shares is None else bits[0]) % total).astype(jnp.int32)
    method = "compare_all" if bounds.shape[0] <= SMALL_TABLE else "scan"
    stretch = jnp.searchsorted(bounds, ticket, side="right", method=method)
    symbol, first, last = (market.episodes[stretch, column] for column in range(3))
    if market.shares is None:
        return last + 1 - (bounds[stretch] - ticket), symbol
    starts = (last - first + 1).astype(jnp.uint32)
    return first + (bits[1] % starts).astype(jnp.int32), symbol


def begin(key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
    """A fresh start, uniform over the admissible rows: observation `[12]` and state."""
    return begin_at(key, *draw_start(key, params.market), params)


def begin_at(
    key: jax.Array, start: jax.Array, symbol: jax.Array, params: EnvParams
) -> tuple[jax.Array, EnvState]:
    """A start on the row `start` of a symbol, with what the episode draws of `params.ranges`."""
    numbers = within(params.ranges, key)
    row = read_row(params.market.rows, start)
    state = initial_state(row, start, symbol, params.with_numbers(numbers))
    return observe(state, row, params), dataclasses.replace(state, numbers=numbers)


def advance(
    state: EnvState, action: int | float | jax.Array, params: EnvParams
) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
    """One step without reset: (obs, state, reward, terminated, info); info has the `record`."""
    row = read_row(params.market.rows, state.row + 1)
    state, record = transition(state, row, jnp.asarray(action), params)
    obs = observe(state, row, params)
    return obs, state, record.reward, record.terminated, {"record": record}


class Episodes:
    """What the learner trains on (`agent.rollout.Environment`); `TradingEnv` is it for gymnax.

    Importing this does not import gymnax, which takes longer than the rest of a start.
    """

    num_actions = NUM_ACTIONS

    def reset(self, key: jax.Array, params: EnvParams, /) -> tuple[jax.Array, EnvState]:
        """`begin`."""
        return begin(key, params)

    def step(
        self, key: jax.Array, state: EnvState, action: Any, params: EnvParams, /
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step; where it ends the episode, observation and state are those of a fresh start.

        Returns (obs, state, reward, terminated, truncated, info); `info` has `record`, both flags
        and `final_observation`, what the step led to.
        """
        stage = make_stage(params.market)
        final_obs, stepped, reward, terminated, info = advance(state, action, params)
        final_obs, stepped, reward = stage((final_obs, stepped, reward))
        truncated = stepped.time >= params.max_steps_in_episode
        done = terminated | truncated
        fresh_obs, fresh = stage(begin(key, params))
        state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, stepped)
        obs = jnp.where(done, fresh_obs, final_obs)
        flags = {"terminated": terminated, "truncated": truncated}
        return obs, state, reward, terminated, truncated, {
            **info, **flags, "final_observation": final_obs,
        }  # fmt: skip

    def with_time(self, state: EnvState, time: jax.Array) -> EnvState:
        """`state` as if `time` steps were done: lanes that start at different clocks."""
        return dataclasses.replace(state, time=time.astype(jnp.int32))
