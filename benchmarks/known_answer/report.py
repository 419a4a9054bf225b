"""What was asked of each market and what was found: a table, a JSON file and a figure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jules_jax.evaluation import statistics
from jules_jax.evaluation.statistics import Interval


@dataclass(frozen=True)
class Finding:
    """One market. Net P&L is a mean per episode, in `unit`; intervals are 95 %.

    shares: `[M]` greedy net P&L of every seed over the optimum, empty where there is none to earn.
    failures: each requirement that does not hold, in words.
    """

    market: str
    unit: str
    optimum: float
    greedy: Interval
    sampled: Interval
    requirement: str
    failures: list[str]
    share: Interval | None = None
    sampled_share: Interval | None = None
    baseline: Interval | None = None  # a share too
    least: float | None = None  # required share
    baseline_name: str = ""
    shares: list[float] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def share_of(net: np.ndarray, optimum: float) -> Interval:
    """IQM over seeds of the share of a known optimum, of episodes `[M, E]`."""
    return statistics.mean_interval(net / optimum)


def below(share: Interval, least: float) -> list[str]:
    """A sentence where the interval is not wholly at or above `least`."""
    if share.low >= least:
        return []
    return [f"earns {share:.1%} of the optimum, expected at least {least:.0%}"]


def not_above(share: Interval, baseline: Interval, name: str) -> list[str]:
    """A sentence where the two intervals meet."""
    if share.low > baseline.high:
        return []
    return [f"earns {share:.1%} of the optimum, expected more than the {name}'s {baseline:.1%}"]


def table(findings: list[Finding]) -> str:
    """One line a market, with what failed below."""
    header = (
        f"{'market':<11}{'optimum':>10}{'greedy net P&L':>27}{'sampled net P&L':>27}"
        f"{'greedy, % of optimum':>24}{'sampled, %':>24}{'baseline, %':>24}  requirement"
    )
    lines = [header, "-" * len(header)]
    for found in findings:
        lines.append(
            f"{found.market:<11}{found.optimum:>10.2f}{f'{found.greedy:.2f}':>27}"
            f"{f'{found.sampled:.2f}':>27}{_percent(found.share):>24}"
            f"{_percent(found.sampled_share):>24}{_percent(found.baseline):>24}"
            f"  {found.requirement}: {'FAIL' if found.failures else 'pass'}"
        )
    for found in findings:
        details = ", ".join(f"{name} {value}" for name, value in found.details.items())
        lines.append(f"{found.market}: {details}")
        lines += [f"{found.market} FAILS: {failure}" for failure in found.failures]
    return "\n".join(lines)


def _percent(share: Interval | None) -> str:
    if share is None:
        return "–"
    return format(Interval(*(100.0 * value for value in share)), ".1f")


def together(findings: list[Finding]) -> Interval | None:
    """IQM of the shares of all markets × seeds, seeds resampled within each market."""
    shares = [found.shares for found in findings if found.shares]
    return statistics.bootstrap_interval(np.array(shares).T) if shares else None


def merge(path: Path, findings: list[Finding], about: dict[str, Any]) -> None:
    """Writes the findings into a JSON file, in place of what it says of the same markets."""
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for found in findings:
        kept[found.market] = asdict(found) | {"about": about}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(path: Path) -> list[Finding]:
    """The findings that a JSON file holds."""
    kept: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
    for found in kept.values():
        del found["about"]
        for name in ("greedy", "sampled", "share", "sampled_share", "baseline"):
            found[name] = found[name] and Interval(*found[name])
    return [Finding(**found) for found in kept.values()]


def figure(findings: list[Finding], path: Path) -> None:
    """Share of the optimum by market, greedy and sampled and the baseline, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [found for found in findings if found.share is not None]
    fig, ax = plt.subplots(figsize=(9, 1.4 + 0.9 * len(shown)), layout="constrained")
    series = (
        ("share", "trained LSTM, greedy (ticks: seeds)", "tab:blue", "o", -0.2),
        ("sampled_share", "trained LSTM, sampled", "tab:orange", "s", 0.0),
        ("baseline", "the same without recurrence, greedy", "tab:gray", "D", 0.2),
    )
    for name, label, colour, marker, offset in series:
        places = [(y + offset, getattr(found, name)) for y, found in enumerate(shown)]
        places = [(y, interval) for y, interval in places if interval is not None]
        for y, interval in places:
            ax.plot([100 * interval.low, 100 * interval.high], [y, y], color=colour)
        centres = [100 * interval.value for _, interval in places]
        ax.plot(centres, [y for y, _ in places], marker, color=colour, label=label)
    for y, found in enumerate(shown):
        dots = [100 * share for share in found.shares]
        ax.plot(dots, [y - 0.36] * len(dots), "|", color="tab:blue", alpha=0.6)
        if found.least is not None:
            legend = "required of the greedy policy" if y == 0 else None
            ax.plot([100 * found.least] * 2, [y - 0.45, y + 0.35], "r:", label=legend)
    ax.axvline(100, color="black", linewidth=0.8)
    ax.set_yticks(range(len(shown)), [found.market for found in shown])
    ax.set_ylim(len(shown) - 0.5, -0.6)
    ax.set_xlabel("net P&L on fresh episodes, % of the optimum (IQM of seeds, 95 % interval)")
    fig.suptitle("Share of what can be earned that trained agents earn, where it is known")
    fig.legend(loc="outside lower center", fontsize="small", ncols=2)
    ax.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    plt.close(fig)
