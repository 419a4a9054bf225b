"""Market tables made in NumPy, as wild as the specification allows.

The columns mean what `market/table.py` says and fit one another as those of `build_rows` do:
`previous_close` is the row above's close, `sigma` the next row's `sigma_before`, sessions open and
close where they should. Their values are drawn, not computed from bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jules_jax.market.table import NEVER_CLOSES, NUM_MARKET_ENTRIES, MarketData, Row

MOST_STEPS = 2**23
"""Quantity steps in a full-size position: the feed raises `quantity_step` to stay below."""


@dataclass(frozen=True)
class Symbol:
    """How one stretch of rows is drawn; prices are dollars, volumes shares."""

    price: float = 100.0
    capital: float = 50_000.0  # what lanes trade it with
    quantity_step: float = 1.0
    tick: float = 0.01
    sigma: float = 1e-3  # sd of a bar's return
    jump_rate: float = 0.002  # bars that jump by up to `jump`
    jump: float = 0.5  # up by at most this share, down by at most half
    daily_capitals: float = 100.0  # average daily volume, in multiples of capital / price
    bars_per_session: int = 40
    continuous: bool = False
    half_spread: bool = False  # whether the source has one
    kyle_lambda: bool = True  # whether there is a rolling estimate
    halts: float = 0.01  # rate at which runs of zero volume begin


def wild_symbol(rng: np.random.Generator) -> Symbol:
    """A symbol with every property drawn."""
    price = 10.0 ** rng.uniform(-3, 6)
    capital = 10.0 ** rng.uniform(4, 9)
    return Symbol(
        price=price,
        capital=capital,
        quantity_step=float(rng.choice([1e-4, 1.0, 10.0, 100.0])),
        tick=float(rng.choice([0.0, 1e-5, 1e-3])) * 10.0 ** np.ceil(np.log10(price)),
        sigma=10.0 ** rng.uniform(-4, -2),
        jump_rate=float(rng.choice([0.0, 0.002, 0.02])),
        jump=float(rng.choice([0.02, 0.5, 2.0])),
        daily_capitals=10.0 ** rng.uniform(-0.5, 4),
        bars_per_session=int(rng.choice([12, 40, 390])),
        continuous=rng.random() < 0.3,
        half_spread=rng.random() < 0.3,
        kyle_lambda=rng.random() < 0.7,
        halts=float(rng.choice([0.0, 0.01, 0.1])),
    )


def make_rows(
    rng: np.random.Generator, symbol: Symbol, bars: int, bar_minutes: float = 1.0
) -> np.ndarray:
    """Rows `[B, C]` float32 of one stretch."""
    session, slot = _sessions(rng, symbol, bars)
    opens = np.diff(session, prepend=-1) != 0
    closes = np.diff(session, append=session[-1] + 1) != 0
    open_, close = _prices(rng, symbol, opens & ~np.bool_(symbol.continuous), bars)
    volume, expected, adv = _volumes(rng, symbol, session, close[0])
    noise = np.exp(0.5 * rng.standard_normal(bars + 1))
    sigma = np.maximum(symbol.sigma * noise, 1e-6)
    minute = np.floor(slot * bar_minutes)
    estimate = 9.0 * np.exp(rng.standard_normal(bars)) * rng.choice([1, 1, 1, -1, 0], bars)
    if symbol.continuous:
        opens = closes = np.zeros(bars, bool)
        minutes_left = np.full(bars, NEVER_CLOSES)
    else:
        minutes_left = np.floor(symbol.bars_per_session * bar_minutes) - minute
    row = Row(
        open=open_,
        close=close,
        previous_close=np.concatenate([open_[:1], close[:-1]]),
        volume=volume,
        half_spread=2e-4 * np.exp(rng.standard_normal(bars)) * symbol.half_spread,
        sigma_before=sigma[:-1],
        sigma=sigma[1:],
        adv_before=adv,
        expected_volume=expected,
        sigma_long_before=np.full(bars, symbol.sigma),
        kyle_lambda_before=estimate * symbol.kyle_lambda,
        minute=minute,
        minutes_left=minutes_left,
        session_open=opens,
        session_close=closes,
        tick=np.full(bars, symbol.tick),
        quantity_step=np.full(bars, quantity_step(symbol, min(open_.min(), close.min()))),
        bars_per_session=np.full(bars, symbol.bars_per_session),
        market=np.clip(rng.standard_normal((bars, NUM_MARKET_ENTRIES)), -5, 5),
    )
    columns = [np.asarray(column, np.float32) for column in row[:-1]]
    return np.column_stack([*columns, np.float32(row.market)])


def quantity_step(symbol: Symbol, lowest_price: float) -> float:
    """The symbol's step, raised by powers of ten until a full-size position is exact."""
    step = symbol.quantity_step
    while 2.0 * symbol.capital / lowest_price / step >= MOST_STEPS:
        step *= 10.0
    return step


