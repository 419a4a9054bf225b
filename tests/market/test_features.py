"""The causal features, against float64 loops, TA-Lib and their own promises."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import talib

from jules_jax import config
from jules_jax.market import features, liquidity
from jules_jax.market.bars import Bars

WINDOWS = config.Features()
SLOTS, SESSIONS = 40, 8


def make_bars(
    seed: int = 0,
    *,
    price: float = 100.0,
    slots: int = SLOTS,
    sessions: int = SESSIONS,
    keep: float = 1.0,
    halted: float = 0.0,
    continuous: bool = False,
) -> Bars:
    """Random bars; a share 1 − `keep` of them is missing, a share `halted` trades nothing."""
    rng = np.random.default_rng(seed)
    total = slots * sessions
    mid = price * np.exp(np.cumsum(rng.normal(0, 5e-4, total)))
    opening = np.concatenate([[price], mid[:-1]])
    high = np.maximum(opening, mid) * (1 + rng.exponential(2e-4, total))
    low = np.minimum(opening, mid) * (1 - rng.exponential(2e-4, total))
    volume = np.round(rng.lognormal(8, 0.7, total)) * (rng.random(total) >= halted)
    index = np.flatnonzero(rng.random(total) < keep)
    as_float = [np.float32(x[index]) for x in (opening, high, low, mid, volume)]
    session, slot = np.int32(index // slots), np.int32(index % slots)
    return Bars(
        *as_float,
        session=session,
        bar_of_session=slot,
        minute=slot,
        session_length=np.full(len(index), slots, np.int32),
        valid=as_float[4] > 0,
        bars_per_session=slots,
        continuous=continuous,
    )


compute = jax.jit(features.compute, static_argnums=(1, 2))


def as_numpy(row: features.FeatureRow) -> features.FeatureRow:
    return features.FeatureRow(*(np.asarray(x) for x in row))


class Average:
    """A plain mean that becomes exponentially weighted; float64."""

    def __init__(self, alpha: float) -> None:
        self.alpha, self.seen, self.value = alpha, 0, 0.0

    def add(self, x: float) -> None:
        self.value += max(self.alpha, 1 / (self.seen + 1)) * (x - self.value)
        self.seen += 1


def half_life(bars: float) -> float:
    return 1 - 0.5 ** (1 / bars)


def reference(bars: Bars) -> dict[str, np.ndarray]:
    """The same definitions as one float64 loop over levels, with sessions closed eagerly."""
    h, low, c, v = (np.float64(x) for x in (bars.high, bars.low, bars.close, bars.volume))
    slots = bars.bars_per_session
    sigma, sigma_long = Average(half_life(60)), Average(half_life(5 * slots))
    rsi_gain, rsi_loss = Average(1 / 14), Average(1 / 14)
    fast, slow = Average(2 / 11), Average(2 / 21)
    adv, mean_volume = Average(half_life(5)), Average(0.0)
    profile, shares, visits = np.full(slots, 1 / slots), np.zeros(slots), 0
    previous_shares = np.zeros(slots)
    out: dict[str, list] = {name: [] for name in features.FeatureRow._fields}

    def sd(average: Average) -> float:
        return max(np.sqrt(average.value), 1e-6)

    for t in range(len(c)):
        new = t == 0 or bars.session[t] != bars.session[t - 1]
        if new:
            if t > 0:
                adv.add(shares.sum())
                visits += 1
                previous_shares = shares / max(shares.sum(), 1.0)
            shares, traded_value, traded = np.zeros(slots), 0.0, 0.0
        slot = bars.bar_of_session[t]
        if visits:  # a slot learns yesterday's share when it comes round again
            profile[slot] += max(half_life(10), 1 / (visits + 1)) * (
                previous_shares[slot] - profile[slot]
            )
        daily = max(adv.value if visits else mean_volume.value * slots, 1.0)
        expected = max(daily * profile[slot], 1.0)
        out["sigma_before"].append(sd(sigma))
        out["sigma_long_before"].append(sd(sigma_long))
        out["adv_before"].append(daily)
        out["expected_volume"].append(expected)
        if t > 0:
            change = c[t] - c[t - 1]
            rsi_gain.add(max(change, 0))
            rsi_loss.add(max(-change, 0))
            if bars.continuous or not new:
                for average in (sigma, sigma_long):
                    average.add(np.log(c[t] / c[t - 1]) ** 2)
        fast.add(c[t])
        slow.add(c[t])
        typical = (h[t] + low[t] + c[t]) / 3
        traded_value, traded = traded_value + typical * v[t], traded + v[t]
        vwap = traded_value / traded if traded else typical
        shares[slot] = v[t]
        mean_volume.add(v[t])
        moves = rsi_gain.value + rsi_loss.value
        angle = (2 if bars.continuous else 1) * np.pi * bars.minute[t] / bars.session_length[t]
        entries = [
            ((100 * rsi_gain.value / moves if moves else 50) - 50) / 12,
            np.log(c[t] / fast.value) / (1.42 * sd(sigma)),
            np.log(c[t] / slow.value) / (2.12 * sd(sigma)),
            np.log(c[t] / vwap) / (sd(sigma) * np.sqrt(slot + 1)),
            np.sin(angle),
            np.cos(angle),
            np.log(sd(sigma) / sd(sigma_long)),
            np.log(v[t] / expected) if v[t] else -5,
        ]
        out["sigma"].append(sd(sigma))
        out["market"].append(np.clip(entries, -5, 5))
    return {name: np.array(values) for name, values in out.items()}


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"halted": 0.3},
        {"keep": 0.5, "halted": 0.2},
        {"keep": 0.5, "halted": 0.2, "continuous": True},
    ],
    ids=["regular", "halts", "gaps", "continuous"],
)
def test_features_equal_a_float64_loop(kind: dict) -> None:
    bars = make_bars(1, **kind)
    found, expected = as_numpy(compute(bars, WINDOWS)), reference(bars)
    for name in ("sigma_before", "sigma", "sigma_long_before", "adv_before", "expected_volume"):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(found.market, expected["market"], atol=2e-3)


def test_scanning_a_stretch_equals_updating_bar_by_bar_bit_for_bit() -> None:
    bars = make_bars(2, halted=0.1)
    scanned = as_numpy(compute(bars, WINDOWS))
    step = jax.jit(features.update)
    state = jax.device_put(features.init(WINDOWS, SLOTS))
    rows = []
    for t in range(len(bars.close)):
        state, row = step(state, jax.tree.map(lambda x, t=t: x[t], bars))
        rows.append(as_numpy(row))
    stepped = features.FeatureRow(*(np.stack(x) for x in zip(*rows, strict=True)))
    for name in features.FeatureRow._fields:
        if name != "kyle_lambda_before":
            np.testing.assert_array_equal(
                getattr(scanned, name), getattr(stepped, name), err_msg=name
            )


@pytest.mark.parametrize("price", [1e-3, 100.0, 1e6])
def test_rsi_and_emas_agree_with_ta_lib_after_warm_up(price: float) -> None:
    bars = make_bars(3, price=price)
    closes, warm = np.float64(bars.close), 10 * WINDOWS.ema_slow_window
    scale = 100.0 / price  # TA-Lib calls the moves of a very low price zero
    found = as_numpy(compute(bars, WINDOWS))
    rsi = 50 + 12 * found.market[:, 0]
    np.testing.assert_allclose(rsi[warm:], talib.RSI(closes * scale, 14)[warm:], atol=1e-3)
    for entry, window, sd in ((1, 10, 1.42), (2, 20, 2.12)):
        ema = closes * np.exp(-np.float64(found.market[:, entry]) * sd * found.sigma)
        inside = np.abs(found.market[:, entry]) < 5
        expected = talib.EMA(closes, window)
        np.testing.assert_allclose(ema[inside][warm:], expected[inside][warm:], rtol=1e-5)
        # Relative to the distance itself, which is what the agent sees.
        distance = np.log(closes / expected) / (sd * found.sigma)
        np.testing.assert_allclose(
            found.market[inside, entry][warm:], distance[inside][warm:], atol=2e-3
        )


def test_observation_entries_do_not_depend_on_the_currency() -> None:
    bars = make_bars(4)
    entries = compute(bars, WINDOWS).market
    for exponent in (-17, 13):  # powers of two scale float32 exactly: $0.0008 and $820,000
        scaled = replace(
            bars,
            **{
                x: getattr(bars, x) * np.float32(2.0**exponent)
                for x in ("open", "high", "low", "close")
            },
        )
        np.testing.assert_array_equal(compute(scaled, WINDOWS).market, entries)


def test_nothing_looks_ahead() -> None:
    bars, t = make_bars(5), 200
    later = make_bars(6)
    changed = jax.tree.map(lambda x, y: np.concatenate([x[:t], y[t:]]), bars, later)
    before, after = as_numpy(compute(bars, WINDOWS)), as_numpy(compute(changed, WINDOWS))
    known_at_open = {"sigma_before", "sigma_long_before", "adv_before", "expected_volume"}
    known_at_open |= {"kyle_lambda_before"}
    for name in features.FeatureRow._fields:
        end = t + 1 if name in known_at_open else t
        x, y = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(x[:end], y[:end], err_msg=name)
        assert (x[end:] != y[end:]).any(), f"{name} does not react to bars at all"


def test_overnight_returns_move_rsi_but_not_volatility() -> None:
    calm = make_bars(7)
    gap = np.where(calm.session >= 4, np.float32(1.1), np.float32(1.0))
    gapped = replace(calm, **{x: getattr(calm, x) * gap for x in ("open", "high", "low", "close")})
    first = int(np.argmax(calm.session == 4))
    a, b = as_numpy(compute(calm, WINDOWS)), as_numpy(compute(gapped, WINDOWS))
    np.testing.assert_allclose(a.sigma, b.sigma, rtol=1e-3)
    assert b.market[first, 0] > a.market[first, 0] + 1
    as_day_without_close = replace(gapped, continuous=True)
    assert compute(as_day_without_close, WINDOWS).sigma[first] > 10 * a.sigma[first]


@pytest.mark.parametrize("continuous", [False, True])
def test_features_are_finite_and_bounded_on_degenerate_bars(continuous: bool) -> None:
    bars = make_bars(1, keep=0.5, halted=0.6, continuous=continuous)
    flat = jax.tree.map(np.copy, bars)
    for field in ("open", "high", "low", "close"):
        getattr(flat, field)[:] = 1e-3
    silent = replace(bars, volume=np.zeros_like(bars.volume))
    for case in (bars, flat, silent):
        row = as_numpy(compute(case, WINDOWS))
        assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in row)
        assert np.abs(row.market).max() <= 5
        assert row.sigma.min() >= np.float32(1e-6)
        assert row.expected_volume.min() >= 1
        assert (row.market[:, 7] == -5)[case.volume == 0].all()


def test_the_volume_profile_learns_a_u_shape_and_spreads_exactly_one_adv() -> None:
    bars = make_bars(9, sessions=30)
    u = np.float32(1 + 4 * np.abs(np.linspace(-1, 1, SLOTS)))
    bars = replace(bars, volume=bars.volume * np.tile(u, 30))
    row = as_numpy(compute(bars, WINDOWS))
    last = np.s_[-SLOTS:]
    np.testing.assert_allclose(row.expected_volume[last].sum(), row.adv_before[-1], rtol=1e-4)
    assert np.corrcoef(row.expected_volume[last], u)[0, 1] > 0.9
    first = np.s_[1:SLOTS]  # before any session is complete the profile is flat
    np.testing.assert_allclose(row.expected_volume[first], row.adv_before[first] / SLOTS, rtol=1e-5)


def test_rolling_lambda_is_the_least_squares_slope_over_the_bars_before() -> None:
    bars = make_bars(10, halted=0.1)
    rng = np.random.default_rng(0)
    bars = replace(bars, signed_volume=np.float32(rng.normal(0, 1000, len(bars.close))))
    row = as_numpy(compute(bars, WINDOWS))
    returns = np.diff(np.log(np.float64(bars.close)), prepend=np.nan)
    returns[np.diff(bars.session, prepend=-1) != 0] = np.nan
    y = returns / (row.sigma_before * np.sqrt(SLOTS))
    x = bars.signed_volume / row.adv_before
    for t in range(60, len(y), 37):
        window = slice(t - 50, t)
        used = np.isfinite(y[window])
        slope = np.polyfit(x[window][used], y[window][used], 1)[0]
        assert row.kyle_lambda_before[t] == pytest.approx(slope, rel=2e-3, abs=1e-3)
    assert (row.kyle_lambda_before[:50] == 0).all()


def test_rolling_lambda_finds_a_planted_slope_and_is_zero_without_volume() -> None:
    bars, planted = make_bars(11), 17.0
    row = as_numpy(compute(bars, WINDOWS))
    returns = np.asarray(liquidity.log_returns(jax.tree.map(jnp.asarray, bars)))
    flow = returns / (row.sigma_before * np.sqrt(SLOTS)) / planted * row.adv_before
    found = compute(replace(bars, signed_volume=np.float32(flow)), WINDOWS).kyle_lambda_before
    np.testing.assert_allclose(found[60:], planted, rtol=1e-3)
    silent = replace(bars, volume=np.zeros_like(bars.volume))
    assert (np.asarray(compute(silent, WINDOWS).kyle_lambda_before) == 0).all()


def test_bulk_volume_is_bought_on_rises_and_sold_on_falls() -> None:
    returns = jnp.array([-3e-2, -1e-3, 0.0, 1e-3, 3e-2])
    signed = liquidity.bulk_signed_volume(returns, jnp.float32(1e-3), jnp.float32(100.0))
    np.testing.assert_allclose(signed, [-100, -68.27, 0, 68.27, 100], atol=0.01)


@pytest.mark.parametrize("window", [1, 7, 50, 64])
def test_trailing_sums_equal_their_definition(window: int) -> None:
    x = np.random.default_rng(0).normal(size=30).astype(np.float32)
    expected = [x[max(0, t - window + 1) : t + 1].sum() for t in range(30)]
    found = jax.jit(partial(liquidity.trailing_sum, window=window))(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
