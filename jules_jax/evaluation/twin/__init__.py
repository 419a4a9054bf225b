"""The twin: the environment once more in NumPy float64, and how the two are compared."""

from jules_jax.evaluation.twin.comparison import Disagreement, compare
from jules_jax.evaluation.twin.environment import replay

__all__ = ["Disagreement", "compare", "replay"]
