"""One step of an episode: a decision on the close of bar t, executed in bar t+1.

Pure functions of a small state; the table row of bar t+1 is all they see of the market. The order
of a step: request → overrides → caps → fill at the open → decay of the book → mark at the close →
session-end liquidation → safeguards → reward → flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jules_jax.env import account as accounts
from jules_jax.env import fills, reward, safeguards, twofloat
from jules_jax.env.account import Holding
from jules_jax.env.fills import Book, Costs, Liquidity
from jules_jax.env.params import EnvParams
from jules_jax.env.record import Outcome, StepRecord
from jules_jax.env.reward import Habits, RewardTerms
from jules_jax.env.safeguards import RiskEvents, RiskState
from jules_jax.env.staging import make_stage
from jules_jax.env.twofloat import TwoFloat
from jules_jax.market.table import Row

SECONDS_PER_YEAR = 365 * 24 * 3600


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EnvState:
    """State of an episode; every leaf is a scalar (`time` first, as gymnax has it)."""

    time: jax.Array  # int32 steps done
    row: jax.Array  # int32 table row of bar t, the last one seen
    start_row: jax.Array  # int32 where the episode began
    symbol: jax.Array  # int32
    kyle_lambda: jax.Array  # dollars per share per share, constant in an episode
    cooldown_left: jax.Array  # int32 coming decisions that will be refused
    bootstrap_paid: jax.Array  # bool
    holding: Holding
    book: Book
    habits: Habits
    risk: RiskState
    numbers: dict[str, jax.Array] = field(default_factory=dict)  # drawn for this episode, by key


class Order(NamedTuple):
    """An order after overrides and caps."""

    quantity: jax.Array  # int32 signed quantity steps to fill
    lot: jax.Array  # int32 quantity steps
    outcome: jax.Array  # int32 Outcome
    forced: jax.Array  # bool
    action_matters: jax.Array  # bool
    capped_by_participation: jax.Array  # bool
    capped_by_cash: jax.Array  # bool


def initial_state(row: Row, row_index: jax.Array, symbol: jax.Array, params: EnvParams) -> EnvState:
    """Flat at the close of `row`, with the initial capital."""
    return EnvState(
        time=jnp.zeros((), jnp.int32),
        row=row_index.astype(jnp.int32),
        start_row=row_index.astype(jnp.int32),
        symbol=symbol.astype(jnp.int32),
        kyle_lambda=fills.episode_lambda(row, params.fills),
        cooldown_left=jnp.zeros((), jnp.int32),
        bootstrap_paid=jnp.zeros((), bool),
        holding=accounts.empty_holding(),
        book=fills.empty_book(),
        habits=reward.initial_habits(),
        risk=safeguards.initial_risk(),
    )


def _begin_session(state: EnvState, opens: jax.Array) -> tuple[Book, Habits, jax.Array]:
    """Book, habits and cooldown are forgotten when a session opens."""
    fresh = (fills.empty_book(), reward.initial_habits(), jnp.zeros((), jnp.int32))
    current = (state.book, state.habits, state.cooldown_left)
    book, habits, cooldown = jax.tree.map(lambda a, b: jnp.where(opens, a, b), fresh, current)
    return book, habits, cooldown


def _target(
    state: EnvState,
    row: Row,
    request: jax.Array,
    locked: jax.Array,
    cooldown: jax.Array,
    params: EnvParams,
) -> Order:
    """The order as asked for and overridden, before caps on its size."""
    position = state.holding.position
    price_seen = row.previous_close
    new_lot = accounts.lot_size(state.holding.equity, price_seen, row.quantity_step, params.account)
    lot = jnp.where(position == 0, new_lot, state.holding.lot)
    ladder, allowed = accounts.ladder_target(position, lot, request, params.account)

    flat_by = row.minutes_left <= params.safeguards.flat_by_minutes
    cancelled = row.session_open > 0
    forced = (locked | flat_by) & (position != 0)
    asks = request != 0
    conditions = [
        (forced & locked, Outcome.HARD_LIQUIDATION),
        (forced, Outcome.FLAT_BY),
        (asks & cancelled, Outcome.CANCELLED_AT_CLOSE),
        (asks & flat_by, Outcome.FLAT_BY),
        (asks & locked, Outcome.ENTRY_LOCKED),
        (asks & (cooldown > 0), Outcome.COOLDOWN),
        (asks & ~allowed, Outcome.LADDER_LIMIT),
        (asks & (lot == 0), Outcome.LOT_TOO_SMALL),
        (asks, Outcome.EXECUTED),
    ]
    outcome = jnp.int32(Outcome.NONE)
    for condition, name in reversed(conditions):
        outcome = jnp.where(condition, jnp.int32(name), outcome)
    wanted = jnp.where(outcome == Outcome.EXECUTED, ladder - position, 0)
    return Order(
        quantity=jnp.where(forced, -position, wanted),
        lot=lot,
        outcome=outcome,
        forced=forced,
        action_matters=~(locked | flat_by | cancelled | (cooldown > 0)),
        capped_by_participation=jnp.zeros((), bool),
        capped_by_cash=jnp.zeros((), bool),
    )


def _cap(
    order: Order,
    state: EnvState,
    row: Row,
    market: Liquidity,
    book: Book,
    params: EnvParams,
) -> Order:
    """The order cut to the bar's volume and to the size and cash limits, as they hold after costs.

    Cash is checked with the costs of the larger, uncut order, an upper bound of the final ones.
    """
    position = state.holding.position
    available = twofloat.floor_ratio(
        twofloat.product(params.fills.max_participation, row.volume),
        twofloat.from_float(row.quantity_step),
    )
    size = jnp.minimum(jnp.abs(order.quantity), available)
    direction = jnp.sign(order.quantity)
    by_volume = size < jnp.abs(order.quantity)

    shares = (direction * size).astype(jnp.float32) * row.quantity_step
    held = position.astype(jnp.float32) * row.quantity_step
    costs = fills.trade_costs(shares, held, row.open, market, book, state.kyle_lambda, params.fills)
    gap = _price_pnl(position, row.open, row.previous_close, row.quantity_step)
    change = twofloat.divide(twofloat.less(gap, costs), params.account.initial_capital)
    equity = twofloat.plus(state.holding.equity, change)
    limit = accounts.largest_position(equity, row.open, row.quantity_step, params.account)
    adds = direction * jnp.sign(position) >= 0
    room = jnp.maximum(limit - jnp.abs(position), 0)
    allowed = jnp.where(adds, jnp.minimum(size, room), size)
    by_cash = allowed < size

    refused = (allowed == 0) & (order.quantity != 0)
    no_volume = refused & (size == 0)
    outcome = jnp.where(refused, jnp.int32(Outcome.CASH_LIMIT), order.outcome)
    outcome = jnp.where(no_volume, jnp.int32(Outcome.NO_VOLUME), outcome)
    return order._replace(
        quantity=direction * allowed,
        outcome=jnp.where(order.forced & ~no_volume, order.outcome, outcome),
        capped_by_participation=by_volume,
        capped_by_cash=by_cash,
    )


def _price_pnl(
    position: jax.Array, price: jax.Array, price_before: jax.Array, step: jax.Array
) -> TwoFloat:
    """Dollars that `position` quantity steps gain from `price_before` to `price`."""
    move = twofloat.gap(price, price_before)
    return twofloat.times(twofloat.times(move, position.astype(jnp.float32)), step)


def _zero_unless(condition: jax.Array, costs: Costs) -> Costs:
    return Costs(*(jnp.where(condition, cost, 0.0) for cost in costs))


class Execution(NamedTuple):
    """A step's trades and their money; dollars."""

    close_quantity: jax.Array  # int32, liquidated at the session's close
    position: jax.Array  # int32 after the step
    fill_price: jax.Array
    costs: Costs  # of both trades
    borrow: jax.Array
    price_pnl: TwoFloat
    book: Book


