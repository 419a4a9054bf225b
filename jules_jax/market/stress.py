"""Stress: scenarios that change the bars of any market, before anything is computed from them.

A scenario is a pure function of bars, of recorded symbols and of simulated paths alike: features,
expected volumes and the table follow from what it returns, as if the market had been like that. It
looks at no later bar. Some are a state of the whole history (volatility, volume, spread); others
are events, which happen a third into a session, once in as many sessions as an episode is long:
every episode of a session or more lives through one, and hardly one through more than two.

Falls that last add up over a history, until a share is worth a few dollars. That is a matter of its
unit and of no market, so the unit follows, as it would in a reverse split: as many dollars are
traded as were, and a tick is as large beside the price as it was.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jules_jax.config import Config
from jules_jax.market.bars import Array, Bars
from jules_jax.market.dataset import Dataset
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.splits import Split
from jules_jax.market.table import MarketData, Row

CRASH, CRASH_BARS, RECOVERED, RECOVERY_BARS = -0.10, 5, 0.5, 30
"""Of a flash crash: the fall, the bars it takes, the share of it (in logs) that comes back, and the
bars until then, those of the fall included. Single stocks did worse on 6 May 2010 (CFTC and SEC
2010, "Findings regarding the market events of May 6, 2010")."""
GAP = -0.05
OUTAGE_MINUTES, OUTAGE_JUMP = 30, -0.02
"""How long a feed is silent, and how far the market falls beside its own path meanwhile."""
VOLATILITY, VOLUME, SPREAD = 3.0, 0.1, 5.0
"""Factors."""
PART_OF_SESSION = 3
"""Events begin this part (a third) into their session."""

BAR_COLUMNS = tuple(Row._fields.index(name) for name in ("open", "close", "volume", "half_spread"))
"""Columns of the table that are the bar's own."""
CLOSE, TICK = Row._fields.index("close"), Row._fields.index("tick")

Transformation = Callable[[Bars], Bars]
"""Bars `[B]` of one symbol or path to bars `[B]`: pure, and traceable by JAX."""


def unchanged(bars: Bars) -> Bars:
    """The bars themselves."""
    return bars


@dataclass(frozen=True)
class Scenario:
    """A change of the market, or of what trading in it costs.

    what: one sentence. transform: of the bars. factors: dotted keys of the configuration, of whose
    numbers the environment sees a multiple.
    """

    name: str
    what: str
    transform: Transformation = unchanged
    factors: tuple[tuple[str, float], ...] = ()

    def settings(self, config: Config) -> Config:
        """The configuration that episodes are played under, its schedules at their end."""
        config = config.for_evaluation()
        for key, factor in self.factors:
            name, _, leaf = key.partition(".")
            section = getattr(config, name)
            changed = dataclasses.replace(section, **{leaf: factor * getattr(section, leaf)})
            config = dataclasses.replace(config, **{name: changed})
        return config


AS_IT_IS = Scenario("as it is", "nothing is changed: what the others are to be compared with")


def scenarios(steps: int) -> tuple[Scenario, ...]:
    """The market as it is, and the six scenarios, for episodes of `steps` bars."""
    fall, part = -100 * CRASH, 100 * RECOVERED
    return (
        AS_IT_IS,
        Scenario(
            "flash crash",
            f"{fall:g} % down in {CRASH_BARS} bars, {part:g} % of it back by bar {RECOVERY_BARS}",
            partial(flash_crash, steps=steps),
        ),
        Scenario(
            f"volatility × {VOLATILITY:g}",
            f"every log return, overnight too, is {VOLATILITY:g} times as large",
            volatility,
        ),
        Scenario(
            f"spread × {SPREAD:g}",
            f"the half-spread, configured and recorded, is {SPREAD:g} times as wide",
            spread,
            (("fills.bid_ask_spread_bps", SPREAD),),
        ),
        Scenario(
            f"volume ÷ {1 / VOLUME:g}",
            f"every bar trades {VOLUME:g} of its volume, so impact grows and caps bind sooner",
            volume,
        ),
        Scenario(
            "gap open",
            f"the price opens {-100 * GAP:g} % lower than it would have",
            partial(gap_open, steps=steps),
        ),
        Scenario(
            "feed outage",
            f"no bar for {OUTAGE_MINUTES} minutes, then prices {-100 * OUTAGE_JUMP:g} % lower",
            partial(feed_outage, steps=steps),
        ),
    )


