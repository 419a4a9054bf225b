"""Command lines: flags of every parameter of `config`, and of the command that asks.

`--num-envs 2048`, `--ppo.learning-rate=3e-4`, `--preset null`; hyphens and underscores are the
same, and a parameter whose name is unique over the tree needs no section. Standard library only:
`--help` must not wait for JAX.
"""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jules_jax import config as configuration
from jules_jax.config import PARAMETERS, SECTIONS, Config, Layer, Setting
from jules_jax.errors import InputError

SOURCE = "on the command line"

COMMON = (
    "num_envs",
    "total_timesteps",
    "seed",
    "name",
    "devices",
    "runs_dir",
    "checkpoint_dir",
    "market.data",
    "market.timezone",
    "market.bar_label",
    "simulator.preset",
    "account.position_size_pct",
    "fills.bid_ask_spread_bps",
    "fills.fee_bps",
    "safeguards.terminate_on_hard",
    "reward.reward_scaling",
    "ppo.n_steps",
    "ppo.n_epochs",
    "ppo.num_minibatches",
    "ppo.learning_rate",
    "ppo.ent_coef",
    "population.num_seeds",
    "population.sweep",
)
"""The parameters that `--help` shows."""

OF_DATA = (
    "market.format",
    "market.symbols",
    "market.timezone",
    "market.bar_label",
    "market.bar_seconds",
    "market.calendar",
    "market.before_open_minutes",
    "market.after_close_minutes",
    "market.adjust_splits",
    "market.adv",
    "simulator.preset",
)
"""Those that it shows where bars are looked at, not traded."""

OPTIONS = {"config": "YAML file of parameters; flags override it"}
SWITCHES = {
    "help": "show the common flags and exit",
    "help_all": "show every flag and exit",
    "print_config": "print the resolved configuration as YAML and exit",
}
"""Flags of every command that are not parameters."""

WIDTH = 100
"""Columns of the help."""


@dataclass(frozen=True)
class Parsed:
    """A resolved config, and the command's own flags.

    `extras` has every switch (a bool) and option (text, or None where it was not given) of the
    command, with underscores in the names: `extras["dry_run"]`. `given` are the parameters on the
    command line alone.
    """

    config: Config
    extras: Mapping[str, Any]
    given: Layer = field(default_factory=dict)


def parse(
    argv: Sequence[str],
    *,
    program: str,
    summary: str,
    switches: Iterable[str] | Mapping[str, str] = (),
    options: Mapping[str, str] | None = None,
    base: Callable[[Mapping[str, Any]], Layer] = lambda extras: {},
    common: Sequence[str] = COMMON,
    implied: Mapping[str, str] | None = None,
) -> Parsed:
    """The config and the command's own flags that `argv` (without the program's name) asks for.

    `switches` (names, or names to sentences for `--help`) are flags without a value, `options`
    (names to sentences) flags with one. `base` maps the extras to settings that rank below
    `--config`, such as `read_dict` of the config in the checkpoint a command was given; it also
    sees the parameters that were given, by dotted key. `common` are the parameters that `--help`
    shows. `implied` are values of options that may be given without one.

    `--help`, `--help-all` and `--print-config` print and raise `SystemExit(0)`. Raises
    `InputError` naming flag, value found and value expected.
    """
    given = switches if isinstance(switches, Mapping) else dict.fromkeys(switches, "")
    own_switches = {_underscored(name): text for name, text in given.items()} | SWITCHES
    own_options = {_underscored(name): text for name, text in (options or {}).items()} | OPTIONS
    if {"--help", "-h", "--help-all"} & set(argv):
        own = {f"{name} VALUE": text for name, text in own_options.items()} | own_switches
        _print_and_exit(help_text(program, summary, own, None if "--help-all" in argv else common))

    layer, extras = _read(argv, own_switches, own_options, implied or {})
    file = configuration.read_yaml(extras["config"]) if extras["config"] is not None else {}
    known = {key: setting.value for key, setting in (file | layer).items()} | extras
    resolved = configuration.resolve(base(known), file, layer)
    if extras["print_config"]:
        _print_and_exit(configuration.to_yaml(resolved))
    shared = OPTIONS | SWITCHES
    own = {name: extras[name] for name in extras if name not in shared}
    return Parsed(resolved, own, layer)


