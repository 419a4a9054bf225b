"""What other trials make of a Sharpe ratio: never less than luck alone would."""

from __future__ import annotations

import numpy as np
import pytest

from jules_jax.evaluation import overfitting, performance
from jules_jax.training import judgement

SESSIONS = 60


def records(count: int, alike: float) -> np.ndarray:
    """Daily returns `[D, K]` of K trials without an edge, `alike` of their variance shared."""
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(SESSIONS, 1))
    own = rng.normal(size=(SESSIONS, count))
    return 1e-3 * (np.sqrt(alike) * shared + np.sqrt(1 - alike) * own)


@pytest.mark.parametrize(("count", "alike"), [(2, 0.999), (9, 0.0), (30, 0.999)])
def test_trials_that_are_few_or_alike_do_not_deflate_less_than_luck_alone(count, alike):
    returns = records(count, alike)
    variance = judgement._variance(returns)
    record = performance.track_record(returns[:, 0])._replace(sharpe=0.3)
    found = overfitting.deflated_sharpe(record, 100, variance)
    assert found == pytest.approx(overfitting.deflated_sharpe(record, 100, None))
    assert found < 0.6  # an annual ratio of 4.8 over 60 days is no news, the best of a hundred


def test_trials_that_differ_by_more_than_luck_deflate_more():
    returns = records(30, 0.0) + 1e-3 * np.linspace(-1, 1, 30)
    variance = judgement._variance(returns)
    assert variance is not None and variance > 5 / (SESSIONS - 1)
    assert variance == pytest.approx(overfitting.variance_across_trials(returns))
