"""Every parameter of jules_jax, defined once.

The section dataclasses below are at the same time the schema of YAML files in `configs/`, the
source of the command-line flags (`flags.py`), and (for `Account`, `Fills`, `Safeguards`, `Reward`)
the sections of the environment's parameters. Defaults are the constants of the IntradayJules report
where it gives one. Standard library only, so that `--help` is instant; PyYAML is imported inside
the functions that read and write YAML.

A `Config` is made by `resolve`: defaults, simulator preset, YAML and flags are merged as one flat
dict from dotted key to value and source, and validated once.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import re
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jules_jax.errors import InputError

if TYPE_CHECKING:
    import yaml

INT32_MAX = 2**31 - 1
FLOAT32_MAX = 3.4028235e38
"""Values end up as int32 and float32 on the device."""

_EASY: dict[str, Any] = {
    "noise_bp": 3.0,
    "innovation_dof": 8.0,
    "mispricing": "ou",
    "mispricing_sd_bp": 18.0,
    "reversion_strength": 0.0,
    "momentum_strength": 0.0,
    "day_volatility_sd": 0.36,
    "hour_volatility_sd": 0.20,
    "minute_volatility_sd": 0.22,
    "jumps_per_session": 0.15,
    "jump_scale": 5.0,
    "overnight_ratio": 0.70,
}
_DEFAULT = _EASY | {
    "noise_bp": 8.0,
    "innovation_dof": 10.0,
    "mispricing_sd_bp": 0.0,
    "reversion_strength": 0.010,
    "momentum_strength": 0.020,
    "day_volatility_sd": 0.32,
    "hour_volatility_sd": 0.25,
    "minute_volatility_sd": 0.20,
    "jump_scale": 4.0,
    "overnight_ratio": 0.62,
}
PRESETS: dict[str, dict[str, Any]] = {
    "easy": _EASY,
    "null": _EASY | {"mispricing": "martingale"},
    "default": _DEFAULT,
    "hard": _DEFAULT | {"reversion_strength": 0.006, "momentum_strength": 0.010},
    "stress": _DEFAULT | {"noise_bp": 14.0, "jumps_per_session": 0.5, "jump_scale": 6.0},
}
"""Presets of the simulator: values that replace the defaults; a file or a flag overrides them.

