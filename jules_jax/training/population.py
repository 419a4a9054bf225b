"""Populations: which agents one program trains, in what numbers they differ, who copies whom."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jules_jax import config
from jules_jax.agent.learner import TrainState
from jules_jax.config import yaml_files
from jules_jax.env.params import EnvParams
from jules_jax.errors import InputError

if TYPE_CHECKING:
    import yaml

OF_ENVIRONMENT = ("account", "fills", "safeguards", "reward")
"""Sections whose numbers the environment takes."""
TO_ONE = frozenset(("ppo.gamma", "ppo.gae_lambda"))
"""Numbers whose distance to 1 matters: that is what exploring multiplies or divides."""


@dataclass(frozen=True)
class Member:
    """An agent of a population: its name, which names its directories, and its own config.

    varied: dotted keys of the sweep, which exploring moves.
    """

    name: str
    settings: config.Config
    varied: tuple[str, ...] = ()


def is_asked(settings: config.Config) -> bool:
    """Whether the settings ask for more than one agent."""
    return settings.population.num_seeds > 1 or bool(settings.population.sweep)


def members(settings: config.Config) -> tuple[Member, ...]:
    """Every combination of the sweep's values, each with `num_seeds` seeds from `seed` on.

    The config of each is what trains it alone, on no more devices than can share its lanes.

    Raises `InputError` where the sweep's file is not one, names what cannot differ between agents
    of one program, or has a value that is not allowed.
    """
    of = settings.population
    lists = read_sweep(of.sweep) if of.sweep else {}
    if both := [each.key for each in settings.randomise if each.key in lists]:
        raise InputError(
            f"{both[0]} is in sweep {of.sweep} and in randomise, expected one of them: all members "
            "draw from the same ranges"
        )
    leaves = [key.rpartition(".")[2] for key in lists]
    labels = leaves if len(set(leaves)) == len(leaves) else list(lists)
    found = []
    for values in itertools.product(*lists.values()):
        varied = with_values(settings, dict(zip(lists, values, strict=True)), f"in {of.sweep}")
        words = [f"{label}-{value}" for label, value in zip(labels, values, strict=True)]
        for seed in range(settings.seed, settings.seed + of.num_seeds):
            name = "_".join([*words, f"seed-{seed}"])
            devices = math.gcd(varied.devices, varied.shuffle_groups) if varied.devices else 0
            own = replace(varied, seed=seed, devices=devices, population=config.Population())
            found.append(Member(name, own, tuple(lists)))
    names = [member.name for member in found]
    if len(set(names)) < len(names):
        raise InputError(f"sweep {of.sweep}: a value comes twice, expected each once")
    return tuple(found)


def with_values(settings: config.Config, values: Mapping[str, Any], source: str) -> config.Config:
    """The config with other values at dotted keys, validated; `source` says in errors whence."""
    given = config.make_layer((key, config.Setting(v, source)) for key, v in values.items())
    return config.resolve(config.read_dict(config.to_dict(settings)), given)


def read_sweep(path: str) -> dict[str, list[str]]:
    """Lists of values, as text, by dotted key; raises `InputError`."""
    import yaml

    root = yaml_files.compose(path, "sweep", "lists such as ppo.learning_rate: [3e-4, 5e-4]")
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"sweep {path}: expected lists such as ppo.learning_rate: [3e-4, 5e-4]")
    lists: dict[str, list[str]] = {}
    for name, node, place in _entries(root, path):
        key = config.find_key(name, place)
        if key in lists:
            raise InputError(f"{key} {place} is there twice, expected once")
        if not can_differ(key):
            raise InputError(
                f"{key} {place} must be the same for all agents of one program, expected a number "
                f"of ppo, {', '.join(OF_ENVIRONMENT)}"
            )
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise InputError(f"{key} {place} is one value, expected a list such as [3e-4, 5e-4]")
        lists[key] = [str(item.value) for item in node.value]
    return lists


def _entries(root: yaml.Node, path: str) -> list[tuple[str, yaml.Node, str]]:
    """Entries with their dotted names; those of a section may stand under its name."""
    import yaml

    entries = []
    for name, node, place in yaml_files.pairs(root, path):
        if name in config.SECTIONS and isinstance(node, yaml.MappingNode):
            inner = yaml_files.pairs(node, path)
            entries += [(f"{name}.{leaf}", value, where) for leaf, value, where in inner]
        else:
            entries.append((name, node, place))
    return entries


def can_differ(key: str) -> bool:
    """Whether agents of one program may have their own value: numbers that shape no array."""
    section = key.partition(".")[0]
    number = str(config.PARAMETERS[key].type) == "float"
    # the capital scales the market's quantity step, which all agents share
    return number and section in ("ppo", *OF_ENVIRONMENT) and key != "account.initial_capital"


def of_learner(found: Sequence[Member]) -> config.PPO:
    """The learner's numbers, `[M]` each."""
    stacked: config.PPO = _stack([member.settings.ppo for member in found])
    return stacked


