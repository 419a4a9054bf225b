"""Trials: agents trained at values of a knob, and what they do on paths that nobody trained on.

Agents are trained by `loop.train`, as populations: calibration and training are the same program.
All values of a round share their seeds, and the paths that they are played on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.agent import policy
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.evaluation import backtest, unseen
from jules_jax.evaluation.statistics import Interval, mean_interval, ratio_of_means
from jules_jax.evaluation.unseen import HeldOut
from jules_jax.training import checkpoints, loop, metrics_file, population
from jules_jax.training.calibration.knobs import PENALTIES, Knob
from jules_jax.training.calibration.search import Response
from jules_jax.training.population import Member

FIRST_SEED = 2_000_000_000
"""Calibration has the seeds from here on for itself: runs, evaluations and gates draw from the
smaller ones."""
SEEDS_OF_ROUND = 1_000
ROUNDS = 10
MOST_SEEDS = SEEDS_OF_ROUND - 1
"""Most agents at a value; the last seed of a round is that of the paths they are played on."""
SEEDS_BEFORE = (2**31 - FIRST_SEED) // (SEEDS_OF_ROUND * ROUNDS)
"""`config.seed` must be below this."""
CALIBRATION_KEY = 12
"""Folded into the key of that last seed for the policies' draws."""
NEWEST = 10
"""Entropy is the mean over this many last updates."""
METRICS = ("reward", "pnl/net", "reward/absolute_equity_change", "trade/orders")
TERMS = tuple(f"reward/{name}" for name in PENALTIES)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """S agents trained at one value, and the N episodes that all of them played.

    round: 0 is the grid. episodes: `[S, N]` by the names of `METRICS` and `TERMS`; cluster: `[N]`.
    entropy: nats, `[S]`, and training_reward: `rollout/ep_rew_mean`, `[S]`, at the end of training.
    penalties: the terms that count for `share`.
    """

    value: float
    round: int
    seeds: tuple[int, ...]
    episodes: dict[str, Array]
    cluster: NDArray[np.int32]
    entropy: Array
    training_reward: Array
    penalties: tuple[str, ...] = PENALTIES

    def by_seed(self, name: str) -> Array:
        """Mean over episodes of each agent, `[S]`."""
        return np.asarray(self.episodes[name].mean(axis=1))

    def shares(self, terms: Sequence[str]) -> Array:
        """Σ penalties / Σ |equity change| of each agent's steps, `[S]`; in the terms' units."""
        paid = -sum(self.by_seed(f"reward/{term}") for term in terms)
        moved = self.by_seed("reward/absolute_equity_change")
        return np.divide(paid, moved, out=np.zeros_like(moved), where=moved > 0)

    @property
    def reward(self) -> Response:
        """The mean episode reward, with its error over seeds."""
        return self._response(self.by_seed("reward"))

    @property
    def share(self) -> Response:
        """The share of the penalties that count, with its error over seeds."""
        return self._response(self.shares(self.penalties))

    @property
    def path_error(self) -> float:
        """Standard error of the mean reward over paths, the agents taken as given."""
        return backtest.mean_and_error(self.episodes["reward"].mean(axis=0), self.cluster)[1]

    @cached_property
    def reward_interval(self) -> Interval:
        """95 % of the mean reward, seeds and paths resampled."""
        return mean_interval(self.episodes["reward"], self.cluster, statistic=np.mean)

    @cached_property
    def share_interval(self) -> Interval:
        """95 % of the share, seeds and paths resampled."""
        paid = -sum(self.episodes[f"reward/{term}"] for term in self.penalties)
        moved = self.episodes["reward/absolute_equity_change"]
        return ratio_of_means(paid, moved, self.cluster, statistic=np.mean)

    def _response(self, each: Array) -> Response:
        error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
        return Response(self.value, float(each.mean()), float(error), len(each))


