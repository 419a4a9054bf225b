"""What other trials make of a Sharpe ratio: never less than luck alone would."""

from __future__ import annotations

import numpy as np
import pytest

from jules_jax.evaluation import overfitting, scores
from jules_jax.evaluation.scores import Days
from jules_jax.training import judgement

SESSIONS = 60


def records(count: int, alike: float) -> np.ndarray:
    """Daily returns `[D, K]` of K trials without an edge, `alike` of their variance shared."""
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(SESSIONS, 1))
    own = rng.normal(size=(SESSIONS, count))
    return 1e-3 * (np.sqrt(alike) * shared + np.sqrt(1 - alike) * own)


def days(sharpe: float) -> Days:
    """Days of a daily Sharpe ratio of just so much."""
    noise = np.random.default_rng(7).normal(size=SESSIONS)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return Days((noise + sharpe)[None], None)


@pytest.mark.parametrize(("count", "alike"), [(2, 0.999), (9, 0.0), (30, 0.999)])
def test_trials_that_are_few_or_alike_do_not_deflate_less_than_luck_alone(count, alike):
    """An annual ratio of 4.8 over 60 days is no news, the best of a hundred."""
    variance = judgement._variance(records(count, alike))
    found = scores.deflated(days(0.3), 100, variance).value
    assert found == scores.deflated(days(0.3), 100, None).value < 0.6


def test_trials_that_differ_by_more_than_luck_deflate_more():
    returns = records(30, 0.0) + 1e-3 * np.linspace(-1, 1, 30)
    variance = judgement._variance(returns)
    assert variance is not None and variance > 5 / (SESSIONS - 1)
    assert variance == overfitting.variance_across_trials(returns)
    less, luck = (scores.deflated(days(0.3), 100, each).value for each in (variance, None))
    assert less < 0.1 < luck
