"""Numbers as the report shows them: values of metrics, sizes, durations and p-values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from snaketune.evaluate.metrics import Metric, MetricSettings, enabled_metrics


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
