"""Monitor: what a run writes and shows — TensorBoard, `metrics.jsonl`, one live line."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from jules_jax import config
from jules_jax.training.leaderboard import Leaderboard

EPISODE_WINDOW = 100
"""Episode means are over the newest updates that hold at least this many episodes, as in SB3."""
LEADERBOARD = "leaderboard.txt"
PLAIN_LINE_SECONDS = 10.0
"""Without a terminal, a line at most this often."""


class EpisodeWindow:
    """Sums over the newest updates with at least `EPISODE_WINDOW` whole episodes among them."""

    def __init__(self) -> None:
        self._updates: deque[dict[str, float]] = deque()

    def add(self, sums: dict[str, float]) -> None:
        """Takes an update's sums; `episodes` is the number of episodes in them."""
        if sums["episodes"] > 0:
            self._updates.append(sums)
        while self._updates and self._without_oldest() >= EPISODE_WINDOW:
            self._updates.popleft()

    def _without_oldest(self) -> float:
        return self._total("episodes") - self._updates[0]["episodes"]

    def _total(self, name: str) -> float:
        return sum(sums[name] for sums in self._updates)

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
    """

    def __init__(self, directory: Path, settings: config.Config) -> None:
        self._settings = settings
        self._writer = SummaryWriter(str(directory))
        self._file = open(directory / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self._window = EpisodeWindow()
        self._began = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque([(self._began, 0)], maxlen=11)

    def close(self) -> None:
        """Closes the files."""
        self._writer.close()
        self._file.close()

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
        scalars = {name: value for name, value in raw.items() if name.startswith("train/")}
        if means:
            scalars["rollout/ep_rew_mean"] = means.pop("ep_rew")
            scalars["rollout/ep_len_mean"] = means.pop("ep_len")
        length = scalars.get("rollout/ep_len_mean", 1.0)
        scalars |= {k: v / length if k.startswith("market/") else v for k, v in means.items()}
        scalars |= {name: raw[name] for name in ("rollout/episodes", "rollout/reward_var")}
        scalars["time/fps"] = (update - before) * steps / max(now - then, 1e-9)
        scalars["time/time_elapsed"] = elapsed
        scalars["time/total_timesteps"] = float(update * steps)
        return scalars


class Monitor:
    """Records every agent of a run, and shows one line: of the agent, or of the population.

    Members of a population write to directories of their own in the run's; `LEADERBOARD` there
    says how they stand.
    """

    def __init__(self, run_dir: Path, settings: config.Config, names: Sequence[str] = ()) -> None:
        """names: of a population's members, none for a single agent."""
        self._settings = settings
        self._names = tuple(names)
        self._board = Leaderboard(names)
        self._path = run_dir / LEADERBOARD
        directories = [run_dir / name for name in names] or [run_dir]
        for directory in directories:
            directory.mkdir(exist_ok=True)
        self._recorders = [Recorder(directory, settings) for directory in directories]
        self._shown = -PLAIN_LINE_SECONDS
        self.scalars: list[dict[str, float]] = [{} for _ in directories]

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

    @property
    def best(self) -> int:
        """Place of the agent with the best newest score, 0 of a single one."""
        return int(np.argmax(self.scores())) if self._names else 0

    def scores(self) -> NDArray[np.float64]:
        """What members are compared by, `[M]`; see `leaderboard`."""
        return self._board.scores()

    def copied(self, source: NDArray[np.int64]) -> None:
        """Tells the leaderboard whose weights each member goes on with, `[M]`."""
        for place, of in enumerate(source.tolist()):
            if of != place:
                self._board.copied(self._names[place], self._names[of])

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