def _execute(
    order: Order, state: EnvState, row: Row, market: Liquidity, book: Book, params: EnvParams
) -> Execution:
    """Fills at the open, decays the book, marks at the close, liquidates at a session's end."""
    step = row.quantity_step
    held = state.holding.position.astype(jnp.float32) * step
    shares = order.quantity.astype(jnp.float32) * step
    costs = fills.trade_costs(shares, held, row.open, market, book, state.kyle_lambda, params.fills)
    costs = _zero_unless(order.quantity != 0, costs)
    slippage = costs.total() - costs.fees
    size = jnp.maximum(jnp.abs(shares), step)
    fill_price = jnp.where(order.quantity != 0, row.open + jnp.sign(shares) * slippage / size, 0.0)
    book = fills.decay(fills.displace(book, shares), params.fills)
    position = state.holding.position + order.quantity
    held_after = position.astype(jnp.float32) * step
    price_pnl = twofloat.plus(
        _price_pnl(state.holding.position, row.close, row.previous_close, step),
        _price_pnl(order.quantity, row.close, row.open, step),
    )
    years = params.market.bar_seconds / SECONDS_PER_YEAR
    borrow = jnp.maximum(-held_after, 0.0) * row.open * (params.account.borrow_rate * years)

    liquidated = (row.session_close > 0) & (position != 0)
    close_shares = jnp.where(liquidated, -held_after, 0.0)
    at_close = fills.liquidity(row, row.close, params.fills)
    close_costs = fills.trade_costs(
        close_shares, held_after, row.close, at_close, book, state.kyle_lambda, params.fills
    )
    close_costs = _zero_unless(liquidated, close_costs)
    return Execution(
        close_quantity=jnp.where(liquidated, -position, 0),
        position=jnp.where(liquidated, 0, position),
        fill_price=fill_price,
        costs=jax.tree.map(jnp.add, costs, close_costs),
        borrow=borrow,
        price_pnl=price_pnl,
        book=fills.displace(book, close_shares),
    )


