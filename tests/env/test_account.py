"""Lots, the ladder, cash limits, and equity that is exactly what was earned."""

from __future__ import annotations

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax.config import Account, Fills
from jules_jax.env import account as accounts
from jules_jax.env.record import Outcome
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

COSTS = ("spread", "temporary", "transient", "permanent", "fees", "borrow")


def total_costs(record) -> np.ndarray:
    return sum(np.float64(getattr(record, f"cost_{part}")) for part in COSTS)


# size of an order


@pytest.mark.parametrize(
    ("price", "step", "fraction", "lot"),
    [
        (100.0, 1.0, 0.25, 125),
        (100.01, 1.0, 0.25, 124),  # 124.99 shares
        (99.99, 1.0, 0.25, 125),  # 125.01
        (100.0, 10.0, 0.25, 12),
        (30_000.0, 2.0**-10, 0.25, 426),  # 0.41666 coins in steps of 1/1024
        (100.0, 1.0, 0.95, 474),  # float32(0.95) is just below 0.95, and 475 shares too many
        (100.0, 1.0, 0.5, 250),
    ],
)
def test_a_lot_is_the_whole_quantity_steps_that_its_share_of_equity_buys(
    price, step, fraction, lot
):
    rows = market(np.full(5, price), quantity_step=step)
    account = Account(position_size_pct=fraction)
    record = play(rows, script(4, {0: BUY}), account=account, fills=FREE)
    exact = Fraction(float(np.float32(fraction))) * 50_000
    assert lot == math.floor(exact / Fraction(float(np.float32(price))) / Fraction(step))
    assert record.lot[0] == lot
    assert record.quantity[0] == lot and record.outcome[0] == Outcome.EXECUTED


def test_a_lot_that_rounds_down_to_nothing_is_refused_by_name():
    record = play(market(np.full(5, 12_501.0)), script(4, {0: BUY, 1: SELL}))
    assert record.outcome[:3].tolist() == [Outcome.LOT_TOO_SMALL, Outcome.LOT_TOO_SMALL, 0]
    assert np.all(record.quantity == 0) and np.all(record.reward == 0)


def test_the_lot_is_sized_on_the_close_of_the_decision_not_on_the_open_it_fills_at():
    rows = market(np.full(5, 100.0), open=[100, 90, 100, 100, 100])
    assert play(rows, script(4, {0: BUY}), fills=FREE).quantity[0] == 125


def test_orders_climb_the_ladder_one_lot_at_a_time_and_stop_at_its_ends():
    record = play(market(np.full(9, 100.0)), [BUY, BUY, SELL, SELL, SELL, SELL, HOLD, BUY],
                  safeguards=NIMBLE)  # fmt: skip
    assert record.position.tolist() == [125, 125, 0, *[record.position[3]] * 4, 0]
    assert record.position[3] in (-125, -124)  # sized anew after the round trip's costs
    refused = [1, 4, 5]
    assert np.flatnonzero(record.outcome == Outcome.LADDER_LIMIT).tolist() == refused


def test_a_ladder_of_several_lots_keeps_the_size_of_the_first():
    account = Account(position_size_pct=0.2, max_position_lots=3)
    rows = market(np.linspace(100, 104, 13))
    record = play(rows, [BUY] * 4 + [SELL] * 8, account=account, safeguards=STRICT, fills=FREE)
    assert record.position[:7].tolist() == [100, 200, 300, 300, 200, 100, 0]
    sold = -np.arange(1, 4) * record.lot[7]
    assert record.position[7:].tolist() == [*sold, sold[-1], sold[-1]]
    assert np.flatnonzero(record.outcome == Outcome.LADDER_LIMIT).tolist() == [3, 10, 11]


@pytest.mark.parametrize(
    ("position", "direction", "aim", "allowed"),
    [
        (0, 1, 100, True),
        (250, 1, 400, False),  # on the third rung
        (250, -1, 200, True),
        (1, -1, 0, True),
        (0, -1, -100, False),  # a short sale
    ],
)
def test_without_short_sales_the_ladder_starts_at_zero(position, direction, aim, allowed):
    account = Account(max_position_lots=3, allow_short=False)
    found = accounts.ladder_target(*map(jnp.int32, (position, 100, direction)), account)
    assert (int(found[0]), bool(found[1])) == (aim, allowed)