def of_environment(params: EnvParams, found: Sequence[Member]) -> EnvParams:
    """`params` with the numbers of every member, `[M]` each; market and clock are shared."""
    sections = {
        name: _stack([getattr(member.settings, name) for member in found])
        for name in OF_ENVIRONMENT
    }
    return replace(params, **sections)


def environment_axes(params: EnvParams) -> EnvParams:
    """What of `of_environment` differs between members, as `jax.vmap` takes it."""
    nothing: Any = {field.name: None for field in dataclasses.fields(params)}
    nothing |= dict.fromkeys(OF_ENVIRONMENT, 0)
    nothing["max_steps_in_episode"] = params.max_steps_in_episode
    return EnvParams(**nothing)


def _stack(sections: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.array(leaves, np.float32)), *sections)


def of_member(tree: Any, place: int) -> Any:
    """One member's part of a tree whose leaves are `[M, …]`."""
    return jax.tree.map(lambda leaf: leaf[place], tree)


def evolve(
    found: Sequence[Member], scores: NDArray[np.float64], update: int, settings: config.Config
) -> tuple[NDArray[np.int64], tuple[Member, ...]]:
    """Whose weights each member goes on with after `update`, `[M]`, and the members from then on.

    A function of its arguments: draws come from the run's seed and the update.
    """
    of, rng = settings.population, np.random.default_rng((settings.seed, update))
    source = exploit(scores, of.exploit_fraction, rng)
    return source, explore(found, source, of.explore_factor, rng)


def exploit(
    scores: NDArray[np.float64], fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Whose weights each member goes on with `[M]`: its own, or for the worst one of the best.

    Truncation selection (Jaderberg et al. 2017, section 4.1): the worst `fraction` by `scores`
    `[M]`, one at least of two or more, each take after a uniform draw of as many best. Who has no
    score yet (−inf), at the start or since it copied, is neither replaced nor anybody's source.
    """
    source = np.arange(len(scores))
    order = np.argsort(scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    replaced = min(max(round(fraction * len(scores)), 1), len(order) // 2)
    if replaced:
        source[order[:replaced]] = rng.choice(order[-replaced:], replaced)
    return source


def explore(
    found: Sequence[Member], source: NDArray[np.int64], factor: float, rng: np.random.Generator
) -> tuple[Member, ...]:
    """Members after `exploit`: a copy takes its source's varied numbers, each moved by `factor`.

    Each is multiplied or divided, with equal chance; a number that would not be allowed then stays.
    """
    after = list(found)
    for place, copied in enumerate(source.tolist()):
        if copied == place:
            continue
        taken = {key: _value(found[copied], key) for key in found[copied].varied}
        settings = with_values(found[place].settings, taken, "copied")
        for key, value in taken.items():
            moved = _moved(key, value, factor ** rng.choice([-1.0, 1.0]))
            try:
                settings = with_values(settings, {key: moved}, "explored")
            except InputError:
                continue
        after[place] = replace(found[place], settings=settings)
    return tuple(after)


def _value(member: Member, key: str) -> float:
    section, _, leaf = key.partition(".")
    value: float = getattr(getattr(member.settings, section), leaf)
    return value


def _moved(key: str, value: float, factor: float) -> float:
    if value < 0:  # what says constant, in a schedule
        return value
    return 1 - (1 - value) * factor if key in TO_ONE else value * factor


def copy_weights(state: TrainState, source: NDArray[np.int64]) -> TrainState:
    """The population's state with weights and optimizer of member `source[m]` for member m.

    Lanes and draws stay each member's own. `state` is donated.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    take = jax.jit(_take, donate_argnums=0, out_shardings=shardings)
    copied: TrainState = take(state, jnp.asarray(source))
    return copied


def _take(state: TrainState, source: jax.Array) -> TrainState:
    params, opt_state = jax.tree.map(lambda leaf: leaf[source], (state.params, state.opt_state))
    return replace(state, params=params, opt_state=opt_state)
