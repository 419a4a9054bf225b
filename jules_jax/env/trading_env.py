"""`TradingEnv`: the market, fills, account, safeguards and reward as a gymnax 1.0 environment."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from jules_jax.config import Config
from jules_jax.env.episodes import NUM_ACTIONS, Episodes, advance, begin
from jules_jax.env.observation import NUM_OBSERVATIONS, OBSERVATION_LIMIT
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.transition import EnvState


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
        """Parameters with a first generation of simulated paths (built eagerly, once).

        Schedules are at their end, and nothing is randomised.
        """
        from jules_jax.market.feed import SimulatedFeed

        config = self._config.for_evaluation()
        with jax.ensure_compile_time_eval():
            market = SimulatedFeed(config).resident(jax.random.key(config.seed), 0)
            return make_params(config, market)

    def step_env(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One step without reset: (obs, state, reward, terminated, info)."""
        del key  # an episode is a function of its start and its actions
        return advance(state, action, params)

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """A fresh start, uniform over the admissible rows."""
        return begin(key, params)

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams | None = None,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, jax.Array, dict[Any, Any]]:
        """One step with automatic reset: gymnax's contract, with fewer draws and selects."""
        params = self.default_params if params is None else params
        return Episodes().step(key, state, action, params)

    def with_time(self, state: EnvState, time: jax.Array) -> EnvState:
        """`state` as if `time` steps were done: lanes that start at different clocks."""
        return Episodes().with_time(state, time)

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