def test_a_partly_filled_close_stays_on_its_rung_and_never_crosses_zero():
    volume = np.full(8, 1e7)
    volume[2:6] = 500.0  # 50 shares a bar at 10 %
    rows = market(np.full(8, 100.0), volume=volume)
    record = play(rows, [BUY, SELL, SELL, SELL, SELL, HOLD, HOLD], safeguards=NIMBLE)
    assert record.position[:4].tolist() == [125, 75, 25, 0]
    assert record.position[4] < 0  # only the next sale opens a short position
    assert record.capped_by_participation[:4].tolist() == [False, True, True, False]


# limits after costs


@pytest.mark.parametrize(("size", "reserve"), [(0.95, 0.05), (1.0, 0.2), (0.5, 0.0)])
def test_size_and_cash_limits_hold_after_costs_for_every_order_that_adds(size, reserve):
    rng = np.random.default_rng(0)
    symbols = [Symbol(sigma=3e-3, daily_capitals=10 ** rng.uniform(2, 5)) for _ in range(64)]
    rows = np.stack([make_rows(rng, symbol, 129) for symbol in symbols])
    actions = rng.integers(0, 3, (64, 128))
    account = Account(
        position_size_pct=1.0, max_position_size_pct=size, min_cash_reserve_pct=reserve
    )
    fills = Fills(bid_ask_spread_bps=60.0, max_participation=1.0)
    record, _ = play_lanes(rows, actions, account=account, fills=fills, safeguards=NIMBLE)
    adds = (np.abs(record.position) > np.abs(record.position_before)) & (record.quantity != 0)
    assert adds.sum() > 500 and np.sum(record.capped_by_cash & adds) > 500
    before = np.concatenate([np.ones((64, 1)), record.equity[:, :-1]], axis=1)
    step, open_ = np.float64(record.quantity_step), np.float64(record.reference_price)
    gap = open_ - rows[:, 1:, 2]
    paid = sum(np.float64(getattr(record, f"cost_{part}")) for part in COSTS[:-1])
    equity = 50_000 * before + record.position_before * step * gap - paid
    value = np.abs(record.position) * step * open_
    assert np.all(value[adds] <= size * equity[adds] * (1 + 1e-6))
    assert np.all(equity[adds] - value[adds] >= reserve * equity[adds] - 1e-6 * 50_000)
    # and they bind: what is cut is cut to them, up to the grid of 1/1024 of capital and the costs
    # of the uncut order
    cut = adds & record.capped_by_cash
    assert np.all(value[cut] >= 0.96 * min(size, 1 - reserve) * equity[cut] - (step * open_)[cut])


def test_an_order_without_room_is_refused_by_name_and_a_closing_one_never_is():
    account = Account(position_size_pct=0.5, max_position_lots=3, max_position_size_pct=0.5)
    rows = market(np.full(6, 100.0))
    record = play(rows, [BUY, BUY, SELL, HOLD, HOLD], account=account, safeguards=STRICT)
    assert record.outcome[:3].tolist() == [Outcome.EXECUTED, Outcome.CASH_LIMIT, Outcome.EXECUTED]
    assert record.position[:3].tolist() == [record.quantity[0], record.quantity[0], 0]


# equity


@pytest.mark.parametrize("order", [BUY, SELL])
def test_opening_and_closing_a_position_changes_equity_only_by_their_costs(order):
    close = HOLD + (HOLD - order)
    record = play(market(np.full(31, 100.0)), script(30, {0: order, 15: close}))
    assert np.all(record.price_pnl == 0)
    np.testing.assert_allclose(record.net_pnl, -total_costs(record), rtol=1e-6)
    before = np.concatenate([[1.0], record.equity[:-1]])
    np.testing.assert_allclose(before - record.equity, total_costs(record) / 50_000, atol=1e-7)
    traded = np.flatnonzero(record.quantity).tolist()
    assert traded == [0, 15] and np.all(total_costs(record)[traded] > 3)
    assert record.equity[-1] == pytest.approx(1 - total_costs(record).sum() / 50_000, abs=1e-7)


def test_long_and_short_positions_of_mirrored_prices_fare_alike():
    moves = 0.05 * np.random.default_rng(0).standard_normal(30)
    up, down = 100 + np.cumsum([0, *moves]), 100 - np.cumsum([0, *moves])
    long = play(market(up), script(30, {0: BUY, 20: SELL}), fills=FREE)
    free_borrow = Account(borrow_rate=0.0)
    short = play(market(down), script(30, {0: SELL, 20: BUY}), fills=FREE, account=free_borrow)
    assert long.quantity[0] == -short.quantity[0] == 125
    np.testing.assert_allclose(long.equity, short.equity, atol=1e-7)
    assert np.ptp(long.equity) > 1e-4


