"""Scenarios change what they say, from when they say on, and look at nothing later."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.market import dataset, simulator, stress, table
from jules_jax.market.feed import SimulatedFeed
from tests.market.recorded import make_source

pytestmark = pytest.mark.usefixtures("quick_compilation")

SLOTS, SESSIONS, STEPS = 90, 6, 190
"""An episode has two whole sessions, so every second one has an event, at slot 30."""
EVENT = SLOTS + SLOTS // 3
PRICES = ("open", "high", "low", "close")
SETTINGS = config.Config(
    max_steps_in_episode=STEPS,
    simulator=config.Simulator(
        paths=2, sessions=SESSIONS, bars_per_session=SLOTS, warmup_sessions=1
    ),
    splits=config.Splits(train_fraction=0.3, validation_fraction=0.3, embargo_sessions=0),
)
SCENARIOS = {one.name: one for one in stress.scenarios(STEPS)}
EVENTS = {"flash crash": EVENT, "feed outage": EVENT, "gap open": SLOTS}
"""The first bar that an event may touch."""


@pytest.fixture(scope="module")
def bars():
    """A path with gaps in it, a spread and a flow of its own."""
    params = SETTINGS.simulator
    path = stress.on_host(simulator.simulate(jax.random.key(1), params, 2.5e-4))
    valid = np.random.default_rng(0).random(len(path.close)) > 0.1
    valid[0] = True
    last = path.close[np.maximum.accumulate(np.where(valid, np.arange(len(valid)), 0))]
    prices = {name: np.where(valid, getattr(path, name), last) for name in PRICES}
    volume = np.where(valid, path.volume, 0).astype(np.float32)
    spread = np.full(len(valid), 1e-4, np.float32)
    return replace(
        path, **prices, valid=valid, volume=volume, half_spread=spread, signed_volume=0.3 * volume
    )


def leaves(bars):
    return {k: np.asarray(v) for k, v in vars(bars).items() if np.ndim(v)}


@pytest.mark.parametrize("name", SCENARIOS)
def test_bars_stay_consistent(name, bars):
    found = SCENARIOS[name].transform(bars)
    opening, high, low, close = (np.asarray(getattr(found, price)) for price in PRICES)
    assert np.all(low <= np.minimum(opening, close)) and np.all(low > 0)
    assert np.all(high >= np.maximum(opening, close)) and np.all(np.isfinite(high))
    valid, volume = np.asarray(found.valid), np.asarray(found.volume)
    assert np.all(volume[~valid] == 0) and np.all(volume >= 0)
    for price in (opening, high, low, close):  # a bar that did not trade repeats the last price
        stale = ~valid[1:]
        np.testing.assert_array_equal(price[1:][stale], close[:-1][stale])
    assert np.all(np.abs(found.signed_volume) <= volume)
    for name_, values in leaves(found).items():
        assert values.dtype == getattr(bars, name_).dtype, name_


@pytest.mark.parametrize(("name", "first"), EVENTS.items())
def test_nothing_before_an_event_changes_a_bit(name, first, bars):
    found, before = leaves(SCENARIOS[name].transform(bars)), leaves(bars)
    for column, values in found.items():
        np.testing.assert_array_equal(values[:first], before[column][:first], column)
    assert any(np.any(found[column][first:] != before[column][first:]) for column in found)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("cut", [EVENT + 3, EVENT + 20, 4 * SLOTS])
def test_no_scenario_looks_ahead(name, cut, bars):
    """Another future leaves the past of what a scenario makes as it was, bit for bit."""
    rng = np.random.default_rng(2)
    other = {k: v.copy() for k, v in leaves(bars).items()}
    size = len(other["close"]) - cut
    for column in PRICES:
        other[column][cut:] *= rng.uniform(0.5, 2.0, size).astype(np.float32)
    other["volume"][cut:] *= 3
    other["valid"][cut:] = rng.random(size) > 0.5
    found = leaves(SCENARIOS[name].transform(bars))
    changed = leaves(SCENARIOS[name].transform(replace(bars, **other)))
    for column in found:
        np.testing.assert_array_equal(found[column][:cut], changed[column][:cut], column)


def ratio(found, bars, column="close"):
    after, before = (np.asarray(getattr(one, column), np.float64) for one in (found, bars))
    return after / before


def whole(bars):
    """The bars as if every one had traded: prices that are held hide what moved them."""
    return replace(bars, valid=np.ones_like(bars.valid))


def test_a_flash_crash_falls_a_tenth_in_five_bars_and_has_half_of_it_back_by_the_thirtieth(bars):
    bars = whole(bars)
    found = ratio(SCENARIOS["flash crash"].transform(bars), bars)
    assert found[EVENT + 4] == pytest.approx(0.9, rel=1e-5)
    assert found[EVENT + 1] == pytest.approx(0.9 ** (2 / 5), rel=1e-5)
    assert found[EVENT + 29] == pytest.approx(0.9**0.5, rel=1e-5)
    assert np.all(np.diff(found[EVENT - 1 : EVENT + 5]) < 0)
    assert np.all(np.diff(found[EVENT + 4 : EVENT + 30]) > 0)
    second = EVENT + 2 * SLOTS
    np.testing.assert_allclose(found[EVENT + 29 : second], 0.9**0.5, rtol=1e-5)
    assert found[second + 4] == pytest.approx(0.9**1.5, rel=1e-5)


def test_every_return_is_three_times_as_large(bars):
    found = SCENARIOS["volatility × 3"].transform(bars)
    for column in PRICES:
        before, after = (np.log(np.asarray(getattr(b, column), np.float64)) for b in (bars, found))
        np.testing.assert_allclose(np.diff(after), 3 * np.diff(before), atol=2e-6)


def test_a_session_opens_five_per_cent_lower(bars):
    found = SCENARIOS["gap open"].transform(bars)
    for column in ("open", "close"):
        moved = ratio(found, bars, column)
        np.testing.assert_allclose(moved[SLOTS : 3 * SLOTS], 0.95, rtol=1e-6)
        np.testing.assert_allclose(moved[3 * SLOTS : 5 * SLOTS], 0.95**2, rtol=1e-6)


def test_a_silent_feed_has_no_bar_for_half_an_hour_and_comes_back_lower(bars):
    found = SCENARIOS["feed outage"].transform(bars)
    silent = slice(EVENT, EVENT + 30)
    assert not np.asarray(found.valid)[silent].any()
    assert not np.asarray(found.volume)[silent].any()
    np.testing.assert_array_equal(np.asarray(found.close)[silent], bars.close[EVENT - 1])
    after = slice(EVENT + 30, EVENT + 130)
    np.testing.assert_array_equal(np.asarray(found.valid)[after], bars.valid[after])
    back = EVENT + 30 + int(np.argmax(bars.valid[EVENT + 30 :]))
    assert ratio(found, bars)[back] == pytest.approx(0.98, rel=1e-6)
    longer = replace(whole(bars), bar_seconds=600)
    missing = ~np.asarray(SCENARIOS["feed outage"].transform(longer).valid)
    assert missing.sum() == 3 * 3  # three bars of ten minutes, in each of three events


def test_volume_and_spread_are_multiples(bars):
    thin = SCENARIOS["volume ÷ 10"].transform(bars)
    np.testing.assert_allclose(thin.volume, bars.volume / 10, rtol=1e-6)
    np.testing.assert_allclose(thin.signed_volume, bars.signed_volume / 10, rtol=1e-6)
    wide = SCENARIOS["spread × 5"]
    np.testing.assert_allclose(wide.transform(bars).half_spread, 5e-4, rtol=1e-6)
    assert wide.transform(replace(bars, half_spread=None)).half_spread is None
    assert wide.settings(SETTINGS).fills.bid_ask_spread_bps == 25.0
    untouched = wide.settings(SETTINGS)
    assert replace(untouched, fills=SETTINGS.fills) == SETTINGS


def test_a_schedule_does_not_undo_a_factor():
    schedule = config.load({"schedules": {"fills.bid_ask_spread_bps": {"linear": [1.0, 2.0]}}})
    found = SCENARIOS["spread × 5"].settings(schedule)
    assert found.fills.bid_ask_spread_bps == 10.0
    assert found.at(1.0).fills.bid_ask_spread_bps == 10.0


@pytest.mark.parametrize("steps", [STEPS, 1000, 3 * 390])
def test_every_episode_of_a_session_or_more_lives_through_an_event(steps):
    """Whatever row it starts on: counted with a sliding window over an event's first bars."""
    slots = 90 if steps == STEPS else 390
    path = config.Simulator(sessions=13, bars_per_session=slots)
    bars = stress.on_host(simulator.simulate(jax.random.key(3), path, 0.0))
    moved = ratio(stress.flash_crash(bars, steps=steps), bars)
    begins = (moved[1:] < moved[:-1] * 0.995) & np.isin(
        np.arange(1, len(moved)) % slots, slots // 3
    )
    played = np.convolve(begins, np.ones(steps), "valid")
    assert played.min() >= 1 and played.max() <= 2


