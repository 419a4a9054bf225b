"""Joined tests: a concatenation, its numbers by hand or by SciPy, and one sentence about them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jules_jax.evaluation import out_of_sample
from jules_jax.evaluation.out_of_sample import Series
from jules_jax.evaluation.whole_split import Accounts

RNG = np.random.default_rng(0)


def series(net, *, gross=None, traded=None, first="2025-03-03", capital=100_000.0) -> Series:
    """Of one draw, or of draws `[K, D]`."""
    net = np.atleast_2d(np.asarray(net, np.float64))
    days = net.shape[1]
    return Series(
        dates=np.datetime64(first) + np.arange(days),
        net=net,
        gross=net if gross is None else np.atleast_2d(np.asarray(gross, np.float64)),
        traded=np.full(net.shape, 1e4) if traded is None else np.atleast_2d(traded).astype(float),
        fills=np.full(net.shape, 4.0),
        capital=np.full(days, capital),
    )


def say(of: Series) -> str:
    return out_of_sample.sentence(of, who="sampled", windows=3, agents=7)


def test_symbols_are_added_up_and_capital_with_them():
    # two draws of three symbols on two sessions
    net = np.array([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[3.0, 2.0], [1.0, 0.0], [5.0, 8.0]]])
    dates = np.array(["2025-03-03", "2025-03-04"], "datetime64[D]")
    played = Accounts(
        dates, ("A", "B", "C"), net, net + 1, 10 * net, net, 50_000.0, np.zeros((2, 3), bool)
    )
    found = out_of_sample.series(played)
    assert found.net.tolist() == [[9.0, 12.0], [9.0, 10.0]]
    assert found.gross.tolist() == [[12.0, 15.0], [12.0, 13.0]]
    assert found.returns[0].tolist() == [9 / 150_000, 12 / 150_000]


def test_joined_is_the_concatenation_and_refuses_sessions_out_of_order():
    parts = [series([1, 2]), series([3], first="2025-03-07"), series([4, 5], first="2025-03-10")]
    whole = out_of_sample.joined(parts)
    assert whole.net.tolist() == [[1, 2, 3, 4, 5]]
    assert whole.dates.tolist() == [day for part in parts for day in part.dates.tolist()]
    assert whole.fills.sum() == 20 and whole.capital.shape == (5,)
    for wrong in ([parts[1], parts[0]], [parts[0], parts[0]]):
        with pytest.raises(ValueError, match="the next begins"):
            out_of_sample.joined(wrong)


def test_draws_are_histories_of_their_own_and_figures_their_means():
    each = RNG.normal(3, 100, (3, 60))
    together = out_of_sample.metrics(series(each))
    alone = [out_of_sample.metrics(series(draw)) for draw in each]
    for name in together:
        if name != "years_needed":  # of the mean ratio
            mean = np.mean([[metric.value, metric.error] for metric in (m[name] for m in alone)], 0)
            assert together[name][::3] == pytest.approx(tuple(mean), nan_ok=True), name
    idle = out_of_sample.metrics(series([*each, np.zeros(60)]))
    assert idle["sharpe"].value == together["sharpe"].value  # a draw that never trades has none


def test_the_sharpe_ratio_and_its_error_follow_the_formula_with_moments_of_scipy():
    returns = RNG.standard_t(4, 250) * 0.01 + 0.001
    found = out_of_sample.sharpe(returns)
    ratio = returns.mean() / np.std(returns, ddof=1)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    error = np.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / 249)
    assert found == pytest.approx((np.sqrt(252) * ratio, np.sqrt(252) * error), rel=1e-12)


def test_the_error_of_the_sharpe_ratio_is_its_spread_over_many_histories():
    draws = RNG.gamma(1.0, 0.01, (4000, 120)) - 0.009  # skewed, with an edge
    each = np.array([out_of_sample.sharpe(returns) for returns in draws])
    assert np.median(each[:, 1]) == pytest.approx(each[:, 0].std(), rel=0.06)


@pytest.mark.parametrize("returns", [[0.01], [0.0, 0.0, 0.0]])
def test_a_ratio_of_nothing_is_none(returns):
    assert np.isnan(out_of_sample.sharpe(np.asarray(returns))).all()


def test_metrics_by_hand():
    of = series([100, -300, 50, 0], gross=[150, -250, 100, 0], traded=[50_000, 50_000, 50_000, 0])
    found = out_of_sample.metrics(of)
    assert found["net_pnl"].value == -150 and found["gross_pnl"].value == 0
    assert found["cost_total_bp"].value == pytest.approx(10.0)  # 150 of 150,000
    assert found["daily_return"].value == pytest.approx(-150 / 4 / 100_000)
    assert found["daily_return"].error == pytest.approx(stats.sem(of.returns[0]))
    assert found["max_drawdown"].value == pytest.approx(0.003)
    assert found["day_hit_rate"].value == pytest.approx(2 / 3)  # a session without trades is none
    assert found["turnover"].value == pytest.approx(0.375)
    assert found["trades_per_session"].value == 4
    error = found["net_pnl"].error
    assert error == pytest.approx(np.std([100, -300, 50, 0], ddof=1) * 2)
    assert found["net_pnl"].low == pytest.approx(-150 - 1.96 * error)


def test_what_is_unknown_is_null_in_json():
    flat = series([0, 0, 0], traded=[0, 0, 0])
    found = {name: metric.plain() for name, metric in out_of_sample.metrics(flat).items()}
    assert found["sharpe"] == {"value": None, "low": None, "high": None, "error": None}
    assert found["cost_total_bp"]["value"] is None and found["net_pnl"]["value"] == 0.0


def test_a_loss_is_no_edge_and_says_what_was_paid():
    loss = series([-40, -60, -50, -50, -70, -30], gross=[10, -10, 0, 0, 0, 0])
    assert say(loss).startswith(
        "No edge after costs: over 6 unseen sessions in 3 test windows the sampled policy lost "
        "$300 (Sharpe −".replace("−", "-")
    )
    assert say(loss).endswith(
        "; before costs it earned $0, and costs took 50.0 bp of what it traded."
    )


def test_a_gain_that_chance_explains_is_no_edge_and_says_how_long_it_would_take():
    gain = series(np.tile([110.0, -100.0], 30))
    text = say(gain)
    assert text.startswith("No edge after costs that can be told from chance: ")
    returns = gain.net[0]
    ratio, kurtosis = 5 / np.std(returns, ddof=1), stats.kurtosis(returns, fisher=False)
    # days n at which ratio / sqrt((1 − skewness·ratio + (kurtosis − 1)/4·ratio²) / (n − 1)) is 1.96
    spread = 1 - stats.skew(returns) * ratio + (kurtosis - 1) / 4 * ratio**2
    years = (1 + 1.96**2 * spread / ratio**2) / 252
    assert f"which would take {years:,.1f} years to tell" in text


def test_a_gain_beyond_chance_is_an_edge_with_a_warning_of_the_trials():
    text = say(series(np.tile([30.0, 10.0, 20.0], 20), gross=np.full(60, 25.0)))
    assert text.startswith(
        "An edge after costs, if it is not the luck of 7 agents trained: over 60"
    )


def test_a_policy_that_does_not_trade_has_no_edge():
    text = say(series([0, 0], traded=[0, 0]))
    assert text == (
        "No edge after costs: over 2 unseen sessions in 3 test windows the sampled policy did not "
        "trade."
    )
