"""How figures look: their colours, in light and dark, and the two forms that they are saved in.

A figure is drawn with one colour per role, those of the light page, as a PNG has them. In the
page's SVG they become CSS variables, so that the browser picks light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

LIGHT = {
    "paper": "#fcfbf9",
    "ink": "#1d232a",
    "muted": "#5a646f",
    "grid": "#dddad4",
    "gain": "#00796b",
    "loss": "#bf4a06",
    "greedy": "#0b5cad",
    "sampled": "#3d92d6",
    "oracle": "#a47400",
    "other-1": "#a83f7a",
    "other-2": "#6a4fb0",
    "other-3": "#7f6a3a",
    "other-4": "#4f7d24",
    "other-5": "#4c7d8c",
    "other-6": "#a04040",
    "other-7": "#7a4b2a",
}
DARK = {
    "paper": "#14181c",
    "ink": "#e8e6e1",
    "muted": "#a0a9b2",
    "grid": "#343b43",
    "gain": "#4cc3ae",
    "loss": "#f58b4c",
    "greedy": "#6cb4ff",
    "sampled": "#3f8ad6",
    "oracle": "#e3b341",
    "other-1": "#e58ab9",
    "other-2": "#a996f2",
    "other-3": "#c4b083",
    "other-4": "#98c767",
    "other-5": "#86bccb",
    "other-6": "#ea8a8a",
    "other-7": "#c79a78",
}
"""Told apart by the colour-blind too: blue, ochre and vermilion lead, dashes tell the rest."""
OTHERS = tuple(f"other-{number}" for number in range(1, 8))
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))
DPI = 160
HASHED = "[hmp][0-9a-f]{10}|C[0-9a-f]+_[0-9a-f]+_[0-9a-f]+"
"""Ids that something refers to."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.unicode_minus": True,
    "text.parse_math": False,  # dollars are dollars
    "path.simplify_threshold": 0.5,
}


@dataclass(frozen=True)
class Look:
    """Roles of policies and their dashes, and whether the figure is for a narrow screen."""

    policies: Mapping[str, tuple[str, Any]]
    narrow: bool = False

    def __getitem__(self, role: str) -> str:
        """The colour of a role."""
        return LIGHT[role]

    def of(self, policy: str) -> str:
        """The colour of a policy, the same in every figure."""
        return LIGHT[self.policies.get(policy, ("muted", "-"))[0]]

    def line(self, policy: str) -> dict[str, Any]:
        """How a policy's line is drawn: trained ones stand out."""
        role, dash = self.policies.get(policy, ("muted", "-"))
        strong = {"greedy": 1.9, "sampled": 1.4}.get(role, 1.0)
        order = {"greedy": 6, "sampled": 5}.get(role, 3)
        return {
            "color": LIGHT[role],
            "linestyle": dash,
            "linewidth": strong,
            "zorder": order,
            "label": policy,
        }

    def figure(self, height: float, narrow_height: float | None = None) -> Figure:
        """An empty figure, as wide as the page or as a phone; heights in inches."""
        tall = narrow_height or height
        size = (3.55, tall) if self.narrow else (7.6, height)
        layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.03)
        return Figure(figsize=size, layout=layout, facecolor=self["paper"])

    def style(self, panel: Axes, *, grid: str | None = "y") -> None:
        """Quiet axes: a grid along the values, no box."""
        panel.set_facecolor("none")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(self["grid"])
        panel.tick_params(colors=self["muted"], length=0, labelcolor=self["muted"])
        panel.xaxis.label.set_color(self["muted"])
        panel.yaxis.label.set_color(self["muted"])
        panel.title.set_color(self["ink"])
        panel.set_axisbelow(True)
        if grid:
            panel.grid(axis=grid, color=self["grid"], linewidth=0.6)  # type: ignore[arg-type]

    def zero(self, panel: Axes, *, vertical: bool = False) -> None:
        """The line of no profit."""
        draw = panel.axvline if vertical else panel.axhline
        draw(0.0, color=self["muted"], linewidth=0.8, zorder=2)

    def legend(self, drawing: Figure, panel: Axes, *, columns: int = 4) -> None:
        """Above the panels, without a box."""
        handles, labels = panel.get_legend_handles_labels()
        drawing.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=min(2 if self.narrow else columns, max(1, len(labels))),
            frameon=False,
            labelcolor=self["ink"],
            handlelength=2.0,
            columnspacing=1.2,
        )


def roles(policies: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Role of the colour, and dash, of each policy by name."""
    found: dict[str, tuple[str, Any]] = {}
    trained = others = 0
    for name, one in policies.items():
        if one["kind"] == "trained" and trained < 2:
            found[name] = (("greedy", "sampled")[trained], "-")
            trained += 1
        elif one["kind"] == "oracle":
            found[name] = ("oracle", DASHES[1])
        elif name == "flat":
            found[name] = ("muted", DASHES[2])
        else:
            role = OTHERS[others % len(OTHERS)]
            found[name] = (role, DASHES[(others + others // len(OTHERS)) % len(DASHES)])
            others += 1
    return found


def settle(drawing: Figure) -> None:
    """Finds a figure's layout once and for all: finding it takes longer than drawing."""
    engine = drawing.get_layout_engine()
    if engine is not None:
        engine.execute(drawing)
        drawing.set_layout_engine(None)


def png(drawing: Figure) -> bytes:
    """A figure as PNG."""
    kept = io.BytesIO()
    drawing.patch.set_alpha(1.0)
    drawing.savefig(kept, format="png", dpi=DPI, metadata={"Software": None})
    return kept.getvalue()


def svg(drawing: Figure, name: str, label: str) -> str:
    """A figure as an `<svg>` element whose colours are the page's.

    name: a word that its ids begin with. label: what a screen reader says of it.
    """
    kept = io.StringIO()
    drawing.patch.set_alpha(0.0)
    drawing.savefig(kept, format="svg", metadata={"Date": None, "Creator": None})
    text = kept.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r"<style type=.text/css.>.*?</style>", "", body, flags=re.S)
    for role, colour in LIGHT.items():
        body = body.replace(colour, f"var(--{role})")
    body = _plain_fonts(body)
    body = re.sub(rf'\bid="(?!(?:{HASHED})")[^"]*"', "", body)
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"\bxlink:href=", "href=", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = re.sub(r"<[^>]+>", _fewer_digits, body)
    title = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f'<svg {box.group(0)} role="img" aria-label="{title}" '
        f'stroke-linejoin="round" stroke-linecap="butt">{body}'
    )


def _fewer_digits(tag: re.Match[str]) -> str:
    return re.sub(r"(\d\.\d{2})\d+", r"\1", tag.group())


def _plain_fonts(body: str) -> str:
    """Text in the page's font, at the size drawn."""
    body = re.sub(r"font: (?:(\d+) )?([\d.]+)px [^;\"]*", _font, body)
    return re.sub(r"; ?font-family: [^;\"]*|font-family: [^;\"]*; ?", "", body)


def _font(found: re.Match[str]) -> str:
    weight = f"; font-weight: {found.group(1)}" if found.group(1) else ""
    return f"font-size: {found.group(2)}px{weight}"


def settings() -> Any:
    """The context in which figures are drawn and saved."""
    return matplotlib.rc_context(SETTINGS)
