"""Which settings learn best? One factor at a time from a base, and a few together.

`python benchmarks/ablation.py --preset easy --seeds 3` trains every variant from the same seeds for
the same number of environment steps, all seeds in one vmapped run, and plays what was learned on
paths of its own, beside the oracle, which is told the true drift, and the best rule of the grid
(`market_edge`; both picked on other paths). Variants that differ in numbers alone share a compiled
program. The table is for picking; `--report NAME` trains the one picked again, from new seeds on
new paths, and plays it on paths that nothing was picked on: those are the figures to state.

All randomness comes from one key by the name of its use (`Use`), so training, picking, validation
and reporting share nothing. Seeds share their training market: an interval holds the luck of
weights, starts and actions, and that of the paths played. The table, with every figure behind it,
goes to benchmarks/results/ after every variant; variants that are there already, from the same
arguments, are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import market_edge
from benchmarks.market_edge import Days
from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.agent.learner import Learner
from jules_jax.agent.policy import Policy
from jules_jax.env.metrics import step_metrics
from jules_jax.env.params import EnvParams, make_params
from jules_jax.env.trading_env import TradingEnv
from jules_jax.errors import InputError
from jules_jax.evaluation import backtest, candidates, reference_policies
from jules_jax.evaluation.reference_policies import HOLD
from jules_jax.evaluation.statistics import Interval, mean_interval, ratio_of_means
from jules_jax.market.feed import SimulatedFeed
from jules_jax.training import backend

BASE = Path(__file__).parents[1] / "configs" / "phase1_smoke.yaml"
RESULTS = Path(__file__).parent / "results"
LAST = 5
"""Metrics of a trained agent are means over this many last updates."""
BINS = 10
"""Of the histogram of an entry's probability."""

Overrides = Mapping[str, Any]


class Use(IntEnum):
    """What a stream of random numbers is for."""

    TRAINING_PATHS = 0
    TRAINING = 1
    PICKING = 2  # thresholds of rule and oracle
    VALIDATION = 3
    REPORT_TRAINING_PATHS = 4
    REPORT_TRAINING = 5
    REPORT = 6


def variants(base: config.Config) -> dict[str, Overrides]:
    """What each variant changes in the base, by name."""
    lanes = base.num_envs
    numbers = {
        "learning rate 2.5e-4": {"ppo.learning_rate": 2.5e-4},
        "learning rate 1e-3": {"ppo.learning_rate": 1e-3},
        "learning rate 5e-4 to 0": {"ppo.learning_rate_end": 0.0},
        "learning rate 1e-3 to 0": {"ppo.learning_rate": 1e-3, "ppo.learning_rate_end": 0.0},
        "gamma 0.9": {"ppo.gamma": 0.9},
        "gamma 0.95": {"ppo.gamma": 0.95},
        "gamma 0.98": {"ppo.gamma": 0.98},
        "gamma 0.995": {"ppo.gamma": 0.995},
        "lambda 0.9": {"ppo.gae_lambda": 0.9},
        "lambda 0.98": {"ppo.gae_lambda": 0.98},
        "entropy 0.003": {"ppo.ent_coef": 0.003},
        "entropy 0.03": {"ppo.ent_coef": 0.03},
        "entropy 0.01 to 0": {"ppo.ent_coef_end": 0.0},
        "entropy 0.03 to 0": {"ppo.ent_coef": 0.03, "ppo.ent_coef_end": 0.0},
        "clip 0.2": {"ppo.clip_range": 0.2},
        "vf 0.4": {"ppo.vf_coef": 0.4},
    }
    structures = {
        "half the lanes": {"num_envs": lanes // 2},
        "twice the lanes": {"num_envs": lanes * 2},
        "epochs 2": {"ppo.n_epochs": 2},
        "epochs 8": {"ppo.n_epochs": 8},
        "minibatches 2": {"ppo.num_minibatches": 2},
        "minibatches 8": {"ppo.num_minibatches": 8},
        "observations scaled": {"network.observation_scaling": "running"},
        "targets normalised": {"network.normalize_targets": True},
        "actions masked": {"network.mask_actions": True},
        "initial carry learned": {"network.learn_initial_carry": True},
    }
    masked = structures["actions masked"]
    far, bold = {"ppo.gamma": 0.995}, {"ppo.learning_rate": 1e-3}
    together = {
        "masked, all to 0": masked | {"ppo.ent_coef_end": 0.0, "ppo.learning_rate_end": 0.0},
        "masked, entropy 0.003": masked | {"ppo.ent_coef": 0.003},
        "masked, gamma 0.995": masked | far,
        "masked, learning rate 1e-3": masked | bold,
        "masked, gamma 0.995, learning rate 1e-3": masked | far | bold,
        "masked, targets normalised": masked | structures["targets normalised"],
    }
    return {"base": {}} | numbers | structures | together


def settings_of(base: config.Config, names: Sequence[str]) -> dict[str, config.Config]:
    """The settings of the named variants.

    Raises `InputError` where there is no such variant, and where whole updates would not make the
    same number of steps for all.
    """
    known = variants(base)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"variant: found {unknown[0]!r}, expected one of {', '.join(known)}")
    found = {name: _override(base, known[name]) for name in names}
    for name, settings in found.items():
        if settings.total_timesteps % (settings.num_envs * settings.ppo.n_steps):
            raise InputError(
                f"timesteps: found {settings.total_timesteps}, expected a multiple of "
                f"{settings.num_envs * settings.ppo.n_steps}, the steps of an update of {name!r}"
            )
    return found


