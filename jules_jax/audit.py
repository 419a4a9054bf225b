"""`python -m jules_jax.audit`: proves recorded episodes, and explains a decision in them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jules_jax import errors

if TYPE_CHECKING:
    from jules_jax.evaluation.audit import Manifest


class Parser(argparse.ArgumentParser):
    """argparse, with errors told as every command tells them."""

    def error(self, message: str) -> NoReturn:
        """Raises `InputError`."""
        raise errors.InputError(f"{message}; see {self.prog} --help")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jules_jax.audit",
        description="Proves and explains recorded episodes. Exit status: 0 all is well, 1 "
        "something was edited or does not follow, 2 bad input.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        aliases=["replay"],
        help="check the hashes, re-derive every step in float64, run the checkpoint again",
    )
    verify.add_argument("path", type=Path, help="directory of an audit")
    verify.add_argument(
        "--checkpoint", type=Path, help="where the weights are now, if not where they were"
    )
    explain = commands.add_parser("explain", help="tell one decision in words")
    explain.add_argument("path", type=Path, help="directory of an audit")
    explain.add_argument("--episode", type=int, required=True, help="from 0")
    explain.add_argument("--step", type=int, required=True, help="from 0")
    explain.add_argument("--policy", help="whose, where several played, such as 'trained, greedy'")
    return parser


def _weights(found: Manifest, given: Path | None) -> tuple[Any, str]:
    """The weights of the audit's checkpoint, or None and why they are not at hand.

    Raises `InputError` where those that were asked for are others.
    """
    from jules_jax.training import checkpoints

    facts = found.facts
    if facts.kind == "training" or not facts.checkpoint_hash:
        return None, ""
    place = given or Path(facts.checkpoint)
    try:
        params = checkpoints.load_params(checkpoints.find(place), facts.config)
    except errors.InputError as error:
        if given:
            raise
        return None, f"{error}; --checkpoint says where it is now"
    if checkpoints.digest(params) == facts.checkpoint_hash:
        return params, ""
    sentence = f"{place}: its weights are others than those that decided in these episodes"
    if given:
        raise errors.InputError(sentence)
    return None, sentence


def _verify(path: Path, checkpoint: Path | None) -> int:
    from jules_jax.evaluation import audit  # imports JAX, which --help must not wait for
    from jules_jax.evaluation.audit import manifest

    params, why = _weights(manifest.read(path)[0], checkpoint)
    result = audit.verify(path, params, why=why)
    print(audit.report(result))
    return 0 if result.clean else 1


def main() -> None:
    """The command."""
    asked = _parser().parse_args()
    if asked.command == "explain":
        from jules_jax.evaluation import audit

        print(audit.explain(
            asked.path, episode=asked.episode, step=asked.step, policy=asked.policy
        ))  # fmt: skip
        return
    if status := _verify(asked.path, asked.checkpoint):
        raise SystemExit(status)


if __name__ == "__main__":
    errors.run_command(main)
