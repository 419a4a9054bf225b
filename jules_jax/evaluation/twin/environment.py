"""The environment in float64: docs/environment.md as plain NumPy, formula by formula.

An independent second implementation. It shares with `jules_jax.env` the names of parameters, table
columns and observables, and no formula; where the two disagree beyond rounding, one of them has
misread the specification. Vectorised over lanes, a plain loop over time. Comments give the step of
docs/environment.md that is being followed.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jules_jax.config import Account, Fills, Reward, Safeguards
from jules_jax.env.record import Outcome, StepRecord
from jules_jax.market.table import NEVER_CLOSES, Row

Array = NDArray[Any]
Fields = dict[str, Array]
Section = TypeVar("Section", Account, Fills, Safeguards, Reward)

YEAR_SECONDS = 365 * 86_400
REWARD_CAPITAL = 50_000.0
"""Rewards are per this much initial capital, dollars."""
EQUITY_GRID = 1024
"""Sizes are computed from equity in multiples of 1/1024 of initial capital."""
MOST_STEPS = 2**23
"""Quantity steps that no size exceeds."""
TIE = 2.0**-20
"""Equities this close count as equal: a holder's returns to a level whenever the price does."""


@dataclass(frozen=True)
class Params:
    """The sections of the configuration, floats as float64 scalars, `[N]` or `[N, T]`."""

    account: Account
    fills: Fills
    safeguards: Safeguards
    reward: Reward
    progress: Array
    nudge: Array
    bar_seconds: int

    def at(self, t: int) -> Params:
        """Those of step t, scalars or `[N]`."""
        moved: dict[str, Any] = {
            name: _of_step(getattr(self, name), t)
            for name in ("account", "fills", "safeguards", "reward")
        }
        return replace(self, **moved, progress=_at(self.progress, t))


@dataclass(frozen=True)
class Book:
    """What the market remembers of our trades, shares `[N]`: U, E⁺ and E⁻."""

    volume: Array
    ask: Array
    bid: Array


@dataclass(frozen=True)
class Lanes:
    """What each lane carries from step to step, `[N]`; equities in units of initial capital."""

    equity: Array
    peak: Array
    trough: Array  # of the present purgatory, or of the last one
    high: Array  # highest equity since the trough
    purgatory: Array
    locked: Array
    lock_left: Array
    disarmed: Array
    release_equity: Array
    warning_run: Array
    soft_run: Array
    position: Array  # quantity steps
    lot: Array
    entry_price: Array
    trip_pnl: Array
    book: Book
    cooldown: Array
    direction: Array  # of the session's last voluntary fill
    fill_time: Array  # and its time
    chain: Array
    counted: Array  # the last request that counted
    repeats: Array
    bootstrapped: Array
    terminated: Array


