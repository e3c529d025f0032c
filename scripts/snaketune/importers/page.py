"""What an import writes: the configuration, and the page that says what became of each key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from snaketune.config import schema
from snaketune.config.docs import to_commented_yaml
from snaketune.errors import UserError
from snaketune.importers.draft import Draft

LONGEST_CELL = 160  # characters of a value in a table


def configuration(draft: Draft, name: str, source: str) -> str:
    """Return the complete, commented configuration; raises ConfigError for a value that ours does not allow."""
    values = schema.complete({**draft.settings, "run": name})
    head = f"# Imported from {draft.tool}'s {source} by `make import`; {name}.import.md says what became of each key.\n"
    return head + "\n" + to_commented_yaml(values)


def problems(draft: Draft, name: str) -> str:
    """Return what ours does not allow in the settings, or nothing."""
    try:
        schema.complete({**draft.settings, "run": name})
    except UserError as error:
        return str(error)
    return ""


def page(draft: Draft, name: str, source: str, *, is_written: bool) -> str:
    """Return the page in Markdown, with the four lists."""
    lines = [f"# {name}, imported from {draft.tool}", ""]
    lines += _summary(draft, name, source, is_written)
    lines += _section(
        "Taken over",
        TAKEN,
        ("theirs", "value", "ours", "value here", "remark"),
        [(one.key, one.theirs, one.ours, one.value, one.note) for one in draft.taken],
    )
    lines += _section(
        "Done differently by default, and therefore written out",
        WRITTEN_OUT,
        ("what", f"in {draft.tool}", "ours", "value here", "remark"),
        [
            (one.key, one.theirs, one.ours or "no key", one.value if one.ours else "", one.note)
            for one in draft.written_out
        ],
    )
    lines += _section(
        "Of no effect here",
        UNUSED,
        ("theirs", "value", "why that is safe"),
        [(one.key, one.theirs, one.why) for one in draft.unused],
    )
    lines += _section(
        "Refused",
        REFUSED,
        ("theirs", "value", "what it changes in the result", "what to do"),
        [(one.key, one.theirs, one.effect, one.fix) for one in draft.refused],
    )
    if draft.template_report:
        lines += ["## The chat template", "", *draft.template_report, ""]
    return "\n".join(lines).rstrip() + "\n"


TAKEN = "These keys have an equal here."
WRITTEN_OUT = "Where nothing is said, the two tools do not do the same. Theirs was written into the configuration."
UNUSED = "These change speed, memory or where files go, and no result."
REFUSED = "These change the result, and nothing here does the same. None is passed over in silence."


def _summary(draft: Draft, name: str, source: str, is_written: bool) -> list[str]:
    counts = (
        f"{len(draft.taken)} keys taken over, {len(draft.written_out)} defaults written out, "
        f"{len(draft.unused)} of no effect, {len(draft.refused)} refused."
    )
    if is_written:
        ending = f"`{name}.yaml` is complete. Next: `snakemake plan --configfile {name}.yaml`."
    else:
        ending = f"`{name}.yaml` was not written, since something was refused; see the last list."
    return [f"From `{source}`: {counts}", "", ending, ""]


def _section(title: str, intro: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"## {title}", ""]
    table = [list(row) for row in rows]
    if not table:
        return [*lines, "Nothing.", ""]
    lines += [intro, "", table_row(head), "|" + "---|" * len(head)]
    coded = {number for number, name in enumerate(head) if name in CODED}
    return [*lines, *(table_row([cell(one, number in coded) for number, one in enumerate(row)]) for row in table), ""]


CODED = ("theirs", "value", "ours", "value here")


def table_row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def cell(value: object, is_code: bool) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if is_code and len(text) > LONGEST_CELL:
        text = text[: LONGEST_CELL - 3] + "..."
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text.replace('`', chr(39))}`" if is_code and text else text
