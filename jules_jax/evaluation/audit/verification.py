"""Verification: whether an audit is what was written, and whether what was written is right.

Three proofs, each of which finds what the ones before it cannot: the *chain* of hashes names a row
that was edited, moved or dropped; the *twin* names the column of what does not follow from the
bars and the requests; the *checkpoint*, run again, covers logits and values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jules_jax.agent import network
from jules_jax.env.record import Outcome
from jules_jax.evaluation.audit import chain, manifest, reading, rederivation
from jules_jax.evaluation.audit.columns import HASH, LOGIT_COLUMNS, Columns, of_table
from jules_jax.evaluation.audit.manifest import FILE, TABLES, Manifest, Part
from jules_jax.evaluation.audit.reading import Damaged, Episodes, Name

TOLERANCE = 1e-5
"""Of logits and values: absolute, or relative where they are larger than 1."""
MOST = 20
"""Findings that each proof lists."""


@dataclass(frozen=True)
class Verification:
    """What was found: sentences by proof, and what was looked at.

    of_sample: whether some episodes were re-derived and no chain followed. skipped: why a proof was
    not made, by its name.
    """

    manifest: Manifest
    chain: list[str] = field(default_factory=list)
    twin: list[str] = field(default_factory=list)
    checkpoint: list[str] = field(default_factory=list)
    episodes: int = 0
    steps: int = 0
    judged: int = 0
    of_sample: bool = False
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.chain or self.twin or self.checkpoint)


def verify(
    directory: Path,
    params: network.Params | None = None,
    *,
    why: str = "",
    sample: int | None = None,
) -> Verification:
    """Makes all three proofs; raises `InputError` where the directory has no audit.

    params: the weights that the audit's checkpoint hash is of; None: `why` they are not at hand.
    sample: only the first so many episodes of each policy are re-derived, and the chain is not
    followed: for who has just written the audit. None: everything.
    """
    found, wrong = manifest.read(directory)
    if sample is None:
        wrong += chain_findings(directory, found)
    twin: list[str] = []
    checkpoint: list[str] = []
    episodes = steps = judged = 0
    skip: set[Name] = set()
    try:
        batches = reading.episodes(directory, found, skip=skip, first=sample)
        with tqdm(
            total=found.rows("steps"), desc="twin", unit=" steps", leave=False, disable=None
        ) as bar:
            for batch in batches:
                twin += itertools.islice(twin_findings(batch, found), MOST - len(twin))
                if params is not None and batch.checkpoint:
                    checkpoint += itertools.islice(
                        checkpoint_findings(batch, found, params), MOST - len(checkpoint)
                    )
                    judged += int(batch.live.sum())
                episodes += len(batch.live)
                steps += int(batch.live.sum())
                bar.update(int(batch.live.sum()))
    except Damaged as error:
        twin.append(f"the remaining episodes cannot be read: a part {error}")
    skipped = {}
    if not found.complete and found.facts.kind == "training":
        skipped["chain"] = "the run has not ended yet, or was stopped"
    if skip:
        skipped["twin"] = (
            f"{len(skip)} episodes have rows missing or out of order and were not replayed"
        )
    if found.facts.kind == "training":
        skipped["checkpoint"] = "weights change from update to update while a run trains"
    elif not found.facts.checkpoint_hash:
        skipped["checkpoint"] = "no checkpoint decided in these episodes"
    elif params is None:
        skipped["checkpoint"] = why or "its weights are not at hand"
    return Verification(
        found, wrong, twin, checkpoint, episodes, steps, judged, sample is not None, skipped
    )


def chain_findings(directory: Path, found: Manifest) -> list[str]:
    """What is not as it was written, a sentence each, `MOST` of each table and a count of more."""
    wrong = []
    if not found.complete and found.facts.kind == "evaluation":
        wrong.append(f"{FILE}: the audit is not complete: whoever wrote it was stopped")
    known = {part.file for part in found.parts}
    extra = sorted(path.name for path in directory.glob("*.parquet") if path.name not in known)
    wrong += [f"{name}: the manifest does not list this file" for name in extra]
    for table in TABLES:
        sentences = _table_findings(directory, found, table)
        shown = list(itertools.islice(sentences, MOST))
        more = sum(1 for _ in sentences)
        wrong += shown + ([f"and {more:,} more in {table}"] if more else [])
    return wrong


def _table_findings(directory: Path, found: Manifest, table: str) -> Iterator[str]:
    types = of_table(table, found.facts.numbers)
    last, steps = found.genesis(table), _Steps()
    for part in found.of(table):
        line = 0
        try:
            for rows in reading.read_part(directory, part, types):
                broken = chain.mismatches(last, rows, types, rows[HASH])
                gaps = steps.gaps(rows) if table == "steps" else {}
                for place in sorted({*broken, *gaps}):
                    yield _row_finding(part, rows, line + place, place, gaps.get(place))
                line, last = line + len(rows[HASH]), rows[HASH][-1]
        except Damaged as error:
            yield f"{part.file} {error}"
            steps = _Steps(lost=True)
        else:
            if line != part.rows:
                yield f"{part.file} has {line:,} rows, the manifest says {part.rows:,}"
            elif last.hex() != part.last_hash:
                yield f"{part.file}: its last row's hash is not the one in the manifest"
        last = bytes.fromhex(part.last_hash)


class _Steps:
    """Follows the steps of every episode from part to part; `lost` where a part was not read."""

    def __init__(self, *, lost: bool = False) -> None:
        self._last: dict[Name, int] = {}
        self._lost = lost

    def gaps(self, rows: Columns) -> dict[int, str]:
        """Places of rows that do not follow the one before of their episode, and what was to."""
        policies = rows["policy"].dictionary.to_pylist()
        codes, episode, step = rows["policy"].indices.to_numpy(), rows["episode"], rows["step"]
        begins = (np.diff(codes, prepend=-1) != 0) | (np.diff(episode, prepend=-1) != 0)
        edges = np.flatnonzero(begins | (np.diff(step, prepend=0) != 1))
        ends = np.append(edges[1:] - 1, len(step) - 1)
        found = {}
        for place, end in zip(edges.tolist(), ends.tolist(), strict=True):
            name = (policies[codes[place]], int(episode[place]))
            unknown = self._lost and name not in self._last
            expected = self._last.get(name, -1) + 1
            if step[place] != expected and not unknown:
                found[place] = f"step {expected} of that episode was to come here"
            self._last[name] = int(step[end])
        return found


def _row_finding(part: Part, rows: Columns, line: int, place: int, gap: str | None) -> str:
    policy, episode = rows["policy"][place].as_py(), rows["episode"][place]
    where = f"{part.file} row {line:,} ({policy}, episode {episode}"
    where += f", step {rows['step'][place]})" if part.table == "steps" else ")"
    if gap:
        return f"{where}: {gap}: rows are missing, edited or not in order"
    before = "what stood before it" if line else "the facts in the manifest"
    return f"{where}: its hash does not fit: the row was edited, or {before}"


def twin_findings(batch: Episodes, found: Manifest) -> Iterator[str]:
    """Where the twin disagrees, and episodes that end too soon."""
    for first, _ in rederivation.disagreements(batch, found.facts, most=MOST):
        yield (
            f"{batch.name(first.lane)}, step {first.step}: column {first.field} is recorded as "
            f"{shown(first.field, first.found)}, re-derived as {shown(first.field, first.expected)}"
        )
    counts, planned = batch.live.sum(axis=1), batch.starts["steps"]
    for lane in np.flatnonzero((planned > 0) & (counts != planned)).tolist():
        yield f"{batch.name(lane)} has {counts[lane]} steps, its beginning says {planned[lane]}"


def shown(field_name: str, value: float) -> str:
    """A value as a person reads it; an outcome by its name."""
    named = field_name == "outcome" and value in list(Outcome)
    return Outcome(int(value)).name if named else f"{value:.9g}"


def checkpoint_findings(batch: Episodes, found: Manifest, params: network.Params) -> Iterator[str]:
    """Where logits or value are not what the weights make of the recorded observations."""
    logits, values = rerun(params, batch.observations, found.facts.config.network.matmul_precision)
    recorded = np.concatenate([batch.logits, batch.values[:, :, None]], axis=-1)
    expected = np.concatenate([logits, values[:, :, None]], axis=-1)
    near = abs(recorded - expected) <= TOLERANCE * np.maximum(abs(expected), 1.0)
    wrong = batch.live[:, :, None] & ~near
    for lane in np.flatnonzero(wrong.any(axis=(1, 2))).tolist():
        step, column = (int(place) for place in np.argwhere(wrong[lane])[0])
        name = (*LOGIT_COLUMNS, "value")[column]
        yield (
            f"{batch.name(lane)}, step {step}: column {name} is recorded as "
            f"{recorded[lane, step, column]:.9g}, the checkpoint makes it "
            f"{expected[lane, step, column]:.9g} of what was seen"
        )


def rerun(params: network.Params, observations: Any, precision: str) -> tuple[Any, Any]:
    """Logits `[N, T, 3]` and values `[N, T]` of whole episodes' observations `[N, T, 12]`."""
    count, steps = observations.shape[:2]
    padded = 1 << max(steps - 1, 1).bit_length()  # few shapes, so few programs
    by_time = np.zeros((padded, count, observations.shape[2]), np.float32)
    by_time[:steps] = observations.swapaxes(0, 1)
    logits, values = _rerun(params, jnp.asarray(by_time), precision)
    return np.asarray(logits)[:steps].swapaxes(0, 1), np.asarray(values)[:steps].T