@dataclass(frozen=True)
class Subcommand:
    """One of several things a command does, with its own flags, on bars at a path.

    `run` takes the config and the flags, and returns the exit status. `preset` is the simulator's,
    where no other is given.
    """

    run: Callable[[Config, Mapping[str, Any]], int]
    summary: str
    switches: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    needs_path: bool = True
    preset: str = ""


def parse_subcommand(
    argv: Sequence[str], *, program: str, known: Mapping[str, Subcommand]
) -> tuple[str, Parsed]:
    """The subcommand that `argv` begins with, and its flags; a path after it is `market.data`.

    Prints and raises `SystemExit(0)` for help, as `parse` does.
    """
    words = list(argv)
    name = words.pop(0) if words else "--help"
    if name in ("--help", "-h"):
        listed = [f"  {each:<16} {command.summary}" for each, command in known.items()]
        usage = f"usage: python -m {program} COMMAND [PATH] [--flag value]..."
        path = "PATH is a file, folder or glob of bars, or a built dataset. Each takes --help."
        _print_and_exit("\n".join([usage, "", *listed, "", path]) + "\n")
    if name not in known:
        raise InputError(f"unknown command {name!r}, expected one of {', '.join(known)}")
    command = known[name]
    layer = {"simulator.preset": Setting(command.preset, "by default")} if command.preset else {}
    if words and not words[0].startswith("-"):
        layer["market.data"] = Setting(words.pop(0), SOURCE)
        if words and not words[0].startswith("-"):
            raise InputError(
                f"unexpected {words[0]!r} after the path, expected flags (a glob needs quotes, as "
                "in 'A*.zip', or the shell puts the names of the files in its place)"
            )
    parsed = parse(
        words,
        program=f"{program} {name}",
        summary=command.summary,
        switches=command.switches,
        options=command.options,
        base=lambda extras: layer,
        common=OF_DATA,
    )
    if command.needs_path and not parsed.config.market.data:
        raise InputError(f"{name} needs a PATH: a file, folder or glob of bars")
    return name, parsed


def refuse(extras: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    """Raises `InputError` for an option that was given where it would change nothing."""
    for name in names:
        if extras[name]:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} does not go with {where}, expected it left out")


def whole_number(extras: Mapping[str, Any], name: str, *, default: int, most: int) -> int:
    """The option `name` of a command as a whole number from 1 to `most`."""
    text = extras[name]
    try:
        value = float(default if text is None else text)
    except ValueError:
        value = 0.0
    if not (1 <= value <= most and value.is_integer()):
        raise InputError(f"--{name} is {text!r}, expected a whole number from 1 to {most:,}")
    return int(value)


def number_or_share(extras: Mapping[str, Any], name: str, *, most: int) -> float:
    """The option `name` of a command: a number from 1 to `most`, or a share below 1; 0: not given.

    `1.0` is a share, and stands for all: for `most`.
    """
    text = extras[name]
    if text is None:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value == 1 and "." in text:
        return float(most)
    if not (0 < value < 1 or (1 <= value <= most and value.is_integer())):
        raise InputError(f"--{name} is {text!r}, expected a number from 1 to {most:,} or a share")
    return value


def _underscored(name: str) -> str:
    return name.replace("-", "_")


def _print_and_exit(text: str) -> None:
    print(text, end="")
    raise SystemExit(0)