def first_seed(seed: int, turn: int) -> int:
    """First of the `SEEDS_OF_ROUND` seeds that round `turn` of a calibration from `seed` has.

    Raises `InputError` where there are none.
    """
    if not (0 <= seed < SEEDS_BEFORE and 0 <= turn < ROUNDS):
        raise InputError(
            f"seed is {seed} and round {turn}, expected a seed below {SEEDS_BEFORE:,} and at most "
            f"{ROUNDS} rounds: calibration keeps its seeds apart from those of runs"
        )
    return FIRST_SEED + SEEDS_OF_ROUND * (ROUNDS * seed + turn)


@dataclass(frozen=True)
class Bench:
    """Where trials are made: `run(values, round)`.

    directory: the calibration's own, which names its runs. agents: seeds of every value.
    """

    base: config.Config
    knob: Knob
    directory: Path
    agents: int
    episodes: int

    def run(self, values: Sequence[float], turn: int) -> list[Trial]:
        """Trains agents at every value, all at once where one program can, and plays them."""
        together = [list(values)] if self.knob.is_parallel else [[value] for value in values]
        trials: list[Trial] = []
        for place, group in enumerate(together):
            letter = "" if len(together) == 1 else f"-{place}"
            name = f"{self.directory.name}-round-{turn}{letter}"
            trials += self._train_and_play(self._settings(name, group, turn), group, turn)
        return trials

    def _settings(self, name: str, values: list[float], turn: int) -> config.Config:
        """A population with every value, and every seed of the round."""
        of_values, sweep = self.base, ""
        if self.knob.is_parallel:
            path = self.directory / f"round-{turn}.yaml"
            path.write_text(f"{self.knob.keys[0]}: {values}\n", encoding="utf-8")
            sweep = str(path)
        else:
            of_values = self.knob.turned(self.base, values[0], "in the range of values tried")
        return dataclasses.replace(
            of_values,
            name=name,
            seed=first_seed(self.base.seed, turn),
            population=config.Population(num_seeds=self.agents, sweep=sweep),
            checkpoints=dataclasses.replace(of_values.checkpoints, validation_episodes=0),
        )

    def _train_and_play(
        self, settings: config.Config, values: list[float], turn: int
    ) -> list[Trial]:
        members = population.members(settings)
        loop.train(settings)
        at_last = first_seed(self.base.seed, turn) + MOST_SEEDS
        drawn = dataclasses.replace(settings, seed=at_last, population=config.Population())
        held_out = unseen.hold_out(drawn, split="validation", episodes=self.episodes)
        key = jax.random.fold_in(jax.random.key(at_last), CALIBRATION_KEY)
        played = [_play(member, settings, held_out, key) for member in members]
        logged = [_logged(Path(settings.runs_dir) / settings.name / m.name) for m in members]
        trials = []
        for place, value in enumerate(values):
            own = slice(place * self.agents, (place + 1) * self.agents)
            trials.append(
                Trial(
                    value=value,
                    round=turn,
                    seeds=tuple(member.settings.seed for member in members[own]),
                    episodes={
                        name: np.stack([each[name] for each in played[own]])
                        for name in METRICS + TERMS
                    },
                    cluster=held_out.starts.cluster,
                    entropy=np.array([entropy for entropy, _ in logged[own]]),
                    training_reward=np.array([reward for _, reward in logged[own]]),
                    penalties=self.knob.penalties,
                )
            )
        return trials


def _play(
    member: Member, settings: config.Config, held_out: HeldOut, key: jax.Array
) -> dict[str, Array]:
    """Episodes of a trained member's sampled policy, `[N]` by name of metric."""
    path = checkpoints.find(Path(settings.checkpoint_dir) / settings.name / member.name)
    weights = checkpoints.load_params(path, member.settings)
    _, who = policy.trained(settings.network)
    params = make_params(member.settings, held_out.market)
    totals = backtest.run_episodes(who, weights, params, held_out.starts, key)
    return {name: np.asarray(totals[name], np.float64) for name in METRICS + TERMS}


def _logged(run: Path) -> tuple[float, float]:
    """Entropy over the newest updates, and the newest `rollout/ep_rew_mean` (NaN before one)."""
    rows = metrics_file.read(run)[-NEWEST:]
    entropy = -float(np.mean([row["train/entropy_loss"] for row in rows]))
    reward = rows[-1].get("rollout/ep_rew_mean")
    return entropy, float("nan") if reward is None else float(reward)