All presets set the same keys, so that choosing another one leaves nothing of the last behind.
"""


def _kind(allowed: str, holds: Callable[[Any], bool]) -> Callable[[Any, str], Any]:
    """A kind of parameter: what its values must be, in words and as a predicate.

    The function returned makes a dataclass field of a default and the one sentence of `--help`.
    """

    def parameter(default: Any, text: str) -> Any:
        return field(default=default, metadata={"help": text, "allowed": allowed, "holds": holds})

    return parameter


def _choice(allowed: tuple[str, ...], text: str) -> Any:
    """A parameter with named values, the first of which is the default."""
    return _kind(f"one of {', '.join(allowed)}", allowed.__contains__)(allowed[0], text)


def _is_timezone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a relative path, or a directory
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


_text = _kind("text", lambda v: True)
_name = _kind(
    "letters, digits, '.', '_' and '-', as it names a directory",
    lambda v: re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*)?", v) is not None,
)
_clock = _kind(
    "a time HH:MM", lambda v: re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", v) is not None
)
_timezone_or_none = _kind(
    "a time zone such as America/New_York or UTC, or empty", lambda v: v == "" or _is_timezone(v)
)
_date = _kind("a date such as 2025-11-03, or empty", lambda v: v == "" or _is_date(v))
_calendar = _kind("auto, 24/7, 24/5, regular or the name of a calendar", lambda v: v != "")
_bar_length = _kind("a divisor of 3600, from 1 to 3600", lambda v: v > 0 and 3600 % v == 0)
_switch = _kind("true or false", lambda v: True)
_count = _kind("a whole number of at least 1", lambda v: v >= 1)
_whole = _kind("a whole number of at least 0", lambda v: v >= 0)
_widths = _kind(
    "widths such as 128,128, each at least 1",
    lambda v: len(v) > 0 and min(v) >= 1,
)
_positive = _kind("a number above 0", lambda v: v > 0)
_amount = _kind("a number of at least 0", lambda v: v >= 0)
_fraction = _kind("a number above 0 and below 1", lambda v: 0 < v < 1)
_part = _kind("a number above 0 and at most 1", lambda v: 0 < v <= 1)
_below_one = _kind("a number of at least 0 and below 1", lambda v: 0 <= v < 1)
_share = _kind("a number from 0 to 1", lambda v: 0 <= v <= 1)
_degrees = _kind("a number above 2, where the variance is finite", lambda v: v > 2)
_rate_end = _kind("a number of at least 0, or -1", lambda v: v >= 0 or v == -1)


@dataclass(frozen=True)
class Market:
    """Where bars come from and how files of them are read."""

    data: str = _text(
        "", "file, folder or glob of bars, or a built dataset; empty trains on simulated paths"
    )
    format: str = _choice(
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
    symbols: str = _text(
        "", "YAML file of tick, quantity_step, spread_bps, adv, calendar and weight by symbol"
    )
    timezone: str = _timezone_or_none(
        "", "time zone of naive timestamps; empty takes the format's own, New York for plain OHLCV"
    )
    bar_label: str = _choice(("start", "end"), "whether a timestamp labels a bar's start or end")
    bar_seconds: int = _bar_length(60, "length of a bar in seconds")
    calendar: str = _calendar(
        "auto",
        "auto takes the format's own, XNYS for equities; 24/7, 24/5, regular (session_open to "
        "session_close every day), or a name of exchange_calendars such as XLON",
    )
    session_open: str = _clock("09:30", "open of the regular calendar, in the files' time zone")
    session_close: str = _clock("16:00", "close of the regular calendar")
    before_open_minutes: int = _whole(
        0, "minutes of extended hours before a session's open (330: US pre-market from 04:00)"
    )
    after_close_minutes: int = _whole(
        0, "minutes of extended hours after a session's close (240: US after-hours to 20:00)"
    )
    adjust_splits: bool = _switch(False, "whether split-like jumps are adjusted rather than listed")
    adv: float = _amount(0.0, "average daily volume in shares, for sources without volume")
    quantity_step: float = _amount(
        0.0, "smallest tradable quantity; 0 takes the source's own (1 share; crypto e.g. 1e-4)"
    )
    tick: float = _amount(
        0.0,
        "smallest price change, in dollars, which bounds the spread from below; 0 takes the "
        "source's own (0.01 for equities and simulated paths)",
    )
    sampling: str = _choice(
        ("length", "equal"),
        "symbols are drawn by the length of their history, or equally often; weights in the file "
        "of symbols multiply either",
    )
    market_memory: float = _positive(
        4.0, "GiB of market data on a device; a larger dataset is served in generations"
    )
    refresh_updates: int = _whole(
        0, "updates between two generations of the market; 0 takes the fewest allowed"
    )


@dataclass(frozen=True)
class Splits:
    """How the sessions of files are cut into training, validation and test, oldest first."""

    train_fraction: float = _fraction(0.70, "share of sessions to train on, the oldest")
    validation_fraction: float = _fraction(
        0.15, "share of the sessions that follow; the rest is the test"
    )
    validation_from: str = _date("", "first date of validation, instead of a fraction")
    test_from: str = _date("", "first date of the test, instead of a fraction")
    folds: int = _whole(0, "walk-forward folds; 0 splits once")
    fold: int = _whole(0, "which fold, from 0, the oldest")
    embargo_sessions: int = _whole(
        1, "sessions left out between two splits, so that bar-scale memory does not join them"
    )
    purge_sessions: int = _whole(
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

    preset: str = _choice(
        tuple(PRESETS),
        "easy: a hidden mispricing; null: no edge; default: hidden regimes of reversion and "
        "momentum; hard: the same, weaker; stress: default with 14 bp a bar and jumps",
    )
    paths: int = _count(64, "price paths in one generation")
    symbols: int = _count(1, "consecutive paths that share a market: its factor and day volatility")
    market_correlation: float = _below_one(
        0.5, "share of a path's variance that is its market's, where symbols is above 1"
    )
    sessions: int = _count(10, "sessions in a path, the warm-up included")
    warmup_sessions: int = _count(2, "first sessions of a path, before any episode may start")
    bars_per_session: int = _count(390, "bars in a session")
    start_price: float = _positive(100.0, "first price of a path, in dollars")
    adv: float = _positive(2_000_000.0, "average daily volume, in shares")
    noise_bp: float = _positive(
        3.0, "sd of the efficient price per bar, in bp, over a session (SPY 3.1, AAPL 6.1)"
    )
    innovation_dof: float = _degrees(
        8.0, "degrees of freedom of the Student-t innovations (8 to 10 fit large caps)"
    )
    mispricing: str = _choice(("ou", "martingale"), "hidden part of the price; an ou reverts")
    mispricing_sd_bp: float = _amount(18.0, "stationary sd of the mispricing, in bp")
    mispricing_half_life: float = _positive(20.0, "half-life of the mispricing, in bars")
    reversion_strength: float = _below_one(
        0.0,
        "share of the mid's distance to its VWAP that a bar takes back, in the reverting regime",
    )
    momentum_strength: float = _below_one(
        0.0, "share of the mid's distance to its EMA(20) that a bar adds, in the trending regime"
    )
    drift_limit: float = _amount(0.25, "bound of that drift, in volatilities of the bar")
    regime_dwell: float = _kind("a number of at least 1", lambda v: v >= 1)(
        120.0, "mean bars in a regime: reverting, neutral or trending, a third of the time each"
    )
    day_volatility_sd: float = _amount(
        0.36, "sd of the day component of log volatility (SPY 2025: 0.39)"
    )
    day_volatility_ar: float = _below_one(0.85, "its autocorrelation from one session to the next")
    hour_volatility_sd: float = _amount(0.20, "sd of the hour component of log volatility")
    hour_volatility_half_life: float = _positive(60.0, "its half-life, in bars")
    minute_volatility_sd: float = _amount(0.22, "sd of the minutes component of log volatility")
    minute_volatility_half_life: float = _positive(4.0, "its half-life, in bars")
    open_volatility: float = _amount(1.4, "excess of volatility at the open, over midday's")
    open_volatility_minutes: float = _positive(25.0, "minutes in which it fades by e")
    close_volatility: float = _amount(0.2, "excess of volatility at the close, over midday's")
    close_volatility_minutes: float = _positive(12.0, "minutes over which it builds up by e")
    open_volume: float = _amount(2.2, "excess of volume at the open, over midday's")
    open_volume_minutes: float = _positive(30.0, "minutes in which it fades by e")
    close_volume: float = _amount(1.2, "excess of volume at the close, over midday's")
    close_volume_minutes: float = _positive(25.0, "minutes over which it builds up by e")
    first_bar_volume: float = _positive(1.7, "factor of the first bar's volume: opening auction")
    last_bar_volume: float = _positive(5.5, "factor of the last bar's volume: closing auction")
    jumps_per_session: float = _amount(0.15, "expected number of jumps in a session")
    jump_scale: float = _amount(5.0, "sd of a jump, in bar volatilities")
    overnight_ratio: float = _amount(
        0.70, "sd of the overnight gap over the sd of a session (six large caps: 0.50 to 0.75)"
    )
    enable_bid_ask_bounce: bool = _switch(
        True, "observed high, low and close bounce with the spread"
    )
    spread_bps: float = _amount(
        5.0, "quoted spread of the prints, in bp: what they bounce by; costs are fills' own"
    )


@dataclass(frozen=True)
class Features:
    """Windows and half-lives of the causal recurrences behind the observation."""

    lookback_window: int = _count(
        50, "warm-up before an episode, in bars; window of rolling lambda"
    )
    rsi_window: int = _count(14, "Wilder's RSI window, in bars")
    ema_fast_window: int = _count(10, "window of the fast EMA, in bars")
    ema_slow_window: int = _count(20, "window of the slow EMA, in bars")
    volatility_half_life: int = _count(60, "half-life of the bar volatility, in bars")
    long_half_life: int = _count(5, "half-life of the long-run volatility, in sessions")
    adv_half_life: int = _count(5, "half-life of the average daily volume, in sessions")
    profile_half_life: int = _count(10, "half-life of the volume profile, in sessions")


@dataclass(frozen=True)
class Account:
    """Capital and position limits."""

    initial_capital: float = _positive(50_000.0, "dollars at the start of an episode")
    position_size_pct: float = _part(0.25, "share of equity in one lot, when opening from flat")
    max_position_lots: int = _count(1, "most lots held, long or short")
    allow_short: bool = _switch(True, "whether positions below zero are allowed")
    max_position_size_pct: float = _part(0.95, "largest position, as a share of equity after costs")
    min_cash_reserve_pct: float = _below_one(0.05, "smallest share of equity not in the position")
    borrow_rate: float = _amount(0.005, "yearly cost of a short position, as a share of its value")


@dataclass(frozen=True)
class Fills:
    """Costs of execution: spread, three kinds of impact, fees."""

    bid_ask_spread_bps: float = _amount(5.0, "quoted spread in bp; a trade pays half of it")
    spread_shape: str = _choice(
        ("flat", "intraday: wider early and when volatile"),
        "intraday: wider after the open and when volatile",
    )
    fee_bps: float = _amount(0.3, "fee per side, in bp of the traded value")
    sell_fee_bps: float = _amount(0.3, "further fee on sells, in bp of the traded value")
    max_participation: float = _part(0.10, "largest share of a bar's volume one order may take")
    temporary_impact: float = _amount(0.142, "eta of the temporary impact (Almgren et al. 2005)")
    temporary_impact_decay: float = _below_one(0.5, "what is left of recent volume after a bar")
    impact_decay: float = _below_one(0.7, "what is left of the displaced book volume after a bar")
    impact_prefactor: float = _amount(0.9, "Y of the square-root law")
    impact_exponent: float = _part(0.5, "delta of the resilient book; 1 is the linear book")
    permanent_share: float = _share(0.33, "pi, permanent share of the impact at reference_size")
    reference_size: float = _positive(0.001, "x_ref, size at which pi holds, per daily volume")
    lambda_source: str = _choice(
        ("structural", "rolling"), "Kyle lambda; rolling: estimated over lookback_window"
    )


@dataclass(frozen=True)
class Safeguards:
    """Layered risk limits."""

    trade_cooldown_steps: int = _whole(10, "bars from an executed order to the next possible one")
    flat_by_minutes: int = _whole(5, "minutes before a session's end when positions are closed")
    soft_dd_pct: float = _fraction(0.03, "soft drawdown limit: purgatory begins")
    hard_dd_pct: float = _fraction(0.04, "hard drawdown limit: the position is closed")
    terminate_on_hard: bool = _switch(False, "whether a hard breach ends the episode")
    purgatory_escape_threshold_pct: float = _positive(
        0.03, "recovery from the trough that ends purgatory"
    )
    early_warning_excess: float = _amount(0.005, "drawdown beyond soft that counts for a warning")
    early_warning_steps: int = _whole(50, "consecutive such steps, in position, that raise it")
    lock_minutes: int = _whole(390, "entry lock after a hard breach on a 24/7 calendar")


@dataclass(frozen=True)
class Reward:
    """Reward terms; penalties are dollars per 50,000 of initial capital."""

    reward_scaling: float = _positive(0.07, "applied once, last")
    action_change_penalty_factor: float = _amount(5.0, "charged on an alternation that reduces")
    action_change_cap: int = _whole(3, "largest multiple of it within a chain of alternations")
    thrash_window: int = _whole(30, "bars after which a chain of alternations is forgotten")
    same_action_penalty_factor: float = _amount(
        0.2, "per identical request beyond the second in a row"
    )
    same_action_cap: int = _whole(3, "largest multiple of it")
    drawdown_weight_start: float = _amount(
        1500.0, "weight of the squared drawdown excess, at first"
    )
    drawdown_weight_end: float = _amount(7500.0, "the same at the end of its schedule")
    drawdown_schedule: float = _part(1.0, "share of training over which the weight moves")
    drawdown_gain: float = _amount(7.0, "how much steeper the term is far beyond the hard limit")
    drawdown_gain_slope: float = _amount(150.0, "how fast it gets there, per unit of drawdown")
    drawdown_cap: float = _amount(15.0, "largest drawdown term of a step, in dollars")
    recovery_bonus_amount: float = _amount(0.01, "for a new high since the trough, in purgatory")
    bootstrap_bonus_amount: float = _amount(0.01, "for an episode's first profitable round trip")


@dataclass(frozen=True)
class Network:
    """Actor and critic: an LSTM each, then two hidden layers each (static)."""

    lstm_hidden_size: int = _count(64, "width of each LSTM")
    net_arch: tuple[int, ...] = _widths((128, 128), "widths of the hidden layers after each LSTM")
    matmul_precision: str = _choice(
        ("default", "high", "highest"), "precision of matrix products: default, high or highest"
    )


@dataclass(frozen=True)
class PPO:
    """Proximal policy optimisation (Schulman et al. 2017) over whole sequences."""

    n_steps: int = _count(128, "steps per lane in one rollout")
    n_epochs: int = _count(10, "passes over a rollout")
    num_minibatches: int = _count(4, "minibatches per epoch, cut over lanes")
    learning_rate: float = _positive(5e-4, "Adam's step size")
    learning_rate_end: float = _rate_end(
        -1.0, "step size at the end, reached linearly; -1: constant"
    )
    clip_range: float = _positive(0.3, "clip of the probability ratio")
    ent_coef: float = _amount(0.03, "weight of the entropy bonus")
    vf_coef: float = _amount(0.8, "weight of the value loss")
    gamma: float = _share(0.99, "discount per step")
    gae_lambda: float = _share(0.95, "lambda of the generalised advantage estimate")
    max_grad_norm: float = _positive(0.5, "clip of the gradient's global norm")
    adam_eps: float = _positive(1e-5, "Adam's epsilon")
    shuffle_groups: int = _whole(0, "groups of lanes shuffled within; 0 picks 8, 4, 2 or 1")


@dataclass(frozen=True)
class Config:
    """The whole tree; `load` and `resolve` return validated ones."""

    name: str = _name("", "name of the run; empty derives one from the preset and the clock")
    seed: int = _whole(0, "seed of everything random")
    num_envs: int = _count(2048, "lanes: parallel episodes")
    total_timesteps: int = _count(10_000_000, "environment steps, rounded up to whole updates")
    max_steps_in_episode: int = _count(1000, "steps in an episode")
    devices: int = _whole(0, "devices to train on; 0 takes all")
    runs_dir: str = _text("runs", "where run directories go")
    checkpoint_dir: str = _text("checkpoints", "where checkpoints go")
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


class Setting(NamedTuple):
    """A value as it was given, and where: `on the command line`, `in FILE line 3`."""

    value: Any
    source: str


Layer = dict[str, Setting]
"""Settings of one origin, by dotted key."""


def load(values: Mapping[str, Any] | None = None, *, file: str | Path | None = None) -> Config:
    """The config of a YAML file (if any) with `values` on top, from a program.

    `values` maps sections to mappings (what `to_dict` returns), or dotted keys to values, or both.
    Raises `InputError` naming the key, the value found and the value expected.
    """
    layers = [] if file is None else [read_yaml(file)]
    return resolve(*layers, read_dict(values or {}))


def resolve(*layers: Layer) -> Config:
    """The config of the defaults and `layers`, later ones first in rank; validated.

    A layer that names a simulator preset gets the preset's values just below its own: a preset
    on the command line outranks what a file says about the same parameters.
    """
    merged: Layer = {}
    for layer in layers:
        if preset := layer.get("simulator.preset"):
            source = f"in preset {preset.value}"
            values = PRESETS.get(str(preset.value), {})
            merged |= {f"simulator.{name}": Setting(v, source) for name, v in values.items()}
        merged |= layer

    values_of: dict[str, dict[str, Any]] = {section: {} for section in ("", *SECTIONS)}
    for key, setting in merged.items():
        section, _, leaf = key.rpartition(".")
        values_of[section][leaf] = _convert(key, setting)
    sections = {name: kind(**values_of[name]) for name, kind in SECTIONS.items()}
    config = Config(**values_of[""], **sections)
    validate(config, sources={key: setting.source for key, setting in merged.items()})
    return config


def make_layer(settings: Iterable[tuple[str, Setting]]) -> Layer:
    """Settings by their full key; `InputError` for an unknown key or one that comes twice."""
    layer: Layer = {}
    for name, setting in settings:
        key = find_key(name, setting.source)
        if key in layer:
            raise InputError(f"{key} is set twice, {layer[key].source} and {setting.source}")
        layer[key] = setting
    return layer


def find_key(name: str, source: str, *, also: Iterable[str] = ()) -> str:
    """The dotted key that `name` means; a leaf name unique over the tree needs no section.

    Hyphens are underscores. Raises `InputError` with the nearest valid key, which may be one of
    `also` (a command's own flags).
    """
    key = name.replace("-", "_")
    if key in PARAMETERS:
        return key
    matches = [full for full in PARAMETERS if full.rpartition(".")[2] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(f"{name} {source} is ambiguous, expected {' or '.join(matches)}")
    if key in SECTIONS:
        example = next(full for full in PARAMETERS if full.startswith(f"{key}."))
        raise InputError(f"{key} {source} is a section, expected settings such as {example}")
    nearest = _nearest(key, also)
    raise InputError(f"unknown key {name!r} {source}, the nearest valid key is {nearest!r}")


def _nearest(key: str, also: Iterable[str]) -> str:
    """The full key most like `key`, compared with full and with leaf names."""
    full_keys = {full.rpartition(".")[2]: full for full in PARAMETERS}
    full_keys |= {full: full for full in (*PARAMETERS, *SECTIONS, *also)}
    leaf = key.rpartition(".")[2]
    if leaf in full_keys:  # the right name in the wrong section
        return full_keys[leaf]
    return full_keys[difflib.get_close_matches(key, full_keys, n=1, cutoff=0.0)[0]]


def read_dict(values: Mapping[str, Any], source: str = "in the given settings") -> Layer:
    """The settings of a mapping as `load` takes it; `source` says in errors where it is from."""
    return make_layer(_flatten(values, source))


def _flatten(values: Mapping[str, Any], source: str) -> Iterator[tuple[str, Setting]]:
    for name, value in values.items():
        if name in SECTIONS and isinstance(value, Mapping):
            for leaf, leaf_value in value.items():
                yield f"{name}.{leaf}", Setting(leaf_value, source)
        else:
            yield str(name), Setting(value, source)


def read_yaml(path: str | Path) -> Layer:
    """The settings of a YAML file: top-level parameters, and sections by name.

    Scalars are kept as text and read like flags, so that `5e-4` and `1e8` are numbers, `16:00` a
    time (YAML 1.1 says 960) and `null` the preset. Raises `InputError` for a file that is missing,
    empty, not YAML, not a mapping, or has an unknown or repeated key.
    """
    import yaml

    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise InputError(f"cannot read config file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"config file {path} is not text, expected YAML in UTF-8") from None
    except yaml.YAMLError as error:
        line = f" line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise InputError(f"config file {path}{line} is not valid YAML: {problem}") from None
    if root is None:
        raise InputError(f"config file {path} is empty, expected settings such as num_envs: 384")
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"config file {path} has no keys, expected settings such as num_envs: 384")
    return make_layer(_yaml_settings(root, path))


def _yaml_settings(root: yaml.MappingNode, path: str | Path) -> Iterator[tuple[str, Setting]]:
    import yaml

    for name, node, source in _yaml_pairs(root, path):
        if name in SECTIONS and isinstance(node, yaml.MappingNode):
            for leaf, leaf_node, leaf_source in _yaml_pairs(node, path):
                yield f"{name}.{leaf}", Setting(_yaml_value(leaf_node), leaf_source)
        elif name not in SECTIONS or node.value != "":  # a section may be left empty
            yield name, Setting(_yaml_value(node), source)


def _yaml_pairs(node: yaml.Node, path: str | Path) -> Iterator[tuple[str, yaml.Node, str]]:
    """Key, value node and source of each entry; YAML itself would let the last of two win."""
    sources: dict[str, str] = {}
    for key_node, value_node in node.value:
        name, source = str(key_node.value), f"in {path} line {key_node.start_mark.line + 1}"
        if name in sources:
            raise InputError(f"{name} is set twice, {sources[name]} and {source}")
        sources[name] = source
        yield name, value_node, source


def _yaml_value(node: yaml.Node) -> Any:
    """A scalar's text, or the texts of a sequence; anything deeper fits no parameter."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {str(key.value): "..." for key, _ in node.value}
    return [item.value for item in node.value] if isinstance(node.value, list) else node.value


def _convert(key: str, setting: Setting) -> Any:
    """The value in the parameter's type, from its text or from a Python value."""
    parameter = PARAMETERS[key]
    try:
        return _CONVERTERS[str(parameter.type)](setting.value)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise _refusal(key, setting.value, setting.source) from None


def _refusal(key: str, value: Any, source: str) -> InputError:
    found = "empty" if value == "" else repr(value)
    return InputError(f"{key} {source} is {found}, expected {PARAMETERS[key].metadata['allowed']}")


def _to_float(raw: Any) -> float:
    if isinstance(raw, bool):
        raise TypeError
    return float(raw)


def _to_int(raw: Any) -> int:
    number = _to_float(raw)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _to_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    return {"true": True, "false": False}[raw.lower()]


def _to_text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _to_widths(raw: Any) -> tuple[int, ...]:
    items = raw.strip("[]() ").split(",") if isinstance(raw, str) else raw
    return tuple(_to_int(item) for item in items)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "str": _to_text,
    "tuple[int, ...]": _to_widths,
}


