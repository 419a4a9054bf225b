"""Monitor: what a run writes and shows — TensorBoard, `metrics.jsonl`, one live line."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from jules_jax import config
from jules_jax.training import schedule
from jules_jax.training.leaderboard import Leaderboard

EPISODE_WINDOW = 100
"""Episode means are over the newest updates that hold at least this many episodes, as in SB3."""
LEADERBOARD = "leaderboard.txt"
METRICS = "metrics.jsonl"
PLAIN_LINE_SECONDS = 10.0
"""Without a terminal, a line at most this often."""


def cut(metrics: Path, after: int) -> None:
    """Ends the file of rows before the first that is of an update past `after`, or unfinished."""
    if not metrics.exists():
        return
    kept = 0
    for line in metrics.read_bytes().splitlines(keepends=True):
        try:
            whole = line.endswith(b"\n") and json.loads(line)["update"] <= after
        except (ValueError, KeyError, TypeError):
            break
        if not whole:
            break
        kept += len(line)
    os.truncate(metrics, kept)


class EpisodeWindow:
    """Sums over the newest updates with at least `EPISODE_WINDOW` whole episodes among them."""

    def __init__(self) -> None:
        self._updates: deque[dict[str, float]] = deque()
        self._passed_over = 0  # updates still to be left out

    def restart(self, pass_over: int) -> None:
        """Forgets all episodes, and leaves out those of the next `pass_over` updates."""
        self._updates.clear()
        self._passed_over = pass_over

    def add(self, sums: dict[str, float]) -> None:
        """Takes an update's sums; `episodes` is the number of episodes in them."""
        if self._passed_over:
            self._passed_over -= 1
            return
        if sums["episodes"] > 0:
            self._updates.append(sums)
        while self._updates and self._without_oldest() >= EPISODE_WINDOW:
            self._updates.popleft()

    def _without_oldest(self) -> float:
        return self._total("episodes") - self._updates[0]["episodes"]

    def _total(self, name: str) -> float:
        return sum(sums[name] for sums in self._updates)

    def snapshot(self) -> dict[str, Any]:
        """The sums of the updates in it, oldest first, and how many are still left out."""
        return {"updates": list(self._updates), "passed_over": self._passed_over}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`."""
        self._updates, self._passed_over = deque(snapshot["updates"]), snapshot["passed_over"]

    def means(self) -> dict[str, float]:
        """Mean per episode by name; empty before the first whole episode has ended."""
        episodes = self._total("episodes")
        if episodes == 0:
            return {}
        names = [name for name in self._updates[0] if name != "episodes"]
        return {name: self._total(name) / episodes for name in names}


class Recorder:
    """Writes one agent's updates, as scalars under Stable-Baselines3's names.

    `rollout/ep_*` are means over whole episodes and absent before the first has ended; other
    per-episode sums of `env.metrics` are means over the same episodes under their own names.

    after: the update that a resumed run goes on from; what was written of later ones is cut off
    `metrics.jsonl`, and hidden from TensorBoard.
    """

    def __init__(self, directory: Path, settings: config.Config, *, after: int = 0) -> None:
        self._settings = settings
        metrics = directory / METRICS
        later = None
        if after:
            cut(metrics, after)
            later = after * settings.num_envs * settings.ppo.n_steps + 1
        self._writer = SummaryWriter(str(directory), purge_step=later)
        self._file = open(metrics, "a", encoding="utf-8")  # noqa: SIM115
        self._window = EpisodeWindow()
        now = time.monotonic()
        self._began = now
        self._recent: deque[tuple[float, int]] = deque([(now, after)], maxlen=11)

    def snapshot(self) -> dict[str, Any]:
        """What a resumed run's recorder needs, as JSON has it; all that was written is on disk."""
        self._writer.flush()
        return {"window": self._window.snapshot(), "elapsed": time.monotonic() - self._began}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`."""
        self._window.restore(snapshot["window"])
        self._began -= snapshot["elapsed"]

    def close(self) -> None:
        """Closes the files."""
        self._writer.close()
        self._file.close()

    def restart(self) -> None:
        """Leaves out of all means the episodes begun so far: another agent's weights play on."""
        length, steps = self._settings.max_steps_in_episode, self._settings.ppo.n_steps
        self._window.restart(-(-length // steps))

    def log(self, update: int, metrics: dict[str, float]) -> dict[str, float]:
        """Writes the metrics of update number `update` (from 1), and returns the scalars.

        What is not finite is null in `metrics.jsonl`, and missing from the events.
        """
        scalars = self._scalars(update, metrics)
        steps = update * self._settings.num_envs * self._settings.ppo.n_steps
        row = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        for name, value in row.items():
            if value is not None:
                self._writer.add_scalar(name, value, steps)
        self._file.write(json.dumps({"update": update, "timesteps": steps, **row}) + "\n")
        self._file.flush()
        return scalars

    def _scalars(self, update: int, raw: dict[str, float]) -> dict[str, float]:
        per_episode = "episode_sum/"
        sums = {"episodes": raw["rollout/episodes"]}
        sums |= {"ep_rew": raw["rollout/ep_rew_sum"], "ep_len": raw["rollout/ep_len_sum"]}
        sums |= {
            k.removeprefix(per_episode): v for k, v in raw.items() if k.startswith(per_episode)
        }
        self._window.add(sums)
        means = self._window.means()
        steps = self._settings.num_envs * self._settings.ppo.n_steps
        now = time.monotonic()
        self._recent.append((now, update))
        (then, before), elapsed = self._recent[0], now - self._began
        as_they_are = ("train/", "validation/")
        scalars = {name: value for name, value in raw.items() if name.startswith(as_they_are)}
        if means:
            scalars["rollout/ep_rew_mean"] = means.pop("ep_rew")
            scalars["rollout/ep_len_mean"] = means.pop("ep_len")
        length = scalars.get("rollout/ep_len_mean", 1.0)
        scalars |= {k: v / length if k.startswith("market/") else v for k, v in means.items()}
        progress = self._settings.progress(update - 1)
        scalars |= schedule.scalars_at(progress, self._settings)
        scalars["rollout/episodes"] = raw["rollout/episodes"]
        scalars["time/fps"] = (update - before) * steps / max(now - then, 1e-9)
        scalars["time/time_elapsed"] = elapsed
        scalars["time/total_timesteps"] = float(update * steps)
        return scalars


class Monitor:
    """Records every agent of a run, and shows one line: of the agent, or of the population.

    Members of a population write to directories of their own in the run's; `LEADERBOARD` there
    says how they stand.
    """

    def __init__(
        self,
        run_dir: Path,
        settings: config.Config,
        names: Sequence[str] = (),
        *,
        after: int = 0,
        snapshot: Mapping[str, Any] | None = None,
    ) -> None:
        """names: of a population's members, none for a single agent.

        after, snapshot: the update that a resumed run goes on from, and what `snapshot` gave then.
        """
        self._settings = settings
        self._names = tuple(names)
        self._board = Leaderboard(names)
        self.directory = run_dir
        self._path = run_dir / LEADERBOARD
        directories = [run_dir / name for name in names] or [run_dir]
        for directory in directories:
            directory.mkdir(exist_ok=True)
        self._recorders = [Recorder(each, settings, after=after) for each in directories]
        self._shown = -PLAIN_LINE_SECONDS
        self.scalars: list[dict[str, float]] = [{} for _ in directories]
        if snapshot:
            self._board.restore(snapshot["leaderboard"])
            for recorder, saved in zip(self._recorders, snapshot["recorders"], strict=True):
                recorder.restore(saved)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for recorder in self._recorders:
            recorder.close()
        if sys.stdout.isatty():
            print()

    def log(self, update: int, metrics: dict[str, np.ndarray]) -> None:
        """Writes and shows the metrics of update `update` (from 1); `[M]` of a population."""
        each = {name: np.atleast_1d(value) for name, value in metrics.items()}
        self.scalars = [
            recorder.log(update, {name: float(values[place]) for name, values in each.items()})
            for place, recorder in enumerate(self._recorders)
        ]
        if self._names:
            self._board.add(update, self.scalars)
        self._show(update)

    def snapshot(self) -> dict[str, Any]:
        """What a resumed run's monitor needs, as JSON has it."""
        return {
            "recorders": [recorder.snapshot() for recorder in self._recorders],
            "leaderboard": self._board.snapshot(),
        }

    @property
    def best(self) -> int:
        """Place of the agent with the best newest score, 0 of a single one."""
        return int(np.argmax(self.scores())) if self._names else 0

    def scores(self) -> NDArray[np.float64]:
        """What members are compared by, `[M]`; see `leaderboard`."""
        return self._board.scores()

    def copied(self, source: NDArray[np.int64]) -> None:
        """Takes note of whose weights each member goes on with, `[M]`; copies start unscored."""
        for place, of in enumerate(source.tolist()):
            if of != place:
                self._board.copied(self._names[place], self._names[of])
                self._recorders[place].restart()

    def leaderboard(self) -> str:
        """How the members stand; empty for a single agent."""
        return self._board.table() if self._names else ""

    def _show(self, update: int) -> None:
        now, updates = time.monotonic(), self._settings.num_updates
        live, last = sys.stdout.isatty(), update == updates
        if not live and not last and now - self._shown < PLAIN_LINE_SECONDS:
            return
        self._shown = now
        agents, steps = len(self._recorders), self._settings.num_envs * self._settings.ppo.n_steps
        line = progress_line(update, updates, update * steps, self.scalars[self.best])
        if self._names:
            self._path.write_text(self.leaderboard() + "\n", encoding="utf-8")
            line += f"  ({self._names[self.best]}, the best of {agents})"
        print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", flush=True)


def progress_line(update: int, updates: int, steps: int, scalars: dict[str, float]) -> str:
    """One line: updates, steps, speed, time to go, and the four numbers to watch."""
    remaining = (updates - update) * (steps / update) / max(scalars["time/fps"], 1e-9)
    reward = scalars.get("rollout/ep_rew_mean")
    shown = "   –  " if reward is None else f"{reward:6.2f}"
    return (
        f"update {update:>{len(str(updates))}}/{updates}  {steps:>12,} steps  "
        f"{scalars['time/fps']:>9,.0f} steps/s  {_clock(remaining)} to go  "
        f"ep_rew_mean {shown}  entropy {-scalars['train/entropy_loss']:.3f}  "
        f"explained_variance {scalars['train/explained_variance']:6.3f}"
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
