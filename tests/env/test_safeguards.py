"""Each safeguard is forced to fire, and shown to end."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax.config import Account, Reward, Safeguards
from jules_jax.env.params import cast_section
from jules_jax.env.record import Outcome
from jules_jax.env.reward import drawdown_penalty, drawdown_weight
from tests.env.episodes import (
    ALL_IN,
    BUY,
    FREE,
    HOLD,
    NIMBLE,
    SELL,
    STRICT,
    market,
    play,
    play_lanes,
    script,
    sessions,
)
from tests.env.market_factory import Symbol, make_rows

SOFT, HARD, ESCAPE = 0.03, 0.04, 0.03
REWARD = Reward()


def holder(equity, *, orders=None, columns=None, safeguards=NIMBLE):
    """The record of one who buys 500 shares at 100 dollars at once and holds, at no cost.

    `equity` lists the closes of the steps after the first, as equity in units of initial capital
    while the position is held; `orders` are further actions by step.
    """
    prices = 100 * np.concatenate([[1.0, 1.0], equity])
    rows = market(prices, **(columns or {}))
    actions = script(len(prices) - 1, {0: BUY, **(orders or {})})
    lots = {"max_position_lots": 3} if safeguards is STRICT else {}
    account = Account(
        position_size_pct=1.0, max_position_size_pct=1.0, min_cash_reserve_pct=0.0, **lots
    )
    return play(rows, actions, account=account, fills=FREE, safeguards=safeguards)


def steps(flags) -> list[int]:
    return np.flatnonzero(flags).tolist()


# cooldown, flat-by and session boundaries


def test_after_a_fill_in_bar_b_the_next_is_in_bar_b_plus_ten():
    record = play(market(np.full(51, 100.0)), [BUY] + [SELL] * 49)
    assert steps(record.quantity) == [0, 10, 20]  # buy, close, short; then the ladder ends
    assert np.all(record.outcome[1:10] == Outcome.COOLDOWN)
    assert np.all(record.outcome[11:20] == Outcome.COOLDOWN)
    assert record.cooldown_left[:12].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 8]
    assert record.action_matters[:12].tolist() == [True, *[False] * 9, True, False]


def test_a_refused_order_starts_no_cooldown_and_a_forced_one_neither():
    volume = np.full(16, 1e7)
    volume[1] = 0
    record = play(market(np.full(16, 100.0), volume=volume), [BUY] * 15)
    assert steps(record.quantity) == [1] and record.outcome[0] == Outcome.NO_VOLUME
    record = holder([0.955, 0.955, 0.955], safeguards=Safeguards())
    assert record.forced[2] and record.quantity[2] < 0
    assert record.cooldown_left[:4].tolist() == [9, 8, 7, 6]


def test_flat_by_beats_the_cooldown_and_nothing_is_opened_after_it():
    columns = sessions(61, 40, first=1)  # row r is bar r + 1 of its session
    actions = script(60, dict.fromkeys(range(30, 39), BUY))
    record = play(market(np.full(61, 100.0), **columns), actions)
    assert steps(record.quantity) == [30, 33]  # row 34 is bar 35, with five minutes left
    assert record.outcome[33] == Outcome.FLAT_BY and record.forced[33]
    assert record.cooldown_left[32] == 7  # still cooling down from the entry
    assert np.all(record.outcome[34:38] == Outcome.FLAT_BY) and not record.forced[34:].any()
    assert record.outcome[38] == Outcome.CANCELLED_AT_CLOSE  # row 39 opens the next session
    assert np.all(record.position[33:] == 0) and not record.action_matters[33:39].any()


def test_a_session_forgets_cooldown_and_book_but_not_drawdown():
    columns = sessions(61, 40, first=10)
    closes = np.full(61, 100.0)
    closes[27:] = 99.0  # row 30 opens the next session; flat from row 25 on
    actions = script(60, {22: BUY, 29: BUY, 30: SELL})
    record = play(market(closes, **columns), actions)
    assert record.outcome[29] == Outcome.CANCELLED_AT_CLOSE and record.cooldown_left[29] == 0
    assert record.quantity[30] < 0, "an order fills in the second bar of a session"
    assert min(record.recent_volume[28], record.displaced_ask[28], record.displaced_bid[28]) > 0
    assert max(record.recent_volume[29], record.displaced_ask[29], record.displaced_bid[29]) == 0
    assert record.equity_peak[-1] == 1 and record.drawdown[29] > 0
    assert not record.alternation[30]  # the sell of step 30 opposes nothing of this session
    assert np.all(record.kyle_lambda == record.kyle_lambda[0])


def test_positions_never_cross_the_boundary_of_a_session():
    rng = np.random.default_rng(0)
    rows = np.stack([make_rows(rng, Symbol(halts=0.1), 257) for _ in range(64)])
    record, _ = play_lanes(rows, rng.integers(0, 3, (64, 256)), safeguards=NIMBLE)
    ends = rows[:, 1:, 14] > 0  # session_close
    assert ends.sum() > 300 and np.all(record.position[ends] == 0)
    assert np.count_nonzero(record.close_quantity) > 20
    assert np.all(ends[record.close_quantity != 0])


def test_a_market_that_never_closes_forces_nothing():
    record = holder(np.full(250, 1.0))
    assert not record.forced.any() and np.all(record.position[1:] == 500)


# soft drawdown and purgatory


def test_purgatory_begins_beyond_three_percent_below_the_peak():
    record = holder([1.02, 0.995, 0.9895, 0.9893, 0.995])
    depth = 1 - np.array([1.02, 0.995, 0.9895, 0.9893, 0.995]) / 1.02
    np.testing.assert_allclose(record.drawdown[1:], depth, atol=1e-6)
    assert steps(record.purgatory_entered) == [4] and steps(record.in_purgatory) == [4, 5]


def test_purgatory_ends_at_three_percent_above_the_trough_and_the_peak_becomes_equity():
    record = holder([0.9695, 0.965, 0.98, 0.99, 0.9939, 0.9941, 0.97, 0.964])
    assert steps(record.purgatory_entered) == [1, 8]
    assert steps(record.escaped) == [6]  # 0.965 · 1.03 = 0.99395
    np.testing.assert_allclose(record.trough[1:6], [0.9695, *[0.965] * 4], atol=1e-6)
    np.testing.assert_allclose(record.equity_peak[5:8], [1.0, 0.9941, 0.9941], atol=1e-6)
    assert record.drawdown[6] == 0  # and 0.964 is 3.03 % below 0.9941


def test_purgatory_ends_above_the_peak_where_that_comes_first():
    patient = replace(NIMBLE, purgatory_escape_threshold_pct=0.2)
    record = holder([0.965, 0.999, 1.0, 1.0001, 1.0], safeguards=patient)
    assert steps(record.escaped) == [4], "back at the peak is not above it"
    assert steps(record.in_purgatory) == [1, 2, 3]


def test_purgatory_has_no_time_limit():
    record = holder([0.965] * 600)
    assert record.in_purgatory[1:].all() and not record.escaped.any()


def test_the_early_warning_comes_after_fifty_steps_and_ends_with_the_drawdown():
    record = holder([0.964] * 60 + [0.968] + [0.964] * 20, orders={75: SELL})
    assert not record.hard_breach.any()
    assert steps(record.early_warning) == list(range(51, 61))  # the 51st such step and on
    assert record.soft_breach_run[1:76].tolist() == [*range(1, 75), 0]
    assert np.all(record.soft_breach_run[75:] == 0), "flat, though the drawdown lasts"


def recomputed_resets(record) -> np.ndarray:
    """Steps on which the recorded peak is not the running maximum of recorded equity."""
    before = np.concatenate([np.ones((len(record.equity), 1)), record.equity_peak[:, :-1]], axis=1)
    return record.equity_peak < np.maximum(before, record.equity)


def count_resets_and_check_each(seed: int) -> int:
    """Resets in 96 random episodes, each one explained by equity, peak and trough alone."""
    rng = np.random.default_rng(seed)
    symbol = Symbol(sigma=4e-3, daily_capitals=1e4, bars_per_session=390)
    rows = np.stack([make_rows(rng, symbol, 513) for _ in range(96)])
    actions = rng.choice(3, (96, 512), p=[0.1, 0.3, 0.6])
    record, _ = play_lanes(rows, actions, account=ALL_IN, safeguards=NIMBLE)
    resets = recomputed_resets(record)
    lowest, inside = np.ones(len(rows)), np.zeros(len(rows), bool)
    peak = np.ones(len(rows))
    for t in range(512):
        equity = np.float64(record.equity[:, t])
        lowest = np.where(inside, np.minimum(lowest, equity), lowest)
        recovered = inside & (equity >= (1 + ESCAPE) * lowest - 2e-7)
        false = resets[:, t] & ~recovered
        assert not false.any()
        np.testing.assert_array_equal(record.escaped[:, t] & ~recovered & (equity <= peak), False)
        left = record.escaped[:, t]
        peak = np.where(left, equity, np.maximum(peak, equity))
        np.testing.assert_allclose(record.equity_peak[:, t], peak, rtol=2e-7)
        enters = ~(inside & ~left) & (1 - equity / peak > SOFT)
        clear = np.abs(1 - equity / peak - SOFT) > 1e-6
        inside = np.where(clear, (inside & ~left) | enters, record.in_purgatory[:, t])
        np.testing.assert_array_equal(record.in_purgatory[:, t], inside)
        lowest = np.where(enters, equity, lowest)
    return int(resets.sum())


def test_an_account_in_debt_is_freed_by_nothing_but_a_new_peak():
    """A short through a halt: 3 % above a trough below zero would be no recovery at all."""
    prices = [100.0, 100.0, 220.0, 250.0, 249.0, 240.0]
    record = play(
        market(prices, volume=[1e7, 1e7, 0, 0, 0, 0]),
        script(5, {0: SELL}),
        account=ALL_IN,
        fills=FREE,
        safeguards=NIMBLE,
    )
    assert record.trough[-1] < 0 and record.equity[-1] > record.trough[-1]
    assert not record.escaped.any()
    np.testing.assert_array_equal(record.equity_peak, 1)


def test_no_peak_is_reset_without_a_new_peak_or_a_recovery_of_three_percent():
    assert count_resets_and_check_each(seed=3) > 50


@pytest.mark.long
def test_no_peak_is_falsely_reset_in_ten_thousand_episodes():
    assert sum(count_resets_and_check_each(seed) for seed in range(105)) > 5_000


# hard breach, entry lock, release


def test_a_hard_breach_closes_the_position_and_locks_entries_until_the_next_session():
    columns = sessions(60, 30, first=0)
    equity = [0.955] * 58
    record = holder(equity, orders=dict.fromkeys(range(1, 34), BUY), columns=columns)
    assert steps(record.hard_breach) == [1]
    assert record.outcome[2] == Outcome.HARD_LIQUIDATION and record.position[2] == 0
    assert np.all(record.outcome[3:24] == Outcome.ENTRY_LOCKED)
    assert np.all(record.outcome[24:29] == Outcome.FLAT_BY)  # rows 25 to 29 of the session
    assert record.outcome[29] == Outcome.CANCELLED_AT_CLOSE and steps(record.lock_released) == [29]
    assert record.locked[1:29].all() and not record.locked[29:].any()
    assert record.outcome[30] == Outcome.EXECUTED  # the drawdown is still 4.5 %, yet nothing fires
    assert record.drawdown[30] > HARD and not record.hard_breach[2:].any()
    assert np.all(record.equity_peak == 1), "a release is no reset"


def test_a_breach_is_a_step_and_not_a_level():
    columns = sessions(60, 30, first=0)
    record = holder([0.955] + [0.95] * 57, columns=columns)
    assert record.hard_breach.sum() == 1
    assert np.all(record.drawdown[1:] > HARD)


def test_after_release_the_hard_limit_counts_from_the_equity_at_release():
    """Released at 0.955: fires at 0.955 · 0.96 = 0.9168, not before."""
    closes = np.full(90, 95.5)
    closes[:2] = 100.0
    closes[45:] = 95.5 * np.concatenate([[0.97, 0.961, 0.9599], np.full(42, 0.95)])
    rows = market(closes, **sessions(90, 30))
    orders = {0: BUY, 40: BUY}
    record = play(rows, script(89, orders), account=ALL_IN, fills=FREE, safeguards=NIMBLE)
    assert record.position[39:41].tolist() == [0, 499]
    assert record.equity[45] > 0.96 * 0.955 > record.equity[46]  # 0.9178 and 0.9168
    assert steps(record.hard_breach) == [1, 46]
    assert steps(record.lock_released) == [29, 59]


def test_the_hard_limit_is_armed_again_once_the_drawdown_is_below_soft():
    closes = np.full(80, 95.5)
    closes[:2] = 100.0
    closes[40:43] = 97.3  # from 0.955 to 0.973: drawdown 2.7 %, below soft
    closes[43:] = 95.8  # drawdown 4.2 %, only 1.5 % below the release's 0.955 · …
    rows = market(closes, **sessions(80, 70, first=50))
    orders = {0: BUY, 25: BUY}
    record = play(rows, script(79, orders), account=ALL_IN, fills=FREE, safeguards=NIMBLE)
    assert steps(record.lock_released) == [19]  # row 20 opens a session
    assert record.drawdown[38] > HARD and not record.hard_breach[20:42].any()
    assert record.drawdown[39] < SOFT
    assert record.equity[42] > 0.96 * 0.955, "disarmed, it would not have fired"
    assert steps(record.hard_breach) == [1, 42]


def test_without_sessions_the_lock_lasts_its_minutes():
    record = holder([0.955] * 60, orders=dict.fromkeys(range(1, 60), BUY))
    assert steps(record.hard_breach) == [1] and record.position[2] == 0
    assert np.all(record.outcome[3:22] == Outcome.ENTRY_LOCKED)
    assert steps(record.lock_released) == [22]  # 20 bars of a minute lie between
    assert record.outcome[22] == Outcome.EXECUTED and record.position[22] > 0


def test_a_lock_without_sessions_outlasts_its_minutes_until_the_position_is_closed():
    volume = np.full(62, 1e7)
    volume[3:40] = 0.0  # rows: steps 2 to 38 find no buyer
    record = holder([0.955] * 60, columns={"volume": volume})
    assert record.position[38] == 500 and record.position[39] == 0
    assert np.all(record.outcome[2:39] == Outcome.NO_VOLUME)
    assert steps(record.lock_released) == [40]


@pytest.mark.parametrize(("liquid", "end"), [(True, 2), (False, 5)])
def test_with_terminate_on_hard_the_episode_ends_on_the_step_that_closes_the_position(liquid, end):
    volume = np.full(22, 1e7)
    volume[3:6] = 1e7 if liquid else 0.0
    record = holder([0.955] * 20, columns={"volume": volume}, safeguards=STRICT)
    assert steps(record.hard_breach) == [1]
    assert steps(record.terminated)[0] == end and record.position[end] == 0
    assert record.quantity[end] == -500
    assert not holder([0.955] * 20).terminated.any()


def test_with_terminate_on_hard_an_episode_already_flat_ends_at_once():
    """The position is sold at an open far below the last close: flat when the breach fires."""
    opens = np.array([100.0, 100, 95, 95, 95])
    rows = market([100.0, 100, 95, 95, 95], open=opens)
    account = Account(position_size_pct=1.0, max_position_size_pct=1.0, min_cash_reserve_pct=0.0,
                      max_position_lots=3)  # fmt: skip
    record = play(rows, [BUY, SELL, HOLD, HOLD], account=account, fills=FREE, safeguards=STRICT)
    assert record.position[1] == 0 and record.hard_breach[1] and record.terminated[1]


# the drawdown term of the reward


def penalty(depth, weight=7500.0, reward=REWARD) -> np.ndarray:
    sections = cast_section(reward), cast_section(Safeguards())
    return np.asarray(drawdown_penalty(jnp.float32(depth), jnp.float32(weight), *sections))


@pytest.mark.parametrize(
    ("progress", "weight", "at_hard"),
    [(0.0, 1500, 0.0105), (0.5, 4500, 0.0315), (1.0, 7500, 0.0525)],
)
def test_the_drawdown_weight_grows_and_the_term_at_the_hard_limit_with_it(
    progress, weight, at_hard
):
    reward = cast_section(Reward())
    found = drawdown_weight(jnp.float32(progress), reward)
    assert float(found) == pytest.approx(weight, rel=1e-6)
    assert 0.07 * penalty(HARD, found) == pytest.approx(at_hard, rel=1e-4)
    early = cast_section(Reward(drawdown_schedule=0.25))
    assert float(drawdown_weight(jnp.float32(0.6), early)) == 7500


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1e4), st.floats(0, 20), st.floats(0, 500))
def test_the_drawdown_term_is_continuous_monotone_and_capped(weight, gain, slope):
    reward = Reward(drawdown_gain=gain, drawdown_gain_slope=slope)
    depth = np.linspace(0, 0.12, 4801)
    found = penalty(depth, weight, reward)
    assert np.all(found[depth <= SOFT] == 0) and np.all(np.diff(found) >= -1e-6 * found[1:])
    assert found.max() <= 15.0
    spacing = depth[1]
    steepest = weight * (1 + gain) * 2 * 0.09 + weight * gain * slope * 0.09**2
    assert np.all(np.diff(found) <= spacing * steepest * 1.01 + 1e-5)


def test_the_drawdown_term_beyond_the_hard_limit_by_hand():
    # x = 0.02, g = 1 + 7·tanh(150·0.01) = 7.3360, 7500 · g · x² = 22.0: capped; at 1500, 4.402
    assert float(penalty(0.05)) == 15.0
    assert float(penalty(0.05, 1500.0)) == pytest.approx(4.4016, rel=1e-4)


def test_the_drawdown_term_is_paid_on_steps_that_end_with_a_position_only():
    record = holder([0.965] * 6, orders={4: SELL})
    expected = -0.07 * 7500 * 0.005**2
    np.testing.assert_allclose(record.reward_drawdown[1:4], expected, rtol=1e-3)
    assert np.all(record.reward_drawdown[4:] == 0) and record.drawdown[5] > SOFT


# no safeguard is absorbing


@pytest.mark.long
def test_an_always_in_holder_who_is_locked_out_comes_back():
    """At 95 % size and 8 bp a bar over 10,000 steps."""
    rng = np.random.default_rng(0)
    lanes, bars = 192, 10_000
    walks = 100 * np.exp(np.cumsum(8e-4 * rng.standard_normal((lanes, bars + 1)), axis=1))
    columns = sessions(bars + 1, 390)
    account = Account(position_size_pct=0.95)
    breached = lost = 0
    for block in np.split(walks, lanes // 32):
        rows = np.stack([market(walk, **columns) for walk in block])
        actions = np.full((32, bars), BUY)
        record, _ = play_lanes(rows, actions, account=account, fills=FREE)
        for lane in range(32):
            if not (fired := steps(record.hard_breach[lane])):
                continue
            breached += 1
            lost += not np.any(record.drawdown[lane, fired[0] + 1 :] < SOFT)
    assert breached > 150
    assert lost <= 0.1 * breached


@pytest.mark.long
def test_a_hard_limit_that_fires_on_the_level_would_be_absorbing():
    """The rule we do not have, in plain NumPy: the holder of the test above hardly ever returns."""
    rng = np.random.default_rng(0)
    breached = lost = 0
    for _ in range(192):
        closes = 100 * np.exp(np.cumsum(8e-4 * rng.standard_normal(10_001)))
        equity = peak = 1.0
        shares, locked, ever_breached, cleared = 0.0, False, False, False
        for bar in range(1, len(closes)):
            minute = bar % 390
            if minute == 0:
                locked = False
            if locked or minute >= 385:
                shares = 0.0
            elif shares == 0.0 and minute > 0:
                shares = 0.95 * equity / closes[bar - 1]
            equity += shares * (closes[bar] - closes[bar - 1])
            peak = max(peak, equity)
            cleared |= ever_breached and 1 - equity / peak < SOFT
            if 1 - equity / peak > HARD:
                locked = ever_breached = True
        breached += ever_breached
        lost += ever_breached and not cleared
    assert breached > 150
    assert lost > 0.9 * breached