def replay(
    rows: ArrayLike,
    start_rows: ArrayLike,
    actions: ArrayLike,
    *,
    account: Account,
    fills: Fills,
    safeguards: Safeguards,
    reward: Reward,
    progress: ArrayLike = 1.0,
    bar_seconds: int = 60,
    symbols: ArrayLike = 0,
    times: ArrayLike = 0,
    fills_at_start: Fills | None = None,
    nudge: ArrayLike = 0.0,
) -> StepRecord:
    """Plays `actions` in float64 and returns every observable of every step, `[N, T]`.

    Parameters are rounded to float32 first, as the compiled environment sees them. A lane that has
    terminated has zeros in all fields of all later steps, `time` included.

    Args:
      rows: `[R, C]` float32, the table; see `market.table.Row`.
      start_rows: `[N]` int, the rows on whose closes the episodes take their first decision.
      actions: `[N, T]` int, 0 sell, 1 hold, 2 buy; row start + T must exist.
      account: capital and limits; any float of a section may be an array `[N]`, or `[N, T]` where
        it moves from step to step.
      fills: costs.
      safeguards: risk limits.
      reward: reward terms.
      progress: share of training done, `[]`, `[N]` or `[N, T]`.
      bar_seconds: length of a bar.
      symbols: reported in the record, `[]` or `[N]`.
      times: steps on the episodes' clocks before the first one here, `[]` or `[N]`.
      fills_at_start: costs in force when the episodes began, where they have moved since.
      nudge: added to the equity that sizes are computed from, in units of initial capital, `[]` or
        `[N]`. A billionth tells whether a size sat on the edge between two multiples of 1/1024,
        where two programs that round differently may disagree.
    """
    rows, starts = np.asarray(rows, np.float32), np.asarray(start_rows)
    requests = np.asarray(actions, np.int64) - 1
    params = Params(
        _as_float64(account),
        _as_float64(fills),
        _as_float64(safeguards),
        _as_float64(reward),
        _exact(progress),
        np.asarray(nudge, np.float64),
        bar_seconds,
    )
    begun = params.fills if fills_at_start is None else _as_float64(fills_at_start)
    kyle_lambda = _kyle_lambda(_read(rows, starts), begun)
    lanes, steps = _start(len(starts)), []
    for t in range(requests.shape[1]):
        live, bar = ~lanes.terminated, _read(rows, starts + t + 1)
        after, fields = _step(bar, lanes, requests[:, t], kyle_lambda, t + 1, params.at(t))
        fields |= {"row": starts + t + 1, "symbol": np.broadcast_to(symbols, starts.shape)}
        fields["time"] = fields["time"] + times
        steps.append({name: np.where(live, value, 0 * value) for name, value in fields.items()})
        lanes = replace(after, terminated=lanes.terminated | after.terminated)
    names = [field.name for field in dataclasses.fields(StepRecord)]
    columns: dict[str, Any] = {n: np.stack([step[n] for step in steps], axis=1) for n in names}
    flags = [name for name in names if fields[name].dtype == bool]
    return StepRecord(**columns | {name: columns[name].astype(bool) for name in flags})


def _exact(value: ArrayLike) -> Array:
    """The float64 number that equals the value's float32 rounding."""
    return np.asarray(value, np.float32).astype(np.float64)


def _as_float64(section: Section) -> Section:
    floats = [f.name for f in dataclasses.fields(section) if f.type == "float"]
    exact: dict[str, Any] = {name: _exact(getattr(section, name)) for name in floats}
    return replace(section, **exact)


def _at(value: Any, t: int) -> Any:
    return value[:, t] if np.ndim(value) == 2 else value


def _of_step(section: Section, t: int) -> Section:
    """The section with the numbers of step t where they move."""
    moving: dict[str, Any] = {
        name: _at(value, t) for name, value in vars(section).items() if np.ndim(value) == 2
    }
    return replace(section, **moving) if moving else section


def _read(rows: Array, index: Array) -> Row:
    """The scalar columns of the rows, float64 `[N]`, in the tuple that names them."""
    scalars = len(Row._fields) - 1
    columns: list[Any] = [*rows[index, :scalars].astype(np.float64).T, rows[index, scalars:]]
    return Row(*columns)


def _start(lanes: int) -> Lanes:
    zero, none, off = np.zeros(lanes), np.zeros(lanes, np.int64), np.zeros(lanes, bool)
    one = np.ones(lanes)
    state: dict[str, Any] = {f.name: none for f in dataclasses.fields(Lanes)}
    state |= dict.fromkeys(("equity", "peak", "trough", "high", "release_equity"), one)
    state |= dict.fromkeys(("purgatory", "locked", "disarmed", "bootstrapped", "terminated"), off)
    state |= dict.fromkeys(("entry_price", "trip_pnl"), zero)
    return Lanes(**state | {"book": Book(zero, zero, zero)})


