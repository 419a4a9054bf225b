"""Replay: a sample of what was played, step by step, re-derived in the float64 twin.

What is told of a policy rests on it: where the twin disagrees, nothing is to be believed.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jules_jax import config
from jules_jax.agent import network
from jules_jax.evaluation import assessment, audit
from jules_jax.evaluation.audit import Verification, recording
from jules_jax.evaluation.prices import Chunk, Prices
from jules_jax.evaluation.report import content
from jules_jax.evaluation.report.content import Watched
from jules_jax.training import checkpoints, market, provenance

REPLAYED = 200
"""Episodes of each trained policy that the twin re-derives, unless all are to be."""
WATCHED = 32
"""Accounts whose sessions may be shown bar by bar, and fill the raster."""


@dataclass(frozen=True)
class Replayed:
    """What the twin says, and the first accounts of each trained policy bar by bar."""

    verification: Verification
    watched: list[Watched]


def replay(
    final: config.Config,
    checkpoint: Path,
    params: network.Params,
    ground: Prices,
    *,
    audited: float = 0.0,
    everything: bool = False,
    trail: Path | None = None,
) -> Replayed:
    """Records the trained policies' first episodes, and lets the twin play them again.

    audited: how many episodes, or which share of them, are recorded at least. everything: all are.
    trail: a directory for the record, which an audit is to be left in; None: it is not kept.
    """
    kept = recording.lanes_of(audited, ground.accounts)
    wanted = ground.accounts if everything else max(kept, min(REPLAYED, ground.accounts))
    with ExitStack() as stack:
        place = trail or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "audit"
        watched = _record(final, checkpoint, params, ground, wanted, place)
        verification = audit.verify(place, params, sample=None if everything else REPLAYED)
    return Replayed(verification, watched)


def _record(
    final: config.Config,
    checkpoint: Path,
    params: network.Params,
    ground: Prices,
    wanted: int,
    directory: Path,
) -> list[Watched]:
    """Writes the first `wanted` accounts of each policy; the first few are returned as well."""
    chunks = ground.chunks()
    first = next(chunks)
    size = min(recording.chunk_of(first.config), len(first.starts.row))
    one_draw = int(np.count_nonzero(first.draw == 0))  # another one would be much the same
    few = _some(first, min(WATCHED, one_draw, size, wanted))
    watched = []
    facts = audit.Facts(
        kind="evaluation",
        run=final.name or checkpoint.parent.name,
        config=first.config.at(1.0),
        bar_seconds=first.market.bar_seconds,
        source=ground.notes[0],
        symbols=ground.symbols,
        data=market.fingerprint(final.market) if ground.labels else {},
        checkpoint=str(checkpoint),
        checkpoint_hash=checkpoints.digest(params),
        revision=provenance.revision(),
        code=audit.code_hash(),
        device=jax.devices()[0].device_kind,
    )
    with audit.Writer(directory, facts) as writer:
        for chunk in itertools.chain([first], chunks):
            some = _some(chunk, min(wanted, len(chunk.starts.row)))
            for who in assessment.trained(final):
                played = audit.record_episodes(
                    writer, who, params, chunk.config, chunk.market, some.starts, chunk.key,
                    times=chunk.time if ground.labels else None, chunk=size,
                )  # fmt: skip
                if chunk is first:
                    record = jax.tree.map(lambda leaf: leaf[: len(few.starts.row)], played.record)
                    watched.append(content.watched(who.name, recording.whole(record), few, ground))
            wanted -= len(some.starts.row)
            if wanted <= 0:
                break
    return watched


def _some(chunk: Chunk, count: int) -> Chunk:
    """A chunk's first accounts."""
    some = slice(count)
    return dataclasses.replace(
        chunk,
        starts=chunk.starts.some(some),
        before=chunk.before[some],
        complete=chunk.complete[some],
        draw=chunk.draw[some],
    )


def told(found: Sequence[Verification]) -> dict[str, Any]:
    """Of all that was replayed, as `report.schema.REPLAY`."""
    return {
        "episodes": sum(each.episodes for each in found),
        "steps": sum(each.steps for each in found),
        "disagreements": sum(len(each.twin) for each in found),
        "tolerance": "1e-6 of equity; decisions exactly",
    }
