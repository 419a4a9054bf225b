"""Quality: what is wrong with bars, what is repaired, and what is refused."""

from jules_jax.market.quality.findings import Finding
from jules_jax.market.quality.inspection import Inspected, inspect

__all__ = ["Finding", "Inspected", "inspect"]
