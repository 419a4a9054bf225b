"""What a person meets: the train and evaluate commands, their files and their error messages."""

from __future__ import annotations

import gzip
import json
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from jules_jax import errors
from jules_jax.training import checkpoints
from tests.tiny import TINY, bars_frame, write_bars

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


def run(capsys: pytest.CaptureFixture[str], command: str, *argv: str) -> tuple[int, str, str]:
    """Exit status, output and errors of `python -m jules_jax.<command> argv`, in this process."""
    before, status = sys.argv, 0
    sys.argv = [f"jules_jax.{command}", *map(str, argv)]
    try:
        runpy.run_module(f"jules_jax.{command}", run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def outputs(root: Path) -> tuple[str, ...]:
    """Flags that keep a run's files under `root`."""
    return "--runs-dir", str(root / "runs"), "--checkpoint-dir", str(root / "checkpoints")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny run on simulated paths named `tiny`, and what it printed."""
    root = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-m", "jules_jax.train", *TINY, "--name", "tiny", *outputs(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root, done.stdout


def test_training_says_what_it_does_and_what_to_try_next(trained: tuple[Path, str]) -> None:
    _, output = trained
    for words in ("devices", "market", "lanes", "parameters", "memory", "compilation"):
        assert words in output
    assert re.search(r"update 4/4 +512 steps .*steps/s.*to go.*ep_rew_mean.*entropy", output)
    assert "python -m jules_jax.evaluate --checkpoint" in output


def test_start_up_is_told_step_by_step_and_progress_from_the_first_update_on(
    trained: tuple[Path, str],
) -> None:
    _, output = trained
    told = ["imports  ", "start-up    market", ", compilation", "validation  "]
    told += ["checkpoint  of the beginning; ", "update 1    ", "update 1/4  "]
    places = [output.index(words) for words in told]
    assert places == sorted(places)


def test_training_writes_config_metrics_events_checkpoint_and_registry(
    trained: tuple[Path, str],
) -> None:
    root, _ = trained
    run_dir = root / "runs" / "tiny"
    resolved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert resolved["num_envs"] == 8
    assert resolved["ppo"]["n_steps"] == 16
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    assert [row["timesteps"] for row in rows] == [128, 256, 384, 512]
    assert list(run_dir.glob("events.out.tfevents*"))
    assert (root / "checkpoints" / "tiny" / "4" / "state").is_dir()
    lines = (root / "runs" / "registry.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "finished"]


def test_scalars_have_the_names_of_stable_baselines3(trained: tuple[Path, str]) -> None:
    root, _ = trained
    last = (root / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()[-1]
    names = set(json.loads(last))
    assert json.loads(last)["train/ratio_deviation"] < 1e-5
    assert names >= {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/total_timesteps",
        "train/approx_kl", "train/clip_fraction", "train/clip_range", "train/entropy_loss",
        "train/explained_variance", "train/learning_rate", "train/loss",
        "train/policy_gradient_loss", "train/value_loss",
    }  # fmt: skip


def test_events_hold_the_same_scalars_as_the_metrics_file(trained: tuple[Path, str]) -> None:
    from tensorboardX.proto.event_pb2 import Event

    root, _ = trained
    run_dir = root / "runs" / "tiny"
    data = next(run_dir.glob("events.out.tfevents*")).read_bytes()
    scalars, offset = {}, 0
    while offset < len(data):  # a record: length, its checksum, the event, its checksum
        length = int.from_bytes(data[offset : offset + 8], "little")
        event = Event.FromString(data[offset + 12 : offset + 12 + length])
        offset += length + 16
        for value in event.summary.value:
            scalars[value.tag, event.step] = value.simple_value
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in ("update", "timesteps"):
                np.testing.assert_allclose(scalars[name, row["timesteps"]], value, rtol=1e-6)


def test_episodes_are_counted_only_from_their_start(trained: tuple[Path, str]) -> None:
    """Lanes begin at random clocks; that first partial episode is left out."""
    root, _ = trained
    rows = [
        json.loads(line)
        for line in (root / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()
    ]
    assert "rollout/ep_rew_mean" not in rows[0]
    assert rows[-1]["rollout/ep_len_mean"] == 32


def test_a_name_in_use_is_refused(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = trained
    status, _, err = run(capsys, "train", *TINY, "--name", "tiny", *outputs(root))
    assert status == 2
    assert "exists already" in err


def test_evaluation_compares_the_policy_with_random_and_flat(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = trained
    checkpoint = root / "checkpoints" / "tiny"
    status, out, _ = run(capsys, "evaluate", "--checkpoint", checkpoint, "--episodes", "16")
    assert status == 0
    for name in ("trained, sampled", "trained, greedy", "random", "flat"):
        assert name in out
    flat = next(line for line in out.splitlines() if line.startswith("flat"))
    assert set(re.findall(r"\d+\.\d+", flat)) == {"0.00", "0.0"}


def test_training_runs_on_a_csv_and_is_evaluated_on_its_held_out_sessions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = write_bars(tmp_path / "ACME.csv", sessions=20)
    status, out, err = run(
        capsys, "train", *TINY, "--data", bars, "--name", "acme", *outputs(tmp_path)
    )
    assert status == 0, err
    assert "America/New_York" in out
    checkpoint = tmp_path / "checkpoints" / "acme"
    status, out, err = run(
        capsys, "evaluate", "--checkpoint", checkpoint, "--split", "test", "--seeds", "1"
    )
    assert status == 0, err
    assert "test split" in out
    lines = (tmp_path / "runs" / "registry.jsonl").read_text().splitlines()
    assert [(json.loads(line)["event"], json.loads(line)["run"]) for line in lines] == [
        ("started", "acme"), ("finished", "acme"), ("opened test split", "acme"),
    ]  # fmt: skip


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_a_real_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spy = SHARED / "us_equity_1min_rth" / "SPY_1min.csv.gz"
    status, out, _ = run(capsys, "train", *TINY, "--data", spy, "--dry-run", *outputs(tmp_path))
    assert status == 0
    assert "49,8" in out
    assert not (tmp_path / "runs").exists()


def test_help_comes_in_under_a_second_without_jax() -> None:
    for command in ("train", "evaluate", "runs"):
        began = time.monotonic()
        script = (
            f"import sys, runpy; sys.argv = ['x', '--help']\n"
            f"try: runpy.run_module('jules_jax.{command}', run_name='__main__')\n"
            f"except SystemExit: assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--runs-dir" in done.stdout
        assert time.monotonic() - began < 5  # a loaded machine; under one second at rest


def _without(column: str) -> str:
    return bars_frame().drop(columns=column).to_csv(index=False)


def _with(rows: slice, column: str, value: object) -> str:
    frame = bars_frame().astype(object)
    frame.loc[rows, column] = value
    return frame.to_csv(index=False)


def _unsorted() -> str:
    frame = bars_frame()
    frame.loc[[5, 6]] = frame.loc[[6, 5]].to_numpy()
    return frame.to_csv(index=False)


def _duplicated() -> str:
    frame = bars_frame()
    frame.loc[6, "datetime"] = frame.loc[5, "datetime"]
    return frame.to_csv(index=False)


BAD_FILES = {
    "empty": ("", "empty"),
    "missing column": (_without("close"), "close"),
    "a price that is no number": (_with(slice(7, 7), "close", "high"), "line 9"),
    "many NaN prices": (_with(slice(7, 30), "close", "nan"), "line 9"),
    "many zero prices": (_with(slice(7, 30), "close", 0.0), "line 9"),
    "many negative prices": (_with(slice(7, 30), "low", -1.0), "line 9"),
    "duplicate": (_duplicated(), "line 8"),
    "too short": (bars_frame(sessions=1).to_csv(index=False), "bars"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_ends_in_one_sentence_and_leaves_nothing(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    refused(capsys, tmp_path, words, "--data", str(path), also="bad.csv")


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (_with(slice(7, 7), "close", "nan"), "1 row with a price that is blank or not positive"),
        (_unsorted(), "out of order"),
    ],
)
def test_a_repair_is_told(
    text: str, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(text)
    status, out, _ = run(
        capsys, "train", *TINY, "--dry-run", *outputs(tmp_path), "--data", str(path)
    )
    assert status == 0
    assert note in out


BAD_FLAGS = {
    "missing file": (("--data", "nowhere.csv"), "nowhere.csv"),
    "no lanes": (("--num-envs", "0"), "num_envs"),
    "indivisible minibatches": (("--num-minibatches", "3"), "num_minibatches"),
    "rollout longer than an episode": (("--n-steps", "64"), "n_steps"),
    "negative learning rate": (("--learning-rate", "-1e-4"), "learning_rate"),
    "unknown key": (("--learning-rat", "1e-4"), "learning_rate"),
    "wrong type": (("--n-epochs", "many"), "n_epochs"),
    "more devices than there are": (("--devices", "999"), "devices"),
    "more memory than there is": (("--memory-limit-gib", "0.0001"), "expected fewer num_envs"),
}


@pytest.mark.parametrize(("flags", "words"), BAD_FLAGS.values(), ids=BAD_FLAGS.keys())
def test_a_bad_flag_ends_in_one_sentence_and_leaves_nothing(
    flags: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, tmp_path, words, *flags)


def refused(
    capsys: pytest.CaptureFixture[str], root: Path, words: str, *flags: str, also: str = ""
) -> None:
    status, _, err = run(capsys, "train", *TINY, "--name", "bad", *outputs(root), *flags)
    assert status == 2
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert words in err
    assert also in err
    assert not (root / "runs").exists()
    assert not (root / "checkpoints").exists()


def test_an_output_directory_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    runs = ("--runs-dir", str(tmp_path / "file" / "runs"))
    checkpoints = ("--checkpoint-dir", str(tmp_path / "checkpoints"))
    status, _, err = run(capsys, "train", *TINY, "--name", "x", *runs, *checkpoints)
    assert status == 2
    assert "cannot be written" in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "checkpoints").exists()
    swapped = ("--runs-dir", str(tmp_path / "deep" / "runs"))
    swapped += ("--checkpoint-dir", str(tmp_path / "file" / "checkpoints"))
    status, _, _ = run(capsys, "train", *TINY, "--name", "x", *swapped)
    assert status == 2
    assert not (tmp_path / "deep").exists()


def test_a_registry_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "registry.jsonl").mkdir(parents=True)
    status, _, err = run(capsys, "train", *TINY, "--name", "x", *outputs(tmp_path))
    assert status == 2
    assert "registry.jsonl cannot be written" in err
    assert not (tmp_path / "runs" / "x").exists()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("episodes", ["0", "1.5", "inf", "nan", "many"])
def test_a_count_of_episodes_that_is_none_is_refused(
    episodes: str, trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained[0] / "checkpoints" / "tiny"
    status, _, err = run(capsys, "evaluate", "--checkpoint", checkpoint, "--episodes", episodes)
    assert status == 2
    assert err.startswith(f"error: --episodes is '{episodes}'")


def test_a_checkpoint_of_another_schema_is_refused(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(trained[0] / "checkpoints" / "tiny", tmp_path / "copy")
    meta = copy / "4" / "meta" / "metadata"
    told = json.loads(meta.read_text()) | {"schema_version": 99}
    del told["checksum"]  # with it, the file would be a damaged one of this schema
    meta.write_text(json.dumps(told))
    status, _, err = run(capsys, "evaluate", "--checkpoint", copy)
    assert status == 2
    assert "schema version 99, expected 1" in err


def test_a_shared_policy_evaluates_without_its_run(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = trained
    to = tmp_path / "sent" / "tiny"
    places = ("--checkpoint-dir", str(root / "checkpoints"), "--runs-dir", str(root / "runs"))
    status, out, err = run(capsys, "runs", "share", "tiny", "--to", str(to), *places)
    assert (status, err) == (0, "") and f"evaluate --checkpoint {to}" in out
    assert sorted(path.name for path in to.iterdir()) == ["4", "config.yaml"]
    assert {path.name for path in (to / "4").iterdir()} == {"params", "meta"}
    meta, shared = (
        checkpoints.load_meta(checkpoints.find(at)) for at in (root / "checkpoints" / "tiny", to)
    )
    del meta["run"], meta["digest"]["state"]
    assert shared == meta
    tables = []
    for at in (to, root / "checkpoints" / "tiny"):
        _, out, _ = run(capsys, "evaluate", "--checkpoint", at, "--episodes", "4")
        tables.append([line for line in out.splitlines() if line.startswith("trained")])
    assert tables[0] == tables[1] and len(tables[0]) == 3  # greedy, sampled, and without memory
    status, _, err = run(capsys, "runs", "share", "tiny", "--to", str(to), *places)
    assert status == 2 and f"{to} exists already" in err
    status, _, err = run(capsys, "runs", "share", "tiny", *places)
    assert status == 2 and "--to is missing" in err
    status, _, err = run(capsys, "runs", "share", "no-such", "--to", str(to), *places)
    assert status == 2 and "no such run or checkpoint" in err


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run was told to go that cannot but diverge."""
    return tmp_path_factory.mktemp("diverged")


def test_a_run_that_diverges_ends_in_one_sentence_and_status_3(
    diverged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(
        capsys, "train", *TINY, "--name", "loud", *outputs(diverged), "--reward-scaling", "1e30"
    )
    assert status == 3
    assert err.startswith("diverged: update 1 of 4: rollout/reward_var is inf")
    assert len(err.strip().splitlines()) == 1
    assert "update 1/4" in out
    events = [json.loads(line) for line in (diverged / "runs" / "registry.jsonl").open()]
    assert [event["event"] for event in events] == ["started", "diverged"]
    metrics = (diverged / "runs" / "loud" / "metrics.jsonl").read_text()
    assert json.loads(metrics, parse_constant=pytest.fail)["train/value_loss"] is None


def test_what_diverged_runs_again_as_it_was_or_with_other_settings(
    diverged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = diverged / "runs" / "loud" / "diverged"
    status, out, err = run(capsys, "train", "--replay", kept)
    assert (status, err) == (0, "")
    assert "update 1    " in out
    assert "as recorded, bit for bit" in out
    assert re.search(r"rollout/reward_var +inf then +inf now", out)
    status, out, _ = run(capsys, "train", "--replay", kept, "--reward-scaling", "0.07")
    assert status == 0
    assert ", 0 of them not finite: not bit for bit" in out


def test_a_replay_of_nothing_is_refused(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, trained[0] / "runs" / "tiny"):
        status, _, err = run(capsys, "train", "--replay", path)
        assert status == 2
        assert str(path) in err
        assert len(err.strip().splitlines()) == 1


def test_a_profile_is_a_trace_of_early_updates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = tmp_path / "traces"
    flags = (*TINY, "--name", "traced", *outputs(tmp_path))
    status, out, err = run(capsys, "train", *flags, "--profile", traces)
    assert status == 0, err
    assert f"profile     {traces}" in out
    (trace,) = traces.rglob("*.trace.json.gz")
    assert b"traceEvents" in gzip.decompress(trace.read_bytes())
    assert list(traces.rglob("*.xplane.pb"))


def test_a_profile_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    refused(capsys, tmp_path, "cannot be written", "--profile", str(tmp_path / "file" / "x"))
    profile = ("--profile", str(tmp_path / "traces"))
    refused(capsys, tmp_path, "the run has 1", *profile, "--total-timesteps", "128")
    assert not (tmp_path / "traces").exists()


def test_an_interrupt_is_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        errors.run_command(interrupted)
    assert stop.value.code == 130
