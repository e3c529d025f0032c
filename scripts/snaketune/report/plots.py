"""Curves as SVG for the page: the same bytes each time, text as text, colours that follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

# Matplotlib knows no CSS; each line is drawn in a colour of its own that is then exchanged for a variable of the page.
INK, FAINT = "#010203", "#010204"
SERIES = tuple(f"#0102{number:02x}" for number in range(0x10, 0x18))
VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)"} | {it: f"var(--series-{n})" for n, it in enumerate(SERIES)}
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}
ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "borderaxespad": 0.2}
FEWEST_CLASSES = 6  # of lengths; fewer would make bars as wide as a table

Curve = dict[str, Any]


def loss_curves(experiments: Sequence[Curve], name: str = "loss") -> str:
    """Loss by update, one colour an experiment: a thin line in training, a strong one with dots in validation.

    experiments: {"name", "metrics": {"loss": [[update, nats]...], "validation_loss": [...]}}; name keeps the ids of
    several pictures on one page apart. Empty when there is nothing to draw.
    """
    drawn = [it for it in experiments if it["metrics"].get("loss") or it["metrics"].get("validation_loss")]
    if not drawn:
        return ""

    def draw(axes: Any) -> None:
        for number, experiment in enumerate(drawn):
            colour = SERIES[number % len(SERIES)]
            metrics = experiment["metrics"]
            if metrics.get("loss"):
                axes.plot(*zip(*metrics["loss"], strict=True), color=colour, linewidth=1, alpha=0.55)
            if metrics.get("validation_loss"):
                points = list(zip(*metrics["validation_loss"], strict=True))
                axes.plot(*points, color=colour, linewidth=2.2, marker="o", markersize=4, label=experiment["name"])
        axes.set_xlabel("update")
        axes.set_ylabel("loss, nats per token")
        if len(drawn) > 1:
            axes.legend(**ABOVE)

    return _svg(draw, name, "Loss by update: thin lines in training, dotted lines on the validation split")


def lengths(characters: dict[str, Any], name: str) -> str:
    """Rows by length, questions beside answers.

    characters: {"asked", "answered": {"bounds", "counts"}}; counts[i] are of lengths from bounds[i] to below the next.
    """
    known = {key: it for key, it in characters.items() if sum(it.get("counts", []))}
    if not known:
        return ""
    bounds = max((it["bounds"] for it in known.values()), key=len)
    titles = {"asked": "questions", "answered": "answers"}

    def draw(axes: Any) -> None:
        width = 0.84 / len(known)
        for number, (key, it) in enumerate(known.items()):
            places = [i + (number - (len(known) - 1) / 2) * width for i in range(len(it["counts"]))]
            axes.bar(places, it["counts"], width, color=SERIES[number], linewidth=0, label=titles.get(key, key))
        axes.set_xticks(range(len(bounds)), [f"{bound}+" for bound in bounds])
        axes.set_xlabel("characters")
        axes.set_xlim(-0.7, max(len(bounds), FEWEST_CLASSES) - 0.3)
        axes.set_ylabel("rows")
        axes.legend(**ABOVE)

    return _svg(draw, name, "How many questions and answers have which length, in classes that double", height=2.4)


def _svg(draw: Any, name: str, description: str, height: float = 3.4) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(7.2, height), layout="tight")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(out.getvalue(), name, description)


def _for_page(svg: str, name: str, description: str) -> str:
    """The picture alone: no prolog, ids of its own, a label for screen readers, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r"font-family: [^;]*;", "font-family: var(--sans);", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    head = re.match(r"<svg[^>]*>", svg)
    assert head is not None
    opening = re.sub(r'\s(width|height)="[^"]*"', "", head.group())
    label = f'role="img" aria-label="{description}"'
    return f"{opening[:-1]} {label}>{svg[head.end() :]}".strip()
