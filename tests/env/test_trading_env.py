"""The environment on gymnax's contract, and the market that its episodes read."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment
from scipy import stats

from jules_jax import config as configs
from jules_jax.config import Account, Fills
from jules_jax.env.episodes import draw_start
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.record import StepRecord
from jules_jax.env.trading_env import TradingEnv
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.table import MarketData, Row
from tests.env.episodes import (
    ALL_IN,
    BUY,
    FREE,
    HOLD,
    NIMBLE,
    SELL,
    market,
    play_lanes,
    script,
    watch,
)
from tests.env.market_factory import make_rows, wild_symbol

EPISODE, N_STEPS, LANES = 40, 16, 16
CONFIG = configs.load(
    {
        "max_steps_in_episode": EPISODE,
        "ppo.n_steps": N_STEPS,
        "simulator.preset": "null",
        "simulator.paths": 64,
        "simulator.sessions": 4,
        "simulator.warmup_sessions": 1,
        "simulator.bars_per_session": 120,
        "num_envs": LANES,
    }
)
FEED = SimulatedFeed(CONFIG)
KEY = jax.random.key(3)
ENV = TradingEnv(CONFIG)

traces: list[bool] = []
"""Grows whenever the program of `rollout` is compiled, by whether it is the base class's."""


@pytest.fixture(scope="module")
def params() -> EnvParams:
    return make_params(CONFIG, FEED.resident(KEY, 0))


def prefix(params: EnvParams) -> EnvParams:
    """`in_axes`: costs and rewards by lane, the rest shared."""
    shared = {"market": None, "account": None, "safeguards": None, "progress": None}
    return dataclasses.replace(params, **shared, fills=0, reward=0)


def by_lane(params: EnvParams) -> EnvParams:
    """The same parameters with costs and rewards as leaves `[N]`."""

    def spread_out(section):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (LANES, *x.shape)), section)

    return dataclasses.replace(
        params, fills=spread_out(params.fills), reward=spread_out(params.reward)
    )


@partial(jax.jit, static_argnums=5)
def rollout(params, obs, state, key, actions, base):
    """What `step` returns to all lanes `[T, N]`, for `actions` `[N_STEPS, N]`."""
    traces.append(base)
    step_of = partial(environment.Environment.step, ENV) if base else ENV.step

    def step(carry, inputs):
        _, state = carry
        actions, key = inputs
        keys = jax.random.split(key, LANES)
        outcome = jax.vmap(step_of, in_axes=(0, 0, 0, prefix(params)))(keys, state, actions, params)
        return outcome[:2], outcome

    keys = jax.random.split(key, len(actions))
    return jax.lax.scan(step, (obs, state), (actions, keys))


def rollouts(params, actions, base=False):
    """The first state, and what `step` returns over several rollouts, as NumPy arrays."""
    obs, state = first = reset(params, KEY)
    parts = []
    for number, chunk in enumerate(actions.reshape(-1, N_STEPS, LANES)):
        key = jax.random.fold_in(KEY, number)
        (obs, state), part = rollout(params, obs, state, key, chunk, base)
        parts.append(part)
    return first, jax.tree.map(lambda *x: np.concatenate(x), *parts)


@jax.jit
def reset(params, key):
    keys = jax.random.split(key, LANES)
    return jax.vmap(ENV.reset, in_axes=(0, prefix(params)))(keys, params)


def random_actions(seed: int, steps: int = N_STEPS) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (steps, LANES), dtype=np.int32)


# the contract


def test_step_and_reset_follow_gymnax(params):
    obs, state = ENV.reset(KEY, params)
    space = ENV.observation_space(params)
    assert space.shape == obs.shape == (12,) and obs.dtype == jnp.float32 and space.contains(obs)
    assert (space.low, space.high) == (-5, 5)
    assert ENV.num_actions == ENV.action_space(params).n == 3 and ENV.name == "JulesTrading-v0"
    shapes = jax.eval_shape(ENV.step, KEY, state, jnp.int32(1), params)
    obs_, state_, reward, terminated, truncated, info = shapes
    assert obs_.shape == (12,) and jax.tree.structure(state_) == jax.tree.structure(state)
    assert reward.shape == terminated.shape == truncated.shape == ()
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (jnp.float32, bool, bool)
    assert set(info) == {"record", "final_observation", "terminated", "truncated"}
    assert isinstance(info["record"], StepRecord)


