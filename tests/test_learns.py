"""It learns: the smoke configuration earns on `easy` and does not trade on `null`."""

import numpy as np
import pytest

from benchmarks import learns
from benchmarks.fresh_episodes import Episodes

EPISODES = 50


def played(reward: float, net: float, orders: float) -> Episodes:
    index = np.arange(EPISODES)
    noise = np.where(index % 2, 1.0, -1.0)

    def of(reward: float, net: float) -> dict[str, np.ndarray]:
        return {
            "reward": noise + reward,
            "pnl/net": noise + net,
            "trade/orders": np.full(EPISODES, orders),
            "length": np.full(EPISODES, 1000.0),
        }

    names = {learns.SAMPLED: of(reward, net), learns.GREEDY: of(0, 0), "random": of(-5, -50)}
    return Episodes(index, names)


def test_the_verdict_wants_reward_and_money_and_stillness_on_null():
    good, still = played(1, 1, 5), played(0, 0, 9)
    assert learns.failures(good, still) == []
    assert "reward" in learns.failures(played(0.1, 1, 5), still)[0]
    assert "pnl/net" in learns.failures(played(1, 0.1, 5), still)[0]
    assert "1 %" in learns.failures(good, played(0, 0, 11))[0]


@pytest.mark.long
def test_the_smoke_configuration_learns():
    easy, _ = learns.train_and_play("easy", seed=0, episodes=1024)
    null, _ = learns.train_and_play("null", seed=0, episodes=1024)
    assert learns.failures(easy, null) == []
