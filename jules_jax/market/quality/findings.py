"""Findings: what an inspection of bars found, and what it did about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jules_jax.market.readers.raw import Int64, RawBars

LISTED = 3
"""Places a finding names; the count says how many there are."""


@dataclass(frozen=True)
class Finding:
    """One kind of irregularity in the rows of a symbol.

    kind: one of `quality.KINDS`. count: how many. where: the first few places, `FILE: line n`.
    action: `dropped`, `repaired` or `adjusted` (something changed), `warning` (nothing changed, but
    the user should know or set something) or `kept` (listed only). detail: what was found and done,
    a sentence without its full stop. times: `[count]` UTC nanoseconds of the bars' starts, empty
    for a finding about the whole history.
    """

    kind: str
    count: int
    where: tuple[str, ...]
    action: str
    detail: str
    times: Int64 = field(repr=False, compare=False)

    @property
    def sentence(self) -> str:
        """What was found, what was done, and the first few places."""
        if not self.where:
            return self.detail
        places, last_file = [], ""
        for place in self.where:
            file, _, line = place.rpartition(": ")
            places.append(line if file == last_file else place)
            last_file = file
        more = ", …" if self.count > len(places) else ""
        return f"{self.detail} ({', '.join(places)}{more})"


def at_rows(
    kind: str, raw: RawBars, rows: NDArray[np.intp], *, action: str, detail: str
) -> list[Finding]:
    """A finding about `rows` (indices) of `raw`, or none where there are no rows.

    `{count}` and `{s}` in `detail` become the number of rows and the s of a plural.
    """
    if not rows.size:
        return []
    text = detail.format(count=f"{rows.size:,}", s="" if rows.size == 1 else "s")
    where = tuple(raw.where(int(row)) for row in rows[:LISTED])
    return [Finding(kind, int(rows.size), where, action, text, raw.time[rows])]
