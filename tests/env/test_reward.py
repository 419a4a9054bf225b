"""The reward: what is paid, when, and that it adds up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jules_jax.config import Account, Reward
from jules_jax.env.record import Outcome
from tests.env.episodes import (
    ALL_IN,
    BUY,
    FREE,
    HOLD,
    NIMBLE,
    SELL,
    market,
    play,
    play_lanes,
    script,
    sessions,
)
from tests.env.market_factory import Symbol, make_rows

TERMS = ("equity_change", "action_change", "same_action", "drawdown",
         "recovery_bonus", "bootstrap_bonus")  # fmt: skip
FLAT = market(np.full(101, 100.0))
"""A price that never moves."""


def terms_of(record) -> dict[str, np.ndarray]:
    return {name: np.float64(getattr(record, f"reward_{name}")) for name in TERMS}


def charges(record, name) -> dict[int, float]:
    """Dollars that the penalty took, by step, where it took any."""
    dollars = -getattr(record, f"reward_{name}") / np.float32(0.07)
    return {int(t): round(float(dollars[t]), 4) for t in np.flatnonzero(dollars)}


@pytest.fixture(scope="module")
def wild():
    """Rows, actions and record of 64 random episodes of 256 steps in a nervous market."""
    rng = np.random.default_rng(0)
    symbol = Symbol(sigma=4e-3, daily_capitals=1e4, bars_per_session=100)
    rows = np.stack([make_rows(rng, symbol, 257) for _ in range(64)])
    actions = rng.choice(3, (64, 256), p=[0.2, 0.4, 0.4])
    return rows, actions, play_lanes(rows, actions, account=ALL_IN, safeguards=NIMBLE)[0]


def test_the_terms_sum_to_the_reward_and_every_one_of_them_occurs(wild):
    record = wild[2]
    terms = terms_of(record)
    scale = sum(np.abs(term) for term in terms.values())
    np.testing.assert_allclose(sum(terms.values()), record.reward, atol=1e-12 + 3e-7 * scale.max())
    assert all(np.count_nonzero(term) > 10 for term in terms.values())
    assert all(np.all(terms[name] <= 0) for name in TERMS[1:4])
    assert all(np.all(terms[name] >= 0) for name in TERMS[4:])


def test_the_change_of_equity_is_paid_in_dollars_per_fifty_thousand_of_capital(wild):
    record = wild[2]
    np.testing.assert_allclose(record.reward_equity_change, 0.07 * record.net_pnl, rtol=1e-5)
    # ten times the capital in a ten times deeper market: the same rewards
    closes = 100 + np.cumsum(np.r_[0, 0, np.random.default_rng(0).normal(0, 0.5, 99)])
    orders = script(100, {0: BUY, 80: SELL})
    small = play(market(closes), orders)
    deep = market(closes, volume=1e8, adv_before=2e7, expected_volume=5e4)
    large = play(deep, orders, account=Account(initial_capital=500_000.0))
    assert large.quantity[0] == 10 * small.quantity[0]
    np.testing.assert_allclose(large.net_pnl, 10 * small.net_pnl, rtol=1e-5)
    np.testing.assert_allclose(large.reward, small.reward, rtol=1e-5)


def test_doubling_the_scaling_doubles_every_term_exactly(wild):
    rows, actions, record = wild
    doubled = Reward(reward_scaling=2 * float(np.float32(0.07)))
    other, _ = play_lanes(rows, actions, account=ALL_IN, safeguards=NIMBLE, reward=doubled)
    for name in ("reward", *(f"reward_{term}" for term in TERMS)):
        np.testing.assert_array_equal(getattr(other, name), 2 * getattr(record, name))
    np.testing.assert_array_equal(other.equity, record.equity)  # and nothing else


# same action


def test_the_third_identical_request_in_a_row_pays_and_the_fifth_and_later_pay_the_most():
    record = play(FLAT[:9], [BUY] * 8, safeguards=NIMBLE)  # one fill, then the ladder refuses
    expected = [0, 0, 0.014, 0.028, 0.042, 0.042, 0.042, 0.042]
    np.testing.assert_allclose(-record.reward_same_action, expected, rtol=1e-6)
    assert record.repeats.tolist() == list(range(1, 9))


def test_a_hold_or_the_opposite_request_starts_the_count_again():
    record = play(FLAT[:12], [BUY, BUY, BUY, HOLD, BUY, BUY, BUY, SELL, SELL, SELL, SELL],
                  safeguards=NIMBLE)  # fmt: skip
    assert record.repeats.tolist() == [1, 2, 3, 0, 1, 2, 3, 1, 2, 3, 4]
    assert charges(record, "same_action") == {2: 0.2, 6: 0.2, 9: 0.2, 10: 0.4}


def test_requests_blocked_by_the_cooldown_neither_count_nor_start_the_count_again():
    record = play(FLAT[:25], [BUY, *[SELL] * 9, BUY, BUY, *[BUY] * 12])
    assert np.all(record.repeats[:10] == 1)  # nine sales refused by the cooldown
    assert record.repeats[10:13].tolist() == [2, 3, 4]
    assert charges(record, "same_action")[11] == 0.2


def test_requests_refused_by_volume_cash_lot_or_session_do_not_count():
    volume = np.full(12, 1e7)
    volume[1:6] = 0.0
    halted = play(market(np.full(12, 100.0), volume=volume), [BUY] * 11, safeguards=NIMBLE)
    assert halted.repeats.tolist() == [0] * 5 + list(range(1, 7))
    dear = play(market(np.full(12, 12_501.0)), [BUY] * 11, safeguards=NIMBLE)
    assert np.all(dear.outcome == Outcome.LOT_TOO_SMALL) and np.all(dear.repeats == 0)
    closing = play(market(np.full(12, 100.0), **sessions(12, 30, first=25)), [BUY] * 11,
                   safeguards=NIMBLE)  # fmt: skip
    assert np.all(closing.repeats[:5] == 0) and closing.repeats[5:].tolist() == list(range(1, 7))


# action change


def test_a_patient_round_trip_pays_five_dollars_once():
    record = play(FLAT, script(100, {0: BUY, 45: SELL}))
    assert charges(record, "action_change") == {45: 5.0}
    np.testing.assert_allclose(record.reward_action_change[45], -0.35, rtol=1e-6)


def test_going_in_and_out_escalates_to_five_then_fifteen():
    """Position 0 → 1 → 0 → 1 → 0: re-entries alternate too, and are not charged."""
    record = play(FLAT, script(100, {0: BUY, 10: SELL, 20: BUY, 30: SELL, 40: BUY, 50: SELL}))
    assert record.chain[[0, 10, 20, 30, 40, 50]].tolist() == [0, 1, 2, 3, 4, 5]
    assert charges(record, "action_change") == {10: 5.0, 30: 15.0, 50: 15.0}


def test_a_long_short_long_reversal_pays_five_dollars_each_way():
    record = play(FLAT, script(100, {0: BUY, 10: SELL, 20: SELL, 30: BUY, 40: BUY}))
    assert np.sign(record.position[[0, 10, 20, 30, 40]]).tolist() == [1, 0, -1, 0, 1]
    assert charges(record, "action_change") == {10: 5.0, 30: 5.0}


@pytest.mark.parametrize(("gap", "paid"), [(30, 15.0), (31, 5.0)])
def test_a_chain_is_forgotten_after_more_than_thirty_bars(gap, paid):
    orders = {0: BUY, 10: SELL, 20: BUY, 20 + gap: SELL}
    record = play(FLAT, script(100, orders))
    assert charges(record, "action_change") == {10: 5.0, 20 + gap: paid}


def test_a_forced_exit_pays_nothing_and_ends_the_chain():
    columns = sessions(101, 60, first=1)  # flat by row 54
    record = play(market(np.full(101, 100.0), **columns), script(100, {20: BUY, 30: SELL, 45: BUY}))
    assert record.forced[53] and record.quantity[53] < 0
    assert charges(record, "action_change") == {30: 5.0}
    closes = np.concatenate([[100.0, 100.0], np.full(99, 95.5)])
    record = play(market(closes), script(100, {0: BUY, 50: BUY, 55: SELL}), account=ALL_IN,
                  fills=FREE, safeguards=NIMBLE)  # fmt: skip
    assert record.outcome[2] == Outcome.HARD_LIQUIDATION
    assert charges(record, "action_change") == {55: 5.0}
    assert record.chain[[50, 55]].tolist() == [0, 1]


def test_the_charge_of_a_reducing_order_survives_the_liquidation_of_the_same_bar():
    volume = np.full(12, 1e7)
    volume[6] = 1000.0  # 100 shares of 125 find a buyer in the session's last bar, row 6
    columns = sessions(12, 10, first=3) | {"minutes_left": np.full(12, 100.0)}
    rows = market(np.full(12, 100.0), volume=volume, **columns)
    record = play(rows, script(11, {1: BUY, 5: SELL}), safeguards=NIMBLE)
    assert (record.quantity[5], record.close_quantity[5]) == (-100, -25)
    assert charges(record, "action_change") == {5: 5.0}


def test_holding_and_being_flat_are_never_penalised(wild):
    rows, actions, record = wild
    held = actions == HOLD
    assert np.all(record.reward_action_change[held] == 0)
    assert np.all(record.reward_same_action[held] == 0)
    idle, _ = play_lanes(rows[:32], np.full((32, 256), HOLD))
    assert np.all(idle.reward == 0) and np.all(idle.equity == 1) and np.all(idle.net_pnl == 0)


# bonuses


def test_recovering_pays_the_symbolic_bonus_at_each_new_high_since_the_trough():
    equity = [0.968, 0.966, 0.967, 0.9665, 0.967, 0.968, 0.966, 0.965, 0.966, 0.996, 0.997]
    rows = market(100 * np.concatenate([[1, 1], equity]))
    record = play(rows, script(12, {0: BUY}), account=ALL_IN, fills=FREE, safeguards=NIMBLE)
    paid = np.flatnonzero(record.reward_recovery_bonus)
    # 0.967 twice is one new high; below 0.966 there is a new trough, and 0.966 is new again;
    # 0.996 escapes, and after it nothing is paid
    assert paid.tolist() == [3, 6, 9, 10]
    np.testing.assert_allclose(record.reward_recovery_bonus[paid], 0.0007, rtol=1e-6)


def test_the_first_profitable_round_trip_pays_its_bonus_once():
    closes = 100 + np.concatenate([[0, 0, -0.5, -0.5, -0.5], np.linspace(0, 3, 56)])
    orders = {0: BUY, 2: SELL, 10: BUY, 15: SELL, 30: BUY, 40: SELL}
    record = play(market(closes), script(60, orders), safeguards=NIMBLE)
    assert np.flatnonzero(record.trip_closed).tolist() == [2, 15, 40]
    assert (record.trip_pnl[[2, 15, 40]] > 0).tolist() == [False, True, True]
    assert np.flatnonzero(record.reward_bootstrap_bonus).tolist() == [15]
    assert record.reward_bootstrap_bonus[15] == pytest.approx(0.0007, rel=1e-6)


def test_a_round_trip_that_costs_more_than_it_gains_is_not_profitable():
    closes = np.concatenate([[100.0], np.full(40, 100.0)])
    closes[10:] = 100.04  # 5 dollars on 125 shares; the costs are near 9
    record = play(market(closes), script(40, {0: BUY, 20: SELL}))
    assert record.trip_closed[20] and record.price_pnl.sum() > 0 > record.trip_pnl[20]
    assert not record.reward_bootstrap_bonus.any()


def test_bonuses_of_an_episode_stay_below_0_701_however_it_is_played(wild):
    record = wild[2]
    recovery, bootstrap = record.reward_recovery_bonus, record.reward_bootstrap_bonus
    np.testing.assert_allclose(np.unique(recovery), [0, 0.0007], rtol=1e-6)
    np.testing.assert_allclose(np.unique(bootstrap), [0, 0.0007], rtol=1e-6)
    assert np.all(np.count_nonzero(bootstrap, axis=1) <= 1)
    assert 1000 * recovery.max() + bootstrap.max() <= 0.701
    # one whose equity crawls up for a whole episode and never leaves purgatory
    equity = np.concatenate([[1, 1, 0.969], 0.969 + 2.9e-5 * np.arange(1, 999)])
    patient = replace(NIMBLE, purgatory_escape_threshold_pct=0.5)
    rows = market(100 * equity)
    best = play(rows, script(1000, {0: BUY}), account=ALL_IN, fills=FREE, safeguards=patient)
    assert np.count_nonzero(best.reward_recovery_bonus) == 998
    assert np.sum(best.reward_recovery_bonus + best.reward_bootstrap_bonus) <= 0.701


# what random play earns


def test_random_play_earns_nothing_gross_where_prices_are_a_martingale():
    rng = np.random.default_rng(5)
    moves = 5e-4 * rng.standard_t(8, (256, 257))
    rows = np.stack([market(100 * np.cumprod(1 + move)) for move in moves])
    record, _ = play_lanes(rows, rng.integers(0, 3, (256, 256)))
    gross, net = (x.sum(axis=1, dtype=np.float64) for x in (record.price_pnl, record.net_pnl))
    error = gross.std(ddof=1) / np.sqrt(len(gross))
    assert error > 1 and abs(gross.mean()) < 3 * error
    assert net.mean() < -3 * error, "and pays its costs"
