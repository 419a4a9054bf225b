"""The compiled environment against its float64 twin, on wild markets and random actions.

`CASES` are the static choices (one compilation each); every float of the configuration, the market
and the style of play vary from lane to lane within a case.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax.config import Account, Fills, Reward, Safeguards
from jules_jax.env.params import EnvParams
from jules_jax.env.record import Outcome, StepRecord
from jules_jax.env.transition import initial_state, transition
from jules_jax.evaluation.twin import Disagreement, compare, replay
from jules_jax.evaluation.twin.environment import _floor_quotient
from jules_jax.market.table import MarketData, Row, read_row
from tests.env.market_factory import make_market, wild_symbol

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
    Case(3, True, "intraday", "structural", 0, 1, True, 0, 0, 1, 0, 2, bar_seconds=300),
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
        "purgatory_escape_threshold_pct": (0.001, 0.03, 0.3, 1.0),
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


def play_sweep(sweep: Sweep) -> StepRecord:
    """Records of all lanes by the compiled environment."""
    return play(
        sweep.market,
        sweep.sections,
        jnp.asarray(sweep.progress),
        jnp.asarray(sweep.symbols, jnp.int32),
        jnp.asarray(sweep.starts, jnp.int32),
        jnp.asarray(sweep.actions, jnp.int32),
        max_steps=sweep.actions.shape[1],
    )


def replay_sweep(sweep: Sweep, lanes: list[int] | slice = slice(None), nudge=0.0) -> StepRecord:
    """Records of some lanes by the twin."""
    return replay(
        sweep.market.rows,
        sweep.starts[lanes],
        sweep.actions[lanes],
        **jax.tree.map(lambda leaf: leaf[lanes], sweep.sections),
        progress=sweep.progress[lanes],
        bar_seconds=sweep.market.bar_seconds,
        symbols=sweep.symbols[lanes],
        nudge=nudge,
    )


def disagreement(sweep: Sweep) -> tuple[Disagreement | None, StepRecord, int]:
    """The first disagreement, the twin's records, and how many lanes were settled as below.

    Sizes are computed from equity in multiples of 1/1024. A lane whose equity comes closer to the
    edge between two of them than its costs are rounded in float32 may go either way there: it
    counts as agreeing if it agrees, to its last step, with the twin nudged by that rounding. Over
    many sweeps such lanes must be fewer than one in a million steps.
    """
    record = play_sweep(sweep)
    record, twin = jax.tree.map(np.array, record), replay_sweep(sweep)
    capital = sweep.sections["account"].initial_capital
    first = compare(record, twin, initial_capital=capital)
    settled = 0
    while first is not None and settled <= sweep.actions.size // 1_000_000:
        settle_edge(sweep, record, twin, first)
        first = compare(record, twin, initial_capital=capital)
        settled += 1
    return first, twin, settled


def settle_edge(sweep: Sweep, record: StepRecord, twin: StepRecord, first: Disagreement) -> None:
    """Writes the nudged twin of the disagreeing lane into `twin`, if that one agrees."""
    lane = [first.lane]
    names = [field.name for field in dataclasses.fields(StepRecord)]
    capital = sweep.sections["account"].initial_capital[lane]
    paid = sum(abs(getattr(twin, name)[lane, : first.step + 1]).sum() for name in COSTS)
    rounding = np.finfo(np.float32).eps * paid / capital
    for nudge in (-rounding, rounding):
        nudged = replay_sweep(sweep, lane, nudge)
        alone = StepRecord(**{name: getattr(record, name)[lane] for name in names})
        if compare(alone, nudged, initial_capital=capital) is None:
            for name in names:
                getattr(twin, name)[lane] = getattr(nudged, name)


FLAGS = """
    forced capped_by_participation capped_by_cash close_quantity trip_closed purgatory_entered
    in_purgatory escaped hard_breach locked lock_released early_warning alternation terminated
    soft_breach_run cooldown_left reward_equity_change reward_action_change reward_same_action
    reward_drawdown reward_recovery_bonus reward_bootstrap_bonus