def _judge(
    params: network.Params, observations: jax.Array, precision: str
) -> tuple[jax.Array, jax.Array]:
    steps, count = observations.shape[:2]
    first = jnp.zeros((steps, count), bool).at[0].set(True)
    carry = network.initial_carry(params, count)
    _, logits, values = network.apply_sequence(
        params, carry, observations, first, precision=precision
    )
    return logits, values


_rerun = jax.jit(_judge, static_argnames="precision")


def report(result: Verification) -> str:
    """The proofs, a line each, with what they found."""
    facts = result.manifest.facts
    rows = {table: result.manifest.rows(table) for table in TABLES}
    lines = [
        f"audit       {facts.kind} of {facts.run}: {rows['episodes']:,} episodes, "
        f"{rows['steps']:,} steps in {len(result.manifest.parts)} parts"
    ]
    if result.chain or not result.of_sample:
        good = f"every row is as it was written, {rows['steps']:,} steps"
        lines.append(_line("chain", result.chain, good))
    good = f"no disagreement in {result.episodes:,} episodes, {result.steps:,} steps"
    lines.append(_line("twin", result.twin, good))
    notes = [result.skipped[name] for name in ("chain", "twin") if name in result.skipped]
    lines += [f"note        {note}" for note in notes]
    if "checkpoint" in result.skipped:
        lines.append(f"checkpoint  not run: {result.skipped['checkpoint']}")
    else:
        good = f"logits and values of {result.judged:,} steps agree to {TOLERANCE:g}"
        lines.append(_line("checkpoint", result.checkpoint, good))
    return "\n".join(lines)


def _line(name: str, findings: Iterable[str], good: str) -> str:
    found = list(findings)
    if not found:
        return f"{name:<12}{good}"
    head = f"{name:<12}{len(found)} finding{'s' if len(found) > 1 else ''}"
    return "\n".join([head, *(f"            {sentence}" for sentence in found)])