def test_a_step_earns_the_overnight_gap_on_what_was_held_and_the_bar_on_what_was_traded():
    rows = market([100, 101, 104, 103], open=[100, 100.5, 102, 104])
    record = play(rows, [BUY, HOLD, SELL], safeguards=NIMBLE, fills=FREE)
    np.testing.assert_allclose(record.price_pnl, [125 * 0.5, 125 * 3.0, 125 * 0.0], rtol=1e-6)
    assert record.trip_closed.tolist() == [False, False, True]
    np.testing.assert_allclose(record.trip_pnl * 50_000, [62.5, 437.5, 437.5], rtol=1e-6)


def test_short_positions_pay_borrow_every_bar_and_long_ones_do_not():
    rate = 0.0365
    record = play(
        market(np.full(21, 100.0)),
        script(20, {0: SELL, 15: BUY}),
        fills=FREE,
        account=Account(borrow_rate=rate),
    )
    each = 12_500 * rate * 60 / (365 * 86_400)
    np.testing.assert_allclose(record.cost_borrow[:15], each, rtol=1e-5)
    assert np.all(record.cost_borrow[15:] == 0)
    record = play(
        market(np.full(21, 100.0)), script(20, {0: BUY}), account=Account(borrow_rate=9.0)
    )
    assert np.all(record.cost_borrow == 0) and record.position[-1] > 0


def test_equity_is_the_sum_of_what_every_step_earned_to_one_part_in_ten_million():
    rng = np.random.default_rng(1)
    rows = make_rows(rng, Symbol(bars_per_session=390, jump_rate=0.0, daily_capitals=1e4), 2049)
    record = play(rows, rng.integers(0, 3, 2048), account=Account(position_size_pct=0.9))
    open_, close, previous = (np.float64(rows[1:, column]) for column in range(3))
    held, traded = np.float64(record.position_before), np.float64(record.quantity)
    gross = held * (close - previous) + traded * (close - open_)
    truth = 1 + np.cumsum(gross - total_costs(record)) / 50_000
    assert np.ptp(truth) > 0.01
    np.testing.assert_allclose(record.equity, truth, atol=1.5e-7)


def test_the_average_entry_price_is_weighted_when_adding_and_kept_when_reducing():
    account = Account(position_size_pct=0.2, max_position_lots=3)
    rows = market([100, 102, 108, 104, 104, 104, 104])
    record = play(rows, [BUY, BUY, BUY, SELL, SELL, SELL], account=account, safeguards=STRICT,
                  fills=FREE)  # fmt: skip
    assert record.fill_price[:3].tolist() == [100, 102, 108]
    expected = [100, 101, 310 / 3, 310 / 3, 310 / 3, 0]
    np.testing.assert_allclose(record.average_entry_price, expected, rtol=1e-6)


def test_the_fill_price_holds_spread_and_impact_but_no_fees():
    record = play(market(np.full(16, 100.0)), script(15, {0: BUY, 11: SELL}))
    for t, sign in ((0, 1), (11, -1)):
        slippage = sum(getattr(record, f"cost_{part}")[t] for part in COSTS[:4])
        assert record.fill_price[t] == pytest.approx(100 + sign * slippage / 125, rel=1e-7)
    assert record.fill_price[0] > 100.025 and record.fill_price[11] < 99.975


def test_what_is_left_at_a_sessions_end_is_sold_at_its_close_with_all_costs_and_no_cap():
    volume = np.full(12, 1e7)
    volume[2:7] = 0.0
    closes = [*[100.0] * 6, 98.0, *[98.0] * 5]
    rows = market(closes, volume=volume, **sessions(12, 10, first=3))  # row 6 is the session's last
    record = play(rows, script(11, {0: BUY}), account=ALL_IN)
    held = record.quantity[0]
    assert held > 490
    assert np.all(record.outcome[1:6] == Outcome.NO_VOLUME) and record.forced[1:6].all()
    assert record.position[:6].tolist() == [held] * 5 + [0]
    assert record.close_quantity[5] == -held and record.trip_closed[5]
    assert record.cost_spread[5] == pytest.approx(98 * 2.5e-4 * held, rel=1e-5)
    assert record.cost_fees[5] == pytest.approx(98 * 0.6e-4 * held, rel=1e-5)
    assert record.price_pnl[5] == pytest.approx(-2.0 * held, rel=1e-6)
    assert min(record.cost_temporary[5], record.cost_transient[5]) > 0
    np.testing.assert_allclose(record.cost_permanent.sum(), 0, atol=1e-5)
