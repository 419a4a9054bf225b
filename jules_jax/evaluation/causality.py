"""Causality, proved by trial: what an agent saw and did up to t does not depend on later bars.

A trial picks a moment t, replaces every bar after it, in all symbols, and builds everything anew:
bars → features → table → episodes. All of it up to t must come out with the same bits. Episodes are
played by a policy whose every action is a hash of all bits of the observation, so a leak into any
entry changes orders. What is compared, exactly (bar t is decided on at its close and executed in
bar t + 1):

- the table: all columns of rows up to t, and of row t + 1 those that must be known before it
  (`KNOWN_BEFORE`);
- episodes: observations and requests up to the decision on t; every observable of steps executed
  up to bar t; of the step executed in bar t + 1 what is decided beforehand (`DECIDED_BEFORE`);
- the fill: where bar t + 1 keeps what its fill may see (open, volume, quote) and changes after
  that, the fill at its open too (`FILLED_AT_OPEN`).

Held fixed is what is known beforehand in life as well: the calendar (which bars exist, sessions
and their lengths) and the configuration. Where bars are dropped rather than replaced, the last row
left is the last of its session, whatever the calendar says: `session_close` of row t may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jules_jax.config import Config
from jules_jax.env.observation import observe
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.record import StepRecord
from jules_jax.env.transition import initial_state, transition
from jules_jax.errors import InputError
from jules_jax.market import dataset, feed
from jules_jax.market.bars import Bars
from jules_jax.market.table import NUM_MARKET_ENTRIES, MarketData, Row, read_row

Int = NDArray[np.int64]

ENTRIES = (
    "rsi", "ema_fast", "ema_slow", "vwap", "clock_sin", "clock_cos", "volatility", "liquidity",
    "open_pnl", "drawdown", "cooldown", "position",
)  # fmt: skip
"""Names of the observation's entries."""

COLUMNS = (*Row._fields[:-1], *(f"market[{entry}]" for entry in range(NUM_MARKET_ENTRIES)))
"""Names of the table's columns."""

KNOWN_BEFORE = (
    "previous_close", "sigma_before", "adv_before", "expected_volume", "sigma_long_before",
    "kyle_lambda_before", "minute", "minutes_left", "session_open", "session_close", "tick",
    "quantity_step", "bars_per_session",
)  # fmt: skip
"""Columns of a row that are known at the close of the row above."""

SEEN_BY_THE_FILL = ("open", "volume", "half_spread")
"""Columns of the execution bar that a fill may depend on besides `KNOWN_BEFORE`."""

DECIDED_BEFORE = (
    "row", "time", "symbol", "request", "action_matters", "position_before", "lot",
    "quantity_step", "sigma", "expected_volume", "adv", "kyle_lambda", "kyle_lambda_rolling",
)  # fmt: skip
"""Observables of a step that are settled before its execution bar begins."""

FILLED_AT_OPEN = (
    "outcome", "forced", "capped_by_participation", "capped_by_cash", "quantity",
    "reference_price", "fill_price", "half_spread", "volume",
)  # fmt: skip
"""Observables of a step that are settled at the open of its execution bar."""

LANES = 8
"""Episodes in a trial."""

MOST_STEPS = 128
"""Steps of them, at most."""

DROP_EVERY = 12
"""Moments from one at which later bars are also dropped to the next."""

BARS_BEFORE_END = (None, 0, 1)
"""Moments in turn: on any bar, on the last of a session, and on the one before that, where averages
over sessions are about to change."""

Build = Callable[[Sequence[Bars]], MarketData]
"""The pipeline under trial: the market of every symbol's bars, rows one symbol after the other."""


@dataclass(frozen=True)
class Recorded:
    """Bars of one symbol: NumPy arrays `[B]`, `time` in UTC nanoseconds of bar starts."""

    symbol: str
    bars: Bars
    time: NDArray[np.int64]


