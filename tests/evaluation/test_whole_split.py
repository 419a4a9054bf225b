"""One account through a whole split: what its sessions add up to, and which ones they are."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest

from jules_jax import config
from jules_jax.env.params import make_params
from jules_jax.evaluation import backtest, reference_policies, whole_split
from jules_jax.evaluation.backtest import Starts
from jules_jax.market import dataset, splits
from jules_jax.market.dataset import Dataset
from tests.tiny import SETTINGS, bars_frame

pytestmark = pytest.mark.usefixtures("quick_compilation")

HOURS = {"market.calendar": "regular", "market.session_close": "10:30"}
"""Of `bars_frame`: 60 bars a session."""
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """AAA has ten sessions, BBB lacks the eighth; the test is the seventh to the tenth."""
    root = tmp_path_factory.mktemp("bars")
    whole, other = bars_frame(sessions=10, seed=1), bars_frame(sessions=10, seed=2)
    days = other["datetime"].dt.normalize()
    whole.to_csv(root / "AAA.csv", index=False)
    other[days != pd.Timestamp("2025-03-12")].to_csv(root / "BBB.csv", index=False)
    chosen = {"validation_from": "2025-03-11", "test_from": "2025-03-11", "embargo_sessions": "0"}
    return dataset.load(config.load(SETTINGS | HOURS | chosen | {"market.data": str(root)}))


def test_sessions_are_those_of_the_split_and_a_missing_one_has_nothing(recorded: Dataset) -> None:
    played = whole_split.play(reference_policies.random(), (), recorded, "test", KEY, draws=3)
    assert played.symbols == ("AAA", "BBB")
    days = ["2025-03-11", "2025-03-12", "2025-03-13", "2025-03-14"]
    assert [str(day) for day in played.dates] == days
    assert played.net.shape == played.fills.shape == (3, 2, 4)
    absent = played.fills[:, 1, 1]
    assert not absent.any() and played.fills[:, 0].all() and played.fills[:, 1, [0, 2, 3]].all()
    assert not played.net[:, 1, 1].any() and not played.stopped.any()
    assert np.ptp(played.net[:, 0, 0]) > 0  # draws differ
    assert played.capital == 50_000


def test_a_policy_that_does_nothing_moves_nothing(recorded: Dataset) -> None:
    played = whole_split.play(reference_policies.flat(), (), recorded, "test", KEY)
    assert not any(values.any() for values in (played.net, played.traded, played.fills))


@pytest.mark.parametrize("sessions", [1, 2, 3, 4])
def test_sessions_add_up_to_an_episode_that_ends_where_they_do(
    recorded: Dataset, sessions: int
) -> None:
    """AAA's table is traded once more, for as many steps as lie in the first sessions."""
    who = reference_policies.random()
    played = whole_split.play(who, (), recorded, "test", KEY)
    history = splits.history("AAA", recorded.sources[0].bars, recorded.sources[0].time)
    first = int(history.edges[6])
    settings = replace(
        recorded.config, max_steps_in_episode=int(history.edges[6 + sessions]) - first - 1
    )
    market = replace(recorded.market("test"), rows=jax.numpy.asarray(recorded.rows_of(0)[first:]))
    # two lanes, as the draws of a lane depend on how many there are
    twice = Starts(*np.zeros((3, 2), np.int32))
    episode = backtest.run_episodes(who, (), make_params(settings, market), twice, KEY)
    for name, column in (("pnl/net", "net"), ("pnl/gross", "gross"), ("trade/turnover", "traded")):
        whole = getattr(played, column)[0, 0, :sessions].sum()
        assert whole == pytest.approx(float(episode[name][0]), rel=1e-4, abs=0.02)
    fills = sum(float(episode[name][0]) for name in whole_split.FILLS)
    assert played.fills[0, 0, :sessions].sum() == fills
    if sessions == 4:
        grown = 50_000 * (float(episode["final_equity"][0]) - 1)
        assert played.net[0, 0].sum() == pytest.approx(grown, abs=0.02)


def test_an_account_stopped_by_the_hard_limit_does_nothing_afterwards(recorded: Dataset) -> None:
    reckless = config.load({
        **SETTINGS, "hard_dd_pct": "0.0001", "soft_dd_pct": "0.00005", "terminate_on_hard": "true",
    })  # fmt: skip
    narrow = replace(recorded.config, safeguards=reckless.safeguards)
    stopped = replace(recorded, config=narrow)
    played = whole_split.play(reference_policies.random(), (), stopped, "test", KEY, draws=8)
    assert played.stopped.all()
    for draw in range(8):
        for symbol in range(2):
            # five dollars: the costs of the first order or two
            assert np.flatnonzero(played.fills[draw, symbol]).tolist() == [0]
