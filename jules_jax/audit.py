"""`python -m jules_jax.audit`: checks recorded episodes against the float64 twin."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jules_jax import errors

if TYPE_CHECKING:
    from jules_jax.evaluation.twin import Disagreement


class Parser(argparse.ArgumentParser):
    """argparse, with errors told as every command tells them."""

    def error(self, message: str) -> NoReturn:
        """Raises `InputError`."""
        raise errors.InputError(f"{message}; see {self.prog} --help")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jules_jax.audit",
        description="Checks recorded episodes. Exit status: 0 agreement, 1 disagreement, 2 bad "
        "input.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    replay = commands.add_parser(
        "replay",
        help="re-derive every step in float64 and name the first column that disagrees",
    )
    replay.add_argument("path", type=Path, help="audit file, or a directory of *.parquet ones")
    return parser


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if files := sorted(path.glob("*.parquet")):
        return files
    raise errors.InputError(f"{path}: no *.parquet file there, expected audit files")


def _replay(path: Path) -> bool:
    """Whether a file agrees with the twin; prints the finding."""
    from jules_jax.evaluation import audit_log  # imports JAX, which --help must not wait for

    log = audit_log.read(path)
    first = audit_log.first_disagreement(log)
    finding = "no disagreement" if first is None else _sentence(first)
    steps = int((log.record.time > 0).sum())
    print(f"{path}: {len(log.start_rows):,} episodes, {steps:,} steps: {finding}")
    return first is None


def _sentence(first: Disagreement) -> str:
    return (
        f"episode {first.lane} step {first.step} column {first.field} is recorded as "
        f"{_shown(first.field, first.found)}, re-derived as {_shown(first.field, first.expected)}"
    )


def _shown(field: str, value: float) -> str:
    from jules_jax.env.record import Outcome

    named = field == "outcome" and value in list(Outcome)
    return Outcome(int(value)).name if named else f"{value:.9g}"


def main() -> None:
    """The command."""
    agrees = [_replay(file) for file in _files(_parser().parse_args().path)]
    if not all(agrees):
        raise SystemExit(1)


if __name__ == "__main__":
    errors.run_command(main)
