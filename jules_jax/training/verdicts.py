"""Verdicts: what the gates said of a checkpoint, as a table, as JSON, and in TensorBoard."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboardX import summary

from jules_jax.errors import InputError
from jules_jax.evaluation import gates
from jules_jax.evaluation.gates import Estimate, Gate
from jules_jax.training.events import EventFile
from jules_jax.training.run_directory import GATES_FILE

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Verdict:
    """What the gates say of a checkpoint.

    directory: where it is written, if anywhere. steps: of the environment that it was trained for.
    """

    gates: list[Gate]
    warnings: list[str]
    notes: tuple[str, ...]
    checkpoint: Path
    directory: Path | None
    means: dict[str, Estimate]
    seconds: float
    steps: int = 0

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""
        return not any(gate.failed for gate in self.gates)

    def text(self) -> str:
        """The table, what each failure means and what to try, warnings, and the outcome."""
        failed = [gate for gate in self.gates if gate.failed]
        lines = [*self.notes, "", gates.table(self.gates), ""]
        played = ", ".join(
            f"{name} {mean.value:,.2f} ± {mean.error:.2f}" for name, mean in self.means.items()
        )
        lines += [f"reward an episode: {played}"]
        lines += [f"FAIL {gate.name}: {gate.advice}" for gate in failed]
        lines += [f"warning: {warning}" for warning in self.warnings]
        asked = sum(gate.passed is not None for gate in self.gates)
        outcome = f"{len(failed)} of {asked} gates failed" if failed else f"all {asked} gates pass"
        return "\n".join([*lines, f"{outcome} ({self.seconds:.0f} s)"])

    def to_dict(self) -> dict[str, Any]:
        """The content of `gates.json`; what is not a number is null."""
        rows = [
            {
                "gate": gate.name,
                "threshold": gate.asks,
                "value": _number(gate.value),
                "standard_error": _number(gate.error),
                "passed": gate.passed,
                "detail": gate.detail,
                "advice": gate.advice if gate.failed else "",
            }
            for gate in self.gates
        ]
        rewards = {
            name: {"mean": _number(mean.value), "standard_error": _number(mean.error)}
            for name, mean in self.means.items()
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "checkpoint": str(self.checkpoint),
            "passed": self.passed,
            "gates": rows,
            "episode_reward": rewards,
            "warnings": self.warnings,
            "played_on": list(self.notes),
            "seconds": round(self.seconds, 1),
        }

    def write(self) -> None:
        """Puts `gates.json`, and a text in TensorBoard, into the directory, where there is one.

        Raises `InputError` where it cannot.
        """
        if self.directory is None:
            return
        path = self.directory / GATES_FILE
        try:
            path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
            with closing(EventFile(self.directory, suffix=".gates")) as events:
                events.add(summary.text("gates", markdown(self)), self.steps)
        except OSError as error:
            place = error.filename or path
            raise InputError(f"{place} cannot be written: {error.strerror}") from None


def markdown(verdict: Verdict) -> str:
    """The verdict as TensorBoard shows texts."""
    lines = ["| gate | asks for | value ± s.e. | verdict | |", "|---|---|---|---|---|"]
    words = {None: "–", True: "pass", False: "**FAIL**"}
    for gate in verdict.gates:
        says = f"{gate.detail} {gate.advice if gate.failed else ''}".strip().replace("|", "\\|")
        asks = gate.asks.replace("|", "\\|")
        lines.append(
            f"| {gate.name} | {asks} | {gates.shown(gate)} | {words[gate.passed]} | {says} |"
        )
    return "\n".join([*lines, "", *(f"warning: {warning}" for warning in verdict.warnings)])


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