@dataclass(frozen=True)
class Violation:
    """A value that bars still to come have changed."""

    symbol: str
    time: np.datetime64  # start of bar t, UTC
    bar: int  # index of bar t in the symbol's bars
    change: str  # what was done to later bars
    where: str  # such as `column sigma of row t - 3`
    expected: float
    found: float

    def __str__(self) -> str:
        return (
            f"{self.symbol}, t = {self.time} (bar {self.bar:,}), later bars {self.change}: "
            f"{self.where} is {self.found:.9g}, was {self.expected:.9g}"
        )


@dataclass(frozen=True)
class Proof:
    """What was tried, and the first violation.

    moments: values of t. bars: bars replaced or dropped, in all trials. values: numbers compared
    bit by bit, in `columns` columns, observation entries and observables. changed: numbers of later
    rows that did change, without which nothing is proved. fills: of the episodes compared.
    """

    moments: int
    bars: int
    columns: int
    values: int
    changed: int
    fills: int
    violation: Violation | None

    @property
    def holds(self) -> bool:
        """Whether nothing up to t changed, and something after it did."""
        return self.violation is None and self.changed > 0

    def __str__(self) -> str:
        tried = (
            f"{self.moments} moments, {self.bars:,} later bars altered or dropped, {self.values:,} "
            f"values of {self.columns} columns and {self.fills:,} fills compared bit by bit"
        )
        if self.violation is not None:
            return f"not causal: {self.violation}; after {tried}"
        if not self.changed:
            return f"nothing proved: altered bars changed nothing later either; {tried}"
        return f"causal: {tried}, none differs; {self.changed:,} values of later rows do"


def recorded_market(config: Config, instruments: Sequence[Any] | None = None) -> Build:
    """The pipeline of recorded bars; `instruments` are the symbols' terms of trade, if any."""
    settings = replace(config, max_steps_in_episode=1)  # no episode is drawn from these markets

    def build(bars: Sequence[Bars]) -> MarketData:
        terms = instruments or [None] * len(bars)
        listings = [
            feed.Listing(of_symbol, (0, len(of_symbol.close) - 2), instrument)
            for of_symbol, instrument in zip(bars, terms, strict=True)
        ]
        return feed.from_bars(listings, settings)

    return build


def prove(
    symbols: Sequence[Recorded],
    config: Config,
    build: Build | None = None,
    *,
    moments: int = 24,
    seed: int = 0,
) -> Proof:
    """Tries random moments t, see the module; two in three of them where a session ends.

    Args:
      symbols: their bars; at least one has room for the warm-up and a few steps.
      config: parameters of features and environment.
      build: what makes a market of bars; by default `recorded_market(config)`.
      moments: at least 1.
      seed: of the moments, of what becomes of later bars, and of where episodes start.

    Raises:
      InputError: no symbol has bars enough for a trial.
    """
    build = build or recorded_market(config)
    rng, tally = np.random.default_rng(seed), Counter[str]()
    warmup = config.features.lookback_window
    room = max((len(symbol.time) for symbol in symbols), default=0) - warmup - 3
    steps = min(MOST_STEPS, config.max_steps_in_episode, room)
    if steps < 2:
        raise InputError(
            f"{config.market.data or 'the bars'}: {room + warmup + 3} bars found, expected at "
            f"least {warmup + 5} in one symbol: features.lookback_window and a few more"
        )
    original = build([symbol.bars for symbol in symbols])
    params = make_params(config, original)
    violation = None
    for index in range(moments):
        trial = _draw_trial(rng, symbols, warmup, steps, before_end=BARS_BEFORE_END[index % 3])
        tally["moments"] += 1
        # a new number of bars is compiled for: they are dropped once in a while only
        dropped = index % DROP_EVERY == DROP_EVERY - 1
        changes = [change for change in CHANGES if change.keeps_rows or dropped]
        violation = _try(trial, changes, build, params, rng, tally)
        if violation is not None:
            break
    columns = len(COLUMNS) + len(ENTRIES) + len(fields(StepRecord))
    names = ("moments", "bars", "values", "changed", "fills")
    return Proof(**{name: tally[name] for name in names}, columns=columns, violation=violation)


