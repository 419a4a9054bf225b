"""Games of a ladder of positions, and their optimum by dynamic programming.

Every bar the player moves its position in {−1, 0, 1} by one lot or not at all, pays for the lots
moved, and earns the bar's return times the position. What the return is made of, and what is seen
of it, is the game's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

POSITIONS = np.array([-1, 0, 1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a game remembers, scalars: float32 but `time` (int32)."""

    time: jax.Array
    position: jax.Array  # −1, 0, 1
    hidden: jax.Array  # the process behind the returns
    move: jax.Array  # the last bar's return


class Ladder:
    """A game on the contract the learner trains on; `params` has `steps`, `noise` and `cost`.

    An episode is cut (truncated) after `params.steps` bars. Subclasses say what is hidden.
    """

    num_actions = 3

    def start(self, key: jax.Array, params: Any) -> jax.Array:
        """A draw of the hidden process, from its stationary law."""
        raise NotImplementedError

    def advance(self, key: jax.Array, hidden: jax.Array, params: Any) -> jax.Array:
        """The hidden process one bar later."""
        raise NotImplementedError

    def edge(self, hidden: jax.Array, params: Any) -> jax.Array:
        """Expected return of the coming bar."""
        raise NotImplementedError

    def signal(self, state: State, params: Any) -> jax.Array:
        """What is seen besides the position."""
        raise NotImplementedError

    def observe(self, state: State, params: Any) -> jax.Array:
        """Observation `[2]`: the signal, and the position."""
        return jnp.stack([self.signal(state, params), state.position])

    def reset(self, key: jax.Array, params: Any) -> tuple[jax.Array, State]:
        zero = jnp.float32(0.0)
        state = State(jnp.int32(0), zero, self.start(key, params), zero)
        return self.observe(state, params), state

    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Any
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        key_noise, key_hidden, key_reset = jax.random.split(key, 3)
        position = jnp.clip(state.position + action.astype(jnp.float32) - 1.0, -1.0, 1.0)
        noise = params.noise * jax.random.normal(key_noise)
        move = self.edge(state.hidden, params) + noise
        reward = position * move - params.cost * jnp.abs(position - state.position)
        moved = State(
            time=state.time + 1,
            position=position,
            hidden=self.advance(key_hidden, state.hidden, params),
            move=move,
        )
        final = self.observe(moved, params)
        truncated = moved.time >= params.steps
        obs, after = self.reset(key_reset, params)
        obs, after = jax.tree.map(
            lambda a, b: jnp.where(truncated, a, b), (obs, after), (final, moved)
        )
        info = {"final_observation": final}
        return obs, after, reward, jnp.zeros_like(truncated), truncated, info


class Solution(NamedTuple):
    """The best play of a game of T bars on a chain of K states.

    value: `[K, 3]` expected net P&L of the whole game from each state and position. target:
    `[T, K, 3]` int, the index into `POSITIONS` of the best position to take at each bar.
    """

    value: np.ndarray
    target: np.ndarray


def solve(
    edge: np.ndarray, transition: np.ndarray, cost: float, steps: int, *, reach: int = 1
) -> Solution:
    """Backward induction (Bellman 1957), exact on the chain; float64.

    edge: `[K]` expected return of a bar from each state. transition: `[K, K]`, rows sum to 1.
    cost: per lot moved. reach: most lots moved in a bar.
    """
    moved = np.abs(POSITIONS[:, None] - POSITIONS[None, :])  # [from, to]
    paid = np.where(moved <= reach, cost * moved, np.inf)
    ahead = np.zeros((len(edge), 3))
    targets = np.empty((steps, len(edge), 3), np.int64)
    for t in reversed(range(steps)):
        held = edge[:, None] * POSITIONS + transition @ ahead  # [K, to]
        net = held[:, None, :] - paid  # [K, from, to]
        targets[t] = net.argmax(axis=-1)
        ahead = net.max(axis=-1)
    return Solution(ahead, targets)