def _kyle_lambda(start: Any, fills: Fills) -> Array:
    """λ of an episode, dollars per share per share, from its start row."""
    structural = fills.permanent_share * fills.impact_prefactor / np.sqrt(fills.reference_size)
    star = structural
    if fills.lambda_source == "rolling":
        estimate = start.kyle_lambda_before
        clipped = np.clip(estimate, structural / 4, structural * 4)
        star = np.where(estimate == 0, structural, clipped)
    sigma_day = start.sigma * np.sqrt(start.bars_per_session)
    kyle_lambda: Array = star * sigma_day * start.close / start.adv_before
    return kyle_lambda


def _step(
    bar: Any, lanes: Lanes, request: Array, kyle_lambda: Array, time: int, params: Params
) -> tuple[Lanes, Fields]:
    """One step of all lanes: the state after it, and the fields of its record."""
    before, released = _open_bar(bar, lanes)
    decision = _decide(bar, before, request, params)
    decision |= _cap(bar, before, decision, kyle_lambda, params)
    lanes, trade = _trade(bar, before, decision["quantity"], kyle_lambda, params)
    lanes, money = _settle(before, lanes, decision, trade, params)
    lanes, guards = _guard(lanes, params)
    lanes, terms = _reward(before, lanes, request, decision, trade | money, time, params)
    terminated = params.safeguards.terminate_on_hard & lanes.locked & (lanes.position == 0)
    lanes = replace(lanes, terminated=terminated)
    fields = decision | trade | money | guards | terms
    fields |= {
        "time": np.full(request.shape, time),
        "request": request,
        "position_before": before.position,
        "position": lanes.position,
        "lock_released": released,
        "kyle_lambda": kyle_lambda,
        "kyle_lambda_rolling": bar.kyle_lambda_before,
        "terminated": terminated,
        "quantity_step": bar.quantity_step,
        "reference_price": bar.open,
        "mark_price": bar.close,
        "sigma": bar.sigma_before,
        "expected_volume": bar.expected_volume,
        "adv": bar.adv_before,
        "volume": bar.volume,
    }
    return lanes, fields


def _open_bar(bar: Any, lanes: Lanes) -> tuple[Lanes, Array]:
    """Steps 2 and 3: what a new session forgets, and the release of the entry lock."""
    opens = bar.session_open > 0
    kept = (~opens).astype(np.int64)
    book = Book(*(kept * memory for memory in (lanes.book.volume, lanes.book.ask, lanes.book.bid)))
    forgotten: dict[str, Any] = {
        name: kept * getattr(lanes, name)
        for name in ("cooldown", "direction", "chain", "counted", "repeats")
    }
    continuous = bar.minutes_left >= NEVER_CLOSES
    served = continuous & (lanes.lock_left == 0) & (lanes.position == 0)
    released = lanes.locked & (opens | served)
    lanes = replace(
        lanes,
        **forgotten,
        book=book,
        locked=lanes.locked & ~released,
        lock_left=np.maximum(lanes.lock_left - 1, 0),
        disarmed=lanes.disarmed | released,
        release_equity=np.where(released, lanes.equity, lanes.release_equity),
    )
    return lanes, released


