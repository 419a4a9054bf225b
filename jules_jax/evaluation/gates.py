"""Gates: what a trained policy must show before it is trusted, each a number and a threshold.

Definitions on arrays, in float64. A share, and any mean over steps or days, is a ratio of sums
over episodes; its standard error is that of the linearised ratio over clusters of episodes (Cochran
1977, Sampling Techniques, section 6.3). Drawdowns and their resets are worked out from recorded
equity, peak and trough, never read from a flag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jules_jax.config import Config
from jules_jax.evaluation.backtest import StepLog
from jules_jax.evaluation.evidence import Evidence

Array = NDArray[Any]

LAST_UPDATES = 10
"""Training updates that the explained variance is the mean of."""
CONTROL_ERRORS = 3.0
SHARPE_ERRORS = 2.0
"""Standard errors that controls and the daily P&L are judged with."""
GREEDY_SHARE = 0.5
"""A greedy policy that earns less than this share of the sampled one's reward is warned of."""
BATCHES = 16
"""Batches of clusters that the error of a ratio of medians is estimated from."""
ROUNDING = 2.0**-21
"""Share of capital that a recorded equity may be off by: half of what the environment takes for a
difference (`safeguards.EQUITY_MARGIN`), eight units in the last place of a float32 near 1."""
DAYS_A_YEAR = 252


class Estimate(NamedTuple):
    """A value and its standard error; NaN where it has none."""

    value: float
    error: float = math.nan


@dataclass(frozen=True)
class Gate:
    """One gate's verdict. `passed` is None where the config asks for nothing.

    asks: the threshold, in words. detail: what the value is made of. value and error are shares
    where `is_share`.
    """

    name: str
    asks: str
    value: float
    error: float
    passed: bool | None
    detail: str = ""
    is_share: bool = False

    @property
    def failed(self) -> bool:
        """Whether the gate was asked for and not passed."""
        return self.passed is False

    @property
    def advice(self) -> str:
        """What a failure means, and what to try."""
        if self.name == "reward band" and self.detail:
            return f"{self.detail}: {ADVICE['recalibrate']}"
        if self.name == "explained variance" and math.isnan(self.value):
            return ADVICE["no metrics"]
        return ADVICE[self.name]


ADVICE = {
    "reward band": "the policy earns too little: train longer, or on a market with more edge "
    "(--preset easy); an entropy of almost 0 or ln 3 says that it collapsed or never learned",
    "recalibrate": "RECALIBRATE: the market's edge or the position is off, not the policy; lower "
    "account.position_size_pct, reward.reward_scaling or the edge",
    "episode length": "episodes end early, after hard breaches: see the hard limit",
    "hard limit": "losses went beyond the hard limit: trade smaller (account.position_size_pct), "
    "or raise reward.drawdown_weight_end",
    "entropy": "the policy is decided, and explores no more: raise ppo.ent_coef, or train shorter",
    "explained variance": "the critic predicts no better than a constant: train longer, lower "
    "ppo.learning_rate, or set network.normalize_targets; check that rewards vary at all",
    "no metrics": "the critic is not known: judge the run itself, runs/NAME, or train it anew",
    "penalty frequency": "it pays penalties too often: it thrashes or repeats itself; train "
    "longer, raise ppo.gamma, or look for orders refused by the cooldown",
    "penalty size": "penalties drown what is earned: lower the penalty factors of `reward`, or "
    "train longer so that they are avoided",
    "penalty median": "a typical penalty drowns a typical change of equity: lower "
    "reward.same_action_penalty_factor or reward.drawdown_weight_end",
    "drawdown share": "the drawdown term dominates the reward: trade smaller, or lower "
    "reward.drawdown_weight_end",
    "prolonged drawdown": "it sits in losses: raise reward.drawdown_weight_end or trade smaller",
    "false resets": "the drawdown was forgiven without a new peak or a recovery: a defect of "
    "safeguards, not of the policy; record episodes with evaluate --audit and verify them",
    "escapes": "it lives on recoveries from purgatory: drawdowns are too frequent; trade smaller",
    "Sharpe": "daily net P&L is not shown to be above 0: no edge, too much cost, or too few "
    "episodes (--gates.episodes)",
    "control: random": "orders at random do not lose: costs are missing (fills), so that nothing "
    "else here can be believed",
    "control: null": "orders at random earn or lose before costs where there is no edge: a defect "
    "of marking, fills or data",
    "control: flat": "doing nothing earns or loses: a defect of accounting or of the reward",
    "parameters": "the environment ran with other values than the config's, or the run did: judge "
    "with the run's own config, or train again",
}


