"""Every parameter of jules_jax, defined once (`parameters`), and how a `Config` is made (`layers`).

The section dataclasses are at the same time the schema of YAML files in `configs/`, the source of
the command-line flags (`flags.py`), and (for `Account`, `Fills`, `Safeguards`, `Reward`) the
sections of the environment's parameters. Defaults are the constants of the IntradayJules report
where it gives one. Standard library only, so that `--help` is instant.
"""

from jules_jax.config.layers import (
    CONFIG_FILE,
    Layer,
    Setting,
    differences,
    find_key,
    load,
    make_layer,
    read_dict,
    read_yaml,
    resolve,
    saved_with,
    to_dict,
    to_yaml,
)
from jules_jax.config.parameters import (
    PARAMETERS,
    PPO,
    SECTIONS,
    Account,
    Checkpoints,
    Config,
    Features,
    Fills,
    Gates,
    Market,
    Monitor,
    Network,
    Population,
    Reward,
    Safeguards,
    Simulator,
    Splits,
)
from jules_jax.config.presets import PRESETS
from jules_jax.config.schedules import Range, Schedule
from jules_jax.config.validation import validate

__all__ = [
    "CONFIG_FILE",
    "PARAMETERS",
    "PPO",
    "PRESETS",
    "SECTIONS",
    "Account",
    "Checkpoints",
    "Config",
    "Features",
    "Fills",
    "Gates",
    "Layer",
    "Market",
    "Monitor",
    "Network",
    "Population",
    "Range",
    "Reward",
    "Safeguards",
    "Schedule",
    "Setting",
    "Simulator",
    "Splits",
    "differences",
    "find_key",
    "load",
    "make_layer",
    "read_dict",
    "read_yaml",
    "resolve",
    "saved_with",
    "to_dict",
    "to_yaml",
    "validate",
]
