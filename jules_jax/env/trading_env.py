"""`TradingEnv`: the market, fills, account, safeguards and reward as a gymnax 1.0 environment."""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from jules_jax.config import Config
from jules_jax.env.observation import NUM_OBSERVATIONS, OBSERVATION_LIMIT, observe
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.staging import make_stage
from jules_jax.env.transition import EnvState, initial_state, transition
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


class TradingEnv(environment.Environment[EnvState, EnvParams]):
    """Intraday trading of one symbol with one-lot orders SELL, HOLD, BUY.

    Follows gymnax 1.0: `reset(key, params) -> (obs, state)` and `step(key, state, action, params)
    -> (obs, state, reward, terminated, truncated, info)` with automatic reset; `info` holds
    `record` (a `StepRecord`) and `final_observation`, the true last one. Market data travel in
    `params`, never on the instance.
    """

    def __init__(self, config: Config | None = None) -> None:
        """`config` is used by `default_params` only."""
        super().__init__()
        self._config = Config() if config is None else config

    @cached_property
    def default_params(self) -> EnvParams:
        """Parameters with a first generation of simulated paths (built eagerly, once)."""
        from jules_jax.market.feed import SimulatedFeed

        with jax.ensure_compile_time_eval():
            market = SimulatedFeed(self._config).resident(jax.random.key(self._config.seed), 0)
            return make_params(self._config, market)

    def step_env(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One step without reset: (obs, state, reward, terminated, info)."""
        del key  # an episode is a function of its start and its actions
        row = read_row(params.market.rows, state.row + 1)
        state, record = transition(state, row, jnp.asarray(action), params)
        obs = observe(state, row, params)
        return obs, state, record.reward, record.terminated, {"record": record}

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """A fresh start, uniform over the admissible rows."""
        start, symbol = draw_start(key, params.market)
        row = read_row(params.market.rows, start)
        state = initial_state(row, start, symbol, params)
        return observe(state, row, params), state

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams | None = None,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, jax.Array, dict[Any, Any]]:
        """One step with automatic reset: gymnax's contract, with fewer draws and selects."""
        if params is None:
            params = self.default_params
        stage = make_stage(params.market)
        final_obs, stepped, reward, terminated, info = self.step_env(key, state, action, params)
        final_obs, stepped, reward = stage((final_obs, stepped, reward))
        truncated = self.is_truncated(stepped, params)
        done = terminated | truncated
        fresh_obs, fresh = stage(self.reset_env(key, params))
        state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, stepped)
        obs = jnp.where(done, fresh_obs, final_obs)
        flags = {"terminated": terminated, "truncated": truncated}
        return obs, state, reward, terminated, truncated, {
            **info, **flags, "final_observation": final_obs,
        }  # fmt: skip

    def with_time(self, state: EnvState, time: jax.Array) -> EnvState:
        """`state` as if `time` steps were done: lanes that start at different clocks."""
        return dataclasses.replace(state, time=time.astype(jnp.int32))

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "JulesTrading-v0"

    @property
    def num_actions(self) -> int:
        """SELL, HOLD, BUY."""
        return NUM_ACTIONS

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Discrete(3): 0 SELL, 1 HOLD, 2 BUY."""
        return spaces.Discrete(NUM_ACTIONS)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Box of 12 float32 entries in [−5, 5]."""
        limit = OBSERVATION_LIMIT
        return spaces.Box(-limit, limit, (NUM_OBSERVATIONS,), jnp.float32)
