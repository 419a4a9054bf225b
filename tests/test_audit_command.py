"""What a person meets: `python -m jules_jax.audit verify` and `explain`."""

from __future__ import annotations

import dataclasses
import runpy
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from jules_jax.agent import network
from jules_jax.agent.learner import Learner
from jules_jax.env.episodes import Episodes
from jules_jax.env.params import make_params
from jules_jax.training import checkpoints, market
from tests.evaluation import audited
from tests.evaluation.audited import GREEDY, doctor, forge

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
    return audited.record(tmp_path_factory.mktemp("audit") / "audit")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoints: of the weights that decided, and of others."""
    root, settings = tmp_path_factory.mktemp("checkpoints"), audited.settings()
    params = make_params(settings, market.Market(settings).data, progress=0.0)
    state = Learner(Episodes(), settings).init(jax.random.key(0), params)
    places = root / "right", root / "wrong"
    others = network.init(jax.random.key(77), settings.network)
    for place, own in zip(places, (audited.params(), others), strict=True):
        with_own = dataclasses.replace(state, params=jax.tree.map(jax.device_put, own))
        checkpoints.save(place, with_own, generation=0, settings=settings)
    return places


def test_a_clean_audit_is_verified_with_its_checkpoint(clean, weights, capsys):
    status, output, errors = run(capsys, "verify", clean, "--checkpoint", weights[0])
    assert (status, errors) == (0, "")
    first, chain, twin, checkpoint = output.splitlines()
    assert first.startswith("audit       evaluation of tiny: 16 episodes, ")
    assert chain.startswith("chain       every row is as it was written")
    assert twin.startswith("twin        no disagreement in 16 episodes")
    assert checkpoint.startswith("checkpoint  logits and values of ")


def test_without_its_checkpoint_it_is_verified_as_far_as_that_goes(clean, capsys):
    status, output, _ = run(capsys, "verify", clean)
    assert status == 0
    assert "checkpoint  not run: nowhere: no such checkpoint directory; --checkpoint" in output


def test_another_checkpoint_is_refused(clean, weights, capsys):
    status, output, errors = run(capsys, "verify", clean, "--checkpoint", weights[1])
    assert (status, output) == (2, "")
    assert "its weights are others than those that decided" in errors


def test_an_edit_is_told_by_file_episode_step_and_column(clean, tmp_path, capsys):
    own = audited.copy(clean, tmp_path / "audit")
    doctor(own, "outcome", 0, 4, 9)
    status, output, errors = run(capsys, "verify", own)
    assert (status, errors) == (1, "")
    assert "steps-00000.parquet row 4 (script, episode 0, step 4): its hash does not fit" in output
    assert "column outcome is recorded as CASH_LIMIT, re-derived as NONE" in output
    forge(own)
    status, output, _ = run(capsys, "replay", own)
    assert status == 1
    assert "chain       every row is as it was written" in output
    assert "column outcome is recorded as CASH_LIMIT, re-derived as NONE" in output


def test_a_decision_is_explained(clean, capsys):
    status, output, errors = run(
        capsys, "explain", clean, "--episode", 0, "--step", 3, "--policy", GREEDY
    )
    assert (status, errors) == (0, "")
    headings = [line for line in output.splitlines() if line and not line.startswith(" ")]
    assert headings[2:] == [
        "What was seen when the bar before it had closed",
        "What the policy thought",
        "What it asked for, and what became of that",
        "What was filled",
        "What was paid and earned",
        "The account and its safeguards afterwards",
        "The reward that it learns from",
    ]


def test_bad_input_is_one_sentence_and_status_2(clean, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.parquet").write_bytes(b"")
    cases = {
        "none/manifest.json: no such file": ["verify", tmp_path / "none"],
        "no such file, expected an audit's": ["verify", tmp_path / "empty"],
        "files of version 1 are no longer read": ["verify", tmp_path / "old.parquet"],
        "no such checkpoint directory": ["verify", clean, "--checkpoint", tmp_path / "none"],
        "required: path": ["verify"],
        "required: --episode, --step": ["explain", clean],
        "has no step 99": ["explain", clean, "--episode", 0, "--step", 99],
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
    assert "verify" in done.stdout
    assert done.stdout.endswith("False\n")
    assert time.monotonic() - began < 5
