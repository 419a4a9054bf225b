"""A run's metrics on disk: `metrics.jsonl`, one JSON object an update.

A run that was killed may leave half a line at the end: whoever reads passes over it, and a run that
goes on cuts it off.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def read(directory: Path) -> list[dict[str, Any]]:
    """The whole rows of the agent at `directory`, oldest first; none where there is no file."""
    path = directory / FILE
    if not path.is_file():
        return []
    rows = (_row(line) for line in path.read_bytes().splitlines())
    return [row for row in rows if row is not None]


def exists(directory: Path) -> bool:
    """Whether an agent's metrics are in `directory`."""
    return (directory / FILE).is_file()


def cut(directory: Path, after: int) -> None:
    """Ends the file before the first row that is of an update past `after`, or unfinished."""
    path = directory / FILE
    if not path.exists():
        return
    kept = 0
    for line in path.read_bytes().splitlines(keepends=True):
        row = _row(line) if line.endswith(b"\n") else None
        if row is None or row["update"] > after:
            break
        kept += len(line)
    os.truncate(path, kept)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("update"), int)
    return row if whole else None