class Settlement(NamedTuple):
    """The account after a step."""

    holding: Holding
    net_pnl: TwoFloat  # dollars
    change: TwoFloat  # of equity, in units of initial capital
    trip_pnl: jax.Array  # of the open round trip, or of the one just closed
    trip_closed: jax.Array  # bool


def _settle(state: EnvState, order: Order, done: Execution, params: EnvParams) -> Settlement:
    holding = state.holding
    net_pnl = twofloat.less(done.price_pnl, (*done.costs, done.borrow))
    change = twofloat.divide(net_pnl, params.account.initial_capital)
    after_open = holding.position + order.quantity
    entry = accounts.average_entry(holding, order.quantity, after_open, done.fill_price)
    equity = twofloat.plus(holding.equity, change)
    before = twofloat.select(holding.position == 0, holding.equity, holding.equity_before)
    flat = done.position == 0
    closed = flat & ((holding.position != 0) | (after_open != 0))
    opened = holding.position == 0
    held_bars = jnp.where(opened, 0, holding.bars_held) + 1
    settled = Holding(
        position=done.position,
        lot=jnp.where(flat, 0, order.lot),
        average_entry_price=jnp.where(flat, 0.0, entry),
        bars_held=jnp.where(flat, 0, held_bars),
        equity=equity,
        equity_before=before,
    )
    trip_pnl = jnp.where(flat & ~closed, 0.0, twofloat.difference(equity, before))
    return Settlement(settled, net_pnl, change, trip_pnl, closed)


class Judgement(NamedTuple):
    """A step's reward and what led to it."""

    terms: RewardTerms
    habits: Habits
    alternation: jax.Array  # bool
    chain: jax.Array  # int32 k
    weight: jax.Array  # of the drawdown term
    bootstrap: jax.Array  # bool: the first profitable round trip of the episode


def _is_voluntary(order: Order) -> jax.Array:
    return (order.quantity != 0) & ~order.forced


def _judge(
    state: EnvState,
    habits: Habits,
    request: jax.Array,
    order: Order,
    done: Execution,
    settled: Settlement,
    events: RiskEvents,
    params: EnvParams,
) -> Judgement:
    voluntary = _is_voluntary(order)
    counts = (request != 0) & (voluntary | (order.outcome == Outcome.LADDER_LIMIT))
    habits, alternation, chain = reward.update_habits(
        habits,
        request=request,
        executed_direction=jnp.where(voluntary, jnp.sign(order.quantity), 0),
        forced_exit=(order.forced & (order.quantity != 0)) | (done.close_quantity != 0),
        counts_as_request=counts,
        reward=params.reward,
    )
    held = jnp.abs(state.holding.position)
    reduces = jnp.abs(state.holding.position + order.quantity) < held
    weight = reward.drawdown_weight(params.progress, params.reward)
    penalty = reward.drawdown_penalty(events.drawdown, weight, params.reward, params.safeguards)
    profitable = settled.trip_closed & (settled.trip_pnl > safeguards.EQUITY_MARGIN)
    bootstrap = profitable & ~state.bootstrap_paid
    terms = reward.scale_terms(
        equity_change=twofloat.to_float(settled.change),
        action_change=reward.action_change_penalty(chain, alternation & reduces, params.reward),
        same_action=reward.same_action_penalty(habits, counts, params.reward),
        drawdown=jnp.where(settled.holding.position != 0, penalty, 0.0),
        recovery=events.new_recovery_high,
        bootstrap=bootstrap,
        reward=params.reward,
    )
    return Judgement(terms, habits, alternation, chain, weight, bootstrap)


