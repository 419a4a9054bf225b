"""`python -m jules_jax.data`: check files of bars, build datasets of them, and measure markets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jules_jax import errors, flags
from jules_jax.config import Config


def check(settings: Config, extras: Any) -> int:
    """Prints findings and the table of every symbol; writes the report that is asked for."""
    from jules_jax.market import source, storage
    from jules_jax.market.quality import report, session_table

    storage.refuse_dataset(settings.market.data, "which was checked when it was built")
    reports = []
    for one in source.reports(settings.market):
        print(session_table.table([one.table], all_sessions=extras["all"]))
        print("".join(f"- {note}\n" for note in one.notes))
        if extras["report"]:
            reports.append(one)
    if reports:
        report.write(extras["report"], reports)
        print(f"wrote {extras['report']}")
    return 0


def build(settings: Config, extras: Any) -> int:
    """Builds a dataset and says what is in it."""
    from jules_jax.market import instruments, storage

    if not extras["out"]:
        raise errors.InputError("--out is missing, expected the directory of the new dataset")
    given = instruments.read(settings.market.symbols)
    manifest = storage.build(settings.market.data, extras["out"], settings.market, given=given)
    print(*manifest.symbols, sep="\n")
    print(f"wrote {extras['out']}; train on it with: --data {extras['out']}")
    return 0


def prove_causal(settings: Config, extras: Any) -> int:
    """Alters bars after random moments and compares everything before them, bit by bit."""
    from jules_jax.evaluation import causality

    moments = flags.whole_number(extras, "moments", default=24, most=10_000)
    proof = causality.prove_dataset(settings, moments=moments)
    print(proof)
    return 0 if proof.holds else 1


def stylised_facts(settings: Config, extras: Any) -> int:
    """Measures recorded bars, and paths of the preset at hand; judges the paths."""
    from jules_jax.market import stylised_facts as facts

    measured, half_spreads = facts.of_config(settings)
    reference = Path(extras["reference"]) if extras["reference"] else None
    print(facts.report(measured, half_spreads=half_spreads, reference=reference))
    if extras["figure"]:
        facts.figure(measured).savefig(extras["figure"], dpi=110)
        print(f"\nwrote {extras['figure']}")
    return 0


def fit(settings: Config, extras: Any) -> int:
    """Prints the simulator's section that resembles recorded bars, as YAML for --config."""
    from jules_jax.market import dataset
    from jules_jax.market import fit as fitting

    one = dataset.load(settings).one(extras["symbol"])
    print(f"# The simulator as {one.symbol}, for --config\n{fitting.as_yaml(one)}", end="")
    return 0


COMMANDS = {
    "check": flags.Subcommand(
        check,
        "What is wrong with files of bars, by symbol and session; what would be repaired.",
        switches={"all": "print every session, not only those with something to say"},
        options={"report": "HTML file to write as well, with plots"},
    ),
    "build": flags.Subcommand(
        build,
        "A memory-mapped dataset of files of bars, for data that are large or used often.",
        options={"out": "directory of the dataset (required)"},
    ),
    "prove-causal": flags.Subcommand(
        prove_causal,
        "That no observation, order or fill up to a bar depends on a later one.",
        options={"moments": "moments to try (default 24)"},
    ),
    "stylised-facts": flags.Subcommand(
        stylised_facts,
        "Facts of simulated bars (--preset NAME) and, given PATH, of recorded ones.",
        options={"figure": "image to draw them in", "reference": "JSON file of further columns"},
        needs_path=False,
        preset="default",
    ),
    "fit": flags.Subcommand(
        fit,
        "The simulator's parameters for endless bars like recorded ones.",
        options={"symbol": "which one, where PATH has several"},
    ),
}


def main() -> None:
    """The command."""
    name, parsed = flags.parse_subcommand(sys.argv[1:], program="jules_jax.data", known=COMMANDS)
    if status := COMMANDS[name].run(parsed.config, parsed.extras):
        raise SystemExit(status)


if __name__ == "__main__":
    errors.run_command(main)
