"""Layers: defaults, presets, YAML files and flags, merged into one config.

Each is a flat dict from dotted key to value and source; later ones rank first. PyYAML is imported
inside the functions that read and write YAML.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jules_jax.config import schedules, yaml_files
from jules_jax.config.parameters import PARAMETERS, SECTIONS, Config
from jules_jax.config.presets import PRESETS
from jules_jax.config.validation import refusal, validate
from jules_jax.errors import InputError

if TYPE_CHECKING:
    import yaml


CONFIG_FILE = "config.yaml"
"""Of a run and of its checkpoints: the resolved config."""


class Setting(NamedTuple):
    """A value as it was given, and where: `on the command line`, `in FILE line 3`."""

    value: Any
    source: str


Layer = dict[str, Setting]
"""Settings of one origin, by dotted key."""


def load(values: Mapping[str, Any] | None = None, *, file: str | Path | None = None) -> Config:
    """The config of a YAML file (if any) with `values` on top, from a program.

    `values` maps sections to mappings (what `to_dict` returns), or dotted keys to values, or both.
    Raises `InputError` naming the key, the value found and the value expected.
    """
    layers = [] if file is None else [read_yaml(file)]
    return resolve(*layers, read_dict(values or {}))


def resolve(*layers: Layer) -> Config:
    """The config of the defaults and `layers`, later ones first in rank; validated.

    A layer that names a simulator preset gets the preset's values just below its own: a preset
    on the command line outranks what a file says about the same parameters. So does a value on the
    command line the schedule or range that a file has for it.
    """
    merged: Layer = {}
    ranks: dict[str, int] = {}
    for rank, layer in enumerate(layers):
        if preset := layer.get("simulator.preset"):
            source = f"in preset {preset.value}"
            values = PRESETS.get(str(preset.value), {})
            preset_layer = {f"simulator.{name}": Setting(v, source) for name, v in values.items()}
            merged |= preset_layer
            ranks |= dict.fromkeys(preset_layer, rank)
        merged |= layer
        ranks |= dict.fromkeys(layer, rank)

    def moves(name: str, keys: Iterable[str]) -> bool:
        return all(ranks.get(key, -1) <= ranks[name] for key in keys)

    values_of: dict[str, dict[str, Any]] = {section: {} for section in ("", *SECTIONS)}
    for key, setting in merged.items():
        section, _, leaf = key.rpartition(".")
        values_of[section][leaf] = _convert(key, setting)
    top = values_of[""]
    if "schedules" in top:
        top["schedules"] = tuple(x for x in top["schedules"] if moves("schedules", x.parameters))
    if "randomise" in top:
        top["randomise"] = tuple(x for x in top["randomise"] if moves("randomise", [x.key]))
    sections = {name: kind(**values_of[name]) for name, kind in SECTIONS.items()}
    config = Config(**top, **sections)
    validate(config, sources={key: setting.source for key, setting in merged.items()})
    return config


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Both values of every parameter that differs, by dotted key."""
    old, new = (read_dict(to_dict(config)) for config in (before, after))
    return {
        key: (old[key].value, setting.value) for key, setting in new.items() if setting != old[key]
    }


def make_layer(settings: Iterable[tuple[str, Setting]]) -> Layer:
    """Settings by their full key; `InputError` for an unknown key or one that comes twice."""
    layer: Layer = {}
    for name, setting in settings:
        key = find_key(name, setting.source)
        if key in layer:
            raise InputError(f"{key} is set twice, {layer[key].source} and {setting.source}")
        layer[key] = setting
    return layer


