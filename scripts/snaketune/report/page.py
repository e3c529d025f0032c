"""The run's page: one self-contained HTML file made from the report by the templates at the top level's report/."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from snaketune import files
from snaketune.contracts.plan import PilotDecision
from snaketune.contracts.report import Measurements, RunFindings, RunReport
from snaketune.files import StrPath
from snaketune.pilot import criteria
from snaketune.report import collect, experiments, formatting, human_eval, view_models
from snaketune.report.formatting import no_break

RESOURCES = (
    "../../../report/page.html",
    "../../../report/page.js",
    "../../../report/pilot.html",
    "../../../report/runs.html",
    "../../../report/human_eval.html",
    "../../../report/human_eval.css",
    "../../../report/human_eval.js",
    "../../../report/style.css",
    "../../../report/sections",
)
TEMPLATES = Path(__file__).resolve().parents[3] / "report"
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}


def run(
    *,
    folder: StrPath,
    page: StrPath,
    record: StrPath,
    form: StrPath,
    table: StrPath,
    declared: Iterable[StrPath] | None = None,
) -> RunReport:
    """Write the page, report.json, the experiments as CSV and the form for blind judging of the run in `folder`.

    declared: the only files to read, but for measured times, which no rule declares.
    """
    report = collect.collect(folder, declared)
    write_form(report, form)
    files.write_json(record, report)
    experiments.write_table(table, report.training.selection)
    files.write_text(page, render(report, collect.measurements(folder)))
    return report


def render(report: RunReport, measured: Measurements) -> str:
    """The page's HTML."""
    return templated("page.html", "page.js", facts=report, **_with_pictures(view_models.page_values(report, measured)))


def write_form(found: RunFindings, path: StrPath) -> None:
    """Write the form for blind judging, `human_eval.form`, as one self-contained page."""
    form = human_eval.form(found)
    items = [
        {name: getattr(item, name) for name in ("id", "question", "reference", "left", "right")} for item in form.items
    ]
    shown = {"run": form.run, "fingerprint": form.fingerprint, "items": items, "criteria": form.criteria}
    styles = ("style.css", "human_eval.css")
    kind = {"kind": human_eval.FILE_KIND}
    files.write_text(
        path, templated("human_eval.html", "human_eval.js", styles, form=shown | kind, identical=form.identical)
    )


def pilot(*, folder: StrPath, page: StrPath, base: str, declared: Iterable[StrPath] | None = None) -> RunReport:
    """Write the pilot's page, after a go and after a no-go alike; base: the name of the base model that it tried."""
    report = collect.collect(folder, declared)
    measured = collect.measurements(folder)
    values = _with_pictures(view_models.pilot_values(report, measured))
    older = _older_report(Path(folder), measured.decision)
    styles = ("style.css", "human_eval.css")
    files.write_text(page, templated("pilot.html", None, styles, facts=report, older_report=older, base=base, **values))
    return report


def _older_report(folder: Path, decision: PilotDecision | None) -> str | None:
    """After a no-go that ends the run, set an earlier report aside; the name of the older one where it is the last."""
    if decision and decision.decision == "no-go" and not decision.overridden:
        older = criteria.set_report_aside(folder)
        return older.name if older else None
    older = folder / criteria.OLDER_REPORT
    return older.name if older.is_file() and not (folder / criteria.REPORT).is_file() else None


def _with_pictures(values: view_models.Values) -> view_models.Values:
    """The values with the SVG of the plots, which is escaped there, as what the templates take as it is."""
    return values | {name: Markup(values[name]) for name in ("curves", "lengths", "sizes", "contest") if name in values}


def templated(template: str, script: str | None, styles: Iterable[str] = ("style.css",), **values: Any) -> str:
    """A template of report/, its styles and script put into the page, and nothing but that script allowed to run."""
    code = (TEMPLATES / script).read_text(encoding="utf-8") if script else ""
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" if script else "'none'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        environment()
        .get_template(template)
        .render(
            style=Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)),
            script=Markup(code),
            policy=policy,
            **values,
        )
    )


@functools.cache
def environment() -> jinja2.Environment:
    """Jinja that escapes everything, and takes what is absent for empty."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_text,
    )
    made.filters |= {
        "shown": lambda value, metric: no_break(formatting.format_value(metric, value)),
        "number": _dash_if_missing(formatting.format_number),
        "size": _dash_if_missing(formatting.format_size),
        "duration": _dash_if_missing(formatting.format_duration),
        "p_value": _dash_if_missing(formatting.format_p),
        "quantity": formatting.format_quantity,
        "no_break": no_break,
        "title_of": collect.title,
    }
    return made


def _text(value: Any) -> Any:
    """Control characters are shown by their pictures: HTML has no place for them."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return value.translate(CONTROLS)
    return value


def _dash_if_missing(show: Callable[[float], str]) -> Callable[[object], str]:
    return lambda value: show(value) if isinstance(value, int | float) else "–"
