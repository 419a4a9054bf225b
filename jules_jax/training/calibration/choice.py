"""Choice: a configuration file with the calibrated number in it, and its evidence as a comment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jules_jax import config
from jules_jax.errors import InputError

TITLE = "# Calibration of "
"""Begins the comment with a choice's evidence; another calibration of the same knob replaces it."""
OF_THE_RUN = frozenset(("name", "seed", "runs_dir", "checkpoint_dir", "devices"))
"""Settings that say where and when, not what: a choice does not hold them."""


def require_writable(path: Path) -> None:
    """Raises `InputError` where no file can be written at `path`; leaves nothing there."""
    if path.is_dir():
        raise InputError(f"--write {path} is a directory, expected a file such as calibrated.yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--write {path} cannot be written: {error.strerror}") from None


def write(
    path: Path,
    base: config.Config,
    file: Path | None,
    settings: Mapping[str, Any],
    comment: str,
) -> None:
    """Writes `base` with `settings` by dotted key, such that `--config` reads just that.

    It is the text of `file`, comments and all, with what it says otherwise changed in place or
    added, or without a file what differs from the defaults. `comment` goes to its end.
    """
    import yaml

    chosen = dict(settings)
    wanted = _asked(base) | chosen
    before = _asked(config.load(file=file))
    changed = {key: value for key, value in wanted.items() if value != before[key]} | chosen
    text = _without_comment(file.read_text(encoding="utf-8") if file else "", comment)
    for key, value in changed.items():
        with suppress(yaml.YAMLError):  # what an edit broke does not read as wanted below
            text = _with_value(text, key, value)
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(f"{text.rstrip()}\n\n{comment}".lstrip("\n"), encoding="utf-8")
        if not _reads_as(draft, wanted):  # YAML that cannot be edited in place
            whole = config.to_yaml(config.load(wanted))
            draft.write_text(f"{whole}\n{comment}", encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _reads_as(path: Path, wanted: dict[str, Any]) -> bool:
    try:
        return _asked(config.load(file=path)) == wanted
    except InputError:
        return False


def _asked(settings: config.Config) -> dict[str, Any]:
    """Values by dotted key, but for those of the run."""
    tree = config.to_dict(settings)
    found = {}
    for key in config.PARAMETERS:
        section, _, leaf = key.rpartition(".")
        found[key] = (tree[section] if section else tree)[leaf]
    return {key: value for key, value in found.items() if key not in OF_THE_RUN}


def _without_comment(text: str, comment: str) -> str:
    """The text without the evidence that an earlier calibration of the same knob left."""
    title = re.escape(comment.splitlines()[0])
    return re.sub(rf"^{title}\n(#   .*\n)*\n?", "", text, flags=re.MULTILINE)


def _with_value(text: str, key: str, value: Any) -> str:
    """The YAML with a value changed where it stands, or added to its section, or at the end."""
    import yaml

    section, _, leaf = key.rpartition(".")
    line = f"{leaf}: {json.dumps(value)}"
    root = yaml.compose(text, Loader=yaml.BaseLoader)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    inside = [node for name, node in entries if section and name.value == section]
    for name, node in [*(inside[0].value if inside else []), *entries]:
        if name.value in (leaf, key) and isinstance(node, yaml.ScalarNode):
            return text[: node.start_mark.index] + json.dumps(value) + text[node.end_mark.index :]
    if inside and isinstance(inside[0], yaml.MappingNode):
        at, indent = inside[0].start_mark.index, " " * inside[0].start_mark.column
        if inside[0].flow_style:
            return f"{text[: at + 1]}{line}, {text[at + 1 :]}"
        return f"{text[:at]}{line}\n{indent}{text[at:]}"
    if section:
        return f"{text.rstrip()}\n\n{section}:\n  {line}\n".lstrip("\n")
    return f"{line}\n{text}"
