"""Monitor: what a run writes and shows — TensorBoard, `metrics.jsonl`, a panel or lines."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from tensorboardX import summary

from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.devices import gathered
from jules_jax.env import metrics as env_metrics
from jules_jax.market.table import MarketData
from jules_jax.training import dashboard, figures, metrics_file, schedule
from jules_jax.training.events import EventFile
from jules_jax.training.leaderboard import Leaderboard
from jules_jax.training.panel import LivePanel, Progress, clock

EPISODE_WINDOW = 100
"""Episode means are over the newest updates that hold at least this many episodes, as in SB3."""
LEADERBOARD = "leaderboard.txt"
PLAIN_LINE_SECONDS = 10.0
"""Without a terminal, a line at most this often."""
PANEL_SECONDS = 1.0
"""The panel is drawn anew at most this often, so that quick updates do not wait for it."""


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

    `rollout/ep_*` are means over whole episodes and absent before the first has ended; so is what
    `env.metrics.of_episodes` makes of the same episodes.

    after: the update that a resumed run goes on from; what was written of later ones is cut off
    `metrics.jsonl`, and hidden from TensorBoard.
    """

    def __init__(self, directory: Path, settings: config.Config, *, after: int = 0) -> None:
        self._settings = settings
        metrics = directory / metrics_file.FILE
        later = None
        if after or metrics.exists():  # a run is resumed, from before its first update perhaps
            metrics_file.cut(directory, after)
            later = after * settings.num_envs * settings.ppo.n_steps + 1
        self._events = EventFile(directory, purge_step=later)
        dashboard.write_layout(self._events)
        self._file = open(metrics, "a", encoding="utf-8")  # noqa: SIM115
        self._window = EpisodeWindow()
        now = time.monotonic()
        self._began = now
        self._recent: deque[tuple[float, int]] = deque([(now, after)], maxlen=11)

    def snapshot(self) -> dict[str, Any]:
        """What a resumed run's recorder needs, as JSON has it; all that was written is on disk."""
        self._events.flush()
        return {"window": self._window.snapshot(), "elapsed": time.monotonic() - self._began}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`."""
        self._window.restore(snapshot["window"])
        self._began -= snapshot["elapsed"]

    def close(self) -> None:
        """Closes the files, both of them whatever becomes of one."""
        with self._file:
            self._events.close()

    def restart(self) -> None:
        """Leaves out of all means the episodes begun so far: another agent's weights play on."""
        length, steps = self._settings.max_steps_in_episode, self._settings.ppo.n_steps
        self._window.restart(-(-length // steps))

    def log(
        self, update: int, metrics: dict[str, float], returns: ArrayLike | None = None
    ) -> dict[str, float]:
        """Writes the metrics of update number `update` (from 1), and returns the scalars.

        What is not finite is null in `metrics.jsonl`, and missing from the events. returns: the
        histogram of the update's episode rewards (`dashboard.RETURN_EDGES`).
        """
        scalars = self._scalars(update, metrics)
        steps = update * self._settings.num_envs * self._settings.ppo.n_steps
        row = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        dashboard.write_scalars(self._events, row, steps)
        dashboard.write_histograms(self._events, metrics, returns, steps)
        self._file.write(json.dumps({"update": update, "timesteps": steps, **row}) + "\n")
        self._file.flush()
        return scalars

    def show(self, update: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Writes images `[height, width, 3]` by name, drawn after `update`."""
        steps = update * self._settings.num_envs * self._settings.ppo.n_steps
        for name, pixels in images.items():
            self._events.add(summary.image(name, pixels, dataformats="HWC"), steps)

    def _scalars(self, update: int, raw: dict[str, float]) -> dict[str, float]:
        sums = {"episodes": raw["rollout/episodes"]}
        sums |= {"ep_rew": raw["rollout/ep_rew_sum"], "ep_len": raw["rollout/ep_len_sum"]}
        sums |= _under("episode_sum/", raw)
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
            scalars |= env_metrics.of_episodes(means, scalars["rollout/ep_len_mean"])
        scalars |= env_metrics.of_steps(_under("step_sum/", raw), steps)
        progress = self._settings.progress(update - 1)
        scalars |= schedule.scalars_at(progress, self._settings)
        scalars |= {name: raw[name] for name in ("rollout/episodes", "rollout/reward_var")}
        scalars["time/fps"] = (update - before) * steps / max(now - then, 1e-9)
        scalars["time/time_elapsed"] = elapsed
        scalars["time/total_timesteps"] = float(update * steps)
        return scalars


def _last_scalars(directory: Path) -> dict[str, float]:
    """Those of the last row of metrics, as `Recorder.log` gave them; of a new file none."""
    rows = metrics_file.read(directory)
    return {name: value for name, value in rows[-1].items() if value is not None} if rows else {}


def _under(prefix: str, raw: dict[str, float]) -> dict[str, float]:
    return {k.removeprefix(prefix): value for k, value in raw.items() if k.startswith(prefix)}


class Monitor:
    """Records every agent of a run, and shows how the agent, or the best of a population, does.

    On a terminal that is a panel, or one line without `monitor.panel`; elsewhere a line at times.

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
        self._directories = directories = [run_dir / name for name in names] or [run_dir]
        for directory in directories:
            directory.mkdir(exist_ok=True)
        self._recorders = [Recorder(each, settings, after=after) for each in directories]
        self._shown = -PLAIN_LINE_SECONDS
        self.scalars: list[dict[str, float]] = [{} for _ in directories]
        if snapshot:
            self._board.restore(snapshot["leaderboard"])
            for recorder, saved in zip(self._recorders, snapshot["recorders"], strict=True):
                recorder.restore(saved)
            self.scalars = [_last_scalars(directory) for directory in directories]
        live = sys.stdout.isatty() and settings.monitor.panel
        self._panel = LivePanel(run_dir.name, settings.gates) if live else None

    def __enter__(self) -> Monitor:
        if self._panel:
            self._panel.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as closing:  # all of it, whichever cannot be closed: the panel comes last
            if self._panel:
                closing.push(self._panel)
            elif sys.stdout.isatty():
                closing.callback(print)
            for recorder in self._recorders:
                closing.callback(recorder.close)

    def log(self, update: int, metrics: dict[str, np.ndarray]) -> None:
        """Writes and shows the metrics of update `update` (from 1); `[M]` of a population."""
        counted = dashboard.histograms(metrics)
        returns = counted.get("histogram/ep_rew", [None] * len(self._recorders))
        each = {name: np.atleast_1d(of) for name, of in metrics.items() if name not in counted}
        self.scalars = [
            recorder.log(
                update, {name: float(of[place]) for name, of in each.items()}, returns[place]
            )
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

    def draw(
        self,
        update: int,
        weights: network.Params,
        members: Sequence[config.Config],
        market: MarketData,
        progress: float,
    ) -> None:
        """Draws figures of the agent after `update`, or of the best member `[M]` of a population.

        members: their configs, none of a single agent.
        """
        place = self.best
        settings = members[place] if members else self._settings
        own = gathered(jax.tree.map(lambda leaf: leaf[place], weights) if members else weights)
        record = figures.play(own, settings, market, update=update, progress=progress)
        images = figures.draw(record, update=update)
        figures.write(images, self._directories[place], update=update)
        self._recorders[place].show(update, images)

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
        wait = PANEL_SECONDS if self._panel else 0.0 if live else PLAIN_LINE_SECONDS
        if not last and now - self._shown < wait:
            return
        self._shown = now
        agents, steps = len(self._recorders), self._settings.num_envs * self._settings.ppo.n_steps
        if self._names:
            self._path.write_text(self.leaderboard() + "\n", encoding="utf-8")
        if self._panel:
            best = self.scalars[self.best]
            fps, elapsed = best["time/fps"], best["time/time_elapsed"]
            self._panel.show(Progress(update, updates, update * steps, fps, elapsed), best)
            return
        line = progress_line(update, updates, update * steps, self.scalars[self.best])
        if self._names:
            line += f"  ({self._names[self.best]}, the best of {agents})"
        print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", flush=True)


def progress_line(update: int, updates: int, steps: int, scalars: dict[str, float]) -> str:
    """One line: updates, steps, speed, time to go, and the four numbers to watch."""
    remaining = (updates - update) * (steps / update) / max(scalars["time/fps"], 1e-9)
    reward = scalars.get("rollout/ep_rew_mean")
    shown = "   –  " if reward is None else f"{reward:6.2f}"
    return (
        f"update {update:>{len(str(updates))}}/{updates}  {steps:>12,} steps  "
        f"{scalars['time/fps']:>9,.0f} steps/s  {clock(remaining)} to go  "
        f"ep_rew_mean {shown}  entropy {-scalars['train/entropy_loss']:.3f}  "
        f"explained_variance {scalars['train/explained_variance']:6.3f}"
    )
