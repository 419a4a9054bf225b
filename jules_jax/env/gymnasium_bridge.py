"""Gymnasium environments, single and vector, around the compiled one, and names to make them by.

Episodes belong to a seed: episode n of seed s is the same in every environment here, and lane i of
a vector environment reset with seed s is a single environment reset with seed s + i. Seeds count
modulo 2³².
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax.config import Config
from jules_jax.errors import InputError

try:
    import gymnasium
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError:  # absent, or older than AutoresetMode
    raise InputError(
        "gymnasium is missing or too old, expected 1.1 or newer: pip install -e '.[gymnasium]'"
    ) from None

from jules_jax.env.episodes import NUM_ACTIONS
from jules_jax.env.observation import NUM_OBSERVATIONS, OBSERVATION_LIMIT
from jules_jax.env.params import EnvParams
from jules_jax.env.record import Outcome, StepRecord
from jules_jax.env.trading_env import TradingEnv
from jules_jax.env.transition import EnvState

Array = NDArray[Any]
Observation = NDArray[np.float32]

_ENV = TradingEnv()
"""Its functions depend on their arguments only, so all environments share one compilation."""
ENV_ID = _ENV.name
_OUTCOMES = np.asarray([outcome.name for outcome in Outcome], object)


def _key(seed: jax.Array, episode: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), episode)


def _reset(seed: jax.Array, episode: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
    """The start of an episode of a seed."""
    return _ENV.reset_env(_key(seed, episode), params)


def _step(
    seed: jax.Array, episode: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
) -> tuple[Any, ...]:
    """The six values of `step`; a lane that is done starts the given episode of its seed."""
    values: tuple[Any, ...] = _ENV.step(_key(seed, episode), state, action, params)
    return values


_reset_single, _step_single = jax.jit(_reset), jax.jit(_step)
_reset_lanes = jax.jit(jax.vmap(_reset, in_axes=(0, 0, None)))
_step_lanes = jax.jit(jax.vmap(_step, in_axes=(0, 0, 0, 0, None)))


def _spaces() -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Discrete[Any]]:
    """Observations, Box(12,) float32 in [−5, 5]; actions, 0 SELL, 1 HOLD, 2 BUY."""
    limit = OBSERVATION_LIMIT
    box = gymnasium.spaces.Box(-limit, limit, (NUM_OBSERVATIONS,), np.float32)
    return box, gymnasium.spaces.Discrete(NUM_ACTIONS)


def _observables(record: StepRecord) -> dict[str, Any]:
    """A host record's fields by name, the outcome as its name."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return values | {"outcome": _OUTCOMES[record.outcome]}


class TradingGymnasiumEnv(gymnasium.Env[Observation, np.int64]):
    """One lane of `TradingEnv` as a `gymnasium.Env`.

    An episode's last step returns its true last observation; there is no automatic reset. `info`
    of a step holds every observable of `StepRecord` as a plain number, and `outcome` as a name.

    Args:
      config: where the parameters and the simulated paths come from; the defaults if None.
      params: parameters with any market data (say, of recorded bars) in place of `config`'s.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (as in the base class)

    def __init__(self, config: Config | None = None, *, params: EnvParams | None = None) -> None:
        self.observation_space, self.action_space = _spaces()
        self._params = TradingEnv(config).default_params if params is None else params
        self._seed: np.uint32 | None = None
        self._episode = 0
        self._state: EnvState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts episode 0 of `seed`, or the next one of the present seed; `info` is empty."""
        super().reset(seed=seed, options=options)
        if seed is not None or self._seed is None:
            self._seed, self._episode = np.uint32(self.np_random_seed % 2**32), 0
        obs, self._state = _reset_single(self._seed, np.int32(self._episode), self._params)
        self._episode += 1
        return np.array(obs), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step; raises `gymnasium.error.ResetNeeded` before a reset and after an end."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("the episode is over, expected reset() before step()")
        results = _step_single(
            self._seed, np.int32(self._episode), self._state, np.int32(action), self._params
        )
        _, state, *results = results
        reward, terminated, truncated, rest = jax.device_get(results)
        done = bool(terminated or truncated)
        self._state = None if done else state
        info = {
            k: v if k == "outcome" else v.item() for k, v in _observables(rest["record"]).items()
        }
        obs = np.array(rest["final_observation"])
        return obs, float(reward), bool(terminated), bool(truncated), info


