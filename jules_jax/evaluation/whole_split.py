"""A whole split: one account per symbol and draw, from its first session to its last."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax.agent.policy import Policy
from jules_jax.env.metrics import step_metrics
from jules_jax.env.record import StepRecord
from jules_jax.evaluation import audit_log
from jules_jax.evaluation.backtest import Starts
from jules_jax.market import feed, splits
from jules_jax.market.dataset import Dataset
from jules_jax.market.rows import Rows
from jules_jax.market.splits import Dates, Split
from jules_jax.market.table import MarketData

PADDING = 512
"""Steps that a length is rounded up to, so that splits of nearly one length share a program."""
FILLS = ("trade/orders", "trade/forced_exits", "trade/session_liquidations")

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Accounts:
    """What accounts did in each session: `[K, Y, D]` float64 of K draws, Y symbols, D sessions.

    dates: `[D]`, of all symbols together; a symbol without a session on one of them has zeros.
    net, gross, traded: dollars; fills: a number. capital: dollars that each account begins with.
    stopped: `[K, Y]` bool, accounts that a hard breach ended before the split did.
    """

    dates: Dates
    symbols: tuple[str, ...]
    net: Float64
    gross: Float64
    traded: Float64
    fills: Float64
    capital: float
    stopped: NDArray[np.bool_]


class _Stretch(NamedTuple):
    """A symbol's rows `[B, C]` in the split, and the session date of each."""

    number: int
    rows: Rows
    dates: Dates


def play(
    who: Policy, weights: Any, dataset: Dataset, split: Split, key: jax.Array, *, draws: int = 1
) -> Accounts:
    """Plays `who` on every symbol of the split, `draws` times each, under the dataset's config.

    An account begins flat at the close of its first bar, goes on through all sessions with the
    policy's memory, and is left as it stands at the end. Raises `InputError` where the split has no
    room for an episode of any symbol.
    """
    stretches = _stretches(dataset, split)
    length = max(len(each.rows) for each in stretches) - 1
    steps = -(-length // PADDING) * PADDING
    market = _market(stretches, steps, dataset.sources[0].bars.bar_seconds)
    settings = dataclasses.replace(dataset.config.for_evaluation(), max_steps_in_episode=steps)
    log = audit_log.record_episodes(
        who, weights, settings, market, _starts(stretches, steps, draws), key
    )
    return _by_session(log.record, stretches, draws, settings.account.initial_capital, dataset)


def _stretches(dataset: Dataset, split: Split) -> list[_Stretch]:
    """Rows of the symbols that have room for an episode, as `Dataset.market` has them."""
    episode, found = dataset.config.max_steps_in_episode, []
    for number, starts in enumerate(dataset.plan(split).ranges):
        if starts is None:
            continue
        one = dataset.sources[number]
        history = splits.history(one.symbol, one.bars, one.time)
        rows = np.arange(starts[0], starts[1] + episode + 1)
        session = np.searchsorted(history.edges, rows, side="right") - 1
        table = np.array(dataset.rows_of(number)[rows[0] : rows[-1] + 1])
        found.append(_Stretch(number, table, history.dates[session]))
    return found


def _market(stretches: list[_Stretch], steps: int, bar_seconds: int) -> MarketData:
    """A table of `steps` + 1 rows a symbol; its last row is repeated, and that is not counted."""
    tables = [
        np.pad(each.rows, ((0, steps + 1 - len(each.rows)), (0, 0)), mode="edge")
        for each in stretches
    ]
    starts = [(each.number, 0, 0) for each in stretches]
    return feed.resident_market(tables, starts, np.ones(len(starts)), bar_seconds)


def _starts(stretches: list[_Stretch], steps: int, draws: int) -> Starts:
    """One start a symbol, all of them `draws` times."""
    place = np.tile(np.arange(len(stretches), dtype=np.int32), draws)
    numbers = np.array([each.number for each in stretches], np.int32)
    return Starts(place * np.int32(steps + 1), numbers[place], place)


def _by_session(
    record: StepRecord, stretches: list[_Stretch], draws: int, capital: float, dataset: Dataset
) -> Accounts:
    """Sums of the steps `[K·Y, T]` over the sessions that they executed in."""
    dates = np.unique(np.concatenate([each.dates[1:] for each in stretches]))
    shape = (draws, len(stretches), -1)
    measured = {name: np.asarray(value) for name, value in step_metrics(record).items()}
    measured["fills"] = np.sum([measured[name] for name in FILLS], axis=0)

    def summed(name: str) -> Float64:
        steps = measured[name].astype(np.float64).reshape(shape)
        sums = np.zeros((draws, len(stretches), len(dates)))
        for place, each in enumerate(stretches):
            executed = each.dates[1:]  # a step's bar is the one after that it was decided on
            session = np.searchsorted(dates, executed)
            for draw in range(draws):
                own = steps[draw, place, : len(executed)]
                sums[draw, place] = np.bincount(session, own, minlength=len(dates))
        return sums

    return Accounts(
        dates=dates,
        symbols=tuple(dataset.symbols[each.number] for each in stretches),
        net=summed("pnl/net"),
        gross=summed("pnl/gross"),
        traded=summed("trade/turnover"),
        fills=summed("fills"),
        capital=capital,
        stopped=_stopped(record, stretches, draws),
    )


def _stopped(record: StepRecord, stretches: list[_Stretch], draws: int) -> NDArray[np.bool_]:
    """Whether each account ended within its own steps, `[K, Y]`."""
    ended = np.asarray(record.terminated).reshape(draws, len(stretches), -1)
    own = [ended[:, place, : len(each.rows) - 1] for place, each in enumerate(stretches)]
    return np.stack([steps.any(axis=1) for steps in own], axis=1)
