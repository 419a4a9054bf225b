"""Run: a calibration from what was asked for to what is written of it."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jules_jax import config
from jules_jax.errors import InputError, Stopped
from jules_jax.training import stopping
from jules_jax.training.calibration import choice, knobs, report, search, trials
from jules_jax.training.calibration.knobs import Knob
from jules_jax.training.calibration.search import Target
from jules_jax.training.calibration.trials import Trial

OF_BAND = 0.25
"""The aim is the middle of a band, ± this part of its width: 5 ± 0.5 of 4 to 6."""
OF_SHARE = 0.2
"""The aim is a share ± this part of it."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    base: the configuration to calibrate, and `file` what it was read from. band: of the mean
    episode reward, or share: of the penalties; one of them. key, between: see `knobs`; None takes
    the knob's own span. points: of the grid. agents: at every value. confirmations: see `search`.
    episodes: that every agent plays. write: where the choice goes, by default `calibrated.yaml` in
    the calibration's directory. command: that asked for it.
    """

    base: config.Config
    file: Path | None
    band: tuple[float, ...] | None
    share: tuple[float, ...] | None
    key: str
    between: tuple[float, ...] | None
    points: int
    agents: int
    confirmations: int
    episodes: int
    write: Path | None
    command: str


def _print_at_once(text: str) -> None:
    print(text, flush=True)


def calibrate(request: Request, *, say: Say = _print_at_once) -> bool:
    """Tries values and writes table, figure and choice; returns whether a value was found.

    Raises `InputError`, before anything is trained, for what cannot be asked or written, and
    `Stopped`, not with status 0, for a signal.
    """
    base = request.base
    target = _target(request)
    knob = knobs.find(request.key, base)
    values = _grid(request, knob)
    trials.first_seed(base.seed, request.confirmations)
    if request.write:
        choice.require_writable(request.write)
    directory = _claim(base, knob)
    written = request.write or directory / "calibrated.yaml"
    what = "episode reward" if request.band else "share of penalties"
    say(f"calibrating {knob.name}: {what} {target.aim:g} ± {target.tolerance:g}, trying {values}")
    bench = trials.Bench(base, knob, directory, request.agents, request.episodes)
    made: list[Trial] = []

    def measured(trial: Trial) -> search.Response:
        return trial.reward if request.band else trial.share

    def measure(some: Sequence[float], turn: int) -> list[search.Response]:
        new = bench.run(some, turn)
        made.extend(new)
        say(f"\n{report.table(made)}\n")
        return [measured(trial) for trial in new]

    try:
        outcome = search.search(measure, target, values, confirmations=request.confirmations)
    except Stopped as stop:
        raise Stopped(
            f"{len(made)} values were measured and none was chosen; a calibration does not go on, "
            f"and begins again under another --name than {directory.name}",
            stop.status or stopping.TERMINATED,
        ) from None
    sentence = report.verdict(outcome, target, knob, what)
    text = directory / "calibration.txt"
    text.write_text(f"{report.table(made)}\n\n{sentence}\n", encoding="utf-8")
    drawing = report.figure(made, outcome, target, knob, measured, what)
    drawing.savefig(directory / "calibration.png", dpi=110)
    say(f"{sentence}\nwritten     {text} and {directory / 'calibration.png'}")
    if outcome.reached:
        comment = report.evidence(made, sentence, knob, base, request.command)
        settings = knob.settings(base, outcome.best.value)
        choice.write(written, base, request.file, settings, comment)
        say(f"            {written}, for --config")
    return outcome.reached


def _target(request: Request) -> Target:
    if (request.band is None) == (request.share is None):
        raise InputError("expected one of --target-band LOW HIGH and --target-share SHARE")
    if request.band:
        low, high = request.band
        return Target(0.5 * (low + high), OF_BAND * (high - low))
    (share,) = request.share or ()
    if not 0 < share < 1:
        raise InputError(f"--target-share is {share:g}, expected a number above 0 and below 1")
    return Target(share, OF_SHARE * share)


def _grid(request: Request, knob: Knob) -> tuple[float, ...]:
    """The values of the grid, all of which the configuration allows."""
    low, high = request.between or knob.span(request.base)
    if low < 0:
        raise InputError(f"--between is from {low:g}, expected at least 0")
    values = search.grid(low, high, request.points)
    for value in (values[0], values[-1]):
        knob.turned(request.base, value, "in the range of values to try, see --between,")
    return values


def _claim(base: config.Config, knob: Knob) -> Path:
    """Makes the calibration's own directory; its runs are beside it, under its name."""
    leaf = knob.name.rpartition(".")[2]
    name = base.name or f"calibrate-{leaf}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    directory = Path(base.runs_dir) / name
    for place in (base.runs_dir, base.checkpoint_dir):
        for taken in Path(place).glob(f"{glob.escape(name)}-round-*"):
            raise InputError(f"{taken} exists already; choose another --name")
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"{directory} exists already; choose another --name") from None
    except OSError as error:
        raise InputError(f"{error.filename} cannot be written: {error.strerror}") from None
    return directory