"""
PARTS = ("spread", "temporary", "transient", "permanent", "fees", "borrow")
COSTS = [f"cost_{part}" for part in PARTS]


def events(record: StepRecord) -> Counter:
    """How often each outcome, cap, safeguard event and reward term occurred."""
    live = record.time > 0
    counts = {outcome.name: np.sum(live & (record.outcome == outcome)) for outcome in Outcome}
    counts |= {name: np.count_nonzero(getattr(record, name)) for name in [*FLAGS.split(), *COSTS]}
    counts["forced, no volume"] = np.sum(record.forced & (record.outcome == Outcome.NO_VOLUME))
    escapes = live & record.escaped
    before = np.pad(record.equity_peak, ((0, 0), (1, 0)), constant_values=1.0)[:, :-1]
    counts["escaped by a new peak"] = np.sum(escapes & (record.equity > before))
    counts["in debt"] = np.sum(live & (record.equity < 0))
    counts["forced before the end"] = np.sum(record.forced & (record.outcome == Outcome.FLAT_BY))
    return Counter({name: int(count) for name, count in counts.items()})


def add(counts: Iterable[Counter]) -> Counter:
    """The sum; adding Counters would drop an event that never happened."""
    total: Counter = Counter()
    for count in counts:
        total.update(count)
    return total


@pytest.fixture(scope="module")
def seen() -> dict[int, Counter]:
    """Events of the cases played so far."""
    return {}


@pytest.mark.parametrize("index", range(len(CASES)))
def test_every_field_of_every_step_agrees_with_the_twin(index, seen):
    first, twin, _ = disagreement(draw_sweep(CASES[index], seed=index, lanes=400, steps=300))
    assert first is None
    seen[index] = events(twin)


def test_the_cases_make_every_event_happen(seen):
    if len(seen) < len(CASES):
        pytest.skip("counts over all cases, and not all of them were played")
    total = add(seen.values())
    assert {name: count for name, count in total.items() if count < 100} == {}
    assert set(Outcome.__members__) <= set(total)


def test_an_event_that_never_happens_is_counted_as_none():
    assert add([Counter(a=0, b=1), Counter(a=0, b=2)]) == Counter(a=0, b=3)
    assert "a" in add([Counter(a=0)])


@pytest.mark.long
def test_ten_thousand_full_episodes_agree_with_the_twin():
    rng, counts, episodes, steps, edges = np.random.default_rng(0), [], 0, 0, 0
    for seed in range(100, 120):
        sweep = draw_sweep(draw_case(rng), seed, lanes=500, steps=1000)
        first, twin, settled = disagreement(sweep)
        assert first is None, f"seed {seed}"
        edges += settled
        counts.append(events(twin))
        episodes += int(np.sum(twin.time[:, -1] == 1000))
        steps += int(np.sum(twin.time > 0))
    assert {name: count for name, count in add(counts).items() if count < 1000} == {}
    assert edges <= steps / 1_000_000
    assert episodes >= 5000
    assert steps >= 5_000_000


@pytest.mark.long
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(CASES), st.integers(0, 2**32 - 1))
def test_any_seed_agrees_with_the_twin(case, seed):
    first, *_ = disagreement(draw_sweep(case, seed, lanes=400, steps=300))
    assert first is None


def draw_case(rng: np.random.Generator) -> Case:
    """Any static choices."""
    choices = {
        "max_position_lots": (1, 2, 3, 4),
        "allow_short": (True, False),
        "spread_shape": ("flat", "intraday"),
        "lambda_source": ("structural", "rolling"),
        "trade_cooldown_steps": (0, 1, 3, 10),
        "flat_by_minutes": (0, 1, 5),
        "terminate_on_hard": (True, False),
        "early_warning_steps": (0, 3, 50),
        "lock_minutes": (0, 30, 390),
        "action_change_cap": (0, 1, 3),
        "thrash_window": (0, 5, 30),
        "same_action_cap": (0, 1, 3),
        "bar_seconds": (30, 60, 300),
    }
    return Case(**{name: rng.choice(values).item() for name, values in choices.items()})


def quiet_rows(rows: int) -> np.ndarray:
    """`[R, C]`: $100, 10,000 shares of volume a bar, far from any session's end."""
    columns = Row(
        open=100, close=100, previous_close=100, volume=10_000, half_spread=0, sigma_before=0.001,
        sigma=0.001, adv_before=1e6, expected_volume=2500, sigma_long_before=0.001,
        kyle_lambda_before=0, minute=100, minutes_left=200, session_open=0, session_close=0,
        tick=0.01, quantity_step=1, bars_per_session=400, market=np.zeros(8),
    )  # fmt: skip
    return np.tile(np.float32(np.hstack(columns)), (rows, 1))


