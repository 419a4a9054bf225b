import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def quick_compilation():
    """Programs here run for milliseconds: most of XLA's optimisations would cost more."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
