"""A run that goes on is the run that never stopped, whatever stopped it."""

from __future__ import annotations

import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tensorboardX import summary

from jules_jax import config
from jules_jax.errors import InputError, Stopped
from jules_jax.market import storage
from jules_jax.training import (
    checkpoints,
    loop,
    market,
    metrics_file,
    monitor,
    population,
    preparation,
    provenance,
    registry,
    run_directory,
)
from jules_jax.training.events import EventFile
from tests.tiny import SETTINGS, TINY, write_bars

pytestmark = pytest.mark.usefixtures("quick_compilation")

UPDATES = 8
RUN = {"total_timesteps": str(UPDATES * 128), "checkpoints.every": "3", "validation_episodes": "4"}


def settings_of(root: Path, **values: Any) -> config.Config:
    places = {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    return config.load({**SETTINGS, **RUN, **places, **values})


def rows_of(run: Path) -> list[dict[str, float]]:
    """Metrics but for times, of all agents of a run."""
    rows = []
    for path in sorted(run.rglob("metrics.jsonl")):
        for line in path.read_text().splitlines():
            rows.append({k: v for k, v in json.loads(line).items() if not k.startswith("time/")})
    return rows


def states_of(directory: Path) -> dict[str, str]:
    """Checksums of the last state of every agent below a directory of checkpoints."""
    found = [path for path in directory.rglob("meta/metadata") if path.parts[-3].isdigit()]
    newest = {path.parents[1].parent: path.parents[1] for path in sorted(
        found, key=lambda path: int(path.parts[-3])
    )}  # fmt: skip
    return {
        str(of.relative_to(directory)): checkpoints.load_meta(path)["digest"]["state"]
        for of, path in newest.items()
    }


def stopping_at(update: int, number: signal.Signals):
    """What a run says its lines to: sends the signal after `update`, as the next one begins."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith(f"update {update} "):
            os.kill(os.getpid(), number)
            while not any(number.name in line for line in said):  # told by a thread of its own
                time.sleep(0.001)

    return said, say


def said_by(call) -> list[str]:
    said: list[str] = []
    call(said.append)
    return said


EVERYTHING = {
    "devices": "2",
    "num_envs": "16",
    "total_timesteps": str(UPDATES * 256),
    "schedules": {
        "ppo.ent_coef": {"cosine": [0.03, 0.0]},
        "simulator.noise_bp": {"linear": [3, 8]},
        "fills.bid_ask_spread_bps": {"linear": [1, 6]},
    },
    "randomise": {"fills.fee_bps": [0, 1], "simulator.jump_scale": [3, 6]},
    "observation_scaling": "running",
    "normalize_targets": "true",
    "learn_initial_carry": "true",
    "mask_actions": "true",
}
"""Two devices, and all that has a state or moves."""


@pytest.fixture(
    scope="module",
    params=[
        "an agent",
        pytest.param("everything on", marks=pytest.mark.long),
        pytest.param("a population", marks=pytest.mark.long),
    ],
)
def whole(request, tmp_path_factory):
    """An uninterrupted run, and the settings of another one that is to be the same."""
    root = tmp_path_factory.mktemp("whole")
    values = {"name": "x"}
    if request.param == "a population":
        values |= {"num_seeds": "2", "exploit_every": "4", "sweep": str(root / "sweep.yaml")}
        (root / "sweep.yaml").write_text("fills.bid_ask_spread_bps: [0, 20]\n")
    if request.param == "everything on":
        values |= EVERYTHING
    settings = settings_of(root, **values)
    loop.train(settings, say=lambda text: None)
    return root, settings


def test_a_run_stopped_by_a_signal_and_then_damaged_ends_as_if_neither_had_been(whole, tmp_path):
    root, settings = whole
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    settings = replace(settings, **places)
    _, say = stopping_at(1, signal.SIGTERM)
    with pytest.raises(Stopped, match="by SIGTERM after update 2 of 8") as stop:
        loop.train(settings, say=say)
    assert stop.value.status == 0
    _, say = stopping_at(3, signal.SIGINT)
    with pytest.raises(Stopped, match="by SIGINT after update 4 of 8") as stop:
        loop.train(settings, say=say, resume=True)
    assert stop.value.status == 130
    # the newest checkpoint is cut short, and rows of updates after the one before are there
    directory = tmp_path / "checkpoints" / "x"
    directory = directory / "population" if settings.population.num_seeds > 1 else directory
    assert [path.name for path in checkpoints.steps(directory)] == ["4", "3", "2"]
    for file in (directory / "4" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 300:
            os.truncate(file, file.stat().st_size // 2)
    said = said_by(lambda say: loop.train(settings, say=say, resume=True))
    assert any(line.startswith(f"checkpoint  {directory / '4'}: state") for line in said)
    assert any(line == f"resuming    {directory / '3'}, after update 3 of 8" for line in said)
    assert rows_of(tmp_path / "runs") == rows_of(root / "runs")
    assert states_of(tmp_path / "checkpoints") == states_of(root / "checkpoints")
    events = [(line["event"], line.get("update")) for line in registry.read(tmp_path / "runs")]
    assert events == [
        ("started", None), ("interrupted", None), ("resumed", 2), ("interrupted", None),
        ("resumed", 3), ("finished", None),
    ]  # fmt: skip
    assert (directory / "4.damaged").is_dir(), "what could not be read is kept"


def test_what_a_kill_after_the_last_update_left_out_is_made_up_for(whole, tmp_path):
    root, settings = whole
    for place in ("runs", "checkpoints"):
        shutil.copytree(root / place, tmp_path / place)
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    lines = (tmp_path / "runs" / "registry.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs" / "registry.jsonl").write_text(lines[0])
    if settings.population.num_seeds > 1:
        for member in (tmp_path / "checkpoints" / "x").glob("*seed-1"):
            shutil.rmtree(member)
    result = loop.train(replace(settings, **places), say=lambda text: None, resume=True)
    assert result.checkpoint.name == "8"
    assert result.scalars["time/total_timesteps"] == settings.total_timesteps
    assert states_of(tmp_path / "checkpoints") == states_of(root / "checkpoints")
    assert rows_of(tmp_path / "runs") == rows_of(root / "runs")
    events = [line["event"] for line in registry.read(tmp_path / "runs")]
    assert events == ["started", "resumed", "finished"]
    shorter = replace(settings, **places, total_timesteps=settings.total_timesteps // 2)
    with pytest.raises(InputError, match="8 updates are done, and 4 were asked for"):
        loop.train(shorter, say=lambda text: None, resume=True, allow_config_change=True)


def test_a_signal_in_the_last_update_is_heeded_though_the_run_is_complete(tmp_path):
    """Or what trains run after run, phases or a calibration, would go on with the next."""
    _, say = stopping_at(1, signal.SIGINT)  # as update 2 begins, the last one
    settings = settings_of(tmp_path, name="x", total_timesteps="256", validation_episodes="0")
    with pytest.raises(Stopped, match="by SIGINT after update 2 of 2") as stop:
        loop.train(settings, say=say)
    assert stop.value.status == 130
    assert checkpoints.find(tmp_path / "checkpoints" / "x").name == "2"
    assert registry.read(tmp_path / "runs")[-1]["event"] == "finished"


def test_a_run_that_ended_before_its_first_checkpoint_leaves_its_name_free(tmp_path):
    settings = settings_of(tmp_path, name="x")
    run = run_directory.claim(settings)
    checkpoints.write_config(run.path, settings)
    (run.path / "events.out.tfevents.1.host").write_bytes(b"x")
    (run.path / "metrics.jsonl").write_text("")
    (run.checkpoints / "0.orbax-checkpoint-tmp" / "meta").mkdir(parents=True)
    (run.checkpoints / "0.orbax-checkpoint-tmp" / "meta" / "part").write_text("half")
    with pytest.raises(InputError, match="x exists already"):
        run_directory.claim(settings)  # what the registry does not know may be anybody's
    registry.append(tmp_path / "runs", "started", "x")
    with pytest.raises(InputError, match=r"no checkpoint to resume; .* under the same --name x"):
        loop.train(settings, say=lambda text: None, resume=True)
    with run_directory.alone(run.path), pytest.raises(InputError, match="x exists already"):
        run_directory.claim(settings)  # another process is at it
    again = run_directory.claim(settings)
    assert not any(again.path.iterdir()) and not any(again.checkpoints.iterdir())
    (run.path / "metrics.jsonl").write_text('{"update": 1}\n')  # work that somebody may want
    with pytest.raises(InputError, match="x exists already"):
        run_directory.claim(settings)


def test_validation_is_logged_where_a_checkpoint_is_due_and_the_best_one_is_kept(whole):
    root, settings = whole
    rows = [row for row in rows_of(root / "runs") if "validation/net_pnl" in row]
    agents = 4 if settings.population.num_seeds > 1 else 1
    assert [row["update"] for row in rows] == agents * [3, 6, 8]
    assert all(np.isfinite(row["validation/net_pnl_error"]) for row in rows)


KILLED = [
    *TINY,
    *("--total-timesteps", str(300 * 128), "--checkpoints.every", "7", "--name", "x"),
]
"""A run of some seconds, with checkpoints all the time."""


def command(root: Path, *flags: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    places = ["--runs-dir", str(root / "runs"), "--checkpoint-dir", str(root / "checkpoints")]
    return subprocess.Popen(
        [sys.executable, "-m", "jules_jax.train", *flags, *places],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill_again_and_again(root: Path, kills: int, rng: random.Random) -> None:
    """Trains to the end, killed `kills` times on the way, each time at a random moment."""
    metrics, flags, done = root / "runs" / "x" / "metrics.jsonl", list(KILLED), 0
    while True:
        rows = len(metrics.read_bytes().splitlines()) if metrics.exists() else 0
        process = command(root, *flags)
        if done < kills:
            while process.poll() is None and (
                not checkpoints.steps(root / "checkpoints" / "x")
                or (rows and len(metrics.read_bytes().splitlines()) == rows)
            ):
                time.sleep(0.002)
            time.sleep(rng.random() * 1.5 / kills)
            process.kill()
        _, errors = process.communicate(timeout=300)
        done += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
        flags = ["--resume"]
    assert done == kills


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(kills, tmp_path):
    kill_again_and_again(tmp_path / "killed", kills, random.Random(kills))
    reference = command(tmp_path / "whole", *KILLED)
    assert reference.wait(300) == 0
    killed, whole = rows_of(tmp_path / "killed" / "runs"), rows_of(tmp_path / "whole" / "runs")
    assert len(whole) == 300
    assert killed == whole
    states = [states_of(tmp_path / which / "checkpoints") for which in ("killed", "whole")]
    assert states[0] == states[1]


def test_a_second_interrupt_ends_a_run_at_once_though_the_interpreter_is_busy():
    """`pbkdf2_hmac` runs for long without a byte code, as an update does."""
    script = """
import hashlib, os, signal, threading, time
from jules_jax.training.stopping import Stopping
def interrupt():
    for _ in range(2):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
with Stopping(print):
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True)
    assert done.returncode == 130
    assert time.monotonic() - began < 30  # the hash takes minutes


