"""The right answer for every deliberately damaged file of the shared data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import readers
from jules_jax.market.quality import Inspected, inspect

NASTY = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "nasty"


@dataclass(frozen=True)
class Loads:
    """bars: how many come out. lines: of the rows left out (header: 1). notes: parts of each."""

    bars: int
    lines: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """sentence: what the error says after the file's name."""

    sentence: str


ANSWERS: dict[str, Loads | Refused] = {
    "clean.csv": Loads(1948),
    "bom_crlf.csv": Loads(1948),
    "missing_volume_column.csv": Loads(1948),  # without volume: only an adv lets it be traded
    "duplicated_timestamps.csv": Loads(
        1948, (53, 404, 406, 1006, 1707), ("5 rows repeated exactly, copies dropped",)
    ),
    "nan_rows.csv": Loads(
        1942,
        (102, 103, 104, 502, 902, 1302),
        (
            "5 rows with a price that is blank or not positive dropped",
            "1 row with a volume that is blank or negative dropped",
        ),
    ),
    "negative_price.csv": Loads(
        1946, (302, 1202), ("2 rows with a price that is blank or not positive dropped",)
    ),
    "cut_last_line.csv": Loads(1947, (1949,), ("1 last line cut short dropped",)),
    "repeated_header.csv": Loads(1948, (976,), ("1 repeated header line skipped",)),
    "empty.csv": Refused("is empty, expected"),
    "single_row.csv": Refused("has 1 bar, expected at least 2."),
    "truncated.csv.gz": Refused("damaged gzip"),
}


def load(name: str) -> Inspected:
    if not NASTY.exists():
        pytest.skip(f"no damaged files: {NASTY} is absent")
    market = config.Market(data=str(NASTY / name), bar_label="end")
    (found,) = readers.find(market.data, market)
    return inspect(readers.read_symbol(found, market), market)


@cache
def clean() -> Inspected:
    return load("clean.csv")


def test_every_damaged_file_has_an_answer():
    if not NASTY.exists():
        pytest.skip(f"no damaged files: {NASTY} is absent")
    described = json.loads((NASTY / "nasty.json").read_text())
    assert {one["file"] for one in described} == set(ANSWERS)
    for one in described:
        answer = ANSWERS[one["file"]]
        if isinstance(answer, Loads):
            assert answer.bars == one["undamaged_rows"]


@pytest.mark.parametrize("name", [n for n, a in ANSWERS.items() if isinstance(a, Loads)])
def test_a_file_that_can_be_repaired_loads_and_says_what_was_done(name):
    answer = ANSWERS[name]
    assert isinstance(answer, Loads)
    inspected = load(name)
    notes = (*inspected.raw.notes, *inspected.notes)
    assert inspected.raw.time.size == answer.bars
    assert len(notes) == len(answer.notes)
    for note, expected in zip(notes, answer.notes, strict=True):
        assert expected in note and f"{name}: line" in note
    assert not set(answer.lines) & set(inspected.raw.line.tolist())


@pytest.mark.parametrize("name", [n for n, a in ANSWERS.items() if isinstance(a, Loads)])
def test_the_bars_that_remain_are_those_of_the_undamaged_file(name):
    bars, whole = load(name).raw, clean().raw
    rows = np.searchsorted(whole.time, bars.time)
    for column in ("time", "open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(bars, column), getattr(whole, column)[rows])
    if name == "missing_volume_column.csv":
        assert bars.volume is None
    else:
        np.testing.assert_array_equal(bars.volume, whole.volume[rows])


@pytest.mark.parametrize("name", [n for n, a in ANSWERS.items() if isinstance(a, Refused)])
def test_a_file_that_cannot_be_trusted_is_refused_in_one_sentence(name):
    answer = ANSWERS[name]
    assert isinstance(answer, Refused)
    with pytest.raises(InputError) as error:
        load(name)
    sentence = str(error.value)
    assert name in sentence and answer.sentence in sentence
    assert "\n" not in sentence and sentence.endswith(".")
