"""What a ledger keeps is what the steps of the same episodes add up to."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.env.metrics import COSTS, step_metrics
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, ledger, prices, reference_policies
from jules_jax.evaluation.audit import recording
from jules_jax.evaluation.ledger import BUCKET_MINUTES, Ledger
from jules_jax.evaluation.prices import Chunk
from jules_jax.market.table import Row
from tests.evaluation import played

pytestmark = pytest.mark.usefixtures("quick_compilation")

ACCOUNTS, STEPS = 6, 150
LIVES = np.array([150, 150, 100, 61, 150, 7], np.int32)
"""Steps of each account: some are over before others."""


@cache
def chunk() -> Chunk:
    """Accounts of unequal length on simulated paths, where a hard breach is soon made."""
    settings = config.load({
        **played.EAGER, "max_steps_in_episode": str(STEPS), "sessions": "5",
        "soft_dd_pct": "0.0015", "hard_dd_pct": "0.003", "terminate_on_hard": "true",
    })  # fmt: skip
    (one,) = prices.simulated(settings.for_evaluation(), ACCOUNTS).chunks()
    return dataclasses.replace(one, starts=dataclasses.replace(one.starts, steps=LIVES))


@cache
def players() -> tuple[list[Any], list[Any]]:
    """Three policies, of which two leave something to chance, and their parameters."""
    weights = network.init(jax.random.key(9), chunk().config.network)
    sampled = policy.from_network(greedy=False)
    return [reference_policies.buy_and_hold(), sampled, reference_policies.random()], [
        (),
        weights,
        (),
    ]


@cache
def kept() -> list[Ledger]:
    return ledger.keep(*players(), chunk())


@cache
def steps_of(place: int) -> dict[str, np.ndarray]:
    """Every field `[N, T]` of the steps of the same episodes, zeros after their ends."""
    who, weights = (each[place] for each in players())
    env_params = make_params(chunk().config, chunk().market)
    record = recording.play(who, weights, env_params, chunk().starts, chunk().key).record
    whole = recording.whole(record)
    return {name: np.asarray(getattr(whole, name)) for name in whole.__dataclass_fields__}


def live(place: int) -> np.ndarray:
    """Steps `[N, T]` of an account's life: up to its own number, or to a termination."""
    ended = np.cumsum(steps_of(place)["terminated"], axis=1)
    before = np.pad(ended, ((0, 0), (1, 0)))[:, :-1] == 0
    return before & (np.arange(STEPS) < LIVES[:, None])


PLACES = range(3)


@pytest.mark.parametrize("place", PLACES)
def test_accounts_stop_where_they_must(place: int) -> None:
    np.testing.assert_array_equal(kept()[place].totals("steps"), live(place).sum(axis=1))
    np.testing.assert_array_equal(steps_of(place)["time"] > 0, live(place))


def test_some_accounts_are_terminated_and_some_are_not() -> None:
    ended = np.array([steps_of(place)["terminated"].any(axis=1) for place in PLACES])
    assert ended.any() and not ended.all()


@pytest.mark.parametrize("place", PLACES)
def test_sums_of_every_name_are_those_of_the_steps(place: int) -> None:
    fields = steps_of(place)
    values = {
        **step_metrics(recording.StepRecord(**fields)),
        "reward": fields["reward"],
        "trip/closed": fields["trip_closed"],
        "trip/profitable": fields["trip_closed"] & (fields["trip_pnl"] > 0),
        "trip/won": fields["trip_closed"] * np.maximum(fields["trip_pnl"], 0),
        "trip/lost": fields["trip_closed"] * np.maximum(-fields["trip_pnl"], 0),
        "trade/reversals": fields["alternation"] & (fields["quantity"] != 0) & ~fields["forced"],
        "trade/locked_steps": fields["locked"],
        "steps": live(place),
    }
    del values["risk/drawdown_max"]  # no sum
    assert set(values) == set(kept()[place].sums)
    for name, steps in values.items():
        own = np.where(live(place), np.asarray(steps, np.float64), 0.0)
        whole = np.abs(own).sum()
        np.testing.assert_allclose(
            kept()[place].totals(name), own.sum(axis=1), atol=1e-5 * whole + 1e-9, err_msg=name
        )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["net_pnl", "price_pnl", "reward"])
