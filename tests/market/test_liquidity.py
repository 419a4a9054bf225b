"""Kyle's lambda, the sign of volume and Amihud's ratio, against other code, hand and real flow."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jules_jax.errors import InputError
from jules_jax.market import liquidity
from jules_jax.market.bars import Bars
from jules_jax.market.liquidity import amihud, kyle_lambda

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
TRUE_FLOW = ("NEARUSDT-1m-2024-11", "AVAXUSDT-1m-2023-09")

# the estimate and its standard error


def newey_west(y: np.ndarray, x: np.ndarray, lags: int) -> tuple[float, float]:
    """Slope and standard error from the full sandwich (X'X)⁻¹ S (X'X)⁻¹ with X = [1, x].

    Its sums go over pairs of bars that are at most `lags` apart in time.
    """
    times = np.flatnonzero(np.isfinite(y + x))
    y, x = y[times], x[times]
    design = np.column_stack([np.ones_like(x), x])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    scores = design * (y - design @ beta)[:, None]
    middle = np.zeros((2, 2))
    for t, score in zip(times, scores, strict=True):
        weights = np.maximum(1 - np.abs(times - t) / (lags + 1), 0)
        middle += np.outer(score, weights @ scores)
    bread = np.linalg.inv(design.T @ design)
    return beta[1], np.sqrt((bread @ middle @ bread)[1, 1])


def autocorrelated(count: int = 300, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Returns and net volume with persistence and changing variance."""
    rng = np.random.default_rng(seed)
    flow, noise = np.zeros(count), np.zeros(count)
    for t in range(1, count):
        flow[t] = 0.7 * flow[t - 1] + rng.normal()
        noise[t] = 0.5 * noise[t - 1] + rng.normal() * (1 + abs(flow[t]))
    return 3.0 + 0.4 * flow + noise, 1e6 + 1e3 * flow


@pytest.mark.parametrize("lags", [0, 1, 7])
def test_slope_and_error_are_those_of_the_full_sandwich(lags):
    y, x = autocorrelated()
    found = kyle_lambda(y, x, lags=lags)
    assert (found.slope, found.standard_error) == pytest.approx(newey_west(y, x, lags), rel=1e-8)
    assert found.r_squared == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2) and found.count == 300


def test_slope_error_and_r_squared_agree_with_statsmodels():
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    y, x = autocorrelated()
    fit = api.OLS(y, api.add_constant(x)).fit(cov_type="HAC", cov_kwds={"maxlags": 5})
    found = kyle_lambda(y, x, lags=5)
    expected = fit.params[1], fit.bse[1], fit.rsquared
    assert (found.slope, found.standard_error, found.r_squared) == pytest.approx(expected)


def test_a_fit_of_four_bars_by_hand():
    """x = −3, −1, 1, 3 and y = −1, −1, 1, 1: slope 8/20, residuals ±0.2, ±0.6, R² 0.8."""
    found = kyle_lambda([-1, -1, 1, 1], [-3, -1, 1, 3], lags=0)
    # scores x·e are −0.6, 0.6, 0.6, −0.6, so their squares sum to 1.44
    assert (found.slope, found.r_squared) == pytest.approx((0.4, 0.8))
    assert found.standard_error == pytest.approx(1.2 / 20)
    # at lag 1 their products sum to −0.36, with weight ½ taken twice
    one_lag = kyle_lambda([-1, -1, 1, 1], [-3, -1, 1, 3], lags=1)
    assert one_lag.standard_error == pytest.approx(np.sqrt(1.44 - 0.36) / 20)


def test_a_missing_bar_is_left_out_and_keeps_its_place():
    y, x = autocorrelated(40)
    y[11], x[23] = np.nan, np.nan
    found = kyle_lambda(y, x, lags=2)
    assert found.count == 38
    assert (found.slope, found.standard_error) == pytest.approx(newey_west(y, x, 2), rel=1e-8)
    kept = np.isfinite(y + x)
    closed_up = kyle_lambda(y[kept], x[kept], lags=2)
    assert closed_up.slope == pytest.approx(found.slope)
    assert closed_up.standard_error != pytest.approx(found.standard_error, rel=1e-3)


def test_a_planted_slope_is_found_within_three_standard_errors_at_the_rate_they_promise():
    rng, planted = np.random.default_rng(7), 2.5e-9
    flow = rng.standard_t(4, (200, 500)) * 1e4
    noise = rng.normal(0, 3e-4, flow.shape) * (1 + np.abs(flow) / 1e4)
    fits = [kyle_lambda(planted * x + e, x) for x, e in zip(flow, noise, strict=True)]
    misses = np.array([(fit.slope - planted) / fit.standard_error for fit in fits])
    assert np.mean(np.abs(misses) < 3) > 0.96 and np.abs(misses[0]) < 3
    assert misses.std() == pytest.approx(1, abs=0.25), "the error has the size of the misses"


def test_returns_that_net_volume_decides_alone_are_explained_wholly():
    x = np.arange(10.0)
    exact, constant = kyle_lambda(5 - 2 * x, x), kyle_lambda(np.ones(10), x)
    assert (exact.slope, exact.r_squared) == pytest.approx((-2, 1))
    assert (constant.slope, constant.standard_error, constant.r_squared) == (0, 0, 0)


