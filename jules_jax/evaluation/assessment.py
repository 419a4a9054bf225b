"""Assessment: a trained policy, greedy and sampled, beside the reference policies.

All play the same accounts: same prices, same costs, same account.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jules_jax.agent import network, policy
from jules_jax.config import Config
from jules_jax.env.params import make_params
from jules_jax.evaluation import (
    candidates,
    ledger,
    prices,
    reference_policies,
    scores,
    unseen,
)
from jules_jax.evaluation.ledger import Ledger, Record
from jules_jax.evaluation.prices import Chunk, Prices
from jules_jax.evaluation.reference_policies import Reference, Truth
from jules_jax.evaluation.scores import Accounts, Days, Score

Say = Callable[[int, int], None]
"""Told after each chunk how many accounts of how many have been played."""
Recorder = Callable[[Chunk], Record | None]
"""Asked before each chunk who is to be given every step of the policies of `policy.trained`."""


@dataclass(frozen=True)
class Assessment:
    """What every policy did on the same accounts, by the policies' names, trained ones first.

    what: a sentence on each policy. notes: what was found on the way.
    """

    prices: Prices
    accounts: Accounts
    ledgers: dict[str, Ledger]
    kinds: dict[str, str]
    what: dict[str, str]
    notes: tuple[str, ...]

    def figures(self, name: str, *, symbol: int | None = None) -> dict[str, Score]:
        """The scores of a policy, over all accounts or those of one symbol."""
        return scores.scores(self.ledgers[name], self.accounts, symbol=symbol)

    @property
    def symbols(self) -> list[int]:
        """Numbers of the symbols that there are accounts of."""
        numbers: list[int] = np.unique(self.accounts.symbol).tolist()
        return numbers

    def net_pnl(self, name: str) -> Score:
        """What a policy nets, dollars an account."""
        return scores.net_pnl(self.ledgers[name].sums["pnl/net"], self.accounts)

    def beyond(self, name: str, other: str) -> Score:
        """What a policy nets beyond another one, dollars an account, on the same accounts."""
        ours, theirs = (self.ledgers[each].sums["pnl/net"] for each in (name, other))
        return scores.net_pnl(ours - theirs, self.accounts)

    def days(self, name: str, *, symbol: int | None = None) -> Days:
        """Daily net returns of a policy, of all symbols together or of one."""
        accounts, net = self.accounts, self.ledgers[name].sums["pnl/net"]
        if symbol is not None:
            accounts, chosen = accounts.of_symbol(symbol)
            net = net[chosen]
        return scores.days(net, accounts)

    def stopped(self, name: str) -> int:
        """Accounts of a policy that a hard breach has ended, where it ends an episode."""
        breaches = self.ledgers[name].totals("risk/hard_breaches")
        ends = self.prices.config.safeguards.terminate_on_hard
        return int(np.count_nonzero(breaches)) if ends else 0


def joined(parts: Sequence[Assessment]) -> Assessment:
    """Assessments on recorded bars, one after the other in time, as one.

    An account is of a symbol and a draw; where one of the tests lacks a symbol, its accounts are
    not there, and move nothing. Each begins every test with the same capital. Raises `ValueError`
    where a test does not begin after the one before has ended, or policies or capital differ.
    """
    ground = prices.joined([part.prices for part in parts])
    first, names = parts[0], list(parts[0].ledgers)
    if any(list(part.ledgers) != names for part in parts):
        raise ValueError(f"found {[list(part.ledgers) for part in parts]}, expected the same")
    if len({part.accounts.capital for part in parts}) != 1:
        raise ValueError(f"found capitals {[p.accounts.capital for p in parts]}, expected one")
    places = [_places(part, ground.symbols) for part in parts]
    symbols = sorted({symbol for place in places for _, symbol in place})
    keys = [(draw, symbol) for draw in range(ground.draws) for symbol in symbols]
    rows = [np.array([place.get(key, -1) for key in keys]) for place in places]
    own = [(part.accounts, one, one[:, None] >= 0) for part, one in zip(parts, rows, strict=True)]
    draw, symbol = np.array(keys).T
    accounts = Accounts(
        symbol,
        draw,
        np.concatenate([each.complete[row] & known for each, row, known in own], axis=1),
        first.accounts.capital,
        max(each.bars for each, _, _ in own),
        dated=True,
        there=np.concatenate([each.present[row] & known for each, row, known in own], axis=1),
    )
    ledgers = {
        name: ledger.in_sequence([part.ledgers[name] for part in parts], rows) for name in names
    }
    notes = [f"fold {number}: {note}" for number, part in enumerate(parts) for note in part.notes]
    ground = dataclasses.replace(ground, accounts=len(keys))
    return Assessment(ground, accounts, ledgers, first.kinds, first.what, tuple(notes))


def _places(part: Assessment, symbols: Sequence[str]) -> dict[tuple[int, int], int]:
    """The accounts of an assessment by draw and by the symbol's number among `symbols`."""
    numbers = [symbols.index(name) for name in part.prices.symbols]
    pairs = zip(part.accounts.draw.tolist(), part.accounts.symbol.tolist(), strict=True)
    return {(draw, numbers[symbol]): row for row, (draw, symbol) in enumerate(pairs)}


