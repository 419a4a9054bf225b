"""Re-derivation: what the float64 twin makes of recorded bars and requests, and where it differs.

Requests and bars are what the twin starts from; every field of the record and every entry of the
observations must follow from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jules_jax.config import Config, Safeguards
from jules_jax.env.observation import OBSERVATION_LIMIT, READY_COOLDOWN
from jules_jax.env.record import StepRecord
from jules_jax.evaluation.audit.columns import (
    BAR_COLUMNS,
    FIELDS,
    OBSERVATION_COLUMNS,
    Array,
    number_column,
)
from jules_jax.evaluation.audit.manifest import Facts
from jules_jax.evaluation.audit.reading import Episodes
from jules_jax.evaluation.twin import Disagreement, compare, replay
from jules_jax.market.table import NUM_MARKET_ENTRIES

SECTIONS = ("account", "fills", "safeguards", "reward")
OBSERVED_TOLERANCE = 1e-4
"""Absolute, of the account's entries of an observation; that of the open P&L, a logarithm of two
prices in units of σ, also `PRICE_ROUNDING` of a price over σ."""
PRICE_ROUNDING = 2e-6
MARKET = slice(0, NUM_MARKET_ENTRIES)


def rederive(episodes: Episodes, facts: Facts, *, nudge: ArrayLike = 0.0) -> StepRecord:
    """The record `[N, T]` that the twin makes of the bars and requests; `nudge` is the twin's.

    Zeros after an episode's recorded end, as after a termination.
    """
    count, rows, width = episodes.bars.shape
    first = np.arange(count) * rows
    drawn = {key: episodes.starts[number_column(key)] for key in facts.numbers}
    sections = numbers_of_steps(facts.config, episodes.progress, drawn)
    begun = numbers_of_steps(facts.config, episodes.starts["progress"], drawn)["fills"]
    with np.errstate(all="ignore"):  # what a damaged bar leads to is compared, not warned of
        twin = replay(
            episodes.bars.reshape(-1, width),
            first,
            np.asarray(episodes.record.request) + 1,
            **sections,
            progress=episodes.progress,
            bar_seconds=facts.bar_seconds,
            symbols=episodes.starts["symbol"],
            times=episodes.starts["start_time"],
            fills_at_start=begun,
            nudge=nudge,
        )
    shift = (episodes.starts["start_row"] - first)[:, None]
    twin = dataclasses.replace(twin, row=twin.row + shift)
    live = episodes.live & (twin.time > 0)
    return _map_fields(lambda values: np.where(live, values, values.dtype.type(0)), twin)


def numbers_of_steps(config: Config, progress: Array, drawn: Mapping[str, Array]) -> dict[str, Any]:
    """The environment's sections at each `progress` `[...]`, with what episodes drew `[N]`."""
    sections: dict[str, Any] = {name: getattr(config, name) for name in SECTIONS}
    if config.schedules:
        unique, place = np.unique(progress, return_inverse=True)
        at = [config.at(float(share)) for share in unique]
        for key in [key for each in config.schedules for key in each.parameters]:
            section, _, leaf = key.partition(".")
            if section in SECTIONS:
                values = np.array([getattr(getattr(one, section), leaf) for one in at])
                moved = values[place].reshape(progress.shape)
                sections[section] = dataclasses.replace(sections[section], **{leaf: moved})
    for key, values in drawn.items():
        section, _, leaf = key.partition(".")
        sections[section] = dataclasses.replace(sections[section], **{leaf: values})
    return sections


def disagreements(
    episodes: Episodes, facts: Facts, *, most: int = 20
) -> Iterator[tuple[Disagreement, str]]:
    """Where the recording first disagrees with the twin, one of each episode, `most` at most.

    With the kind: `record` or `observation`. An episode whose equity came closer to the edge
    between two sizes than float32 rounds its costs may go either way there, and counts as agreeing
    if it agrees with the twin nudged across.
    """
    twin, capital = rederive(episodes, facts), facts.config.account.initial_capital
    found = 0
    while found < most:
        first = compare(episodes.record, twin, initial_capital=capital)
        if first is None:
            break
        lane = first.lane
        nudged = _agreeing_nudged(_episode(episodes, lane), _lane(twin, lane), first.step, facts)
        if nudged is None:
            yield first, "record"
            found += 1
        for name in FIELDS:
            getattr(twin, name)[lane] = 0 if nudged is None else getattr(nudged, name)[0]
    yield from ((each, "observation") for each in _misseen(episodes, twin, facts)[: most - found])


def _map_fields(function: Any, record: StepRecord) -> StepRecord:
    return StepRecord(**{name: function(np.asarray(getattr(record, name))) for name in FIELDS})


def _lane(record: StepRecord, lane: int) -> StepRecord:
    return _map_fields(lambda values: values[[lane]], record)