def _override(base: config.Config, overrides: Overrides) -> config.Config:
    values = config.to_dict(base)
    for key, value in overrides.items():
        *sections, name = key.split(".")
        section = values[sections[0]] if sections else values
        section[name] = value
    return config.load(values)


def programs(settings: Mapping[str, config.Config]) -> list[list[str]]:
    """Names in groups, each of which runs in one compiled program: only PPO's numbers differ."""
    groups: dict[config.Config, list[str]] = {}
    for name, one in settings.items():
        same = jax.tree.map(lambda leaf: 0.0, one.ppo)
        groups.setdefault(replace(one, ppo=same), []).append(name)
    return list(groups.values())


# -- training ------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """A population after its last update."""

    weights: network.Params  # [M, ...]
    history: dict[str, np.ndarray]  # [updates, M] each
    cpu_seconds: float  # of all updates and members, at the median update's


def measure(info: dict[str, Any], action: jax.Array, logits: jax.Array) -> dict[str, jax.Array]:
    """Step metrics of training: those of the environment, and how decisions were taken.

    `decide/flat` and `decide/held` count the steps without and with a position in which an order
    is possible, `decide/entropy` is summed over both. `entries` and `exits` count the orders in
    them, `…_against_mode` those where HOLD was the most probable action, so that the greedy policy
    would not have traded; `entry_p/i` entries whose action had a probability in [i, i + 1) / 10.
    """
    record = info["record"]
    log_probs = jax.nn.log_softmax(logits)
    probability = jnp.exp(log_probs[action])
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs)
    flat = record.action_matters & (record.position_before == 0)
    held = record.action_matters & (record.position_before != 0)
    traded, mode_holds = record.quantity != 0, jnp.argmax(logits) == HOLD
    bins = jnp.minimum(jnp.floor(probability * BINS), BINS - 1)
    counts = {
        "decide/flat": flat,
        "decide/held": held,
        "decide/entropy": entropy * record.action_matters,
        "decide/entries": flat & traded,
        "decide/exits": held & traded,
        "decide/entries_against_mode": flat & traded & mode_holds,
        "decide/exits_against_mode": held & traded & mode_holds,
        **{f"entry_p/{i}": flat & traded & (bins == i) for i in range(BINS)},
    }
    measured = {name: jnp.asarray(count, jnp.float32) for name, count in counts.items()}
    return step_metrics(record) | measured


def stack(sections: Sequence[config.PPO]) -> config.PPO:
    """Hyper-parameters of members, `[M]` each."""
    stacked: config.PPO = jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *sections)
    return stacked


def markets(settings: config.Config, key: jax.Array) -> Iterator[EnvParams]:
    """Environment parameters of every update: generations of paths, and the share of training."""
    feed, generation = SimulatedFeed(settings), 0
    data = feed.resident(key, generation)
    for update in range(settings.num_updates):
        if update and update % settings.refresh_updates == 0:
            generation += 1
            data = feed.advance(data, key, generation)
        yield make_params(settings, data, progress=update / max(settings.num_updates - 1, 1))


