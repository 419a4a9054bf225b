"""The manifest: what an audit is of, and which files and hashes it consists of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jules_jax import config as configuration
from jules_jax.config import Config
from jules_jax.errors import InputError
from jules_jax.evaluation.audit import chain
from jules_jax.evaluation.audit.columns import SCHEMA_VERSION, of_table

FILE = "manifest.json"
TABLES = ("steps", "episodes")
PACKAGE = Path(__file__).resolve().parents[2]

Kind = Literal["evaluation", "training"]


@dataclass(frozen=True)
class Facts:
    """What an audit is of; none of it changes while it is written.

    kind: whole episodes of an evaluation, or lanes of a training run. run: its name, or the
    checkpoint's. source: where the prices come from, in words. symbols: names, by the symbols'
    numbers. data: SHA-256 of the files of bars, by name. checkpoint: where the weights are, and
    checkpoint_hash, the SHA-256 of them: empty where there is none, as in training. numbers: dotted
    keys that every episode draws for itself. revision: the commit that ran. code: SHA-256 of the
    package's sources.
    """

    kind: Kind
    run: str
    config: Config
    bar_seconds: int
    source: str = ""
    symbols: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    checkpoint_hash: str = ""
    numbers: tuple[str, ...] = ()
    revision: str = ""
    code: str = ""
    device: str = ""

    def symbol(self, number: int) -> str:
        """The name of a symbol; simulated paths have none."""
        return self.symbols[number] if number < len(self.symbols) else "simulated"

    def to_json(self) -> dict[str, Any]:
        """As the manifest has them, with hashes of config and data as wholes."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found |= {"config": configuration.to_dict(self.config), "data": dict(self.data)}
        found |= {"symbols": list(self.symbols), "numbers": list(self.numbers)}
        found["config_hash"] = sha256(found["config"])
        found["data_hash"] = sha256(found["data"]) if self.data else ""
        return found

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Facts:
        """From a manifest; raises `InputError` or `KeyError` where it is none."""
        names = {f.name for f in dataclasses.fields(Facts)}
        given = {name: value for name, value in found.items() if name in names}
        given |= {"config": configuration.load(found["config"])}
        given |= {name: tuple(found[name]) for name in ("symbols", "numbers")}
        return Facts(**given)


@dataclass(frozen=True)
class Part:
    """A file of rows, and the hashes of its first and last.

    update: in training, the last whole update in it; None in an evaluation. lanes: where each lane
    was after it: episode and steps, None where its episode's beginning was not recorded. progress:
    of that update.
    """

    file: str
    table: str
    rows: int
    first_hash: str
    last_hash: str
    update: int | None = None
    progress: float = 0.0
    lanes: tuple[tuple[int, int] | None, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """An audit's directory in one object; `complete` once it was closed in good order."""

    facts: Facts
    parts: tuple[Part, ...] = ()
    complete: bool = False

    def genesis(self, table: str) -> bytes:
        """What stands before the first row of a table."""
        columns = list(of_table(table, self.facts.numbers).items())
        return chain.of_facts(
            {"schema_version": SCHEMA_VERSION, "table": table, "columns": columns}
            | {"facts": self.facts.to_json()}
        )

    def of(self, table: str) -> list[Part]:
        """The parts of one table, in order."""
        return [part for part in self.parts if part.table == table]

    def rows(self, table: str) -> int:
        """Rows of one table."""
        return sum(part.rows for part in self.of(table))

    def last_hash(self, table: str) -> bytes:
        """What the next row of a table follows."""
        parts = self.of(table)
        return bytes.fromhex(parts[-1].last_hash) if parts else self.genesis(table)


def sha256(tree: Any) -> str:
    """SHA-256 of canonical JSON; of a config its first 12 digits are those in the registry."""
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def code_hash() -> str:
    """SHA-256 of the package's sources: their paths and bytes, in order of the paths."""
    sha = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        sha.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()


def write(manifest: Manifest, directory: Path) -> None:
    """Puts the manifest into the directory, whole or not at all."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "complete": manifest.complete,
        "facts": manifest.facts.to_json(),
        "columns": {t: of_table(t, manifest.facts.numbers) for t in TABLES},
        "rows": {table: manifest.rows(table) for table in TABLES},
        "parts": [dataclasses.asdict(part) for part in manifest.parts],
    }
    content = json.loads(json.dumps(content))  # as it will be read: lists for tuples
    content["hash"] = sha256(content)
    partial = directory / f"{FILE}.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(directory / FILE)


def read(directory: Path) -> tuple[Manifest, list[str]]:
    """The manifest in a directory, and sentences on what in it is not as it was written.

    Raises `InputError` where there is none, or none of this schema version.
    """
    path = directory / FILE
    if directory.is_file():
        raise InputError(
            f"{directory} is a file, expected the directory of an audit of schema version "
            f"{SCHEMA_VERSION}; files of version 1 are no longer read: record the episodes again"
        )
    if not path.is_file():
        old = " (*.parquet files alone are of schema version 1, no longer read)"
        has_old = directory.is_dir() and any(directory.glob("*.parquet"))
        raise InputError(f"{path}: no such file, expected an audit's{old if has_old else ''}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, recorded = content["schema_version"], content.pop("hash")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is damaged or no manifest, expected an audit's") from None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: audit schema version is {version}, expected {SCHEMA_VERSION}")
    try:
        facts = Facts.from_json(content["facts"])
        parts = tuple(_part(part) for part in content["parts"])
        manifest = Manifest(facts, parts, bool(content["complete"]))
        wrong = _wrong(manifest, content, recorded)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: its parts do not fit each other ({error!r})") from None
    return manifest, [f"{FILE}: {sentence}" for sentence in wrong]


def _part(found: Mapping[str, Any]) -> Part:
    lanes = tuple(None if lane is None else (lane[0], lane[1]) for lane in found["lanes"])
    part = Part(**{**found, "lanes": lanes})
    if Path(part.file).name != part.file or part.table not in TABLES:
        raise ValueError(part.file)
    for text in (part.first_hash, part.last_hash):
        if len(bytes.fromhex(text)) != chain.SIZE:
            raise ValueError(text)
    return part


def _wrong(manifest: Manifest, content: Mapping[str, Any], recorded: str) -> list[str]:
    wrong = []
    if sha256(content) != recorded:
        wrong.append("it was edited: its hash is not that of its content")
    if manifest.facts.to_json() != content["facts"]:
        wrong.append("its config, or the hashes of config and data, are not what they were")
    if {t: of_table(t, manifest.facts.numbers) for t in TABLES} != content["columns"]:
        wrong.append("its columns are not those of this schema version")
    if {table: manifest.rows(table) for table in TABLES} != content["rows"]:
        wrong.append("its row counts are not the sums of its parts'")
    return wrong
