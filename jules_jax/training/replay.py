"""Replay: a sample of what was played, step by step, re-derived in the float64 twin.

What is told of a policy rests on it: where the twin disagrees, nothing is to be believed.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.agent.policy import Policy
from jules_jax.evaluation import audit
from jules_jax.evaluation.audit import Verification, recording
from jules_jax.evaluation.audit.recording import Played
from jules_jax.evaluation.ledger import Record
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


class Recorder:
    """Keeps the trained policies' first accounts step by step while they are assessed.

    A context manager, and an `assessment.Recorder`. audited: how many accounts, or which share of
    them, are kept at least. everything: all are, and all re-derived. trail: a directory for the
    record, which an audit is to be left in; None: it is not kept.
    """

    def __init__(
        self,
        final: config.Config,
        checkpoint: Path,
        params: network.Params,
        ground: Prices,
        *,
        audited: float = 0.0,
        everything: bool = False,
        trail: Path | None = None,
    ) -> None:
        kept = recording.lanes_of(audited, ground.accounts)
        self._left = ground.accounts if everything else max(kept, min(REPLAYED, ground.accounts))
        self._sample = None if everything else REPLAYED
        self._final, self._params, self._ground = final, params, ground
        self._checkpoint, self._trail = checkpoint, trail
        self._who = policy.trained(final.network)
        self._watched: list[Watched] = []
        self._writer: audit.Writer | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Recorder:
        temporary = tempfile.TemporaryDirectory
        if self._trail is None:
            self._trail = Path(self._stack.enter_context(temporary())) / "audit"
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def __call__(self, chunk: Chunk) -> Record | None:
        """Who takes every step of a chunk; None where they are not wanted, or too many at once."""
        if self._left <= 0:
            return None
        if self._writer is None:
            assert self._trail is not None
            self._writer = audit.Writer(self._trail, self._facts(chunk))
            self._stack.push(self._writer)
        some = _some(chunk, min(self._left, len(chunk.starts.row)))
        self._left -= len(some.starts.row)
        lanes = len(self._who) * len(chunk.starts.row)
        if lanes <= recording.chunk_of(chunk.config):
            return lambda place, played: self._add(self._who[place], played, some)
        for who in self._who:
            played = audit.record_episodes(
                self._writer, who, self._params, some.config, some.market, some.starts, some.key,
                times=self._times(some),
            )  # fmt: skip
            self._watch(who, played, some)
        return None

    def replayed(self) -> Replayed:
        """Ends the record, and lets the twin play it again."""
        assert self._writer is not None, "something was played"
        self._writer.close()
        verification = audit.verify(self._writer.directory, self._params, sample=self._sample)
        return Replayed(verification, self._watched)

    def _add(self, who: Policy, played: Played, some: Chunk) -> None:
        assert self._writer is not None
        count = len(some.starts.row)
        played = jax.tree.map(lambda leaf: leaf[:count], played)
        recording.add(
            self._writer, played, who.name, some.market, some.starts.row, some.starts.symbol,
            times=self._times(some),
        )  # fmt: skip
        self._watch(who, played, some)

    def _watch(self, who: Policy, played: Played, some: Chunk) -> None:
        """Keeps what is shown bar by bar: of the first chunk, and of one draw."""
        if len(self._watched) == len(self._who):
            return
        one_draw = int(np.count_nonzero(some.draw == 0))  # another one would be much the same
        few = _some(some, min(WATCHED, one_draw, len(played.observations)))
        record = jax.tree.map(lambda leaf: leaf[: len(few.starts.row)], played.record)
        self._watched.append(content.watched(who.name, recording.whole(record), few, self._ground))

    def _times(self, chunk: Chunk) -> Any:
        return chunk.time if self._ground.labels else None

    def _facts(self, first: Chunk) -> audit.Facts:
        final, ground = self._final, self._ground
        return audit.Facts(
            kind="evaluation",
            run=final.name or self._checkpoint.parent.name,
            config=first.config.at(1.0),
            bar_seconds=first.market.bar_seconds,
            source=ground.notes[0],
            symbols=ground.symbols,
            data=market.fingerprint(final.market) if ground.labels else {},
            checkpoint=str(self._checkpoint),
            checkpoint_hash=checkpoints.digest(self._params),
            revision=provenance.revision(),
            code=audit.code_hash(),
            device=jax.devices()[0].device_kind,
        )


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
        "agrees": all(each.clean for each in found),
        "disagreements": sum(len(each.twin) for each in found),
        "other_weights": sum(len(each.checkpoint) for each in found),
        "tolerance": "1e-6 of equity; decisions exactly",
    }