def _decide(bar: Any, lanes: Lanes, request: Array, params: Params) -> Fields:
    """Step 4: the overrides, the first of which that applies decides."""
    account, held, asks = params.account, lanes.position != 0, request != 0
    nearest = np.floor((lanes.equity + params.nudge) * EQUITY_GRID + 0.5)
    lot_when_flat = _floor_quotient(
        (account.position_size_pct, nearest, account.initial_capital),
        (EQUITY_GRID, bar.previous_close, bar.quantity_step),
    )
    lot = np.where(held, lanes.lot, np.maximum(lot_when_flat, 0))
    lots = np.sign(lanes.position) * -(-abs(lanes.position) // np.maximum(lot, 1))
    rung, lowest = lots + request, -account.max_position_lots if account.allow_short else 0
    closing = bar.minutes_left <= params.safeguards.flat_by_minutes
    opens, cooling = bar.session_open > 0, lanes.cooldown > 0
    rules = (
        (held & lanes.locked, Outcome.HARD_LIQUIDATION),
        (held & closing, Outcome.FLAT_BY),
        (asks & opens, Outcome.CANCELLED_AT_CLOSE),
        (asks & closing, Outcome.FLAT_BY),
        (asks & lanes.locked, Outcome.ENTRY_LOCKED),
        (asks & cooling, Outcome.COOLDOWN),
        (asks & ((rung < lowest) | (rung > account.max_position_lots)), Outcome.LADDER_LIMIT),
        (asks & (lot == 0), Outcome.LOT_TOO_SMALL),
        (asks, Outcome.EXECUTED),
    )
    outcome = np.select([rule for rule, _ in rules], [int(o) for _, o in rules], int(Outcome.NONE))
    forced = held & (lanes.locked | closing)
    moved = np.where(outcome == Outcome.EXECUTED, rung * lot, lanes.position)
    return {
        "lot": lot,
        "outcome": outcome,
        "forced": forced,
        "action_matters": ~(lanes.locked | closing | opens | cooling),
        "wanted": np.where(forced, 0, moved) - lanes.position,
    }


def _cap(bar: Any, lanes: Lanes, decision: Fields, kyle_lambda: Array, params: Params) -> Fields:
    """Step 5: participation, then size and cash; and the outcome of an order they leave nothing."""
    account, held, wanted = params.account, lanes.position, decision["wanted"]
    largest = _floor_quotient((params.fills.max_participation, bar.volume), (bar.quantity_step,))
    traded = np.sign(wanted) * np.minimum(abs(wanted), largest)
    costs = _costs(bar.open, traded, held, lanes.book, bar, kyle_lambda, params.fills)
    gap_pnl = held * bar.quantity_step * (bar.open - bar.previous_close)
    equity = lanes.equity + (gap_pnl - _total(costs)) / account.initial_capital + params.nudge
    rooms = [
        _floor_quotient(
            (share, np.floor(equity * EQUITY_GRID), account.initial_capital),
            (EQUITY_GRID, bar.open, bar.quantity_step),
        )
        for share in (account.max_position_size_pct, 1.0 - account.min_cash_reserve_pct)
    ]
    room = np.maximum(np.minimum(*rooms), abs(held))
    adds = (held == 0) | (np.sign(traded) == np.sign(held))
    kept = np.sign(traded) * np.minimum(abs(traded), room - abs(held))
    quantity = np.where(adds, kept, traded)
    outcome = decision["outcome"]
    outcome = np.where((traded != 0) & (quantity == 0), int(Outcome.CASH_LIMIT), outcome)
    outcome = np.where((wanted != 0) & (traded == 0), int(Outcome.NO_VOLUME), outcome)
    return {
        "outcome": outcome,
        "quantity": quantity,
        "capped_by_participation": traded != wanted,
        "capped_by_cash": quantity != traded,
    }


def _half_spread(price: Array, bar: Any, fills: Fills) -> Array:
    """Half-spread h of a trade at `price`, in return units."""
    configured = fills.bid_ask_spread_bps / 2 / 1e4
    if fills.spread_shape == "intraday":
        early = 1 + 2.5 * np.exp(-bar.minute / 8)
        configured = configured * early * np.sqrt(bar.sigma_before / bar.sigma_long_before)
    quoted = np.where(bar.half_spread > 0, bar.half_spread, configured)
    half_spread: Array = np.maximum(quoted, bar.tick / (2 * price))
    return half_spread


def _costs(
    price: Array, quantity: Array, held: Array, book: Book, bar: Any, kyle_lambda: Array, f: Fills
) -> Fields:
    """Dollars that a trade of `quantity` at `price` costs a holder of `held` (quantity steps)."""
    signed, position = quantity * bar.quantity_step, held * bar.quantity_step
    size, value = abs(signed), price * abs(signed)
    usual, adv = bar.expected_volume, bar.adv_before
    withdrawn = ((book.volume + size) / usual) ** 1.5 - (book.volume / usual) ** 1.5
    displaced = np.where(signed > 0, book.ask, book.bid)
    power = 1 + f.impact_exponent
    depth = (1 - f.permanent_share) * f.impact_prefactor
    depth = depth * bar.sigma_before * np.sqrt(bar.bars_per_session)
    pushed = ((displaced + size) / adv) ** power - (displaced / adv) ** power
    rate = f.fee_bps + np.where(signed < 0, f.sell_fee_bps, 0.0)
    return {
        "cost_spread": value * _half_spread(price, bar, f),
        "cost_temporary": 2 / 3 * price * f.temporary_impact * bar.sigma_before * usual * withdrawn,
        "cost_transient": price * depth * adv / power * pushed,
        "cost_permanent": kyle_lambda * (position * signed + signed**2 / 2),
        "cost_fees": value * rate / 1e4,
    }


def _total(costs: Fields) -> Array:
    return reduce(np.add, costs.values())


def _grown(book: Book, signed: Array) -> Book:
    """The book after a trade of `signed` shares."""
    return Book(
        book.volume + abs(signed),
        book.ask + np.maximum(signed, 0),
        book.bid + np.maximum(-signed, 0),
    )


def _trade(
    bar: Any, lanes: Lanes, quantity: Array, kyle_lambda: Array, params: Params
) -> tuple[Lanes, Fields]:
    """Steps 6 to 9: the fill at the open, the book's decay, the mark, the session's end."""
    fills, step, held = params.fills, bar.quantity_step, lanes.position
    costs = _costs(bar.open, quantity, held, lanes.book, bar, kyle_lambda, fills)
    impact = _total({name: cost for name, cost in costs.items() if name != "cost_fees"})
    shares = abs(quantity) * step
    per_share = impact / np.where(quantity != 0, shares, 1)
    grown = _grown(lanes.book, quantity * step)
    decayed = Book(
        fills.temporary_impact_decay * grown.volume,
        fills.impact_decay * grown.ask,
        fills.impact_decay * grown.bid,
    )
    held_after = held + quantity
    price_pnl = held * step * (bar.close - bar.previous_close)
    price_pnl = price_pnl + quantity * step * (bar.close - bar.open)
    short_value = np.maximum(-held_after, 0) * step * bar.open
    borrow = short_value * params.account.borrow_rate * params.bar_seconds / YEAR_SECONDS
    closing = np.where(bar.session_close > 0, -held_after, 0)
    close_costs = _costs(bar.close, closing, held_after, decayed, bar, kyle_lambda, fills)
    book = _grown(decayed, closing * step)
    costs = {name: cost + close_costs[name] for name, cost in costs.items()}
    costs["cost_borrow"] = borrow
    return replace(lanes, position=held_after + closing, book=book), {
        "close_quantity": closing,
        "half_spread": _half_spread(bar.open, bar, fills),
        "fill_price": np.where(quantity != 0, bar.open + np.sign(quantity) * per_share, 0.0),
        "recent_volume": book.volume,
        "displaced_ask": book.ask,
        "displaced_bid": book.bid,
        "price_pnl": price_pnl,
        **costs,
        "net_pnl": price_pnl - _total(costs),
    }


def _settle(
    before: Lanes, lanes: Lanes, decision: Fields, trade: Fields, params: Params
) -> tuple[Lanes, Fields]:
    """Step 10, and the cooldown of step 6: equity, entry price, round trip."""
    quantity, position = decision["quantity"], lanes.position
    size_before, size = abs(before.position), abs(before.position + quantity)
    paid = before.entry_price * size_before + trade["fill_price"] * abs(quantity)
    entry_price = np.where(size > size_before, paid / np.maximum(size, 1), before.entry_price)
    pnl = trade["net_pnl"] / params.account.initial_capital
    in_trip = (before.position != 0) | (quantity != 0)
    carried = np.where(before.position != 0, before.trip_pnl, 0.0)
    voluntary = (quantity != 0) & ~decision["forced"]
    started = max(params.safeguards.trade_cooldown_steps - 1, 0)
    lanes = replace(
        lanes,
        equity=before.equity + pnl,
        lot=decision["lot"],
        entry_price=np.where(position != 0, entry_price, 0.0),
        trip_pnl=np.where(in_trip, carried + pnl, 0.0),
        cooldown=np.where(voluntary, started, np.maximum(before.cooldown - 1, 0)),
    )
    return lanes, {
        "equity": lanes.equity,
        "average_entry_price": lanes.entry_price,
        "trip_pnl": lanes.trip_pnl,
        "trip_closed": in_trip & (position == 0),
        "cooldown_left": lanes.cooldown,
    }


def _guard(lanes: Lanes, params: Params) -> tuple[Lanes, Fields]:
    """The safeguards on the equity after the step."""
    limits, equity, held = params.safeguards, lanes.equity, lanes.position != 0
    trough = np.where(lanes.purgatory & (equity < lanes.trough - TIE), equity, lanes.trough)
    recovered = (trough > 0) & (equity >= (1 + limits.purgatory_escape_threshold_pct) * trough)
    escaped = lanes.purgatory & ((equity > lanes.peak + TIE) | recovered)
    peak = np.where(escaped, equity, np.maximum(lanes.peak, equity))
    drawdown = (peak - equity) / peak
    entered = ~lanes.purgatory & (drawdown > limits.soft_dd_pct)
    trough = np.where(entered, equity, trough)
    floor = (1 - limits.hard_dd_pct) * lanes.release_equity
    beyond = np.where(lanes.disarmed, equity <= floor, drawdown > limits.hard_dd_pct)
    breach = beyond & ~lanes.locked
    lock_steps = 60 * limits.lock_minutes // params.bar_seconds
    warned = held & (drawdown - limits.soft_dd_pct > limits.early_warning_excess)
    lanes = replace(
        lanes,
        peak=peak,
        trough=trough,
        purgatory=(lanes.purgatory & ~escaped) | entered,
        locked=lanes.locked | breach,
        lock_left=np.where(breach, lock_steps, lanes.lock_left),
        disarmed=lanes.disarmed & ~(drawdown < limits.soft_dd_pct),
        warning_run=np.where(warned, lanes.warning_run + 1, 0),
        soft_run=np.where(held & (drawdown > limits.soft_dd_pct), lanes.soft_run + 1, 0),
    )
    return lanes, {
        "equity_peak": peak,
        "trough": trough,
        "drawdown": drawdown,
        "in_purgatory": lanes.purgatory,
        "purgatory_entered": entered,
        "escaped": escaped,
        "hard_breach": breach,
        "locked": lanes.locked,
        "early_warning": lanes.warning_run > limits.early_warning_steps,
        "soft_breach_run": lanes.soft_run,
    }


def _reward(
    before: Lanes,
    lanes: Lanes,
    request: Array,
    decision: Fields,
    trade: Fields,
    time: int,
    params: Params,
) -> tuple[Lanes, Fields]:
    """The reward's terms, in reward units and signed so that they sum to the reward."""
    p = params.reward
    lanes, chained, paid = _alternate(before, lanes, decision, trade, time, p)
    counts = np.isin(decision["outcome"], (Outcome.EXECUTED, Outcome.LADDER_LIMIT))
    repeated = np.where(request == before.counted, before.repeats + 1, 1)
    repeats = np.where(request == 0, 0, np.where(counts, repeated, before.repeats))
    over = np.where(counts, np.clip(repeats - 2, 0, p.same_action_cap), 0)
    weight, drawdown_paid = _drawdown_term(lanes, params)
    new_trough = ~before.purgatory | (lanes.equity < before.trough - TIE)
    recovered = ~new_trough & (lanes.equity > before.high + TIE)
    proud = trade["trip_closed"] & (trade["trip_pnl"] > TIE) & ~before.bootstrapped
    pnl = trade["net_pnl"] / params.account.initial_capital
    terms = {
        "reward_equity_change": REWARD_CAPITAL * pnl,
        "reward_action_change": -p.action_change_penalty_factor * paid,
        "reward_same_action": -p.same_action_penalty_factor * over,
        "reward_drawdown": -drawdown_paid,
        "reward_recovery_bonus": p.recovery_bonus_amount * recovered,
        "reward_bootstrap_bonus": p.bootstrap_bonus_amount * proud,
    }
    terms = {name: p.reward_scaling * term for name, term in terms.items()}
    lanes = replace(
        lanes,
        counted=np.where(counts, request, before.counted),
        repeats=repeats,
        high=np.where(new_trough | recovered, lanes.equity, before.high),
        bootstrapped=before.bootstrapped | proud,
    )
    return lanes, {
        **chained,
        "repeats": repeats,
        "drawdown_weight": np.broadcast_to(weight, request.shape),
        **terms,
        "reward": _total(terms),
    }


def _alternate(
    before: Lanes,
    lanes: Lanes,
    decision: Fields,
    trade: Fields,
    time: int,
    reward: Reward,
) -> tuple[Lanes, Fields, Array]:
    """Whether the step's fill alternates, its k, and the multiple of the penalty that it pays."""
    quantity, forced = decision["quantity"], decision["forced"]
    filled, direction = (quantity != 0) & ~forced, np.sign(quantity)
    alternation = filled & (direction == -before.direction)
    recent = alternation & (time - before.fill_time <= reward.thrash_window)
    chain = np.where(recent, before.chain, 0) + alternation
    chain = np.where(filled, chain, before.chain)
    reduces = alternation & (direction == -np.sign(before.position))
    paid = np.where(reduces, np.minimum(chain, reward.action_change_cap), 0)
    exited = (forced & (quantity != 0)) | (trade["close_quantity"] != 0)
    lanes = replace(
        lanes,
        direction=np.where(filled, direction, before.direction),
        fill_time=np.where(filled, time, before.fill_time),
        chain=np.where(exited, 0, chain),
    )
    return lanes, {"alternation": alternation, "chain": chain}, paid


def _drawdown_term(lanes: Lanes, params: Params) -> tuple[Array, Array]:
    """The weight, and the term in dollars per 50,000 of capital."""
    p, limits = params.reward, params.safeguards
    drawdown = (lanes.peak - lanes.equity) / lanes.peak
    scheduled = np.minimum(params.progress / p.drawdown_schedule, 1.0)
    weight = p.drawdown_weight_start + scheduled * (p.drawdown_weight_end - p.drawdown_weight_start)
    excess = np.maximum(drawdown - limits.soft_dd_pct, 0)
    beyond = np.maximum(drawdown - limits.hard_dd_pct, 0)
    gain = 1 + p.drawdown_gain * np.tanh(p.drawdown_gain_slope * beyond)
    term = np.minimum(weight * gain * excess**2, p.drawdown_cap)
    return weight, np.where(lanes.position != 0, term, 0.0)


def _floor_quotient(numerators: tuple[Any, ...], denominators: tuple[Any, ...]) -> Array:
    """Floor of a product over a product, exact for the numbers given, as int64 `[N]`.

    It stays from 0 to `MOST_STEPS`. Where the float64 quotient is too close to an integer to tell,
    rational arithmetic decides.
    """
    factors = np.broadcast_arrays(*numerators, *denominators)
    above, below = factors[: len(numerators)], factors[len(numerators) :]
    quotient = reduce(np.multiply, above) / reduce(np.multiply, below)
    floor: Array = np.floor(np.clip(quotient, -1, 2.0**62)).astype(np.int64)
    for lane in np.flatnonzero(abs(quotient - np.rint(quotient)) <= 1e-14 * abs(quotient)):
        exact = [[Fraction(float(factor[lane])) for factor in side] for side in (above, below)]
        floor[lane] = math.prod(exact[0]) // math.prod(exact[1])
    return np.clip(floor, 0, MOST_STEPS)
