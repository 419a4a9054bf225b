"""The compiled environment against its float64 twin, on wild markets and random actions.

`CASES` are the static choices (one compilation each); every float of the configuration, the market
and the style of play vary from lane to lane within a case.
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax.config import Account, Fills, Reward, Safeguards
from jules_jax.env.params import EnvParams
from jules_jax.env.record import Outcome, StepRecord
from jules_jax.env.transition import initial_state, transition
from jules_jax.evaluation.twin import compare, replay
from jules_jax.market.table import MarketData, read_row
from tests.env.market_factory import Symbol, make_market, wild_symbol

SYMBOLS = 24


@dataclass(frozen=True)
class Case:
    """Static choices of the configuration."""

    max_position_lots: int = 1
    allow_short: bool = True
    spread_shape: str = "flat"
    lambda_source: str = "structural"
    trade_cooldown_steps: int = 10
    flat_by_minutes: int = 5
    terminate_on_hard: bool = False
    early_warning_steps: int = 50
    lock_minutes: int = 390
    action_change_cap: int = 3
    thrash_window: int = 30
    same_action_cap: int = 3
    bar_seconds: int = 60

    def of(self, section: type) -> dict:
        """The choices that are fields of a section."""
        names = {f.name for f in dataclasses.fields(section)}
        return {k: v for k, v in dataclasses.asdict(self).items() if k in names}


CASES = (
    Case(),
    Case(4, True, "intraday", "rolling", 1, 0, False, 3, 30, 2, 5, 1),
    Case(1, False, "flat", "rolling", 1, 5, True, 50, 390, 3, 30, 3),
    Case(2, True, "flat", "structural", 3, 0, True, 10, 30, 3, 4, 3, bar_seconds=300),
    Case(3, False, "intraday", "structural", 1, 1, False, 3, 60, 1, 30, 2),
    Case(2, True, "intraday", "rolling", 0, 5, False, 0, 0, 3, 0, 3, bar_seconds=30),
)

VALUES = {
    Account: {
        "position_size_pct": (0.002, 0.25, 0.5, 0.95),
        "max_position_size_pct": (0.3, 0.95, 1.0),
        "min_cash_reserve_pct": (0.0, 0.05, 0.3),
        "borrow_rate": (0.0, 0.005, 2.0),
    },
    Fills: {
        "bid_ask_spread_bps": (0.0, 5.0, 80.0),
        "fee_bps": (0.0, 0.3, 30.0),
        "sell_fee_bps": (0.0, 0.3),
        "max_participation": (0.01, 0.1, 1.0),
        "temporary_impact": (0.0, 0.142, 1.0),
        "temporary_impact_decay": (0.0, 0.5, 0.95),
        "impact_decay": (0.0, 0.7, 0.99),
        "impact_prefactor": (0.0, 0.9, 2.0),
        "impact_exponent": (0.25, 0.5, 1.0),
        "permanent_share": (0.0, 0.33, 1.0),
        "reference_size": (0.001, 0.01),
    },
    Safeguards: {
        "purgatory_escape_threshold_pct": (0.001, 0.03),
        "early_warning_excess": (0.0, 0.0005, 0.005),
    },
    Reward: {
        "reward_scaling": (0.07, 1.0),
        "action_change_penalty_factor": (0.0, 5.0),
        "same_action_penalty_factor": (0.0, 0.2),
        "drawdown_weight_start": (0.0, 1500.0),
        "drawdown_weight_end": (1500.0, 7500.0),
        "drawdown_schedule": (0.3, 1.0),
        "drawdown_gain": (0.0, 7.0),
        "drawdown_gain_slope": (0.0, 150.0),
        "drawdown_cap": (0.01, 15.0),
        "recovery_bonus_amount": (0.0, 0.01),
        "bootstrap_bonus_amount": (0.01,),
    },
}
LIMITS = ((0.002, 0.003), (0.01, 0.015), (0.03, 0.04))
"""Soft and hard drawdown limits."""


@dataclass(frozen=True)
class Sweep:
    """What the lanes of a case play: sections with `[N]` floats, starts `[N]`, actions `[N, T]`."""

    market: MarketData
    sections: dict
    progress: np.ndarray
    symbols: np.ndarray
    starts: np.ndarray
    actions: np.ndarray


def draw_sweep(case: Case, seed: int, lanes: int, steps: int) -> Sweep:
    rng = np.random.default_rng(seed)
    symbols = [wild_symbol(rng) for _ in range(SYMBOLS)]
    market = make_market(rng, symbols, steps + 64, steps, case.bar_seconds)
    symbol = rng.integers(SYMBOLS, size=lanes)
    starts = np.asarray(market.episodes)[symbol, 1] + rng.integers(0, 64, lanes)
    soft, hard = np.asarray(LIMITS)[rng.integers(len(LIMITS), size=lanes)].T
    drawn = {
        section: {name: rng.choice(values, lanes) for name, values in table.items()}
        for section, table in VALUES.items()
    }
    drawn[Safeguards] |= {"soft_dd_pct": soft, "hard_dd_pct": hard}
    capital = np.asarray([symbols[s].capital for s in symbol])
    drawn[Account]["initial_capital"] = capital * rng.choice([0.5, 1.0], lanes)
    sections = {
        section.__name__.lower(): section(
            **case.of(section), **{name: np.float32(value) for name, value in floats.items()}
        )
        for section, floats in drawn.items()
    }
    progress = rng.choice(np.float32([0, 0.2, 0.5, 1]), lanes)
    return Sweep(market, sections, progress, symbol, starts, draw_actions(rng, lanes, steps))


def draw_actions(rng: np.random.Generator, lanes: int, steps: int) -> np.ndarray:
    """Actions `[N, T]` in one style a lane: uniform, sticky, alternating, always in."""
    uniform = rng.integers(0, 3, (lanes, steps))
    held = rng.random((lanes, steps)) < 0.9
    held[:, 0] = False
    last_drawn = np.maximum.accumulate(np.where(held, 0, np.arange(steps)), axis=1)
    sticky = np.take_along_axis(uniform, last_drawn, axis=1)
    period = rng.choice([1, 2, 10, 12, 35], (lanes, 1))
    alternating = 2 * (np.arange(steps) // period % 2)
    alternating = np.where((np.arange(steps) % period == 0) | (period == 1), alternating, 1)
    always_in = np.broadcast_to(rng.choice([0, 2], (lanes, 1)), (lanes, steps))
    styles = np.stack([uniform, sticky, alternating, always_in])
    return styles[rng.integers(4, size=lanes), np.arange(lanes)]


@partial(jax.jit, static_argnames="max_steps")
def play(
    market: MarketData, sections: dict, progress, symbols, starts, actions, max_steps: int
) -> StepRecord:
    """Records `[N, T]` of the compiled environment."""

    def lane(sections, progress, symbol, start, actions):
        params = EnvParams(market, **sections, progress=progress, max_steps_in_episode=max_steps)

        def step(carry, action):
            state, row = carry
            state, record = transition(state, read_row(market.rows, row + 1), action, params)
            return (state, row + 1), record

        state = initial_state(read_row(market.rows, start), start, symbol, params)
        return jax.lax.scan(step, (state, start), actions)[1]

    return jax.vmap(lane)(sections, progress, symbols, starts, actions)


def play_both(sweep: Sweep) -> tuple[StepRecord, StepRecord]:
    record = play(
        sweep.market,
        sweep.sections,
        jnp.asarray(sweep.progress),
        jnp.asarray(sweep.symbols, jnp.int32),
        jnp.asarray(sweep.starts, jnp.int32),
        jnp.asarray(sweep.actions, jnp.int32),
        max_steps=sweep.actions.shape[1],
    )
    twin = replay(
        sweep.market.rows,
        sweep.starts,
        sweep.actions,
        **sweep.sections,
        progress=sweep.progress,
        bar_seconds=sweep.market.bar_seconds,
        symbols=sweep.symbols,
    )
    return jax.tree.map(np.asarray, record), twin


def events(record: StepRecord) -> Counter:
    """How often each outcome, cap, safeguard event and reward term occurred."""
    counts = Counter({o.name: int(np.sum((record.outcome == o) & (record.time > 0))) for o in Outcome})
    flags = (
        "forced capped_by_participation capped_by_cash close_quantity trip_closed purgatory_entered "
        "in_purgatory escaped hard_breach locked lock_released early_warning alternation terminated "
        "soft_breach_run cooldown_left reward_equity_change reward_action_change "
        "reward_same_action reward_drawdown reward_recovery_bonus reward_bootstrap_bonus "
        "cost_spread cost_temporary cost_transient cost_permanent cost_fees cost_borrow"
    )
    return counts | {name: int(np.count_nonzero(getattr(record, name))) for name in flags.split()}


@pytest.fixture(scope="module")
def seen() -> Counter:
    """Events over all cases played so far."""
    return Counter()


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_field_of_every_step_agrees_with_the_twin(case, seen):
    sweep = draw_sweep(case, seed=CASES.index(case), lanes=256, steps=300)
    record, twin = play_both(sweep)
    assert compare(record, twin, initial_capital=sweep.sections["account"].initial_capital) is None
    seen.update(events(twin))


def test_the_cases_make_every_event_happen(seen):
    if not seen:
        pytest.skip("counts what the cases above have played")
    assert {name: count for name, count in seen.items() if count < 100} == {}