def test_as_it_is_a_market_keeps_its_bits():
    feed, key = SimulatedFeed(SETTINGS), jax.random.key(4)
    market = stress.of_fresh_paths(feed, key)(stress.AS_IT_IS)
    for a, b in zip(jax.tree.leaves(market), jax.tree.leaves(feed.fresh(key)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [*EVENTS, "volume ÷ 10"])
def test_rows_of_simulated_paths_follow_and_those_before_keep_their_bits(name):
    feed, key = SimulatedFeed(SETTINGS), jax.random.key(4)
    before = np.asarray(feed.fresh(key).rows).reshape(2, -1, table.NUM_COLUMNS)
    found = stress.of_fresh_paths(feed, key)(SCENARIOS[name])
    rows = np.asarray(found.rows).reshape(before.shape)
    np.testing.assert_array_equal(found.episodes, feed.fresh(key).episodes)
    np.testing.assert_array_equal(rows[:, : EVENTS.get(name, 0)], before[:, : EVENTS.get(name, 0)])
    bars = [feed_bars(feed, key, path) for path in (0, 1)]
    for path in (0, 1):
        told = SCENARIOS[name].transform(bars[path])
        np.testing.assert_allclose(rows[path, :, 1], told.close, rtol=2e-6)


def feed_bars(feed, key, path):
    key = jax.random.fold_in(key, 0)
    return stress.on_host(simulator.simulate_path(key, path, feed.config.simulator, 2.5e-4))


def test_rows_of_recorded_bars_follow_and_start_where_they_did():
    sources = (
        make_source("AAA", sessions=20),
        make_source("BTC", sessions=20, slots=120, seed=2, continuous=True),
    )
    recorded = dataset.Dataset(sources, replace(SETTINGS, max_steps_in_episode=40))
    market = stress.of_split(recorded, "validation")
    plain = market(stress.AS_IT_IS)
    for a, b in zip(
        jax.tree.leaves(plain), jax.tree.leaves(recorded.market("validation")), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for scenario in SCENARIOS.values():
        found = market(scenario)
        np.testing.assert_array_equal(found.episodes, plain.episodes)
        assert found.rows.shape == plain.rows.shape and np.isfinite(found.rows).all()
    thin = market(SCENARIOS["volume ÷ 10"])
    for column in ("volume", "adv_before", "expected_volume"):
        place = table.Row._fields.index(column)
        np.testing.assert_allclose(
            thin.rows[:, place], np.maximum(plain.rows[:, place] / 10, 0), rtol=1e-3
        )


@pytest.mark.parametrize("name", ["flash crash", "volatility × 3", "gap open", "feed outage"])
def test_however_many_falls_add_up_ticks_and_dollars_traded_stay_what_they_are(name):
    """Each session falls; of a gap in each, a share is left with less than a third of its price."""
    recorded = dataset.Dataset(
        (make_source("AAA", sessions=40),), replace(SETTINGS, max_steps_in_episode=40)
    )
    market = stress.of_split(recorded, "validation")
    close, tick, volume = (table.Row._fields.index(each) for each in ("close", "tick", "volume"))
    scenario = {each.name: each for each in stress.scenarios(40)}[name]
    usual, found = (
        np.asarray(market(each).rows, np.float64) for each in (stress.AS_IT_IS, scenario)
    )
    if name == "gap open":
        assert found[-1, close] < usual[-1, close] / 3
    np.testing.assert_allclose(
        found[:, tick] / found[:, close], usual[:, tick] / usual[:, close], rtol=1e-5
    )
    traded = found[:, volume] > 0
    np.testing.assert_allclose(
        (found[:, volume] * found[:, close])[traded],
        (usual[:, volume] * usual[:, close])[traded], rtol=1e-4,
    )  # fmt: skip
