"""Start-up: from the command to the line of the first update, with and without a compiled cache."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.workload import ROOT, SMOKE

FIRST_UPDATE = re.compile(r"^update +1\b")
PARTS = {
    "imports": re.compile(r"^imports +([\d.]+) s"),
    "market": re.compile(r"\bmarket ([\d.]+) s"),
    "compilation": re.compile(r"\bcompilation ([\d.]+) s"),
    "validation": re.compile(r"^validation .*; ([\d.]+) s$"),
    "checkpoint": re.compile(r"^checkpoint .*; ([\d.]+) s$"),
    "first update": re.compile(r"^update +1 +([\d.]+) s"),
}
"""What the command itself prints of its start-up."""


@dataclass(frozen=True)
class StartUp:
    """Seconds to the first update's line, what the command says of them, and its peak memory.

    `cpu_seconds`, of all its threads, say what it would take on a machine with nothing else to do.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    parts: dict[str, float] = field(default_factory=dict)


def read_parts(lines: list[str]) -> dict[str, float]:
    """Seconds of each part that the printed lines name."""
    found = {}
    for line in lines:
        for name, pattern in PARTS.items():
            if name not in found and (match := pattern.search(line.rstrip())):
                found[name] = float(match[1])
    return found


def start(cache: Path, *, config: Path = SMOKE) -> StartUp:
    """Runs the training command until its first update's line, then stops it.

    `cache` is the directory of compiled programs. Raises `RuntimeError` where the command ends
    before that line.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [
            *(sys.executable, "-m", "jules_jax.train", "--config", str(config), "--name", "start"),
            *("--runs-dir", f"{directory}/runs", "--checkpoint-dir", f"{directory}/checkpoints"),
        ]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "PYTHONUNBUFFERED": "1",
        }
        began, lines = time.perf_counter(), []
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                if FIRST_UPDATE.match(line):
                    break
            seconds, peak = time.perf_counter() - began, _peak_mib(process.pid)
        finally:
            process.terminate()
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0  # it has been waited for
            process.stdout.close()
        reached = bool(lines) and bool(FIRST_UPDATE.match(lines[-1]))
    if not reached:
        raise RuntimeError(f"the command ended before its first update:\n{''.join(lines)}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return StartUp(seconds, cpu_seconds, peak, read_parts(lines))


def _peak_mib(pid: int) -> float:
    """Peak resident memory of a running process; NaN where /proc does not say.

    `ru_maxrss` would not do: a child begins with that of the process it was forked from.
    """
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return int(found[1]) / 2**10 if found else math.nan


def cold_and_warm() -> tuple[StartUp, StartUp]:
    """With an empty cache, then with what that run left in it."""
    with tempfile.TemporaryDirectory() as cache:
        return start(Path(cache)), start(Path(cache))
