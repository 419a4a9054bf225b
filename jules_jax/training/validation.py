"""Validation: what the sampled policy earns on held-out prices, a glance at every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.agent.devices import gathered
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.evaluation import backtest, unseen
from jules_jax.evaluation.backtest import Starts
from jules_jax.market.table import MarketData
from jules_jax.training.market import Market
from jules_jax.training.population import Member, of_member

VALIDATION_KEY = 3
"""Folded into the seed's key: paths and draws that neither training nor evaluation sees."""
SCORE = "validation/net_pnl"
"""What checkpoints are compared by: dollars per episode, shaping left out."""


class Validation:
    """Plays the same episodes with the same draws each time, so that checkpoints compare.

    Recorded bars have a validation split, simulated ones paths of their own. `note` says what is
    played, or why nothing can be.
    """

    def __init__(self, settings: config.Config, market: Market) -> None:
        self._settings = settings
        _, self._policy = policy.trained(settings.network)
        key = jax.random.fold_in(jax.random.key(settings.seed), VALIDATION_KEY)
        key_market, self._key = jax.random.split(key)
        self._held_out: tuple[MarketData, Starts] | None = None
        episodes = settings.checkpoints.validation_episodes
        self.note = "none"
        if not episodes:
            return
        try:
            self._held_out = _hold_out(settings, market, episodes, key_market)
        except InputError as error:  # too few bars to hold any out need not keep from training
            self.note = f"none: {error}"
            return
        what = "validation split" if market.recorded else "fresh paths"
        self.note = f"{len(self._held_out[1].row):,} episodes on {what} at each checkpoint"

    def __call__(
        self, params: network.Params, members: Sequence[Member] = ()
    ) -> dict[str, np.ndarray]:
        """Scalars by name; of a population's weights `[M, …]` those of every member, `[M]`."""
        if self._held_out is None:
            return {}
        weights = gathered(params)  # what is on several devices would be played on each
        if not members:
            return self._play(weights, self._settings)
        each = [
            self._play(of_member(weights, place), member.settings)
            for place, member in enumerate(members)
        ]
        return {name: np.stack([scalars[name] for scalars in each]) for name in each[0]}

    def _play(self, weights: network.Params, settings: config.Config) -> dict[str, np.ndarray]:
        assert self._held_out is not None
        market, starts = self._held_out
        env_params = make_params(settings, market)
        played = backtest.run_episodes(self._policy, weights, env_params, starts, self._key)
        net, error = backtest.mean_and_error(played["pnl/net"], starts.cluster)
        reward, _ = backtest.mean_and_error(played["reward"], starts.cluster)
        scalars = {SCORE: net, f"{SCORE}_error": error, "validation/ep_rew_mean": reward}
        return {name: np.asarray(value, np.float32) for name, value in scalars.items()}


def _hold_out(
    settings: config.Config, market: Market, episodes: int, key: jax.Array
) -> tuple[MarketData, Starts]:
    """Held-out prices, and about `episodes` starts on them."""
    if market.recorded is None:
        data = unseen.fresh_paths(settings, episodes, key)
        return data, backtest.one_per_stretch(np.asarray(data.episodes), episodes, settings.seed)
    data = market.recorded.market("validation")
    starts = backtest.without_overlap(
        np.asarray(data.episodes), episodes, settings.max_steps_in_episode
    )
    chosen = np.linspace(0, len(starts.row) - 1, min(episodes, len(starts.row))).astype(int)
    return data, starts.some(chosen)