def test_state_is_small_of_fixed_size_and_strongly_typed(params):
    _, state = jax.eval_shape(ENV.reset, KEY, params)
    after = jax.eval_shape(ENV.step, KEY, state, jnp.int32(2), params)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after[1]), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) and a.shape == ()
        assert a.dtype in (jnp.float32, jnp.int32, bool)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, after)))
    assert sum(leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) < 256
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))


def test_own_step_is_the_base_class_step_but_for_the_start_that_is_drawn(params):
    actions = random_actions(0, 3 * N_STEPS)
    _, own = rollouts(by_lane(params), actions)
    _, base = rollouts(by_lane(params), actions, base=True)
    last = EPISODE - 1
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(base), strict=True):
        np.testing.assert_array_equal(a[:last], b[:last])
    for a, b in zip(jax.tree.leaves(own[2:]), jax.tree.leaves(base[2:]), strict=True):
        np.testing.assert_array_equal(a[last], b[last])
    assert np.any(own[1].row[last] != base[1].row[last])  # each drew its own


def test_an_episode_is_truncated_after_its_steps_and_begins_afresh_elsewhere(params):
    _, (seen, states, _, terminated, truncated, info) = rollouts(
        by_lane(params), random_actions(1, 3 * N_STEPS)
    )
    last = EPISODE - 1
    assert np.array_equal(np.flatnonzero(truncated.any(axis=1)), [last]) and truncated[last].all()
    assert not terminated.any() and np.array_equal(info["truncated"], truncated)
    fresh = jax.tree.map(lambda leaf: leaf[last], states)
    assert np.all(fresh.time == 0) and np.all(fresh.holding.position == 0)
    assert np.all(fresh.holding.equity.high == 1) and np.all(fresh.row == fresh.start_row)
    first, final = np.asarray(params.market.episodes[:, 1:]).T
    inside = (fresh.row[:, None] >= first) & (fresh.row[:, None] <= final)
    assert inside.any(axis=1).all() and len(set(fresh.row.tolist())) > LANES // 2
    assert np.all(states.time[-1] == 3 * N_STEPS - EPISODE)
    assert not np.array_equal(seen[last], info["final_observation"][last])
    np.testing.assert_array_equal(seen[:last], info["final_observation"][:last])


def test_the_final_observation_is_the_true_last_one(params):
    actions = random_actions(2, 3 * N_STEPS)
    (first, state), (*_, info) = rollouts(by_lane(params), actions)
    for lane in (0, 7):
        start = int(state.row[lane])
        rows = np.asarray(params.market.rows[start : start + EPISODE + 1])
        told = watch(rows, actions[:EPISODE, lane])
        last = info["final_observation"][EPISODE - 1, lane]
        np.testing.assert_allclose(last, told[-1], atol=1e-5)
        np.testing.assert_allclose(first[lane], told[0], atol=1e-6)


def test_with_time_sets_a_lanes_clock_and_nothing_else(params):
    _, state = ENV.reset(KEY, params)
    later = ENV.with_time(state, jnp.int32(25))
    assert int(later.time) == 25
    assert dataclasses.replace(later, time=state.time) == state


def test_params_vary_by_lane(params):
    spreads = jnp.linspace(0, 60, LANES)
    scaling = jnp.linspace(0.01, 1, LANES)
    shared = by_lane(params)
    varied = dataclasses.replace(
        shared,
        fills=dataclasses.replace(shared.fills, bid_ask_spread_bps=spreads),
        reward=dataclasses.replace(shared.reward, reward_scaling=scaling),
    )
    actions = np.full((N_STEPS, LANES), HOLD, np.int32)
    actions[0] = BUY
    _, (*_, info) = rollouts(varied, actions)
    record = info["record"]
    traded = np.abs(record.quantity[0]) * record.reference_price[0]
    assert np.count_nonzero(traded) > LANES // 2
    half = np.maximum(spreads * 0.5e-4, 0.005 / record.reference_price[0])  # half a tick at least
    np.testing.assert_allclose(record.cost_spread[0], traded * half, rtol=1e-5)
    np.testing.assert_allclose(
        record.reward_equity_change, scaling * record.net_pnl, rtol=1e-5, atol=1e-7
    )


# starts


