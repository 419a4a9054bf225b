"""The history of runs: what the registry and the run directories say about each of them."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jules_jax import config
from jules_jax.config import CONFIG_FILE
from jules_jax.errors import InputError
from jules_jax.training import metrics_file, registry, run_directory
from jules_jax.training.run_directory import GATES_FILE

BEGINNINGS = ("started", "resumed")
OPENED = "opened test split"
"""The registry's event for held-out prices looked at: each is one more chance to be lucky."""
ACTIVE_SECONDS = 3600.0
"""A run whose metrics were written to more recently than this may still be going on."""
TOLD = (
    "rollout/ep_rew_mean",
    "pnl/net",
    "pnl/gross",
    "train/entropy_loss",
    "train/explained_variance",
    "trade/trades_per_episode",
    "risk/drawdown_max",
    "risk/hard_breaches",
    "time/total_timesteps",
    "time/fps",
)
"""Scalars that `show` and `compare` tell of a run's last update."""


@dataclass(frozen=True)
class Run:
    """A run as the registry has it.

    outcome: `finished`, `failed`, …; `no end recorded` of one that goes on or was killed. agents:
    how many it trained. test_openings: evaluations of it on a test split. seconds: from its first
    line to its last, NaN where there is no end. begun: the place in the registry of the line that
    it last began or went on with, −1 of a policy that was trained elsewhere.
    """

    name: str
    started: str = ""
    config_hash: str = ""
    seed: int = 0
    agents: int = 0
    data: str = ""
    outcome: str = ""
    seconds: float = math.nan
    test_openings: int = 0
    begun: int = -1


def opened_test_split(settings: config.Config, checkpoint: Path) -> None:
    """Adds to the registry that the run of a checkpoint is about to be judged on a test split.

    Raises `InputError` where it cannot be added: held-out prices are not looked at uncounted.
    """
    home = Path(settings.checkpoint_dir).resolve()
    inside = checkpoint.resolve()
    name = inside.relative_to(home).parts[0] if home in inside.parents else inside.parent.name
    registry.append(
        Path(settings.runs_dir),
        OPENED,
        name,
        config_hash=registry.config_hash(config.to_dict(settings)),
        data=settings.market.data,
        checkpoint=str(checkpoint),
    )


def runs(lines: Iterable[Mapping[str, Any]]) -> list[Run]:
    """Every run that the registry's lines tell of, oldest first."""
    of: dict[str, list[Mapping[str, Any]]] = {}
    begun: dict[str, int] = {}
    for place, line in enumerate(lines):
        of.setdefault(line["run"], []).append(line)
        if line["event"] in BEGINNINGS:
            begun[line["run"]] = place
    found = [replace(_of_lines(name, own), begun=begun.get(name, -1)) for name, own in of.items()]
    return sorted(found, key=lambda run: run.started)


def _of_lines(name: str, lines: Sequence[Mapping[str, Any]]) -> Run:
    opened = [line for line in lines if line["event"] == OPENED]
    own = [line for line in lines if line["event"] != OPENED]
    if not own:  # evaluated here, trained elsewhere
        return Run(
            name,
            started=str(opened[0]["time"]),
            config_hash=str(opened[0].get("config_hash", "")),
            data=str(opened[0].get("data", "")),
            outcome="not trained here",
            test_openings=len(opened),
        )
    first, last = own[0], own[-1]
    ended = last["event"] not in BEGINNINGS
    span = datetime.fromisoformat(last["time"]) - datetime.fromisoformat(first["time"])
    return Run(
        name,
        started=str(first["time"]),
        config_hash=str(first.get("config_hash", "")),
        seed=int(first.get("seed", 0)),
        agents=sum(int(line.get("agents", 1)) for line in own if line["event"] == "started"),
        data=str(first.get("data", "")),
        outcome=str(last["event"]) if ended else "no end recorded",
        seconds=span.total_seconds() if ended else math.nan,
        test_openings=len(opened),
    )


def trials(found: Iterable[Run]) -> int:
    """The number of agents ever trained, whatever became of them or their directories.

    It is what the best of them is the best of (Bailey and López de Prado 2014, the deflated Sharpe
    ratio).
    """
    return sum(run.agents for run in found)


def find(found: Iterable[Run], name: str) -> Run:
    """The run of that name; raises `InputError` where there is none."""
    known = {run.name: run for run in found}
    if name not in known:
        newest = ", ".join(list(known)[-5:]) or "none at all"
        raise InputError(f"the registry has no run {name!r}; the newest are: {newest}")
    return known[name]


def last_metrics(run_dir: Path) -> dict[str, Any]:
    """The last whole row of a run's metrics; empty where there is none."""
    rows = metrics_file.read(run_dir)
    return rows[-1] if rows else {}


def settings_of(run_dir: Path) -> dict[str, Any]:
    """A run's resolved config by dotted key; empty where its directory has none."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        return {}
    return {key: setting.value for key, setting in config.read_yaml(path).items()}


def differences(ours: Path, theirs: Path) -> list[tuple[str, Any, Any]]:
    """Parameters that two run directories' configs differ in: key, ours, theirs."""
    left, right = settings_of(ours), settings_of(theirs)
    keys = [key for key in {**left, **right} if key != "name"]
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


@dataclass(frozen=True)
class Leftover:
    """Directories of an old run, and the bytes in them; active: it may still be going on."""

    run: Run
    directories: tuple[Path, ...]
    size: int
    active: bool


