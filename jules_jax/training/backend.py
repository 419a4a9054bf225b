"""What JAX is told before its first array: where programs are kept, devices, determinism."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from jules_jax.config import Config
from jules_jax.errors import InputError

DETERMINISTIC = {"xla_gpu_deterministic_ops": "true", "xla_gpu_autotune_level": "0"}
"""What XLA is told for a GPU: no operation whose result depends on the order that threads come in,
and no kernel because it was measured to be the fastest, this time."""


def configure(settings: Config, num_processes: int = 1) -> None:
    """What the settings ask of JAX before it starts; raises as `use_deterministic_kernels`."""
    use_cores(settings, num_processes)
    if settings.deterministic:
        use_deterministic_kernels()


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


def use_deterministic_kernels() -> None:
    """Has a GPU compute the same bits from the same inputs every time; a CPU does so anyway.

    Raises `InputError` where XLA_FLAGS say otherwise, or where it is too late to say so.
    """
    started = _has_started()
    if started and jax.default_backend() == "cpu":
        return
    flags = os.environ.get("XLA_FLAGS", "").split()
    given = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)
    for name, value in DETERMINISTIC.items():
        if given.get(name, value) not in (value, "" if value == "true" else value):
            raise InputError(
                f"XLA_FLAGS has --{name}={given[name]} and deterministic is true, expected --{name}"
                f"={value} or nothing of it"
            )
    missing = [f"--{name}={value}" for name, value in DETERMINISTIC.items() if name not in given]
    if missing and started:
        raise InputError(
            "deterministic is true and JAX has started without it, expected "
            f"XLA_FLAGS='{' '.join(missing)}' in the environment"
        )
    if missing:
        os.environ["XLA_FLAGS"] = " ".join([*flags, *missing])


def note(settings: Config) -> str:
    """What `deterministic` has come to, for the line of the devices."""
    if not settings.deterministic:
        return ""
    if jax.default_backend() == "cpu":
        return "; deterministic: on a CPU nothing needs to be set"
    return "; deterministic: " + " ".join(f"--{n}={v}" for n, v in DETERMINISTIC.items())


def _has_started() -> bool:
    """Whether JAX has a backend: it then refuses another number of devices."""
    now = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", max(now, 0) + 1)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", now)
    return False