def test_every_admissible_start_is_equally_likely_and_no_other_is_drawn():
    stretches = np.array([[0, 10, 12], [1, 40, 40], [0, 100, 139], [2, 200, 206]])
    lengths = stretches[:, 2] - stretches[:, 1] + 1
    data = MarketData(
        rows=jnp.zeros((1, 1)),
        episodes=jnp.asarray(stretches, jnp.int32),
        cumulative=jnp.asarray(np.cumsum(lengths), jnp.int32),
    )
    keys = jax.random.split(KEY, 50_000)
    rows, symbols = jax.jit(jax.vmap(lambda key: draw_start(key, data)))(keys)
    admissible = np.concatenate([np.arange(a, b + 1) for _, a, b in stretches])
    found, counts = np.unique(rows, return_counts=True)
    np.testing.assert_array_equal(found, admissible)
    assert stats.chisquare(counts).pvalue > 1e-3
    owner = dict(zip(admissible.tolist(), np.repeat(stretches[:, 0], lengths), strict=True))
    assert [owner[row] for row in np.asarray(rows).tolist()] == np.asarray(symbols).tolist()


def test_many_stretches_are_drawn_from_just_as_few_are():
    count = 400  # beyond SMALL_TABLE, where the search is binary
    first = 10 * np.arange(count)
    data = MarketData(
        rows=jnp.zeros((1, 1)),
        episodes=jnp.asarray(np.column_stack([np.arange(count), first, first + 4]), jnp.int32),
        cumulative=jnp.asarray(5 * np.arange(1, count + 1), jnp.int32),
    )
    keys = jax.random.split(KEY, 100_000)
    rows, symbols = jax.jit(jax.vmap(lambda key: draw_start(key, data)))(keys)
    assert np.all(rows // 10 == symbols) and np.all(rows % 10 < 5)
    _, counts = np.unique(rows, return_counts=True)
    assert counts.size == 5 * count and stats.chisquare(counts).pvalue > 1e-3


# generations


def test_every_row_read_in_an_episode_is_of_the_generation_it_started_in_without_recompiling():
    """A refresh every ⌈40/16⌉ = 3 rollouts, the soonest that the configuration allows."""
    data = FEED.resident(KEY, 0)
    params = by_lane(make_params(CONFIG, data))
    obs, state = reset(params, KEY)
    state = jax.vmap(ENV.with_time)(state, jnp.arange(LANES, dtype=jnp.int32) * 2)
    born = np.zeros(LANES, int)
    own_rows = [np.asarray(FEED.generation(KEY, g)) for g in range(5)]
    names = {"reference_price": 0, "mark_price": 1, "volume": 3, "sigma": 5, "adv": 7}
    crossed = 0
    for number in range(15):
        g = number // CONFIG.refresh_updates
        if number and number % CONFIG.refresh_updates == 0:
            params = dataclasses.replace(params, market=FEED.advance(params.market, KEY, g))
        (obs, state), (*_, truncated, info) = rollout(
            params, obs, state, jax.random.fold_in(KEY, number), random_actions(number), False
        )
        record = jax.tree.map(np.asarray, info["record"])
        for t in range(N_STEPS):
            local = record.row[t] - (born % 2) * FEED.generation_rows
            assert np.all((local >= 0) & (local < FEED.generation_rows))
            for name, column in names.items():
                truth = [own_rows[b][r, column] for b, r in zip(born, local, strict=True)]
                np.testing.assert_array_equal(getattr(record, name)[t], truth)
            crossed += np.sum(born < g)
            born = np.where(truncated[t], g, born)
    assert crossed > 200  # steps that episodes took in the older generation
    assert born.min() == 4
    assert traces.count(False) == 1, "resets and refreshes compile nothing anew"


# observation


def test_account_entries_of_the_observation_by_hand():
    closes = np.array([100, 100, 101, 102, 99, 95.5, 95.5])
    seen = watch(market(closes), script(6, {0: BUY}), account=ALL_IN, fills=FREE)
    sigma = 1e-3
    pnl = [0, 0, np.log(1.01) / (sigma * 2**0.5), np.log(1.02) / (sigma * 3**0.5),
           np.log(0.99) / (sigma * 2)]  # fmt: skip
    np.testing.assert_allclose(seen[:5, 8], np.clip(pnl, -5, 5), rtol=1e-4, atol=1e-6)
    soft = np.array([0, 0, 0, 0, 3 / 102]) / 0.03
    np.testing.assert_allclose(seen[:5, 9], soft, atol=1e-5)
    np.testing.assert_allclose(seen[5:, 9], -(6.5 / 102) / 0.03, rtol=1e-4)  # locked
    wait = 0.25 + 0.75 * np.array([9, 8, 7, 6, 5, 4]) / 9
    np.testing.assert_allclose(seen[1:, 10], wait, rtol=1e-6)
    np.testing.assert_array_equal(seen[:, 11], [0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(seen[[0, 6], 8], 0)
    assert np.all(seen[0, 8:] == 0)


def test_a_short_position_mirrors_and_cooldown_fades_to_a_quarter():
    account = Account(borrow_rate=0.0)
    rows = market(np.concatenate([[100.0, 100.0, 99.9], np.full(18, 99.9)]))
    seen = watch(rows, script(20, {0: SELL}), account=account, fills=FREE)
    assert seen[2, 8] == pytest.approx(-np.log(0.999) / (1e-3 * 2**0.5), rel=1e-3)
    wait = np.maximum(9 - np.arange(20), 0) / 9
    np.testing.assert_allclose(seen[1:, 10], -0.25 - 0.75 * wait, rtol=1e-6)
    np.testing.assert_array_equal(seen[1:, 11], -1)


def test_nothing_is_nan_or_out_of_bounds_in_the_wildest_market():
    """Prices from 1e-3 to 1e6 dollars, gaps of 50 %, runs of no volume."""
    rng = np.random.default_rng(7)
    wildest = {"jump": 0.5, "jump_rate": 0.02, "halts": 0.1, "capital": 50_000.0}
    symbols = [dataclasses.replace(wild_symbol(rng), **wildest) for _ in range(96)]
    rows = np.stack([make_rows(rng, symbol, 257) for symbol in symbols])
    columns = [Row._fields.index(name) for name in ("open", "close", "volume")]
    open_, close, volume = (rows[..., column] for column in columns)
    assert np.abs(open_[:, 1:] / close[:, :-1] - 1).max() > 0.4 and (volume == 0).mean() > 0.1
    actions = rng.integers(0, 3, (96, 256))
    record, seen = play_lanes(rows, actions, account=ALL_IN, safeguards=NIMBLE)
    assert np.isfinite(seen).all() and np.abs(seen).max() <= 5
    for name, values in vars(record).items():
        assert np.isfinite(values).all(), name
    assert np.ptp(seen[..., 8:], axis=(0, 1)).min() >= 0.5


def test_a_short_that_cost_more_than_its_value_is_seen_as_a_loss():
    """In a market of ten shares a day, costs of 125 shares take the fill price below zero."""
    rows = market(np.full(4, 100.0), adv_before=10.0, expected_volume=1.0, sigma_before=0.05)
    record, seen = play_lanes(rows, np.array([[SELL, HOLD, HOLD]]))
    assert record.position[0, 0] < 0 and record.average_entry_price[0, 0] < 0
    assert np.isfinite(seen).all()
    assert seen[0, 1, 8] == -5


# the null market pays nobody


@pytest.fixture(scope="module")
def null_rows() -> np.ndarray:
    """`[256, 257, C]`: stretches of simulated paths without an edge."""
    generations = [FEED.generation(jax.random.key(11), g) for g in range(4)]
    rows = np.stack(generations).reshape(256, FEED.path_bars, -1)
    return rows[:, 150 : 150 + 257]


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


def test_random_play_earns_nothing_gross_on_the_null_market(null_rows):
    actions = np.random.default_rng(0).integers(0, 3, (256, 256))
    record, _ = play_lanes(null_rows, actions)
    mean, error = mean_and_error(record.price_pnl.sum(axis=1, dtype=np.float64))
    assert 1 < error < 30 and abs(mean) < 3 * error
    mean, error = mean_and_error(record.net_pnl.sum(axis=1, dtype=np.float64))
    assert mean < -3 * error


def test_fading_the_last_print_earns_nothing_though_closes_bounce(null_rows):
    """Spread and cooldown are off; orders fill at the open, which does not bounce.

    Impact and fees remain, and are lost. Filled at the close that was seen, the same orders would
    collect the half-spread each time.
    """
    closes, before = (null_rows[..., Row._fields.index(n)] for n in ("close", "previous_close"))
    fades = np.where(closes > before, SELL, BUY)[:, :-1]  # decided on the close of row t
    fine = null_rows.copy()
    fine[..., Row._fields.index("tick")] = 1e-6  # half a tick bounds the spread from below
    record, _ = play_lanes(fine, fades, fills=Fills(bid_ask_spread_bps=0.0), safeguards=NIMBLE)
    assert np.count_nonzero(record.quantity) > 10_000
    pnl = record.price_pnl.sum(axis=1, dtype=np.float64)
    mean, error = mean_and_error(pnl)
    assert abs(mean) < 3 * error
    mean, error = mean_and_error(record.net_pnl.sum(axis=1, dtype=np.float64))
    assert mean < -10 * error
    bounce = record.quantity * (record.reference_price - null_rows[:, 1:, 2]) * record.quantity_step
    mean, error = mean_and_error(pnl + bounce.sum(axis=1))
    assert mean > 10 * error