def train(
    learner: Learner, members: Sequence[config.PPO], keys: jax.Array, path_key: jax.Array
) -> Trained:
    """Trains members `[M]` of a learner from keys `[M]`, all on the same paths."""
    numbers, history, laps, state = stack(members), [], [], None
    for params in markets(learner.settings, path_key):
        state = learner.init(keys, params) if state is None else state
        began = time.process_time()
        state, metrics = learner.update(state, params, numbers)
        history.append(jax.device_get(metrics))
        laps.append(time.process_time() - began)
    assert state is not None
    series = {name: np.stack([metrics[name] for metrics in history]) for name in history[0]}
    return Trained(state.params, series, float(np.median(laps)) * len(laps))


# -- playing -------------------------------------------------------------------------------------


def population(one: Policy) -> Policy:
    """M networks side by side: leaves of its parameters `[M, ...]`, M equal stretches of lanes."""

    def initial_carry(params: network.Params, lanes: int) -> Any:
        members = params.value_head.bias.shape[0]
        each = jax.vmap(lambda member: one.initial_carry(member, lanes // members))
        return join(each(params))

    def act(params: network.Params, *inputs: Any) -> tuple[Any, jax.Array]:
        members = params.value_head.bias.shape[0]

        def split(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(members, leaf.shape[0] // members, *leaf.shape[1:])

        carry, action = jax.vmap(one.act)(params, *jax.tree.map(split, inputs))
        return join(carry), join(action)

    def join(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)

    return Policy(one.name, initial_carry, act)


SAMPLED, GREEDY = (population(policy.from_network(greedy=greedy)) for greedy in (False, True))
"""Made once: a policy is what evaluations are compiled for."""


def simulate(settings: config.Config, key: jax.Array, episodes: int) -> Days:
    """Episodes of the settings' length on fresh paths, one on each, and their true drift."""
    settings = replace(settings, simulator=replace(settings.simulator, paths=episodes))
    feed = SimulatedFeed(settings)
    market = feed.fresh(key)
    starts = backtest.one_per_stretch(np.asarray(market.episodes), episodes, settings.seed)
    drift = candidates.true_drift(feed, key, starts)
    return Days(make_params(settings, market), starts, drift)


def references(picked_on: Days, played: Sequence[Days]) -> list[dict[str, np.ndarray]]:
    """Net P&L `[N]` of the oracle and then the rule that net most on some days, on others."""
    found: list[dict[str, np.ndarray]] = [{} for _ in played]
    for who, choose in (
        (market_edge.ORACLE, market_edge.oracles),
        (market_edge.RULE, lambda days: reference_policies.grid()),
    ):
        trials = market_edge.play(who, picked_on, choose(picked_on))
        name = max(trials, key=lambda name: float(trials[name]["pnl/net"].mean()))
        for days, net in zip(played, found, strict=True):
            chosen = {name: choose(days)[name]}
            net[name] = market_edge.play(who, days, chosen)[name]["pnl/net"]
    return found


def play(who: Policy, weights: network.Params, days: Days, key: jax.Array) -> np.ndarray:
    """Net P&L `[M, N]` of every member on the same episodes."""
    members = weights.value_head.bias.shape[0]
    lanes = (days.starts.row, days.starts.symbol, days.starts.cluster)
    starts = backtest.Starts(*(np.tile(column, members) for column in lanes))
    played = backtest.run_episodes(who, weights, days.params, starts, key)
    return played["pnl/net"].reshape(members, len(days.starts.row))


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A variant's line: intervals over seeds and paths; dollars an episode, or shares."""

    name: str
    steps: int
    seconds: float  # CPU-seconds of all cores, a member
    sampled: Interval
    greedy: Interval
    sampled_share: Interval  # of the oracle's
    greedy_share: Interval
    greedy_to_sampled: float | None  # of the two IQMs, where the sampled policy earns
    entropy: float  # nats, over steps in which an order is possible
    explained_variance: float
    entries_against_mode: float  # share of sampled entries where HOLD was the mode
    exits_against_mode: float
    entry_probability: list[float]  # histogram of the probability of entries taken
    per_seed: dict[str, list[float]]  # mean net P&L of each seed
    curve: list[float | None]  # mean net P&L of whole episodes in training, by update, if any


def summarise(
    name: str,
    settings: config.Config,
    history: Mapping[str, np.ndarray],
    net: Mapping[str, np.ndarray],
    oracle: np.ndarray,
    seconds: float,
) -> Row:
    """The line of a variant: history `[updates, M]`, net `[M, N]` (two), oracle `[N]`."""
    sampled, greedy = (mean_interval(net[how]) for how in ("sampled", "greedy"))
    last = {metric: values[-LAST:].sum() for metric, values in history.items()}
    entries, exits = (last[f"step_sum/decide/{orders}"] for orders in ("entries", "exits"))
    counts = [last[f"step_sum/entry_p/{i}"] for i in range(BINS)]
    possible = last["step_sum/decide/flat"] + last["step_sum/decide/held"]
    episodes = history["rollout/episodes"].sum(axis=1)
    earned = history["episode_sum/pnl/net"].sum(axis=1)
    return Row(
        name=name,
        steps=settings.num_envs * settings.ppo.n_steps * settings.num_updates,
        seconds=seconds,
        sampled=sampled,
        greedy=greedy,
        sampled_share=ratio_of_means(net["sampled"], oracle),
        greedy_share=ratio_of_means(net["greedy"], oracle),
        greedy_to_sampled=greedy.value / sampled.value if sampled.value > 0 else None,
        entropy=float(last["step_sum/decide/entropy"] / max(possible, 1)),
        explained_variance=float(history["train/explained_variance"][-LAST:].mean()),
        entries_against_mode=float(last["step_sum/decide/entries_against_mode"] / max(entries, 1)),
        exits_against_mode=float(last["step_sum/decide/exits_against_mode"] / max(exits, 1)),
        entry_probability=[float(count / max(entries, 1)) for count in counts],
        per_seed={how: net[how].mean(axis=1).tolist() for how in ("sampled", "greedy")},
        curve=[
            round(float(total / count), 2) if count else None
            for total, count in zip(earned, episodes, strict=True)
        ],
    )


COLUMNS = (
    "variant",
    "CPU-s",
    "sampled, $",
    "share of oracle, %",
    "greedy, $",
    "share of oracle, %",
    "greedy / sampled",
    "entropy",
    "EV",
    "entries against mode, %",
)


def _cells(row: Row) -> list[str]:
    def percent(share: Interval) -> str:
        return f"{Interval(*(100 * end for end in share)):.0f}"

    return [
        row.name,
        f"{row.seconds:.0f}",
        f"{row.sampled:.1f}",
        percent(row.sampled_share),
        f"{row.greedy:.1f}",
        percent(row.greedy_share),
        "–" if row.greedy_to_sampled is None else f"{row.greedy_to_sampled:.2f}",
        f"{row.entropy:.2f}",
        f"{row.explained_variance:.2f}",
        f"{100 * row.entries_against_mode:.0f}",
    ]


def markdown(rows: Sequence[Row], setup: Mapping[str, Any]) -> str:
    """The table, best greedy policy first, and below it what the oracle and the rule earn."""
    ordered = sorted(rows, key=lambda row: -row.greedy.value)
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *map(_cells, ordered)]
    width = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    padded = (
        " | ".join(cell.ljust(size) for cell, size in zip(line, width, strict=True))
        for line in lines
    )
    references = ", ".join(f"{name}: {Interval(*of):.1f}" for name, of in setup["earn"].items())
    head = (
        f"`{setup['preset']}`, {setup['lanes']} lanes, {setup['timesteps']:,} steps, "
        f"{setup['seeds']} seeds; net P&L per episode of {setup['episodes']} fresh ones, IQM over "
        f"seeds, 95 % intervals. {references}."
    )
    return "\n".join([head, "", *(f"| {line} |" for line in padded), ""])


@dataclass(frozen=True)
class Store:
    """The results of one setup: a JSON file, and a table beside it."""

    path: Path
    setup: dict[str, Any]
    rows: dict[str, Row]

    @classmethod
    def open(cls, path: Path, setup: dict[str, Any]) -> Store:
        """What `path` holds of the same setup; nothing where it is of another."""
        rows: dict[str, Row] = {}
        if path.exists():
            found = json.loads(path.read_text("utf-8"))
            if found["setup"] == json.loads(json.dumps(setup)):
                rows = {row["name"]: _row(row) for row in found["rows"]}
        return cls(path, setup, rows)

    def add(self, row: Row) -> None:
        """Keeps a row, in place of an older one of its name."""
        self.rows[row.name] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [dataclasses.asdict(row) for row in self.rows.values()]
        text = json.dumps({"setup": self.setup, "rows": rows}, indent=1)
        self.path.write_text(text + "\n", "utf-8")
        self.path.with_suffix(".md").write_text(self.table(), "utf-8")

    def table(self) -> str:
        """All rows as markdown."""
        return markdown(list(self.rows.values()), self.setup)


def _row(values: dict[str, Any]) -> Row:
    of = {field.name: values[field.name] for field in dataclasses.fields(Row)}
    intervals = ("sampled", "greedy", "sampled_share", "greedy_share")
    return Row(**of | {name: Interval(*of[name]) for name in intervals})


# -- the command ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ablation:
    """Everything variants have in common: seeds, paths, and where rows go.

    days: the episodes to play. oracle: its net P&L on them, `[N]`.
    """

    key: jax.Array
    seeds: int
    days: Days
    oracle: np.ndarray
    store: Store
    report: bool = False

    def run(self, settings: Mapping[str, config.Config]) -> Iterator[Row]:
        """The rows of the variants, one program after the other."""
        for names in programs(settings):
            first = settings[names[0]]
            learner = Learner(
                TradingEnv(first),
                first,
                step_metrics=measure,
                devices=jax.devices()[:1],
                members=self.seeds,
            )
            for name in names:
                row = self._variant(name, settings[name], learner)
                self.store.add(row)
                yield row

    def _variant(self, name: str, settings: config.Config, learner: Learner) -> Row:
        training, paths = (Use.TRAINING, Use.TRAINING_PATHS)
        if self.report:
            training, paths = (Use.REPORT_TRAINING, Use.REPORT_TRAINING_PATHS)
        keys = jax.random.split(jax.random.fold_in(self.key, training), self.seeds)
        path_key = jax.random.fold_in(self.key, paths)
        trained = train(learner, [settings.ppo] * self.seeds, keys, path_key)
        net = {
            how: play(who, trained.weights, self.days, self.key)
            for how, who in (("sampled", SAMPLED), ("greedy", GREEDY))
        }
        seconds = trained.cpu_seconds / self.seeds
        return summarise(name, settings, trained.history, net, self.oracle, seconds)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="easy")
    parser.add_argument("--seeds", type=int, default=3, help="agents of every variant")
    parser.add_argument("--timesteps", type=int, help="of every agent; default: the base's")
    parser.add_argument("--lanes", type=int, help="of the base; default: its own")
    parser.add_argument("--only", default="", help="names of variants, separated by semicolons")
    parser.add_argument("--report", default="", help="variants to train and play afresh, likewise")
    parser.add_argument("--episodes", type=int, default=512, help="fresh ones, a path each")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args(argv)


def base_config(given: argparse.Namespace) -> config.Config:
    """The base of the ablation."""
    values = {"simulator.preset": given.preset, "seed": given.seed, "devices": 1}
    sizes = {"num_envs": given.lanes, "total_timesteps": given.timesteps}
    chosen = {name: value for name, value in sizes.items() if value is not None}
    return config.load(values | chosen, file=BASE)


def prepare(given: argparse.Namespace, base: config.Config) -> Ablation:
    """Simulates the episodes to play, and plays oracle and rule on them."""
    key = jax.random.key(given.seed)
    use = Use.REPORT if given.report else Use.VALIDATION
    days = simulate(base, jax.random.fold_in(key, use), given.episodes)
    picked_on = simulate(base, jax.random.fold_in(key, Use.PICKING), given.episodes)
    (earned,) = references(picked_on, [days])
    setup = {
        "preset": given.preset,
        "lanes": base.num_envs,
        "timesteps": base.total_timesteps,
        "seeds": given.seeds,
        "episodes": given.episodes,
        "seed": given.seed,
        "earn": {name: list(mean_interval(net)) for name, net in earned.items()},
    }
    path = given.results / f"ablation-{given.preset}{'-report' if given.report else ''}.json"
    oracle = next(iter(earned.values()))
    return Ablation(key, given.seeds, days, oracle, Store.open(path, setup), bool(given.report))


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and plays what is missing of the table, and prints it."""
    given = parse(argv)
    backend.use_compilation_cache()
    try:
        base = base_config(given)
        named = [name.strip() for name in (given.report or given.only).split(";") if name.strip()]
        settings = settings_of(base, named or list(variants(base)))
        ablation = prepare(given, base)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    missing = {name: one for name, one in settings.items() if name not in ablation.store.rows}
    for row in ablation.run(missing):
        print(" | ".join(_cells(row)), flush=True)
    print(f"\n{ablation.store.table()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
