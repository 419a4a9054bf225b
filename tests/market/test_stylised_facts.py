"""Stylised facts against NumPy, SciPy and statsmodels, laws of known processes, and real bars."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.tsa.stattools import acf as statsmodels_acf

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import stylised_facts
from jules_jax.market.bars import Bars
from jules_jax.market.stylised_facts import distances, measures, samples
from jules_jax.market.stylised_facts.report import read_reference

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
SLOTS = 390


def bars_of(close, open_=None, volume=None, valid=None, paths=None, slots=SLOTS, **options):
    """Bars of whole sessions from closes `[S · slots]`; each opens at the close before."""
    close = np.asarray(close, float)
    open_ = np.concatenate([close[:1], close[:-1]]) if open_ is None else open_
    index = np.arange(len(close))
    bars = {
        "open": open_,
        "high": np.maximum(open_, close),
        "low": np.minimum(open_, close),
        "close": close,
        "volume": np.full(len(close), 100.0) if volume is None else volume,
        "session": index // slots,
        "bar_of_session": index % slots,
        "minute": index % slots,
        "session_length": np.full(len(close), slots),
        "valid": np.ones(len(close), bool) if valid is None else valid,
    }
    if paths:
        bars = {name: column.reshape(paths, -1) for name, column in bars.items()}
    return Bars(**bars, bars_per_session=slots, **options)


def walk(returns):
    return 100.0 * np.exp(np.cumsum(returns))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).standard_t(4.0, 60 * SLOTS) * 1e-4


@pytest.fixture(scope="module")
def student(noise):
    return stylised_facts.measure(bars_of(walk(noise)))


def test_a_student_t_random_walk_has_its_own_tails_and_no_memory(noise, student):
    assert student.sd == pytest.approx(noise.std(), rel=1e-3)
    assert student.kurtosis == pytest.approx(stats.kurtosis(noise, fisher=False), rel=1e-2)
    assert student.student_dof == pytest.approx(4.0, rel=0.1)
    assert student.student_dof == pytest.approx(stats.t.fit(noise, floc=0)[0], rel=0.05)
    assert np.mean(np.abs(student.acf_return) < 3 * student.acf_return_error) > 0.97
    assert np.all(np.abs(student.variance_ratio_z[[1, 4, 29]]) < 3.5)
    assert student.hurst_return == pytest.approx(0.5, abs=0.03)
    assert student.hurst_size == pytest.approx(0.5, abs=0.06)
    assert student.zero_share == pytest.approx(1 / noise.size), "the first bar opens at its close"


def test_one_long_session_has_the_autocorrelations_of_statsmodels():
    """One session twice: pairs across sessions would show, pairs within are one series' own."""
    rng = np.random.default_rng(1)
    returns = np.convolve(rng.normal(0, 1e-4, 2 * 5000 + 1), [1.0, 0.5], "valid")[:10_000]
    facts = stylised_facts.measure(bars_of(walk(returns), slots=5000))
    expected = statsmodels_acf(returns, nlags=120, adjusted=True)[1:]
    np.testing.assert_allclose(facts.acf_return, expected, atol=4e-3)  # no pairs across the two
    assert facts.acf_return[0] == pytest.approx(0.4, abs=0.02)
    assert facts.variance_ratio[1] == pytest.approx(1 + facts.acf_return[0], abs=1e-12)
    by_hand = 1 + 2 * (2 / 3 * facts.acf_return[0] + 1 / 3 * facts.acf_return[1])
    assert facts.variance_ratio[2] == pytest.approx(by_hand, abs=1e-12)


def test_robust_errors_hold_where_volatility_clusters():
    """Under stochastic volatility 1/√n is too small an error; z must have unit variance."""
    rng = np.random.default_rng(2)
    z, acf = [], []
    for _ in range(20):
        volatility = np.repeat(np.exp(rng.normal(0, 0.8, 10)), SLOTS)
        moves = 1e-4 * volatility * rng.normal(size=10 * SLOTS)
        facts = stylised_facts.measure(bars_of(walk(moves)))
        acf.append(facts.acf_return[:20])
        z.append(facts.acf_return[:20] / facts.acf_return_error[:20])
    assert 0.85 < np.std(z) < 1.15
    assert np.std(acf) * np.sqrt(10 * SLOTS) > 1.3


def test_hill_recovers_a_pareto_exponent():
    rng = np.random.default_rng(3)
    returns = 1e-4 * rng.pareto(3.0, 80 * SLOTS) * rng.choice([-1, 1], 80 * SLOTS)
    x = np.concatenate([rng.pareto(3.0, 200_000) + 1.0])
    assert measures._hill(x) == pytest.approx(3.0, rel=0.05)
    assert stylised_facts.measure(bars_of(walk(returns))).tail_index < 4.0


