"""An update's numbers: what schedules make of them at a share of training, read on the host.

They are arguments of the compiled update, so none of them compiles it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from jules_jax import config
from jules_jax.env.params import EnvParams, cast_section
from jules_jax.training import population
from jules_jax.training.population import Member


def numbers_at(
    progress: float, settings: config.Config, members: Sequence[Member], params: EnvParams
) -> tuple[EnvParams, config.PPO | None]:
    """The environment's and the learner's numbers at `progress`, from 0 to 1.

    Each member of a population (none for a single agent) has its own schedules. The learner's are
    None where they are those it was made with. `params` keep their market, which moves with its
    generations (`market.feed`).
    """
    params = dataclasses.replace(params, progress=jnp.float32(progress))
    if members:
        now = [dataclasses.replace(m, settings=m.settings.at(progress)) for m in members]
        if settings.schedules:
            params = population.of_environment(params, now)
        return params, population.of_learner(now)
    if not settings.schedules:
        return params, None
    at = settings.at(progress)
    sections = {name: cast_section(getattr(at, name)) for name in population.OF_ENVIRONMENT}
    return dataclasses.replace(params, **sections), at.ppo


def scalars_at(progress: float, settings: config.Config) -> dict[str, float]:
    """Every schedule's value by the name that it is logged under."""
    return {f"schedule/{each.key}": each.at(progress) for each in settings.schedules}


def describe(settings: config.Config) -> list[str]:
    """What moves and what is drawn, a line each."""
    lines = []
    for each in settings.schedules:
        if each.shape == "piecewise":
            course = ", ".join(f"{value:g} at {100 * share:g} %" for share, value in each.points)
        else:
            course = " to ".join(f"{value:g}" for _, value in each.points)
        lines.append(f"schedule    {each.key} {each.shape}: {course}")
    for drawn in settings.randomise:
        by = "path" if drawn.key.startswith("simulator.") else "episode"
        lines.append(f"randomised  {drawn.key} from {drawn.low:g} to {drawn.high:g} by {by}")
    return lines
