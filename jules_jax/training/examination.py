"""Examination: a checkpoint judged on prices that it has not seen, from its weights to the report.

Everything that is told of it is played here, and a sample is re-derived in the float64 twin: where
that disagrees, nothing that was told is to be believed, and the command fails.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jules_jax import config
from jules_jax.agent import network
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.evaluation import (
    assessment,
    audit,
    backtest,
    comparison,
    overfitting,
    prices,
    report,
    robustness,
    track_records,
)
from jules_jax.evaluation.assessment import Assessment
from jules_jax.evaluation.audit import recording
from jules_jax.evaluation.prices import Chunk, Prices
from jules_jax.evaluation.report import content
from jules_jax.evaluation.report.content import Luck, Watched
from jules_jax.evaluation.statistics import interquartile_mean
from jules_jax.market import dataset, stress
from jules_jax.market.splits import Split
from jules_jax.training import (
    acceptance,
    checkpoints,
    market,
    provenance,
    registry,
    run_directory,
    run_history,
)

Say = Callable[[str], None]
Extras = dict[str, list[dict[str, Any]]]

REPLAYED = 200
"""Episodes of each trained policy that the twin re-derives, unless all are to be."""
WATCHED = 32
"""Accounts whose sessions may be shown bar by bar, and fill the raster."""
EXTRA_EPISODES = 256
"""Episodes of every policy in a scenario, at a capital, with another parameter."""
FEWEST_TRIALS = 10
FEWEST_BLOCKS = 16
"""Trials and sessions from which the probability of backtest overfitting is told."""


@dataclass(frozen=True)
class Asked:
    """What an examination is to do beyond playing.

    episodes: on simulated paths; draws: accounts of each symbol on recorded bars. audited: how many
    episodes, or which share of them, are kept in `out`/audit; 0: none. extras: of stress, capacity
    and sensitivity, those asked for.
    """

    split: Split = "validation"
    episodes: int = 1024
    draws: int = 8
    out: Path | None = None
    audited: float = 0.0
    replay_all: bool = False
    extras: tuple[str, ...] = ()


def examine(
    settings: config.Config, checkpoint: Path, params: network.Params, asked: Asked, say: Say
) -> bool:
    """Plays, prints, checks and writes; whether the twin agrees.

    settings: of the checkpoint, with what was changed. Raises `InputError` where prices, registry
    or `asked.out` cannot be had.
    """
    final = settings.for_evaluation()
    ground = _prices(final, asked)
    if asked.out:
        _claim(asked.out, trail=bool(asked.audited))
    if asked.split == "test" and settings.market.data:
        run_history.opened_test_split(settings, checkpoint)
        say(f"test split  opened {_openings(settings)} times so far, this one included")
    for note in ground.notes:
        say(f"prices      {note}")
    with tqdm(total=ground.accounts, desc="accounts", leave=False, disable=None) as bar:
        found = assessment.assess(
            final, params, ground, say=lambda done, of: bar.update(done - bar.n) and None
        )
    runs_dir = Path(settings.runs_dir)
    luck, notes = _luck(found, settings, checkpoint, params, runs_dir, ground)
    told = content.policies(found, luck)
    sentence = content.sentence(found, told, luck)
    say(f"\n{content.table(found, told)}\n\n{sentence}")
    for note in (*found.notes, *notes):
        say(f"note        {note}")
    extras: Extras = {}
    for name in asked.extras:
        extras[name], text = _extra(name, final, params, asked.split)
        say(f"\n{text}")
    with ExitStack() as stack:
        place = asked.out / "audit" if asked.out and asked.audited else None
        trail = place or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "audit"
        watched = _record(final, checkpoint, params, ground, asked, trail)
        result = audit.verify(trail, params)
    say(f"\n{audit.report(result)}")
    if place:
        say(f"wrote {place}; check it with: python -m jules_jax.audit verify {place}")
    if asked.out:
        shown = watched[0]
        told[shown.policy]["raster"] = content.raster(shown)
        replay = {
            "episodes": result.episodes,
            "steps": result.steps,
            "disagreements": len(result.twin),
            "tolerance": "1e-6 of equity; decisions exactly",
        }
        whole = {
            "schema_version": report.schema.VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "sentence": sentence,
            "provenance": _provenance(
                settings, checkpoint, params, ground, luck, [*found.notes, *notes]
            ),
            "unit": ground.unit,
            "scenario_unit": prices.episode(final),
            "policies": told,
            "sessions_shown": content.shown(shown),
            "replay": replay,
            "gates": _gates(settings, checkpoint),
            **{name: extras.get(name) for name in EXTRAS},
            "walk_forward": None,
        }
        for file in report.write(whole, asked.out):
            if file.suffix in (".html", ".json"):
                say(f"wrote {file}")
    return result.clean


def _claim(out: Path, *, trail: bool) -> None:
    """Makes the directory: that it cannot be written is better known before anything is played."""
    if trail and (out / "audit").exists():
        raise InputError(f"{out / 'audit'} exists already, expected another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None


def _prices(final: config.Config, asked: Asked) -> Prices:
    if final.market.data:
        return prices.recorded(final, asked.split, asked.draws)
    return prices.simulated(final, asked.episodes)


# -- luck ----------------------------------------------------------------------------------------


def _luck(
    found: Assessment,
    settings: config.Config,
    checkpoint: Path,
    params: network.Params,
    runs_dir: Path,
    ground: Prices,
) -> tuple[Luck, list[str]]:
    """What the trials so far make of the figures; on recorded bars this evaluation joins them."""
    trials = run_history.trials(run_history.runs(registry.read(runs_dir)))
    if not ground.labels:
        return Luck(max(trials, 1), None), []
    key = _ground_key(settings, ground)
    for name in (name for name, kind in found.kinds.items() if kind == "trained"):
        own = [config.to_dict(settings), name]
        record = track_records.trial(
            registry.config_hash({"of": own}),
            checkpoints.digest(params)[:12],
            ground.labels,
            interquartile_mean(found.days(name).returns, axis=0),
        )
        runs_dir.mkdir(parents=True, exist_ok=True)
        track_records.append(runs_dir, key, record)
    matrix, names = track_records.read(runs_dir, key, ground.labels)
    luck = Luck(max(trials, len(names)), _known(overfitting.variance_across_trials(matrix)))
    notes = [
        f"{luck.trials:,} trials are counted against the Sharpe ratio, {len(names)} of them "
        "with returns on these sessions"
    ]
    if len(names) >= FEWEST_TRIALS and len(matrix) >= FEWEST_BLOCKS:
        cross = overfitting.probability_of_backtest_overfitting(matrix)
        notes.append(
            f"probability of backtest overfitting {cross.pbo:.0%} (cross-validation over "
            f"{len(names)} trials)"
        )
    else:
        notes.append(
            f"the probability of backtest overfitting needs {FEWEST_TRIALS} trials and "
            f"{FEWEST_BLOCKS} sessions, and there are {len(names)} and {len(matrix)}"
        )
    return luck, notes


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _ground_key(settings: config.Config, ground: Prices) -> str:
    """Names the sessions that track records are of: the bars by content, and the split."""
    text = json.dumps([market.fingerprint(settings.market), ground.split], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- what is recorded step by step ---------------------------------------------------------------


def _record(
    final: config.Config,
    checkpoint: Path,
    params: network.Params,
    ground: Prices,
    asked: Asked,
    directory: Path,
) -> list[Watched]:
    """Writes the trained policies' first episodes; those of the first few are returned as well."""
    kept = recording.lanes_of(asked.audited, ground.accounts)
    wanted = ground.accounts if asked.replay_all else max(kept, min(REPLAYED, ground.accounts))
    first = next(ground.chunks())
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
    watched = []
    with audit.Writer(directory, facts) as writer:
        left = wanted
        for chunk in ground.chunks():
            some = _some(chunk, min(left, len(chunk.starts.row)))
            for who in assessment.trained(final):
                audit.record_episodes(
                    writer, who, params, chunk.config, chunk.market, some.starts, chunk.key,
                    times=chunk.time if ground.labels else None,
                )  # fmt: skip
            left -= len(some.starts.row)
            if left <= 0:
                break
    one_draw = int(np.count_nonzero(first.draw == 0))  # another one would be much the same
    few = _some(first, min(WATCHED, one_draw))
    env_params = make_params(few.config, few.market)
    for who in assessment.trained(final):
        played = recording.play(who, params, env_params, few.starts, few.key)
        watched.append(Watched(who.name, recording.whole(played.record), few, ground))
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


