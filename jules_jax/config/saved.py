"""The config that was saved with a checkpoint."""

from __future__ import annotations

from pathlib import Path

from jules_jax.errors import InputError

FILE = "config.yaml"


def saved_with(checkpoint: Path) -> Path:
    """The file of the resolved config: in the checkpoint's directory, or in the one above.

    Raises `InputError` where there is no such directory, none with a config, or one of several
    agents.
    """
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint}: no such checkpoint directory")
    for place in (checkpoint, checkpoint.parent):
        if (place / FILE).is_file():
            return place / FILE
    if members := sorted(path.parent.name for path in checkpoint.glob(f"*/{FILE}")):
        raise InputError(
            f"{checkpoint} is a population's, expected one of its members: {', '.join(members)}"
        )
    raise InputError(f"{checkpoint}: no {FILE} there, expected one beside a checkpoint")
