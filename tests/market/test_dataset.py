"""A dataset, resident or in generations: the same rows, the same starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market import dataset, splits, storage, table
from jules_jax.market.dataset_feed import GIB, ROW_BYTES
from jules_jax.training.market import Market
from tests.market.recorded import make_source
from tests.market.test_storage import build

pytestmark = pytest.mark.usefixtures("quick_compilation")

STEPS = 40
KEY = jax.random.key(5)
SOURCES = (
    make_source("LONG", sessions=40),
    make_source("MID", sessions=20, seed=1, price=5.0, tick=0.005, weight=2.0),
    make_source("BTC", sessions=6, slots=120, seed=2, price=9e4, quantity_step=1e-4,
                continuous=True),
)  # fmt: skip
SMALL = 2 * 500 * ROW_BYTES / GIB
"""Memory of two generations of 500 rows, fewer than the training rows of all symbols."""


def settings(data: Path | str, **market: object) -> config.Config:
    return config.Config(
        max_steps_in_episode=STEPS,
        market=config.Market(data=str(data), **market),
        ppo=config.PPO(n_steps=16),
        splits=config.Splits(embargo_sessions=0),
    )


@pytest.fixture
def folder(monkeypatch, tmp_path: Path) -> Path:
    """A built dataset of `SOURCES`."""
    monkeypatch.setattr("tests.market.test_storage.MARKET", config.Market())
    build(monkeypatch, tmp_path / "set", SOURCES)
    return tmp_path / "set"


def test_a_resident_split_holds_the_rows_that_its_episodes_can_read(folder: Path) -> None:
    loaded = dataset.load(settings(folder))
    assert loaded.symbols == ("LONG", "MID", "BTC")
    assert loaded.notes == tuple(note for one in SOURCES for note in one.notes)
    many = dataset.Dataset(loaded.sources * 4, loaded.config)
    assert many.notes[:3] == tuple(one.notes[0] for one in loaded.sources)
    assert many.notes[10] == "and 2 more symbols"
    whole = [loaded.rows_of(number) for number in range(3)]
    for split in splits.SPLITS:
        data = loaded.market(split)
        ranges = [found for found in loaded.plan(split).ranges if found is not None]
        assert data.rows.shape[0] == sum(last - first + 1 + STEPS for first, last in ranges)
        at = 0
        for number, first, last in np.asarray(data.episodes):
            begin, end = loaded.plan(split).ranges[number]
            assert (first, last - first) == (at, end - begin)
            at = last + STEPS + 1
            np.testing.assert_array_equal(
                data.rows[first:at], whole[number][begin : end + STEPS + 1]
            )


def test_generations_serve_the_rows_of_the_resident_table_bit_for_bit(folder: Path) -> None:
    resident = dataset.load(settings(folder)).market("train")
    feed = dataset.load(settings(folder, market_memory=SMALL)).feed("train")
    assert feed is not None and feed.generations_per_epoch > 2
    rows, lines = np.asarray(resident.rows), np.asarray(resident.episodes)
    seen = np.zeros(len(rows), int)
    places = {row.tobytes(): place for place, row in enumerate(rows)}
    assert len(places) == len(rows)
    copies = 0
    for g in range(feed.generations_per_epoch):
        data = feed.resident(KEY, g)
        served = np.asarray(data.rows)
        for number, first, last in np.asarray(data.episodes):
            if first > last:
                continue
            place = places[served[first].tobytes()]
            assert lines[number, 1] <= place and place + last - first <= lines[number, 2]
            span = last - first + 1 + STEPS
            np.testing.assert_array_equal(served[first : first + span], rows[place : place + span])
            seen[place : place + last - first + 1] += 1
            copies += 1
    starts = np.zeros(len(rows), bool)
    for _, first, last in lines:
        starts[first : last + 1] = True
    assert copies == int(feed._copies.sum())
    np.testing.assert_array_equal(seen > 0, starts)


def test_rows_of_generations_are_computed_once_and_anew_when_anything_changes(
    folder: Path, monkeypatch
) -> None:
    def computed(**market: object) -> int:
        calls = []
        original = dataset.rows.compute
        with monkeypatch.context() as patch:
            patch.setattr(dataset.rows, "compute", lambda *args: calls.append(1) or original(*args))
            assert dataset.load(settings(folder, market_memory=SMALL, **market)).feed("train")
        return len(calls)

    assert computed() == 3
    assert computed() == 0
    assert computed(sampling="equal") == 0
    assert computed(tick=0.5) == 3
    kept = next(folder.glob("000-*/rows-*.npy"))
    kept.write_bytes(kept.read_bytes()[:-1])
    assert computed() + computed(tick=0.5) == 1


def test_training_on_a_large_dataset_resumes_at_any_generation_bit_for_bit(folder: Path) -> None:
    large = settings(folder, market_memory=SMALL)
    market = Market(large)
    assert any("served in generations" in note for note in market.notes)
    assert not market.refresh(0)
    due = [update for update in range(1, 8) if market.refresh(update)]
    assert due == [3, 6] and market.generation == 2  # ceil(40 / 16) updates apart
    resumed = Market(large, generation=2)
    for x, y in zip(jax.tree.leaves(market.data), jax.tree.leaves(resumed.data), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_dataset_that_fits_is_resident_and_never_refreshed(folder: Path) -> None:
    market = Market(settings(folder))
    assert market.data.rows.shape[1] == table.NUM_COLUMNS
    assert not any(market.refresh(update) for update in range(9)) and market.generation == 0


def test_files_larger_than_the_memory_are_to_be_built(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.market.test_storage.MARKET", config.Market())
    build(monkeypatch, tmp_path / "set", SOURCES)  # leaves the readers' stand-ins in place
    monkeypatch.setattr(
        "jules_jax.market.source.load",
        lambda found, market, given: next(s for s in SOURCES if s.symbol == found.symbol),
    )
    files = tmp_path / "files"
    with pytest.raises(InputError, match=rf"jules_jax\.data build {files} --out DIR"):
        dataset.load(settings(files, market_memory=SMALL))
    loaded = dataset.load(settings(files))
    assert loaded.feed("train") is None
    built = dataset.load(settings(tmp_path / "set"))
    for x, y in zip(*(jax.tree.leaves(d.market("train")) for d in (loaded, built)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_test_split_is_resident_or_refused(folder: Path) -> None:
    small = dataset.load(settings(folder, market_memory=SMALL))
    assert small.market("test").rows.nbytes <= SMALL * GIB
    tiny = dataset.load(settings(folder, market_memory=SMALL / 20))
    with pytest.raises(InputError, match="for the test split, which is not served in generations"):
        tiny.market("test")


def test_an_option_of_reading_that_differs_from_the_datasets_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"bar_label is 'end', but .* was built with 'start'"):
        dataset.load(settings(folder, bar_label="end"))
    ticks = dataset.load(settings(folder, tick=0.25)).market("train").rows
    assert np.all(np.asarray(ticks)[:, table.Row._fields.index("tick")] == 0.25)


def test_the_symbols_file_of_a_run_sets_its_own_terms(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "symbols.yaml"
    file.write_text("MID:\n  tick: 0.25\n  weight: 7\n")
    own = dataset.load(settings(folder, symbols=str(file))).sources
    assert (own[1].instrument.tick, own[1].instrument.weight) == (0.25, 7)
    assert own[0].instrument == SOURCES[0].instrument
    file.write_text("MID:\n  adv: 12345\n")
    with pytest.raises(InputError, match="adv of MID is 12345"):
        dataset.load(settings(folder, symbols=str(file)))


def test_bars_of_two_lengths_are_refused(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.market.test_storage.MARKET", config.Market())
    five = make_source("FIVE", bar_seconds=300)
    build(monkeypatch, tmp_path / "set", [SOURCES[0], five])
    with pytest.raises(InputError, match="LONG are 60 s and those of FIVE 300 s long"):
        dataset.load(settings(tmp_path / "set"))
    assert storage.is_dataset(tmp_path / "set")


def test_a_symbol_without_room_is_left_out_and_keeps_its_number(folder: Path) -> None:
    long = replace(settings(folder), max_steps_in_episode=600)
    data = dataset.load(long).market("train")
    assert np.asarray(data.episodes)[:, 0].tolist() == [0, 2]