def prove_dataset(config: Config, *, moments: int = 24) -> Proof:
    """The same for the bars at `market.data`, in the terms of their instruments."""
    sources = dataset.load(config).sources
    recorded = [Recorded(one.symbol, one.bars, one.time) for one in sources]
    market = recorded_market(config, [one.instrument for one in sources])
    return prove(recorded, config, market, moments=moments, seed=config.seed)


@dataclass(frozen=True)
class _Trial:
    """One t: bars of each symbol up to it (`cuts`), and episodes that pass it.

    Episode n, of symbol `place[n]`, starts on bar `first[n]` and takes its decision `decision[n]`
    (from 0) on the last bar up to t.
    """

    symbols: Sequence[Recorded]
    moment: np.int64
    cuts: Int
    place: Int
    first: Int
    decision: Int
    steps: int


def _draw_trial(
    rng: np.random.Generator,
    symbols: Sequence[Recorded],
    warmup: int,
    steps: int,
    *,
    before_end: int | None,
) -> _Trial:
    sizes = np.array([len(symbol.time) for symbol in symbols])
    lead = int(rng.choice(np.flatnonzero(sizes >= warmup + steps + 3)))
    bars = np.arange(warmup + 1, sizes[lead] - 2)
    if before_end is not None:
        session = np.asarray(symbols[lead].bars.session)
        last = bars + before_end
        ends = bars[session[last] != session[last + 1]]
        bars = ends if ends.size else bars
    moment = symbols[lead].time[rng.choice(bars)]
    cuts = np.array([np.searchsorted(s.time, moment, side="right") for s in symbols])
    earliest = np.maximum(warmup, cuts - steps)
    latest = np.minimum(cuts - 2, sizes - 1 - steps)
    place = rng.permutation(np.resize(np.flatnonzero(earliest <= latest), LANES))
    first = rng.integers(earliest[place], latest[place] + 1)
    return _Trial(symbols, moment, cuts, place, first, cuts[place] - 1 - first, steps)


def _try(
    trial: _Trial,
    changes: Sequence[Change],
    build: Build,
    params: EnvParams,
    rng: np.random.Generator,
    tally: Counter[str],
) -> Violation | None:
    """The first violation of one trial, after each way of changing later bars."""
    bars = [symbol.bars for symbol in trial.symbols]
    offsets = np.cumsum([0, *(len(symbol.time) for symbol in trial.symbols)])
    starts = jnp.asarray(offsets[trial.place] + trial.first, jnp.int32)
    places = jnp.asarray(trial.place, jnp.int32)
    rows = np.asarray(params.market.rows)
    played = _play(params, starts, places, steps=trial.steps)
    tally["fills"] += int(np.sum((played[1].quantity != 0) & _upto(trial, -1)))
    for change in changes:
        changed = [change.apply(rng, *pair) for pair in zip(bars, trial.cuts, strict=True)]
        market = build(changed)
        tally["bars"] += int(offsets[-1] - trial.cuts.sum())
        differences = _compare_tables(trial, change, rows, np.asarray(market.rows), changed, tally)
        if change.keeps_rows:
            changed_params = replace(params, market=replace(params.market, rows=market.rows))
            again = _play(changed_params, starts, places, steps=trial.steps)
            differences = chain(differences, _compare_episodes(trial, change, played, again, tally))
        if (found := next(differences, None)) is not None:
            return found
    return None


# Ways of changing later bars


def _altered(rng: np.random.Generator, bars: Bars, cut: int) -> Bars:
    """Other prices, at another level, other volumes, flags and quotes, from bar `cut` on."""
    count = len(bars.close) - cut
    level = 10.0 ** rng.uniform(-1.5, 1.5)
    open_, close = (
        level * np.asarray(values)[cut:] * np.exp(rng.normal(0, 0.02, count))
        for values in (bars.open, bars.close)
    )
    volume = np.asarray(bars.volume)[cut:] + 1.0
    later = {
        "open": open_,
        "high": np.maximum(open_, close) * (1 + rng.random(count)),
        "low": np.minimum(open_, close) * rng.uniform(0.5, 1, count),
        "close": close,
        "volume": volume * 10.0 ** rng.uniform(-2, 2, count) * (rng.random(count) > 0.1),
        "valid": rng.random(count) > 0.1,
        "half_spread": 10.0 ** rng.uniform(-6, -2, count),
        "signed_volume": volume * rng.normal(0, 1, count),
    }
    return _with_later(bars, cut, later)