def flash_crash(bars: Bars, *, steps: int) -> Bars:
    """The price falls by `CRASH` within bars of a session, and part of that comes back."""
    events, since = _events(bars, steps)
    depth = math.log1p(CRASH)

    def shift(done: jax.Array) -> jax.Array:
        fall = jnp.minimum(done / CRASH_BARS, 1.0)
        back = jnp.clip((done - CRASH_BARS) / (RECOVERY_BARS - CRASH_BARS), 0.0, 1.0)
        return depth * (fall - RECOVERED * back)

    kept = depth * (1.0 - RECOVERED) * events
    started, done = (jnp.maximum(since + more, 0).astype(jnp.float32) for more in (0, 1))
    return _shifted(bars, kept + shift(started), kept + shift(done))


def gap_open(bars: Bars, *, steps: int) -> Bars:
    """Sessions with an event, and all that follows, open lower by `GAP`."""
    gaps = (jnp.asarray(bars.session) + 1) // _sessions_between(bars, steps)
    shift = math.log1p(GAP) * gaps.astype(jnp.float32)
    return _shifted(bars, shift, shift)


def feed_outage(bars: Bars, *, steps: int) -> Bars:
    """Bars are missing for `OUTAGE_MINUTES`; from then on prices are lower by `OUTAGE_JUMP`.

    What the market did meanwhile on its own path comes on top of that, as one jump.
    """
    events, since = _events(bars, steps)
    silent = max(OUTAGE_MINUTES * 60 // bars.bar_seconds, 1)
    out = (since >= 0) & (since < silent)
    shift = math.log1p(OUTAGE_JUMP) * (events + (since >= silent)).astype(jnp.float32)
    moved = _shifted(bars, shift, shift)

    def during(values: Array) -> jax.Array:
        return jnp.where(out, jnp.zeros_like(values), values)

    flow = None if moved.signed_volume is None else during(moved.signed_volume)
    missing = dataclasses.replace(
        moved,
        valid=jnp.asarray(moved.valid) & ~out,
        volume=during(moved.volume),
        signed_volume=flow,
    )
    return _held(missing)


def volatility(bars: Bars) -> Bars:
    """Every log return `VOLATILITY` times as large, from the first open on."""
    first = jnp.asarray(bars.open)[0]

    def path(price: Array) -> jax.Array:
        return first * jnp.exp(VOLATILITY * jnp.log(price / first))

    return _ordered(bars, *(path(price) for price in (bars.open, bars.high, bars.low, bars.close)))


def volume(bars: Bars) -> Bars:
    """`VOLUME` times the volume, and the taker flow where it is known."""
    flow = None if bars.signed_volume is None else VOLUME * jnp.asarray(bars.signed_volume)
    return dataclasses.replace(bars, volume=VOLUME * jnp.asarray(bars.volume), signed_volume=flow)


def spread(bars: Bars) -> Bars:
    """`SPREAD` times the half-spread, where bars have one; prints bounce as they did."""
    if bars.half_spread is None:
        return bars
    return dataclasses.replace(bars, half_spread=SPREAD * jnp.asarray(bars.half_spread))


def of_feed(feed: SimulatedFeed, scenario: Scenario) -> SimulatedFeed:
    """The feed whose paths the scenario has changed; draws are the same."""
    transform = None if scenario.transform is unchanged else scenario.transform
    return dataclasses.replace(feed, transform=transform)


def of_dataset(found: Dataset, scenario: Scenario) -> Dataset:
    """The dataset with every symbol's whole history changed; its kept rows are not used."""
    if scenario.transform is unchanged:
        return found
    sources = tuple(
        dataclasses.replace(one, bars=on_host(scenario.transform(one.bars)))
        for one in found.sources
    )
    return dataclasses.replace(found, sources=sources, folders=None)


Market = Callable[[Scenario], MarketData]
"""A held-out market under a scenario; rows are the same bars in all, so episodes start alike."""


def of_split(found: Dataset, split: Split) -> Market:
    """A split of a dataset under any scenario."""
    usual = found.market(split)

    def market(scenario: Scenario) -> MarketData:
        changed = of_dataset(found, scenario)
        return usual if changed is found else _with_ticks(changed.market(split), usual)

    return market


def of_fresh_paths(feed: SimulatedFeed, key: jax.Array) -> Market:
    """Fresh simulated paths under any scenario: rows keep their bits until bars change."""

    def market(scenario: Scenario) -> MarketData:
        usual, changed = feed.fresh(key), of_feed(feed, scenario)
        if changed == feed:
            return usual
        found = changed.fresh(key)
        rows = _spliced(usual.rows, found.rows, feed.path_bars)
        return _with_ticks(dataclasses.replace(found, rows=rows), usual)

    return market


def _with_ticks(found: MarketData, usual: MarketData) -> MarketData:
    """Ticks as large beside the prices of a scenario as they usually are."""
    rows = jnp.asarray(found.rows)
    scale = rows[:, CLOSE] / jnp.asarray(usual.rows)[:, CLOSE]
    return dataclasses.replace(found, rows=rows.at[:, TICK].multiply(scale))


def _spliced(usual: jax.Array, changed: jax.Array, bars: int) -> jax.Array:
    """Rows `[R, C]` of paths of `bars` each: `usual` until the first bar that is not as usual.

    A program with a scenario in it may round features otherwise, in their last bit.
    """
    differs = jnp.any(usual[:, list(BAR_COLUMNS)] != changed[:, list(BAR_COLUMNS)], axis=1).reshape(
        -1, bars
    )
    since = jax.lax.cummax(differs.astype(jnp.int32), axis=1).reshape(-1, 1)
    return jnp.where(since > 0, changed, usual)


def on_host(bars: Bars) -> Bars:
    """The bars as NumPy arrays."""
    host: Bars = jax.tree.map(np.asarray, bars)
    return host


def _sessions_between(bars: Bars, steps: int) -> int:
    """One event in this many sessions: as many whole ones as an episode has, at least one."""
    return max(steps // bars.bars_per_session, 1)


def _events(bars: Bars, steps: int) -> tuple[jax.Array, jax.Array]:
    """Events of earlier sessions `[B]`, and bars since this session's began, below 0 without one.

    The last of every `_sessions_between` sessions has one.
    """
    session, between = jnp.asarray(bars.session), _sessions_between(bars, steps)
    begins = bars.bars_per_session // PART_OF_SESSION
    happens = session % between == between - 1
    since = jnp.where(happens, jnp.asarray(bars.bar_of_session) - begins, -1)
    return session // between, since


def _shifted(bars: Bars, at_open: jax.Array, at_close: jax.Array) -> Bars:
    """Prices moved by shifts `[B]` of their logarithm at the bar's open and at its close.

    Where both are 0 they keep their bits. The range holds all that it held, moved by either.
    """
    first, last = jnp.exp(at_open), jnp.exp(at_close)
    moved = _ordered(
        bars,
        bars.open * first,
        bars.high * jnp.maximum(first, last),
        bars.low * jnp.minimum(first, last),
        bars.close * last,
    )
    return _held(moved)


def _ordered(
    bars: Bars, opening: jax.Array, high: jax.Array, low: jax.Array, close: jax.Array
) -> Bars:
    """The bars with other prices, and volumes worth as many dollars at the close.

    Rounding must not push open or close out of the range.
    """
    shares = jnp.asarray(bars.close) / close
    flow = None if bars.signed_volume is None else shares * jnp.asarray(bars.signed_volume)
    return dataclasses.replace(
        bars,
        volume=shares * jnp.asarray(bars.volume),
        signed_volume=flow,
        open=opening,
        high=jnp.maximum(high, jnp.maximum(opening, close)),
        low=jnp.minimum(low, jnp.minimum(opening, close)),
        close=close,
    )


def _held(bars: Bars) -> Bars:
    """Bars that did not trade have the last close of one that did as all of their prices."""
    valid = jnp.asarray(bars.valid)
    place = jnp.arange(valid.shape[0])
    # The first bar stands for itself, so that there is always a last one.
    last = jax.lax.cummax(jnp.where(valid, place, 0))
    price = jnp.asarray(bars.close)[last]
    prices: dict[str, Any] = {
        name: jnp.where(valid, getattr(bars, name), price)
        for name in ("open", "high", "low", "close")
    }
    return dataclasses.replace(bars, **prices)