# -- stress, capacity, sensitivity ---------------------------------------------------------------

EXTRAS = ("stress", "capacity", "sensitivity")


def _extra(
    name: str, final: config.Config, params: network.Params, split: Split
) -> tuple[list[dict[str, Any]], str]:
    """Lines of one of `EXTRAS`, and their table: episodes of usual length, not whole splits."""
    players = robustness.contenders(final, params)
    key_paths, key = jax.random.split(jax.random.fold_in(jax.random.key(final.seed), EXTRA_KEY))
    if final.market.data:
        source = dataset.load(final)
        held_out = source.market(split)
        starts = backtest.without_overlap(
            np.asarray(held_out.episodes), EXTRA_EPISODES, final.max_steps_in_episode
        )
        scenes = stress.of_split(source, split)
    else:
        feed = comparison.fresh_feed(final, EXTRA_EPISODES)
        held_out = feed.fresh(key_paths)
        starts = backtest.one_per_stretch(np.asarray(held_out.episodes), EXTRA_EPISODES, final.seed)
        scenes = stress.of_fresh_paths(feed, key_paths)
    match name:
        case "stress":
            lines = robustness.stress(final, players, scenes, starts, key)
            return lines, robustness.stress_table(lines)
        case "capacity":
            lines = robustness.capacity(final, players, held_out, starts, key)
            return lines, robustness.capacity_table(lines)
        case _:
            lines = robustness.sensitivity(final, players, held_out, starts, key)
            return lines, robustness.sensitivity_table(lines)


