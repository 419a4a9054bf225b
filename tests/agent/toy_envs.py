"""Small environments with known behaviour, on the contract the learner trains on."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    """Steps to the time limit, the chance of ending before it, and the noise of a walk's step."""

    max_steps: jax.Array
    end_probability: jax.Array
    noise: jax.Array


def params(max_steps: int = 10, end_probability: float = 0.1, noise: float = 0.4) -> Params:
    return Params(jnp.int32(max_steps), jnp.float32(end_probability), jnp.float32(noise))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    time: jax.Array
    memory: jax.Array


class Walk:
    """A random walk in `num_inputs` dimensions; SELL, HOLD, BUY earn -x, 0 and +x of the first."""

    num_actions = 3

    def __init__(self, num_inputs: int = 4) -> None:
        self.num_inputs = num_inputs
        self.traces = 0

    def reset(self, key, params):
        memory = jax.random.normal(key, (self.num_inputs,))
        return memory, State(0, memory)  # a weakly typed clock, as many environments have

    def step(self, key, state, action, params):
        self.traces += 1
        key_noise, key_end, key_reset = jax.random.split(key, 3)
        noise = jax.random.normal(key_noise, state.memory.shape)
        moved = State(state.time + jnp.int32(1), 0.9 * state.memory + params.noise * noise)
        reward = (action - 1.0) * moved.memory[0]
        terminated = jax.random.uniform(key_end) < params.end_probability
        truncated = moved.time >= params.max_steps
        return autoreset(
            self, key_reset, moved, moved.memory, reward, terminated, truncated, params
        )


class StaggeredWalk(Walk):
    """A walk whose lanes may start at any time."""

    def with_time(self, state, time):
        return State(time, state.memory)


class Cue:
    """Shows ±1 on the first step only; the action on the last step earns +1 if it matches.

    Observation: the cue, and whether this is the last step. With no memory of the cue the best
    expected return is 0.
    """

    num_actions = 2

    def __init__(self, delay: int) -> None:
        self.delay = delay

    def observe(self, state):
        return jnp.stack(
            [
                jnp.where(state.time == 0, state.memory, 0.0),
                jnp.where(state.time == self.delay, 1.0, 0.0),
            ]
        )

    def reset(self, key, params):
        state = State(jnp.int32(0), jnp.where(jax.random.bernoulli(key), 1.0, -1.0))
        return self.observe(state), state

    def step(self, key, state, action, params):
        last = state.time == self.delay
        reward = jnp.where(last, (2.0 * action - 1.0) * state.memory, 0.0)
        moved = State(state.time + 1, state.memory)
        never = jnp.zeros_like(last)
        return autoreset(self, key, moved, self.observe(moved), reward, last, never, params)


def autoreset(env, key, state, obs, reward, terminated, truncated, params):
    """The six values of a step, reset where the episode ended."""
    reset_obs, reset_state = env.reset(key, params)
    done = terminated | truncated
    next_state = jax.tree.map(lambda a, b: jnp.where(done, a, b), reset_state, state)
    info = {"final_observation": obs, "position": jnp.sign(reward)}
    next_obs = jnp.where(done, reset_obs, obs)
    return next_obs, next_state, reward, terminated, truncated, info
