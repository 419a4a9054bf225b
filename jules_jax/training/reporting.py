"""Reporting: a judgement written as a report, with where everything in it is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.evaluation import prices, report
from jules_jax.evaluation.report import content
from jules_jax.evaluation.report.content import Watched
from jules_jax.training import judgement, provenance, registry
from jules_jax.training.judgement import Judgement

PARTS = ("gates", "stress", "capacity", "sensitivity", "walk_forward")
"""Of a report that not every evaluation has."""


def claim(out: Path, *, trail: bool = False) -> None:
    """Makes the directory: that it cannot be written is better known before anything is played.

    trail: whether an audit is to be kept in it. Raises `InputError` where there is one, or where
    the directory cannot be made.
    """
    if trail and (out / "audit").exists():
        raise InputError(f"{out / 'audit'} exists already, expected another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None


def write(
    judged: Judgement,
    out: Path,
    *,
    watched: Sequence[Watched],
    replay: Mapping[str, Any],
    parts: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> list[Path]:
    """Writes report.html, report.json and the figures; returns the first two.

    watched: accounts of one policy that sessions are shown of, stretch after stretch. replay: as
    `report.schema.REPLAY`. parts: some of `PARTS`. notes: beyond those of the judgement. Raises
    `InputError` where `out` cannot be written.
    """
    policies = {name: dict(each) for name, each in judged.policies.items()}
    policies[watched[0].policy]["raster"] = content.raster(watched)
    whole = {
        "schema_version": report.schema.VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sentence": judged.sentence,
        "provenance": _provenance(judged, notes),
        "unit": judged.found.prices.unit,
        "scenario_unit": prices.episode(judged.settings),
        "policies": policies,
        "sessions_shown": content.shown(watched),
        "replay": dict(replay),
        **{name: parts.get(name) for name in PARTS},
    }
    return [file for file in report.write(whole, out) if file.suffix in (".html", ".json")]


def _provenance(judged: Judgement, notes: Sequence[str]) -> dict[str, Any]:
    settings, ground = judged.settings, judged.found.prices
    of = provenance.of(settings, jax.device_count())
    return {
        "checkpoint": "\n".join(str(each.checkpoint) for each in judged.weights),
        "checkpoint_hash": "\n".join(each.digest for each in judged.weights),
        "config_hash": registry.config_hash(config.to_dict(settings)),
        "code": of["revision"],
        "versions": of["versions"],
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "seeds": ground.draws,
        "episodes": ground.accounts,
        "market": ground.notes[0],
        "split": ground.split,
        "data_fingerprint": judgement.ground_key(settings, ground) if ground.labels else None,
        "notes": [*judged.notes, *notes, *ground.notes[1:]],
        "trials": judged.luck.trials,
        "test_openings": judgement.openings(settings),
    }
