"""What it costs to know how a run does: everything gathered, written, shown and drawn.

Updates that gather their metrics and updates that gather nothing run in turns; what the host does
with the metrics is timed on its own, as if no device worked beside it: in a run most of it is
hidden behind the next update.

    python -m benchmarks.logging_cost [--lanes 384] [--rounds 7]
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from benchmarks import timing, workload
from jules_jax.config import Config
from jules_jax.training import backend, figures, guard, monitor, panel

WANTED = 0.02
"""The largest share of training time."""
LOGS = 50


def gathering(settings: Config, rounds: int) -> tuple[float, float, workload.Updates]:
    """Median seconds of an update; what gathering adds to it, median over rounds; the updates."""
    env, env_params = workload.market_of(settings)
    full = workload.Updates(settings, env, env_params)
    bare = workload.Updates(settings, env, env_params, gathers=False)
    seconds = timing.interleaved({"full": full, "bare": bare}, rounds)
    added = [a - b for a, b in zip(seconds["full"], seconds["bare"], strict=True)]
    return timing.median(seconds, "full"), statistics.median(added), full


def writing(settings: Config, metrics: dict[str, Any]) -> tuple[float, float]:
    """Seconds that one update's metrics take to be written, and to be shown on a terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with tempfile.TemporaryDirectory() as directory:
        with monitor.Monitor(Path(directory), settings) as log:
            write = _median_seconds(lambda update: log.log(update, metrics))
            scalars = log.scalars[0]
        with panel.LivePanel("run", settings.gates, console) as live:
            last = settings.num_updates  # always drawn: others wait for half a second to pass
            progress = panel.Progress(last, last, 1, 1.0, 1.0)
            show = _median_seconds(lambda update: live.show(progress, scalars))
    return write, show


def drawing(settings: Config, updates: workload.Updates) -> tuple[float, float]:
    """Seconds that a set of figures takes, the first with compilation, and a later one."""
    weights = jax.device_get(updates.state.params)
    market = updates.env_params.market
    with tempfile.TemporaryDirectory() as directory:

        def draw(update: int) -> None:
            record = figures.play(weights, settings, market, update=update, progress=1.0)
            figures.write(figures.draw(record, update=update), Path(directory), update=update)

        began = time.perf_counter()
        draw(1)
        first = time.perf_counter() - began
        return first, _median_seconds(draw, 3)


def _median_seconds(run: Callable[[int], Any], times: int = LOGS) -> float:
    seconds = []
    for number in range(1, times + 1):
        began = time.perf_counter()
        run(number)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def report(settings: Config, rounds: int) -> tuple[str, float]:
    """The table, and the share of training time."""
    update, added, updates = gathering(settings, rounds)
    metrics = updates() | jax.device_get(guard.magnitudes(updates.state))
    write, show = writing(settings, {name: np.asarray(value) for name, value in metrics.items()})
    first, later = drawing(settings, updates)
    every = settings.monitor.figures_every
    parts = {
        "gathered on the device": max(added, 0.0),
        "written: TensorBoard, metrics.jsonl": write,
        "shown: the panel": show,
        f"drawn: figures, every {every} updates": later / every if every else 0.0,
    }
    lines = [f"{'an update':<40}{1e3 * update:>10,.1f} ms"]
    lines += [
        f"{name:<40}{1e3 * seconds:>10,.2f} ms {seconds / update:>9.2%}"
        for name, seconds in parts.items()
    ]
    share = sum(parts.values()) / update
    verdict = "yes" if share < WANTED else "NO"
    lines += [f"{'in all':<40}{'':>13} {share:>9.2%}   wanted below {WANTED:.0%}: {verdict}"]
    lines += [f"{'the first figures, compilation included':<40}{first:>10,.1f} s"]
    return "\n".join(lines), share


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    settings = workload.smoke(num_envs=arguments.lanes)
    backend.use_compilation_cache()
    backend.use_cores(settings)
    print(timing.heading(timing.hardware()), flush=True)
    table, share = report(settings, arguments.rounds)
    print(table)
    raise SystemExit(0 if share < WANTED else 1)


if __name__ == "__main__":
    main()