def judge(evidence: Evidence, config: Config, progress: Mapping[str, ArrayLike]) -> list[Gate]:
    """Every gate of `config.gates`, in the order of the table.

    progress: `train/explained_variance` and `rollout/reward_var` of the last training updates,
    `[U]` each; empty where they are not known, which passes nothing.
    """
    return [
        _reward_band(evidence, config),
        _episode_length(evidence, config),
        _hard_limit(evidence, config),
        _entropy(evidence, config),
        _explained_variance(progress, config),
        _penalty_frequency(evidence, config),
        _penalty_size(evidence, config),
        _penalty_median(evidence, config),
        _drawdown_share(evidence, config),
        _prolonged(evidence, config),
        _false_resets(evidence, config),
        _escapes(evidence, config),
        _sharpe(evidence, config),
        *_controls(evidence),
        _parameters(evidence),
    ]


def warnings(evidence: Evidence) -> list[str]:
    """What fails no gate and should be known: a greedy policy that does not do as it was judged."""
    sampled = float(episode_rewards(evidence.sampled).mean())
    greedy = float(episode_rewards(evidence.greedy).mean())
    if sampled <= 0 or greedy >= GREEDY_SHARE * sampled:
        return []
    return [
        f"the greedy policy earns {greedy:.2f} an episode, less than half of the sampled one's "
        f"{sampled:.2f}: deploy the sampled policy, or see network.greedy_patience"
    ]


def ratio(numerator: ArrayLike, denominator: ArrayLike, cluster: Array) -> Estimate:
    """Sum of `numerator` over that of `denominator`, `[N]` each, with its error over clusters.

    NaN where the denominators sum to 0, and as the error of fewer than two clusters.
    """
    _, index = np.unique(cluster, return_inverse=True)
    parts = (np.asarray(values, np.float64) for values in (numerator, denominator))
    above, below = (np.bincount(index, np.broadcast_to(part, index.shape)) for part in parts)
    total, count = below.sum(), len(below)
    if total == 0:
        return Estimate(math.nan)
    value = above.sum() / total
    if count < 2:
        return Estimate(float(value))
    residual = np.sum((above - value * below) ** 2)
    return Estimate(float(value), float(np.sqrt(residual * count / (count - 1)) / abs(total)))


def _per_episode(log: StepLog, values: Any) -> Array:
    """Sums over the played steps of each episode, `[N]` float64."""
    counted = np.where(log.played, values, 0.0).astype(np.float64)
    sums: Array = counted.sum(axis=1)
    return sums


def episode_rewards(log: StepLog) -> Array:
    """Reward of each episode, `[N]` float64."""
    return _per_episode(log, log.reward)


def _gate(
    name: str,
    asks: str,
    found: Estimate,
    passes: Callable[[float], bool],
    *,
    detail: str = "",
    is_share: bool = False,
) -> Gate:
    """A gate on a value; NaN passes nothing."""
    passed = not math.isnan(found.value) and bool(passes(found.value))
    return Gate(name, asks, found.value, found.error, passed, detail, is_share)


def _reward_band(evidence: Evidence, config: Config) -> Gate:
    low, high = config.gates.reward_min, config.gates.reward_max
    found = ratio(episode_rewards(evidence.sampled), 1.0, evidence.cluster)
    if high <= low:
        return Gate("reward band", "no band", *found, passed=None)
    above = f"{found.value:.2f} is above {high:g}" if found.value > high else ""
    asks = f"{low:g} to {high:g}"
    return _gate("reward band", asks, found, lambda v: low <= v <= high, detail=above)


def _episode_length(evidence: Evidence, config: Config) -> Gate:
    least = config.gates.length_min * config.max_steps_in_episode
    found = ratio(np.sum(evidence.sampled.played, axis=1), 1.0, evidence.cluster)
    return _gate("episode length", f"≥ {least:g}", found, lambda v: v >= least)