def test_bounce_between_bid_and_ask_is_what_roll_says():
    rng = np.random.default_rng(4)
    half_spread, sigma = 2e-4, 3e-4
    mid = walk(rng.normal(0, sigma, 100 * SLOTS))
    close = mid * (1 + half_spread * rng.choice([-1, 1], mid.size))
    facts = stylised_facts.measure(bars_of(close, np.concatenate([mid[:1], mid[:-1]])))
    expected = -(half_spread**2) / (sigma**2 + 2 * half_spread**2)
    assert facts.acf_return[0] == pytest.approx(expected, abs=0.01)
    check = {c.name: c for c in stylised_facts.battery(facts, half_spread)}["ACF of r, 1"]
    assert check.passes and check.low < expected < check.high
    assert not {c.name: c for c in stylised_facts.battery(facts, 0.0)}["ACF of r, 1"].passes


def test_what_was_planted_in_two_hundred_sessions_is_found():
    rng = np.random.default_rng(5)
    sessions = 200
    shape = 1.0 + 1.5 * np.exp(-np.arange(SLOTS) / 30)
    day = np.exp(np.convolve(rng.normal(0, 0.2, sessions + 20), 0.85 ** np.arange(21), "valid"))
    level = day[:, None] * shape
    move = 3e-4 * level * rng.normal(size=(sessions, SLOTS))
    log_volume = 0.5 * np.abs(move) / (3e-4 * level) + rng.normal(0, 0.5, move.shape)
    volume = np.exp(log_volume) * (1 + 2 * np.linspace(-1, 1, SLOTS) ** 2)
    gaps = np.concatenate([[0.0], rng.normal(0, 5e-3, sessions - 1)])
    opening = 100 * np.exp(np.cumsum(gaps + np.concatenate([[0.0], move.sum(1)[:-1]])))
    close = opening[:, None] * np.exp(np.cumsum(move, axis=1))
    open_ = np.concatenate([opening[:, None], close[:, :-1]], axis=1)
    facts = stylised_facts.measure(bars_of(close.ravel(), open_.ravel(), volume.ravel()))

    assert facts.sd == pytest.approx(move.std(), rel=1e-6)
    assert facts.overnight_sd == pytest.approx(gaps[1:].std(), rel=1e-9)
    assert facts.open_to_close_sd == pytest.approx(move.sum(1).std(), rel=1e-6)
    assert facts.overnight_share == pytest.approx(
        gaps[1:].var() / (gaps[1:].var() + move.sum(1).var()), rel=1e-6
    )
    rv = np.sqrt((move**2).sum(axis=1))
    assert facts.rv_cv == pytest.approx(rv.std() / rv.mean(), rel=1e-6)
    assert facts.rv_acf == pytest.approx(np.corrcoef(rv[1:], rv[:-1])[0, 1], abs=0.03)
    buckets = np.abs(move).reshape(sessions, 13, 30).mean(axis=2)
    np.testing.assert_allclose(
        facts.volatility_shape, buckets.mean(0) / np.abs(move).mean(), rtol=1e-6
    )
    relative = buckets / np.abs(move).mean(axis=1)[:, None]
    assert facts.volatility_shape_f == pytest.approx(stats.f_oneway(*relative.T)[0], rel=1e-6)
    share = volume.reshape(sessions, 13, 30).sum(2) / volume.sum(1)[:, None]
    np.testing.assert_allclose(facts.volume_shape, 13 * share.mean(0), rtol=1e-6)
    own = np.corrcoef((np.abs(move) / shape).ravel(), (log_volume).ravel())[
        0, 1
    ]  # the true shapes; those of the facts are estimated
    assert facts.volume_volatility == pytest.approx(own, abs=0.03)
    assert np.all(facts.acf_size[:60] > 0.1) and facts.hurst_size > 0.6
    assert abs(facts.leverage) < 0.02


def test_volatility_that_rises_after_falls_is_leverage():
    rng = np.random.default_rng(6)
    z = rng.normal(size=40 * SLOTS)
    falls = np.convolve(np.maximum(-z, 0), np.ones(10) / 10)[: z.size]
    returns = 1e-4 * z * (0.5 + np.concatenate([[0.4], falls[:-1]]))
    assert stylised_facts.measure(bars_of(walk(returns))).leverage < -0.05