def old(found: Sequence[Run], runs_dir: Path, checkpoint_dir: Path, *, keep: int) -> list[Leftover]:
    """What all but the `keep` runs begun or resumed last have left on disk, oldest first.

    Only directories named as a run that the registry has the beginning of count, and of those no
    symbolic links.
    """
    present = []
    for run in sorted(found, key=lambda run: run.begun):
        if run.begun < 0 or run.name != Path(run.name).name or run.name in ("", ".", ".."):
            continue  # trained elsewhere, or no name that a run can have had
        places = (runs_dir / run.name, checkpoint_dir / run.name)
        directories = tuple(place for place in places if place.is_dir() and not place.is_symlink())
        if directories:
            present.append((run, directories))
    return [
        Leftover(run, places, sum(map(_size, places)), _is_active(runs_dir / run.name))
        for run, places in present[: max(len(present) - keep, 0)]
    ]


def _is_active(run_dir: Path) -> bool:
    """Whether a process trains the run, or did a moment ago, or one of its members."""
    written = [path.stat().st_mtime for path in run_dir.rglob(metrics_file.FILE)]
    recent = time.time() - max(written, default=0.0) < ACTIVE_SECONDS
    return recent or run_directory.is_taken(run_dir)


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def remove(leftovers: Iterable[Leftover]) -> None:
    """Removes the directories; the registry keeps every line. Raises `InputError`."""
    for leftover in leftovers:
        for directory in leftover.directories:
            try:
                shutil.rmtree(directory)
            except OSError as error:
                reason = error.strerror or error
                raise InputError(f"{directory} cannot be removed: {reason}") from None


def listing(found: Sequence[Run]) -> str:
    """All runs as a table, and the counts that a Sharpe ratio has to be deflated by."""
    width = max([len("run"), *(len(run.name) for run in found)])
    digits = max([len("seed"), *(len(str(run.seed)) for run in found)])
    header = (
        f"{'started (UTC)':<17}{'run':<{width}}  {'config':<13}{'seed':>{digits}}{'agents':>8}  "
        f"{'outcome':<16}{'minutes':>8}{'test':>6}  data"
    )
    lines = [header, "-" * (len(header) + 12)]
    for run in found:
        minutes = "–" if math.isnan(run.seconds) else f"{run.seconds / 60:.1f}"
        lines.append(
            f"{run.started[:16].replace('T', ' '):<17}{run.name:<{width}}  {run.config_hash:<13}"
            f"{run.seed:>{digits}}{run.agents:>8}  {run.outcome:<16}{minutes:>8}"
            f"{run.test_openings:>6}  {run.data}"
        )
    opened = sum(run.test_openings for run in found)
    lines += ["", f"{trials(found):,} agents trained in {len(found):,} runs: the trial count"]
    lines += [f"{opened:,} openings of a test split"]
    return "\n".join(lines)


def details(run: Run, lines: Iterable[Mapping[str, Any]], run_dir: Path) -> str:
    """All that is known of a run: its lines of the registry, its last metrics, its gates."""
    told = [f"run         {run.name}", f"config      {run.config_hash}   {run_dir / CONFIG_FILE}"]
    told += [f"data        {run.data}", f"seed        {run.seed}", f"outcome     {run.outcome}"]
    for line in lines:
        if line["run"] == run.name:
            skipped = ("time", "event", "run", "config_hash", "seed", "data")
            more = ", ".join(f"{k} {v}" for k, v in line.items() if k not in skipped)
            told.append(f"{line['time'][:19].replace('T', ' ')}   {line['event']}  {more}".rstrip())
    row = last_metrics(run_dir)
    if row:
        told += ["", f"last update {row.get('update')}"]
        told += [f"  {name:<28}{shown(row.get(name)):>16}" for name in TOLD if name in row]
        told += _gates(run_dir)
    elif not run_dir.is_dir():
        told += ["", f"{run_dir} is not there any more"]
    return "\n".join(told)


def _gates(run_dir: Path) -> list[str]:
    """What its gates said; nothing where they were not asked, or their file cannot be read."""
    try:
        verdict = json.loads((run_dir / GATES_FILE).read_text(encoding="utf-8"))
        asked = [gate for gate in verdict["gates"] if gate["passed"] is not None]
        failed = [gate["gate"] for gate in asked if not gate["passed"]]
        step = Path(verdict["checkpoint"]).name
    except (OSError, ValueError, KeyError, TypeError):
        return []
    what = f"failed: {', '.join(failed)}" if failed else f"all {len(asked)} pass"
    return ["", f"gates       {what} (checkpoint {step})"]


def comparison(ours: Run, theirs: Run, runs_dir: Path) -> str:
    """Two runs side by side: the parameters they differ in, and their last metrics.

    Of one whose directory is gone there is only what the registry has.
    """
    paths = runs_dir / ours.name, runs_dir / theirs.name
    gone = [path for path in paths if not (path / CONFIG_FILE).is_file()]
    heads = [f"{'':<34}{ours.name:>22}{theirs.name:>22}"]
    rows: list[tuple[str, Any, Any]] = [
        ("config", ours.config_hash, theirs.config_hash),
        ("outcome", ours.outcome, theirs.outcome),
        ("data", ours.data, theirs.data),
        ("seed", ours.seed, theirs.seed),
    ]
    rows += [row for row in differences(*paths) if row[0] != "seed"] if not gone else []
    left, right = (last_metrics(path) for path in paths)
    rows += [(name, left.get(name), right.get(name)) for name in ("update", *TOLD)]
    told = [*heads, *(f"{k:<34}{shown(a):>22}{shown(b):>22}" for k, a, b in rows)]
    told += [f"{path} is not there any more: its parameters are not known" for path in gone]
    return "\n".join(told)


def shown(value: Any) -> str:
    """A value of a table; a dash for none."""
    if value is None or value == "":
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
