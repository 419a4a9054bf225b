"""The synthetic market has the edge, and the absence of edge, that it claims."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jules_jax import config
from jules_jax.market import randomness, regimes, simulator, stylised_facts

HALF_SPREAD = 2.5e-4
PATHS = 24
EASY = replace(config.Simulator(), sessions=10)
NULL = replace(EASY, **config.PRESETS["null"])
DEFAULT = replace(EASY, **config.PRESETS["default"])


class Paths(NamedTuple):
    """Float64 views of many paths, `[P, sessions, bars_per_session]` each."""

    bars: simulator.Bars
    mispricing: np.ndarray
    drift: np.ndarray
    mid: np.ndarray
    regime: np.ndarray


def run(params: config.Simulator, seed: int = 0) -> Paths:
    def one(key: jax.Array) -> tuple:
        return simulator.simulate_with_latent(key, params, HALF_SPREAD)

    bars, latent = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), PATHS))
    by_session = (PATHS, params.sessions, params.bars_per_session)
    bars, latent = jax.tree.map(lambda x: np.asarray(x).reshape(by_session), (bars, latent))
    return Paths(bars, *(np.float64(x) for x in latent))


@jax.jit
def path_without_bounce(seed: int) -> tuple:
    params = replace(EASY, sessions=3, bars_per_session=30, enable_bid_ask_bounce=False)
    return simulator.simulate_with_latent(jax.random.key(seed), params, HALF_SPREAD)


@pytest.fixture(scope="module")
def easy() -> Paths:
    return run(EASY)


@pytest.fixture(scope="module")
def default() -> Paths:
    return run(DEFAULT)


@pytest.fixture(scope="module")
def null() -> Paths:
    return run(NULL)


def returns(prices: np.ndarray) -> np.ndarray:
    """Within-session log returns, `[P, D, n - 1]`."""
    return np.diff(np.log(np.float64(prices)), axis=-1)


def variance_ratio(mid: np.ndarray, q: int) -> float:
    log_mid = np.log(mid)
    return np.mean((log_mid[..., q:] - log_mid[..., :-q]) ** 2) / q / np.mean(returns(mid) ** 2)


def autocorrelation(x: np.ndarray) -> float:
    return np.mean(x[..., 1:] * x[..., :-1]) / np.mean(x**2)


def test_the_same_key_gives_the_same_path_and_another_key_another_one() -> None:
    first, again, other = (path_without_bounce(seed)[0] for seed in (1, 1, 2))
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (np.asarray(first.close) != np.asarray(other.close)).all()


@pytest.mark.parametrize("name", ["easy", "null", "default"])
def test_bars_are_finite_consistent_and_strongly_typed(name: str, request) -> None:
    bars = request.getfixturevalue(name).bars
    for field in ("open", "high", "low", "close", "volume"):
        values = getattr(bars, field)
        assert values.dtype == np.float32 and np.isfinite(values).all() and (values > 0).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.volume == np.round(bars.volume)).all() and bars.volume.min() >= 1
    for field in ("session", "bar_of_session", "minute", "session_length"):
        assert getattr(bars, field).dtype == np.int32
    assert (bars.minute[..., :] == np.arange(390)).all() and (bars.session_length == 390).all()
    assert (bars.session == np.arange(10)[:, None]).all() and bars.valid.all()


def test_the_mispricing_of_easy_is_an_18_bp_process_with_a_half_life_of_20_bars(easy) -> None:
    x = 1e4 * easy.mispricing.reshape(PATHS, -1)  # it runs on across sessions
    assert x.std() == pytest.approx(18.0, abs=0.8)
    phi = np.sum(x[:, 1:] * x[:, :-1]) / np.sum(x[:, :-1] ** 2)
    assert -np.log(2) / np.log(phi) == pytest.approx(20.0, abs=1.5)
    np.testing.assert_allclose(easy.drift, (0.5 ** (1 / 20) - 1) * easy.mispricing, atol=1e-8)


def test_easy_and_null_differ_only_in_whether_the_mispricing_reverts(easy, null) -> None:
    x, y = (p.mispricing.reshape(PATHS, -1) for p in (easy, null))
    innovation = x[:, 1:] - 0.5 ** (1 / 20) * x[:, :-1]
    np.testing.assert_allclose(innovation, np.diff(y, axis=1), atol=2e-8)
    assert 1e4 * innovation.std() == pytest.approx(18 * np.sqrt(1 - 0.5 ** (1 / 10)), rel=0.02)
    assert (null.drift == 0).all()


def test_the_mid_of_easy_reverts_and_that_of_null_does_not(easy, null) -> None:
    for q in (5, 30, 60):
        assert variance_ratio(null.mid, q) == pytest.approx(1.0, abs=0.06)
    assert variance_ratio(easy.mid, 60) < 0.7
    assert abs(autocorrelation(returns(null.mid))) < 0.015


def test_the_drift_forecasts_the_next_move_of_the_mid_without_bias(easy) -> None:
    forecast, moved = easy.drift[..., :-1].ravel(), returns(easy.mid).ravel()
    fit = stats.linregress(forecast, moved)
    assert abs(fit.slope - 1.0) < 4 * fit.stderr
    assert 0.08 < fit.rvalue < 0.25  # bounded: most of a bar is noise


def test_prints_bounce_as_in_roll_and_the_open_does_not(null) -> None:
    bars, mid = null.bars, null.mid
    np.testing.assert_allclose(np.abs(bars.close / mid - 1), HALF_SPREAD, atol=3e-7)
    assert np.mean(bars.close > mid) == pytest.approx(0.5, abs=0.01)
    sd = returns(mid).std()
    expected = -(HALF_SPREAD**2) / (sd**2 + 2 * HALF_SPREAD**2)  # Roll (1984)
    assert autocorrelation(returns(bars.close)) == pytest.approx(expected, abs=0.015)
    np.testing.assert_array_equal(bars.open[..., 1:], np.float32(mid[..., :-1]))
    # Fading the last print earns nothing at the open.
    side = np.sign(bars.close - mid)[..., :-1]
    fade = -side * (mid[..., 1:] / np.float64(bars.open[..., 1:]) - 1)
    assert abs(fade.mean()) < 4 * fade.std() / np.sqrt(fade.size)


def test_without_the_bounce_the_close_is_the_mid() -> None:
    bars, latent = path_without_bounce(0)
    np.testing.assert_array_equal(bars.close, latent.mid)


def test_volatility_is_a_reverse_j_and_volume_a_u(null) -> None:
    moves = np.abs(returns(null.mid)).mean(axis=(0, 1))
    assert moves[:15].mean() > 1.2 * moves[150:250].mean()
    volume = np.float64(null.bars.volume).mean(axis=(0, 1))
    middle = volume[150:250].mean()
    assert volume[:15].mean() > 2 * middle and volume[-15:-1].mean() > 1.5 * middle
    assert volume[-1] > 5 * middle
    assert volume.sum() == pytest.approx(EASY.adv, rel=0.1)
    shape = np.asarray(simulator.volatility_shape(EASY))
    assert np.mean(shape**2) == pytest.approx(1.0, rel=1e-5)


def test_returns_have_fat_tails_and_clustered_volatility_tied_to_volume(null) -> None:
    shape = np.asarray(simulator.volatility_shape(EASY))[1:]
    x = returns(null.mid / np.exp(null.mispricing)) / shape  # the efficient price alone
    assert 1e4 * x.std() == pytest.approx(3.0, rel=0.15)
    assert 5 < stats.kurtosis(x.ravel(), fisher=False) < 25
    size = np.abs(x) - np.abs(x).mean()
    assert autocorrelation(size) > 0.1
    log_volume = np.log(np.float64(null.bars.volume)[..., 1:])
    log_volume -= log_volume.mean(axis=(0, 1))
    moves = np.abs(returns(null.mid))
    moves /= moves.mean(axis=(0, 1))
    assert 0.25 < np.corrcoef(moves.ravel(), log_volume.ravel())[0, 1] < 0.6


def test_sessions_open_with_a_gap_of_the_documented_size(null) -> None:
    last, first = null.mid[:, :-1, -1], np.float64(null.bars.open[:, 1:, 0])
    gaps = 1e4 * np.log(first / last)
    assert np.median(np.abs(gaps)) > 3 * np.median(1e4 * np.abs(returns(null.mid)))
    # t(4) tails make the sd of a sample loose; its interquartile range is not.
    expected = 0.70 * 3.0 * np.sqrt(390)
    assert gaps.std() == pytest.approx(expected, rel=0.35)


def test_the_innovations_are_student_t_of_unit_variance() -> None:
    uniform = np.random.default_rng(0).random((2, 100_000), np.float32) * 0.999999 + 5e-7
    x = np.asarray(randomness.student_t(*uniform, dof=8.0)) * np.sqrt(8 / 6)
    assert stats.kstest(x, stats.t(8).cdf).pvalue > 1e-3


def test_bridge_extremes_match_a_fine_simulation_of_the_same_bridge() -> None:
    rng, n, steps = np.random.default_rng(0), 4000, 400
    walk = np.cumsum(rng.normal(0, steps**-0.5, (n, steps)), axis=1)
    uniforms = SimpleNamespace(high=rng.random(n), low=rng.random(n))
    high, low = simulator._bridge_extremes(walk[:, -1], np.float64(1.0), uniforms)
    # The walk is observed at 400 points only: its extremes fall short by 0.5826/√400.
    slack = 0.5826 / np.sqrt(steps)
    assert np.mean(high) == pytest.approx(walk.max(axis=1).mean() + slack, abs=0.03)
    assert np.mean(low) == pytest.approx(walk.min(axis=1).mean() - slack, abs=0.03)


def test_random_words_are_those_of_jax_s_own_generator() -> None:
    key = jax.random.key(11)
    first, second = np.split(np.asarray(randomness.words(key, 1000)), 2)
    np.testing.assert_array_equal(first ^ second, jax.random.bits(key, (1000,)))
    words = np.concatenate([first, second])
    for lag in (1, 2, 1000):  # neither neighbours nor the two words of a block go together
        assert abs(np.corrcoef(words[:-lag], words[lag:])[0, 1]) < 4 / np.sqrt(1000)


def test_uniforms_reach_neither_end_and_normals_are_finite() -> None:
    bits = np.uint32([0, 1, 2**31, 2**32 - 1])
    u = np.asarray(randomness.uniform(bits))
    assert u.dtype == np.float32 and u.min() > 0 and u.max() < 1 and u[2] == pytest.approx(0.5)
    assert np.isfinite(randomness.normal(bits)).all()
    many = np.asarray(randomness.words(jax.random.key(0), 50_000))
    assert stats.kstest(np.asarray(randomness.normal(many)), "norm").pvalue > 1e-3


def test_each_regime_holds_a_third_of_the_time_and_120_bars_on_average(default) -> None:
    regime = default.regime.reshape(PATHS, -1).astype(int)
    leaves = np.diff(regime, axis=1) != 0
    n = leaves.size
    error = np.sqrt(1 / 120 / n)
    assert leaves.mean() == pytest.approx(1 / 120, abs=4 * error)
    # A share over about n/120/2 independent spells.
    for state in (regimes.REVERTING, regimes.NEUTRAL, regimes.TRENDING):
        assert np.mean(regime == state) == pytest.approx(1 / 3, abs=4 * 0.47 / np.sqrt(n / 240))
    moved = (regime[:, 1:] - regime[:, :-1])[leaves] % 3
    assert np.mean(moved == 1) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(moved.size))


def expected_drift(paths: Paths, p: int, params: config.Simulator) -> np.ndarray:
    """The planted drift of path `p` before its bound, by float64 pandas from mid and volume."""
    frame = pd.DataFrame(
        {
            "mid": np.log(paths.mid[p].ravel()),
            "volume": np.float64(paths.bars.volume[p]).ravel(),
            "session": paths.bars.session[p].ravel(),
            "regime": paths.regime[p].ravel(),
        }
    )
    frame["value"] = frame.mid * frame.volume
    total = frame.groupby("session")[["value", "volume"]].cumsum()
    vwap = total.value / total.volume
    start = pd.Series([np.log(params.start_price)])
    ema = pd.concat([start, frame.mid]).ewm(span=20, adjust=False).mean().to_numpy()[1:]
    last = ~frame.session.duplicated(keep="last")  # a new session has no VWAP yet
    reverts = -params.reversion_strength * np.where(last, 0, frame.mid - vwap)
    follows = params.momentum_strength * (frame.mid - ema)
    by_regime = [frame.regime == regimes.REVERTING, frame.regime == regimes.TRENDING]
    return np.select(by_regime, [reverts, follows], 0.0)


def test_the_drift_returns_to_vwap_or_follows_the_ema_within_its_bound(default) -> None:
    for p in range(3):
        drift, expected = default.drift[p].ravel(), expected_drift(default, p, DEFAULT)
        assert (np.abs(drift) <= np.abs(expected) + 1e-7).all()
        free = np.abs(drift) > np.abs(expected) - 1e-7
        assert free.mean() > 0.9  # the bound acts now and then
        np.testing.assert_allclose(drift[free], expected[free], atol=1e-7)
        assert np.array_equal(np.sign(drift), np.sign(expected)) or free.mean() < 1


def test_the_drift_of_default_forecasts_the_next_move_and_is_small(default) -> None:
    forecast, moved = default.drift[..., :-1].ravel(), returns(default.mid).ravel()
    fit = stats.linregress(forecast, moved)
    assert abs(fit.slope - 1.0) < 4 * fit.stderr
    assert 0.03 < fit.rvalue < 0.06  # the information coefficient that leaves room over costs
    assert 1e4 * moved.std() == pytest.approx(8.0, rel=0.1)


def test_presets_are_ordered_by_the_strength_of_their_edge_and_by_their_risk() -> None:
    sections = {name: replace(EASY, **values) for name, values in config.PRESETS.items()}
    assert sections["hard"].momentum_strength < sections["default"].momentum_strength
    assert sections["hard"].reversion_strength < sections["default"].reversion_strength
    assert sections["hard"].noise_bp == sections["default"].noise_bp
    assert sections["stress"].noise_bp == 14.0
    for name in ("easy", "null"):
        assert sections[name].reversion_strength == sections[name].momentum_strength == 0


def test_default_at_a_real_symbol_s_volatility_has_the_stylised_facts() -> None:
    params = replace(DEFAULT, noise_bp=3.1, sessions=500)
    run = jax.jit(partial(simulator.simulate, params=params, half_spread=3e-5))
    facts = stylised_facts.measure(jax.device_get(run(jax.random.key(7))))
    failed = [check for check in stylised_facts.battery(facts, 3e-5) if not check.passes]
    assert failed == []


def test_paths_of_one_market_move_together_and_others_do_not() -> None:
    params = replace(DEFAULT, symbols_per_market=3, market_correlation=0.5, sessions=8)
    one = partial(simulator.simulate_path, params=params, half_spread=HALF_SPREAD)
    bars = jax.jit(jax.vmap(one, in_axes=(None, 0)))(jax.random.key(0), np.arange(6))
    close = np.log(np.asarray(bars.close, np.float64)).reshape(6, 8, 390)
    scale = np.asarray(simulator.volatility_shape(params))[5:]
    moves = (np.diff(close[:, :, 4:], axis=2) / scale).reshape(6, -1)
    found = np.corrcoef(np.clip(moves, -3e-3, 3e-3))
    same = [found[i, j] for a in (0, 3) for i in range(a, a + 3) for j in range(a, i)]
    other = found[:3, 3:]
    assert min(same) > 0.3 and max(same) < 0.5  # half the variance, less the volatility of each
    assert np.abs(other).max() < 4 / np.sqrt(moves.shape[1])


def test_a_path_depends_on_key_and_index_alone() -> None:
    small = replace(EASY, sessions=2, bars_per_session=30)
    by_index = partial(simulator.simulate_path, params=small, half_spread=HALF_SPREAD)
    paths = jax.jit(jax.vmap(by_index, in_axes=(None, 0)))
    some, others = (paths(jax.random.key(5), np.array(i)).close for i in ([0, 1, 2], [2, 7, 0]))
    np.testing.assert_array_equal(some[2], others[0])
    np.testing.assert_array_equal(some[0], others[2])
    assert (np.asarray(some[0]) != np.asarray(some[1])).all()
