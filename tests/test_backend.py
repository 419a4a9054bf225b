"""What JAX is told before it starts: that every core is a device, that a GPU is deterministic."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.training import backend
from jules_jax.training.backend import cpu_devices

PRINT_DEVICES = (
    "from jules_jax import config\n"
    "from jules_jax.training import backend, loop, market, monitor\n"
    "backend.use_cores(config.load({settings}))\n"
    "import jax\n"
    "print(jax.device_count())"
)


@pytest.mark.parametrize(
    ("settings", "cores", "devices"),
    [
        ({"num_envs": 2048}, 1, 1),
        ({"num_envs": 2048}, 2, 2),
        ({"num_envs": 2048}, 6, 4),  # 8 shuffle groups
        ({"num_envs": 2048}, 64, 8),
        ({"num_envs": 4 * 3}, 2, 1),  # 3 lanes a minibatch: one group
        ({"num_envs": 2048, "devices": 1}, 8, 1),
        ({"num_envs": 2048, "devices": 4}, 8, 4),
        ({"num_envs": 2048, "devices": 4}, 2, 2),
    ],
)
def test_as_many_cores_as_share_out_the_shuffle_groups(settings, cores, devices):
    assert cpu_devices(config.load(settings), cores) == devices


@pytest.mark.parametrize(
    ("settings", "environment", "devices"),
    [
        ({"devices": 1}, {}, 1),
        ({}, {}, cpu_devices(config.Config(), backend.cores())),
        ({}, {"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"devices": 1}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 4),
    ],
)
def test_jax_is_told_before_its_backend_starts_unless_it_was_told_already(
    settings, environment, devices
):
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    run = subprocess.run(
        [sys.executable, "-c", PRINT_DEVICES.format(settings=settings)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) == devices


FLAGS = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", FLAGS),
        ("--xla_dump_to=x", f"--xla_dump_to=x {FLAGS}"),
        ("--xla_gpu_deterministic_ops", "--xla_gpu_deterministic_ops --xla_gpu_autotune_level=0"),
        (FLAGS, FLAGS),
    ],
)
def test_a_gpu_is_told_to_be_deterministic_before_jax_starts(monkeypatch, before, after):
    monkeypatch.setattr(backend, "_has_started", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", before)
    backend.use_deterministic_kernels()
    assert os.environ["XLA_FLAGS"] == after


@pytest.mark.parametrize("flag", ["xla_gpu_deterministic_ops=false", "xla_gpu_autotune_level=4"])
def test_flags_that_say_otherwise_are_refused(monkeypatch, flag):
    monkeypatch.setattr(backend, "_has_started", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", f"--{flag}")
    with pytest.raises(InputError, match=f"XLA_FLAGS has --{flag} and deterministic is true"):
        backend.use_deterministic_kernels()


def test_once_jax_has_started_it_is_too_late_for_a_gpu_and_a_cpu_needs_nothing(monkeypatch):
    platform = jax.default_backend()
    monkeypatch.setenv("XLA_FLAGS", "")
    assert platform != "cpu" or backend.use_deterministic_kernels() is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(
        InputError, match=f"JAX has started without it, expected XLA_FLAGS='{FLAGS}'"
    ):
        backend.use_deterministic_kernels()
    monkeypatch.setenv("XLA_FLAGS", FLAGS)
    backend.use_deterministic_kernels()
    assert backend.note(config.Config(deterministic=True)) == f"; deterministic: {FLAGS}"
    assert backend.note(config.Config()) == ""


def test_xla_knows_the_flags():
    """One that it does not know would end the process."""
    command = "import jax; jax.devices()"
    run = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | {"XLA_FLAGS": FLAGS},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
