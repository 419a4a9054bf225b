"""Comparisons: what the table says of several symbols."""

import numpy as np
import pytest

from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.comparison import Comparison, table

SYMBOL = np.array([0, 0, 0, 0, 1, 1, 2, 2], np.int32)
CLUSTER = np.array([0, 1, 0, 1, 2, 2, 3, 4], np.int32)
NET = np.array([10.0, 20.0, 30.0, 40.0, -5.0, -7.0, 1.0, 2.0])


def played(symbols: tuple[str, ...] = ("SPY", "BTC", "NVDA"), symbol=SYMBOL) -> Comparison:
    """Net P&L as above from a trader, nothing from a flat policy; reward is a tenth of it."""

    def metrics(net, orders):
        return {
            "reward": net / 10, "pnl/net": net, "pnl/gross": net + 1.0, "trade/orders": orders,
            "max_drawdown": np.zeros(8), "risk/hard_breaches": np.zeros(8),
        }  # fmt: skip

    episodes = {
        "trained": metrics(NET, np.arange(8.0)),
        "flat": metrics(np.zeros(8), np.zeros(8)),
    }
    return Comparison(Starts(np.arange(8), symbol, CLUSTER), episodes, symbols)


def test_a_symbols_mean_and_error_are_of_its_own_disjoint_episodes():
    # SPY: clusters 0 and 1 with means 20 and 30; sd 5 √2 over √2 clusters
    assert played().mean("trained", "pnl/net", symbol=0) == pytest.approx((25.0, 5.0))
    mean, error = played().mean("trained", "pnl/net", symbol=1)
    assert mean == -6.0 and np.isnan(error)


def test_the_table_ends_with_a_line_for_each_symbol_and_policy_that_trades():
    lines = table(played()).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["trained", "flat"]  # all symbols together
    by_symbol = [line.split() for line in lines[-3:]]
    assert by_symbol == [
        "SPY 4 2 trained 2.50 ± 0.50 25.00 ± 5.00 1.50".split(),
        "BTC 2 1 trained -0.60 ± unknown -6.00 ± unknown 4.50".split(),
        "NVDA 2 2 trained 0.15 ± 0.05 1.50 ± 0.50 6.50".split(),
    ]
    assert len(lines) == 4 + 3 + 3
    assert len({len(line) for line in lines[-4:]}) == 1  # columns line up


def test_one_symbol_has_no_lines_of_its_own():
    assert len(table(played(symbol=np.zeros(8, np.int32))).splitlines()) == 4
