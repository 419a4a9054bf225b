"""What JAX is told before its first array: where compiled programs are kept, a CPU's devices."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from jules_jax.config import Config


def use_compilation_cache() -> Path:
    """Keeps compiled programs in the user's cache, or where JAX_COMPILATION_CACHE_DIR says."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or home / "jules_jax" / "xla")
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return path


def use_cores(settings: Config, num_processes: int = 1) -> None:
    """Makes every core of the CPU a device, as many as the lanes can be spread over.

    A device with its own lanes keeps a core busy; one device whose products share the cores leaves
    them waiting for each other (1.6 × on two cores, benchmarks/NOTES.md). Nothing changes where
    JAX has been told a number (JAX_NUM_CPU_DEVICES, XLA_FLAGS), or for accelerators.
    """
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not told and jax.config.values["jax_num_cpu_devices"] < 1:
        each = cpu_devices(settings, cores(), num_processes)
        jax.config.update("jax_num_cpu_devices", each)


def cpu_devices(settings: Config, num_cores: int, num_processes: int = 1) -> int:
    """How many devices `num_cores` cores are to be: as asked for, or the most that share the lanes.

    Lanes are shared out in whole shuffle groups, so their number is a multiple of the devices' of
    all processes.
    """
    if settings.devices:
        return max(min(settings.devices // num_processes, num_cores), 1)
    groups = settings.shuffle_groups
    fitting = (n for n in range(1, num_cores + 1) if groups % (n * num_processes) == 0)
    return max(fitting, default=1)


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
