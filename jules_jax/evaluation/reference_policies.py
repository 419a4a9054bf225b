"""Reference policies: strategies to compare a trained one with.

The rules are one policy: a signal against a threshold. What differs between them is in their
parameters, each a scalar or one value per lane `[N]`, so a whole grid of rules plays in one
compiled evaluation, a stretch of lanes for each (`stack`, `side_by_side`). `references` lists what
a trained policy is judged beside.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.agent import network
from jules_jax.agent.policy import Policy
from jules_jax.config import Config
from jules_jax.env.observation import COOLDOWN, POSITION, READY_COOLDOWN
from jules_jax.evaluation.backtest import Starts
from jules_jax.market.features import EMA_FAST_SD, EMA_SLOW_SD
from jules_jax.market.table import NEVER_CLOSES, MarketData, read_row

SELL, HOLD, BUY = 0, 1, 2

RSI, EMA_FAST, EMA_SLOW, VWAP, SINE, COSINE = range(6)
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
    """SELL, HOLD and BUY with the probabilities that are its parameters, `[3]` or `[N, 3]`.

    `EVENLY` makes it `random`, `NEVER` `flat`: both are one compiled program.
    """

    def act(
        params: jax.Array, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del first
        logits = jnp.broadcast_to(jnp.log(params), (obs.shape[0], 3))
        return carry, jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)

    def entropy(params: jax.Array, carry: Any, obs: jax.Array, first: jax.Array) -> jax.Array:
        del carry, first
        entropies = jnp.sum(jax.scipy.special.entr(params), axis=-1)
        return jnp.broadcast_to(entropies, obs.shape[:1])

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


class Cross(NamedTuple):
    """Parameters of the policy `ema_cross`, in bar volatilities; scalars or `[N]`.

    As of `Rule`, the signal being ln(fast EMA / slow EMA) / σ.
    """

    threshold: Any
    exit: Any


def ema_cross() -> Policy:
    """The policy of `Cross` parameters: long while the fast EMA is above the slow one, else short.

    Entries of the observation are clipped, but not so that the signal changes its sign.
    """

    def act(
        params: Cross, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del keys, first
        # Each entry is ln(close / EMA), in its own standard deviations on a random walk.
        signal = EMA_SLOW_SD * obs[:, EMA_SLOW] - EMA_FAST_SD * obs[:, EMA_FAST]
        return carry, _decide(signal, obs[:, POSITION], params.threshold, params.exit)

    return Policy("EMA cross", _no_carry, act)


class Slices(NamedTuple):
    """Parameters of the policy `twap`; scalars or `[N]`, times as shares of the session.

    lots: of the largest position. entered: when the last lot should be in. leaving: when the first
    should go. left: when the last should have gone. turn: of the observed clock in a session, in
    half turns: 1, or 2 on a 24/7 calendar.
    """

    lots: Any
    entered: Any
    leaving: Any
    left: Any
    turn: Any


def twap() -> Policy:
    """The policy of `Slices` parameters: in and out of a long position at even times, every day.

    It asks for one lot at a time, when the cooldown is over, whenever it holds fewer (or more) than
    its plan has by then; so what a cooldown or a thin bar delays is made up for.
    """

    def act(
        params: Slices, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        del keys, first
        half_turns = jnp.mod(jnp.arctan2(obs[:, SINE], obs[:, COSINE]) / jnp.pi, 2.0)
        plan = _planned(params, half_turns / params.turn)
        held = jnp.ceil(obs[:, POSITION] * params.lots - PART_OF_LOT)
        ready = jnp.abs(obs[:, COOLDOWN]) <= READY_COOLDOWN
        buys, sells = ready & (held < plan), ready & (held > plan)
        return carry, HOLD + buys.astype(jnp.int32) - sells.astype(jnp.int32)

    return Policy("TWAP in and out", _no_carry, act)


PART_OF_LOT = 1e-4
"""What is left of a lot below this share is rounding."""


def _planned(params: Slices, time: jax.Array) -> jax.Array:
    """Lots that the plan holds at `time` `[N]`, a share of the session."""

    def done(begin: Any, end: Any) -> jax.Array:
        slices = jnp.floor(params.lots * (time - begin) / (end - begin)) + 1.0
        return jnp.clip(slices, 0.0, params.lots)

    leaving = time >= params.leaving
    return done(0.0, params.entered) - jnp.where(leaving, done(params.leaving, params.left), 0.0)


ENTERED, LEAVING, SPARE = 0.25, 0.75, 0.05
"""Of a TWAP's session: the share it enters in, when it begins to leave, and what it keeps to spare
before the minutes in which positions are closed anyway."""


def slices(config: Config, market: MarketData, starts: Starts) -> Slices:
    """A TWAP for the account, cooldown and sessions of `starts`.

    It takes more than a quarter of the session in, and out, where the cooldown asks for it.
    """
    row = read_row(market.rows, jnp.asarray(starts.row))
    continuous = row.minutes_left >= NEVER_CLOSES
    lots, bars = config.account.max_position_lots, row.bars_per_session
    minutes = bars * market.bar_seconds / 60
    needed = lots * config.safeguards.trade_cooldown_steps / bars
    left = 1.0 - SPARE - jnp.where(continuous, 0.0, config.safeguards.flat_by_minutes / minutes)
    return Slices(
        lots=float(lots),
        entered=jnp.clip(needed, ENTERED, 0.5),
        leaving=jnp.clip(left - needed, 0.5, LEAVING),
        left=left,
        turn=jnp.where(continuous, 2.0, 1.0),
    )


@lru_cache
def delayed(policy: Policy, bars: int = 1) -> Policy:
    """What `policy` decides, `bars` later: decided on bar t, executed in bar t + 1 + `bars`.

    Until there is a first decision it holds; decisions still on their way when an episode ends are
    lost. With `bars` 0 it is the policy. Equal arguments give the same policy, so that evaluations
    of it compile once.
    """
    if bars < 0:
        raise ValueError(f"bars is {bars}, expected at least 0")
    if bars == 0:
        return policy

    def initial_carry(params: Any, lanes: int) -> Any:
        return policy.initial_carry(params, lanes), jnp.full((bars, lanes), HOLD, jnp.int32)

    def act(
        params: Any, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        inner, waiting = carry
        waiting = jnp.where(first, HOLD, waiting)
        inner, action = policy.act(params, keys, inner, obs, first)
        return (inner, jnp.concatenate([waiting[1:], action[None]])), waiting[0]

    return Policy(f"{policy.name}, {bars} bar{'s' if bars > 1 else ''} late", initial_carry, act)


@lru_cache
def without_memory(policy: Policy) -> Policy:
    """`policy` with an empty memory before every bar: it acts on one observation alone.

    This takes the memory from a network that was trained with it. What a network trained without
    any would have learned is another question, which only training one answers.
    """

    def act(
        params: Any, keys: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        return policy.act(params, keys, carry, obs, jnp.ones_like(first))

    return Policy(f"{policy.name}, no memory", policy.initial_carry, act)


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


class Reference(NamedTuple):
    """A policy with its parameters, under the name that tables give it.

    kind: trained, reference or oracle. what: one sentence.
    """

    name: str
    policy: Policy
    params: Any
    kind: str
    what: str


SIGNAL = 1.0
"""Threshold of the rules in the table, in the units of their signal: not picked on anything."""

RANDOM, FLAT, HOLDER, RULE, CROSS, TWAP, ORACLE = (
    at_random(), flat(), buy_and_hold(), rule(), ema_cross(), twap(), oracle()
)  # fmt: skip
"""Made once: a policy is what evaluations are compiled for."""


def references(
    config: Config,
    market: MarketData,
    starts: Starts,
    *,
    probabilities: Sequence[float] | None = None,
    trained: tuple[Policy, network.Params] | None = None,
    truth: Truth | None = None,
) -> list[Reference]:
    """What a trained policy is judged beside, on episodes that begin at `starts` `[N]`.

    Rules have round thresholds that were picked on nothing: the best of a grid, picked on the data
    it is reported on, would be a trained policy itself, and an overfitted one.

    Args:
      config: account, costs and safeguards.
      market: prices, for the calendar of each start.
      starts: where episodes begin.
      probabilities: `[3]` of SELL, HOLD and BUY, so that random orders turn over as much as the
        trained policy (`candidates.matched_turnover`).
      trained: the trained policy and its weights, to be played without its memory.
      truth: of simulated paths (`candidates.oracle`).
    """
    found = [
        Reference("flat", FLAT, (), "reference", "never trades"),
        Reference("buy and hold", HOLDER, (), "reference", "long whenever it may be"),
        Reference("random", RANDOM, _float(EVENLY), "reference", "asks for anything, evenly"),
    ]
    if probabilities is not None:
        order = 1.0 - probabilities[HOLD]
        what = f"orders with probability {order:.3g} a bar, either way: the trained one's turnover"
        params = _float(probabilities)
        found.append(Reference("random, same turnover", RANDOM, params, "reference", what))
    found += [
        Reference(
            "TWAP in and out", TWAP, slices(config, market, starts), "reference",
            "long in even steps early in the session, flat in even steps before its end",
        ),
        Reference(
            "VWAP reversion", RULE, vwap_reversion(SIGNAL, 0.0), "reference",
            "sells a standard deviation above the session's VWAP, buys below, until it is reached",
        ),
        Reference(
            "EMA cross", CROSS, Cross(0.0, 0.0), "reference",
            "long while EMA(10) is above EMA(20), short while it is below",
        ),
    ]  # fmt: skip
    if trained is not None:
        policy, weights = trained
        what = "the same weights, their memory emptied before every bar"
        found.append(
            Reference(
                f"{policy.name}, no memory", without_memory(policy), weights, "reference", what
            )
        )
    if truth is not None:
        what = "is told the true drift; its thresholds were picked on other paths"
        found.append(Reference("oracle", ORACLE, truth, "oracle", what))
    return found


def _float(values: Sequence[float]) -> jax.Array:
    return jnp.asarray(values, jnp.float32)
