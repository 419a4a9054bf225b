"""Calibration recovers what the simulator was given, and reads plausible values off real bars."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jules_jax import config, flags
from jules_jax.errors import InputError
from jules_jax.market import simulator
from jules_jax.market.bars import Bars
from jules_jax.market.feed import SimulatedFeed
from jules_jax.market.fit import MOST_EXCESS, as_yaml, fit, mean_absolute_t
from tests.market.recorded import make_source

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
HALF_SPREAD = 3e-5
TRUE = replace(
    replace(config.Simulator(), **config.PRESETS["default"]),
    noise_bp=3.1,
    reversion_strength=0.0,
    momentum_strength=0.0,
    sessions=250,
    adv=5e7,
    open_volatility=0.8,
    open_volume=1.5,
    last_bar_volume=4.0,
    start_price=500.0,
)


simulate = jax.jit(simulator.simulate, static_argnums=1)


def host_bars(params: config.Simulator, seed: int = 0, half_spread: float = HALF_SPREAD) -> Bars:
    return jax.device_get(simulate(jax.random.key(seed), params, half_spread))


@pytest.fixture(scope="module")
def simulated() -> Bars:
    return host_bars(TRUE)


def test_a_simulated_market_gives_its_parameters_back(simulated) -> None:
    """Tolerances are three standard deviations of the estimates over 250 sessions."""
    found = fit(simulated)
    relative = {
        "noise_bp": 0.09,
        "innovation_dof": 0.25,
        "day_volatility_sd": 0.3,
        "hour_volatility_sd": 0.3,
        "minute_volatility_sd": 0.3,
        "open_volatility": 0.25,
        "open_volume": 0.2,
        "close_volume": 0.2,
        "first_bar_volume": 0.15,
        "last_bar_volume": 0.15,
        "adv": 0.08,
        "overnight_ratio": 0.15,
        "open_volatility_minutes": 0.5,
        "open_volume_minutes": 0.3,
        "close_volume_minutes": 0.4,
    }
    for name, tolerance in relative.items():
        assert found[name] == pytest.approx(getattr(TRUE, name), rel=tolerance), name
    assert found["day_volatility_ar"] == pytest.approx(0.85, abs=0.15)
    assert found["jumps_per_session"] < 0.6
    assert found["bars_per_session"] == 390


def test_what_is_fitted_is_a_valid_section_and_simulates_alike(simulated) -> None:
    found = config.load({"simulator": fit(simulated)}).simulator
    assert found.mispricing_sd_bp == 0
    again = host_bars(replace(found, sessions=250), seed=1)
    for quantile in (0.5, 0.9, 0.99):  # of absolute returns
        sizes = [
            np.quantile(np.abs(np.diff(np.log(np.float64(bars.close)))), quantile)
            for bars in (simulated, again)
        ]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.12)


def test_fatter_tails_are_told_from_thinner_ones(simulated) -> None:
    fat = fit(host_bars(replace(TRUE, innovation_dof=5.0)))["innovation_dof"]
    assert 4 < fat < 6.5 < fit(simulated)["innovation_dof"]


def test_missing_bars_change_little(simulated) -> None:
    keep = np.random.default_rng(0).random(len(simulated.close)) > 0.03
    holed, whole = fit(replace(simulated, valid=keep)), fit(simulated)
    for name in ("noise_bp", "adv", "open_volume", "day_volatility_sd", "overnight_ratio"):
        assert holed[name] == pytest.approx(whole[name], rel=0.05), name


def test_a_source_without_volume_keeps_the_volume_it_has(simulated) -> None:
    found = fit(replace(simulated, volume=np.zeros_like(simulated.volume)))
    assert "adv" not in found and "open_volume" not in found and "noise_bp" in found


def test_a_wide_spread_is_not_taken_for_volatility(simulated) -> None:
    bars, quiet = host_bars(TRUE, half_spread=1.5e-4), fit(simulated)["noise_bp"]
    assert fit(bars)["noise_bp"] == pytest.approx(quiet, rel=0.05)
    assert fit(bars)["spread_bps"] == pytest.approx(3.0, abs=0.2)  # sd of Roll's estimate: 0.05
    assert fit(bars, half_spread=1.5e-4)["noise_bp"] == pytest.approx(quiet, rel=0.05)
    assert fit(bars, half_spread=0.0)["noise_bp"] > 1.1 * quiet


def test_too_few_full_sessions_are_refused(simulated) -> None:
    few = jax.tree.map(lambda x: x[: 4 * 390], simulated)
    with pytest.raises(InputError, match="4 full sessions found, expected at least 5"):
        fit(few)


def of_length(bars: Bars, count: int) -> Bars:
    """Bars of `count` minutes from whole sessions of minute bars."""
    slots = bars.bars_per_session // count
    grid = {
        name: np.asarray(getattr(bars, name)).reshape(-1, 390)[:, : slots * count]
        for name in ("open", "close", "volume", "session")
    }
    parts = {name: column.reshape(-1, slots, count) for name, column in grid.items()}
    slot = np.tile(np.arange(slots), len(parts["open"]))
    close = parts["close"][:, :, -1].reshape(-1)
    return replace(
        bars,
        open=parts["open"][:, :, 0].reshape(-1),
        high=close,
        low=close,
        close=close,
        volume=parts["volume"].sum(axis=2).reshape(-1),
        session=parts["session"][:, :, 0].reshape(-1),
        bar_of_session=slot,
        minute=slot * count,
        session_length=np.full(slot.shape, 390),
        valid=np.ones(slot.shape, bool),
        half_spread=None,
        bar_seconds=60 * count,
        bars_per_session=slots,
    )


@pytest.mark.parametrize("minutes", [5, 15, 30, 60, 78])
def test_longer_bars_are_fitted_to_a_section_that_simulates_finite_prices(
    simulated: Bars, minutes: int
) -> None:
    """Noise grows as the root of the bar's length; what few slots cannot tell stays moderate."""
    found = fit(of_length(simulated, minutes))
    section = config.load({"simulator": found}).simulator
    assert found["noise_bp"] == pytest.approx(3.1 * np.sqrt(minutes), rel=0.3)
    assert found["bars_per_session"] == 390 // minutes
    for name in ("open_volume", "close_volume", "open_volatility", "close_volatility"):
        assert 0 <= found[name] < MOST_EXCESS, name
    assert 0.1 < found["first_bar_volume"] < 10 and 0.1 < found["last_bar_volume"] < 10
    prices = np.asarray(host_bars(replace(section, sessions=20)).close)
    assert np.isfinite(prices).all() and (prices > 0).all()