class TradingGymnasiumVectorEnv(VectorEnv[Observation, Array, Array]):
    """N lanes of `TradingEnv` as a `gymnasium.vector.VectorEnv`, reset on the step they end.

    `info` of a step holds `[N]` arrays of the observables, each with a mask `_name` of the lanes
    that have one: those that go on. Those that ended have theirs in `info["final_info"]`, and
    their true last observation in `info["final_obs"]`, as gymnasium's SAME_STEP mode defines.

    Args:
      num_envs: lanes, N.
      config: where the parameters and the simulated paths come from; the defaults if None.
      params: parameters with any market data in place of `config`'s.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self, num_envs: int = 1, config: Config | None = None, *, params: EnvParams | None = None
    ) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = _spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._params = TradingEnv(config).default_params if params is None else params
        self._seeds: Array | None = None
        self._episodes = np.zeros(num_envs, np.int32)  # the next one of each lane
        self._states: EnvState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Observations `[N, 12]` of new episodes in all lanes, episode 0 if a seed is given."""
        super().reset(seed=seed, options=options)
        if seed is not None or self._seeds is None:
            first = (self.np_random_seed or 0) % 2**32
            lanes = np.arange(self.num_envs, dtype=np.uint64)
            self._seeds = ((lanes + first) % 2**32).astype(np.uint32)
            self._episodes = np.zeros(self.num_envs, np.int32)
        obs, self._states = _reset_lanes(self._seeds, self._episodes, self._params)
        self._episodes = self._episodes + 1
        return np.array(obs), {}

    def step(self, actions: Any) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes: observations `[N, 12]`, rewards, two flags `[N]`, `info`."""
        if self._states is None:
            raise gymnasium.error.ResetNeeded("nothing was started, expected reset() before step()")
        actions = np.asarray(actions, np.int32)
        results = _step_lanes(self._seeds, self._episodes, self._states, actions, self._params)
        obs, self._states, *results = results
        obs, reward, terminated, truncated, infos = jax.device_get((obs, *results))
        done = terminated | truncated
        self._episodes = self._episodes + done
        observables = _observables(infos["record"])
        info = _masked(observables, ~done)
        if done.any():
            finals = np.full(self.num_envs, None, object)
            for lane in np.flatnonzero(done):
                finals[lane] = np.array(infos["final_observation"][lane])
            info |= {"final_obs": finals, "_final_obs": done}
            info |= {"final_info": _masked(observables, done), "_final_info": done}
        return np.array(obs), reward.astype(np.float64), terminated, truncated, info


def _masked(observables: dict[str, Array], lanes: Array) -> dict[str, Any]:
    """The values in `lanes` and nothing elsewhere, with gymnasium's mask beside each."""
    masked: dict[str, Any] = {}
    for name, values in observables.items():
        nothing: Any = None if values.dtype == object else values.dtype.type(0)
        masked |= {name: np.where(lanes, values, nothing), f"_{name}": lanes}
    return masked


def register_gymnasium() -> None:
    """Lets `gymnasium.make` and `gymnasium.make_vec` make `JulesTrading-v0`; twice does no harm."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            ENV_ID,
            entry_point=f"{__name__}:{TradingGymnasiumEnv.__name__}",
            vector_entry_point=f"{__name__}:{TradingGymnasiumVectorEnv.__name__}",
        )


def register_gymnax() -> None:
    """Lets `gymnax.make` make `JulesTrading-v0`; twice does no harm."""
    from gymnax import registration

    if ENV_ID not in registration.registered_envs:
        registration.register(ENV_ID, TradingEnv)
