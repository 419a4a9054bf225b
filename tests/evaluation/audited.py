"""An audit of some small episodes, and ways to tamper with one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.agent.policy import Policy
from jules_jax.evaluation import audit, backtest, unseen
from jules_jax.market.table import MarketData
from jules_jax.training import checkpoints
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
GREEDY = "trained, greedy"


@cache
def settings() -> config.Config:
    return config.load(FRAGILE)


@cache
def market() -> tuple[MarketData, backtest.Starts]:
    """Fresh paths, and a start on each."""
    data = unseen.fresh_paths(settings(), EPISODES, jax.random.key(4))
    return data, backtest.one_per_stretch(np.asarray(data.episodes), EPISODES, seed=0)


@cache
def actions() -> np.ndarray:
    """Actions `[N, T]`: random ones, but HOLD in the first two episodes."""
    drawn = np.random.default_rng(1).integers(0, 3, (EPISODES, STEPS)).astype(np.int32)
    drawn[:2] = episodes.HOLD
    return drawn


@cache
def params() -> network.Params:
    return network.init(jax.random.key(9), settings().network)


def policies() -> list[tuple[Policy, Any, bool]]:
    """A list of actions, and weights that trade; whether the audit's checkpoint decides."""
    return [
        (audit.script(), actions(), False),
        (policy.from_network(greedy=True), params(), True),
    ]


def facts(**changes: Any) -> audit.Facts:
    return dataclasses.replace(
        audit.Facts(
            kind="evaluation",
            run="tiny",
            config=settings(),
            bar_seconds=60,
            source="fresh simulated paths",
            checkpoint="nowhere",
            checkpoint_hash=checkpoints.digest(params()),
            code=audit.code_hash(),
        ),
        **changes,
    )


def record(directory: Path, **options: Any) -> Path:
    """Both policies' episodes, with a minute for every row of the table."""
    data, starts = market()
    times = 1_700_000_000_000_000_000 + 60_000_000_000 * np.arange(data.rows.shape[0])
    with audit.Writer(directory, facts()) as writer:
        for who, own, trained in policies():
            audit.record_episodes(
                writer, who, own, settings(), data, starts, jax.random.key(0),
                times=times, trained=trained, **options,
            )  # fmt: skip
    return directory


def manifest_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return found


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, dirs_exist_ok=True))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """A part with other rows in it."""
    table = change(pq.read_table(path))
    dictionary = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
    pq.write_table(table, path, use_dictionary=dictionary)


def line_of(table: pa.Table, policy: str, episode: int, step: int) -> int:
    """The row of a step."""
    chosen = np.array(table["policy"].to_pylist()) == policy
    chosen &= table["episode"].to_numpy() == episode
    chosen &= table["step"].to_numpy() == step
    return int(np.flatnonzero(chosen)[0])


def with_cell(table: pa.Table, column: str, line: int, change: Any) -> pa.Table:
    """The table with one cell set to `change`, or, where that is callable, to its result."""
    field = table.schema.field(column)
    cells = table[column].to_pylist()
    if pa.types.is_floating(field.type):
        cells = table[column].to_numpy().copy()
    cells[line] = change(cells[line]) if callable(change) else change
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    array = pa.array(cells, kind)
    array = array.dictionary_encode() if pa.types.is_dictionary(field.type) else array
    return table.set_column(table.column_names.index(column), field, array)


def doctor(
    directory: Path, column: str, episode: int, step: int, change: Any, policy: str = "script"
) -> None:
    """Changes one cell of the first part's steps."""
    rewrite(
        directory / "steps-00000.parquet",
        lambda table: with_cell(table, column, line_of(table, policy, episode, step), change),
    )


CODES = {"<i4": "i", "<i8": "q", "<f4": "f", "<f8": "d", "|b1": "?"}


def hashes(directory: Path, table: str) -> list[str]:
    """The chain as docs/evaluation.md has it, row by row with `struct` and `hashlib` alone."""
    content = manifest_of(directory)
    columns = list(content["columns"][table].items())
    beginning = {
        "schema_version": content["schema_version"],
        "table": table,
        "columns": [list(column) for column in columns],
        "facts": content["facts"],
    }
    text = json.dumps(beginning, sort_keys=True, separators=(",", ":"))
    last = hashlib.blake2b(text.encode(), digest_size=16).digest()
    found = []
    for part in (part for part in content["parts"] if part["table"] == table):
        rows = pq.read_table(directory / part["file"])
        cells = [
            rows[name].to_numpy() if kind in ("<f4", "<f8") else rows[name].to_pylist()
            for name, kind in columns
        ]
        for line in range(rows.num_rows):
            data = last
            for (_, kind), values in zip(columns, cells, strict=True):
                if kind == "text":
                    data += hashlib.blake2b(values[line].encode(), digest_size=16).digest()
                elif kind == "<f4":
                    data += values[line].tobytes()  # as it is: struct would lose NaNs' bits
                else:
                    data += struct.pack(f"<{CODES[kind]}", values[line])
            last = hashlib.blake2b(data, digest_size=16).digest()
            found.append(last.hex())
    return found


def edit_manifest(directory: Path, *, sign: bool, **changes: Any) -> None:
    """Other content of the manifest; `sign` gives it the hash that it is to have then."""
    content = manifest_of(directory) | changes
    if sign:
        del content["hash"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["hash"] = hashlib.sha256(canonical.encode()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(content))


def forge(directory: Path) -> None:
    """Makes all hashes fit what is there: what somebody does who knows the format."""
    content = manifest_of(directory)
    for table in ("steps", "episodes"):
        fresh = iter(hashes(directory, table))
        for part in (part for part in content["parts"] if part["table"] == table):
            path = directory / part["file"]
            count = pq.read_metadata(path).num_rows
            own = [bytes.fromhex(next(fresh)) for _ in range(count)]

            def change(rows: pa.Table, own: list[bytes] = own) -> pa.Table:
                field = rows.schema.field("row_hash")
                place = rows.column_names.index("row_hash")
                return rows.set_column(place, field, pa.array(own, field.type))

            rewrite(path, change)
            part |= {"rows": count, "first_hash": own[0].hex(), "last_hash": own[-1].hex()}
        content["rows"][table] = sum(p["rows"] for p in content["parts"] if p["table"] == table)
    edit_manifest(directory, sign=True, parts=content["parts"], rows=content["rows"])
