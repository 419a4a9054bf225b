"""Which settings learn best? One factor at a time from a base, and a few together.

`python benchmarks/ablation.py --preset easy --seeds 3` trains every variant from the same seeds for
the same number of environment steps, all seeds in one vmapped run, and plays what was learned on
paths of its own, beside the oracle, which is told the true drift, and the best rule of the grid
(`market_edge`; both picked on other paths). Variants that differ in numbers alone share a compiled
program. The table is for picking; `--report NAME` trains the one picked again, from new seeds on
new paths, and plays it on paths that nothing was picked on, with patience too: those are the
figures to state. `--base FILE` begins from that config as it stands, lots and lanes included.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import populations, references
from benchmarks.references import Days
from jules_jax import config
from jules_jax.agent.learner import Learner
from jules_jax.env.metrics import step_metrics
from jules_jax.env.trading_env import TradingEnv
from jules_jax.errors import InputError
from jules_jax.evaluation.reference_policies import HOLD
from jules_jax.evaluation.statistics import Interval, mean_interval, ratio_of_means
from jules_jax.training import backend, registry

BASE = Path(__file__).parents[1] / "configs" / "phase1_smoke.yaml"
PINNED = {"account.position_size_pct": 0.25}
"""The lots with which the table was begun: those of the smoke run are calibrated, and may move."""
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
    PLAY = 7
    PICKING_AGAIN = 8  # of those that did best


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
    patient: dict[str, tuple[Interval, Interval]] = field(default_factory=dict)
    """By bars of patience, of the greedy policy that has it: dollars, and share of the oracle's."""


def summarise(
    name: str,
    settings: config.Config,
    history: Mapping[str, np.ndarray],
    net: Mapping[str, np.ndarray],
    oracle: np.ndarray,
    seconds: float,
) -> Row:
    """The line of a variant: history `[updates, M]`, net `[M, N]`, oracle `[N]`.

    net: by "sampled", "greedy" and, where they were played, bars of patience.
    """
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
        patient={
            bars: (mean_interval(of), ratio_of_means(of, oracle))
            for bars, of in net.items()
            if bars not in ("sampled", "greedy")
        },
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


def _percent(share: Interval) -> str:
    return f"{Interval(*(100 * end for end in share)):.0f}"


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        f"{row.seconds:.0f}",
        f"{row.sampled:.1f}",
        _percent(row.sampled_share),
        f"{row.greedy:.1f}",
        _percent(row.greedy_share),
        "–" if row.greedy_to_sampled is None else f"{row.greedy_to_sampled:.2f}",
        f"{row.entropy:.2f}",
        f"{row.explained_variance:.2f}",
        f"{100 * row.entries_against_mode:.0f}",
    ]


def _patient_cells(row: Row) -> Iterator[list[str]]:
    for bars, (net, share) in row.patient.items():
        cells = [f"{row.name}, patience {bars}", "", "", "", f"{net:.1f}", _percent(share)]
        yield cells + [""] * (len(COLUMNS) - len(cells))


def markdown(rows: Sequence[Row], setup: Mapping[str, Any]) -> str:
    """The table, best greedy policy first, and below it what the oracle and the rule earn."""
    ordered = sorted(rows, key=lambda row: -row.greedy.value)
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)]]
    for row in ordered:
        lines += [_cells(row), *_patient_cells(row)]
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
            if _identity(found["setup"]) == _identity(json.loads(json.dumps(setup))):
                rows = {row["name"]: _row(row) for row in found["rows"]}
        return cls(path, setup, rows)

    def add(self, row: Row) -> None:
        """Keeps a row, in place of an older one of its name."""
        self.rows[row.name] = row
        self.write()

    def write(self) -> None:
        """Puts all rows, and what oracle and rule earn, on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [dataclasses.asdict(row) for row in self.rows.values()]
        text = json.dumps({"setup": self.setup, "rows": rows}, indent=1)
        self.path.write_text(text + "\n", "utf-8")
        self.path.with_suffix(".md").write_text(self.table(), "utf-8")

    def table(self) -> str:
        """All rows as markdown."""
        return markdown(list(self.rows.values()), self.setup)


def _identity(setup: dict[str, Any]) -> dict[str, Any]:
    """What rows of one table share: all of a setup but the rule, which no row is compared with."""
    oracle = next(iter(setup["earn"].items()))
    return setup | {"earn": oracle}


def _row(values: dict[str, Any]) -> Row:
    intervals = ("sampled", "greedy", "sampled_share", "greedy_share")
    patient = {
        bars: (Interval(*net), Interval(*share))
        for bars, (net, share) in values.get("patient", {}).items()
    }
    return Row(
        **values | {name: Interval(*values[name]) for name in intervals} | {"patient": patient}
    )


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
        markets = populations.markets(settings, jax.random.fold_in(self.key, paths))
        numbers = populations.stack([settings.ppo] * self.seeds)
        trained = populations.train(learner, keys, markets, numbers)
        playing = jax.random.fold_in(self.key, Use.PLAY)
        ways = {"sampled": populations.SAMPLED, "greedy": populations.GREEDY}
        if self.report:
            ways |= {str(bars): who for bars, who in populations.PATIENT.items()}
        net = {
            how: populations.play(who, trained.weights, self.days, playing)
            for how, who in ways.items()
        }
        seconds = trained.cpu_seconds / self.seeds
        return summarise(name, settings, trained.history, net, self.oracle, seconds)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="easy")
    parser.add_argument("--base", type=Path, help="a config to begin from as it stands")
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
    """The base of the ablation: that of the table, or the file given."""
    values = ({} if given.base else PINNED) | {
        "simulator.preset": given.preset,
        "seed": given.seed,
        "devices": 1,
    }
    sizes = {"num_envs": given.lanes, "total_timesteps": given.timesteps}
    chosen = {name: value for name, value in sizes.items() if value is not None}
    return config.load(values | chosen, file=given.base or BASE)


PLAYED = (
    "num_envs",
    "total_timesteps",
    "max_steps_in_episode",
    "market",
    "simulator",
    "features",
    "fills",
    "account",
    "safeguards",
    "reward",
    "ppo",
    "network",
    "schedules",
    "randomise",
)
"""What of a config a row depends on."""


def fingerprint(base: config.Config) -> str:
    """A hash of what the base trains on and with: rows of one table have the same."""
    values = config.to_dict(base)
    return registry.config_hash({name: values[name] for name in PLAYED})


def prepare(given: argparse.Namespace, base: config.Config) -> Ablation:
    """Simulates the episodes to play, and plays oracle and rule on them."""
    key = jax.random.key(given.seed)
    use = Use.REPORT if given.report else Use.VALIDATION
    days = references.simulate(base, jax.random.fold_in(key, use), given.episodes)
    picked_on = references.simulate(base, jax.random.fold_in(key, Use.PICKING), given.episodes)
    earned = {found.name: found.net(days) for found in references.best_of([picked_on])}
    setup = {
        "preset": given.preset,
        "lanes": base.num_envs,
        "timesteps": base.total_timesteps,
        "seeds": given.seeds,
        "episodes": given.episodes,
        "seed": given.seed,
        "base": fingerprint(base),
        "earn": {name: list(mean_interval(net)) for name, net in earned.items()},
    }
    names = ["ablation", *([given.base.stem] if given.base else []), given.preset]
    path = given.results / f"{'-'.join([*names, *(['report'] if given.report else [])])}.json"
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
    ablation.store.write()
    print(f"\n{ablation.store.table()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
