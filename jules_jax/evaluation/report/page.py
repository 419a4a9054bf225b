"""The page `report.html`: what the template `page.html` is given, figures and tables in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

from matplotlib.figure import Figure

from jules_jax.evaluation.report import (
    axes,
    decisions,
    drawing,
    figures,
    other_terms,
    sentences,
    tables,
    wording,
)
from jules_jax.evaluation.report.drawing import Look

Report = Mapping[str, Any]

INTERVALS = "Dots are estimates, bars their 95 % intervals"


@dataclass(frozen=True)
class Drawing:
    """A figure as the page and the directory have it.

    section: of the page. wide, narrow: `<svg>` elements. png: the wide one as a file.
    """

    stem: str
    section: str
    caption: str
    wide: str
    narrow: str
    png: bytes


@dataclass(frozen=True)
class Plan:
    """A figure to be drawn; label: what it shows, for who cannot see it."""

    stem: str
    section: str
    label: str
    caption: str
    draw: Callable[[Report, Look], Figure | None]


def plans(report: Report) -> list[Plan]:
    """Every figure that a report may have, in the order of the page."""
    who = axes.headline(report)
    unit, of_scenario = report["unit"], report["scenario_unit"]
    fixed = [
        Plan(
            "policies",
            "policies",
            "Net P&L of every policy with its interval",
            f"{INTERVALS}; dollars per {unit}. An arrow marks what lies beyond the axis.",
            figures.forest,
        ),
        Plan(
            "equity",
            "equity",
            "Equity and drawdown of every policy over time",
            f"Means of accounts; the band holds 5 to 95 % of those of “{who}”. Below, the mean "
            "fall from the peak.",
            figures.equity,
        ),
        Plan(
            "daily",
            "equity",
            f"Net P&L of {who}, session by session",
            f"“{who}”, mean over seeds; lines hold 5 to 95 % of them.",
            figures.daily,
        ),
        Plan("waterfall", "costs", "From gross to net P&L, cost by cost", "", figures.waterfall),
        Plan(
            "reward-terms",
            "reward",
            "Shares of the reward's terms, by policy",
            "Sum of absolute values of each term as a share of all.",
            figures.reward_terms,
        ),
        Plan(
            "time-of-day",
            "time",
            f"Net P&L and orders of {who} by time of day",
            f"A session of “{who}”; time since the open, in hours and minutes.",
            figures.by_minute,
        ),
    ]
    sessions = [
        Plan(
            f"session-{number + 1}",
            "trades",
            f"Trades on price: {sentences.session_name(one)}",
            sentences.session(one),
            partial(decisions.session, number=number),
        )
        for number, one in enumerate(report["sessions_shown"])
    ]
    rest = [
        Plan("requests", "requests", f"What {who} asked for, over the day", "", decisions.raster),
        Plan(
            "returns",
            "returns",
            "Distribution of daily net returns",
            "Complete sessions.",
            figures.returns,
        ),
        Plan(
            "stress",
            "stress",
            f"Net P&L of {who} in each scenario",
            f"“{who}”. {INTERVALS}; dollars per {of_scenario}.",
            other_terms.stress,
        ),
        Plan(
            "capacity",
            "capacity",
            f"Net P&L and costs of {who} against capital",
            f"“{who}”, trading the same share of its capital.",
            other_terms.capacity,
        ),
        Plan(
            "sensitivity",
            "sensitivity",
            f"Net P&L of {who} as one setting at a time is changed",
            f"“{who}”; bands are 95 % intervals, dollars per {of_scenario}.",
            other_terms.sensitivity,
        ),
        Plan(
            "walk-forward",
            "walk-forward",
            "Net P&L of every fold of the walk-forward",
            "Test sessions only, each traded by a policy that never saw them.",
            other_terms.walk_forward,
        ),
    ]
    return [*fixed, *sessions, *rest]


def draw(report: Report) -> list[Drawing]:
    """The figures of a report that it has data for: `schema.check` has passed it."""
    roles = drawing.roles(report["policies"])
    drawn = []
    with drawing.settings():
        for plan in plans(report):
            wide, narrow = (plan.draw(report, Look(roles, narrow)) for narrow in (False, True))
            if wide is None or narrow is None:
                continue
            drawing.settle(wide)
            drawing.settle(narrow)
            drawn.append(
                Drawing(
                    plan.stem,
                    plan.section,
                    plan.caption,
                    drawing.svg(wide, plan.stem, plan.label),
                    drawing.svg(narrow, f"{plan.stem}-narrow", plan.label),
                    drawing.png(wide),
                )
            )
    return drawn


def render(report: Report, drawings: Sequence[Drawing]) -> str:
    """The page, which refers to nothing outside itself."""
    import jinja2  # imported here: only reports need it
    from markupsafe import Markup

    # a line would otherwise break between a minus and its dollars
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value.replace("−$", "−\u2060$") if type(value) is str else value,
    )
    source = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    who = axes.headline(report)
    drawn: dict[str, list[dict[str, Any]]] = {}
    for one in drawings:
        shown = {"stem": one.stem, "caption": one.caption}
        shown |= {"wide": Markup(one.wide), "narrow": Markup(one.narrow)}
        drawn.setdefault(one.section, []).append(shown)
    return environment.from_string(source).render(
        report=report,
        who=who,
        market=wording.capitalised(report["provenance"]["market"]),
        light=drawing.LIGHT,
        dark=drawing.DARK,
        drawn=drawn,
        key_figures=tables.key_figures(report, who),
        policies=tables.policies(report),
        everything=tables.everything(report),
        costs=tables.costs(report),
        costs_sentence=sentences.costs(report, who),
        requests=tables.requests(report),
        symbols=tables.symbols(report),
        stress=tables.stress(report),
        capacity=tables.capacity(report),
        sensitivity=tables.sensitivity(report),
        folds=tables.folds(report),
        walk_overall=tables.walk_overall(report),
        gates=tables.gates(report),
        replay=sentences.replay(report),
        provenance=tables.provenance(report),
        day=wording.day(report["created"]),
    )
