"""Reference policies: strategies to compare a trained one with.

The rules are one policy: a signal against a threshold. What differs between them is in their
parameters, each a scalar or one value per lane `[N]`, so a whole grid of rules plays in one
compiled evaluation, a stretch of lanes for each (`stack`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.agent.policy import Policy

SELL, HOLD, BUY = 0, 1, 2

RSI, EMA_FAST, EMA_SLOW, VWAP, POSITION = 0, 1, 2, 3, 11
"""Entries of the observation (docs/environment.md)."""


class Rule(NamedTuple):
    """Parameters of the policy `rule`; float32 or int32, scalars or `[N]`, one for each lane.

    The signal is direction × observation entry `column`: +1 follows it, −1 trades against it.
    From flat the rule buys at signals of at least `threshold` and sells at −threshold; it closes a
    long once the signal is at or below `exit` and a short once it is at or above −exit.
    """

    column: Any
    direction: Any
    threshold: Any
    exit: Any


class Truth(NamedTuple):
    """Parameters of the policy `oracle`.

    drift: `[N, T]` expected log return of the mid in the bar that a lane's step t executes in, in
    bp: what `drift_ahead` takes from the simulator. threshold, exit: as of `Rule`, in bp, scalars
    or `[N]`.
    """

    drift: Any
    threshold: Any
    exit: Any


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


def at_random() -> Policy:
    """SELL, HOLD and BUY with the probabilities that are its parameters, `[3]`.

    `EVENLY` makes it `random`, `NEVER` `flat`: both are one compiled program.
    """

    def act(
        params: jax.Array, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del obs, first
        draw = partial(jax.random.categorical, logits=jnp.log(params))
        return carry, jax.vmap(draw)(keys).astype(jnp.int32)

    def entropy(params: jax.Array, carry: Any, obs: jax.Array, first: jax.Array) -> jax.Array:
        del carry, first
        return jnp.full(obs.shape[0], jnp.sum(jax.scipy.special.entr(params)))

    return Policy("at random", _no_carry, act, entropy)


EVENLY = (1 / 3, 1 / 3, 1 / 3)
NEVER = (0.0, 1.0, 0.0)
"""Parameters of `at_random`, as float32 `[3]`."""


def flat() -> Policy:
    """HOLD, always."""

    def act(
        params: Any, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del params, keys, first
        return carry, jnp.full(obs.shape[0], HOLD, jnp.int32)

    return Policy("flat", _no_carry, act)


def buy_and_hold() -> Policy:
    """BUY when flat, HOLD else: long all session, as positions are closed at every close."""
    return _one_sided("buy and hold", BUY)


def always_short() -> Policy:
    """SELL when flat, HOLD else."""
    return _one_sided("always short", SELL)


def _one_sided(name: str, entry: int) -> Policy:
    def act(
        params: Any, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del params, keys, first
        return carry, jnp.where(obs[:, POSITION] == 0, jnp.int32(entry), jnp.int32(HOLD))

    return Policy(name, _no_carry, act)


def rule() -> Policy:
    """The policy of `Rule` parameters."""

    def act(
        params: Rule, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del keys, first
        column = jnp.broadcast_to(jnp.asarray(params.column, jnp.int32), obs.shape[:1])
        entry = jnp.take_along_axis(obs, column[:, None], axis=1)[:, 0]
        signal = params.direction * entry
        return carry, _decide(signal, obs[:, POSITION], params.threshold, params.exit)

    return Policy("rule", _no_carry, act)


def oracle() -> Policy:
    """The policy of `Truth` parameters: it is told the true drift and waits for enough of it.

    A threshold rule, so its earnings bound those of the best informed policy from below. Its carry
    counts the steps of the episode.
    """

    def initial_carry(params: Truth, lanes: int) -> jax.Array:
        del params, lanes
        return jnp.zeros((), jnp.int32)

    def act(
        params: Truth, keys: jax.Array, carry: jax.Array, obs: jax.Array, first: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del keys, first
        signal = jnp.asarray(params.drift)[:, carry]
        return carry + 1, _decide(signal, obs[:, POSITION], params.threshold, params.exit)

    return Policy("oracle", initial_carry, act)


def _decide(signal: jax.Array, position: jax.Array, threshold: Any, exit_: Any) -> jax.Array:
    """Actions `[N]` of a signal `[N]` against thresholds, given the observed position `[N]`."""
    buys = jnp.where(position == 0, signal >= threshold, -signal <= exit_) & (position <= 0)
    sells = jnp.where(position == 0, -signal >= threshold, signal <= exit_) & (position >= 0)
    # A threshold of 0 at a signal of 0 asks for both, and gets neither.
    return HOLD + buys.astype(jnp.int32) - sells.astype(jnp.int32)


def drift_ahead(drift: jax.Array, start_rows: np.ndarray, steps: int) -> jax.Array:
    """`Truth.drift` `[N, steps]`, in bp, of episodes that start at `start_rows` `[N]`.

    drift: `[R]` expected log return of the mid from the close of each table row to the next close
    (`simulator.Latent.drift`, path after path).
    """
    rows = jnp.asarray(start_rows)[:, None] + jnp.arange(steps)
    return 1e4 * jnp.asarray(drift)[rows]


def vwap_reversion(threshold: float, exit: float) -> Rule:
    """Sells above the session's VWAP and buys below it; units of observation entry 3."""
    return Rule(VWAP, -1.0, threshold, exit)


def rsi_reversion(threshold: float, exit: float) -> Rule:
    """Sells when overbought and buys when oversold; units of observation entry 0 (12 points)."""
    return Rule(RSI, -1.0, threshold, exit)


def ema_reversion(threshold: float, exit: float) -> Rule:
    """Sells above EMA(20) and buys below it; units of observation entry 2."""
    return Rule(EMA_SLOW, -1.0, threshold, exit)


def ema_momentum(threshold: float, exit: float) -> Rule:
    """Buys above EMA(20) and sells below it; units of observation entry 2."""
    return Rule(EMA_SLOW, 1.0, threshold, exit)


def vwap_momentum(threshold: float, exit: float) -> Rule:
    """Buys above the session's VWAP and sells below it; units of observation entry 3."""
    return Rule(VWAP, 1.0, threshold, exit)


THRESHOLDS = (0.125, 0.25, 0.5, 1.0, 1.5, 2.0)
EXITS = (-4.0, -2.0, -1.0, 0.0, 0.5)
"""Of the grid: entries are O(1); exits in units of the threshold."""
KINDS = (vwap_reversion, vwap_momentum, ema_reversion, ema_momentum, rsi_reversion)


def grid() -> dict[str, Rule]:
    """Five kinds of rule at six thresholds and five exits each, by name."""
    return {
        f"{kind.__name__} {threshold:g} {share * threshold:g}": kind(threshold, share * threshold)
        for kind, threshold, share in itertools.product(KINDS, THRESHOLDS, EXITS)
    }


def stack(rules: Sequence[Any], lanes: int) -> Any:
    """Parameters of one kind for `len(rules) · lanes` lanes: each rule's, `lanes` times over.

    Leaves that are arrays over lanes already are put one after the other; lanes of rule i are
    those from i · lanes on. Works for `Rule` and for `Truth`.
    """

    def join(*leaves: Any) -> jax.Array:
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        return jnp.concatenate([a if a.ndim else jnp.full(lanes, a) for a in arrays])

    return jax.tree.map(join, *rules)