def validate(config: Config, *, sources: Mapping[str, str] | None = None) -> None:
    """Raise `InputError` unless every value is in its range and they fit one another.

    `sources` says where values came from, by dotted key.
    """
    for key, parameter in PARAMETERS.items():
        section, _, leaf = key.rpartition(".")
        value = getattr(getattr(config, section) if section else config, leaf)
        source = (sources or {}).get(key, "by default")
        if not _fits_device(key, value):
            raise InputError(f"{key} {source} is {value!r}, expected a finite number of 32 bits")
        if not parameter.metadata["holds"](value):
            raise _refusal(key, value, source)
    _validate_market(config)
    _validate_learner(config)


def _fits_device(key: str, value: Any) -> bool:
    """Whether the value has an int32 or float32; total_timesteps is counted on the host."""
    if isinstance(value, float):
        return abs(value) <= FLOAT32_MAX  # false for nan
    return not isinstance(value, int) or value <= INT32_MAX or key == "total_timesteps"


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def _validate_market(config: Config) -> None:
    """What must hold between the values of the market and its limits."""
    market, simulator, limits = config.market, config.simulator, config.safeguards
    total = config.splits.train_fraction + config.splits.validation_fraction
    _require(
        total < 1,
        f"splits.train_fraction and splits.validation_fraction sum to {total:g}, "
        "expected below 1, as the rest is the test split",
    )
    _require(
        market.calendar != "regular" or market.session_open < market.session_close,
        f"market.session_open is {market.session_open}, "
        f"expected before market.session_close, {market.session_close}",
    )
    _require(
        limits.soft_dd_pct < limits.hard_dd_pct,
        f"safeguards.soft_dd_pct is {limits.soft_dd_pct:g}, "
        f"expected below safeguards.hard_dd_pct, {limits.hard_dd_pct:g}",
    )
    if market.data:
        return
    bars = simulator.sessions * simulator.bars_per_session
    warmup = simulator.warmup_sessions * simulator.bars_per_session
    needed = max(warmup, config.features.lookback_window) + config.max_steps_in_episode
    _require(
        bars > needed,
        f"simulator.sessions x simulator.bars_per_session is {bars} bars, "
        f"expected above {needed}, the warm-up and one episode",
    )
    enough = -(-config.max_steps_in_episode // config.ppo.n_steps)
    _require(
        config.refresh_updates >= enough,
        f"market.refresh_updates is {market.refresh_updates}, expected at least {enough} "
        "(max_steps_in_episode / ppo.n_steps), as older episodes still read the rows replaced",
    )


def _validate_learner(config: Config) -> None:
    """What must hold between the values of the learner."""
    ppo, lanes = config.ppo, config.num_envs // config.ppo.num_minibatches
    _require(
        ppo.n_steps <= config.max_steps_in_episode,
        f"ppo.n_steps is {ppo.n_steps}, "
        f"expected at most max_steps_in_episode, {config.max_steps_in_episode}",
    )
    _require(
        config.num_envs * ppo.n_steps <= INT32_MAX,
        f"num_envs x ppo.n_steps is {config.num_envs * ppo.n_steps}, "
        f"expected at most {INT32_MAX} steps in a rollout",
    )
    _require(
        config.num_envs % ppo.num_minibatches == 0,
        f"num_envs is {config.num_envs}, "
        f"expected a multiple of ppo.num_minibatches, {ppo.num_minibatches}",
    )
    _require(
        lanes % config.shuffle_groups == 0,
        f"ppo.shuffle_groups is {ppo.shuffle_groups}, "
        f"expected a divisor of num_envs / ppo.num_minibatches, {lanes}",
    )
    _require(
        config.devices == 0 or config.shuffle_groups % config.devices == 0,
        f"devices is {config.devices}, "
        f"expected a divisor of the {config.shuffle_groups} shuffle groups (ppo.shuffle_groups)",
    )


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dicts of plain JSON types; `load` reads it back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    tree: dict[str, Any] = plain(dataclasses.asdict(config))
    return tree


def to_yaml(config: Config) -> str:
    """The config as a YAML document; `read_yaml` and `--config` read it back exactly."""
    import yaml

    # Non-ASCII text is escaped: unescaped, PyYAML does not read all of it back (U+0085).
    return yaml.safe_dump(to_dict(config), sort_keys=False)
