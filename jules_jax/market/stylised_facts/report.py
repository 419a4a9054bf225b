"""Report on stylised facts: tables of ours beside measured ranges, and the battery's verdicts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jules_jax.errors import InputError
from jules_jax.market.stylised_facts import distances
from jules_jax.market.stylised_facts.measures import REFERENCE, Check, Facts, battery


def report(
    measured: Mapping[str, Facts],
    *,
    half_spreads: Mapping[str, float] | None = None,
    reference: Path | None = None,
) -> str:
    """What `data stylised-facts` prints: the table, and the battery's verdicts on simulated bars.

    measured: facts by the name of their column. half_spreads: see `battery`, by the same names;
    names left out, such as recorded bars, are not judged, and those that are are compared with them
    (see `distances`). reference: a file for `read_reference`,
    whose columns are appended.
    """
    if not measured:
        raise InputError("no bars to measure, expected a preset or a file of bars")
    columns: dict[str, Mapping[str, float]] = {name: f.rows() for name, f in measured.items()}
    if reference is not None:
        columns |= read_reference(reference)
    counts = [
        f"{name}: {'' if f.paths == 1 else f'median of {f.paths} paths of '}{f.sessions:,} "
        f"sessions, {f.returns:,} returns"
        for name, f in measured.items()
    ]
    others = {name: f for name, f in measured.items() if name not in (half_spreads or {})}
    judged = [
        _verdicts(name, battery(measured[name], half_spread))
        for name, half_spread in (half_spreads or {}).items()
    ]
    if others:
        judged += [distances.lines(name, measured[name], others) for name in half_spreads or {}]
    return "\n\n".join(["\n".join(counts), table(columns), *judged])


def read_reference(path: Path) -> dict[str, dict[str, float]]:
    """Columns of `table` from a JSON file of reference statistics, by data set.

    Facts the file does not give, or defines otherwise than `Facts`, are left out. Raises
    `InputError` where the file cannot be read or is not laid out as expected.
    """
    try:
        datasets = json.loads(path.read_text(encoding="utf-8"))["datasets"]
        return {name: _reference_rows(measured) for name, measured in datasets.items()}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} has no reference statistics ({error!r}), expected JSON with `datasets`"
        ) from None


def _reference_rows(measured: Mapping[str, Any]) -> dict[str, float]:
    pooled, day = measured["pooled"], measured["session_volatility"]
    size, volume = pooled["acf_abs_deseasonalised"], measured.get("volume", {})
    gap = measured.get("overnight_gap", {})
    rows = {
        "sd of r, bp": pooled["std_bp"],
        "overnight / open-to-close sd": gap.get("std_over_session_move_std", math.nan),
        "kurtosis": pooled["kurtosis"],
        "kurtosis, by session": pooled["kurtosis_of_session_standardised"],
        "tail index (Hill)": pooled["hill_tail_exponent_5pct"],
        "zero returns": pooled["zero_return_share"],
        **{f"ACF of r, {lag}": value for lag, value in pooled["ac_r"].items()},
        **{f"ACF of |r|, {lag}": value for lag, value in size.items()},
        **{f"variance ratio, {q}": value for q, value in pooled["variance_ratio"].items()},
        **{
            f"ACF of log volume within, {lag}": value
            for lag, value in volume.get("acf_log_deseasonalised", {}).items()
        },
        "daily volatility: sd of log": day["std_of_log"],
    }
    return {name: float(value) for name, value in rows.items()}


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Columns of numbers (`Facts.rows`, `read_reference`) as text, with the ranges of `REFERENCE`.

    The rows are those of the first column.
    """
    names = [_short(name) for name in columns]
    width = max(12, *(len(name) + 2 for name in names))
    header = f"{'':<34}" + "".join(f"{name:>{width}}" for name in names)
    header += f"{'six US names':>20}"
    lines = [header, "-" * len(header)]
    for row in next(iter(columns.values())):
        values = [column.get(row, math.nan) for column in columns.values()]
        low, high = REFERENCE.get(row, (math.nan, math.nan))
        band = "" if math.isnan(low) else f"{_number(low)} … {_number(high)}"
        lines.append(
            f"{row:<34}" + "".join(f"{_number(v):>{width}}" for v in values) + f"{band:>20}"
        )
    return "\n".join(lines)


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.{1 if abs(value) >= 10 else 3}f}"


def _verdicts(name: str, checks: list[Check]) -> str:
    lines = [f"battery, {name}"]
    for check in checks:
        high = "" if math.isinf(check.high) else _number(check.high)
        verdict = "pass" if check.passes else "FAIL"
        lines.append(
            f"  {verdict}  {check.name:<30}{_number(check.value):>10}"
            f"   {_number(check.low)} … {high}"
        )
    passed = sum(check.passes for check in checks)
    return "\n".join([*lines, f"  {passed} of {len(checks)} pass"])
