"""`python -m jules_jax.runs`: every run ever started, and what the old ones have left on disk."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jules_jax import config, errors, flags

SUMMARY = (
    "Tells of the runs in the registry (runs/registry.jsonl), which counts every one ever started. "
    "ACTION is list; show RUN; compare RUN RUN; share RUN, which copies its policy and no more; "
    "or prune, which asks, then removes the directories of all but the newest runs, and never a "
    "line of the registry."
)
ARGUMENTS = {"list": 0, "show": 1, "compare": 2, "share": 1, "prune": 0}
"""How many runs each action takes."""
SWITCHES = {"yes": "prune: remove without asking, as a script must"}
OPTIONS = {
    "keep": "prune: how many of the newest runs keep their directories (default 45)",
    "to": "share: the directory for weights, config, provenance and gates (required)",
}
MOST_KEPT = 1_000_000


def main() -> None:
    """The command; exit status 1 where pruning was declined."""
    words = sys.argv[1:]
    place = next((place for place, word in enumerate(words) if word[0:1] == "-"), len(words))
    action, *names = words[:place] or ["--help"]
    parsed = flags.parse(
        words[place:] or (["--help"] if action == "--help" else []),
        program="jules_jax.runs ACTION",
        summary=SUMMARY,
        switches=SWITCHES,
        options=OPTIONS,
        common=("runs_dir", "checkpoint_dir"),
    )
    if action not in ARGUMENTS:
        known = ", ".join(ARGUMENTS)
        raise errors.InputError(f"unknown action {action!r}, expected one of {known}")
    if len(names) != ARGUMENTS[action]:
        found = " ".join(names) or "none"
        raise errors.InputError(f"{action} takes {ARGUMENTS[action]} runs, and was given: {found}")
    if status := _act(action, names, parsed.config, parsed.extras):
        raise SystemExit(status)


def _act(action: str, names: list[str], settings: config.Config, extras: Mapping[str, Any]) -> int:
    from jules_jax.training import registry, run_history

    runs_dir = Path(settings.runs_dir)
    if action == "share":
        return _share(Path(settings.checkpoint_dir) / names[0], extras["to"])
    lines = registry.read(runs_dir, say=lambda note: print(note, file=sys.stderr))
    found = run_history.runs(lines)
    if not found and action in ("list", "prune"):
        print(f"no run in {runs_dir} yet")
        return 0
    match action:
        case "list":
            print(run_history.listing(found))
        case "show":
            run = run_history.find(found, names[0])
            print(run_history.details(run, lines, runs_dir / run.name))
        case "compare":
            ours, theirs = (run_history.find(found, name) for name in names)
            print(run_history.comparison(ours, theirs, runs_dir))
        case "prune":
            keep = flags.whole_number(extras, "keep", default=45, most=MOST_KEPT)
            leftovers = run_history.old(found, runs_dir, Path(settings.checkpoint_dir), keep=keep)
            return _prune(leftovers, keep, asks=not extras["yes"])
    return 0


def _share(checkpoint: Path, to: str | None) -> int:
    from jules_jax.training import sharing

    if to is None:
        raise errors.InputError("--to is missing, expected a directory for the copy")
    copy = sharing.share(checkpoint, Path(to), say=print)
    size = sum(path.stat().st_size for path in Path(to).rglob("*") if path.is_file())
    print(f"{copy}: {size / 1000:,.0f} kB; python -m jules_jax.evaluate --checkpoint {to}")
    return 0


def _prune(leftovers: list[Any], keep: int, *, asks: bool) -> int:
    from jules_jax.training import run_history

    if active := sum(leftover.active for leftover in leftovers):
        print(f"stay, as trained or written to within the last hour: {active} of the older runs")
    leftovers = [leftover for leftover in leftovers if not leftover.active]
    if not leftovers:
        print(f"nothing to remove besides the newest {keep}, which stay")
        return 0
    for leftover in leftovers:
        for directory in leftover.directories:
            print(f"  {directory}")
    megabytes = sum(leftover.size for leftover in leftovers) / 2**20
    if asks and not _agrees(f"Remove these of {len(leftovers)} runs, {megabytes:,.1f} MiB? [y/N] "):
        print("nothing was removed")
        return 1
    run_history.remove(leftovers)
    print(f"removed {len(leftovers)} runs, {megabytes:,.1f} MiB; the registry keeps all its lines")
    return 0


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        raise errors.InputError("prune asks first, and nobody answered: pass --yes") from None


if __name__ == "__main__":
    errors.run_command(main)