def _altered_after_open(rng: np.random.Generator, bars: Bars, cut: int) -> Bars:
    """The same, but bar `cut` keeps what a fill at its open depends on."""
    altered = _altered(rng, bars, cut)
    kept = {name: getattr(bars, name) for name in ("open", "volume", "valid", "half_spread")}
    later = {
        name: np.concatenate([np.asarray(values)[cut : cut + 1], getattr(altered, name)[cut + 1 :]])
        for name, values in kept.items()
        if values is not None
    }
    return _with_later(altered, cut, later)


def _missing(rng: np.random.Generator, bars: Bars, cut: int) -> Bars:
    """No later bar traded: prices are the last one, as loading fills them."""
    del rng
    count, last = len(bars.close) - cut, np.asarray(bars.close)[max(cut - 1, 0)]
    later = dict.fromkeys(("open", "high", "low", "close"), np.full(count, last))
    nothing = np.zeros(count)
    return _with_later(
        bars, cut, {**later, "volume": nothing, "valid": nothing, "signed_volume": nothing}
    )


def _dropped(rng: np.random.Generator, bars: Bars, cut: int) -> Bars:
    """The history ends with bar `cut` − 1 (or with its second bar)."""
    del rng
    arrays: dict[str, Any] = {
        name: values for name, values in vars(bars).items() if hasattr(values, "shape")
    }
    return replace(bars, **{name: values[: max(cut, 2)] for name, values in arrays.items()})


def _with_later(bars: Bars, cut: int, later: dict[str, NDArray[Any]]) -> Bars:
    """`bars` with some columns replaced from bar `cut` on, in their own types."""
    columns: dict[str, Any] = {}
    for name, values in later.items():
        if (before := getattr(bars, name)) is not None:
            columns[name] = np.array(before)  # a copy
            columns[name][cut:] = values
    return replace(bars, **columns)


class Change(NamedTuple):
    """A way of changing later bars. `same_fill`: bar t + 1 keeps what its fill may see."""

    name: str
    apply: Callable[[np.random.Generator, Bars, int], Bars]
    keeps_rows: bool = True
    same_fill: bool = False


CHANGES = (
    Change("altered", _altered),
    Change("altered after the next open", _altered_after_open, same_fill=True),
    Change("missing", _missing),
    Change("dropped", _dropped, keeps_rows=False),
)


# Episodes


@partial(jax.jit, static_argnames="steps")
def _play(
    params: EnvParams, rows: jax.Array, symbols: jax.Array, *, steps: int
) -> tuple[jax.Array, StepRecord]:
    """Observations `[N, T + 1, O]` and records `[N, T]` of the policy that hashes observations."""

    def episode(row_index: jax.Array, symbol: jax.Array) -> tuple[jax.Array, StepRecord]:
        row = read_row(params.market.rows, row_index)
        state = initial_state(row, row_index, symbol, params)
        first = observe(state, row, params)

        def step(loop: Any, _: None) -> tuple[Any, Any]:
            state, obs = loop
            row = read_row(params.market.rows, state.row + 1)
            state, record = transition(state, row, hashed_action(obs), params)
            obs = observe(state, row, params)
            return (state, obs), (obs, record)

        _, (obs, record) = lax.scan(step, (state, first), length=steps)
        return jnp.concatenate([first[None], obs]), record

    played: tuple[jax.Array, StepRecord] = jax.vmap(episode)(rows, symbols)
    return played


def hashed_action(obs: jax.Array) -> jax.Array:
    """SELL, HOLD or BUY, int32, from all bits of `obs` `[O]` float32.

    Whichever bit changes, the action becomes another one with probability 2/3 (multiply and shift,
    as in Appleby's MurmurHash3 finaliser).
    """
    bits = lax.bitcast_convert_type(obs, jnp.uint32)
    mixed = jnp.uint32(0)
    for entry in range(obs.shape[0]):
        mixed = (mixed ^ bits[entry]) * jnp.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
        mixed = mixed ^ (mixed >> 16)
    return jnp.asarray(mixed % 3, jnp.int32)