def test_a_second_interrupt_gives_a_terminal_its_cursor_back():
    """A terminal of our own, as the cursor is hidden on nothing else."""
    script = """
import os, signal, time
from jules_jax.training.stopping import Stopping
with Stopping(print):
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
    time.sleep(60)
"""
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", script], stdout=theirs, timeout=60)
    os.close(theirs)
    assert done.returncode == 130
    assert b"\x1b[?25h" in os.read(ours, 10_000)
    os.close(ours)


def test_a_panel_ends_though_a_file_cannot_be_closed(tmp_path, monkeypatch):
    ended: list[str] = []

    class Panel:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            ended.append("panel")

    def full(self):
        ended.append("recorder")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jules_jax.training.monitor.Recorder.close", full)
    watching = monitor.Monitor(tmp_path, config.load(SETTINGS))
    watching._panel = Panel()
    with pytest.raises(OSError, match="No space"), watching:
        pass
    assert ended == ["recorder", "panel"]


@pytest.fixture(scope="module")
def kept(whole):
    """The newest checkpoint of the run of an agent, its state's shapes, and its settings."""
    root, settings = whole
    if settings.population.num_seeds > 1:
        pytest.skip("an agent's is enough")
    prepared = preparation.prepare(settings, lambda text: None)
    return checkpoints.find(root / "checkpoints" / "x"), prepared.state, settings


