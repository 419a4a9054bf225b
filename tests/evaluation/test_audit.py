"""Audits: what is written comes back bit for bit, and no edit of it goes unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.agent import policy
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.evaluation import audit, backtest
from jules_jax.evaluation.audit import (
    columns,
    manifest,
    reading,
    recording,
    rederivation,
    verification,
    writing,
)
from tests.env import episodes
from tests.evaluation import audited
from tests.evaluation.audited import EPISODES, GREEDY, STEPS, doctor, forge

pytestmark = pytest.mark.usefixtures("quick_compilation")

PINNED_SCHEMA = (2, "5d3d85488b8ba47a")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audited.record(tmp_path_factory.mktemp("audit") / "new" / "audit")


@pytest.fixture
def own(clean: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return audited.copy(clean, tmp_path / "audit")


@cache
def played() -> recording.Played:
    """The list of actions, played by the compiled environment."""
    data, starts = audited.market()
    env_params = make_params(audited.settings(), data)
    return audit.play(audit.script(), audited.actions(), env_params, starts, jax.random.key(0))


@cache
def record() -> Any:
    return recording.whole(played().record)


def batches(directory: Path) -> list[reading.Episodes]:
    return list(reading.episodes(directory, manifest.read(directory)[0]))


def chain_findings(directory: Path) -> list[str]:
    found, wrong = manifest.read(directory)
    return wrong + verification.chain_findings(directory, found)


def proofs(directory: Path) -> audit.Verification:
    return audit.verify(directory, audited.params())


def test_the_recording_is_of_the_actions_played_until_termination():
    log, live = record(), record().time > 0
    np.testing.assert_array_equal(log.request[live], audited.actions()[live] - 1)
    ended = log.terminated.any(axis=1)
    assert 0 < ended.sum() < EPISODES - 2, "some episodes were to terminate, and some not"
    lengths = np.where(ended, log.terminated.argmax(axis=1) + 1, STEPS)
    np.testing.assert_array_equal(live.sum(axis=1), lengths)
    for name in columns.FIELDS:
        assert not np.any(getattr(log, name)[~live]), name


def test_the_recorded_episodes_are_those_that_a_backtest_counts():
    data, starts = audited.market()
    counted = backtest.run_episodes(
        audit.script(),
        audited.actions(),
        make_params(audited.settings(), data),
        starts,
        jax.random.key(0),
    )
    np.testing.assert_array_equal(counted["length"], np.sum(record().time > 0, axis=1))
    np.testing.assert_allclose(counted["reward"], record().reward.sum(axis=1), atol=1e-4)
    np.testing.assert_allclose(counted["pnl/net"], record().net_pnl.sum(axis=1), atol=1e-2)


def test_an_audit_gives_back_every_bit_and_type(clean):
    script, greedy = batches(clean)
    assert (script.policy, greedy.policy) == ("script", GREEDY)
    live, rows = record().time > 0, np.asarray(audited.market()[0].rows)
    np.testing.assert_array_equal(script.live, live)
    for name in columns.FIELDS:
        found, expected = getattr(script.record, name), getattr(record(), name)
        assert found.dtype == expected.dtype, name
        assert found.tobytes() == expected.tobytes(), name
    for lane, first in enumerate(audited.market()[1].row):
        count = live[lane].sum() + 1
        assert script.bars[lane, :count].tobytes() == rows[first : first + count].tobytes()
    seen = np.asarray(played().observations)
    assert script.observations[live].tobytes() == seen[live].tobytes()
    assert np.isnan(script.logits[live]).all(), "a script has no logits"
    assert np.isfinite(greedy.logits).all()
    assert greedy.checkpoint == audited.facts().checkpoint_hash
    assert script.checkpoint == ""
    minutes = np.diff(script.timestamps[0][live[0]])
    assert (minutes == 60_000_000_000).all()
    assert script.symbol_names == ("simulated",) * EPISODES


def test_unusual_numbers_survive(tmp_path):
    nans = np.asarray([0x7FC00000, 0xFFC00001, 0x80000000, 1], np.uint32).view(np.float32)
    equity = np.tile(nans, (EPISODES, STEPS // 4))
    odd = dataclasses.replace(
        record(), time=np.ones((EPISODES, STEPS), np.int32), equity=equity,
        terminated=np.zeros((EPISODES, STEPS), bool),
    )  # fmt: skip
    data, starts = audited.market()
    with audit.Writer(tmp_path, audited.facts()) as writer:
        audit.add(
            writer, dataclasses.replace(played(), record=odd), "script", data, starts.row,
            starts.symbol, trained=False,
        )  # fmt: skip
    assert batches(tmp_path)[0].record.equity.tobytes() == equity.tobytes()
    assert chain_findings(tmp_path) == []


def test_chunks_and_parts_change_nothing_but_the_parts(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PART_ROWS", 5)
    monkeypatch.setattr(writing, "GROUP_ROWS", 17)
    directory = tmp_path / "parts"
    data, starts = audited.market()
    with audit.Writer(directory, audited.facts()) as writer:
        for chunk in (slice(0, 3), slice(3, 5), slice(5, EPISODES)):
            some = jax.tree.map(lambda leaf, of=chunk: leaf[of], played())
            audit.add(
                writer, some, "script", data, starts.row[chunk], starts.symbol[chunk],
                trained=False,
            )  # fmt: skip
    assert len(audited.manifest_of(directory)["parts"]) == 6
    assert [part["rows"] for part in audited.manifest_of(directory)["parts"][1::2]] == [3, 2, 3]
    assert proofs(directory).clean
    whole, parts = batches(clean)[0], batches(directory)[0]
    for name in columns.FIELDS:
        np.testing.assert_array_equal(getattr(parts.record, name), getattr(whole.record, name))
    np.testing.assert_array_equal(parts.bars, whole.bars)


def test_episodes_recorded_in_chunks_are_those_that_an_evaluation_plays_at_once(tmp_path):
    (data, starts), key = audited.market(), jax.random.key(0)
    sampled = policy.from_network(greedy=False)
    with audit.Writer(tmp_path / "audit", audited.facts()) as writer:
        audit.record_episodes(
            writer, sampled, audited.params(), audited.settings(), data, starts, key, chunk=3
        )
    (batch,) = batches(tmp_path / "audit")
    assert list(batch.numbers_of) == list(range(EPISODES))
    np.testing.assert_array_equal(batch.starts["start_row"], starts.row)
    env_params = make_params(audited.settings(), data)
    whole = backtest.run_episodes(sampled, audited.params(), env_params, starts, key)
    net = np.asarray(batch.record.net_pnl, np.float64).sum(axis=1)
    np.testing.assert_allclose(net, whole["pnl/net"], rtol=1e-4, atol=1e-3)
    assert proofs(tmp_path / "audit").clean


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of the list of actions."""
    directory = tmp_path_factory.mktemp("small") / "audit"
    data, starts = audited.market()
    some = jax.tree.map(lambda leaf: leaf[1:4], played())
    with audit.Writer(directory, audited.facts()) as writer:
        audit.add(writer, some, "script", data, starts.row[1:4], starts.symbol[1:4], trained=False)
    return directory


