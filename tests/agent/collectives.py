"""What devices tell each other: the collectives of a compiled program, read from its HLO."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "bf16": 2}
KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([\w-]+)\(")
CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)")
TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')


@dataclass(frozen=True)
class Collective:
    """One collective: its kind, its bytes, who takes part, and the trips of the loops around it."""

    kind: str
    bytes: int
    reduction: str  # add, maximum; of an all-reduce
    groups: tuple[tuple[int, ...], ...]  # of places in the mesh
    loops: tuple[int, ...]  # trip counts, the outermost first

    @property
    def times(self) -> int:
        return math.prod(self.loops)


def collectives(hlo: str) -> list[Collective]:
    """Every collective of a compiled program's text, as often as it stands there."""
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if found := COMPUTATION.match(line):
            name = found[2]
            bodies[name] = []
            entry = name if found[1] else entry
        elif name:
            bodies[name].append(line)
    return list(_walk(bodies, entry, ()))


def _walk(bodies: dict[str, list[str]], name: str, loops: tuple[int, ...]):
    for line in bodies[name]:
        operation = OPERATION.match(line)
        if operation is None:
            continue
        shape, kind = operation[1], operation[2].removesuffix("-start")
        if kind in KINDS:
            yield Collective(kind, _bytes(shape), _reduction(bodies, line), _groups(line), loops)
            continue
        trips = TRIPS.search(line)
        inside = (*loops, int(trips[1]) if trips else -1) if kind == "while" else loops
        for called in CALLED.findall(line):
            yield from _walk(bodies, called, inside)


def _reduction(bodies: dict[str, list[str]], line: str) -> str:
    """What the region of an all-reduce does."""
    applied = re.search(r"to_apply=%?([\w.-]+)", line)
    if applied is None:
        return ""
    (root,) = [each for each in bodies[applied[1]] if "ROOT" in each]
    operation = OPERATION.match(root)
    assert operation is not None
    return operation[2]


def _bytes(shape: str) -> int:
    sizes = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(
        BYTES[kind] * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in sizes
    )


def _groups(line: str) -> tuple[tuple[int, ...], ...]:
    """`{{0,1},{2,3}}`, or the same as `[2,2]<=[4]`, perhaps with a transposition.

    XLA of jax 0.11 writes `mesh['member'=2,'lane'=2] {'lane'}`: the mesh, and the axes gone over.
    """
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        over = re.findall(r"'(\w+)'", named[2])
        places = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
        axes = [list(sizes).index(name) for name in over]
        last = np.moveaxis(places, axes, range(-len(axes), 0))
        rows = last.reshape(-1, math.prod(sizes[name] for name in over))
        return tuple(tuple(each) for each in rows.tolist())
    if listed := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", line):
        found = re.findall(r"\{([\d,]+)\}", listed[1])
        return tuple(tuple(int(n) for n in each.split(",")) for each in found)
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    assert iota is not None, line
    shape, dims, order = ([int(n) for n in (each or "").split(",") if n] for each in iota.groups())
    places = np.arange(math.prod(dims)).reshape(dims)
    places = (places.transpose(order) if order else places).reshape(shape)
    return tuple(tuple(each) for each in places.tolist())