@pytest.fixture
def plain(kept, request):
    """`kept` of the plain agent, whose numbers a test has by heart."""
    if "an agent" not in request.node.name:
        pytest.skip("told of the plain agent")
    return kept


def test_no_damage_to_a_checkpoint_passes_unseen(kept, tmp_path):
    """Whatever byte is changed, or file cut short: what is restored is what was saved, or nothing.

    Some bytes do not matter, such as those of orbax's own notes; of the largest files most do.
    """
    path, like, _ = kept
    rng, refused = np.random.default_rng(0), 0
    saved = checkpoints.load_meta(path)
    files = [
        file.relative_to(path)
        for part in ("state", "params", "meta")
        for file in sorted((path / part).rglob("*"))
        if file.is_file() and file.stat().st_size
    ]
    sizes = np.array([(path / file).stat().st_size for file in files])
    for _ in range(16):
        copy = shutil.copytree(path, tmp_path / "copy" / path.name)
        file = copy / files[rng.choice(len(files), p=sizes / sizes.sum())]
        data = bytearray(file.read_bytes())
        place = int(rng.integers(len(data)))
        if rng.random() < 0.3:
            del data[place:]
        else:
            data[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        try:
            assert checkpoints.load_meta(copy) == saved
            assert checkpoints.digest(checkpoints.restore(copy, like)) == saved["digest"]["state"]
        except checkpoints.Unreadable:
            refused += 1
        shutil.rmtree(tmp_path / "copy")
    assert refused >= 4


def test_weights_that_are_damaged_are_not_evaluated(kept, tmp_path):
    path, _, settings = kept
    copy = shutil.copytree(path, tmp_path / path.name)
    meta = json.loads((copy / "meta" / "metadata").read_text())
    del meta["checksum"]
    meta["digest"]["params"] = "another"
    (copy / "meta" / "metadata").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="params is damaged"):
        checkpoints.load_params(copy, settings)


