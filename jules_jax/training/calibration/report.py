"""Report: what calibration tried, as a table, a figure and a comment, and what came of it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jules_jax import config
from jules_jax.training import provenance
from jules_jax.training.calibration import search
from jules_jax.training.calibration.choice import TITLE
from jules_jax.training.calibration.knobs import PENALTIES, Knob
from jules_jax.training.calibration.search import Outcome, Response, Target
from jules_jax.training.calibration.trials import Trial

Measured = Callable[[Trial], Response]


def table(trials: Sequence[Trial]) -> str:
    """One line for each value of each round, means over its agents.

    Errors over seeds and, of the reward, over paths; the brackets are 95 % intervals in which both
    were resampled. Shares are of the sum of absolute equity changes.
    """
    header = (
        f"{'value':>9}{'round':>7}{'reward':>9}{'± seeds':>9}{'± paths':>9}  {'95 %':<16}"
        f"{'training':>9}{'change, %':>11}{'same, %':>9}{'drawdown, %':>13}{'entropy':>9}"
        f"{'net, $':>9}{'orders':>8}"
    )
    lines = [header, "-" * len(header)]
    for trial in sorted(trials, key=lambda each: (each.value, each.round)):
        reward, interval = trial.reward, trial.reward_interval
        shares = [100 * float(trial.shares([term]).mean()) for term in PENALTIES]
        change, same, drawdown = (f"{share:.3f}" for share in shares)
        lines.append(
            f"{trial.value:>9.4g}{trial.round:>7}{reward.mean:>9.2f}{reward.error:>9.2f}"
            f"{trial.path_error:>9.2f}  {f'[{interval.low:.2f}, {interval.high:.2f}]':<16}"
            f"{float(trial.training_reward.mean()):>9.2f}{change:>11}{same:>9}{drawdown:>13}"
            f"{float(trial.entropy.mean()):>9.3f}{float(trial.by_seed('pnl/net').mean()):>9.2f}"
            f"{float(trial.by_seed('trade/orders').mean()):>8.2f}"
        )
    return "\n".join(lines)


def verdict(outcome: Outcome, target: Target, knob: Knob, what: str) -> str:
    """One sentence or two: what was chosen, or the nearest and where to look on.

    what: is measured, in words.
    """
    best = outcome.best
    found = f"{knob.name} {best.value:g}: {what} {best.mean:.4g} ± {best.error:.2g}"
    aim = f"{target.aim:g} ± {target.tolerance:g}"
    if outcome.reached:
        return f"chosen      {found}, of {best.agents} seeds, within {aim}"
    values, fitted = search.fit(outcome.responses)
    where = "the last value tried did not hold on new seeds: try more --seeds or --confirmations"
    if not fitted.min() <= target.aim <= fitted.max():
        side = "below" if fitted.max() < target.aim else "above"
        end = values[np.argmax(fitted) if side == "below" else np.argmin(fitted)]
        where = f"all fitted responses are {side} it: try --between with values beyond {end:g}"
    elif len(outcome.responses) == len(values) and not any(map(target.holds, outcome.responses)):
        where = "it is between two values tried: try more --points, or --confirmations"
    return f"nothing reached {aim}; the nearest is {found}; {where}"


def figure(
    trials: Sequence[Trial],
    outcome: Outcome,
    target: Target,
    knob: Knob,
    measured: Measured,
    what: str,
) -> Figure:
    """The response that was aimed at, with the aim, and penalty shares and entropy beside it."""
    drawing = Figure(figsize=(13.0, 4.2), layout="constrained")
    panels = drawing.subplots(1, 3)
    _draw_response(panels[0], trials, outcome, target, measured)
    panels[0].set(title=what.capitalize(), ylabel=what)
    ordered = sorted(trials, key=lambda each: each.value)
    values = [trial.value for trial in ordered]
    for term in PENALTIES:
        shares = [100 * trial.shares([term]).mean() for trial in ordered]
        panels[1].plot(values, shares, marker="o", label=term.replace("_", " "))
    panels[1].set(title="Penalties", ylabel="% of absolute equity changes")
    panels[1].legend(frameon=False, fontsize="small")
    entropy = [trial.entropy for trial in ordered]
    panels[2].errorbar(values, [e.mean() for e in entropy], [_error(e) for e in entropy], fmt="o-")
    panels[2].set(title="Entropy at the end of training", ylabel="nats", ylim=(0.0, 1.2))
    for panel in panels:
        panel.locator_params(axis="x", nbins=6)
        panel.set_xlabel(knob.name + (" (factor)" if knob.is_factor else ""))
        panel.spines[["top", "right"]].set_visible(False)
    return drawing


def _draw_response(
    panel: Axes, trials: Sequence[Trial], outcome: Outcome, target: Target, measured: Measured
) -> None:
    """Means with their errors over seeds, the fit, the aim and the choice."""
    low, high = target.aim - target.tolerance, target.aim + target.tolerance
    panel.axhspan(low, high, color="0.9", label="aim")
    panel.plot(*search.fit(outcome.responses), color="0.6", linewidth=1.0, label="monotone fit")
    for is_grid, color, label in ((True, "C0", "grid"), (False, "C1", "new seeds")):
        some = [measured(trial) for trial in trials if (trial.round == 0) == is_grid]
        if some:
            panel.errorbar(
                [each.value for each in some],
                [each.mean for each in some],
                [each.error for each in some],
                fmt="o",
                capsize=3,
                color=color,
                label=f"{label}, ± s.e. over seeds",
            )
    best = outcome.best
    name = "chosen" if outcome.reached else "nearest"
    panel.plot(
        best.value, best.mean, "*", color="C3", markersize=14, label=f"{name}: {best.value:g}"
    )
    panel.legend(frameon=False, fontsize="small")


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def evidence(
    trials: Sequence[Trial], sentence: str, knob: Knob, base: config.Config, command: str
) -> str:
    """What a choice rests on, as a comment for the end of a configuration file."""
    settings = knob.settings(base, trials[0].value)
    names = ", ".join(settings) if knob.is_factor else ""
    seeds = {trial.round: trial.seeds for trial in trials}
    devices = jax.devices()
    packages = ", ".join(f"{name} {version(name)}" for name in ("jules-jax", "jax", "numpy"))
    episodes = len(trials[0].cluster)
    lines = [
        f"{TITLE}{knob.name}{f', a factor of {names}' if names else ''}",
        *(command if len(command) < 96 else command.replace(" --", "\n    --")).splitlines(),
        sentence,
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {packages}, "
        f"{len(devices)} x {devices[0].device_kind}, code {provenance.revision()}",
        f"{base.num_updates} updates of {base.num_envs} lanes an agent; {episodes} episodes of the "
        "sampled policy, the same for all agents of a round",
        "seeds of round "
        + "; of round ".join(
            f"{turn}: {own[0]} to {own[-1]}" for turn, own in sorted(seeds.items())
        ),
        *table(trials).splitlines(),
    ]
    return "\n".join([lines[0], *(f"#   {line}".rstrip() for line in lines[1:])]) + "\n"
