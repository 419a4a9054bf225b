"""Validation: every value in its range, and values that fit one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jules_jax.config import schedules
from jules_jax.config.parameters import PARAMETERS, Config
from jules_jax.config.schedules import Schedule
from jules_jax.errors import InputError

INT32_MAX = 2**31 - 1
FLOAT32_MAX = 3.4028235e38
"""Values end up as int32 and float32 on the device."""


def validate(config: Config, *, sources: Mapping[str, str] | None = None) -> None:
    """Raise `InputError` unless every value is in its range and they fit one another.

    `sources` says where values came from, by dotted key.
    """
    for key, parameter in PARAMETERS.items():
        section, _, leaf = key.rpartition(".")
        value = getattr(getattr(config, section) if section else config, leaf)
        source = (sources or {}).get(key, "by default")
        if not _fits_device(key, value):
            raise InputError(f"{key} {source} is {value!r}, expected a finite number of 32 bits")
        if not parameter.metadata["holds"](value):
            raise refusal(key, value, source)
    _validate_market(config)
    _validate_learner(config)
    _validate_schedules(config)
    _validate_ranges(config)


def _fits_device(key: str, value: Any) -> bool:
    """Whether the value has an int32 or float32; total_timesteps is counted on the host."""
    if isinstance(value, float):
        return abs(value) <= FLOAT32_MAX  # false for nan
    return not isinstance(value, int) or value <= INT32_MAX or key == "total_timesteps"


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def _validate_market(config: Config) -> None:
    """What must hold between the values of the market and its limits."""
    market, simulator, limits = config.market, config.simulator, config.safeguards
    total = config.splits.train_fraction + config.splits.validation_fraction
    _require(
        total < 1,
        f"splits.train_fraction and splits.validation_fraction sum to {total:g}, "
        "expected below 1, as the rest is the test split",
    )
    _require(
        market.calendar != "regular" or market.session_open < market.session_close,
        f"market.session_open is {market.session_open}, "
        f"expected before market.session_close, {market.session_close}",
    )
    _require(
        limits.soft_dd_pct < limits.hard_dd_pct,
        f"safeguards.soft_dd_pct is {limits.soft_dd_pct:g}, "
        f"expected below safeguards.hard_dd_pct, {limits.hard_dd_pct:g}",
    )
    _require(
        not (market.sharded and market.data),
        f"market.sharded is true and market.data is {market.data}, expected simulated paths: "
        "recorded bars are the same on every device",
    )
    if market.data:
        return
    bars = simulator.sessions * simulator.bars_per_session
    warmup = simulator.warmup_sessions * simulator.bars_per_session
    needed = max(warmup, config.features.lookback_window) + config.max_steps_in_episode
    _require(
        bars > needed,
        f"simulator.sessions x simulator.bars_per_session is {bars} bars, "
        f"expected above {needed}, the warm-up and one episode",
    )
    enough = -(-config.max_steps_in_episode // config.ppo.n_steps)
    _require(
        config.refresh_updates >= enough,
        f"market.refresh_updates is {market.refresh_updates}, expected at least {enough} "
        "(max_steps_in_episode / ppo.n_steps), as older episodes still read the rows replaced",
    )


def _validate_learner(config: Config) -> None:
    """What must hold between the values of the learner."""
    several = config.population.num_seeds > 1 or config.population.sweep != ""
    _require(
        several or config.population.exploit_every == 0,
        f"population.exploit_every is {config.population.exploit_every} and there is one agent, "
        "expected population.num_seeds above 1 or a population.sweep",
    )
    _require(
        several or config.population.member_devices == 0,
        f"population.member_devices is {config.population.member_devices} and there is one agent, "
        "expected population.num_seeds above 1 or a population.sweep",
    )
    _require(
        not several or config.monitor.audit == 0,
        f"monitor.audit is {config.monitor.audit:g} and there are several agents, expected 0: an "
        "audit is of one agent",
    )
    _require(
        not config.market.sharded or config.monitor.audit == 0,
        f"monitor.audit is {config.monitor.audit:g} and market.sharded is true, expected one of "
        "them: the trail reads one table of bars",
    )
    ppo, lanes = config.ppo, config.num_envs // config.ppo.num_minibatches
    _require(
        ppo.n_steps <= config.max_steps_in_episode,
        f"ppo.n_steps is {ppo.n_steps}, "
        f"expected at most max_steps_in_episode, {config.max_steps_in_episode}",
    )
    _require(
        config.num_envs * ppo.n_steps <= INT32_MAX,
        f"num_envs x ppo.n_steps is {config.num_envs * ppo.n_steps}, "
        f"expected at most {INT32_MAX} steps in a rollout",
    )
    _require(
        config.num_envs % ppo.num_minibatches == 0,
        f"num_envs is {config.num_envs}, "
        f"expected a multiple of ppo.num_minibatches, {ppo.num_minibatches}",
    )
    _require(
        lanes % config.shuffle_groups == 0,
        f"ppo.shuffle_groups is {ppo.shuffle_groups}, "
        f"expected a divisor of num_envs / ppo.num_minibatches, {lanes}",
    )
    _require(
        several or config.devices == 0 or config.shuffle_groups % config.devices == 0,
        f"devices is {config.devices}, "
        f"expected a divisor of the {config.shuffle_groups} shuffle groups (ppo.shuffle_groups) "
        f"that the {lanes} lanes of a minibatch are in",
    )


def _validate_schedules(config: Config) -> None:
    """What moves may move, to values that are allowed, and nothing else moves it as well."""
    sections = ", ".join(schedules.SCHEDULED_SECTIONS)
    for schedule in config.schedules:
        for key in schedule.parameters:
            _require(
                schedule.key in schedules.NAMES or _may(schedules.may_be_scheduled, key),
                f"schedules: {schedule.key} cannot move in a run, expected a number of {sections} "
                f"that shapes nothing, or {schedules.DRAWDOWN_WEIGHT}",
            )
            _require_allowed("schedules", key, (value for _, value in schedule.points))
        _validate_mover(config, schedule)
    _require_once("schedules", [each.key for each in config.schedules])
    _require_effect(config, "schedules", [each.key for each in config.schedules])
    for progress in {share for each in config.schedules for share, _ in each.points}:
        _validate_market(config.at(progress))  # soft below hard all along


def _validate_mover(config: Config, schedule: Schedule) -> None:
    """`ppo` has ends of its own for two numbers, which a schedule would fight with."""
    end = f"{schedule.key.partition('.')[2]}_end"
    _require(
        not schedule.key.startswith("ppo.") or getattr(config.ppo, end, -1.0) == -1,
        f"schedules: {schedule.key} moves by ppo.{end} already, expected that to be -1",
    )


def _validate_ranges(config: Config) -> None:
    """What episodes draw are costs and market numbers, from ranges of allowed values."""
    for drawn in config.randomise:
        _require(
            _may(schedules.may_be_randomised, drawn.key),
            f"randomise: {drawn.key} cannot be drawn by episodes, expected a number of fills or "
            f"simulator that shapes nothing, or {schedules.BORROW_RATE}",
        )
        _require(
            drawn.low <= drawn.high,
            f"randomise: {drawn.key} is from {drawn.low:g} to {drawn.high:g}, expected the lower "
            "end first",
        )
        _require_allowed("randomise", drawn.key, (drawn.low, drawn.high))
    keys = [each.key for each in config.randomise]
    _require_once("randomise", keys)
    _require_effect(config, "randomise", keys)
    for schedule in config.schedules:
        _require(
            schedule.key not in keys,
            f"{schedule.key} is in schedules and in randomise, expected one of them",
        )


def _may(rule: Callable[[str, str], bool], key: str) -> bool:
    return key in PARAMETERS and rule(key, str(PARAMETERS[key].type))


def _require_allowed(where: str, key: str, values: Iterable[float]) -> None:
    """Every value in the parameter's range, which is an interval: what is between is in it too."""
    for value in values:
        allowed = PARAMETERS[key].metadata["allowed"]
        holds = _fits_device(key, value) and PARAMETERS[key].metadata["holds"](value)
        _require(holds, f"{where}: {key} would be {value:g}, expected {allowed}")


def _require_once(where: str, keys: list[str]) -> None:
    _require(len(set(keys)) == len(keys), f"{where}: a key comes twice, expected each once")


def _require_effect(config: Config, where: str, keys: list[str]) -> None:
    """Numbers of the simulator say nothing about recorded bars."""
    simulated = [key for key in keys if key.startswith("simulator.")]
    _require(
        not (simulated and config.market.data),
        f"{where}: {simulated and simulated[0]} has no effect on the bars of {config.market.data}, "
        "expected simulated paths or no such entry",
    )


def refusal(key: str, value: Any, source: str) -> InputError:
    """The error for a value that its parameter does not allow."""
    found = "empty" if value == "" else repr(value)
    return InputError(f"{key} {source} is {found}, expected {PARAMETERS[key].metadata['allowed']}")