@pytest.mark.parametrize(
    ("returns", "volume", "lags", "words"),
    [
        ([1, 2, 3], [1, 2], None, r"shape \(3,\) and signed volume of shape \(2,\)"),
        ([1, 2], [1, 2], None, "2 pairs .* at least 3"),
        ([1, np.nan, 3], [1, 2, 3], None, "2 pairs"),
        ([1, 2, 3], [5, 5, 5], None, "volume that varies"),
        ([1, 2, 3], [1, 2, 3], -1, "lags is -1, expected at least 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_a_sentence(returns, volume, lags, words):
    with pytest.raises(InputError, match=words):
        kyle_lambda(returns, volume, lags=lags)


# the sign of volume


def test_volume_signed_from_the_return_is_significant_on_pure_noise():
    """2/π and 3/π are the squared correlations of a normal with its sign and with 2Φ − 1."""
    rng = np.random.default_rng(0)
    noise, volume = rng.normal(0, 1e-3, 20_000), np.full(20_000, 1e4)
    returns = jnp.asarray(noise, jnp.float32)
    by_tick = liquidity.tick_rule_signed_volume(returns, jnp.float32(volume))
    by_bulk = liquidity.bulk_signed_volume(returns, jnp.float32(1e-3), jnp.float32(volume))
    for signed, r_squared in ((by_tick, 2 / np.pi), (by_bulk, 3 / np.pi)):
        circular = kyle_lambda(noise, signed)
        assert circular.slope > 50 * circular.standard_error
        assert circular.r_squared == pytest.approx(r_squared, abs=0.01)
    honest = kyle_lambda(noise, volume * rng.choice([-1, 1], 20_000))
    assert abs(honest.slope) < 3 * honest.standard_error and honest.r_squared < 1e-3


def test_the_tick_rule_carries_the_last_sign_over_bars_without_a_change():
    returns = jnp.array([0.0, 0.0, 2e-4, 0.0, -1e-4, 0.0, 0.0, 3e-4])
    volume = jnp.array([5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 0.0, 11.0])
    signed = jax.jit(liquidity.tick_rule_signed_volume)(returns, volume)
    assert signed.tolist() == [0, 0, 7, 8, -9, -10, 0, 11] and signed.dtype == jnp.float32


def some_bars(flow: bool, sessions: int = 4, slots: int = 60) -> Bars:
    rng = np.random.default_rng(5)
    total = sessions * slots
    volume = rng.lognormal(8, 0.7, total)
    signed = volume * rng.uniform(-1, 1, total)
    close = 50 * np.exp(np.cumsum(3e-7 * signed + rng.normal(0, 5e-4, total)))
    price, index = np.float32(close), np.arange(total, dtype=np.int32)
    return Bars(
        price, price, price, price, np.float32(volume),
        session=index // slots, bar_of_session=index % slots, minute=index % slots,
        session_length=np.full(total, slots, np.int32), valid=np.ones(total, bool),
        signed_volume=np.float32(signed) if flow else None, bars_per_session=slots,
    )  # fmt: skip


@pytest.mark.parametrize("flow", [True, False], ids=["taker flow", "bulk classified"])
def test_the_rolling_lambda_is_the_fit_of_the_window_that_ends_one_bar_before(flow):
    bars, window = some_bars(flow), 50
    sigma = np.linspace(4e-4, 8e-4, len(bars.close)).astype(np.float32)
    adv = np.linspace(1e5, 2e5, len(bars.close)).astype(np.float32)
    rolling = jax.jit(liquidity.rolling_kyle_lambda, static_argnums=3)
    found = np.asarray(rolling(jax.tree.map(jnp.asarray, bars), sigma, adv, window))
    assert found.dtype == np.float32 and np.all(found[:window] == 0)

    close, y = np.float64(bars.close), np.full(len(sigma), np.nan)
    for t in range(1, len(y)):
        if bars.session[t] == bars.session[t - 1]:
            y[t] = np.log(close[t] / close[t - 1])
    cdf = np.array([NormalDist().cdf(z) for z in np.nan_to_num(y / sigma)])
    bulk = bars.volume * (2 * cdf - 1)
    x = (bars.signed_volume if flow else bulk) / adv
    for t in range(window, len(y), 7):
        past = slice(t - window, t)
        scaled = y[past] / (sigma[past] * np.sqrt(60.0))
        assert found[t] == pytest.approx(kyle_lambda(scaled, x[past]).slope, rel=2e-3, abs=2e-3)


def test_true_taker_flow_is_used_where_the_source_has_it():
    bars, sigma = some_bars(flow=True), jnp.float32(5e-4)
    np.testing.assert_array_equal(liquidity.net_volume(bars, sigma), bars.signed_volume)
    guessed = np.asarray(liquidity.net_volume(some_bars(flow=False), sigma))
    assert np.all(np.abs(guessed) <= bars.volume) and 0.1 < correlation(guessed, bars) < 0.99


def correlation(signed: np.ndarray, bars: Bars) -> float:
    return float(np.corrcoef(signed, bars.signed_volume)[0, 1])


# Amihud


def test_amihud_by_hand():
    """|1|/1e6, |−2|/1e6 and |3|/3e6 have the mean 4/3e6; the bar without volume says nothing."""
    returns, dollars = [1.0, -2.0, 3.0, 4.0], [1e6, 1e6, 3e6, 0.0]
    assert amihud(returns, dollars) == pytest.approx(4 / 3 * 1e-6)
    by_row = amihud([[1.0, np.nan], [2.0, 2.0], [3.0, np.nan]], [[2.0, 1.0], [1.0, 4.0], [0.0, 1]])
    np.testing.assert_allclose(by_row, [0.5, 1.25, np.nan])


# real flow


def facts(name: str) -> tuple[pd.DataFrame, dict]:
    """Minutes of a month with returns in bp and flow in mean minute volumes, and what is known."""
    path = SHARED / "crypto_binance_1m" / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    raw = pd.read_csv(path)
    day = pd.to_datetime(raw["open_time"], unit="ms").dt.floor("D")
    previous = raw["close"].shift().where(day == day.shift(), raw["open"])
    returns = 1e4 * np.log(raw["close"] / previous)
    unit = raw["volume"].groupby(day).transform("mean")
    frame = pd.DataFrame({
        "returns": returns,
        "sigma": returns.groupby(day).transform("std"),
        "volume": raw["volume"] / unit,
        "taker": (2 * raw["taker_buy_volume"] - raw["volume"]) / unit,
        "dollars": raw["close"] * raw["volume"],
    })  # fmt: skip
    known = json.loads((SHARED / "stylised_facts.json").read_text())["datasets"][name]
    return frame, known["impact"]["all"]


def digits(value: float) -> float:
    """`value` with the five digits of the reference."""
    return float(f"{value:.5g}")


def agrees(found: liquidity.KyleLambda, known: dict) -> bool:
    return (digits(found.slope), digits(found.r_squared), found.count) == (
        known["slope"], known["r2"], known["n"],
    )  # fmt: skip


@pytest.mark.parametrize("name", TRUE_FLOW)
def test_lambda_of_true_taker_flow_is_the_recorded_one_at_every_horizon(name):
    frame, known = facts(name)
    for minutes, key in ((1, ""), (5, "_5min"), (30, "_30min")):
        sums = frame.groupby(np.arange(len(frame)) // minutes)[["returns", "taker"]].sum()
        found = kyle_lambda(sums["returns"], sums["taker"])
        assert agrees(found, known[f"true_taker_flow{key}"])
        assert found.slope > 8 * found.standard_error
        # heavy tails: the classical error, slope / t, is far too small
        assert found.standard_error > 1.3 * found.slope / known[f"true_taker_flow{key}"]["t"]


@pytest.mark.parametrize(
    ("name", "stated"), [(TRUE_FLOW[0], (31.0, 1.1)), (TRUE_FLOW[1], (32.0, 2.0))]
)
def test_lambda_without_units_is_the_one_that_the_documentation_states(name, stated):
    """Returns over a day's sd on flow over a day's volume, of 1,440 minutes each."""
    frame, _ = facts(name)
    returns = frame["returns"] / (frame["returns"].std() * np.sqrt(1440))
    found = kyle_lambda(returns, frame["taker"] / 1440)
    assert (round(found.slope, 1), round(found.standard_error, 1)) == stated


@pytest.mark.parametrize("name", TRUE_FLOW)
def test_lambda_of_classified_volume_is_the_recorded_one_and_explains_what_it_should_not(name):
    frame, known = facts(name)
    returns, sigma, volume = (
        jnp.asarray(frame[column], jnp.float32) for column in ("returns", "sigma", "volume")
    )
    signed = np.asarray(liquidity.bulk_signed_volume(returns, sigma, volume))
    bulk = kyle_lambda(frame["returns"], signed)
    assert agrees(bulk, known["bulk_classified_volume"])
    true = kyle_lambda(frame["returns"], frame["taker"])
    assert bulk.r_squared > 1.2 * true.r_squared and bulk.slope < 0.7 * true.slope
    moved = frame["returns"] != 0  # elsewhere the tick rule carries a sign, the record has 0
    by_tick = liquidity.tick_rule_signed_volume(returns, volume)
    by_sign = np.where(moved, by_tick, 0.0)
    assert agrees(kyle_lambda(frame["returns"], by_sign), known["sign_r_times_volume"])


@pytest.mark.parametrize("name", TRUE_FLOW)
def test_amihud_is_the_recorded_one(name):
    """The record is the *median* of single bars' ratios, in bp per million dollars."""
    frame, known = facts(name)
    single = amihud(frame[["returns"]], frame[["dollars"]] / 1e6)
    assert digits(np.nanmedian(single)) == known["amihud_bp_per_million_usd"]
    assert amihud(frame["returns"], frame["dollars"] / 1e6) == pytest.approx(np.nanmean(single))
