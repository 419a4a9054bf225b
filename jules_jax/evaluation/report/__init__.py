"""The report of an evaluation: `report.json`, one self-contained `report.html`, and its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jules_jax.errors import InputError
from jules_jax.evaluation.report import schema


def write(report: Mapping[str, Any], directory: Path) -> list[Path]:
    """Writes report.json, report.html and one PNG per figure to `directory`; returns the files.

    report: as `schema.REPORT` says; NumPy's numbers are taken, and what is not finite becomes null.
    Every file is written whole or not at all. Raises `InputError` for a report of another schema,
    before anything is written, and for a directory that cannot be written to.
    """
    from jules_jax.evaluation.report import page  # imported here: matplotlib takes half a second

    kept = schema.plain(report)
    schema.check(kept)
    text = json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False)
    drawings = page.draw(kept)
    html = page.render(kept, drawings)
    contents = {"report.json": f"{text}\n".encode(), "report.html": html.encode()}
    contents |= {f"{one.stem}.png": one.png for one in drawings}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [_write(directory / name, content) for name, content in contents.items()]
    except OSError as error:
        raise InputError(f"{directory}: the report cannot be written ({error.strerror}).") from None


def _write(path: Path, content: bytes) -> Path:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
    return path
