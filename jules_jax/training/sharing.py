"""Sharing: a trained policy without its run, small enough to send or to commit.

What others need to evaluate it, and to know what it is: weights, config, provenance and, where the
checkpoint has been judged, its gates. What resuming needs stays behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.training import acceptance, checkpoints, run_directory

MARKERS = "commit_success.txt"
"""Orbax's, of what was written whole; they name directories of the machine that wrote."""


def share(checkpoint: Path, to: Path, *, say: Callable[[str], None] = lambda text: None) -> Path:
    """Copies what is to be shared of the checkpoint at `checkpoint` to `to`; returns its step.

    checkpoint: as of `acceptance.find`; of a run, the newest that can be read, `say` being told of
    others. The copy is read back, so that what is sent is known to be whole. Raises `InputError`.
    """
    place = acceptance.find(str(checkpoint))
    saved = config.load(file=config.saved_with(str(place)))
    step, _ = checkpoints.newest_params(place, saved, say)
    meta = checkpoints.load_meta(step)
    settings = config.load(meta["config"])
    copy = to / step.name
    try:
        to.mkdir(parents=True)
        shutil.copytree(step / "params", copy / "params", ignore=shutil.ignore_patterns(MARKERS))
        checkpoints.write_meta(copy, _of_weights(meta))
        run = acceptance.run_of(step, settings)
        if run is not None and acceptance.judged(run) == step.name:
            shutil.copyfile(run / run_directory.GATES_FILE, to / run_directory.GATES_FILE)
    except FileExistsError:
        raise InputError(f"{to} exists already, expected a new directory") from None
    except OSError as error:
        raise InputError(f"{error.filename or to} cannot be written: {error.strerror}") from None
    checkpoints.write_config(to, settings)
    checkpoints.load_params(copy, settings)
    return copy


def _of_weights(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON part without what is said of a run and its state, which stay behind."""
    kept = {key: value for key, value in meta.items() if key != "run"}
    return kept | {"digest": {"params": meta["digest"]["params"]}}
