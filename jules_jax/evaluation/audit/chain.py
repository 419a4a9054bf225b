"""The chain of hashes: every row's is made of the row before it and of all of its own columns.

The hash of a row is BLAKE2b, 16 bytes long, of the hash of the row before it in its table and the
row's canonical bytes: column after column in the order of the manifest, numbers little-endian as
they are, a truth value as one byte, a text as the 16 bytes of its own hash. Before a table's first
row stands the hash of the facts that its audit begins with. So one changed bit changes one row's
hash, a row that is missing or moved breaks the chain where it was, and facts cannot be exchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from jules_jax.evaluation.audit.columns import Array, Columns

SIZE = 16
"""Bytes of a hash."""
BLOCK = 2048
"""Rows that are laid out at a time: some 1 MiB, which stays in a core's cache."""
PREVIOUS = "previous hash"
"""Field of a canonical row, before its columns."""


_blake2b = hashlib.blake2b


def digest(data: bytes) -> bytes:
    """BLAKE2b of 16 bytes."""
    return hashlib.blake2b(data, digest_size=SIZE).digest()


def of_facts(facts: Mapping[str, Any]) -> bytes:
    """The hash of facts: of their JSON with sorted keys and no spaces."""
    return digest(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())


@lru_cache(maxsize=4096)
def _of_word(word: str) -> bytes:
    return digest(word.encode())


def canonical(columns: Columns, types: Mapping[str, str]) -> Array:
    """Canonical rows `[n]`, each with room for the hash of the row before it."""
    fields = [(PREVIOUS, f"V{SIZE}")]
    fields += [(name, f"V{SIZE}" if kind == "text" else kind) for name, kind in types.items()]
    rows = np.empty(len(next(iter(columns.values()))), np.dtype(fields))
    for name, kind in types.items():
        rows[name] = _words(columns[name]) if kind == "text" else columns[name]
    return rows


def _words(column: Any) -> Array:
    """The hashes of texts, `[n]`."""
    hashes = np.frombuffer(b"".join(map(_of_word, column.dictionary.to_pylist())), f"V{SIZE}")
    return np.asarray(hashes[column.indices.to_numpy()])


def extend(previous: bytes, columns: Columns, types: Mapping[str, str]) -> list[bytes]:
    """The hashes of rows that follow a row of hash `previous`."""
    hashes: list[bytes] = []
    for some in _blocks(columns, types):
        rows = canonical(some, types)
        view, width = _bytes(rows), rows.dtype.itemsize
        for start in range(0, len(view), width):
            view[start : start + SIZE] = previous
            previous = _blake2b(view[start : start + width], digest_size=SIZE).digest()
            hashes.append(previous)
    return hashes


def mismatches(
    previous: bytes, columns: Columns, types: Mapping[str, str], recorded: Sequence[bytes]
) -> list[int]:
    """Places of the rows whose recorded hash is not that of the recorded one before and the row."""
    wrong = []
    for number, some in enumerate(_blocks(columns, types)):
        first = number * BLOCK
        own = recorded[first : first + BLOCK]
        rows = canonical(some, types)
        rows[PREVIOUS] = np.frombuffer(b"".join((previous, *own[:-1])), f"V{SIZE}")
        view, width = _bytes(rows), rows.dtype.itemsize
        wrong += [
            first + place
            for place, expected in enumerate(own)
            if _blake2b(view[place * width : (place + 1) * width], digest_size=SIZE).digest()
            != expected
        ]
        previous = own[-1]
    return wrong


def _blocks(columns: Columns, types: Mapping[str, str]) -> Iterator[Columns]:
    for start in range(0, len(columns["episode"]), BLOCK):
        yield {name: columns[name][start : start + BLOCK] for name in types}


def _bytes(rows: Array) -> memoryview:
    return rows.view(np.uint8).data
