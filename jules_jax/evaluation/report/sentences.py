"""Sentences of the page: what tables and figures come to, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jules_jax.evaluation.report import wording
from jules_jax.evaluation.report.axes import Report


def costs(report: Report, who: str) -> str:
    """What a policy earned before costs, what it paid, and what was left."""
    metrics = report["policies"][who]["overall"]
    gross, net = metrics["gross_pnl"]["value"], metrics["net_pnl"]["value"]
    if gross is None or net is None:
        return f"Gross or net P&L of “{who}” is not known."
    total = metrics["cost_total_bp"]["value"]
    rate = "" if total is None else f" ({wording.show(total, 'bp')} of turnover)"
    places = wording.decimals_of([gross, net], "dollars")
    gross_text, paid, net_text = (
        wording.show(value, "dollars", places) for value in (gross, gross - net, net)
    )
    return (
        f"“{who}” earned {gross_text} before costs and paid {paid}{rate}, which leaves "
        f"{net_text} per {report['unit']}."
    )


def replay(report: Report) -> str:
    """What came of playing the steps again in the twin."""
    one = report["replay"]
    if one is None:
        return "Not replayed."
    amount = f"{wording.count(one['steps'], 'step')} of {wording.count(one['episodes'], 'episode')}"
    if one["steps"] == 0:
        return "No step was replayed in the float64 twin."
    if one["agrees"]:
        return (
            f"An independent float64 twin of the environment played {amount} again and agreed "
            f"on every one (tolerance: {one['tolerance']})."
        )
    weights = wording.count(one["other_weights"], "episode")
    return (
        f"An independent float64 twin of the environment played {amount} again and disagreed on "
        f"{wording.count(one['disagreements'], 'episode')} (tolerance: {one['tolerance']}); of "
        f"{weights} the weights do not make what the policy thought: the figures above cannot be "
        "believed until that is explained."
    )


def session_name(one: Mapping[str, Any]) -> str:
    """Symbol, label and policy of a session shown."""
    place = " ".join(filter(None, (one["symbol"], one["label"])))
    return f"{place} ({one['policy']})"


def session(one: Mapping[str, Any]) -> str:
    """What was traded in a session shown, and what came of it."""
    net = sum(value for value in one["net"] if value is not None)
    forced = sum(fill["forced"] for fill in one["fills"])
    imposed = f", {forced} of them forced" if forced else ""
    return (
        f"{session_name(one)}: {wording.count(len(one['fills']), 'fill')}{imposed}; "
        f"net {wording.show(net, 'dollars')}."
    )


def costs_note(metrics: Report) -> str:
    """Costs in dollars, beside what was earned before them."""
    gross, net = metrics["gross_pnl"]["value"], metrics["net_pnl"]["value"]
    if gross is None or net is None:
        return "of turnover"
    paid = wording.show(gross - net, "dollars")
    return f"of turnover: {paid}, from {wording.show(gross, 'dollars')} gross"