def test_absent_bars_join_no_return_and_early_closes_count_for_nothing(noise):
    close = walk(noise[: 4 * SLOTS])
    valid = np.ones(close.size, bool)
    valid[[SLOTS + 10, SLOTS + 11]] = False
    bars = bars_of(close, valid=valid)
    bars.session_length[3 * SLOTS :] = 210
    facts = stylised_facts.measure(bars)
    assert facts.sessions == 3
    assert facts.returns == 3 * SLOTS - 3, "two bars absent, and the return after them"
    broken = close.copy()
    broken[[SLOTS + 10, SLOTS + 11]] = 1e6  # an absent bar's price is not looked at
    again = bars_of(broken, bars.open, valid=valid)
    again.session_length[3 * SLOTS :] = 210
    assert stylised_facts.measure(again).sd == facts.sd


def test_sessions_do_not_continue_from_one_path_to_the_next(noise):
    paths = stylised_facts.measure(bars_of(walk(noise), paths=4))
    assert paths.sessions == 60
    one = bars_of(walk(noise))
    assert paths.sd == pytest.approx(stylised_facts.measure(one).sd)
    jump = np.where(np.arange(noise.size) >= noise.size // 2, 2.0, 1.0)  # between paths 2 and 3
    opens = np.concatenate([[100.0], walk(noise)[:-1]]) * jump
    apart = stylised_facts.measure(bars_of(walk(noise) * jump, opens, paths=4))
    together = stylised_facts.measure(bars_of(walk(noise) * jump, opens))
    assert apart.overnight_sd < 1e-3 < together.overnight_sd


def test_what_bars_do_not_say_is_nan(noise):
    bars = bars_of(walk(noise[: 5 * SLOTS]), volume=np.zeros(5 * SLOTS), continuous=True)
    facts = stylised_facts.measure(bars)
    for value in (facts.overnight_sd, facts.overnight_share, facts.volume_volatility):
        assert math.isnan(value)
    assert np.all(np.isnan(facts.volume_shape))
    assert "nan" not in stylised_facts.report({"x": facts})


def test_a_single_session_is_refused(noise):
    with pytest.raises(InputError, match="1 full sessions of bars found, expected at least 2"):
        stylised_facts.measure(bars_of(walk(noise[:SLOTS])))


def test_a_report_shows_facts_references_and_verdicts(student, tmp_path):
    text = stylised_facts.report({"null": student}, half_spreads={"null": 0.0})
    assert "60 sessions" in text and "six US names" in text
    assert "FAIL  volume: open / midday" in text and "pass  ACF of r, 1" in text
    path = tmp_path / "facts.json"
    path.write_text('{"datasets": {"X": {}}}')
    with pytest.raises(InputError, match=r"facts\.json has no reference statistics"):
        stylised_facts.report({"null": student}, reference=path)
    with pytest.raises(InputError, match="cannot read"):
        read_reference(tmp_path / "absent.json")


def test_one_night_of_panic_does_not_move_the_median_over_years(noise):
    rng = np.random.default_rng(7)
    years = []
    for year in range(5):
        gaps = rng.normal(0, 1e-3, 60)
        gaps[30] = 0.5 if year == 3 else gaps[30]
        close = (
            walk(noise.reshape(60, SLOTS) + 0).reshape(60, SLOTS) * np.exp(gaps.cumsum())[:, None]
        )
        opens = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
        years.append(stylised_facts.measure(bars_of(close.ravel(), opens.ravel())))
    shares = [year.overnight_share for year in years]
    middle = measures.median(years)
    assert middle.overnight_share == sorted(shares)[2] < 0.5 < shares[3]
    assert (middle.paths, middle.sessions) == (5, 60)
    np.testing.assert_allclose(middle.acf_size, years[0].acf_size, atol=1e-9)
    assert "median of 5 paths of 60 sessions" in stylised_facts.report({"x": middle})


def test_paths_of_a_preset_are_measured_one_by_one(monkeypatch):
    monkeypatch.setattr(samples, "SESSIONS", 6)
    settings = config.load({"simulator.preset": "null"})
    measured, _ = stylised_facts.of_config(settings)
    bars = samples.sample(settings.simulator, 60, settings.seed)
    assert bars.close.shape == (samples.PATHS, 6 * SLOTS)
    sds = [
        np.log(close.reshape(-1, SLOTS)[:, -1] / opens.reshape(-1, SLOTS)[:, 0]).std()
        for close, opens in zip(np.float64(bars.close), np.float64(bars.open), strict=True)
    ]
    assert measured["null"].open_to_close_sd == pytest.approx(np.median(sds), rel=1e-6)
    assert measured["null"].paths == samples.PATHS >= 5


def test_distances_are_those_of_scipy():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=400), rng.standard_t(3, 400).round(1)
    assert distances.kolmogorov_smirnov(x, y) == pytest.approx(stats.ks_2samp(x, y).statistic)
    assert distances.wasserstein(x, y) == pytest.approx(stats.wasserstein_distance(x, y))