def find_key(name: str, source: str, *, also: Iterable[str] = ()) -> str:
    """The dotted key that `name` means; a leaf name unique over the tree needs no section.

    Hyphens are underscores. Raises `InputError` with the nearest valid key, which may be one of
    `also` (a command's own flags).
    """
    key = name.replace("-", "_")
    if key in PARAMETERS:
        return key
    matches = [full for full in PARAMETERS if full.rpartition(".")[2] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(f"{name} {source} is ambiguous, expected {' or '.join(matches)}")
    if key in SECTIONS:
        example = next(full for full in PARAMETERS if full.startswith(f"{key}."))
        raise InputError(f"{key} {source} is a section, expected settings such as {example}")
    nearest = _nearest(key, also)
    raise InputError(f"unknown key {name!r} {source}, the nearest valid key is {nearest!r}")


def _nearest(key: str, also: Iterable[str]) -> str:
    """The full key most like `key`, compared with full and with leaf names."""
    full_keys = {full.rpartition(".")[2]: full for full in PARAMETERS}
    full_keys |= {full: full for full in (*PARAMETERS, *SECTIONS, *also)}
    leaf = key.rpartition(".")[2]
    if leaf in full_keys:  # the right name in the wrong section
        return full_keys[leaf]
    return full_keys[difflib.get_close_matches(key, full_keys, n=1, cutoff=0.0)[0]]


def read_dict(values: Mapping[str, Any], source: str = "in the given settings") -> Layer:
    """The settings of a mapping as `load` takes it; `source` says in errors where it is from."""
    return make_layer(_flatten(values, source))


def _flatten(values: Mapping[str, Any], source: str) -> Iterator[tuple[str, Setting]]:
    for name, value in values.items():
        if name in SECTIONS and isinstance(value, Mapping):
            for leaf, leaf_value in value.items():
                yield f"{name}.{leaf}", Setting(leaf_value, source)
        else:
            yield str(name), Setting(value, source)


def saved_with(checkpoint: str | None) -> Path:
    """The resolved config that was saved with a checkpoint, given as `--checkpoint`.

    Raises `InputError` where there is none.
    """
    if checkpoint is None:
        raise InputError("--checkpoint is missing, expected a checkpoint directory")
    directory = Path(checkpoint)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such checkpoint directory")
    for place in (directory, directory.parent):
        if (place / CONFIG_FILE).is_file():
            return place / CONFIG_FILE
    if members := sorted(path.parent.name for path in directory.glob(f"*/{CONFIG_FILE}")):
        raise InputError(
            f"{directory} is a population's, expected one of its members: {', '.join(members)}"
        )
    raise InputError(f"{directory}: no {CONFIG_FILE} there, expected one beside a checkpoint")


def read_yaml(path: str | Path) -> Layer:
    """The settings of a YAML file: top-level parameters, and sections by name.

    Scalars are kept as text and read like flags, so that `5e-4` and `1e8` are numbers, `16:00` a
    time (YAML 1.1 says 960) and `null` the preset. Raises `InputError` for a file that is missing,
    empty, not YAML, not a mapping, or has an unknown or repeated key.
    """
    import yaml

    root = yaml_files.compose(path, "config file", "settings such as num_envs: 384")
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"config file {path} has no keys, expected settings such as num_envs: 384")
    return make_layer(_yaml_settings(root, path))


def _yaml_settings(root: yaml.MappingNode, path: str | Path) -> Iterator[tuple[str, Setting]]:
    import yaml

    for name, node, source in yaml_files.pairs(root, path):
        if name in SECTIONS and isinstance(node, yaml.MappingNode):
            for leaf, leaf_node, leaf_source in yaml_files.pairs(node, path):
                yield f"{name}.{leaf}", Setting(_yaml_value(leaf_node, path), leaf_source)
        elif name not in SECTIONS or node.value != "":  # a section may be left empty
            yield name, Setting(_yaml_value(node, path), source)


def _yaml_value(node: yaml.Node, path: str | Path) -> Any:
    """A scalar's text, sequences and mappings of texts; each key once."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {key: _yaml_value(value, path) for key, value, _ in yaml_files.pairs(node, path)}
    if isinstance(node, yaml.SequenceNode):
        return [_yaml_value(item, path) for item in node.value]
    return node.value


def _convert(key: str, setting: Setting) -> Any:
    """The value in the parameter's type, from its text or from a Python value."""
    kind = str(PARAMETERS[key].type)
    if reader := _READERS.get(kind):
        try:
            return reader(setting.value, lambda name: find_key(name, setting.source))
        except ValueError as error:
            raise InputError(f"{key} {setting.source}: {error}") from None
    try:
        return _CONVERTERS[kind](setting.value)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise refusal(key, setting.value, setting.source) from None


def _to_float(raw: Any) -> float:
    if isinstance(raw, bool):
        raise TypeError
    return float(raw)


def _to_int(raw: Any) -> int:
    number = _to_float(raw)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _to_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    return {"true": True, "false": False}[raw.lower()]


def _to_text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _to_widths(raw: Any) -> tuple[int, ...]:
    items = raw.strip("[]() ").split(",") if isinstance(raw, str) else raw
    return tuple(_to_int(item) for item in items)


_READERS: dict[str, Callable[[Any, Callable[[str], str]], Any]] = {
    "tuple[Schedule, ...]": schedules.read_schedules,
    "tuple[Range, ...]": schedules.read_ranges,
}
"""Those of mappings by key."""

_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "str": _to_text,
    "tuple[int, ...]": _to_widths,
}


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dicts of plain JSON types; `load` reads it back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    tree: dict[str, Any] = plain(dataclasses.asdict(config))
    tree["schedules"] = {each.key: schedules.written(each) for each in config.schedules}
    tree["randomise"] = {each.key: [each.low, each.high] for each in config.randomise}
    return tree


def to_yaml(config: Config) -> str:
    """The config as a YAML document; `read_yaml` and `--config` read it back exactly."""
    import yaml

    # Non-ASCII text is escaped: unescaped, PyYAML does not read all of it back (U+0085).
    return yaml.safe_dump(to_dict(config), sort_keys=False)