def _episodes(happened: Array, evidence: Evidence) -> tuple[Estimate, str]:
    """Share of episodes in which something happened, `[N]` bool, and their number in words."""
    return (
        ratio(happened, 1.0, evidence.cluster),
        f"{happened.sum():,} of {len(happened):,} episodes",
    )


def _hard_limit(evidence: Evidence, config: Config) -> Gate:
    log, most = evidence.sampled, config.gates.hard_breaches_max
    beyond = drawdowns(log) > config.safeguards.hard_dd_pct + ROUNDING
    happened = np.any((np.asarray(log.hard_breach) | beyond) & log.played, axis=1)
    found, detail = _episodes(happened, evidence)
    asks = f"≤ {most:.3g}" if most else "none"
    return _gate("hard limit", asks, found, lambda v: v <= most, detail=detail, is_share=True)


def _entropy(evidence: Evidence, config: Config) -> Gate:
    log, least = evidence.sampled, config.gates.entropy_min
    matters = np.asarray(log.matters)
    entropy = _per_episode(log, np.where(matters, log.entropy, 0.0))
    found = ratio(entropy, _per_episode(log, matters), evidence.cluster)
    return _gate("entropy", f"≥ {least:g} nats", found, lambda v: v >= least)


def _explained_variance(progress: Mapping[str, ArrayLike], config: Config) -> Gate:
    name, least = "explained variance", config.gates.explained_variance_min
    asks = f"≥ {least:g}"
    explained = np.asarray(progress.get("train/explained_variance", ()), np.float64)
    variance = np.asarray(progress.get("rollout/reward_var", ()), np.float64)
    explained, variance = explained[-LAST_UPDATES:], variance[-LAST_UPDATES:]
    if len(explained) == 0 or len(variance) == 0:
        detail = "the run's metrics.jsonl was not found, or does not have it"
        return Gate(name, asks, math.nan, math.nan, passed=False, detail=detail)
    error = explained.std(ddof=1) / np.sqrt(len(explained)) if len(explained) > 1 else np.nan
    found = Estimate(float(explained.mean()), float(error))
    varies = bool(np.all(variance > 0))
    detail = f"last {len(explained)} updates" if varies else "rewards did not vary"
    return _gate(name, asks, found, lambda v: varies and v >= least, detail=detail)


def _penalty_frequency(evidence: Evidence, config: Config) -> Gate:
    log, most = evidence.sampled, config.gates.penalised_steps_max
    penalised = (log.action_change < 0) | (log.same_action < 0) | (log.drawdown < 0)
    found = ratio(
        _per_episode(log, penalised), _per_episode(log, np.ones_like(penalised)), evidence.cluster
    )
    asks = f"< {most:.0%} of steps"
    return _gate("penalty frequency", asks, found, lambda v: v < most, is_share=True)


def _penalty_size(evidence: Evidence, config: Config) -> Gate:
    log, most = evidence.sampled, config.gates.penalty_size_max
    penalties = (log.action_change, log.same_action, log.drawdown)
    paid = -np.sum([_per_episode(log, part) for part in penalties], axis=0)
    found = ratio(paid, _per_episode(log, np.abs(log.equity_change)), evidence.cluster)
    detail = "sum of penalties / sum of |ΔEquity|"
    if found.value != found.value and not np.any(paid):  # nothing paid, nothing moved
        found = Estimate(0.0)
    return _gate("penalty size", f"< {most:g}", found, lambda v: v < most, detail=detail)


def _penalty_median(evidence: Evidence, config: Config) -> Gate:
    log, most = evidence.sampled, config.gates.penalty_size_max
    nuisance = -(np.asarray(log.same_action, np.float64) + log.drawdown)
    nuisance = np.where(log.played & (nuisance > 0), nuisance, np.nan)
    moved = np.abs(np.asarray(log.equity_change, np.float64))
    moved = np.where(log.played & np.asarray(log.exposed), moved, np.nan)
    whole = _ratio_of_medians(nuisance, moved)
    _, index = np.unique(evidence.cluster, return_inverse=True)
    error = math.nan
    if index.max() + 1 >= BATCHES:
        batches = [index % BATCHES == batch for batch in range(BATCHES)]
        parts = [_ratio_of_medians(nuisance[chosen], moved[chosen]) for chosen in batches]
        error = float(np.std(parts, ddof=1) / math.sqrt(BATCHES))
    detail = "median of same_action + drawdown, where paid / of |ΔEquity|, in position"
    found = Estimate(whole, error)
    return _gate("penalty median", f"< {most:g}", found, lambda v: v < most, detail=detail)