def replay_quiet(actions: list[int], rows: np.ndarray | None = None, **safeguards) -> StepRecord:
    rows = quiet_rows(len(actions) + 1) if rows is None else rows
    limits = Safeguards(**safeguards)
    return replay(
        rows, [0], [actions], account=Account(), fills=Fills(), safeguards=limits, reward=Reward()
    )


def test_the_twin_fills_a_first_order_as_worked_by_hand():
    record = replay_quiet([2])
    assert record.quantity.item() == 125  # 25 % of 50,000 at 100
    costs = {
        "cost_spread": 3.125,  # 12,500 x 2.5 bp
        "cost_temporary": 0.2646014,  # 2/3 x 100 x 0.142 x 0.001 x 2500 x 0.05^1.5
        "cost_transient": 1.1236242,  # c = 0.67 x 0.9 x 0.02; 100 x c x 1e6/1.5 x 0.000125^1.5
        "cost_permanent": 0.1467494,  # 0.33 x 0.9/sqrt(0.001) x 0.02 x 100/1e6 x 125^2/2
        "cost_fees": 0.375,  # 12,500 x 0.3 bp
    }
    for name, dollars in costs.items():
        assert getattr(record, name).item() == pytest.approx(dollars, rel=1e-6)
    assert record.fill_price.item() == pytest.approx(100 + (5.034975 - 0.375) / 125, rel=1e-8)
    assert record.equity.item() == pytest.approx(1 - 5.034975 / 50_000, rel=1e-9)
    assert record.reward.item() == pytest.approx(-0.07 * 5.034975, rel=1e-6)
    assert record.recent_volume.item() == pytest.approx(0.5 * 125)
    assert record.displaced_ask.item() == pytest.approx(0.7 * 125)


def test_the_twin_holds_an_order_back_until_ten_bars_after_a_fill():
    record = replay_quiet([2] + [0] * 11)
    assert record.outcome[0].tolist() == [1, *[Outcome.COOLDOWN] * 9, 1, Outcome.COOLDOWN]
    assert record.reward_action_change[0, 10] == pytest.approx(-0.07 * 5)


def test_a_terminated_lane_is_silent():
    rows = quiet_rows(9)
    rows[2, Row._fields.index("close")] = 80
    rows[3:, :3] = 80
    record = replay_quiet([2] * 8, rows, terminate_on_hard=True)
    assert record.hard_breach[0].tolist() == [False, True] + [False] * 6
    assert record.outcome[0, 2] == Outcome.HARD_LIQUIDATION
    assert record.terminated[0].tolist() == [False, False, True] + [False] * 5
    assert not any(np.any(getattr(record, f.name)[0, 3:]) for f in dataclasses.fields(record))


@pytest.mark.parametrize(
    ("field", "change", "found"),
    [
        ("position", 1, True),
        ("locked", 1, True),
        ("fill_price", 0.0005, False),
        ("fill_price", 0.002, True),
        ("cost_fees", 0.04, False),
        ("cost_fees", 0.06, True),
        ("equity", 2e-6, True),
        ("reward_drawdown", 2e-4, True),
        ("net_pnl", np.nan, True),
    ],
)
def test_the_comparison_names_the_first_step_and_field_that_differ(field, change, found):
    twin = replay_quiet([2] + [0] * 11)
    values = np.array(getattr(twin, field), np.float64)
    values[0, 10] += change
    changed = dataclasses.replace(twin, **{field: values})
    first = compare(changed, twin, initial_capital=50_000)
    assert (first is not None) == found
    if first is not None:
        assert first[:3] == (0, 10, field)


@given(st.integers(1, 2**23), st.floats(2**-10, 2**20, width=32), st.sampled_from([1, 1e-4, 100]))
def test_floors_are_of_the_exact_quotient(quantity, price, step):
    price, step = np.float64(price), np.float64(np.float32(step))
    whole = np.asarray([Fraction(quantity) * Fraction(price) * Fraction(step)])
    dollars = np.asarray([np.nextafter(float(whole[0]), 0), float(whole[0])])
    expected = [Fraction(d) // (Fraction(price) * Fraction(step)) for d in dollars]
    assert _floor_quotient((dollars,), (price, step)).tolist() == expected