def test_sums_by_session_and_by_time_of_day_are_those_of_the_bars_executed_in(
    place: int, name: str
) -> None:
    fields = steps_of(place)
    own = np.where(live(place), fields[name], 0.0).astype(np.float64)
    session = chunk().session[fields["row"]] - chunk().before[:, None]
    bucket = (chunk().minute[fields["row"]] // BUCKET_MINUTES).astype(int)
    told = {"net_pnl": "pnl/net", "price_pnl": "pnl/gross"}.get(name, name)
    found = kept()[place]
    for number in range(found.sums[told].shape[1]):
        expected = np.where(live(place) & (session == number), own, 0).sum(axis=1)
        np.testing.assert_allclose(found.sums[told][:, number], expected, atol=0.01)
    expected = [own[live(place) & (bucket == each)].sum() for each in range(bucket.max() + 1)]
    np.testing.assert_allclose(found.by_time[told], expected, atol=0.02)


@pytest.mark.parametrize("place", PLACES)
def test_equity_its_deepest_fall_and_its_end_are_those_of_the_steps(place: int) -> None:
    found, capital = kept()[place], chunk().config.account.initial_capital
    net = np.where(live(place), steps_of(place)["net_pnl"], 0.0).astype(np.float64)
    equity = 1.0 + np.cumsum(net, axis=1) / capital
    np.testing.assert_allclose(found.equity, equity[:, found.points - 1], atol=1e-6)
    np.testing.assert_allclose(found.final_equity, equity[:, -1], atol=1e-6)
    curve = np.pad(equity, ((0, 0), (1, 0)), constant_values=1.0)
    peak = np.maximum.accumulate(curve, axis=1)
    np.testing.assert_allclose(found.drawdown, ((peak - curve) / peak).max(axis=1), atol=2e-6)


@pytest.mark.parametrize("place", PLACES)
def test_liquidation_costs_what_the_model_says_of_what_is_held_at_the_end(place: int) -> None:
    """The formulas of DESIGN §4 in float64, from the record's account and book."""
    fields, fills = steps_of(place), chunk().config.fills
    last = live(place).sum(axis=1) - 1
    expected = []
    for account, step in enumerate(last):
        at = {name: np.float64(values[account, step]) for name, values in fields.items()}
        row = Row(*np.asarray(chunk().market.rows, np.float64)[int(at["row"])][:18], market=None)
        held = at["position"] * at["quantity_step"]
        size, price, volume = abs(held), row.close, row.expected_volume
        spread = max(fills.bid_ask_spread_bps / 2e4, 0.5 * row.tick / price)
        used = at["recent_volume"] / volume
        rise = (used + size / volume) ** 1.5 - used**1.5
        temporary = 2 / 3 * price * fills.temporary_impact * row.sigma_before * volume * rise
        displaced = at["displaced_bid" if held > 0 else "displaced_ask"]
        power, daily = 1 + fills.impact_exponent, row.sigma_before * np.sqrt(row.bars_per_session)
        depth = (1 - fills.permanent_share) * fills.impact_prefactor * daily
        book = ((displaced + size) / row.adv_before) ** power
        book -= (displaced / row.adv_before) ** power
        transient = price * depth * row.adv_before / power * book
        permanent = at["kyle_lambda"] * (-(held**2) + held**2 / 2)
        rate = fills.fee_bps + (fills.sell_fee_bps if held > 0 else 0.0)
        fees = size * price * rate / 1e4
        costs = size * price * spread + temporary + transient + permanent + fees
        expected.append(costs if held else 0.0)
    np.testing.assert_allclose(kept()[place].liquidation, expected, rtol=2e-3, atol=1e-3)


def test_some_positions_are_held_at_the_end() -> None:
    assert any(each.liquidation.any() for each in kept())


@pytest.mark.parametrize("place", PLACES)
def test_policies_side_by_side_play_as_each_alone_does(place: int) -> None:
    """Draws included: an audit that plays one alone has the episodes that were counted."""
    who, weights = (each[place] for each in players())
    whole = dataclasses.replace(chunk().starts, steps=None)
    alone = backtest.run_episodes(
        who, weights, make_params(chunk().config, chunk().market), whole, chunk().key
    )
    full = STEPS == LIVES
    for name, told in (("pnl/net", "pnl/net"), ("trade/orders", "trade/orders"),
                       ("reward", "reward"), ("length", "steps")):  # fmt: skip
        found = kept()[place].totals(told)
        np.testing.assert_allclose(found[full], alone[name][full], atol=0.02)
    np.testing.assert_allclose(
        kept()[place].final_equity[full], alone["final_equity"][full], atol=1e-6
    )


def test_costs_and_net_make_gross() -> None:
    for each in kept():
        costs = sum(each.totals(f"cost/{name}") for name in COSTS)
        np.testing.assert_allclose(each.totals("pnl/gross") - costs, each.totals("pnl/net"),
                                   atol=0.02)  # fmt: skip


def test_ledgers_are_joined_account_after_account() -> None:
    first, second = kept()[:2]
    both = ledger.joined([first, second])
    for name in first.sums:
        np.testing.assert_array_equal(both.sums[name][:ACCOUNTS], first.sums[name])
        np.testing.assert_array_equal(both.sums[name][ACCOUNTS:], second.sums[name])
        np.testing.assert_allclose(both.by_time[name], first.by_time[name] + second.by_time[name])
    assert both.equity.shape == (2 * ACCOUNTS, len(first.points))
    for name in ("final_equity", "drawdown", "liquidation"):
        ends = [getattr(first, name), getattr(second, name)]
        np.testing.assert_array_equal(getattr(both, name), np.concatenate(ends))
