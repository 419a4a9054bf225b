"""Several processes train one run, over loopback: one run, and none goes on without another."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.evaluation import audit
from jules_jax.training import checkpoints, loop, processes
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")

UPDATES = 60
RUN = {"total_timesteps": str(UPDATES * 128), "checkpoints.every": "10", "name": "x"}
BOUND = 90
"""Seconds that processes have to end in, once another one is gone."""


@dataclass
class Together:
    """Processes of one run, and what each of them says."""

    processes: list[subprocess.Popen[str]]
    said: list[Path]

    def wait(self, seconds: float) -> list[int]:
        """Their exit statuses."""
        return [each.wait(seconds) for each in self.processes]

    def text(self, place: int) -> str:
        return self.said[place].read_text()


@contextmanager
def together(
    root: Path, count: int, *, each: list[dict[str, str]] | None = None, **values: str
) -> Iterator[Together]:
    """Starts `count` processes of a device each that train with these settings, or with `each`."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "jules_jax.train", "--coordinator", f"127.0.0.1:{port}"]
    command += ["--num-processes", str(count)]
    environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environ |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    environ |= {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", "")}
    said = [root / f"said-{place}" for place in range(count)]
    started = []
    try:
        for place, file in enumerate(said):
            with file.open("w") as out:
                asked = each[place] if each else values
                own = [f"--{key.replace('_', '-')}={value}" for key, value in asked.items()]
                own = [*command, f"--process-id={place}", *own]
                started.append(
                    subprocess.Popen(own, env=environ, stdout=out, stderr=out, text=True)
                )
        yield Together(started, said)
    finally:
        for each in started:
            with suppress(ProcessLookupError):
                each.kill()
            each.wait()


def places(root: Path) -> dict[str, str]:
    return {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}


def flags(root: Path) -> dict[str, str]:
    return {**{key: str(value) for key, value in (SETTINGS | RUN).items()}, **places(root),
            "devices": "0"}  # fmt: skip


def rows(root: Path, agent: str = ".") -> list[dict[str, float]]:
    file = root / "runs" / "x" / agent / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for(condition: Callable[[], bool], those: Together, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        dead = [each.poll() for each in those.processes]
        assert time.monotonic() < end and dead == [None] * len(dead), those.text(0)
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The checkpoints of an uninterrupted run of one process, on a number of devices."""
    found: dict[int, Path] = {}

    def train(devices: int) -> Path:
        if devices not in found:
            root = tmp_path_factory.mktemp(f"alone-{devices}")
            settings = config.load({**flags(root), "devices": str(devices)})
            loop.train(settings, say=lambda text: None)
            found[devices] = root
        return found[devices]

    return train


def weights(root: Path, agent: str, updates: int) -> list[np.ndarray]:
    place = root / "checkpoints" / "x" / agent
    settings = config.load(file=place / "config.yaml")
    path = checkpoints.find(place)
    assert path.name == str(updates)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoints.load_params(path, settings))]


def assert_same(root: Path, other: Path, agent: str = ".", updates: int = UPDATES) -> None:
    """Weights to 1e-5, and metrics to a thousandth."""
    both = (weights(each, agent, updates) for each in (root, other))
    for one, two in zip(*both, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)
    for row, same in zip(rows(root, agent), rows(other, agent), strict=True):
        names = {name for name in same if name.partition("/")[0] in ("train", "rollout", "pnl")}
        assert names <= row.keys()
        for name in names:
            assert row[name] == pytest.approx(same[name], rel=1e-3, abs=1e-3), name


def test_a_signal_to_one_process_stops_all_and_one_process_goes_on_alone(
    tmp_path: Path, alone: Callable[[int], Path]
) -> None:
    """Two processes are stopped through the second of them; the rest is done by one, on two
    devices: all of it as if one process had done it all."""
    with together(tmp_path, 2, **flags(tmp_path)) as both:
        wait_for(lambda: len(rows(tmp_path)) >= 3, both)
        both.processes[1].send_signal(signal.SIGTERM)
        assert both.wait(BOUND) == [0, 0], both.text(0) + both.text(1)
    stopped_at = rows(tmp_path)[-1]["update"]
    assert stopped_at < UPDATES
    assert f"stopped: by SIGTERM after update {stopped_at} of {UPDATES}" in both.text(0)
    assert "2 × cpu (cpu) in 2 processes" in both.text(0)
    assert "lanes ×" not in both.text(1)  # the first alone tells of the run
    registered = (tmp_path / "runs" / "registry.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in registered] == ["started", "interrupted"]

    settings = config.load({**flags(tmp_path), "devices": "2"})
    loop.train(settings, resume=True, say=lambda text: None)
    assert_same(tmp_path, alone(2))


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "values", [{"sharded": "true"}, {"num_seeds": "2"}], ids=["sharded", "population"]
)
def test_processes_train_what_one_does_on_as_many_devices(
    tmp_path: Path, count: int, values: dict[str, str]
) -> None:
    """Markets in parts; populations, whose members lie on different processes."""
    short = values | {"total_timesteps": str(6 * 128), "checkpoints.every": "3"}
    with together(tmp_path, count, **(flags(tmp_path) | short)) as several:
        assert several.wait(600) == [0] * count, several.text(0)
    root = tmp_path / "one"
    settings = config.load(flags(root) | short | {"devices": str(count)})
    loop.train(settings, say=lambda text: None)
    agents = ["seed-0", "seed-1"] if "num_seeds" in values else ["."]
    for agent in agents:
        assert_same(tmp_path, root, agent, updates=6)


@pytest.mark.long
def test_a_run_of_two_processes_is_validated_audited_drawn_and_judged(tmp_path: Path) -> None:
    """Everything that a run does besides training; the first process alone writes it."""
    more = {
        "checkpoints.every": "3", "total_timesteps": str(6 * 128), "validation_episodes": "8",
        "figures_every": "2", "monitor.audit": "0.25", "gates.at_end": "true",
        "gates.episodes": "64",
    }  # fmt: skip
    with together(tmp_path, 2, **(flags(tmp_path) | more)) as both:
        assert both.wait(600) == [0, 0], both.text(0) + both.text(1)
    run = tmp_path / "runs" / "x"
    assert "explained variance" in both.text(0) and "Traceback" not in both.text(1)
    assert json.loads((run / "gates.json").read_text())["gates"]
    assert list(run.glob("figures/*")) or list(run.rglob("*.png"))
    result = audit.verify(run / "audit", None)
    assert result.episodes and not result.twin
    assert {"validation/net_pnl"} <= rows(tmp_path)[2].keys()


def test_processes_that_were_told_other_things_do_not_begin(tmp_path: Path) -> None:
    own = [flags(tmp_path), flags(tmp_path) | {"seed": "1"}]
    with together(tmp_path, 2, each=own) as both:
        assert both.wait(BOUND) == [2, 2]
    assert "process 1 has other settings than process 0" in both.text(0)
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_any_number_goes_on(
    tmp_path: Path, alone: Callable[[int], Path], killed: int
) -> None:
    with together(tmp_path, 2, **flags(tmp_path)) as both:
        wait_for(lambda: (tmp_path / "checkpoints" / "x" / "20").is_dir(), both)
        both.processes[killed].kill()
        began = time.monotonic()
        other = both.processes[1 - killed].wait(BOUND)
        assert time.monotonic() - began < BOUND and other not in (0, None)
        time.sleep(1)  # for the last words
        said = both.text(1 - killed)
    assert "cannot go on, as another process" in said or "has lost another process" in said
    assert "--resume goes on from the newest checkpoint" in said
    with together(tmp_path, 4, resume="x", **places(tmp_path)) as four:
        assert four.wait(600) == [0, 0, 0, 0], four.text(0)
    assert "4 × cpu (cpu) in 4 processes" in four.text(0)
    assert_same(tmp_path, alone(2))


def test_what_the_first_refuses_all_refuse(tmp_path: Path) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "notes.txt").write_text("mine")
    with together(tmp_path, 2, **flags(tmp_path)) as both:
        assert both.wait(BOUND) == [2, 2]
    for place in (0, 1):
        assert "x exists already; choose another --name" in both.text(place)
        assert "Traceback" not in both.text(place)


NO_FLAGS = dict.fromkeys(("coordinator", "num_processes", "process_id"))
SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n[1-4]",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "launcher"),
    [
        ({}, None),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # a batch script, not a step
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}, "ompi"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpi4py"),  # Open MPI 5 has no such address
        ({"PMI_SIZE": "8", "PMI_RANK": "3"}, "mpi4py"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, "k8s"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a notebook in a pod
    ],
)
def test_launchers_are_known_by_what_they_leave_in_the_environment(
    environ: dict[str, str], launcher: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    found = processes.cluster(NO_FLAGS, environ)
    assert (found and found.launcher) == launcher
    assert processes.cluster(NO_FLAGS | {"num_processes": "1"}, environ) is None


def test_what_a_launcher_cannot_be_asked_without_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError, match="PMI_SIZE is 8 and mpi4py is not installed, expected it"):
        processes.cluster(NO_FLAGS, {"PMI_SIZE": "8"})
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
    assert processes.cluster(NO_FLAGS, pod) is None  # there may be no others


def test_flags_say_where_the_others_are() -> None:
    given = {"coordinator": "head:1234", "num_processes": "4", "process_id": "3"}
    assert processes.cluster(given, {}) == processes.Cluster(None, "head:1234", 4, 3)
    only = NO_FLAGS | {"coordinator": "head:1234"}
    assert processes.cluster(only, SLURM) == processes.Cluster("slurm", "head:1234")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"process_id": "0"}, "--coordinator is missing"),
        (
            {"coordinator": "h:1", "num_processes": "0", "process_id": "0"},
            "--num-processes is 0, expected 1 or more",
        ),
        ({"coordinator": "head:1", "num_processes": "2"}, "--process-id is missing"),
        (
            {"coordinator": "head", "num_processes": "2", "process_id": "0"},
            "--coordinator is 'head', expected HOST:PORT",
        ),
        (
            {"coordinator": "h:1", "num_processes": "2", "process_id": "2"},
            "--process-id is 2, expected 0 to 1",
        ),
        (
            {"coordinator": "h:1", "num_processes": "two", "process_id": "0"},
            "--num-processes is 'two', expected a whole number",
        ),
    ],
)
def test_flags_that_do_not_fit_are_one_clear_error(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        processes.cluster(NO_FLAGS | given, {})
