"""Kinds of parameters: what their values must be, in words and as a predicate."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import field
from typing import Any


def kind(allowed: str, holds: Callable[[Any], bool]) -> Callable[[Any, str], Any]:
    """A kind of parameter: what its values must be, in words and as a predicate.

    The function returned makes a dataclass field of a default and the one sentence of `--help`.
    """

    def parameter(default: Any, text: str) -> Any:
        return field(default=default, metadata={"help": text, "allowed": allowed, "holds": holds})

    return parameter


def choice(allowed: tuple[str, ...], text: str) -> Any:
    """A parameter with named values, the first of which is the default."""
    return kind(f"one of {', '.join(allowed)}", allowed.__contains__)(allowed[0], text)


def _is_timezone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a relative path, or a directory
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


text = kind("text", lambda v: True)
by_key = kind("a mapping by key", lambda v: True)
name = kind(
    "letters, digits, '.', '_' and '-', as it names a directory",
    lambda v: re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*)?", v) is not None,
)
clock = kind(
    "a time HH:MM", lambda v: re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", v) is not None
)
timezone_or_none = kind(
    "a time zone such as America/New_York or UTC, or empty", lambda v: v == "" or _is_timezone(v)
)
date = kind("a date such as 2025-11-03, or empty", lambda v: v == "" or _is_date(v))
calendar = kind("auto, 24/7, 24/5, regular or the name of a calendar", lambda v: v != "")
bar_length = kind("a divisor of 3600, from 1 to 3600", lambda v: v > 0 and 3600 % v == 0)
switch = kind("true or false", lambda v: True)
count = kind("a whole number of at least 1", lambda v: v >= 1)
whole = kind("a whole number of at least 0", lambda v: v >= 0)
widths = kind(
    "widths such as 128,128, each at least 1",
    lambda v: len(v) > 0 and min(v) >= 1,
)
number = kind("a number", lambda v: True)
positive = kind("a number above 0", lambda v: v > 0)
amount = kind("a number of at least 0", lambda v: v >= 0)
fraction = kind("a number above 0 and below 1", lambda v: 0 < v < 1)
part = kind("a number above 0 and at most 1", lambda v: 0 < v <= 1)
below_one = kind("a number of at least 0 and below 1", lambda v: 0 <= v < 1)
up_to_half = kind("a number above 0 and at most 0.5", lambda v: 0 < v <= 0.5)
above_one = kind("a number above 1", lambda v: v > 1)
share = kind("a number from 0 to 1", lambda v: 0 <= v <= 1)
degrees = kind("a number above 2, where the variance is finite", lambda v: v > 2)
rate_end = kind("a number of at least 0, or -1", lambda v: v >= 0 or v == -1)
