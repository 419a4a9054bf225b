"""Benchmarks. Every core is a device, as in training: said here, before gymnax starts JAX."""

from jules_jax import config
from jules_jax.training import backend

backend.use_cores(config.Config())