def test_a_directory_means_its_newest_checkpoint_that_can_be_read(kept, tmp_path):
    path, _, settings = kept
    there = shutil.copytree(path.parent, tmp_path / "x")
    newest, before, *_ = checkpoints.steps(there)
    (newest / "meta" / "metadata").write_text("{")
    said: list[str] = []
    found, _ = checkpoints.newest_params(there, settings, said.append)
    assert found == before
    (line,) = said
    assert line.startswith(f"{newest}: not a readable") and line.endswith("taking the one before")
    with pytest.raises(checkpoints.Unreadable):  # asked for by name
        checkpoints.newest_params(newest, settings, said.append)


def test_a_config_cut_short_does_not_keep_a_run_from_going_on(kept, tmp_path):
    path, _, settings = kept
    shutil.copytree(settings.runs_dir, tmp_path / "runs")
    run = tmp_path / "runs" / "x"
    (run / "config.yaml").write_text("")
    layer = run_directory.saved_settings("x", str(run.parent), str(path.parents[1]))
    assert config.resolve(layer) == replace(settings, runs_dir=str(run.parent))
    (run / "config.yaml").write_text("{")
    assert run_directory.saved_settings("x", str(run.parent), str(path.parents[1])) == layer


def test_a_config_is_replaced_whole_or_not_at_all(kept, tmp_path, monkeypatch):
    checkpoints.write_config(tmp_path, kept[2])
    before = (tmp_path / "config.yaml").read_text()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"config.yaml cannot be written"):
        checkpoints.write_config(tmp_path, replace(kept[2], seed=7))
    assert (tmp_path / "config.yaml").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_full_disk_is_told_in_a_sentence_and_the_checkpoint_before_is_whole(kept, tmp_path):
    _, state, settings = kept
    before = checkpoints.save(tmp_path / "x", state, generation=0, settings=settings)
    later = replace(state, update=state.update + 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))  # no file may be larger
    try:
        with pytest.raises(InputError, match="cannot be written") as stop:
            checkpoints.save(tmp_path / "x", later, generation=0, settings=settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(stop.value)
    assert checkpoints.find(tmp_path / "x") == before
    restored = checkpoints.restore(before, state)
    assert checkpoints.digest(restored) == checkpoints.digest(state)


def test_a_run_on_a_full_disk_ends_in_a_sentence(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr("jules_jax.training.monitor.Recorder.log", full)
    with pytest.raises(InputError, match=r"No space left on device; .* --resume x"):
        loop.train(settings_of(tmp_path, name="x"), say=lambda text: None)
    events = [line["event"] for line in registry.read(tmp_path / "runs")]
    assert events == ["started", "failed"]


def test_a_read_only_directory_is_told_before_anything_is_done(kept, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: "checkpoints" not in str(path))
    with pytest.raises(InputError, match="checkpoints/x cannot be written: it is read-only"):
        loop.train(kept[2], say=lambda text: None, resume=True)


def test_a_run_that_another_process_trains_is_left_alone(kept, tmp_path):
    """The lock belongs to an open file, so that of this process serves as another's."""
    run_path = Path(kept[2].runs_dir) / "x"
    before = (run_path / "metrics.jsonl").read_bytes()
    with (
        run_directory.alone(run_path),
        pytest.raises(InputError, match="x: another process is training this run"),
    ):
        loop.train(kept[2], say=lambda text: None, resume=True)
    assert (run_path / "metrics.jsonl").read_bytes() == before
    with run_directory.alone(run_path):  # given back
        pass


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ppo.learning_rate", "0.001", r"learning_rate is 0.0005 .* 0.001 was .* --init-from"),
        ("num_envs", "16", r"num_envs is 8 in the run and 16 was asked for"),
        ("total_timesteps", "4096", r"total_timesteps is 1024 .*or --allow-config-change"),
    ],
)
def test_a_run_does_not_go_on_with_another_config(key, value, message, plain):
    meta = checkpoints.load_meta(plain[0])
    changed = population.with_values(plain[2], {key: value}, "asked for")
    with pytest.raises(InputError, match=message):
        provenance.require_same_config(meta, changed, allow=False)
    if key == "total_timesteps":
        allowed = provenance.require_same_config(meta, changed, allow=True)
        assert allowed == {"total_timesteps": (1024, 4096)}
    else:
        with pytest.raises(InputError, match="was asked for"):
            provenance.require_same_config(meta, changed, allow=True)