def test_scores_stand_for_all_returns(noise, student):
    z = (noise - noise.mean()) / noise.std()
    other = np.random.default_rng(9).normal(size=20_000)
    for measure, oracle in (
        (distances.kolmogorov_smirnov, lambda x, y: stats.ks_2samp(x, y).statistic),
        (distances.wasserstein, stats.wasserstein_distance),
    ):
        scores = np.quantile(other, (np.arange(measures.SCORES) + 0.5) / measures.SCORES)
        assert measure(student.scores, scores) == pytest.approx(oracle(z, other), abs=2e-3)
        assert measure(*student.scores_of_halves) < 0.3 * oracle(z, other)


def test_a_report_sets_paths_beside_recorded_symbols(noise, student):
    wild = stylised_facts.measure(bars_of(walk(noise * np.repeat([1, 9], noise.size // 2))))
    text = stylised_facts.report({"null": student, "SPY": wild}, half_spreads={"null": 0.0})
    row = next(line for line in text.splitlines() if line.startswith("null to SPY"))
    ks, yardstick, _, _ = map(float, row.split()[3:])
    assert ks > 0.1 > 0.05 > yardstick
    assert "null to" not in stylised_facts.report({"null": student}, half_spreads={"null": 0.0})


def test_reference_names_are_rows_of_the_table(student):
    assert set(stylised_facts.REFERENCE) <= set(student.rows())


def test_the_figure_draws_every_sample_in_six_panels(student, tmp_path):
    drawing = stylised_facts.figure({"a": student, "b": student})
    assert len(drawing.axes) == 6
    assert all(len(panel.lines) >= 2 for panel in drawing.axes)
    drawing.savefig(tmp_path / "facts.png", dpi=40)
    with pytest.raises(InputError):
        stylised_facts.figure({})


def real(path, early):
    """US regular hours of a CSV file in shared data."""
    if not (SHARED / path).exists():
        pytest.skip(f"no {path} beside the repository")
    frame = pd.read_csv(SHARED / path)
    frame.columns = [name.lower() for name in frame.columns]
    frame.index = pd.to_datetime(frame.iloc[:, 0])
    frame = frame.between_time("09:30", "15:59")
    slot = (frame.index.hour * 60 + frame.index.minute - 570).to_numpy()
    day = frame.index.normalize()
    prices = [frame[name].to_numpy(np.float32) for name in ("open", "high", "low", "close")]
    length = np.where(np.isin(day.strftime("%Y-%m-%d"), early), 210, SLOTS)
    session = np.unique(day, return_inverse=True)[1]
    volume = frame["volume"].to_numpy(np.float32)
    return Bars(*prices, volume, session, slot, slot, length, np.ones(len(frame), bool))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("us_equity_1min_rth/SPY_1min.csv.gz", "SPY_1min_2025-09_2026-03"),
        ("us_equity_1min_rth/IONQ_1min.csv.gz", "IONQ_1min_2025-09_2026-03"),
        ("us_equity_1min_ext/SPY_1min.csv.gz", "SPY_1min_2025-07_full_volume"),
    ],
)
def test_real_bars_have_the_facts_that_others_measured(path, name):
    facts = stylised_facts.measure(real(path, ["2025-07-03", "2025-11-28", "2025-12-24"])).rows()
    expected = read_reference(SHARED / "stylised_facts.json")[name]
    data = json.loads((SHARED / "stylised_facts.json").read_text())["datasets"][name]
    tolerance = {"sd of r": 0.005, "kurtosis": 0.01, "tail": 0.02, "zero": 0.01, "daily": 0.06}
    tolerance |= {"overnight": 0.15}  # of the session's move, which is defined otherwise
    for row, value in expected.items():
        relative = next((rel for start, rel in tolerance.items() if row.startswith(start)), 0)
        # Lags are counted in minutes here and in bars there; sessions left out differ by one;
        # variance ratios there are of windows' sums.
        absolute = {"ACF of log": 0.04, "ACF of |r|": 0.012, "ACF of r,": 0.004, "varia": 0.07}
        slack = next((tol for start, tol in absolute.items() if row.startswith(start)), 0)
        if row in facts:
            assert facts[row] == pytest.approx(value, rel=relative, abs=slack), row
    shape = data["time_of_day"]["abs_return_over_session_mean"]
    measured = stylised_facts.measure(real(path, ["2025-07-03", "2025-11-28", "2025-12-24"]))
    np.testing.assert_allclose(measured.volatility_shape, shape, atol=0.02)
    np.testing.assert_allclose(
        measured.volume_shape / 13, data["time_of_day"]["volume_share"], atol=0.005
    )
