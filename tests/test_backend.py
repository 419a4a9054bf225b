"""Every core of a CPU is a device, where nothing was said of devices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jules_jax import config
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
