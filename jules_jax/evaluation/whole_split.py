"""A whole split: one account per symbol and draw, from its first session to its last."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jules_jax.agent.policy import Policy
from jules_jax.evaluation import ledger, prices
from jules_jax.evaluation.scores import FILLS
from jules_jax.market.dataset import Dataset
from jules_jax.market.splits import Dates, Split

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


def play(
    who: Policy, weights: Any, dataset: Dataset, split: Split, key: jax.Array, *, draws: int = 1
) -> Accounts:
    """Plays `who` on every symbol of the split, `draws` times each, under the dataset's config.

    An account begins flat at the close of its first bar, goes on through all sessions with the
    policy's memory, and is left as it stands at the end. Raises `InputError` where the split has no
    bars of any symbol.
    """
    final = dataclasses.replace(dataset, config=dataset.config.for_evaluation())
    chunk, dates = prices.through(final, split, draws, key)
    (played,) = ledger.keep([who], [weights], chunk)
    shape = (draws, -1, len(dates))
    symbols = chunk.starts.symbol[chunk.draw == 0]
    lived = played.totals("steps").reshape(shape[:2])
    assert chunk.starts.steps is not None
    return Accounts(
        dates=dates,
        symbols=tuple(dataset.symbols[number] for number in symbols),
        net=played.sums["pnl/net"].reshape(shape),
        gross=played.sums["pnl/gross"].reshape(shape),
        traded=played.sums["trade/turnover"].reshape(shape),
        fills=np.sum([played.sums[name] for name in FILLS], axis=0).reshape(shape),
        capital=final.config.account.initial_capital,
        stopped=lived < chunk.starts.steps.reshape(shape[:2]),
    )
