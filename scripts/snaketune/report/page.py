"""The run's page: one self-contained HTML file made from the facts by the templates at the top level's report/."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from snaketune import files
from snaketune.files import StrPath
from snaketune.report import collect, formatting, human_eval, view_models

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
    declared: Iterable[StrPath] | None = None,
) -> dict[str, Any]:
    """Write the page, report.json and the form for blind judging of the run in `folder`; returns the facts.

    declared: the only files to read.
    """
    found = collect.collect(folder, declared)
    write_form(found, form)
    files.write_json(record, found)
    files.write_text(page, render(found))
    return found


def render(found: dict[str, Any]) -> str:
    """The page's HTML."""
    return templated("page.html", "page.js", facts=found, **_with_pictures(view_models.values(found)))


def write_form(found: dict[str, Any], path: StrPath) -> None:
    """Write the form for blind judging, `human_eval.form`, as one self-contained page."""
    made = human_eval.form(found)
    shown = {key: value for key, value in made.items() if key != "identical"} | {"kind": human_eval.KIND}
    shown["items"] = [
        {key: it[key] for key in ("id", "question", "reference", "left", "right")} for it in made["items"]
    ]
    html = templated("human_eval.html", "human_eval.js", ("style.css", "human_eval.css"), form=shown, found=made)
    files.write_text(path, html)


def pilot(*, folder: StrPath, page: StrPath, declared: Iterable[StrPath] | None = None) -> dict[str, Any]:
    """Write the pilot's page, after a go and after a no-go alike; returns the facts."""
    found = collect.collect(folder, declared)
    values = _with_pictures(view_models.pilot_values(found))
    html = templated("pilot.html", None, ("style.css", "human_eval.css"), facts=found, **values)
    files.write_text(page, html)
    return found


def _with_pictures(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the SVG of plots.py, which is escaped there, as what the templates take as it is."""
    return values | {name: Markup(values[name]) for name in ("curves", "lengths")}


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
        "shown": lambda value, metric: together(formatting.shown(metric, value)),
        "number": _or_dash(formatting.number),
        "size": _or_dash(formatting.size),
        "duration": _or_dash(formatting.duration),
        "probability": _or_dash(formatting.probability),
        "quantity": formatting.quantity,
        "together": together,
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


def together(text: str) -> str:
    """A sentence of ours with its numbers kept beside their units when a line breaks."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)", "\u00a0", text)


def _or_dash(show: Any) -> Any:
    return lambda value: show(value) if isinstance(value, int | float) else "–"
