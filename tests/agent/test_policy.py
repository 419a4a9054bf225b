"""What a trained network does: samples, or the greedy policy's patience."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network, policy

SELL, HOLD, BUY = 0, 1, 2


@pytest.fixture
def act(monkeypatch):
    """The greedy actions of given probabilities `[N, 3]`, at given cooldowns and positions."""

    def greedy(probabilities, patience, cooldown=0.0, position=0.0):
        rows = np.atleast_2d(np.asarray(probabilities, np.float32))
        logits = jnp.log(rows) + 3.0  # a constant changes nothing
        monkeypatch.setattr(network, "apply_step", lambda *_, **__: (None, logits, None))
        obs = jnp.zeros((len(rows), 12)).at[:, 10].set(cooldown).at[:, 11].set(position)
        who = policy.from_network(greedy=True, patience=patience)
        keys = jax.random.split(jax.random.key(0), len(rows))
        return who.act(None, keys, None, obs, jnp.zeros(len(rows), bool))[1].tolist()

    return greedy


def test_an_order_more_likely_than_not_within_its_patience_is_given_now(act):
    """Held for k bars, a chance of p a bar comes true with probability 1 − (1 − p)^k."""
    for patience in (2, 5, 10, 40):
        for p in (0.01, 0.03, 0.06, 0.08, 0.12, 0.2, 0.28, 0.31, 0.6):
            likely = 1 - (1 - p) ** patience > 0.5
            assert act([p, 1 - p, 0.0], patience) == [SELL if likely else HOLD]
            assert act([0.0, 1 - p, p], patience) == [BUY if likely else HOLD]


def test_the_more_probable_side_is_taken(act):
    assert act([[0.2, 0.5, 0.3], [0.3, 0.5, 0.2]], 10) == [BUY, SELL]


def test_without_patience_it_is_the_most_probable_action(act):
    assert act([[0.2, 0.35, 0.45], [0.3, 0.4, 0.3], [0.5, 0.3, 0.2]], 1) == [BUY, HOLD, SELL]


def test_it_asks_for_nothing_that_would_be_refused(act):
    eager = [0.4, 0.2, 0.4]
    assert act(eager, 10, cooldown=0.5) == act(eager, 10, cooldown=-0.34) == [HOLD]
    assert act([0.3, 0.2, 0.5], 10, position=1.0) == [SELL]
    assert act([0.01, 0.2, 0.79], 10, position=1.0) == [HOLD]
    assert act([0.5, 0.2, 0.3], 10, position=-1.0) == [BUY]


def test_settings_that_act_alike_have_the_same_two_policies():
    """Compiled programs are kept by policy: equal ones that are not the same compile again."""
    greedy, sampled = policy.trained(config.Network(greedy_patience=3))
    assert (greedy.name, sampled.name) == ("trained, greedy", "trained, sampled")
    wider = policy.trained(config.Network(greedy_patience=3, lstm_hidden_size=7))
    assert wider[0] is greedy and wider[1] is sampled
    hasty = policy.trained(config.Network(greedy_patience=1))
    assert hasty[0] is not greedy and hasty[1] is sampled
