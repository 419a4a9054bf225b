"""Numbers as people read them: one format for each unit, and one for what is not defined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

MINUS, NONE = "\u2212", "\u2013"
Interval = Mapping[str, Any]
PERCENT = {"share": "\u202f%", "probability": "\u202f%"}


def decimals_of(values: Iterable[float | None], unit: str) -> int:
    """Decimals that suit all values of a column, as shown: fewer the larger the largest is."""
    scale = 100.0 if unit in PERCENT else 1.0
    sizes = [abs(value) * scale for value in values if value is not None]
    largest = max(sizes, default=0.0)
    if unit in ("sessions", "bars"):
        return 0 if largest >= 20 or all(float(size).is_integer() for size in sizes) else 1
    if unit == "dollars":
        return 0 if largest >= 100 else 2
    if unit == "probability":
        return 1
    if unit == "share":
        return 1 if largest >= 10 else 2 if largest >= 0.1 else 3
    if largest >= 1000:
        return 0
    return 1 if largest >= 100 else 2


def show(value: float | None, unit: str = "", decimals: int | None = None) -> str:
    """A value in its unit, such as `−$1,234`, `12.5 %` or `3.1 bp`; a dash where it is null."""
    if value is None or not math.isfinite(value):
        return NONE
    places = decimals_of([value], unit) if decimals is None else decimals
    size = abs(value) * (100.0 if unit in PERCENT else 1.0)
    if unit == "probability" and not 0.0005 <= value < 0.9995:
        return f"> 99.9{PERCENT[unit]}" if value > 0.5 else f"< 0.1{PERCENT[unit]}"
    if unit == "years" and decimals is None:
        places = 0 if size >= 20 else 1 if size >= 2 else 2
    digits = _short(size) if size >= 1e6 else f"{size:,.{places}f}"
    sign = MINUS if value < 0 and any(digit in digits for digit in "123456789") else ""
    units = {
        "dollars": f"{sign}${digits}",
        **{name: f"{sign}{digits}{end}" for name, end in PERCENT.items()},
        "bp": f"{sign}{digits}\u202fbp",
        "times": f"{sign}{digits}\u202f×",
        "years": f"{sign}{digits}\u202fyears",
    }
    return units.get(unit, f"{sign}{digits}")


def _short(size: float) -> str:
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if size >= limit:
            return f"{size / limit:,.2f}{letter}" if size < 1e15 else f"{size:.2g}"
    raise AssertionError(size)


def short_dollars(value: float) -> str:
    """Dollars for an axis: `$10k`, `$1M`, `−$2.5k`."""
    sign, size = (MINUS if value < 0 else ""), abs(value)
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{sign}${size / limit:g}{letter}"
    return f"{sign}${size:.2f}" if 0 < size % 1 < 1 and size < 100 else f"{sign}${size:g}"


def interval(one: Interval, unit: str = "", decimals: int | None = None) -> str:
    """The ends of an interval, `−1.2 to 3.4 bp`; where it has none its error, `± 0.3`, or ''."""
    low, high = one["low"], one["high"]
    if low is not None and high is not None:
        if low == high == one["value"]:
            return ""
        places = decimals_of([low, high], unit) if decimals is None else decimals
        if unit not in ("dollars", "probability"):
            return f"{show(low * (100 if unit == 'share' else 1), '', places)} to " + show(
                high, unit, places
            )
        return f"{show(low, unit, places)} to {show(high, unit, places)}"
    return plus_minus(one, unit, decimals)


def plus_minus(one: Interval, unit: str = "", decimals: int | None = None) -> str:
    """The standard error, `± 0.3`, or '' where it is unknown."""
    if one["error"] is None:
        return ""
    return f"± {show(one['error'], unit, decimals)}"


def loose(value: Any) -> str:
    """A value that no schema gives a unit: grouped digits, words as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and "value" in value:
        return loose(value["value"])
    if isinstance(value, int):
        return show(value, "", 0)
    if isinstance(value, float):
        return f"{value:,.4g}".replace("-", MINUS) if abs(value) < 1e6 else show(value)
    if isinstance(value, list):
        return " to ".join(loose(one) for one in value)
    return NONE if value is None else str(value)


def words(name: str) -> str:
    """A key as words: `forced_exits` is `forced exits`, and what ends in `_bp` is in bp."""
    text = name.replace("_", " ").strip()
    for ending, unit in ((" bp", ", bp"), (" pct", ", %")):
        if text.endswith(ending):
            return text[: -len(ending)] + unit
    return text


def capitalised(text: str) -> str:
    """The same with a capital first letter, names of files left as they are."""
    return text[:1].upper() + text[1:] if not text.startswith((".", "/")) else text


def heading(name: str) -> str:
    """A key as the heading of a column."""
    text = words(name)
    return text[:1].upper() + text[1:]


def count(number: float, noun: str) -> str:
    """A number of things: `1 step`, `2,000 steps`."""
    return f"{show(number, '', 0)} {noun}{'' if number == 1 else 's'}"


def day(created: str) -> str:
    """An ISO time to the minute, as it is read."""
    return created[:16].replace("T", " ")
