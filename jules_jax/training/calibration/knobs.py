"""Knobs: the settings that can be calibrated, one number each."""

from __future__ import annotations

from dataclasses import dataclass

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.training import population

SOURCE = "of --key"
FACTORS = {
    "edge": (
        "simulator.mispricing_sd_bp",
        "simulator.reversion_strength",
        "simulator.momentum_strength",
    ),
    "drawdown_weight": ("reward.drawdown_weight_start", "reward.drawdown_weight_end"),
}
"""Several settings that one factor multiplies, by the factor's name."""
SPAN = 2.0
"""By default values from the present one over this to the present one times this are tried."""
PENALTIES = ("action_change", "same_action", "drawdown")
"""Terms of the reward that are penalties."""


@dataclass(frozen=True)
class Knob:
    """A setting by its dotted key, or a factor of several."""

    name: str
    keys: tuple[str, ...]
    is_factor: bool = False

    def settings(self, base: config.Config, value: float) -> dict[str, float]:
        """Numbers by dotted key with the knob at `value`, `base` being its factor 1."""
        if not self.is_factor:
            return {self.keys[0]: value}
        return {key: float(f"{value * number(base, key):.6g}") for key in self.keys}

    def turned(self, base: config.Config, value: float, source: str) -> config.Config:
        """The config with the knob at `value`; raises `InputError` where that is not allowed."""
        return population.with_values(base, self.settings(base, value), source)

    @property
    def is_parallel(self) -> bool:
        """Whether agents of one program may differ in it: then all values train at once."""
        return not self.is_factor and population.can_differ(self.keys[0])

    @property
    def penalties(self) -> tuple[str, ...]:
        """The penalties that it weighs, all of them where it weighs none in particular."""
        own = tuple(term for term in PENALTIES if self.keys[0].startswith(f"reward.{term}_"))
        return own or PENALTIES

    def span(self, base: config.Config) -> tuple[float, float]:
        """The range of values tried by default; raises `InputError` where there is none."""
        present = 1.0 if self.is_factor else number(base, self.keys[0])
        if present <= 0:
            raise InputError(
                f"{self.name} is {present:g}, which spans no range: expected one in --between"
            )
        return present / SPAN, present * SPAN


def find(name: str, base: config.Config) -> Knob:
    """The knob called `name`: one of `FACTORS`, or a number of the simulator or of an agent.

    Raises `InputError` where it is none, or has no effect with the settings `base`.
    """
    if keys := FACTORS.get(name.replace("-", "_")):
        knob = Knob(name.replace("-", "_"), tuple(k for k in keys if number(base, k)), True)
        if not knob.keys:
            raise InputError(f"{name} {SOURCE} multiplies {', '.join(keys)}, which are all 0 here")
    else:
        key = config.find_key(name, SOURCE, also=FACTORS)
        if not (population.can_differ(key) or _is_of_simulator(key)):
            raise InputError(
                f"{key} {SOURCE} cannot be calibrated, expected a number of simulator, ppo, "
                f"{', '.join(population.OF_ENVIRONMENT)}, or {' or '.join(FACTORS)}"
            )
        knob = Knob(key, (key,))
    moving = {key for schedule in base.schedules for key in schedule.parameters}
    if scheduled := [key for key in knob.keys if key in moving]:
        raise InputError(f"{scheduled[0]} {SOURCE} moves by a schedule, expected a constant number")
    if base.market.data and _is_of_simulator(knob.keys[0]):
        raise InputError(
            f"{name} {SOURCE} is of simulated paths, and market.data is {base.market.data}"
        )
    return knob


def number(settings: config.Config, key: str) -> float:
    """The number at a dotted key."""
    section, _, leaf = key.partition(".")
    return float(getattr(getattr(settings, section), leaf))


def _is_of_simulator(key: str) -> bool:
    return key.startswith("simulator.") and str(config.PARAMETERS[key].type) == "float"
