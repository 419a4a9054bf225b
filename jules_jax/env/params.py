"""The environment's parameters: sections of `config` as pytrees of float32 arrays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jules_jax.config import Account, Config, Fills, Reward, Safeguards
from jules_jax.market.table import MarketData

Section = TypeVar("Section")


def register_section(section: type[Any]) -> None:
    """Makes a config section a pytree: floats are leaves, so that they can be vmapped.

    Counts, windows and switches are metadata.
    """
    fields = dataclasses.fields(section)
    leaves = [f.name for f in fields if f.type == "float"]
    metadata = [f.name for f in fields if f.type != "float"]
    jax.tree_util.register_dataclass(section, data_fields=leaves, meta_fields=metadata)


for _section in (Account, Fills, Safeguards, Reward):
    register_section(_section)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EnvParams:
    """Everything an episode depends on besides its actions (gymnax's `params`).

    `progress` in [0, 1] is the share of training done; evaluation uses 1. `ranges`, `[2]` each by
    dotted key, are what an episode draws for itself: numbers of its own in place of those here.
    """

    market: MarketData
    account: Account
    fills: Fills
    safeguards: Safeguards
    reward: Reward
    progress: jax.Array
    max_steps_in_episode: int = field(default=1000, metadata={"static": True})
    ranges: dict[str, jax.Array] = field(default_factory=dict)

    def with_numbers(self, numbers: dict[str, jax.Array]) -> EnvParams:
        """With other numbers of the sections, by dotted key."""
        sections: dict[str, Any] = {}
        for key, value in numbers.items():
            name, _, leaf = key.partition(".")
            section = sections.get(name, getattr(self, name))
            sections[name] = dataclasses.replace(section, **{leaf: value})
        return dataclasses.replace(self, **sections) if sections else self


def cast_section(section: Section) -> Section:
    """The section with its floats as float32 arrays of shape `[]`."""
    cast: Section = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), section)
    return cast


def make_params(
    config: Config, market: MarketData, *, progress: float = 1.0, randomise: bool = False
) -> EnvParams:
    """Parameters of the environment for a resolved config and its market data.

    Schedules are read at `progress`. With `randomise`, episodes draw what `config.randomise` says.
    """
    config = config.at(progress)
    drawn = [each for each in config.randomise if not each.key.startswith("simulator.")]
    return EnvParams(
        market=market,
        account=cast_section(config.account),
        fills=cast_section(config.fills),
        safeguards=cast_section(config.safeguards),
        reward=cast_section(config.reward),
        progress=jnp.asarray(progress, jnp.float32),
        max_steps_in_episode=config.max_steps_in_episode,
        ranges={each.key: jnp.array([each.low, each.high], jnp.float32) for each in drawn}
        if randomise
        else {},
    )