def transition(
    state: EnvState, row: Row, action: jax.Array, params: EnvParams
) -> tuple[EnvState, StepRecord]:
    """Executes `action` (0 SELL, 1 HOLD, 2 BUY) in the bar `row`, the one after state.row.

    Returns the new state and the full record of the step.
    """
    params = params.with_numbers(state.numbers)
    stage, limits = make_stage(params.market), params.safeguards
    request = action.astype(jnp.int32) - 1
    book, habits, cooldown = _begin_session(state, row.session_open > 0)
    risk, released = safeguards.release_lock(
        state.risk, row, state.holding.position, state.holding.equity
    )
    market = fills.liquidity(row, row.open, params.fills)
    market, risk, book, habits, cooldown = stage((market, risk, book, habits, cooldown))
    order = stage(_target(state, row, request, risk.locked, cooldown, params))
    order = stage(_cap(order, state, row, market, book, params))
    done = stage(_execute(order, state, row, market, book, params))
    settled = stage(_settle(state, order, done, params))
    holding = settled.holding
    after = safeguards.update_risk(
        risk, holding.equity, holding.position, row, limits, params.market.bar_seconds
    )
    risk, events = stage(after)
    judged = _judge(state, habits, request, order, done, settled, events, params)
    wait = jnp.int32(max(limits.trade_cooldown_steps - 1, 0))
    new_state = EnvState(
        time=state.time + 1,
        row=state.row + 1,
        start_row=state.start_row,
        symbol=state.symbol,
        kyle_lambda=state.kyle_lambda,
        cooldown_left=jnp.where(_is_voluntary(order), wait, jnp.maximum(cooldown - 1, 0)),
        bootstrap_paid=state.bootstrap_paid | judged.bootstrap,
        holding=holding,
        book=done.book,
        habits=judged.habits,
        risk=risk,
        numbers=state.numbers,
    )
    ended = risk.locked & (holding.position == 0)
    terminated = ended if limits.terminate_on_hard else jnp.zeros((), bool)
    record = _record(
        state, new_state, row, request, market, order, done, settled, events, judged,
        released=released, terminated=terminated,
    )  # fmt: skip
    return new_state, record


def _record(
    before: EnvState,
    after: EnvState,
    row: Row,
    request: jax.Array,
    market: Liquidity,
    order: Order,
    done: Execution,
    settled: Settlement,
    events: RiskEvents,
    judged: Judgement,
    *,
    released: jax.Array,
    terminated: jax.Array,
) -> StepRecord:
    """Gathers a step's intermediates under their public names."""
    return StepRecord(
        row=after.row,
        time=after.time,
        symbol=after.symbol,
        request=request,
        outcome=order.outcome,
        forced=order.forced,
        action_matters=order.action_matters,
        capped_by_participation=order.capped_by_participation,
        capped_by_cash=order.capped_by_cash,
        position_before=before.holding.position,
        lot=order.lot,
        quantity=order.quantity,
        close_quantity=done.close_quantity,
        position=after.holding.position,
        quantity_step=row.quantity_step,
        reference_price=row.open,
        fill_price=done.fill_price,
        mark_price=row.close,
        half_spread=market.half_spread,
        sigma=market.sigma_bar,
        expected_volume=market.expected_volume,
        adv=market.adv,
        volume=row.volume,
        kyle_lambda=after.kyle_lambda,
        kyle_lambda_rolling=row.kyle_lambda_before,
        recent_volume=after.book.recent_volume,
        displaced_ask=after.book.displaced_ask,
        displaced_bid=after.book.displaced_bid,
        price_pnl=twofloat.to_float(done.price_pnl),
        cost_spread=done.costs.spread,
        cost_temporary=done.costs.temporary,
        cost_transient=done.costs.transient,
        cost_permanent=done.costs.permanent,
        cost_fees=done.costs.fees,
        cost_borrow=done.borrow,
        net_pnl=twofloat.to_float(settled.net_pnl),
        equity=twofloat.to_float(after.holding.equity),
        average_entry_price=after.holding.average_entry_price,
        trip_pnl=settled.trip_pnl,
        trip_closed=settled.trip_closed,
        equity_peak=twofloat.to_float(after.risk.equity_peak),
        trough=twofloat.to_float(after.risk.trough),
        drawdown=events.drawdown,
        in_purgatory=after.risk.in_purgatory,
        purgatory_entered=events.purgatory_entered,
        escaped=events.escaped,
        hard_breach=events.hard_breach,
        locked=after.risk.locked,
        lock_released=released,
        early_warning=events.early_warning,
        soft_breach_run=after.risk.soft_breach_run,
        cooldown_left=after.cooldown_left,
        alternation=judged.alternation,
        chain=judged.chain,
        repeats=after.habits.repeats,
        drawdown_weight=judged.weight,
        reward_equity_change=judged.terms.equity_change,
        reward_action_change=judged.terms.action_change,
        reward_same_action=judged.terms.same_action,
        reward_drawdown=judged.terms.drawdown,
        reward_recovery_bonus=judged.terms.recovery_bonus,
        reward_bootstrap_bonus=judged.terms.bootstrap_bonus,
        reward=judged.terms.total(),
        terminated=terminated,
    )
