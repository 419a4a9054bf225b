"""What a person meets: `python -m jules_jax.audit replay`."""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jules_jax.evaluation import audit_log
from tests.evaluation.test_audit_log import doctor, edit_metadata, recorded


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit status, output and errors of `python -m jules_jax.audit argv`, in this process."""
    before, status = sys.argv, 0
    sys.argv = ["jules_jax.audit", *map(str, argv)]
    try:
        runpy.run_module("jules_jax.audit", run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "clean.parquet"
    audit_log.write(recorded(), path)
    return path


def test_a_clean_file_replays_clean(clean, capsys):
    status, output, errors = run(capsys, "replay", clean)
    assert (status, errors) == (0, "")
    steps = (recorded().record.time > 0).sum()
    assert output == f"{clean}: 8 episodes, {steps} steps: no disagreement\n"


def test_a_doctored_file_is_told_apart_by_episode_step_and_column(clean, tmp_path, capsys):
    path = tmp_path / "doctored.parquet"
    doctor(clean, path, "drawdown", 3, 1, 0.75)
    status, output, errors = run(capsys, "replay", path)
    assert (status, errors) == (1, "")
    assert "episode 3 step 1 column drawdown is recorded as 0.75, re-derived as 0.00" in output


def test_outcomes_are_told_by_name(clean, tmp_path, capsys):
    path = tmp_path / "doctored.parquet"
    doctor(clean, path, "outcome", 0, 4, 9)
    _, output, _ = run(capsys, "replay", path)
    assert "column outcome is recorded as CASH_LIMIT, re-derived as NONE" in output


def test_every_file_of_a_directory_is_reported(clean, tmp_path, capsys):
    doctor(clean, tmp_path / "a.parquet", "lot", 2, 0, 7)
    (tmp_path / "b.parquet").write_bytes(clean.read_bytes())
    status, output, _ = run(capsys, "replay", tmp_path)
    first, second = output.splitlines()
    assert status == 1
    assert "a.parquet" in first
    assert "column lot is recorded as 7" in first
    assert "b.parquet" in second
    assert second.endswith("no disagreement")


def test_bad_input_is_one_sentence_and_status_2(clean, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "short.parquet").write_bytes(clean.read_bytes()[:-100])
    edit_metadata(clean, tmp_path / "other.parquet", schema_version=2)
    cases = {
        "no such file, expected an audit file": ["replay", tmp_path / "none.parquet"],
        "no *.parquet file there": ["replay", tmp_path / "empty"],
        "is damaged or no Parquet file": ["replay", tmp_path / "short.parquet"],
        "schema version is 2, expected 1": ["replay", tmp_path / "other.parquet"],
        "required: path": ["replay"],
        "invalid choice: 'explode'": ["explode", clean],
        "required: COMMAND": [],
    }
    for sentence, argv in cases.items():
        status, output, errors = run(capsys, *argv)
        assert (status, output) == (2, ""), sentence
        assert errors.startswith("error: ")
        assert sentence in errors
        assert len(errors.splitlines()) == 1


def test_help_needs_no_jax():
    began = time.monotonic()
    code = (
        "import sys; sys.argv = ['audit', '--help']; from jules_jax import audit\n"
        "try: audit.main()\n"
        "except SystemExit: print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "replay" in done.stdout
    assert done.stdout.endswith("False\n")
    assert time.monotonic() - began < 5
