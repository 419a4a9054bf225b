"""Content: what an assessment puts into `report.json` (see `schema`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jules_jax.env.record import StepRecord
from jules_jax.evaluation import assessment, scores
from jules_jax.evaluation.assessment import Assessment
from jules_jax.evaluation.ledger import BUCKET_MINUTES, Ledger
from jules_jax.evaluation.prices import Chunk, Prices
from jules_jax.evaluation.report import schema
from jules_jax.evaluation.scores import Score

Array = NDArray[Any]

BINS = 40
"""Of the histogram of daily returns."""
ROWS = 40
"""Sessions of the raster of requests, at most."""
BAND = (0.05, 0.95)
"""Quantiles over accounts or draws."""

REQUESTS = ("sell", "hold", "buy")


@dataclass(frozen=True)
class Luck:
    """What else was tried: trials ever trained, and their daily Sharpe ratios' variance.

    variance: None where too few trials have a track record on these days.
    """

    trials: int
    variance: float | None


def interval(score: Score) -> dict[str, float]:
    """As `schema.INTERVAL`."""
    return score._asdict()


def metrics(
    found: Assessment, name: str, luck: Luck, *, symbol: int | None = None
) -> dict[str, dict[str, float]]:
    """All figures of a policy, as `schema.METRICS`."""
    known = found.figures(name, symbol=symbol)
    known["dsr"] = scores.deflated(found.days(name, symbol=symbol), luck.trials, luck.variance)
    return {metric: interval(known[metric]) for metric in schema.METRICS}


def policies(found: Assessment, luck: Luck) -> dict[str, Any]:
    """Every policy, as `schema.POLICY`."""
    names = found.prices.symbols
    told = {}
    for name, ledger in found.ledgers.items():
        by_symbol = {}
        if len(names) > 1:
            by_symbol = {names[n]: metrics(found, name, luck, symbol=n) for n in found.symbols}
        told[name] = {
            "kind": found.kinds[name],
            "overall": metrics(found, name, luck),
            "symbols": by_symbol,
            "daily": _daily(found, name),
            "equity": _equity(ledger),
            "by_minute": _by_minute(ledger, found.accounts.bars),
            "returns_histogram": _histogram(found.days(name).returns),
            "reward_terms": _reward_terms(ledger),
            "requests": _requests(ledger),
            "raster": None,
        }
    return told


def _daily(found: Assessment, name: str) -> dict[str, Any]:
    labels = found.prices.labels
    if not labels:
        return {"labels": [], "net": [], "low": [], "high": []}
    dollars = scores.an_account(found.ledgers[name].sums["pnl/net"], found.accounts)
    low, high = np.quantile(dollars, BAND, axis=0)
    return {"labels": list(labels), "net": dollars.mean(axis=0), "low": low, "high": high}


def _equity(ledger: Ledger) -> dict[str, Any]:
    change = ledger.equity - 1.0
    low, high = np.quantile(change, BAND, axis=0)
    peak = np.maximum(np.maximum.accumulate(ledger.equity, axis=1), 1.0)
    return {
        "bar": ledger.points,
        "mean": change.mean(axis=0),
        "low": low,
        "high": high,
        "drawdown": ((peak - ledger.equity) / peak).mean(axis=0),
    }


def _by_minute(ledger: Ledger, bars: int) -> dict[str, Any]:
    sessions = ledger.by_time["steps"].sum() / bars
    net, orders = (ledger.by_time[name] for name in ("pnl/net", "trade/orders"))
    minutes = BUCKET_MINUTES * np.arange(len(net))
    return {"minute": minutes, "net": net / sessions, "orders": orders / sessions}


def _histogram(returns: Array) -> dict[str, Any]:
    values = returns.ravel()
    if not values.size:
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(values, bins=BINS)
    return {"edges": edges, "counts": counts / len(returns)}


def _reward_terms(ledger: Ledger) -> dict[str, float]:
    """Penalties and bonuses have one sign each, so that the size of their sum is that of them."""
    sizes = {term: np.abs(ledger.sums[f"reward/{term}"].sum()) for term in schema.REWARD_TERMS}
    sizes["equity_change"] = ledger.sums["reward/absolute_equity_change"].sum()
    total = sum(sizes.values())
    return {term: float(size / total) if total else 0.0 for term, size in sizes.items()}


def _requests(ledger: Ledger) -> dict[str, float]:
    steps = ledger.sums["steps"].sum()
    return {name: float(ledger.sums[f"action/{name}"].sum() / steps) for name in REQUESTS}


# -- sessions bar by bar -------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """Sessions of some accounts of one policy, bar by bar: `[N, T]` records.

    session, minute: of table rows; before, complete: of accounts, as `Chunk` has them. labels,
    symbols: as `Prices` has them.
    """

    policy: str
    record: StepRecord
    session: Array
    minute: Array
    before: Array
    complete: Array
    labels: tuple[str, ...]
    symbols: tuple[str, ...]

    def sessions(self) -> list[tuple[int, NDArray[np.intp]]]:
        """Accounts and the steps of each session that they see whole, in order."""
        found = []
        live = np.asarray(self.record.time) > 0
        rows = np.asarray(self.record.row)
        for account in range(len(rows)):
            place = self.session[rows[account]] - self.before[account]
            for session in np.flatnonzero(self.complete[account]):
                steps = np.flatnonzero(live[account] & (place == session))
                if len(steps):
                    found.append((account, steps))
        return found

    def label(self, account: int, steps: NDArray[np.intp]) -> str:
        """The date of a session, or which it is of an episode."""
        row = int(np.asarray(self.record.row)[account, steps[0]])
        session = int(self.session[row] - self.before[account])
        return self.labels[session] if self.labels else f"episode {account}, session {session}"

    def net(self, account: int, steps: NDArray[np.intp]) -> float:
        """Net P&L of a session, dollars."""
        return float(np.asarray(self.record.net_pnl, np.float64)[account, steps].sum())


def watched(policy: str, record: StepRecord, chunk: Chunk, prices: Prices) -> Watched:
    """Records `[N, T]` of the accounts of a chunk, and what is to be known of its rows."""
    return Watched(
        policy, record, chunk.session, chunk.minute, chunk.before, chunk.complete, prices.labels,
        prices.symbols,
    )  # fmt: skip


def shown(watched: Sequence[Watched]) -> list[dict[str, Any]]:
    """The sessions of lowest, median and highest net P&L of all, as `schema.SESSION`."""
    every = [(one, *session) for one in watched for session in one.sessions()]
    order = np.argsort([one.net(account, steps) for one, account, steps in every], kind="stable")
    chosen = [order[0], order[len(order) // 2], order[-1]] if len(order) else []
    accounts = len({(id(one), account) for one, account, _ in every})
    of = f"of {accounts} account{'' if accounts == 1 else 's'}"
    words = (f"worst {of}", f"median {of}", f"best {of}")
    return [
        _session(*every[place], word)
        for place, word in dict(zip(chosen, words, strict=False)).items()
    ]


def _session(watched: Watched, account: int, steps: NDArray[np.intp], word: str) -> dict[str, Any]:
    record = watched.record

    def of(name: str) -> Array:
        values: Array = np.asarray(getattr(record, name))[account, steps]
        return values

    unit = of("quantity_step")
    symbol = int(of("symbol")[0])
    names = watched.symbols
    fills = [
        {"bar": bar, "price": of(price)[bar], "quantity": of(name)[bar] * unit[bar], "forced": own}
        for name, price, forced in (
            ("quantity", "fill_price", of("forced")),
            ("close_quantity", "mark_price", np.ones(len(steps), bool)),
        )
        for bar, own in enumerate(forced.tolist())
        if of(name)[bar]
    ]
    return {
        "policy": watched.policy,
        "symbol": names[symbol] if symbol < len(names) else "simulated",
        "label": f"{watched.label(account, steps)} ({word})",
        "price": of("mark_price"),
        "position": of("position") * unit,
        "request": of("request"),
        "fills": sorted(fills, key=lambda fill: fill["bar"]),
        "net": of("net_pnl"),
    }


def raster(watched: Sequence[Watched]) -> dict[str, Any] | None:
    """What was asked for in each minute of some sessions, as `schema.RASTER`; None without any."""
    every = [(one, *session) for one in watched for session in one.sessions()]
    if not every:
        return None
    some = [every[place] for place in np.unique(np.linspace(0, len(every) - 1, ROWS).astype(int))]

    def minutes(one: Watched, account: int, steps: NDArray[np.intp]) -> Array:
        asked: Array = one.minute[np.asarray(one.record.row)[account, steps]]
        return asked

    columns = np.unique(np.concatenate([minutes(*each) for each in every]))
    lines = np.full((len(some), len(columns)), np.nan)
    for line, (one, account, steps) in zip(lines, some, strict=True):
        place = np.searchsorted(columns, minutes(one, account, steps))
        line[place] = np.asarray(one.record.request)[account, steps]
    labels = [one.label(account, steps) for one, account, steps in some]
    return {"labels": labels, "minute": columns, "request": lines}


# -- the sentence --------------------------------------------------------------------------------

FEWEST = 20
"""Episodes, or sessions of recorded bars, from which a gain is believed at all: the 95 % interval
of fewer is much too narrow (docs/evaluation.md)."""
CONFIDENT = 0.95
"""Probability from which a Sharpe ratio is said to be more than the luck of the trials."""


def sentence(found: Assessment, told: dict[str, Any], luck: Luck) -> str:
    """Whether the policy has anything, and how sure we are, in one sentence.

    It is about the first of the trained policies, the greedy one: that is decided beforehand. Where
    it does not trade, what the other one nets is added.
    """
    name, *others = (name for name, kind in found.kinds.items() if kind == "trained")
    own, real = told[name]["overall"], bool(found.prices.labels)
    net, gross = own["net_pnl"], own["gross_pnl"]
    every = {other: each["overall"]["net_pnl"]["value"] for other, each in told.items()}
    best = assessment.best_reference(found.kinds, every)
    money, account = f"{_dollars(net['value'])} {_bounds(net)}", _account(found.prices)
    if not own["turnover"]["value"]:
        edge = ", so it has no edge on real bars" if real else ""
        more = "".join(_beside(other, told[other]["overall"]) for other in others)
        return f"It does not trade{edge}: {name} earns and loses nothing ({account}){more}."
    where = f"{account} after all costs"
    if net["high"] < 0:
        edge = ", so it has no edge on real bars" if real else ""
        return (
            f"It loses{edge}: {name} nets {money} {where}; before costs {_dollars(gross['value'])}."
        )
    if net["low"] > 0 and (few := _too_few(found)):
        return f"{few} to say whether {name} earns: it nets {money} {where}."
    if not net["low"] > 0:
        edge = " on real bars" if real else ""
        because = "; what it earns before costs is paid away" if gross["low"] > 0 else ""
        return f"No edge after costs is shown{edge}: {name} nets {money} {where}{because}."
    beyond = found.beyond(name, best)
    if beyond.low > 0:
        versus = f"more than the best reference policy ({best}: {_dollars(every[best])})"
    elif beyond.high < 0:
        versus = f"but {best} earns more, {_dollars(every[best])}"
    else:
        versus = f"no more, as far as can be told, than {best} with {_dollars(every[best])}"
    if not real:
        return (
            f"It earns on these simulated prices: {name} nets {money} {where}, {versus}; of real "
            "prices this says nothing."
        )
    probability = own["dsr"]["value"]
    likely = f"probability {probability:.0%}" if np.isfinite(probability) else "unknown probability"
    chance = f"deflated by {luck.trials:,} trials its Sharpe ratio is above luck with {likely}"
    if not probability >= CONFIDENT:
        return f"It earned, but not beyond luck: {name} nets {money} {where}, {versus}; {chance}."
    return (
        f"It earned, and luck alone seldom does: {name} nets {money} {where}, {versus}; {chance}."
    )


def _too_few(found: Assessment) -> str:
    """How many there are, where those are too few; else nothing."""
    ground = found.prices
    count = len(ground.labels) if ground.labels else ground.accounts
    what = "session" if ground.labels else "episode"
    verb = "is" if count == 1 else "are"
    told = f"{count} {what}{'' if count == 1 else 's'} {verb} too few"
    return told if count < FEWEST else ""


def _account(ground: Prices) -> str:
    """What an account is; of joined tests, that they were unseen, and how many there are."""
    if not ground.windows:
        return f"an {ground.unit}"
    tests = f"{ground.windows} test window{'' if ground.windows == 1 else 's'}"
    return f"an account through {len(ground.labels):,} unseen sessions in {tests}"


def _beside(name: str, own: dict[str, Any]) -> str:
    """What a policy nets that trades while the one that counts does not."""
    if not own["turnover"]["value"]:
        return ""
    net = own["net_pnl"]
    verdict = "which is no edge either"
    if net["low"] > 0:
        verdict = "but it was not the one to be judged"
    return f"; {name}, which trades, nets {_dollars(net['value'])} {_bounds(net)}, {verdict}"


def _dollars(value: float) -> str:
    return f"{'-' if value < 0 else ''}${abs(value):,.2f}"


def _bounds(score: dict[str, float]) -> str:
    """Ends of the interval; too few episodes or days have none."""
    if not np.isfinite(score["low"]):
        return "[no interval]"
    return f"[{score['low']:,.2f}, {score['high']:,.2f}]"


def table(found: Assessment, told: dict[str, Any]) -> str:
    """The policies as text, one a line: means with 95 % intervals."""
    rows = [(
        found.prices.unit, "net P&L, $", "gross, $", "costs, bp", "Sharpe", "trades", "exposed",
        "drawdown", "reward",
    )]  # fmt: skip
    for name, each in told.items():
        own = {metric: value["value"] for metric, value in each["overall"].items()}
        net, sharpe = each["overall"]["net_pnl"], each["overall"]["sharpe"]
        rows.append((
            name,
            _told(f"{net['value']:,.2f} {_bounds(net)}", net["value"]),
            f"{own['gross_pnl']:,.2f}",
            _told(f"{own['cost_total_bp']:.2f}", own["cost_total_bp"]),
            _told(f"{sharpe['value']:.2f} ± {sharpe['error']:.2f}", sharpe["value"]),
            f"{own['trades_per_session']:.1f}",
            f"{own['exposure']:.0%}",
            f"{own['max_drawdown']:.2%}",
            f"{own['reward']:,.2f}",
        ))  # fmt: skip
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    head, *lines = [
        f"{name:<{first}}"
        + "".join(f"{cell:>{width + 2}}" for cell, width in zip(cells, widths, strict=True))
        for name, *cells in rows
    ]
    return "\n".join([head, "-" * len(head), *lines])


def _told(text: str, value: float) -> str:
    return text if np.isfinite(value) else "–"
