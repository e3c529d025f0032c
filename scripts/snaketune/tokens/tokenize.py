"""Tokenising the splits once: token stores for training, and what the model's own rules make of each row."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaketune.errors import DataError
from snaketune.files import StrPath, read_json, read_jsonl, write_json
from snaketune.model import sandbox
from snaketune.model.manifest import read_manifest
from snaketune.runtime.progress import progress
from snaketune.tokens.chat_template import Rendered, Renderer
from snaketune.tokens.filtering import TokenJudge, listed
from snaketune.tokens.token_store import write_store

STRESS = [f"{run * 2000}{end}" for run in ("a", " ", "1", "!", "aA", "a ", "\n") for end in ("", "!", "\u00e9")]
BINS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def tokenize_splits(
    rows: dict[str, str], manifest: StrPath, config: dict[str, Any], stores: dict[str, str], verdicts: StrPath
) -> dict[str, Any]:
    """Write a token store for each split, and tokens.json: counts, lengths, and every row that is not simply kept.

    rows and stores: file by split; config: {"model": {"chat_template"}, "data": {"max_length", "on_too_long"}}. The
    model's own context is the limit where max_length is longer. Raises DataError when nothing is left to train on.
    """
    folder = Path(read_manifest(manifest)["folder"]).expanduser()
    data = dict(config["data"])
    context = context_length(folder)
    data["max_length"] = min(data["max_length"], context or data["max_length"])
    try_tokenizer(folder, config["model"]["chat_template"])
    judge = TokenJudge(Renderer(folder, config["model"]["chat_template"]), data)
    report: dict[str, Any] = {"max_length": data["max_length"], "splits": {}, "verdicts": []}
    for split, path in rows.items():
        counts: Counter[str] = Counter()
        lengths: Counter[int] = Counter()
        write_store(stores[split], _kept(path, judge, counts, lengths, report["verdicts"]))
        report["splits"][split] = {
            **{name: counts[name] for name in ("rows", "cut", "dropped", "tokens", "trained_tokens")},
            "lengths": [{"up_to": edge or None, "rows": lengths[edge]} for edge in (*BINS, 0) if lengths[edge]],
        }
    write_json(verdicts, report)
    train = report["splits"]["train"]
    if train["rows"] == train["dropped"]:
        first = next((one for one in report["verdicts"] if one["action"] != "cut"), None)
        raise DataError(
            f"no training row is left of {train['rows']} after tokenising"
            + (
                f"; the first, {first['source']}:{first['line']}: {first['detail'] or first['reason']}" if first else ""
            ),
            where=rows["train"],
            why="There is nothing to train on",
            fix="Raise data.max_length, or add rows to the training split",
        )
    if train["dropped"]:
        print(
            f"snaketune: {train['dropped']} training rows are dropped; {verdicts} says which and why", file=sys.stderr
        )
    return report


def try_tokenizer(folder: Path, template: str | None, seconds: float = 60) -> None:
    """Meet a tokenizer or chat template that never ends, or takes all memory, on a few texts, apart from this process.

    The texts are long runs of one kind of character, on which a pattern that tries all ways to split a run never ends.
    Raises ModelError where the fork does not end within `seconds`.
    """
    import transformers  # noqa: F401 - once, for this process and its fork

    def work() -> None:
        renderer = Renderer(folder, template)
        for text in STRESS:
            renderer.tokenizer(text)

    sandbox.try_apart(work, "trying its tokenizer and chat template on a few texts", where=str(folder), seconds=seconds)


def context_length(folder: Path) -> int | None:
    """Longest sequence the model was made for, in tokens, as its config.json says."""
    config = read_json(folder / "config.json")
    return config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")


def _kept(
    path: str, judge: TokenJudge, counts: Counter[str], lengths: Counter[int], odd: list[dict[str, Any]]
) -> Iterator[tuple[Rendered, float]]:
    for record in progress(read_jsonl(path), f"tokenising {Path(path).stem}"):
        verdict = judge.verdict(record)
        counts["rows"] += 1
        lengths[next((edge for edge in BINS if verdict.tokens <= edge), 0)] += 1
        if verdict.reason:
            odd.append(listed(record, verdict))
        if verdict.rendered is None:
            counts["dropped"] += 1
            continue
        counts["cut"] += verdict.action == "cut"
        counts["tokens"] += len(verdict.rendered.ids)
        counts["trained_tokens"] += sum(verdict.rendered.trained)
        yield verdict.rendered, float(record.get("weight", 1.0))