@pytest.mark.parametrize("table", ["steps", "episodes"])
def test_the_hashes_are_those_that_the_page_defines(clean, table):
    recorded = pq.read_table(clean / f"{table}-00000.parquet")["row_hash"].to_pylist()
    assert [each.hex() for each in recorded] == audited.hashes(clean, table)
    part = next(p for p in audited.manifest_of(clean)["parts"] if p["table"] == table)
    assert (part["first_hash"], part["last_hash"]) == (recorded[0].hex(), recorded[-1].hex())


def test_a_clean_audit_passes_all_proofs(clean):
    found = proofs(clean)
    assert found.clean, audit.report(found)
    assert (found.episodes, found.skipped) == (2 * EPISODES, {})
    assert 0 < found.judged < found.steps
    assert np.count_nonzero(record().quantity) > 40
    assert "every row is as it was written" in audit.report(found)


def other(value: Any, rng: np.random.Generator) -> Any:
    """Another value of the same type; a float with one bit of it flipped."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, np.float32):
        bits = np.float32(value).view(np.uint32) ^ np.uint32(1 << int(rng.integers(32)))
        return bits.view(np.float32)
    if isinstance(value, np.float64):
        return np.nextafter(value, 10.0)
    return value ^ (1 << int(rng.integers(8)))


def tampered(clean: Path, table: str, column: str, line: int, seed: int) -> list[str]:
    """What the chain says of an audit with that one cell changed."""
    with tempfile.TemporaryDirectory() as temporary:
        own = audited.copy(clean, Path(temporary) / "audit")
        rng = np.random.default_rng(seed)
        audited.rewrite(
            own / f"{table}-00000.parquet",
            lambda rows: audited.with_cell(rows, column, line, lambda value: other(value, rng)),
        )
        return chain_findings(own)


def every_column(table: str) -> list[str]:
    return [*columns.of_table(table), columns.HASH]


@pytest.mark.parametrize("table", ["steps", "episodes"])
def test_a_changed_cell_of_any_column_is_named_by_its_row(small, table):
    rows = pq.read_table(small / f"{table}-00000.parquet")
    rng = np.random.default_rng(5)
    for column in every_column(table):
        line = int(rng.integers(rows.num_rows))
        found = tampered(small, table, column, line, seed=line)
        assert any(f"{table}-00000.parquet row {line:,} (" in sentence for sentence in found), (
            column,
            found,
        )


@hypothesis_settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_changed_cell_is_named_by_file_episode_and_step(clean, data):
    rows = pq.read_table(clean / "steps-00000.parquet")
    content = [name for name in columns.STEPS if name not in ("policy", "episode", "step")]
    column = data.draw(st.sampled_from(content))
    line = data.draw(st.integers(0, rows.num_rows - 1))
    where = [rows[name][line].as_py() for name in ("policy", "episode", "step")]
    (found,) = tampered(clean, "steps", column, line, data.draw(st.integers(0, 99)))
    expected = "steps-00000.parquet row {} ({}, episode {}, step {})".format(f"{line:,}", *where)
    assert found.startswith(expected)


def without(*lines: int) -> Any:
    return lambda rows: rows.take([i for i in range(rows.num_rows) if i not in lines])


def swapped(rows: pa.Table) -> pa.Table:
    order = np.arange(rows.num_rows)
    order[[40, 41]] = order[[41, 40]]
    return rows.take(order)


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without(40), "row 40 (script, episode 1, step 9): step 8 of that episode was to come"),
        (without(*range(32, 64)), "row 32 (script, episode 2, step 0)"),
        (swapped, "row 40 (script, episode 1, step 9): step 8 of that episode was to come"),
        (lambda rows: rows.slice(0, rows.num_rows - 3), "rows, the manifest says"),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "rows, the manifest says"),
    ],
    ids=["a row", "an episode", "order", "the end", "a row too many"],
)
def test_rows_dropped_moved_and_cut_off_are_found(own, change, sentence, forged):
    audited.rewrite(own / "steps-00000.parquet", change)
    if not forged:
        assert any(sentence in found for found in chain_findings(own))
        return
    forge(own)  # hashes fit again: what is left is that an episode is not as long as it was
    found = proofs(own)
    assert not found.clean or found.skipped or found.episodes < 2 * EPISODES


def test_a_part_that_is_gone_exchanged_or_new_is_found(own):
    (own / "steps-00001.parquet").write_bytes((own / "steps-00000.parquet").read_bytes())
    assert any("steps-00001.parquet: the manifest does not list" in s for s in chain_findings(own))
    (own / "steps-00000.parquet").write_bytes((own / "episodes-00000.parquet").read_bytes())
    assert any("steps-00000.parquet has no column step" in s for s in chain_findings(own))
    (own / "steps-00000.parquet").unlink()
    assert any("steps-00000.parquet is missing" in s for s in chain_findings(own))
    assert not proofs(own).clean


def test_a_damaged_part_is_found(own):
    path = own / "steps-00000.parquet"
    group = pq.ParquetFile(path).metadata.row_group(0)
    largest = max(
        (group.column(i) for i in range(group.num_columns)),
        key=lambda column: column.total_compressed_size,
    )
    data = bytearray(path.read_bytes())
    data[largest.data_page_offset + largest.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    assert any("steps-00000.parquet is damaged" in found for found in chain_findings(own))


@pytest.mark.parametrize("sign", [False, True])
def test_an_edited_manifest_is_found(own, sign):
    content = audited.manifest_of(own)
    facts = content["facts"]
    cheaper = json.loads(json.dumps(facts))
    cheaper["config"]["fills"]["fee_bps"] = 0.0
    cheaper["config_hash"] = manifest.sha256(cheaper["config"])
    parts = [dict(part) for part in content["parts"]]
    parts[0]["rows"] -= 1
    edits: list[dict[str, Any]] = [
        {"facts": cheaper},
        {"facts": facts | {"run": "another"}},
        {"facts": facts | {"checkpoint_hash": "0" * 64}},
        {"parts": parts},
        {"parts": parts[1:]},
        {"rows": {"steps": 1, "episodes": 1}},
    ]
    for edit in edits:
        audited.copy(own, own.parent / "edited")
        audited.edit_manifest(own.parent / "edited", sign=sign, **edit)
        found = chain_findings(own.parent / "edited")
        assert found, edit
        assert sign != any("it was edited: its hash" in sentence for sentence in found)
    audited.copy(own, own.parent / "edited")
    audited.edit_manifest(own.parent / "edited", sign=True, facts=facts | {"run": "another"})
    assert any("or the facts in the manifest" in s for s in chain_findings(own.parent / "edited"))


DOCTORED = [
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
    ("locked", lambda v: not v),
    ("terminated", lambda v: not v),
]


@pytest.mark.parametrize(("column", "change"), DOCTORED)
def test_a_forged_account_field_is_named_by_the_twin(own, column, change):
    doctor(own, column, 2, 1, change)
    forge(own)
    assert chain_findings(own) == []
    (sentence,) = proofs(own).twin
    assert sentence.startswith(f"script, episode 2, step 1: column {column} is recorded as ")
    truth = float(getattr(record(), column)[2, 1])
    expected = verification.shown(column, truth)
    if column == "outcome":
        assert sentence.endswith(expected)
    else:
        told = float(sentence.rpartition(" ")[2])
        assert told == pytest.approx(truth, rel=1e-5, abs=1e-5)


def test_a_forged_bar_disagrees_with_the_record_of_its_step(own):
    doctor(own, "bar_close", 1, 20, lambda v: v * 1.001)
    forge(own)
    (sentence,) = proofs(own).twin
    assert sentence.startswith("script, episode 1, step 20: column mark_price")


@pytest.mark.parametrize("entry", columns.OBSERVATION_COLUMNS)
def test_a_forged_observation_is_named_by_the_twin(own, entry):
    doctor(own, entry, 1, 7, lambda v: v + 0.01)
    forge(own)
    assert any(
        sentence.startswith(f"script, episode 1, step 7: column {entry} is recorded as ")
        for sentence in proofs(own).twin
    )


@pytest.mark.parametrize("column", [*columns.LOGIT_COLUMNS, "value"])
def test_forged_logits_and_values_are_named_by_the_checkpoint(own, column):
    doctor(own, column, 3, 5, lambda v: v + 1e-4, policy=GREEDY)
    forge(own)
    found = proofs(own)
    assert (found.chain, found.twin) == ([], [])
    (sentence,) = found.checkpoint
    assert sentence.startswith(f"{GREEDY}, episode 3, step 5: column {column} is recorded as ")


def test_steps_forged_off_an_episode_are_missed(own):
    path = own / "steps-00000.parquet"
    line = audited.line_of(pq.read_table(path), "script", 0, STEPS - 1)
    audited.rewrite(path, without(line))
    forge(own)
    assert proofs(own).twin == [
        f"script, episode 0 has {STEPS - 1} steps, its beginning says {STEPS}"
    ]


def test_without_weights_the_checkpoint_is_not_run_and_the_report_says_why(clean):
    found = audit.verify(clean, None, why="they are on another machine")
    assert found.clean and found.judged == 0
    assert "checkpoint  not run: they are on another machine" in audit.report(found)


def test_who_has_just_written_an_audit_re_derives_a_sample_of_each_policy(clean):
    whole, found = proofs(clean), audit.verify(clean, audited.params(), sample=2)
    policies = {batch.policy for batch in batches(clean)}
    assert found.clean and found.episodes == 2 * len(policies) < whole.episodes
    assert 0 < found.steps < whole.steps and 0 < found.judged < whole.judged
    assert "chain" in audit.report(whole) and "chain" not in audit.report(found)


def test_a_size_on_the_edge_between_two_may_go_either_way():
    """A round trip of $12,500 at 9.765625 bp leaves E = 1 − 1/2048: 1024 E is half-way."""
    rows = episodes.market(np.full(STEPS + 1, 100.0))
    actions = episodes.script(STEPS, {0: episodes.BUY, 1: episodes.SELL, 2: episodes.BUY})
    free = {
        f"fills.{f.name}": getattr(episodes.FREE, f.name)
        for f in dataclasses.fields(episodes.FREE)
        if f.type == "float"
    }
    costs = {"fills.fee_bps": 9.765625, "trade_cooldown_steps": 1, "tick": 1e-9}
    edge = config.load(audited.SETTINGS | free | costs)
    zero, one = np.zeros(1, np.int32), np.zeros((1, STEPS))
    starts = {"progress": zero + 1.0, "start_row": zero, "start_time": zero, "symbol": zero}
    facts = audited.facts(config=edge)
    batch = reading.Episodes(
        policy="script", checkpoint="", numbers_of=zero, live=one == 0,
        record=dataclasses.replace(
            jax.tree.map(lambda leaf: leaf[:1], record()), request=(actions - 1)[None]
        ),
        bars=rows[None], observations=np.zeros((1, STEPS, 12)), logits=one, values=one,
        progress=one + 1.0, timestamps=one, starts=starts, symbol_names=("simulated",),
    )  # fmt: skip
    lots = []
    for nudge in (1e-9, -1e-9):
        nudged = rederivation.rederive(batch, facts, nudge=nudge)
        lots.append(int(nudged.lot[0, 2]))
        found = rederivation.disagreements(dataclasses.replace(batch, record=nudged), facts)
        assert [kind for _, kind in found if kind == "record"] == []
    assert lots == [125, 124]


def test_bad_input_is_one_sentence(clean, own, tmp_path):
    (tmp_path / "old.parquet").write_bytes((clean / "steps-00000.parquet").read_bytes())
    (tmp_path / "empty").mkdir()
    audited.copy(clean, tmp_path / "version")
    audited.edit_manifest(tmp_path / "version", sign=True, schema_version=3)
    audited.copy(clean, tmp_path / "config")
    found = audited.manifest_of(clean)
    strange = found["facts"] | {"config": {"colour": 1}}
    audited.edit_manifest(tmp_path / "config", sign=True, facts=strange)
    (own / "manifest.json").write_text("no JSON")
    cases = {
        tmp_path / "old.parquet": "files of version 1 are no longer read",
        tmp_path: "*.parquet files alone are of schema version 1",
        tmp_path / "empty": "no such file, expected an audit's",
        tmp_path / "version": "audit schema version is 3, expected 2",
        tmp_path / "config": "unknown key 'colour'",
        own: "is damaged or no manifest",
    }
    for path, sentence in cases.items():
        with pytest.raises(InputError) as refusal:
            manifest.read(path)
        assert sentence in str(refusal.value)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_an_audit_is_not_written_over_nor_where_nothing_can_be(clean, tmp_path):
    with pytest.raises(InputError, match="has an audit already"):
        audit.Writer(clean, audited.facts())
    (tmp_path / "taken").write_text("a file where a directory should be")
    with pytest.raises(InputError, match="cannot write audit"):
        audit.Writer(tmp_path / "taken" / "audit", audited.facts())
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_audit_that_was_interrupted_says_so(tmp_path):
    data, starts = audited.market()
    writer = audit.Writer(tmp_path, audited.facts())
    audit.add(writer, played(), "script", data, starts.row, starts.symbol, trained=False)
    writer.__exit__(KeyboardInterrupt)
    (sentence,) = chain_findings(tmp_path)
    assert "not complete" in sentence
    assert proofs(tmp_path).steps == (record().time > 0).sum()


@pytest.mark.parametrize(
    ("asked", "lanes"), [(0, 0), (0.001, 1), (0.5, 8), (1, 1), (3, 3), (99, 16)]
)
def test_below_one_is_a_share_and_from_one_on_a_number(asked, lanes):
    assert audit.lanes_of(asked, 16) == lanes


def test_a_decision_is_told_in_words(clean):
    order = np.argwhere((record().quantity != 0) & (np.arange(STEPS) > 2))[0]
    episode, step = (int(place) for place in order)
    text = audit.explain(clean, episode=episode, step=step, policy="script")
    request = "BUY" if record().request[episode, step] > 0 else "SELL"
    shares = abs(record().quantity[episode, step])
    costs = sum(
        float(getattr(record(), name)[episode, step])
        for name in columns.FIELDS
        if name.startswith("cost_")
    )
    for words in (
        f"episode {episode}, step {step}",
        "2023-11-",
        "RSI(14) was",
        f"asked to {request}",
        f" {shares} at $",
        f"{costs:,.4f}",
        f"{float(record().reward[episode, step]):+.5f}  in all",
        "It is a rule, and has no probabilities",
    ):
        assert words in text, (words, text)
    assert "Probabilities: SELL" in audit.explain(clean, episode=0, step=0, policy=GREEDY)
    assert max(map(len, text.splitlines())) <= 120


def test_every_outcome_has_a_reason_in_words(own):
    from jules_jax.env.record import Outcome
    from jules_jax.evaluation.audit.explanation import REASONS

    assert set(REASONS) == set(Outcome) - {Outcome.NONE, Outcome.EXECUTED}


def test_a_step_that_is_not_there_is_refused(clean):
    with pytest.raises(InputError, match="expected --policy with one of them"):
        audit.explain(clean, episode=0, step=0)
    with pytest.raises(InputError, match="has no step 99 of episode 0 of script"):
        audit.explain(clean, episode=0, step=99, policy="script")


def test_pandas_reads_the_parts_as_they_are(clean):
    import pandas as pd

    steps = pd.read_parquet(sorted(clean.glob("steps-*.parquet")))
    by_policy = steps.groupby("policy", observed=True).net_pnl.sum()
    assert by_policy["script"] == pytest.approx(record().net_pnl.sum(), abs=1e-2)


def test_duckdb_reads_the_parts_as_they_are(clean):
    duckdb = pytest.importorskip("duckdb")
    ((total,),) = duckdb.sql(
        f"SELECT sum(net_pnl) FROM '{clean}/steps-*.parquet' WHERE policy = 'script'"
    ).fetchall()
    assert total == pytest.approx(record().net_pnl.sum(), abs=1e-2)
    refused = duckdb.sql(
        f"SELECT outcome, count(*) FROM '{clean}/steps-*.parquet' WHERE request != 0 GROUP BY 1"
    ).fetchall()
    assert sum(count for _, count in refused) > 0


def test_schema_version_2_has_the_columns_it_had():
    """Audits of version 2 stay readable: other columns need another version."""
    text = json.dumps([columns.STEPS, columns.EPISODES])
    found = (columns.SCHEMA_VERSION, hashlib.sha256(text.encode()).hexdigest()[:16])
    assert found == PINNED_SCHEMA