EXTRA_KEY = 15
"""Folded into the seed's key for the prices and draws of scenarios."""


def _openings(settings: config.Config) -> int:
    """How often test splits have been looked at, by the registry."""
    runs = run_history.runs(registry.read(Path(settings.runs_dir)))
    return sum(each.test_openings for each in runs)


# -- where it is from ----------------------------------------------------------------------------


def _provenance(
    settings: config.Config,
    checkpoint: Path,
    params: network.Params,
    ground: Prices,
    luck: Luck,
    notes: list[str],
) -> dict[str, Any]:
    of = provenance.of(settings, jax.device_count())
    return {
        "checkpoint": str(checkpoint),
        "checkpoint_hash": checkpoints.digest(params),
        "config_hash": registry.config_hash(config.to_dict(settings)),
        "code": of["revision"],
        "versions": of["versions"],
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "seeds": ground.draws,
        "episodes": ground.accounts,
        "market": ground.notes[0],
        "split": ground.split,
        "data_fingerprint": _ground_key(settings, ground) if ground.labels else None,
        "notes": [*notes, *ground.notes[1:]],
        "trials": luck.trials,
        "test_openings": _openings(settings),
    }


def _gates(settings: config.Config, checkpoint: Path) -> dict[str, Any] | None:
    """The verdict of the checkpoint's run, or of the directory it was shared in, if it has one."""
    run = acceptance.run_of(checkpoint, settings)
    for place in (run, checkpoint.parent):
        if place is not None and (file := place / run_directory.GATES_FILE).is_file():
            verdict: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return verdict
    return None
