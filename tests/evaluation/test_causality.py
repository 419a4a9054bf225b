"""Causality: the pipeline passes the proof, and every kind of planted leak fails it."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.evaluation import causality
from jules_jax.evaluation.causality import COLUMNS, ENTRIES, Recorded
from jules_jax.market import simulator
from jules_jax.market.bars import Bars
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS = 480
"""In every market here, so that all share one compiled episode."""

CONFIG = config.load(SETTINGS)
MINUTE = 60 * 10**9


def recorded(
    symbol: str,
    lengths: list[int],
    *,
    seed: int = 0,
    continuous: bool = False,
    quotes: bool = False,
) -> Recorded:
    """Minute bars of sessions of `lengths`, some missing and some without volume."""
    rng = np.random.default_rng(seed)
    count, full = sum(lengths), 1440 if continuous else max(lengths)
    minute = np.concatenate([np.arange(length) for length in lengths])
    session = np.repeat(np.arange(len(lengths)), lengths)
    if continuous:
        session, minute = np.divmod(1200 + np.arange(count), 1440)
    missing = rng.random(count) < 0.05
    missing[0] = False
    close = np.exp(4 + np.cumsum(rng.normal(0, 1e-3, count)))
    close = close[np.maximum.accumulate(np.where(missing, 0, np.arange(count)))]
    open_ = np.where(missing, close, close * np.exp(rng.normal(0, 5e-4, count)))
    volume = rng.integers(0, 9000, count) * ~missing
    f = np.float32
    bars = Bars(
        open=open_.astype(f),
        high=np.maximum(open_, close).astype(f),
        low=np.minimum(open_, close).astype(f),
        close=close.astype(f),
        volume=volume.astype(f),
        session=session.astype(np.int32),
        bar_of_session=minute.astype(np.int32),
        minute=minute.astype(np.int32),
        session_length=np.full(count, full, np.int32)
        if continuous
        else np.repeat(lengths, lengths).astype(np.int32),
        valid=~missing,
        half_spread=rng.uniform(1e-4, 1e-3, count).astype(f) if quotes else None,
        signed_volume=(volume * rng.uniform(-1, 1, count)).astype(f) if quotes else None,
        bars_per_session=full,
        continuous=continuous,
    )
    opens = np.datetime64("2025-03-03T14:30", "ns").astype(np.int64)
    time = opens + (minute + 1440 * session.astype(np.int64)) * MINUTE
    return Recorded(symbol, bars, time)


def simulated() -> Recorded:
    params = replace(CONFIG.simulator, sessions=ROWS // 60)
    simulate = jax.jit(lambda key: simulator.simulate(key, params, 2.5e-4))
    bars = jax.tree.map(np.asarray, simulate(jax.random.key(3)))
    time = np.arange(len(bars.close)) + 1380 * np.asarray(bars.session, np.int64)
    return Recorded("SIM", bars, time * MINUTE)


MARKETS = {
    "a simulated path": lambda: [simulated()],
    "several symbols and calendars, with early closes, quotes and taker flow": lambda: [
        recorded("AAA", [40, 40, 20, 40, 20], seed=1, quotes=True),
        recorded("BTC", [160], seed=2, continuous=True),
        recorded("BBB", [20, 40, 40, 40, 20], seed=3, quotes=True),
    ],
}

PLAIN = recorded("AAA", [40] * 12)
build_market = causality.recorded_market(CONFIG)


@pytest.mark.parametrize("market", MARKETS)
def test_what_is_seen_and_done_up_to_t_is_the_same_whatever_comes_later(market):
    symbols = MARKETS[market]()
    assert sum(len(symbol.time) for symbol in symbols) == ROWS
    moments = 12 if len(symbols) == 1 else 11  # the twelfth drops bars, and compiles for it
    proof = causality.prove(symbols, CONFIG, moments=moments)
    assert proof.holds, str(proof)
    assert proof.moments == moments and proof.fills > 50 and proof.changed > 10_000
    assert str(proof).startswith(f"causal: {moments} moments, ")


def tampered(change):
    """The market of `build_market` after `change(rows, bars)`, NumPy rows `[R, C]` in place."""

    def build(bars):
        market = build_market(bars)
        rows = np.array(market.rows)
        change(rows, bars)
        return replace(market, rows=jnp.asarray(rows))

    return build


def recompiled(function, *static: str):
    """The same function under a compilation of its own, which sees what a test has replaced."""

    def same(*arguments, **options):
        return function.__wrapped__(*arguments, **options)

    return jax.jit(same, static_argnames=static)


def column(name: str) -> int:
    return COLUMNS.index(name)


CALENDAR = ("minute", "minutes_left", "session_open", "session_close")
TERMS = ("tick", "quantity_step", "bars_per_session", "half_spread")
OF_PRICES = [name for name in COLUMNS if name not in CALENDAR + TERMS + ("market[4]", "market[5]")]


@pytest.mark.parametrize("name", OF_PRICES)
def test_a_leak_of_one_bar_into_one_column_is_caught(name):
    def leak(rows, bars):
        rows[:-1, column(name)] = rows[1:, column(name)]

    proof = causality.prove([PLAIN], CONFIG, tampered(leak), moments=6)
    assert not proof.holds
    assert name in proof.violation.where
    assert proof.violation.expected != proof.violation.found


@pytest.mark.parametrize(
    ("statistic", "name"),
    [
        (lambda rows: rows[:, column("market[6]")].mean(), "market[6]"),
        (lambda rows: rows[:, column("sigma")].std(), "sigma_long_before"),
        (lambda rows: np.median(rows[:, column("close")]) / 1e4, "tick"),
        (lambda rows: rows[:, column("volume")].mean(), "adv_before"),
    ],
)
def test_a_statistic_of_the_whole_sample_is_caught(statistic, name):
    def fit(rows, bars):
        rows[:, column(name)] += statistic(rows)

    proof = causality.prove([PLAIN], CONFIG, tampered(fit), moments=2)
    assert not proof.holds
    assert f"column {name} of row " in proof.violation.where


def test_a_sample_statistic_inside_the_features_is_caught(monkeypatch):
    """As someone would write it: entries standardised over the history they are computed from."""
    from jules_jax.market import features, rows

    compute = features.compute

    def standardised(*arguments):
        found = compute(*arguments)
        centred = (found.market - found.market.mean(axis=0)) / (found.market.std(axis=0) + 1.0)
        return found._replace(market=centred)

    monkeypatch.setattr(features, "compute", standardised)
    monkeypatch.setattr(rows, "_rows", recompiled(rows._rows, "windows", "unit"))
    proof = causality.prove([PLAIN], CONFIG, moments=1)
    assert not proof.holds
    assert "column market[" in proof.violation.where


def test_a_column_known_before_that_has_the_bar_itself_in_it_is_caught():
    def leak(rows, bars):
        rows[:, column("sigma_before")] = rows[:, column("sigma")]

    proof = causality.prove([PLAIN], CONFIG, tampered(leak), moments=2)
    assert proof.violation.where == "column sigma_before of row t + 1"


def test_a_fill_price_that_has_the_close_of_its_bar_in_it_is_caught():
    def leak(rows, bars):
        rows[:, column("open")] = rows[:, column("close")]

    proof = causality.prove([PLAIN], CONFIG, tampered(leak), moments=2)
    assert proof.violation.where == "column open of row t + 1"
    assert proof.violation.change == "altered after the next open"


def test_a_leak_from_one_symbol_to_another_is_caught():
    *_, several = MARKETS.values()
    symbols = several()

    def leak(rows, bars):
        first, second = (len(of_symbol.close) for of_symbol in bars[:2])
        both = min(first, second) - 1
        rows[first : first + both, column("market[0]")] += rows[1 : both + 1, column("sigma")]

    proof = causality.prove(symbols, CONFIG, tampered(leak), moments=6)
    assert not proof.holds
    assert proof.violation.symbol == "BTC"
    assert "column market[0]" in proof.violation.where


def test_a_leak_in_the_environment_alone_is_caught_in_observations_and_orders(monkeypatch):
    observe = causality.observe

    def peek(state, row, params):
        entry = ENTRIES.index("open_pnl")
        following = params.market.rows[state.row + 1, column("close")]
        return observe(state, row, params).at[entry].set(jnp.log(following / row.close))

    monkeypatch.setattr(causality, "observe", peek)
    monkeypatch.setattr(causality, "_play", recompiled(causality._play, "steps"))
    proof = causality.prove([PLAIN], CONFIG, moments=1)
    assert not proof.holds
    assert proof.violation.where.startswith("observation entry 8 (open_pnl) at bar t of an episode")


def test_a_pipeline_that_ignores_the_bars_proves_nothing():
    constant = build_market([PLAIN.bars])

    def build(bars):
        return replace(constant, rows=constant.rows[: len(bars[0].close)])

    proof = causality.prove([PLAIN], CONFIG, build, moments=2)
    assert proof.violation is None and not proof.holds
    assert str(proof).startswith("nothing proved")


def test_the_proofs_policy_changes_its_mind_over_the_last_bit_of_any_entry():
    act = jax.jit(jax.vmap(causality.hashed_action))
    obs = np.random.default_rng(0).normal(0, 1, (3000, 12)).astype(np.float32)
    actions = np.asarray(act(obs))
    assert np.abs(np.bincount(actions, minlength=3) / 3000 - 1 / 3).max() < 0.04  # 4.6 s.d.
    for entry in range(12):
        nudged = obs.copy()
        nudged[:, entry] = np.nextafter(nudged[:, entry], np.float32(9))
        assert abs(np.mean(np.asarray(act(nudged)) != actions) - 2 / 3) < 0.04


def test_bars_too_few_for_a_trial_are_refused():
    few = recorded("AAA", [40])
    with pytest.raises(InputError, match=r"40 bars found, expected at least 55 in one symbol"):
        causality.prove([few], CONFIG)
