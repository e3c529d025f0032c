"""A few rows as the model will read them, trained tokens marked: the answer to "what does it really train on?"."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec

from snaketune.config.sections import Section
from snaketune.contracts.data import Preview, PreviewRow
from snaketune.files import StrPath, read_jsonl, write_json, write_text
from snaketune.model.manifest import declared_context_length, read_manifest
from snaketune.report.page import templated
from snaketune.runtime import events
from snaketune.tokens.chat_template import Rendered, Renderer
from snaketune.tokens.tokenize import FilterConfig, TemplateConfig, TokenFilter

NUM_ROWS = 5
LONGEST_PIECE = 1200  # characters of a stretch that the terminal shows; the page shows all
OPENING, CLOSING = "[[", "]]"


class PreviewConfig(Section, frozen=True, kw_only=True):
    """The settings of preview_rows."""

    run: str
    model: TemplateConfig
    data: FilterConfig


def run(train: StrPath, manifest: StrPath, config: PreviewConfig, record: StrPath, page: StrPath) -> Preview:
    """Write preview.json and its page for the first rows of the training split, which are a random sample of it."""
    folder = Path(read_manifest(manifest).folder).expanduser()
    limit = config.data.max_length
    limit = min(limit, declared_context_length(folder) or limit)
    token_filter = TokenFilter(
        Renderer(folder, config.model.chat_template, config.model.num_virtual_tokens),
        msgspec.structs.replace(config.data, max_length=limit),
    )
    rows = read_jsonl(train)
    shown = [_preview(row, token_filter) for row in itertools.islice(rows, NUM_ROWS)]
    found = Preview(run=config.run, rows=shown, available=len(shown) + sum(1 for _ in rows))
    write_json(record, found)
    write_text(page, templated("preview.html", None, preview=found))
    return found


def _preview(row: Any, token_filter: TokenFilter) -> PreviewRow:
    """Return one record as it is tokenized; of one that is dropped, why."""
    result = token_filter.filter(row)
    rendered = result.rendered or Rendered([], [])
    words = {"cut": "its end is cut off", "drop": "it is left out"}.get(result.action, "")
    return PreviewRow(
        source=row["source"],
        line=row["line"],
        tokens=len(rendered.ids),
        num_target_tokens=sum(rendered.loss_mask),
        pieces=pieces(rendered, token_filter.renderer),
        note=": ".join(filter(None, (words, result.detail))),
    )


def pieces(rendered: Rendered, renderer: Renderer) -> list[tuple[str, bool]]:
    """Return the text of a row in stretches that are trained or not.

    Each is what the text grows by, since a tokenizer may write the same token otherwise at the beginning of a text.
    """
    found: list[tuple[str, bool]] = []
    before, end = "", 0
    for is_trained, group in itertools.groupby(rendered.loss_mask):
        end += len(list(group))
        whole = renderer.tokenizer.decode(
            rendered.ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        found.append((whole[len(before) :], is_trained))
        before = whole
    return found


def show(preview: Preview, page: StrPath) -> None:
    """Say the rows to the person; what is trained stands in brackets."""
    how = f"What is trained stands in {OPENING}{CLOSING}. {page} shows the same in full."
    events.report_warning("\n".join([*lines(preview), how]))


def lines(preview: Preview) -> list[str]:
    """Return the preview as lines of text."""
    found = [f"{len(preview.rows)} of {preview.available} training rows of {preview.run}, as the model reads them:"]
    for number, row in enumerate(preview.rows, 1):
        counts = f"{row.tokens} tokens, {row.num_target_tokens} of them trained"
        found += ["", f"--- {number}: {row.source}:{row.line}, {counts}" + (f"; {row.note}" if row.note else "")]
        found += "".join(_marked(text, hit) for text, hit in row.pieces).split("\n")
    return [*found, ""]


def _marked(text: str, is_trained: bool) -> str:
    """Return a stretch for the terminal: without control characters, long ones with their middle left out."""
    text = "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text.replace("\t", "    "))
    if len(text) > LONGEST_PIECE:
        half = LONGEST_PIECE // 2
        text = f"{text[:half]} ... ({len(text) - LONGEST_PIECE} characters) ... {text[-half:]}"
    if not is_trained:
        return text
    return "\n".join(f"{OPENING}{line}{CLOSING}" if line else line for line in text.split("\n"))
