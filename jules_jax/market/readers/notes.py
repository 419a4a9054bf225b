"""Notes: what a reader skipped or assumed, counted and told in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NAMED = 3
"""Places named in a note; the rest are only counted."""


@dataclass(frozen=True)
class Note:
    """Something found `count` times. `text` has `{s}` for its plural; `where` names the first."""

    text: str
    count: int = 0
    where: tuple[str, ...] = ()


def sentences(notes: Iterable[Note]) -> tuple[str, ...]:
    """One sentence for each kind of note, its counts added up; a count of 0 is left unsaid."""
    merged: dict[str, Note] = {}
    for note in notes:
        seen = merged.get(note.text, Note(note.text))
        merged[note.text] = Note(note.text, seen.count + note.count, seen.where + note.where)
    return tuple(_sentence(note) for note in merged.values())


def _sentence(note: Note) -> str:
    text = note.text.format(s="" if note.count == 1 else "s")
    if note.count:
        text = f"{note.count:,} {text}"
    if note.where:
        more = ", ..." if max(note.count, len(note.where)) > NAMED else ""
        text += f" ({', '.join(note.where[:NAMED])}{more})"
    return text