def _episode(episodes: Episodes, lane: int) -> Episodes:
    """One episode of them."""
    arrays: dict[str, Any] = {
        field.name: getattr(episodes, field.name)[[lane]]
        for field in dataclasses.fields(Episodes)
        if isinstance(getattr(episodes, field.name), np.ndarray)
    }
    starts = {name: values[[lane]] for name, values in episodes.starts.items()}
    names = (episodes.symbol_names[lane],)
    return dataclasses.replace(
        episodes, **arrays, record=_lane(episodes.record, lane), starts=starts, symbol_names=names
    )


def _agreeing_nudged(
    episode: Episodes, twin: StepRecord, step: int, facts: Facts
) -> StepRecord | None:
    """The twin of one episode, nudged by the rounding of its costs, if that one agrees."""
    capital = facts.config.account.initial_capital
    costs = [getattr(twin, name)[0, : step + 1] for name in FIELDS if name.startswith("cost_")]
    rounding = np.finfo(np.float32).eps * np.abs(costs).sum() / capital
    for nudge in (-rounding, rounding):
        nudged = rederive(episode, facts, nudge=nudge)
        if compare(episode.record, nudged, initial_capital=capital) is None:
            return nudged
    return None


def _misseen(episodes: Episodes, twin: StepRecord, facts: Facts) -> list[Disagreement]:
    """The first entry of an observation in each episode that does not follow; where twin is live.

    The market's are those of the bar decided on, bit for bit.
    """
    expected, tolerance = _observations(episodes, twin, facts)
    live = np.asarray(twin.time) > 0
    found = episodes.observations.astype(np.float64)
    wrong = live[:, :, None] & ~(abs(found - expected) <= tolerance)
    firsts = []
    for lane in np.flatnonzero(wrong.any(axis=(1, 2))).tolist():
        step, entry = (int(place) for place in np.argwhere(wrong[lane])[0])
        values = float(found[lane, step, entry]), float(expected[lane, step, entry])
        firsts.append(Disagreement(lane, step, OBSERVATION_COLUMNS[entry], *values))
    return firsts


def _observations(episodes: Episodes, twin: StepRecord, facts: Facts) -> tuple[Array, Array]:
    """What every request was to be made on, `[N, T, 12]`, and how far off it may be."""
    config = facts.config
    sections = numbers_of_steps(config, episodes.progress, {})
    limits: Safeguards = sections["safeguards"]
    market = episodes.bars[:, :-1, len(BAR_COLUMNS) - NUM_MARKET_ENTRIES :].astype(np.float64)
    bars_held, direction = _histories(episodes, twin)
    position, close = np.asarray(twin.position), np.asarray(twin.mark_price)
    sigma = np.maximum(episodes.bars[:, 1:, BAR_COLUMNS.index("bar_sigma")], 1e-30)
    scale = sigma.astype(np.float64) * np.sqrt(np.maximum(bars_held, 1))
    with np.errstate(all="ignore"):
        entry = np.maximum(np.where(position == 0, close, twin.average_entry_price), 1e-30)
        open_pnl = np.sign(position) * np.log(close / entry) / scale
    soft = np.asarray(limits.soft_dd_pct, np.float32).astype(np.float64)
    depth = np.asarray(twin.drawdown) / soft
    fraction = np.asarray(twin.cooldown_left) / max(limits.trade_cooldown_steps - 1, 1)
    largest = np.maximum(np.where(position == 0, 0, twin.lot), 1) * config.account.max_position_lots
    own = np.stack(
        [
            open_pnl,
            np.where(twin.locked, -depth, depth),
            direction * (READY_COOLDOWN + (1 - READY_COOLDOWN) * fraction),
            position / largest,
        ],
        axis=-1,
    )
    own = np.clip(own, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)
    before = np.concatenate([np.zeros_like(own[:, :1]), own[:, :-1]], axis=1)
    tolerance = np.full((*market.shape[:2], market.shape[2] + 4), OBSERVED_TOLERANCE)
    tolerance[:, :, MARKET] = 0.0
    tolerance[:, 1:, NUM_MARKET_ENTRIES] += PRICE_ROUNDING / scale[:, :-1]
    return np.concatenate([market, before], axis=-1), tolerance


def _histories(episodes: Episodes, twin: StepRecord) -> tuple[Array, Array]:
    """Bars held, and the direction of the session's last order of its own will, after each step."""
    position, before = np.asarray(twin.position), np.asarray(twin.position_before)
    voluntary = (np.asarray(twin.quantity) != 0) & ~np.asarray(twin.forced)
    opens = episodes.bars[:, 1:, BAR_COLUMNS.index("bar_session_open")] > 0
    held, last = (np.zeros(len(position), np.int64) for _ in range(2))
    bars_held, direction = (np.zeros(position.shape, np.int64) for _ in range(2))
    for t in range(position.shape[1]):
        held = np.where(position[:, t] == 0, 0, np.where(before[:, t] == 0, 0, held) + 1)
        last = np.where(opens[:, t], 0, last)
        last = np.where(voluntary[:, t], np.sign(twin.quantity[:, t]), last)
        bars_held[:, t], direction[:, t] = held, last
    return bars_held, direction
