"""Every parameter, defined once: the sections, and the config that holds them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from jules_jax.config import kinds
from jules_jax.config.presets import PRESETS
from jules_jax.config.schedules import Range, Schedule


@dataclass(frozen=True)
class Market:
    """Where bars come from and how files of them are read."""

    data: str = kinds.text(
        "", "file, folder or glob of bars, or a built dataset; empty trains on simulated paths"
    )
    format: str = kinds.choice(
        (
            "auto",
            "ohlcv",
            "binance",
            "alpaca",
            "databento",
            "yahoo",
            "lean",
            "histdata",
            "metatrader",
        ),
        "format of the files; auto tells it from their first lines",
    )
    symbols: str = kinds.text(
        "", "YAML file of tick, quantity_step, spread_bps, adv, calendar and weight by symbol"
    )
    timezone: str = kinds.timezone_or_none(
        "", "time zone of naive timestamps; empty takes the format's own, New York for plain OHLCV"
    )
    bar_label: str = kinds.choice(
        ("start", "end"), "whether a timestamp labels a bar's start or end"
    )
    bar_seconds: int = kinds.bar_length(60, "length of a bar in seconds")
    calendar: str = kinds.calendar(
        "auto",
        "auto takes the format's own, XNYS for equities; 24/7, 24/5, regular (session_open to "
        "session_close every day), or a name of exchange_calendars such as XLON",
    )
    session_open: str = kinds.clock(
        "09:30", "open of the regular calendar, in the files' time zone"
    )
    session_close: str = kinds.clock("16:00", "close of the regular calendar")
    sharded: bool = kinds.switch(
        False, "whether every device simulates paths of its own, as many as simulator.paths"
    )
    before_open_minutes: int = kinds.whole(
        0, "minutes of extended hours before a session's open (330: US pre-market from 04:00)"
    )
    after_close_minutes: int = kinds.whole(
        0, "minutes of extended hours after a session's close (240: US after-hours to 20:00)"
    )
    adjust_splits: bool = kinds.switch(
        False, "whether split-like jumps are adjusted rather than listed"
    )
    adv: float = kinds.amount(0.0, "average daily volume in shares, for sources without volume")
    quantity_step: float = kinds.amount(
        0.0, "smallest tradable quantity; 0 takes the source's own (1 share; crypto e.g. 1e-4)"
    )
    tick: float = kinds.amount(
        0.0,
        "smallest price change, in dollars, which bounds the spread from below; 0 takes the "
        "source's own (0.01 for equities and simulated paths)",
    )
    sampling: str = kinds.choice(
        ("length", "equal"),
        "symbols are drawn by the length of their history, or equally often; weights in the file "
        "of symbols multiply either",
    )
    market_memory: float = kinds.positive(
        4.0, "GiB of market data on a device; a larger dataset is served in generations"
    )
    refresh_updates: int = kinds.whole(
        0, "updates between two generations of the market; 0 takes the fewest allowed"
    )


@dataclass(frozen=True)
class Splits:
    """How the sessions of files are cut into training, validation and test, oldest first."""

    train_fraction: float = kinds.fraction(0.70, "share of sessions to train on, the oldest")
    validation_fraction: float = kinds.fraction(
        0.15, "share of the sessions that follow; the rest is the test"
    )
    validation_from: str = kinds.date("", "first date of validation, instead of a fraction")
    test_from: str = kinds.date("", "first date of the test, instead of a fraction")
    train_from: str = kinds.date("", "first date that is used at all; empty: the first there is")
    test_until: str = kinds.date("", "last date that is used at all; empty: the last there is")
    folds: int = kinds.whole(0, "walk-forward folds; 0 splits once")
    fold: int = kinds.whole(0, "which fold, from 0, the oldest")
    embargo_sessions: int = kinds.whole(
        1, "sessions left out between two splits, so that bar-scale memory does not join them"
    )
    purge_sessions: int = kinds.whole(
        0, "further sessions dropped at the end of training and validation"
    )


@dataclass(frozen=True)
class Simulator:
    """The embedded synthetic market.

    Where no source is given, sizes and half-lives are fits to one-minute bars of SPY and AAPL, 2014
    to 2015. Edges are planted: `easy` is learnable in minutes; the regimes of `default` give one
    bar's move a correlation of 0.045 with the drift, an oracle room over 2.5 bp of costs and rules
    much less; those of `hard` 0.026. `stress` has about 1 % of 1000-bar episodes with 25 % of
    equity at work lose more than 3 % from their peak.
    """

    preset: str = kinds.choice(
        tuple(PRESETS),
        "easy: a hidden mispricing; null: no edge; default: hidden regimes of reversion and "
        "momentum; hard: the same, weaker; stress: default with 14 bp a bar and jumps",
    )
    paths: int = kinds.count(64, "price paths in one generation")
    symbols_per_market: int = kinds.count(
        1, "consecutive paths that share a market: its factor and day volatility"
    )
    market_correlation: float = kinds.below_one(
        0.5, "share of a path's variance that is its market's, where symbols_per_market is above 1"
    )
    sessions: int = kinds.count(10, "sessions in a path, the warm-up included")
    warmup_sessions: int = kinds.count(2, "first sessions of a path, before any episode may start")
    bars_per_session: int = kinds.count(390, "bars in a session")
    start_price: float = kinds.positive(100.0, "first price of a path, in dollars")
    adv: float = kinds.positive(2_000_000.0, "average daily volume, in shares")
    noise_bp: float = kinds.positive(
        3.0, "sd of the efficient price per bar, in bp, over a session (SPY 3.1, AAPL 6.1)"
    )
    innovation_dof: float = kinds.degrees(
        8.0, "degrees of freedom of the Student-t innovations (8 to 10 fit large caps)"
    )
    mispricing: str = kinds.choice(("ou", "martingale"), "hidden part of the price; an ou reverts")
    mispricing_sd_bp: float = kinds.amount(18.0, "stationary sd of the mispricing, in bp")
    mispricing_half_life: float = kinds.positive(20.0, "half-life of the mispricing, in bars")
    reversion_strength: float = kinds.below_one(
        0.0,
        "share of the mid's distance to its VWAP that a bar takes back, in the reverting regime",
    )
    momentum_strength: float = kinds.below_one(
        0.0, "share of the mid's distance to its EMA(20) that a bar adds, in the trending regime"
    )
    drift_limit: float = kinds.amount(0.25, "bound of that drift, in volatilities of the bar")
    regime_dwell: float = kinds.kind("a number of at least 1", lambda v: v >= 1)(
        120.0, "mean bars in a regime: reverting, neutral or trending, a third of the time each"
    )
    day_volatility_sd: float = kinds.amount(
        0.36, "sd of the day component of log volatility (SPY 2025: 0.39)"
    )
    day_volatility_ar: float = kinds.below_one(
        0.85, "its autocorrelation from one session to the next"
    )
    hour_volatility_sd: float = kinds.amount(0.20, "sd of the hour component of log volatility")
    hour_volatility_half_life: float = kinds.positive(60.0, "its half-life, in bars")
    minute_volatility_sd: float = kinds.amount(
        0.22, "sd of the minutes component of log volatility"
    )
    minute_volatility_half_life: float = kinds.positive(4.0, "its half-life, in bars")
    open_volatility: float = kinds.amount(1.4, "excess of volatility at the open, over midday's")
    open_volatility_minutes: float = kinds.positive(25.0, "minutes in which it fades by e")
    close_volatility: float = kinds.amount(0.2, "excess of volatility at the close, over midday's")
    close_volatility_minutes: float = kinds.positive(12.0, "minutes over which it builds up by e")
    open_volume: float = kinds.amount(2.2, "excess of volume at the open, over midday's")
    open_volume_minutes: float = kinds.positive(30.0, "minutes in which it fades by e")
    close_volume: float = kinds.amount(1.2, "excess of volume at the close, over midday's")
    close_volume_minutes: float = kinds.positive(25.0, "minutes over which it builds up by e")
    first_bar_volume: float = kinds.positive(
        1.7, "factor of the first bar's volume: opening auction"
    )
    last_bar_volume: float = kinds.positive(5.5, "factor of the last bar's volume: closing auction")
    jumps_per_session: float = kinds.amount(0.15, "expected number of jumps in a session")
    jump_scale: float = kinds.amount(5.0, "sd of a jump, in bar volatilities")
    overnight_ratio: float = kinds.amount(
        0.70, "sd of the overnight gap over the sd of a session (six large caps: 0.50 to 0.75)"
    )
    enable_bid_ask_bounce: bool = kinds.switch(
        True, "observed high, low and close bounce with the spread"
    )
    spread_bps: float = kinds.amount(
        5.0, "quoted spread of the prints, in bp: what they bounce by; costs are fills' own"
    )


@dataclass(frozen=True)
class Features:
    """Windows and half-lives of the causal recurrences behind the observation."""

    lookback_window: int = kinds.count(
        50, "warm-up before an episode, in bars; window of rolling lambda"
    )
    rsi_window: int = kinds.count(14, "Wilder's RSI window, in bars")
    ema_fast_window: int = kinds.count(10, "window of the fast EMA, in bars")
    ema_slow_window: int = kinds.count(20, "window of the slow EMA, in bars")
    volatility_half_life: int = kinds.count(60, "half-life of the bar volatility, in bars")
    long_half_life: int = kinds.count(5, "half-life of the long-run volatility, in sessions")
    adv_half_life: int = kinds.count(5, "half-life of the average daily volume, in sessions")
    profile_half_life: int = kinds.count(10, "half-life of the volume profile, in sessions")


@dataclass(frozen=True)
class Account:
    """Capital and position limits."""

    initial_capital: float = kinds.positive(50_000.0, "dollars at the start of an episode")
    position_size_pct: float = kinds.part(
        0.25, "share of equity in one lot, when opening from flat"
    )
    max_position_lots: int = kinds.count(1, "most lots held, long or short")
    allow_short: bool = kinds.switch(True, "whether positions below zero are allowed")
    max_position_size_pct: float = kinds.part(
        0.95, "largest position, as a share of equity after costs"
    )
    min_cash_reserve_pct: float = kinds.below_one(
        0.05, "smallest share of equity not in the position"
    )
    borrow_rate: float = kinds.amount(
        0.005, "yearly cost of a short position, as a share of its value"
    )


@dataclass(frozen=True)
class Fills:
    """Costs of execution: spread, three kinds of impact, fees."""

    bid_ask_spread_bps: float = kinds.amount(5.0, "quoted spread in bp; a trade pays half of it")
    spread_shape: str = kinds.choice(
        ("flat", "intraday: wider early and when volatile"),
        "intraday: wider after the open and when volatile",
    )
    fee_bps: float = kinds.amount(0.3, "fee per side, in bp of the traded value")
    sell_fee_bps: float = kinds.amount(0.3, "further fee on sells, in bp of the traded value")
    max_participation: float = kinds.part(
        0.10, "largest share of a bar's volume one order may take"
    )
    temporary_impact: float = kinds.amount(
        0.142, "eta of the temporary impact (Almgren et al. 2005)"
    )
    temporary_impact_decay: float = kinds.below_one(
        0.5, "what is left of recent volume after a bar"
    )
    impact_decay: float = kinds.below_one(
        0.7, "what is left of the displaced book volume after a bar"
    )
    impact_prefactor: float = kinds.amount(0.9, "Y of the square-root law")
    impact_exponent: float = kinds.part(0.5, "delta of the resilient book; 1 is the linear book")
    permanent_share: float = kinds.share(
        0.33, "pi, permanent share of the impact at reference_size"
    )
    reference_size: float = kinds.positive(0.001, "x_ref, size at which pi holds, per daily volume")
    lambda_source: str = kinds.choice(
        ("structural", "rolling"), "Kyle lambda; rolling: estimated over lookback_window"
    )


@dataclass(frozen=True)
class Safeguards:
    """Layered risk limits."""

    trade_cooldown_steps: int = kinds.whole(
        10, "bars from an executed order to the next possible one"
    )
    flat_by_minutes: int = kinds.whole(
        5, "minutes before a session's end when positions are closed"
    )
    soft_dd_pct: float = kinds.fraction(0.03, "soft drawdown limit: purgatory begins")
    hard_dd_pct: float = kinds.fraction(0.04, "hard drawdown limit: the position is closed")
    terminate_on_hard: bool = kinds.switch(False, "whether a hard breach ends the episode")
    purgatory_escape_threshold_pct: float = kinds.positive(
        0.03, "recovery from the trough that ends purgatory"
    )
    early_warning_excess: float = kinds.amount(
        0.005, "drawdown beyond soft that counts for a warning"
    )
    early_warning_steps: int = kinds.whole(50, "consecutive such steps, in position, that raise it")
    lock_minutes: int = kinds.whole(390, "entry lock after a hard breach on a 24/7 calendar")


@dataclass(frozen=True)
class Reward:
    """Reward terms; penalties are dollars per 50,000 of initial capital."""

    reward_scaling: float = kinds.positive(0.07, "applied once, last")
    action_change_penalty_factor: float = kinds.amount(
        5.0, "charged on an alternation that reduces"
    )
    action_change_cap: int = kinds.whole(3, "largest multiple of it within a chain of alternations")
    thrash_window: int = kinds.whole(30, "bars after which a chain of alternations is forgotten")
    same_action_penalty_factor: float = kinds.amount(
        0.2, "per identical request beyond the second in a row"
    )
    same_action_cap: int = kinds.whole(3, "largest multiple of it")
    drawdown_weight_start: float = kinds.amount(
        1500.0, "weight of the squared drawdown excess, at first"
    )
    drawdown_weight_end: float = kinds.amount(7500.0, "the same at the end of its schedule")
    drawdown_schedule: float = kinds.part(1.0, "share of training over which the weight moves")
    drawdown_gain: float = kinds.amount(
        7.0, "how much steeper the term is far beyond the hard limit"
    )
    drawdown_gain_slope: float = kinds.amount(150.0, "how fast it gets there, per unit of drawdown")
    drawdown_cap: float = kinds.amount(15.0, "largest drawdown term of a step, in dollars")
    recovery_bonus_amount: float = kinds.amount(
        0.01, "for a new high since the trough, in purgatory"
    )
    bootstrap_bonus_amount: float = kinds.amount(
        0.01, "for an episode's first profitable round trip"
    )


@dataclass(frozen=True)
class Network:
    """Actor and critic: an LSTM each, then two hidden layers each (static)."""

    lstm_hidden_size: int = kinds.count(64, "width of each LSTM")
    net_arch: tuple[int, ...] = kinds.widths(
        (128, 128), "widths of the hidden layers after each LSTM"
    )
    matmul_precision: str = kinds.choice(
        ("default", "high", "highest", "bf16"),
        "precision of matrix products: highest is float32; on a GPU default and high are tf32, and "
        "bf16 has bfloat16 factors and float32 sums; a CPU computes all of them in float32",
    )
    lstm_impl: str = kinds.choice(
        ("auto", "scan", "fused"),
        "what trains the LSTM: a loop of XLA's, or a kernel for NVIDIA GPUs with one launch a "
        "sequence; auto: the kernel where it runs and is found to agree with the loop",
    )
    observation_scaling: str = kinds.choice(
        ("none", "running"),
        "running: observations are standardised by their moments over all rollouts so far",
    )
    normalize_targets: bool = kinds.switch(
        False, "whether the critic learns returns in units of their running standard deviation"
    )
    greedy_patience: int = kinds.count(
        1,
        "the greedy policy gives an order that the sampled one would, more likely than not, give "
        "within this many bars; 1: the most probable action",
    )
    learn_initial_carry: bool = kinds.switch(
        False, "whether the memory that an episode begins with is learned, not zero"
    )
    mask_actions: bool = kinds.switch(
        False, "whether requests that the cooldown or the ladder would refuse have probability 0"
    )


@dataclass(frozen=True)
class PPO:
    """Proximal policy optimisation (Schulman et al. 2017) over whole sequences."""

    n_steps: int = kinds.count(128, "steps per lane in one rollout")
    n_epochs: int = kinds.count(10, "passes over a rollout")
    num_minibatches: int = kinds.count(4, "minibatches per epoch, cut over lanes")
    learning_rate: float = kinds.positive(5e-4, "Adam's step size")
    learning_rate_end: float = kinds.rate_end(
        -1.0, "step size at the end, reached linearly; -1: constant"
    )
    clip_range: float = kinds.positive(0.3, "clip of the probability ratio")
    ent_coef: float = kinds.amount(0.03, "weight of the entropy bonus")
    ent_coef_end: float = kinds.rate_end(
        -1.0, "its weight at the end, reached linearly; -1: constant"
    )
    vf_coef: float = kinds.amount(0.8, "weight of the value loss")
    gamma: float = kinds.share(0.99, "discount per step")
    gae_lambda: float = kinds.share(0.95, "lambda of the generalised advantage estimate")
    max_grad_norm: float = kinds.positive(0.5, "clip of the gradient's global norm")
    adam_eps: float = kinds.positive(1e-5, "Adam's epsilon")
    shuffle_groups: int = kinds.whole(0, "groups of lanes shuffled within; 0 picks 8, 4, 2 or 1")
    remat: bool = kinds.switch(
        False, "whether a gradient computes again what it would keep: less memory, more time"
    )


@dataclass(frozen=True)
class Population:
    """Several agents trained in one program: every combination of a sweep, with several seeds."""

    num_seeds: int = kinds.count(1, "agents per combination of the sweep, each from a seed")
    sweep: str = kinds.text(
        "", "YAML file of numbers to vary: lists of values by key, such as ppo.gamma: [0.98, 0.99]"
    )
    exploit_every: int = kinds.whole(
        0, "updates after which the worst agents go on from copies of the best; 0: never"
    )
    exploit_fraction: float = kinds.up_to_half(0.25, "share of the agents that are replaced then")
    explore_factor: float = kinds.above_one(
        1.25, "a copy's swept numbers are multiplied or divided by this"
    )
    member_devices: int = kinds.whole(
        0,
        "devices that share out the agents, of which each then has lanes on devices / "
        "member_devices; 0: the most that divide the agents",
    )


@dataclass(frozen=True)
class Checkpoints:
    """What is kept of a run while it goes on, so that it can be resumed."""

    every: int = kinds.whole(
        0, "updates from one checkpoint to the next; 0: a tenth of the run, at most 50"
    )
    keep: int = kinds.count(3, "newest checkpoints kept, besides the best by validation")
    validation_episodes: int = kinds.whole(
        64,
        "held-out episodes that the sampled policy plays at each checkpoint; 0: no validation, and "
        "no best",
    )


@dataclass(frozen=True)
class Monitor:
    """What a run shows while it goes on, besides its scalars."""

    panel: bool = kinds.switch(True, "a live panel on a terminal; false: one line")
    figures_every: int = kinds.whole(
        250, "updates from one set of figures to the next, and one after the last; 0: none"
    )
    figure_episodes: int = kinds.count(32, "episodes that the sampled policy plays for them")
    audit: float = kinds.amount(
        0.0,
        "lanes whose every step an audit keeps: below 1 a share, from 1 on a number; 0: none",
    )


@dataclass(frozen=True)
class Gates:
    """Acceptance gates of a trained policy (docs/operations.md): what each asks for."""

    at_end: bool = kinds.switch(False, "whether a training run ends with its gates")
    episodes: int = kinds.count(4096, "fresh episodes that the sampled policy is judged on")
    reward_min: float = kinds.number(0.0, "smallest mean reward of an episode")
    reward_max: float = kinds.number(0.0, "largest one; reward_min or less: no band is asked for")
    length_min: float = kinds.share(1.0, "smallest mean length, as a share of a whole episode")
    hard_breaches_max: float = kinds.share(0.0, "largest share of episodes with a hard breach")
    entropy_min: float = kinds.amount(
        0.4, "smallest entropy, in nats, over steps where the action can have an effect"
    )
    explained_variance_min: float = kinds.number(0.10, "smallest mean of the last 10 updates")
    penalised_steps_max: float = kinds.share(0.20, "share of penalised steps, to stay below")
    penalty_size_max: float = kinds.amount(
        0.25, "penalties over changes of equity, of sums and of medians, to stay below"
    )
    drawdown_share_max: float = kinds.amount(
        0.05, "largest drawdown term, as a share of the sum of absolute rewards"
    )
    prolonged_steps: int = kinds.whole(
        50, "steps beyond soft, in position, after which a drawdown is a prolonged one"
    )
    prolonged_max: float = kinds.share(0.01, "largest share of episodes with a prolonged one")
    escapes_max: float = kinds.share(0.10, "share of episodes with an escape, to stay below")


@dataclass(frozen=True)
class Config:
    """The whole tree; `load` and `resolve` return validated ones."""

    name: str = kinds.name("", "name of the run; empty derives one from the preset and the clock")
    seed: int = kinds.whole(0, "seed of everything random")
    num_envs: int = kinds.count(2048, "lanes: parallel episodes")
    total_timesteps: int = kinds.count(10_000_000, "environment steps, rounded up to whole updates")
    max_steps_in_episode: int = kinds.count(1000, "steps in an episode")
    devices: int = kinds.whole(0, "devices to train on; 0 takes all")
    memory_limit_gib: float = kinds.amount(
        0.0, "GiB that training may take of each device; 0: what the device has"
    )
    auto_lanes: bool = kinds.switch(
        False, "whether to begin with as many lanes, num_envs at most, as the memory holds"
    )
    deterministic: bool = kinds.switch(
        False, "whether a GPU is held to kernels that give the same bits every time"
    )
    runs_dir: str = kinds.text("runs", "where run directories go")
    checkpoint_dir: str = kinds.text("checkpoints", "where checkpoints go")
    schedules: tuple[Schedule, ...] = kinds.by_key(
        (), "numbers that move with training, by key: {ppo.ent_coef: {linear: [0.03, 0.01]}}"
    )
    randomise: tuple[Range, ...] = kinds.by_key(
        (),
        "costs and market numbers that every episode of training draws from a range, by key: "
        "{fills.fee_bps: [0.1, 1.0]}",
    )
    market: Market = field(default_factory=Market)
    splits: Splits = field(default_factory=Splits)
    simulator: Simulator = field(default_factory=Simulator)
    features: Features = field(default_factory=Features)
    account: Account = field(default_factory=Account)
    fills: Fills = field(default_factory=Fills)
    safeguards: Safeguards = field(default_factory=Safeguards)
    reward: Reward = field(default_factory=Reward)
    network: Network = field(default_factory=Network)
    ppo: PPO = field(default_factory=PPO)
    population: Population = field(default_factory=Population)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    monitor: Monitor = field(default_factory=Monitor)
    gates: Gates = field(default_factory=Gates)

    def progress(self, update: int) -> float:
        """Share of training done before update number `update`, from 0: 1 before the last."""
        return min(update / max(self.num_updates - 1, 1), 1.0)

    def at(self, progress: float) -> Config:
        """With every schedule's value at `progress`, 0 in the first update and 1 in the last.

        The result has no schedules.
        """
        if not self.schedules:
            return self
        sections: dict[str, dict[str, float]] = {}
        for schedule in self.schedules:
            for key in schedule.parameters:
                section, _, leaf = key.partition(".")
                sections.setdefault(section, {})[leaf] = schedule.at(progress)
        moved: dict[str, Any] = {
            name: dataclasses.replace(getattr(self, name), **values)
            for name, values in sections.items()
        }
        return dataclasses.replace(self, schedules=(), **moved)

    def for_evaluation(self) -> Config:
        """What is evaluated: every schedule at its end, and the config's own costs and market."""
        return dataclasses.replace(self.at(1.0), randomise=())

    @property
    def batch_size(self) -> int:
        """Steps in a minibatch, num_envs · n_steps / num_minibatches."""
        return self.num_envs * self.ppo.n_steps // self.ppo.num_minibatches

    @property
    def num_updates(self) -> int:
        """Updates in a training run: total_timesteps, rounded up to whole updates."""
        return -(-self.total_timesteps // (self.num_envs * self.ppo.n_steps))

    @property
    def refresh_updates(self) -> int:
        """Updates between two generations, with 0 of the setting resolved.

        The fewest allowed: the older generation is overwritten once its last episode has ended.
        """
        fewest = -(-self.max_steps_in_episode // self.ppo.n_steps)
        return self.market.refresh_updates or fewest

    @property
    def checkpoint_updates(self) -> int:
        """Updates between two checkpoints, with 0 of the setting resolved."""
        return self.checkpoints.every or min(max(self.num_updates // 10, 1), 50)

    @property
    def shuffle_groups(self) -> int:
        """Groups of lanes shuffled among themselves, with 0 of the setting resolved."""
        lanes = self.num_envs // self.ppo.num_minibatches
        automatic = next(groups for groups in (8, 4, 2, 1) if lanes % groups == 0)
        return self.ppo.shuffle_groups or automatic


SECTIONS: dict[str, type[Any]] = {
    top.name: type(getattr(Config(), top.name))
    for top in dataclasses.fields(Config)
    if top.default is dataclasses.MISSING
}
"""The section classes by name."""

PARAMETERS: dict[str, dataclasses.Field[Any]] = {
    top.name: top for top in dataclasses.fields(Config) if top.name not in SECTIONS
} | {
    f"{section}.{leaf.name}": leaf
    for section, kind in SECTIONS.items()
    for leaf in dataclasses.fields(kind)
}
"""Every parameter by its dotted key, such as `num_envs` and `ppo.n_steps`.

The field's metadata has `help` (a sentence), `allowed` (its values in words) and `holds` (the same
as a predicate).
"""
