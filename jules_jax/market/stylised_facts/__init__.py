"""Stylised facts: what real intraday bars are like, and whether simulated ones are like that."""

from jules_jax.market.stylised_facts.measures import REFERENCE, Check, Facts, battery, measure
from jules_jax.market.stylised_facts.plots import figure
from jules_jax.market.stylised_facts.report import report
from jules_jax.market.stylised_facts.samples import of_config

__all__ = ["REFERENCE", "Check", "Facts", "battery", "figure", "measure", "of_config", "report"]
