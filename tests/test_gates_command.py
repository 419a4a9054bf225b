"""The gates command: what it finds, prints, writes and exits with."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.evaluation import evidence, gates
from jules_jax.training import acceptance, loop, verdicts
from tests.evaluation.test_gates import log_with, sound
from tests.test_commands import run
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> loop.Result:
    """A tiny run."""
    root = tmp_path_factory.mktemp("gated")
    place = {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    return loop.train(config.load({**SETTINGS, **place, "name": "tiny"}), say=lambda text: None)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch):
    """Puts evidence in the place of what would be played."""

    def put(found: evidence.Evidence) -> None:
        monkeypatch.setattr(evidence, "gather", lambda settings, params: found)

    return put


LENIENT = ("--length-min", "0", "--explained-variance-min", "-1e6")
"""What a tiny run, and the evidence put in its place, do not have."""


def test_a_run_that_passes_says_so_and_writes_its_verdict(
    trained: loop.Result, played, capsys: pytest.CaptureFixture[str]
) -> None:
    played(sound())
    status, out, err = run(capsys, "gates", trained.run_dir, *LENIENT, "--enforce")
    assert (status, err) == (0, "")
    assert "all 16 gates pass" in out, "no band is asked for by default"
    assert "FAIL" not in out
    written = json.loads((trained.run_dir / "gates.json").read_text(encoding="utf-8"))
    assert written["passed"] is True
    assert len(written["gates"]) == 17
    assert {"gate", "threshold", "value", "standard_error", "passed"} <= set(written["gates"][0])
    assert written["checkpoint"].endswith("checkpoints/tiny/4")


def test_a_failure_is_explained_and_is_an_exit_status_only_where_enforced(
    trained: loop.Result, played, capsys: pytest.CaptureFixture[str]
) -> None:
    played(log_with(hard_breach=np.ones_like(sound().sampled.hard_breach)))
    status, out, _ = run(capsys, "gates", trained.checkpoint.parent, *LENIENT)
    assert status == 0
    assert f"FAIL hard limit: {gates.ADVICE['hard limit']}" in out
    assert "1 of 16 gates failed" in out
    status, _, _ = run(capsys, "gates", trained.run_dir, *LENIENT, "--enforce")
    assert status == 1
    written = json.loads((trained.run_dir / "gates.json").read_text(encoding="utf-8"))
    assert [gate["gate"] for gate in written["gates"] if gate["passed"] is False] == ["hard limit"]


def test_the_verdict_is_a_text_in_tensorboard(trained: loop.Result, played) -> None:
    played(sound())
    acceptance.judge(trained.checkpoint, settings_of(trained)).write()
    events = trained.run_dir.glob("events*.gates")
    assert any(b"| gate | asks for |" in file.read_bytes() for file in events)


def settings_of(trained: loop.Result) -> config.Config:
    return config.load(file=trained.checkpoint.parent / "config.yaml")


def failed(verdict: verdicts.Verdict) -> dict[str, str]:
    return {gate.name: gate.detail for gate in verdict.gates if gate.failed}


def test_judging_with_other_parameters_than_trained_with_fails_and_names_them(
    trained: loop.Result, played, capsys: pytest.CaptureFixture[str]
) -> None:
    played(sound())
    flags = ("--fee-bps", "0", "--preset", "hard", "--ent-coef", "0.5")
    _, out, _ = run(capsys, "gates", trained.run_dir, *LENIENT, *flags)
    (line,) = [line for line in out.splitlines() if line.startswith("parameters")]
    assert "FAIL" in line
    for key in ("fills.fee_bps", "simulator.preset", "ppo.ent_coef"):
        assert key in line


def test_a_checkpoint_without_its_run_fails_for_want_of_metrics(
    trained: loop.Result, played, tmp_path: Path
) -> None:
    played(sound())
    away = dataclasses.replace(settings_of(trained), runs_dir=str(tmp_path))
    verdict = acceptance.judge(trained.checkpoint, away)
    assert verdict.directory is None
    assert "metrics.jsonl was not found" in failed(verdict)["explained variance"]


def test_the_explained_variance_is_that_of_the_runs_last_updates(
    trained: loop.Result, played
) -> None:
    played(sound())
    lines = (trained.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    verdict = acceptance.judge(trained.checkpoint, settings_of(trained))
    (gate,) = [gate for gate in verdict.gates if gate.name == "explained variance"]
    assert gate.value == pytest.approx(np.mean([row["train/explained_variance"] for row in rows]))
    assert all(row["rollout/reward_var"] > 0 for row in rows)


def test_a_run_killed_in_the_middle_of_a_row_is_judged_by_its_whole_rows(
    trained: loop.Result, played, tmp_path: Path
) -> None:
    played(sound())
    shutil.copytree(trained.run_dir, tmp_path / "tiny")
    with open(tmp_path / "tiny" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"update": 4, "tra')
    there = dataclasses.replace(settings_of(trained), runs_dir=str(tmp_path))
    verdict = acceptance.judge(trained.checkpoint, there)
    assert verdict.directory == tmp_path / "tiny"
    assert "parameters" not in failed(verdict)


def test_a_run_in_another_directory_is_found_by_its_name(trained: loop.Result) -> None:
    assert acceptance.find("tiny", str(trained.run_dir.parent)) == trained.checkpoint.parent


def test_of_a_run_the_newest_checkpoint_that_can_be_read_is_judged(
    trained: loop.Result, played, tmp_path: Path
) -> None:
    played(sound())
    directory = tmp_path / "tiny"
    shutil.copytree(trained.checkpoint.parent, directory)
    for file in (directory / "4" / "params").rglob("d/*"):
        file.write_bytes(b"")
    said: list[str] = []
    verdict = acceptance.judge(directory, settings_of(trained), say=said.append)
    assert verdict.checkpoint == directory / "0"
    (line,) = said
    assert "damaged" in line and line.endswith("taking the one before") and len(line) < 300


def test_a_verdict_that_cannot_be_written_is_told_all_the_same(
    trained: loop.Result, played, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    played(sound())
    shutil.copytree(trained.run_dir, tmp_path / "tiny")
    (tmp_path / "tiny" / "gates.json").unlink(missing_ok=True)
    (tmp_path / "tiny" / "gates.json").mkdir()
    places = ("--runs-dir", str(tmp_path))
    status, out, err = run(capsys, "gates", trained.checkpoint.parent, *LENIENT, *places)
    assert status == 2
    assert "gates pass" in out and "gates.json cannot be written: Is a directory" in err


def test_a_run_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("nowhere", tmp_path):
        status, _, err = run(capsys, "gates", place)
        assert status == 2
        assert err.startswith("error: ") and str(place) in err
        assert len(err.strip().splitlines()) == 1
    status, _, err = run(capsys, "gates")
    assert (status, err) == (2, "error: a RUN is missing, expected runs/NAME or checkpoints/NAME\n")
    (tmp_path / "member").mkdir()
    (tmp_path / "member" / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="population's, expected one of its members: member"):
        acceptance.find(str(tmp_path))


def test_help_does_not_wait_for_jax() -> None:
    code = (
        "import sys, runpy\nsys.argv = ['gates', '--help']\n"
        "try:\n    runpy.run_module('jules_jax.gates', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "--enforce" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("preset", "fails"), [("easy", False), ("null", True)], ids=["easy passes", "null fails"]
)
def test_the_smoke_run_passes_and_the_same_on_null_fails_the_band(
    preset: str, fails: bool, tmp_path: Path
) -> None:
    """Trained where nothing can be earned, a policy learns not to trade, or loses."""
    command = [sys.executable, "-m", "jules_jax.train", "--config", "configs/phase1_smoke.yaml"]
    place = ("--runs-dir", str(tmp_path / "runs"), "--checkpoint-dir", str(tmp_path / "ck"))
    subprocess.run([*command, *place, "--name", "x", "--preset", preset], check=True)
    written = json.loads((tmp_path / "runs" / "x" / "gates.json").read_text(encoding="utf-8"))
    band = written["gates"][0]
    assert band["gate"] == "reward band"
    assert band["passed"] is not fails
    assert written["passed"] is not fails