def test_a_run_does_not_go_on_with_other_bars(tmp_path):
    bars = write_bars(tmp_path / "ACME.csv", sessions=20)
    settings = config.load({**SETTINGS, "market.data": str(bars)})
    before = market.Market(settings).fingerprint
    moved = bars.rename(tmp_path / "elsewhere.csv").rename(tmp_path / "ACME.csv")
    assert market.Market(settings).fingerprint == before
    moved.write_text(moved.read_text().replace("100.", "101.", 1))
    with pytest.raises(InputError, match=r"ACME.csv changed since the run began"):
        provenance.require_same_data({"data": before}, market.Market(settings).fingerprint)


def test_what_computes_the_lstm_may_change_when_a_run_goes_on():
    meta = {"config": config.to_dict(config.load({"lstm_impl": "fused"}))}
    assert provenance.changes(meta, config.load({"lstm_impl": "scan"})) == {}
    assert "network.matmul_precision" in provenance.changes(
        meta, config.load({"matmul_precision": "bf16"})
    )


def test_other_devices_and_code_are_told_not_refused(plain):
    meta = checkpoints.load_meta(plain[0])
    assert provenance.notes(meta, meta["devices"]) == []
    (devices, code) = provenance.notes(meta | {"revision": "another"}, 4)
    assert devices.startswith("4 devices now and 1 before: results agree to rounding")
    assert code.startswith(f"code another before and {provenance.revision()} now")


def dataset_of(root: Path) -> config.Config:
    bars = write_bars(root / "ACME.csv", sessions=40)
    storage.build(str(bars), root / "built", config.Market(), progress=False)
    small = {"market.data": str(root / "built"), "market_memory": "2e-5"}
    return config.load(SETTINGS | small)


def test_a_dataset_is_known_by_its_bars_wherever_it_was_built_from(tmp_path):
    settings = dataset_of(tmp_path)
    before = market.Market(settings).fingerprint
    (tmp_path / "elsewhere").mkdir()
    assert market.Market(dataset_of(tmp_path / "elsewhere")).fingerprint == before
    storage.require_as_built(tmp_path / "built")
    (column,) = (tmp_path / "built").glob("*/close.npy")
    values = np.load(column)
    values[-5:] *= 1.001
    np.save(column, values)
    with pytest.raises(InputError, match=r"close.npy: changed since the dataset was built"):
        storage.require_as_built(tmp_path / "built")
    write_bars(tmp_path / "ACME.csv", sessions=40, seed=1)
    storage.build(str(tmp_path / "ACME.csv"), tmp_path / "built", config.Market(), progress=False)
    with pytest.raises(InputError, match=r"market.data: ACME changed since the run began"):
        provenance.require_same_data({"data": before}, market.Market(settings).fingerprint)


def test_the_file_of_symbols_may_have_another_name(tmp_path):
    bars = write_bars(tmp_path / "ACME.csv", sessions=20)
    found = []
    for name in ("one.yaml", "other.yaml"):
        (tmp_path / name).write_text("ACME: {tick: 0.01}\n")
        values = {"market.data": str(bars), "market.symbols": str(tmp_path / name)}
        found.append(market.Market(config.load(SETTINGS | values)).fingerprint)
    assert found[0] == found[1]