def best_reference(kinds: Mapping[str, str], net: Mapping[str, float]) -> str:
    """The reference policy that nets most; the oracle, which knows what nobody can, is none."""
    return max((name for name, kind in kinds.items() if kind == "reference"), key=net.__getitem__)


def assess(
    config: Config,
    params: network.Params,
    prices: Prices,
    *,
    say: Say = lambda done, of: None,
    recorder: Recorder = lambda chunk: None,
) -> Assessment:
    """Plays all accounts of `prices`, chunk by chunk, with the network's policies and the others.

    config: with schedules at their end, as `Config.for_evaluation` gives it.
    """
    greedy, sampled = policy.trained(config.network)
    own = [
        Reference(greedy.name, greedy, params, "trained", "does what it would most likely do"),
        Reference(sampled.name, sampled, params, "trained", "draws what it does, as in training"),
    ]
    kept: dict[str, list[Ledger]] = {}
    listed: dict[str, Reference] = {}
    chunks: list[tuple[Any, ...]] = []
    matched: candidates.Matched | None = None
    picked: tuple[str, Truth] | None = None
    for chunk in prices.chunks():
        _keep(own, chunk, prices, kept, recorder(chunk))
        if matched is None:
            matched = _matched(chunk, kept[greedy.name][0])
        picked = _truth(chunk, picked)
        others = reference_policies.references(
            chunk.config, chunk.market, chunk.starts,
            probabilities=matched.probabilities,
            trained=(greedy, params),
            truth=picked[1] if picked else None,
        )  # fmt: skip
        _keep(others, chunk, prices, kept)
        listed |= {each.name: each for each in (*own, *others)}
        chunks.append((chunk.starts.symbol, chunk.draw, chunk.complete, chunk.session_bars))
        say(sum(len(each[0]) for each in chunks), prices.accounts)
    symbol, draw, complete, bars = zip(*chunks, strict=True)
    accounts = Accounts(
        np.concatenate(symbol), np.concatenate(draw), np.concatenate(complete),
        config.account.initial_capital, max(bars), bool(prices.labels),
    )  # fmt: skip
    assert matched is not None
    notes = [matched.sentence(), *([f"the oracle: {picked[0]}"] if picked else [])]
    return Assessment(
        prices, accounts,
        {name: ledger.joined(parts) for name, parts in kept.items()},
        {name: each.kind for name, each in listed.items()},
        {name: each.what for name, each in listed.items()},
        tuple(notes),
    )  # fmt: skip


def _keep(
    players: Sequence[Reference],
    chunk: Chunk,
    prices: Prices,
    kept: dict[str, list[Ledger]],
    record: Record | None = None,
) -> None:
    """Plays a chunk and adds its ledgers; of no more than is told of, so that many accounts fit."""
    before = sum(len(each.equity) for each in kept.get(players[0].name, []))
    found = ledger.keep(
        [each.policy for each in players],
        [each.params for each in players],
        chunk,
        sessions_apart=bool(prices.labels),
        curves=ledger.CURVES - before,
        record=record,
    )
    for each, one in zip(players, found, strict=True):
        kept.setdefault(each.name, []).append(one)


def _matched(chunk: Chunk, played: Ledger) -> candidates.Matched:
    """Random orders that turn over as much as what was played on the chunk."""
    wanted = {name: played.totals(name) for name in ("trade/turnover", "trade/orders")}
    env_params = make_params(chunk.config, chunk.market)
    return candidates.matched_turnover(env_params, chunk.starts, chunk.key, wanted)


def _truth(chunk: Chunk, picked: tuple[str, Truth] | None) -> tuple[str, Truth] | None:
    """The oracle of a chunk of simulated paths, with the thresholds of the first one's."""
    if chunk.key_paths is None:
        return None
    feed = unseen.fresh_feed(chunk.config, len(chunk.starts.row))
    if picked is None:
        return candidates.oracle(feed, chunk.key_paths, chunk.starts)
    drift = candidates.true_drift(feed, chunk.key_paths, chunk.starts)
    return picked[0], picked[1]._replace(drift=drift)
