"""Curves as SVG for the page: the same bytes each time, text as text, colors that follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from snaketune.contracts.data import LengthReport
from snaketune.contracts.report import ExperimentFindings

# Matplotlib knows no CSS; each line is drawn in a color of its own that is then exchanged for a variable of the page.
INK, FAINT = "#010203", "#010204"
SERIES = tuple(f"#0102{number:02x}" for number in range(0x10, 0x18))
VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)"} | {color: f"var(--series-{n})" for n, color in enumerate(SERIES)}
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
LEGEND_ROW = 0.2  # inches that a row of the legend takes
LEGEND_CHARACTERS = 90  # that fit above the plot
KEY_CHARACTERS = 6  # that a line's color and the space between columns take
LONGEST_NAME = 60  # characters of an experiment in the legend
ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "borderaxespad": 0.2}
FEWEST_CLASSES = 6  # of lengths; fewer would make bars as wide as a table


def loss_curves(experiments: Sequence[ExperimentFindings], name: str = "loss") -> str:
    """Loss by step, one color an experiment: a thin line in training, a strong one with dots in validation.

    name keeps the ids of several pictures on one page apart. Empty when there is nothing to draw.
    """
    drawn = [each for each in experiments if each.curves.get("loss") or each.curves.get("validation_loss")]
    if not drawn:
        return ""
    rows = _legend_rows([each.name for each in drawn]) if len(drawn) > 1 else 0

    def draw(axes: Any) -> None:
        for number, experiment in enumerate(drawn):
            color = SERIES[number % len(SERIES)]
            curves = experiment.curves
            if curves.get("loss"):
                axes.plot(*zip(*curves["loss"], strict=True), color=color, linewidth=1, alpha=0.55)
            if curves.get("validation_loss"):
                points = list(zip(*curves["validation_loss"], strict=True))
                label = _cut(experiment.name)
                axes.plot(*points, color=color, linewidth=2.2, marker="o", markersize=4, label=label)
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats per token")
        if rows:
            axes.legend(**ABOVE | {"ncols": _columns([each.name for each in drawn])})

    description = "Loss by step: thin lines in training, lines with dots on the validation split"
    return _svg(draw, name, description, height=3.4 + LEGEND_ROW * rows)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _columns(names: Sequence[str]) -> int:
    """As many columns of a legend as the plot's width has room for."""
    longest = max(len(_cut(name)) for name in names)
    return max(1, min(4, LEGEND_CHARACTERS // (longest + KEY_CHARACTERS)))


def _legend_rows(names: Sequence[str]) -> int:
    return -(-len(names) // _columns(names))


def lengths(found: LengthReport, name: str) -> str:
    """Rows by length as data/report.json counts them: `unit`, and `histogram` with `from`, `to` and `rows`."""
    classes = found.histogram
    if not sum(each["rows"] for each in classes):
        return ""

    def draw(axes: Any) -> None:
        axes.bar(range(len(classes)), [each["rows"] for each in classes], 0.84, color=SERIES[0], linewidth=0)
        axes.set_xticks(range(len(classes)), [f"{each['from']}+" for each in classes])
        axes.set_xlabel(f"{found.unit} of question and answer together")
        axes.set_xlim(-0.7, max(len(classes), FEWEST_CLASSES) - 0.3)
        axes.set_ylabel("rows")

    return _svg(draw, name, "How many rows have which length, in classes that double", height=2.4)


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
    """The picture alone: no prolog, ids of its own, a label for screen readers, the page's colors and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r"font-family: [^;]*;", "font-family: var(--sans);", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    head = re.match(r"<svg[^>]*>", svg)
    assert head is not None
    opening = re.sub(r'\s(width|height)="[^"]*"', "", head.group())
    label = f'role="img" aria-label="{description}"'
    return f"{opening[:-1]} {label}>{svg[head.end() :]}".strip()
