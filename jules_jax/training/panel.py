"""The panel: what a person at a terminal sees of a running training, drawn anew at each update."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jules_jax.config import Gates

BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 40
WIDTH = 96
"""Most columns of the panel."""
REDRAWN_AFTER = 0.5
"""Seconds that a panel stands at least: short updates must not wait for it."""

Scalars = Mapping[str, float]


@dataclass(frozen=True)
class Light:
    """A gate as far as the scalars at hand can tell; `passes` is None where they cannot yet."""

    gate: str
    shown: str
    passes: bool | None


@dataclass(frozen=True)
class Progress:
    """How far a run is: updates of all, environment steps, steps per second, seconds so far."""

    update: int
    updates: int
    steps: int
    fps: float
    elapsed: float

    @property
    def remaining(self) -> float:
        """Seconds to go at the present speed."""
        return (self.updates - self.update) * (self.steps / self.update) / max(self.fps, 1e-9)


def lights(scalars: Scalars, limits: Gates) -> list[Light]:
    """A first look at the gates, from training's own episodes.

    The gates themselves are judged at the end, on fresh episodes: a light says where to look. It
    counts breaches, escapes and steps under a warning, of which an episode may have several.
    """
    entropy = scalars.get("train/entropy_loss")
    length = scalars.get("rollout/ep_len_mean")
    penalised = scalars.get("reward/penalised_steps")
    share = None if penalised is None or length is None else penalised / length
    inf = math.inf
    values: list[tuple[str, float | None, str, float, float]] = [
        # the gate, its value, how it is shown, and the least and the most that passes
        (
            "hard limit",
            scalars.get("risk/hard_breaches"),
            ".3g",
            -inf,
            limits.hard_breaches_max,
        ),
        ("entropy", None if entropy is None else -entropy, ".2f", limits.entropy_min, inf),
        (
            "explained variance",
            scalars.get("train/explained_variance"),
            ".2f",
            limits.explained_variance_min,
            inf,
        ),
        ("penalised steps", share, ".1%", -inf, limits.penalised_steps_max),
        (
            "early warnings",
            scalars.get("risk/early_warnings"),
            ".3g",
            -inf,
            limits.prolonged_max,
        ),
        ("escapes", scalars.get("risk/escapes"), ".3g", -inf, limits.escapes_max),
    ]
    if limits.reward_max > limits.reward_min:  # a band is asked for
        reward = scalars.get("rollout/ep_rew_mean")
        values.insert(0, ("reward band", reward, ".2f", limits.reward_min, limits.reward_max))
    return [
        Light(gate, "–", None)
        if value is None or not np.isfinite(value)
        else Light(gate, format(value, form), low <= value <= high)
        for gate, value, form, low, high in values
    ]


def sparkline(values: Sequence[float], width: int = SPARKLINE_WIDTH) -> str:
    """The course of `values` in at most `width` characters, each the mean of neighbours."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return ""
    means = np.array([part.mean() for part in np.array_split(finite, min(width, len(finite)))])
    span = float(np.ptp(means))
    height = (means - means.min()) / span if span > 0 else np.full(len(means), 0.5)
    return "".join(BARS[round(place)] for place in height * (len(BARS) - 1))


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def draw(
    title: str,
    progress: Progress,
    scalars: Scalars,
    rewards: Sequence[float],
    limits: Gates,
    *,
    columns: int = WIDTH,
) -> Panel:
    """The panel of a run named `title`; `rewards` is the course of `rollout/ep_rew_mean`.

    columns: of the terminal; where they are fewer than `WIDTH`, rows hold less.
    """
    few = columns < WIDTH
    shown = Group(
        _bar(progress),
        Text(),
        _course(scalars, rewards, SPARKLINE_WIDTH // 2 if few else SPARKLINE_WIDTH),
        _numbers(scalars, 3 if few else 4),
        Text(),
        _gates(lights(scalars, limits), 2 if few else 3),
    )
    return Panel(
        shown,
        title=Text(title, "bold"),
        title_align="left",
        border_style="cyan",
        padding=(0, 1),
        width=min(columns, WIDTH),
    )


def _bar(progress: Progress) -> Table:
    row = Table.grid(padding=(0, 2), expand=True)
    for ratio in (None, 1, None):
        row.add_column(ratio=ratio, no_wrap=True)
    times = f"{clock(progress.elapsed)} gone, {clock(progress.remaining)} to go"
    row.add_row(
        f"update {progress.update:,} of {progress.updates:,}",
        ProgressBar(total=progress.updates, completed=progress.update),
        times,
    )
    row.add_row("", Text(f"{progress.steps:,} steps", "dim"), f"{progress.fps:,.0f} steps/s")
    return row


def _course(scalars: Scalars, rewards: Sequence[float], width: int) -> Text:
    text = Text("episode reward  ")
    text.append(_shown(scalars.get("rollout/ep_rew_mean"), "8.2f"), "bold")
    text.append("  ").append(sparkline(rewards, width), "green")
    if rewards:
        text.append(f"  from {min(rewards):,.2f} to {max(rewards):,.2f}", "dim")
    return text


NUMBERS = (
    ("net P&L, $", "pnl/net", ",.2f"),
    ("gross P&L, $", "pnl/gross", ",.2f"),
    ("trades", "trade/trades_per_episode", ",.1f"),
    ("bars held", "trade/holding_bars", ",.1f"),
    ("max drawdown", "risk/drawdown_max", ".2%"),
    ("soft breach", "risk/soft_breach_rate", ".1%"),
    ("spread, bp", "cost/spread_bp", ".2f"),
    ("approx. KL", "train/approx_kl", ".4f"),
)
"""Label, scalar and format of the panel's numbers; of money and trades, per episode."""


def _numbers(scalars: Scalars, a_row: int) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(a_row):
        table.add_column(style="dim")
        table.add_column(justify="right", min_width=8)
    shown = [(label, _shown(scalars.get(name), form)) for label, name, form in NUMBERS]
    for start in range(0, len(shown), a_row):
        table.add_row(*(cell for pair in shown[start : start + a_row] for cell in pair))
    return table


MARKS = {True: ("● ", "green"), False: ("✗ ", "bold red"), None: ("○ ", "dim")}
"""Of a light: shapes differ with the colours, for eyes that see none."""


def _gates(found: Sequence[Light], a_row: int) -> Table:
    table = Table.grid(padding=(0, 3))
    cells = [Text.assemble(MARKS[each.passes], f"{each.gate} {each.shown}") for each in found]
    for start in range(0, len(cells), a_row):
        table.add_row("gates so far" if start == 0 else "", *cells[start : start + a_row])
    return table


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None or not np.isfinite(value) else format(value, form)


class LivePanel:
    """The panel on a terminal, replaced in place; what others print appears above it."""

    def __init__(self, title: str, limits: Gates, console: Console | None = None) -> None:
        self._title, self._limits = title, limits
        self._rewards: list[float] = []
        self._drawn = -math.inf
        # drawn when there is news, so that no thread runs beside the training
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> LivePanel:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, progress: Progress, scalars: Scalars) -> None:
        """Draws the panel anew, unless that was done a moment ago and more is to come."""
        reward = scalars.get("rollout/ep_rew_mean")
        if reward is not None and np.isfinite(reward):
            self._rewards.append(reward)
        now = time.monotonic()
        if now - self._drawn < REDRAWN_AFTER and progress.update < progress.updates:
            return
        self._drawn = now
        columns = self._live.console.width
        panel = draw(self._title, progress, scalars, self._rewards, self._limits, columns=columns)
        self._live.update(panel, refresh=True)
