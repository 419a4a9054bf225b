"""Before jax is imported: eight host devices to shard over, and a compilation cache."""

import gc
import os
from pathlib import Path

EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {EIGHT_DEVICES}".strip()

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jules_jax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402
import pytest  # noqa: E402

MAPPINGS = Path("/proc/self/maps")
MOST_MAPPINGS = 20_000
"""Of memory; compiled programs hold several each, and Linux allows a process 65,530."""


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Lets go of compiled programs between modules, before a process has too many."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests whose programs run for milliseconds: most of XLA's optimisations cost more."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
