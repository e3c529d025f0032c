"""How numbers look in the report: as text (metrics, sizes, durations, p-values) and as curves in SVG.

A plot has the same bytes each time, keeps its text as text, and its colors follow light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from snaketune.contracts.data import LengthReport
from snaketune.contracts.report import ExperimentFindings
from snaketune.evaluate.metric import Metric
from snaketune.evaluate.run_metrics import MetricSettings, enabled_metrics

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
SIZE_TICKS = (1, 2, 3, 5, 7)  # times a power of ten
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
    return svg(draw, name, description, height=3.4 + LEGEND_ROW * rows)


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

    return svg(draw, name, "How many rows have which length, in classes that double", height=2.4)


class SizePoint(NamedTuple):
    """A product in the picture of sizes: its type, bytes, and share of the gain that it keeps."""

    label: str
    bytes: int
    kept: float
    is_mlx: bool


def sizes(points: Sequence[SizePoint], name: str) -> str:
    """Share of the gain that each product keeps, by its size; GGUF and MLX in their own colors."""
    from matplotlib.ticker import LogLocator

    def draw(axes: Any) -> None:
        for color, title, is_mlx in ((SERIES[0], "GGUF", False), (SERIES[1], "MLX", True)):
            own = [point for point in points if point.is_mlx == is_mlx]
            if not own:
                continue
            at = [point.bytes for point in own], [100 * point.kept for point in own]
            axes.plot(*at, color=color, linewidth=0.8, alpha=0.5, marker="o", markersize=6, label=title)
            for point in own:
                place = (point.bytes, 100 * point.kept)
                side, edge = (-7, "top") if is_mlx else (7, "bottom")  # names of two kinds that lie near stay apart
                axes.annotate(
                    point.label, place, (0, side), textcoords="offset points", ha="center", va=edge, color=color
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=SIZE_TICKS))
        axes.xaxis.set_major_formatter(lambda value, _: format_size(value))
        axes.minorticks_off()
        axes.ticklabel_format(axis="y", useOffset=False)  # products that differ by little stand at 99.9 and 100.1
        axes.margins(0.12, 0.2)
        axes.set_xlabel("size")
        axes.set_ylabel("gain kept, %")
        axes.legend(**ABOVE | {"ncols": 2})

    return svg(draw, name, "Share of the gain that each product keeps, by its size")


def svg(draw: Any, name: str, description: str, height: float = 3.4) -> str:
    """What `draw` does to a plot's axes as a picture for a page; name: keeps its ids apart from those of others."""
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


def metrics_of(config: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics of a run by its configuration, of which an older run may lack parts."""
    return enabled_metrics(msgspec.convert(config.get("evaluate") or {}, MetricSettings))


def format_value(metric: Metric, value: float | None) -> str:
    """A metric's value in the digits that mean something."""
    if value is None:
        return "–"
    if metric.unit == "share":
        return f"{100 * value:.1f} %"
    if metric.unit == "points":
        return f"{value:.1f}"
    return format_number(value)


def format_difference(metric: Metric, value: float) -> str:
    """A difference between two values of a metric; of shares, in percentage points."""
    return f"{format_number(100 * value)} points" if metric.unit == "share" else format_number(value)


def format_signed(value: float) -> str:
    """A number with its sign."""
    return f"+{format_number(value)}" if value > 0 else f"−{format_number(-value)}" if value < 0 else "0"


def format_number(value: float) -> str:
    """Three significant digits, and thousands kept apart by a narrow space."""
    if value != value:  # NaN
        return "not a number"
    size = abs(value)
    if size >= 1e15:
        return f"{value:.2e}"
    if size >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", "\u202f")
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    if size >= 0.001:
        return f"{value:.3f}"
    return re.sub(r"e([+-])0*", r"e\1", f"{value:.1e}")


def format_size(count: float) -> str:
    """Bytes in decimal units, as file managers show them."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_duration(seconds: float) -> str:
    """A duration in the unit that a person would use."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_quantity(value: float | None, unit: str) -> str:
    """A number of bytes, seconds, nats or things in words."""
    if value is None:
        return "–"
    return {"bytes": format_size, "seconds": format_duration}.get(unit, format_number)(value)


def format_p(p: float) -> str:
    """A p-value; below a thousandth, where 10,000 permutations end, the digits say nothing more."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def no_break(text: str) -> str:
    """A sentence of ours with its numbers kept beside their units when a line breaks."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)", "\u00a0", text)