def test_sessions_of_too_few_bars_are_refused(simulated: Bars) -> None:
    with pytest.raises(InputError, match="fit: 3 bars in a session, expected at least 4"):
        fit(of_length(simulated, 130))


@pytest.mark.parametrize("seconds", [60, 3600])
def test_what_is_printed_makes_the_market_of_the_file_and_has_room_for_episodes(
    tmp_path: Path, seconds: int
) -> None:
    slots = 23_400 // seconds
    one = make_source(
        sessions=30, slots=slots, bar_seconds=seconds, tick=0.05, quantity_step=1e-4, price=2.0
    )
    (tmp_path / "fit.yaml").write_text(as_yaml(one))
    settings = flags.parse(
        ["--config", str(tmp_path / "fit.yaml")], program="train", summary=""
    ).config
    assert settings.market.bar_seconds == seconds
    assert (settings.market.tick, settings.market.quantity_step) == (0.05, 1e-4)
    assert settings.simulator.bars_per_session == slots
    first, last = SimulatedFeed(settings).starts
    assert last > first


@pytest.mark.parametrize("dof", [3.5, 8.0, 40.0])
def test_the_mean_absolute_value_of_a_student_t_is_scipy_s(dof: float) -> None:
    t = stats.t(dof, scale=np.sqrt((dof - 2) / dof))
    assert mean_absolute_t(dof) == pytest.approx(t.expect(np.abs), rel=1e-5)


def test_real_minute_bars_of_spy_give_plausible_values() -> None:
    path = SHARED / "us_equity_1min_rth" / "SPY_1min.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    frame = pd.read_csv(path, parse_dates=["datetime"])
    time = frame.datetime.dt
    slot = (time.hour * 60 + time.minute - 570).to_numpy(np.int32)
    frame, slot = frame[(slot >= 0) & (slot < 390)], slot[(slot >= 0) & (slot < 390)]
    columns = [frame[x].to_numpy(np.float32) for x in ("open", "high", "low", "close", "volume")]
    bars = Bars(
        *columns,
        session=pd.factorize(frame.datetime.dt.date)[0].astype(np.int32),
        bar_of_session=slot,
        minute=slot,
        session_length=np.full(len(slot), 390, np.int32),
        valid=columns[4] > 0,
    )
    found = fit(bars)
    config.load({"simulator": found})
    assert 2.7 < found["noise_bp"] < 4.2
    assert 5 < found["innovation_dof"] < 30
    assert 0.25 < found["day_volatility_sd"] < 0.6
    assert 0.5 < found["overnight_ratio"] < 1.0
    assert found["open_volatility"] > 0.5 and found["open_volume"] > 0.5