def _ratio_of_medians(above: Array, below: Array) -> float:
    """Median of one over that of the other, NaN left out; 0 where nothing is above."""
    above, below = above[~np.isnan(above)], below[~np.isnan(below)]
    if len(above) == 0:
        return 0.0
    scale = float(np.median(below)) if len(below) else 0.0
    return float(np.median(above)) / scale if scale else math.inf


def _drawdown_share(evidence: Evidence, config: Config) -> Gate:
    log, most = evidence.sampled, config.gates.drawdown_share_max
    paid = -_per_episode(log, log.drawdown)
    found = ratio(paid, _per_episode(log, np.abs(log.reward)), evidence.cluster)
    if math.isnan(found.value):  # no reward at all, so none of it is a drawdown's
        found = Estimate(0.0)
    asks = f"≤ {most:.0%} of |reward|"
    return _gate("drawdown share", asks, found, lambda v: v <= most, is_share=True)


def drawdowns(log: StepLog) -> Array:
    """Share by which equity is below its recorded peak, `[N, T]` float64."""
    peak = np.asarray(log.equity_peak, np.float64)
    return (peak - log.equity) / peak


def longest_run(happening: Array) -> Array:
    """Most consecutive true steps, `[N]`, of `[N, T]`."""
    run: Array = np.zeros(len(happening), int)
    longest = run
    for now in happening.T:
        run = (run + 1) * now
        longest = np.maximum(longest, run)
    return longest


def _prolonged(evidence: Evidence, config: Config) -> Gate:
    log, gates = evidence.sampled, config.gates
    deep = drawdowns(log) > config.safeguards.soft_dd_pct
    run = longest_run(deep & np.asarray(log.exposed) & np.asarray(log.played))
    found, detail = _episodes(run > gates.prolonged_steps, evidence)
    asks = f"≤ {gates.prolonged_max:.1%} of episodes"
    return _gate(
        "prolonged drawdown",
        asks,
        found,
        lambda v: v <= gates.prolonged_max,
        detail=detail,
        is_share=True,
    )


def false_resets(log: StepLog, *, soft: float, escape: float) -> int:
    """Resets of the drawdown's peak that nothing entitled to.

    A reset is a step on which the recorded peak falls, or rises above both itself and equity. It is
    due where equity has recovered by `escape` from the lowest since it fell `soft` below the peak;
    the recorded trough must allow it too.
    """
    count = len(log.equity)
    peak_before, trough = np.ones(count), np.full(count, np.inf)
    false = 0
    columns = (np.asarray(leaf, np.float64).T for leaf in (log.equity, log.equity_peak, log.trough))
    for equity, peak, recorded, played in zip(*columns, np.asarray(log.played).T, strict=True):
        lowered = peak < peak_before - ROUNDING
        invented = peak > np.maximum(peak_before, equity) + ROUNDING
        lowest = np.maximum(trough, recorded)
        due = (equity >= (1 + escape) * lowest - ROUNDING) & (lowest > 0)
        false += int(np.sum(played & ((lowered & ~due) | invented)))
        # from the present peak on, a new trough begins once equity is soft below it
        trough = np.where(lowered | (peak > peak_before), np.inf, trough)
        below = (equity < (1 - soft) * peak + ROUNDING) | np.isfinite(trough)
        trough = np.where(below, np.minimum(trough, equity), trough)
        peak_before = peak
    return false


def _false_resets(evidence: Evidence, config: Config) -> Gate:
    limits = config.safeguards
    found = false_resets(
        evidence.sampled,
        soft=limits.soft_dd_pct,
        escape=limits.purgatory_escape_threshold_pct,
    )
    detail = "recomputed from equity, peak and trough"
    return _gate("false resets", "none", Estimate(float(found)), lambda v: v == 0, detail=detail)


def _escapes(evidence: Evidence, config: Config) -> Gate:
    log, most = evidence.sampled, config.gates.escapes_max
    happened = np.any(np.asarray(log.escaped) & log.played, axis=1)
    found, detail = _episodes(happened, evidence)
    asks = f"< {most:.0%} of episodes"
    return _gate("escapes", asks, found, lambda v: v < most, detail=detail, is_share=True)


