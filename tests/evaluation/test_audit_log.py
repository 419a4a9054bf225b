"""Audit logs: whole round trips, and re-derivation that names the first cell that is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jules_jax import config
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.evaluation import audit_log, backtest, comparison
from jules_jax.evaluation.audit_log import AuditLog
from jules_jax.market.table import MarketData
from tests.env import episodes
from tests.tiny import SETTINGS

EPISODES, STEPS = 8, 32
FRAGILE = SETTINGS | {
    "trade_cooldown_steps": "1",
    "soft_dd_pct": "0.001",
    "hard_dd_pct": "0.002",
    "terminate_on_hard": "true",
}
"""An order a bar, and a hundred dollars lost end an episode."""
PINNED_SCHEMA = (1, 92, "ee41b92b8083e184")


@cache
def market() -> tuple[MarketData, backtest.Starts]:
    """Fresh paths, and a start on each."""
    data = comparison.fresh_paths(config.load(FRAGILE), EPISODES, jax.random.key(4))
    return data, backtest.one_per_stretch(np.asarray(data.episodes), EPISODES, seed=0)


@cache
def actions() -> np.ndarray:
    """Actions `[N, T]`: random ones, but HOLD in the first two episodes."""
    drawn = np.random.default_rng(1).integers(0, 3, (EPISODES, STEPS)).astype(np.int32)
    drawn[:2] = episodes.HOLD
    return drawn


@cache
def recorded() -> AuditLog:
    """Those actions played by the compiled environment."""
    return audit_log.record_episodes(
        audit_log.script(),
        actions(),
        config.load(FRAGILE),
        *market(),
        jax.random.key(0),
        progress=0.5,
        source="fresh simulated paths",
    )


def doctor(source: Path, target: Path, column: str, episode: int, step: int, value: Any) -> None:
    """A copy of a file with one cell set to `value`, or, if that is callable, to its result."""
    table = pq.read_table(source)
    line = np.flatnonzero(
        (table["episode"].to_numpy() == episode) & (table["step"].to_numpy() == step)
    )[0]
    cells = table[column].to_numpy().copy()
    cells[line] = value(cells[line]) if callable(value) else value
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(cells)), target)


def bits(log: AuditLog) -> dict[str, tuple[Any, ...]]:
    """Types, shapes and bytes of all arrays of a log."""
    arrays = {name: getattr(log.record, name) for name in audit_log.FIELDS}
    arrays |= {name: getattr(log, name) for name in ("bars", "start_rows", "symbols")}
    return {name: (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "new" / "log.parquet"
    audit_log.write(recorded(), path)
    return path


def test_the_recording_is_of_the_actions_played_until_termination():
    log, live = recorded(), recorded().record.time > 0
    np.testing.assert_array_equal(log.record.request[live], actions()[live] - 1)
    ended = log.record.terminated.any(axis=1)
    assert 0 < ended.sum() < EPISODES - 2, "some episodes were to terminate, and some not"
    lengths = np.where(ended, log.record.terminated.argmax(axis=1) + 1, STEPS)
    np.testing.assert_array_equal(live.sum(axis=1), lengths)
    for name in audit_log.FIELDS:
        assert not np.any(getattr(log.record, name)[~live]), name


def test_the_recorded_episodes_are_those_that_a_backtest_counts():
    data, starts = market()
    params = make_params(config.load(FRAGILE), data, progress=0.5)
    counted = backtest.run_episodes(
        audit_log.script(), actions(), params, starts, jax.random.key(0)
    )
    record = recorded().record
    np.testing.assert_array_equal(counted["length"], np.sum(record.time > 0, axis=1))
    np.testing.assert_allclose(counted["reward"], record.reward.sum(axis=1), atol=1e-4)
    np.testing.assert_allclose(counted["pnl/net"], record.net_pnl.sum(axis=1), atol=1e-2)


def test_the_bars_are_the_rows_of_the_table(file):
    log, rows = audit_log.read(file), np.asarray(market()[0].rows)
    steps = np.sum(log.record.time > 0, axis=1)
    for lane in range(EPISODES):
        first, count = log.start_rows[lane], steps[lane] + 1
        np.testing.assert_array_equal(log.bars[lane, :count], rows[first : first + count])


def test_a_file_gives_back_every_bit_and_type(file):
    log = audit_log.read(file)
    assert bits(log) == bits(recorded())
    for name in ("config", "progress", "bar_seconds", "source"):
        assert getattr(log, name) == getattr(recorded(), name)


def test_unusual_numbers_and_types_survive(tmp_path):
    nans = np.asarray([0x7FC00000, 0xFFC00001, 0x80000000, 1], np.uint32).view(np.float32)
    equity = np.tile(nans, (EPISODES, STEPS // 4))
    record = dataclasses.replace(
        recorded().record,
        time=np.ones((EPISODES, STEPS), np.int32),
        equity=equity,
        net_pnl=equity.astype(np.float64),
        lot=np.full((EPISODES, STEPS), 2**40),
    )
    log = dataclasses.replace(recorded(), record=record)
    audit_log.write(log, tmp_path / "log.parquet")
    found, expected = bits(audit_log.read(tmp_path / "log.parquet")), bits(log)
    assert {name for name in found if found[name] != expected[name]} <= {"bars"}


def test_a_clean_recording_agrees_with_the_twin(file):
    log = audit_log.read(file)
    assert np.count_nonzero(log.record.quantity) > 40
    assert audit_log.first_disagreement(log) is None


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("equity", lambda v: v + 1e-5),
        ("lot", lambda v: v - 1),
        ("cost_transient", lambda v: v + 0.2),
        ("reward_equity_change", lambda v: v + 1e-3),
        ("reward_drawdown", -1e-3),
        ("outcome", 10),
        ("mark_price", lambda v: v * 1.0001),
        ("fill_price", np.nan),
        ("row", lambda v: v + 1),
        ("symbol", 3),
        ("locked", lambda v: ~v),
        ("terminated", lambda v: ~v),
    ],
)
def test_a_doctored_cell_is_named(file, tmp_path, column, change):
    doctor(file, tmp_path / "log.parquet", column, 2, 1, change)
    log = audit_log.read(tmp_path / "log.parquet")
    first = audit_log.first_disagreement(log)
    assert first is not None
    assert (first.lane, first.step, first.field) == (2, 1, column)
    np.testing.assert_equal(first.found, float(getattr(log.record, column)[2, 1]))
    truth = float(getattr(recorded().record, column)[2, 1])
    assert first.expected == pytest.approx(truth, rel=1e-5, abs=1e-5)


def test_a_doctored_bar_disagrees_with_the_record_of_its_step(file, tmp_path):
    doctor(file, tmp_path / "log.parquet", "bar_close", 1, 20, lambda v: v * 1.001)
    first = audit_log.first_disagreement(audit_log.read(tmp_path / "log.parquet"))
    assert first is not None
    assert (first.lane, first.step, first.field) == (1, 20, "mark_price")


def test_steps_cut_off_an_episode_are_missed(file, tmp_path):
    table = pq.read_table(file)
    last = (table["episode"].to_numpy() == 0) & (table["step"].to_numpy() == STEPS - 1)
    pq.write_table(table.filter(pa.array(~last)), tmp_path / "log.parquet")
    first = audit_log.first_disagreement(audit_log.read(tmp_path / "log.parquet"))
    assert first is not None
    assert (first.lane, first.step, first.found) == (0, STEPS - 1, 0)


def test_a_size_on_the_edge_between_two_may_go_either_way():
    """A round trip of $12,500 at 9.765625 bp leaves E = 1 − 1/2048: 1024 E is half-way."""
    rows = episodes.market(np.full(STEPS + 1, 100.0))
    played = episodes.script(STEPS, {0: episodes.BUY, 1: episodes.SELL, 2: episodes.BUY})
    free = {f"fills.{f.name}": getattr(episodes.FREE, f.name) for f in _floats(episodes.FREE)}
    settings = config.load(
        SETTINGS | free | {"fills.fee_bps": 9.765625, "trade_cooldown_steps": 1, "tick": 1e-9}
    )
    zero, request = np.zeros(1, np.int32), (played - 1)[None]
    record = dataclasses.replace(recorded().record, request=request)
    log = AuditLog(record, rows[None], zero, zero, settings, 1.0, 60, "")
    lots = []
    for nudge in (1e-9, -1e-9):
        record = audit_log.rederive(log, nudge=nudge)
        lots.append(int(record.lot[0, 2]))
        assert audit_log.first_disagreement(dataclasses.replace(log, record=record)) is None
    assert lots == [125, 124]


def _floats(section: Any) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(section) if field.type == "float"]


def edit_metadata(source: Path, target: Path, **changes: Any) -> None:
    """A copy of a file with other facts in its metadata; None removes one."""
    table = pq.read_table(source)
    facts = json.loads(table.schema.metadata[audit_log.METADATA_KEY]) | changes
    facts = {name: value for name, value in facts.items() if value is not None}
    pq.write_table(
        table.replace_schema_metadata({audit_log.METADATA_KEY: json.dumps(facts)}), target
    )


def drop_line(source: Path, target: Path) -> None:
    table = pq.read_table(source)
    pq.write_table(pa.concat_tables([table.slice(0, 5), table.slice(6)]), target)


def damage(source: Path, target: Path) -> None:
    """Flips a byte in the middle of the largest column's pages."""
    group = pq.ParquetFile(source).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    largest = max(columns, key=lambda column: column.total_compressed_size)
    data = bytearray(source.read_bytes())
    data[largest.data_page_offset + largest.total_compressed_size // 2] ^= 0xFF
    target.write_bytes(data)


BAD = {
    "is damaged or no Parquet file, expected an audit file": [
        lambda s, t: t.write_bytes(s.read_bytes()[:5000]),
        lambda s, t: t.write_bytes(b""),
        lambda s, t: t.write_text("no Parquet at all"),
        damage,
    ],
    "no audit metadata, expected an audit file": [
        lambda s, t: pq.write_table(pq.read_table(s).replace_schema_metadata(), t)
    ],
    "audit schema version is 2, expected 1": [lambda s, t: edit_metadata(s, t, schema_version=2)],
    "no column reward_drawdown": [
        lambda s, t: pq.write_table(pq.read_table(s).drop_columns("reward_drawdown"), t)
    ],
    "line 5 is episode 0 step 6, expected episode 0 step 5": [drop_line],
    "do not fit each other": [
        lambda s, t: edit_metadata(s, t, symbols=None),
        lambda s, t: edit_metadata(s, t, steps=7),
    ],
    "8 episodes, expected 2": [lambda s, t: edit_metadata(s, t, start_rows=[1, 2])],
    "unknown key 'colour'": [lambda s, t: edit_metadata(s, t, config={"colour": 1})],
}


@pytest.mark.parametrize(
    ("sentence", "spoil"), [(text, spoil) for text, spoils in BAD.items() for spoil in spoils]
)
def test_a_bad_file_is_refused_in_one_sentence(file, tmp_path, sentence, spoil):
    path = tmp_path / "bad.parquet"
    spoil(file, path)
    with pytest.raises(InputError) as refusal:
        audit_log.read(path)
    assert str(path) in str(refusal.value)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").write_text("a file where a directory should be")
    with pytest.raises(InputError, match="cannot write audit file"):
        audit_log.write(recorded(), tmp_path / "taken" / "log.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_schema_version_1_has_the_columns_it_had():
    """Files of version 1 stay readable: other columns need another version."""
    columns = hashlib.sha256(" ".join(audit_log.COLUMNS).encode()).hexdigest()
    assert (audit_log.SCHEMA_VERSION, len(audit_log.COLUMNS), columns[:16]) == PINNED_SCHEMA
