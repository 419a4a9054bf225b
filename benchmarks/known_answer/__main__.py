"""`python -m benchmarks.known_answer`: trains on every market whose answer is known, and judges.

null       nothing can be earned: the trained policy does not trade
drift      prices rise: it buys and holds
reversion  a visible signal reverts, trading costs: the optimum is dynamic programming's
regime     a hidden drift that only history reveals: the exact filter's optimum
cue        a pulse seen once pays 20 bars later

Seeds of a market train side by side in one program. The exit status is 1 where a requirement does
not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax

from benchmarks.known_answer import games, report, trading
from benchmarks.known_answer.report import Finding
from jules_jax.errors import InputError
from jules_jax.training import backend

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "known_answer.json"
FIGURE = ROOT / "docs" / "images" / "known_answer.png"
MARKETS: dict[str, Callable[[int, int, int], Finding]] = {
    "null": trading.null,
    "drift": trading.drift,
    "reversion": games.reverting,
    "regime": games.hidden,
    "cue": games.delayed,
}


def chosen(only: str) -> list[str]:
    """Names of `MARKETS` in a list with commas, all of them for an empty one."""
    names = only.split(",") if only else list(MARKETS)
    for name in names:
        if name not in MARKETS:
            raise InputError(f"--only: found {name!r}, expected some of {', '.join(MARKETS)}")
    return names


def main(argv: list[str] | None = None) -> int:
    """Prints one table; returns 1 where a market fails, 2 for bad input, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="names of markets, with commas between them")
    parser.add_argument("--seeds", type=int, default=10, help="agents trained side by side")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--episodes", type=int, default=1024, help="fresh ones, for each agent")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to update")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="PNG of all that is in it")
    given = parser.parse_args(argv)
    try:
        names = chosen(given.only)
        for name, least in (("seeds", 1), ("episodes", 2)):
            if (count := getattr(given, name)) < least:
                raise InputError(f"--{name}: found {count}, expected {least} or more")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    backend.use_compilation_cache()
    findings = []
    for name in names:
        began = time.monotonic()
        findings.append(MARKETS[name](given.seeds, given.seed, given.episodes))
        seconds = round(time.monotonic() - began)
        print(f"{name}: {given.seeds} seeds in {seconds} s", flush=True)
        about = {
            "seeds": given.seeds,
            "seed": given.seed,
            "episodes": given.episodes,
            "seconds": seconds,
            "jax": jax.__version__,
        }
        report.merge(given.results, findings[-1:], about)
    print(f"\n{report.table(findings)}\n")
    overall = report.together(findings)
    if overall is not None:
        print(f"share of the optimum over these markets and seeds, greedy, IQM: {overall:.3f}")
    order = list(MARKETS)
    kept = sorted(report.read(given.results), key=lambda found: order.index(found.market))
    report.figure(kept, given.figure)
    return int(any(found.failures for found in findings))


if __name__ == "__main__":
    sys.exit(main())