def daily_pnl(log: StepLog) -> tuple[Array, Array]:
    """Net P&L of every complete session in dollars, and the episode `[D]` each that it is in.

    A session is complete where it began in the episode and the next one did too, or where it began
    there and the episode was terminated in it. Where no session of any episode is complete, as on
    24/7 calendars, each episode as a whole counts as one.
    """
    minute, played = np.asarray(log.minute), np.asarray(log.played)
    opens = np.diff(minute, axis=1, prepend=minute[:, :1] - 1) <= 0
    session = np.cumsum(opens, axis=1)
    last = np.max(session, axis=1, where=played, initial=0)
    last_complete = np.where(played.all(axis=1), last - 1, last)
    counts = played & (session >= 1) & (session <= last_complete[:, None])
    if not counts.any():
        return _per_episode(log, log.net_pnl), np.arange(len(minute))
    episode, _ = np.nonzero(counts)
    number = episode * (int(last.max()) + 1) + session[counts]
    days, index = np.unique(number, return_inverse=True)
    pnl = np.bincount(index, np.asarray(log.net_pnl, np.float64)[counts])
    return pnl, days // (int(last.max()) + 1)


def _sharpe(evidence: Evidence, config: Config) -> Gate:
    del config
    pnl, episode = daily_pnl(evidence.sampled)
    found = ratio(pnl, 1.0, evidence.cluster[episode])
    spread = pnl.std(ddof=1) if len(pnl) > 1 else math.nan
    sharpe = math.sqrt(DAYS_A_YEAR) * found.value / spread if spread else math.nan
    detail = f"$ a day over {len(pnl):,} days, Sharpe ratio {sharpe:.2f} a year"
    return _gate(
        "Sharpe",
        f"mean − {SHARPE_ERRORS:g} s.e. > 0",
        found,
        lambda v: v - SHARPE_ERRORS * found.error > 0,
        detail=detail,
    )


def _controls(evidence: Evidence) -> list[Gate]:
    random, null, flat = evidence.random, evidence.null, evidence.flat
    lost, earned = episode_rewards(random), _per_episode(null, null.gross_pnl)
    loss = ratio(lost, 1.0, evidence.cluster[: len(lost)])
    gross = ratio(earned, 1.0, np.arange(len(earned)))
    moved = max(float(np.max(np.abs(part))) for part in (flat.reward, flat.net_pnl, flat.gross_pnl))
    errors = CONTROL_ERRORS
    return [
        _gate(
            "control: random",
            f"< −{errors:g} s.e.",
            loss,
            lambda v: v < -errors * loss.error,
            detail="reward of orders at random",
        ),
        _gate(
            "control: null",
            f"0 within {errors:g} s.e.",
            gross,
            lambda v: abs(v) <= errors * gross.error,
            detail="gross P&L of orders at random where there is no edge, $",
        ),
        _gate(
            "control: flat",
            "exactly 0",
            Estimate(moved),
            lambda v: v == 0,
            detail="reward and P&L of doing nothing",
        ),
    ]


def _parameters(evidence: Evidence) -> Gate:
    keys = evidence.differing
    return _gate(
        "parameters",
        "all as in the config",
        Estimate(float(len(keys))),
        lambda v: v == 0,
        detail=", ".join(keys),
    )


def table(gates: list[Gate]) -> str:
    """The gates as text: threshold, value ± standard error, verdict, and what the value is."""
    header = f"{'gate':<20}{'asks for':<24}{'value ± s.e.':>22}  {'verdict':<8}"
    lines = [header, "─" * len(header)]
    for gate in gates:
        verdict = {None: "–", True: "pass", False: "FAIL"}[gate.passed]
        line = f"{gate.name:<20}{gate.asks:<24}{shown(gate):>22}  {verdict:<8}{gate.detail}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def shown(gate: Gate) -> str:
    """A gate's value and its error, as a person reads them."""
    if math.isnan(gate.value):
        return "unknown"
    scale, unit = (100.0, " %") if gate.is_share else (1.0, "")
    value = f"{scale * gate.value:,.4g}"
    return f"{value}{unit}" if math.isnan(gate.error) else (
        f"{scale * gate.value:,.3f} ± {scale * gate.error:.3f}{unit}"
    )  # fmt: skip
