"""YAML files as text and places: scalars are not interpreted, and every key knows its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jules_jax.errors import InputError

if TYPE_CHECKING:
    import yaml


def compose(path: str | Path, what: str, example: str) -> yaml.Node:
    """The document at `path`, its scalars kept as text: `5e-4` and `ON` are for others to read.

    Raises `InputError`, which calls the file a `what`, for one that is missing, not YAML or empty,
    where there should be something such as `example`.
    """
    import yaml

    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what} {path} is not text, expected YAML in UTF-8") from None
    except yaml.YAMLError as error:
        line = f" line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise InputError(f"{what} {path}{line} is not valid YAML: {problem}") from None
    if root is None:
        raise InputError(f"{what} {path} is empty, expected {example}")
    return root


def pairs(node: yaml.Node, path: str | Path) -> Iterator[tuple[str, yaml.Node, str]]:
    """Key, value and place of each entry of a mapping, each key once (YAML lets the last win)."""
    places: dict[str, str] = {}
    for key, value in node.value:
        name, place = str(key.value), f"in {path} line {key.start_mark.line + 1}"
        if name in places:
            raise InputError(f"{name} is set twice, {places[name]} and {place}")
        places[name] = place
        yield name, value, place