def make_market(
    rng: np.random.Generator, symbols: list[Symbol], bars: int, episode: int, bar_seconds: int = 60
) -> MarketData:
    """One stretch of `bars` rows per symbol, with room for episodes of `episode` steps in each."""
    rows = [make_rows(rng, symbol, bars, bar_seconds / 60) for symbol in symbols]
    first = np.arange(len(symbols)) * bars
    episodes = np.column_stack([np.arange(len(symbols)), first, first + bars - 1 - episode])
    starts = np.arange(1, len(symbols) + 1) * (bars - episode)
    return MarketData(
        rows=jnp.asarray(np.concatenate(rows)),
        episodes=jnp.asarray(episodes, jnp.int32),
        cumulative=jnp.asarray(starts, jnp.int32),
        bar_seconds=bar_seconds,
    )


def _sessions(rng: np.random.Generator, symbol: Symbol, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """Session and slot of each bar `[B]`: full, short and cut-off sessions, with bars missing."""
    sessions, slots, count = [], [], 0
    while len(slots) < bars:
        count += 1
        full = np.arange(symbol.bars_per_session)
        kept = full[rng.random(full.size) > rng.choice([0.0, 0.0, 0.1])]
        last = rng.choice([full.size, full.size, rng.integers(2, full.size + 1)])
        kept = kept[:last] if not symbol.continuous and kept.size > 2 else full
        slots += kept.tolist()
        sessions += [count] * kept.size
    return np.asarray(sessions[:bars]), np.asarray(slots[:bars])


def _prices(
    rng: np.random.Generator, symbol: Symbol, opens: np.ndarray, bars: int
) -> tuple[np.ndarray, np.ndarray]:
    """Opens and closes `[B]`: a walk that jumps, gaps overnight, and stays near its level."""
    moves = symbol.sigma * rng.standard_normal((bars, 2)) * [0.2, 1.0]
    moves[:, 0] += opens * 5 * symbol.sigma * rng.standard_normal(bars)
    jumps = rng.random((bars, 2)) < symbol.jump_rate / 2
    sizes = np.log1p(np.maximum(symbol.jump * rng.uniform(-1, 1, (bars, 2)), -0.5))
    path, level = np.empty(2 * bars), 0.0
    for i, move in enumerate((moves + jumps * sizes).ravel()):
        level += move - 0.01 * max(abs(level) - 1, 0) * np.sign(level)
        path[i] = level
    path = symbol.price * np.exp(path)
    if symbol.tick:
        path = np.maximum(np.round(path / symbol.tick), 1) * symbol.tick
    return path[::2], path[1::2]


def _volumes(
    rng: np.random.Generator, symbol: Symbol, session: np.ndarray, price: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Volume, expected volume and ADV of each bar `[B]`, with runs of no volume."""
    bars = session.size
    daily = symbol.daily_capitals * symbol.capital / price
    adv = daily * np.exp(0.2 * rng.standard_normal(bars))[session]
    step = symbol.quantity_step
    expected = adv / symbol.bars_per_session * np.exp(0.5 * rng.standard_normal(bars))
    expected = np.maximum(expected, step)
    volume = expected * np.exp(rng.standard_normal(bars))
    halted = np.zeros(bars, bool)
    for start in np.flatnonzero(rng.random(bars) < symbol.halts):
        halted[start : start + rng.integers(1, 8)] = True
    return np.where(halted, 0.0, volume), expected, np.maximum(adv, step)