def _read(
    argv: Sequence[str],
    switches: Mapping[str, str],
    options: Mapping[str, str],
    implied: Mapping[str, str],
) -> tuple[Layer, dict[str, Any]]:
    """The parameters and the command's own flags of `argv`; of a repeated flag the last counts."""
    layer: Layer = {}
    extras: dict[str, Any] = dict.fromkeys(switches, False) | dict.fromkeys(options)
    words = deque(argv)
    while words:
        word = words.popleft()
        if not word.startswith("--") or word == "--":
            raise InputError(
                f"unexpected {word!r} {SOURCE}, expected a flag such as --num-envs 2048"
            )
        name, equals, value = word[2:].partition("=")
        key = _underscored(name)
        if key in switches:
            if equals:
                raise InputError(f"--{name} {SOURCE} is {value!r}, expected no value")
            extras[key] = True
            continue
        if key not in options:
            key = configuration.find_key(name, SOURCE, also=(*options, *switches))
        if not equals and key in implied and (not words or words[0].startswith("--")):
            value = implied[key]
        elif not equals:
            value = _next_value(name, key, words)
        if key in options:
            extras[key] = value
        else:
            layer[key] = Setting(value, SOURCE)
    return layer, extras


def _next_value(name: str, key: str, words: deque[str]) -> str:
    """The word after a flag; a true-or-false parameter may do without."""
    is_bool = key in PARAMETERS and PARAMETERS[key].type == "bool"
    if is_bool and not (words and words[0].lower() in ("true", "false")):
        return "true"
    if not words or words[0].startswith("--"):
        allowed = PARAMETERS[key].metadata["allowed"] if key in PARAMETERS else "one"
        raise InputError(f"--{name} {SOURCE} has no value, expected {allowed}")
    return words.popleft()


def help_text(
    program: str, summary: str, own: Mapping[str, str], common: Sequence[str] | None = COMMON
) -> str:
    """What `--help` prints of the `common` parameters, or `--help-all` (None) of all of them.

    `own` are the command's own flags.
    """
    lines = [
        f"usage: python -m {program} [--flag value]...",
        "",
        *textwrap.wrap(summary, WIDTH),
        "",
    ]
    lines += [_entry(name, text) for name, text in own.items()]
    if common is None:
        lines += ["", "A flag may be given with its section, such as --ppo.n-steps 64."]
        lines += _section("", Config)
        for name, kind in SECTIONS.items():
            lines += _section(name, kind)
    else:
        lines += ["", "common parameters [and their defaults]"]
        lines += [_entry(_short_name(key), _sentence(key)) for key in common]
        lines += [
            "",
            f"{len(PARAMETERS) - len(common)} more parameters: python -m {program} --help-all",
        ]
    return "\n".join(lines) + "\n"


def _section(section: str, kind: type[Any]) -> list[str]:
    """A section of `--help-all`: its name, what it is, and its flags with what they allow."""
    keys = [key for key in PARAMETERS if key.rpartition(".")[0] == section]
    title = f"{section}: {(kind.__doc__ or '').splitlines()[0]}" if section else "The run."
    return ["", title, *(_entry(_short_name(key), _sentence(key, allowed=True)) for key in keys)]


def _short_name(key: str) -> str:
    """The shortest name that means `key`."""
    leaf = key.rpartition(".")[2]
    unique = sum(other.rpartition(".")[2] == leaf for other in PARAMETERS) == 1
    return leaf if unique else key


def _sentence(key: str, *, allowed: bool = False) -> str:
    """What a parameter is, its default in brackets and, if asked, what is allowed."""
    parameter = PARAMETERS[key]
    text: str = parameter.metadata["help"]
    notes = [_shown(parameter.default)] if parameter.default not in ("", ()) else []
    notes += [parameter.metadata["allowed"]] if allowed else []
    return f"{text} [{'; '.join(notes)}]" if notes else text


def _shown(default: Any) -> str:
    """A default as it would be typed."""
    match default:
        case bool():
            return str(default).lower()
        case tuple():
            return ",".join(map(str, default))
        case float():
            return f"{default:g}"
        case _:
            return str(default)


def _entry(name: str, text: str) -> str:
    """One flag of the help: name in the left column, sentence in the right one."""
    flag = "--" + name.replace("_", "-")
    return textwrap.fill(
        f"{flag:<32}  {text}", WIDTH, initial_indent="  ", subsequent_indent=" " * 36
    )