# Comparisons


def _compare_tables(
    trial: _Trial,
    change: Change,
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    changed: Sequence[Bars],
    tally: Counter[str],
) -> Iterator[Violation]:
    """Violations in rows up to t of every symbol, and in what is known before the row after."""
    before = KNOWN_BEFORE + SEEN_BY_THE_FILL * change.same_fill
    known = np.array([name in before for name in COLUMNS])
    begin = begin_found = 0
    for symbol, cut, bars in zip(trial.symbols, trial.cuts, changed, strict=True):
        ours = expected[begin : begin + len(symbol.time)]
        theirs = found[begin_found : begin_found + len(bars.close)]
        begin, begin_found = begin + len(ours), begin_found + len(theirs)
        both = min(len(ours), len(theirs))
        compared = np.arange(both)[:, None] < cut + known  # row t + 1 is `cut`
        if not change.keeps_rows:
            compared = np.arange(both)[:, None] < np.full(known.shape, cut)
            compared[cut - 1 : cut, COLUMNS.index("session_close")] = False
        differs = _differs(ours[:both], theirs[:both])
        tally["values"] += int(compared.sum())
        tally["changed"] += int(differs[cut + 1 :].sum())
        for row, column in np.argwhere(differs & compared)[:1]:
            where = f"column {COLUMNS[column]} of row {_relative(row - cut + 1)}"
            values = ours[row, column], theirs[row, column]
            yield _violation(trial, change, symbol, cut, where, *values)


def _compare_episodes(
    trial: _Trial,
    change: Change,
    expected: tuple[jax.Array, StepRecord],
    found: tuple[jax.Array, StepRecord],
    tally: Counter[str],
) -> Iterator[Violation]:
    """Violations in observations, orders and fills up to t."""
    decided = DECIDED_BEFORE + FILLED_AT_OPEN * change.same_fill
    arrays = [
        (f"observation entry {entry} ({name})", 0, 1, expected[0][..., entry], found[0][..., entry])
        for entry, name in enumerate(ENTRIES)
    ]
    arrays += [
        (name, 1, int(name in decided), getattr(expected[1], name), getattr(found[1], name))
        for name in (field.name for field in fields(StepRecord))
    ]
    for name, bar_of_first, further, ours, theirs in arrays:
        compared = _upto(trial, further - 1, ours.shape[1])
        tally["values"] += int(compared.sum())
        differs = _differs(np.asarray(ours), np.asarray(theirs)) & compared
        for lane, step in np.argwhere(differs)[:1]:
            place = trial.place[lane]
            bar = _relative(step + bar_of_first - trial.decision[lane])
            where = f"{name} at bar {bar} of an episode from bar {trial.first[lane]:,}"
            values = ours[lane, step], theirs[lane, step]
            yield _violation(trial, change, trial.symbols[place], trial.cuts[place], where, *values)


def _upto(trial: _Trial, further: int, count: int | None = None) -> NDArray[np.bool_]:
    """`[N, count]`: steps up to each episode's decision on t and `further` beyond it."""
    steps = np.arange(trial.steps if count is None else count)
    return steps <= trial.decision[:, None] + further


def _differs(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Where bits differ: NaN equals itself, 0 is not −0."""
    if expected.dtype != np.float32:
        return np.asarray(expected != found)
    return np.asarray(expected.view(np.uint32) != found.view(np.uint32))


def _relative(bars: int) -> str:
    return "t" if bars == 0 else f"t {'+' if bars > 0 else '-'} {abs(bars)}"


def _violation(
    trial: _Trial,
    change: Change,
    symbol: Recorded,
    cut: int,
    where: str,
    expected: Any,
    found: Any,
) -> Violation:
    time = np.datetime64(int(trial.moment), "ns").astype("datetime64[s]")
    return Violation(
        symbol.symbol, time, int(cut) - 1, change.name, where, float(expected), float(found)
    )
