"""The registry: one line for every run ever started, in `runs/registry.jsonl`, append-only.

It is the trial count that an honest Sharpe ratio needs (Bailey, López de Prado 2014): a run that
failed, was interrupted or was deleted still counts.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "registry.jsonl"


def config_hash(config: dict[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of a resolved config, as canonical JSON."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def check(runs_dir: Path) -> None:
    """Raises `OSError` where the registry in an existing `runs_dir` cannot be written."""
    path = runs_dir / FILE
    existed = path.exists()
    with open(path, "a", encoding="utf-8"):
        pass
    if not existed:
        path.unlink()


def append(runs_dir: Path, event: str, run: str, **details: Any) -> None:
    """Adds a line: `event` (started, finished, …) of `run`, with the time and `details`."""
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"time": moment, "event": event, "run": run, **details})
    with open(runs_dir / FILE, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def read(runs_dir: Path) -> list[dict[str, Any]]:
    """Every line ever added; empty where there is no registry yet."""
    path = runs_dir / FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