@pytest.mark.parametrize("source", ["simulated", "dataset"])
def test_a_market_made_anew_at_a_generation_is_the_one_that_got_there(source, tmp_path):
    settings = config.load(SETTINGS) if source == "simulated" else dataset_of(tmp_path)
    there = market.Market(settings)
    seen = [np.array(there.data.rows)]
    for update in range(1, 7):
        there.refresh(update)
        anew = market.Market(settings, generation=there.generation)
        jax.tree.map(np.testing.assert_array_equal, anew.data, there.data)
        seen.append(np.array(there.data.rows))
    assert there.generation == 3
    assert not np.array_equal(seen[0], seen[-1])


def test_rows_after_the_checkpoint_and_half_rows_are_cut_off(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"update": update}) + "\n" for update in range(1, 6)]
    metrics.write_text("".join(rows) + '{"update": 6, "tra')
    assert [row["update"] for row in metrics_file.read(tmp_path)] == [1, 2, 3, 4, 5]
    metrics_file.cut(tmp_path, 5)
    assert metrics.read_text() == "".join(rows)
    metrics_file.cut(tmp_path, 3)
    assert metrics.read_text() == "".join(rows[:3])
    metrics_file.cut(tmp_path, 0)
    assert metrics.read_text() == ""


def test_events_after_the_checkpoint_are_hidden_from_tensorboard(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    from jules_jax.training.monitor import Recorder

    settings = config.load(SETTINGS)
    Recorder(tmp_path, settings, after=3).close()
    (path,) = tmp_path.glob("events.out.tfevents*")
    data, offset, starts = path.read_bytes(), 0, []
    while offset < len(data):  # a record: length, its checksum, the event, its checksum
        length = int.from_bytes(data[offset : offset + 8], "little")
        event = Event.FromString(data[offset + 12 : offset + 12 + length])
        offset += length + 16
        starts += [event.step] if event.HasField("session_log") else []
    assert starts == [3 * 128 + 1]  # the first step of update 4


def test_a_full_disk_under_the_events_is_an_error_and_not_a_wait_for_ever(tmp_path):
    """In a thread, so that a writer that waits fails the test, and is not waited for."""
    ended: list[OSError] = []

    def write() -> None:
        events = EventFile(tmp_path)
        try:
            for step in range(100):
                pixels = np.random.default_rng(step).integers(0, 255, (64, 64, 3), np.uint8)
                events.add(summary.image("noise", pixels, dataformats="HWC"), step)
        except OSError as error:
            ended.append(error)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not thread.is_alive()
    assert len(ended) == 1


def test_the_newest_checkpoints_are_kept_and_the_best(kept, tmp_path):
    _, state, settings = kept
    settings = replace(settings, checkpoints=config.Checkpoints(keep=2))
    scores = {1: 5.0, 2: 9.0, 3: 9.0, 4: -1.0, 5: None, 6: 2.0}
    with checkpoints.Checkpoints(tmp_path / "x", settings) as many:
        for update, score in scores.items():
            there = replace(state, update=state.update * 0 + update)
            many.save(there, generation=0, score=score)
    assert [path.name for path in checkpoints.steps(tmp_path / "x")] == ["6", "5", "3"]
    assert many.best == 3


def test_a_run_may_begin_with_the_weights_of_another_and_nothing_else(plain, tmp_path):
    path, _, settings = plain
    prepared = preparation.begin(
        settings_of(tmp_path, name="y"),
        run_directory.claim(settings_of(tmp_path, name="y")),
        lambda text: None,
        path.parent,
    )
    weights = checkpoints.load_params(path, settings)
    jax.tree.map(np.testing.assert_array_equal, prepared.state.params, weights)
    assert int(prepared.state.update) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(prepared.state.opt_state))
    (line,) = registry.read(tmp_path / "runs")
    assert line["init_from"] == str(path)


def test_what_is_to_be_resumed_is_found_by_name_place_or_as_the_latest(whole, tmp_path):
    root, settings = whole
    runs = str(root / "runs")
    for run in ("x", "latest", str(root / "runs" / "x")):
        found = config.resolve(run_directory.saved_settings(run, runs))
        assert found == settings
    for run, words in (("y", "no run"), ("latest", "no run in")):
        with pytest.raises(InputError, match=words):
            run_directory.saved_settings(run, str(tmp_path / "runs"))
