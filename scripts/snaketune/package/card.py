"""The model card: README.md with the hub's metadata block, from what was measured.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from snaketune import files
from snaketune.evaluate.metrics import METRICS, by_priority, find
from snaketune.files import StrPath


def write(
    *,
    manifest: StrPath,
    fidelity: StrPath,
    split: StrPath,
    selection: StrPath,
    comparison: StrPath | None,
    config: dict[str, Any],
    card: StrPath,
) -> None:
    """Write the card.

    manifest: fused.json; fidelity: fidelity.json; split: data/split.json; selection: selection.json; comparison:
    evaluation/comparison.json, or None where nothing was evaluated; config: {"run", "package": {"license", "language",
    "gguf"}, "experiments": [{"experiment", "train", "summary": path of its summary.json}], "data": {"sources"}}. Only
    what these files say is in the card, and of the experiments only the chosen one.
    """
    chosen = files.read_json(selection)["experiment"]
    (trained,) = (one for one in config["experiments"] if one["experiment"] == chosen)
    train, summary = trained["train"], files.read_json(trained["summary"])
    fused = files.read_json(manifest)
    proven = files.read_json(fidelity)
    parts = [
        _metadata(fused, config),
        f"# {config['run']}\n\n{_about(fused, train, config)}",
        "## Files\n\n" + _files(proven),
        "## Training\n\n" + _training(summary, files.read_json(split), train, config),
    ]
    if comparison is not None:
        table = score_table(files.read_json(comparison))
        if table:
            parts.append("## Measured on the test rows\n\n" + table)
    parts.append("## Limits\n\n" + _limits(proven))
    files.write_text(card, "\n\n".join(parts) + "\n")


def _metadata(fused: dict[str, Any], config: dict[str, Any]) -> str:
    """The block that the hub reads. A base on the own disk has no page to link to, so it is left out."""
    package = config["package"]
    facts: dict[str, Any] = {"library_name": "mlx", "pipeline_tag": "text-generation", "tags": ["mlx", "gguf", "lora"]}
    if fused.get("revision"):
        facts["base_model"] = fused["base"]
        facts["base_model_relation"] = "finetune"
    if package.get("license"):
        facts["license"] = package["license"]
    if package.get("language"):
        facts["language"] = package["language"]
    return "---\n" + yaml.safe_dump(facts, sort_keys=True, allow_unicode=True) + "---"


def _about(fused: dict[str, Any], train: dict[str, Any], config: dict[str, Any]) -> str:
    base = fused["base"] + (f" at revision {fused['revision']}" if fused.get("revision") else "")
    method = {"lora": "a LoRA adapter", "dora": "a DoRA adapter", "full": "full fine-tuning"}[train["method"]]
    said = [f"{base}, tuned with {method} and merged; {fused['parameters']:,} parameters in {fused['dtype']}."]
    if not config["package"].get("license"):
        said.append("No license was stated when it was made; that of the base and of the data applies.")
    return " ".join(said)


def _files(proven: dict[str, Any]) -> str:
    rows = []
    for name, facts in proven["variants"].items():
        if not name.startswith("gguf-") or "kl" not in facts:
            continue
        types = ", ".join(f"{count} {kind}" for kind, count in facts["tensor_types"].items())
        kept = next((c["value"] for c in proven["checks"] if c["check"] == "gain" and c["variant"] == name), None)
        share = "not measurable" if kept is None else f"{kept:.1%}"
        same = f"{facts['greedy_same']} of {facts['greedy_total']}"
        rows.append([name.removeprefix("gguf-"), _size(facts["bytes"]), types, f"{facts['kl']:.2g}", same, share])
    head = ["type", "size", "tensors", "KL to the 16-bit model", "same greedy answers", "share of the gain kept"]
    return _table(head, rows)


def _training(summary: dict[str, Any], split: dict[str, Any], train: dict[str, Any], config: dict[str, Any]) -> str:
    sources = ", ".join(_source(source) for source in config["data"]["sources"])
    rows = [
        ["data", sources],
        ["rows", ", ".join(f"{count:,} {name}" for name, count in split["rows"].items())],
        ["steps", f"{summary['steps']:,}"],
        ["epochs", f"{summary['epochs']:.3g}"],
        ["target tokens", f"{summary['num_target_tokens']:,}"],
        ["validation loss", f"{summary['base_validation_loss']:.4f} to {summary['best_validation_loss']:.4f}"],
        ["learning rate", f"{train['learning_rate']:g}, {train['lr_scheduler']}"],
    ]
    if train["method"] != "full":
        rows.append(["rank, alpha", f"{train['rank']}, {train['alpha']:g}"])
    return _table(["", ""], rows)


def _source(source: dict[str, Any]) -> str:
    """The name of a data source that may be published: a hub id, or a file's name without its folder."""
    return Path(source["path"]).name if source.get("path") else source["hub"]


def score_table(comparison: dict[str, Any]) -> str:
    """A table of metrics (all but those of style) and variants, with 95 % intervals where the comparison has them."""
    variants = comparison.get("variants", {})
    directions = comparison.get("directions", {})
    known = dict.fromkeys(name for found in variants.values() for name in _metrics(found))
    rows = []
    for name in by_priority(known, METRICS):
        metric = find(name, METRICS)
        if metric.aspect != "style":
            label = f"{metric.label} ({directions.get(name, metric.better)} is better)"
            rows.append([label, *(_value(_metrics(found).get(name)) for found in variants.values())])
    return _table(["", *variants], rows) if rows else ""


def _metrics(found: dict[str, Any]) -> dict[str, Any]:
    return found.get("metrics", found)


def _value(found: dict[str, Any] | None) -> str:
    if not found or found.get("value") is None:
        return ""
    value = f"{found['value']:.4g}"
    if found.get("low") is None or found.get("high") is None:
        return value
    return f"{value} ({found['low']:.4g} to {found['high']:.4g})"


def _limits(proven: dict[str, Any]) -> str:
    said = [
        f"All files were compared with the trained adapter on {proven['rows']} test rows "
        f"({proven['answer_tokens']:,} answer tokens); the checks "
        + ("passed." if proven["passed"] else "FAILED: " + "; ".join(_failed(proven)) + ".")
    ]
    said.append("It was tuned on the data above and measured on rows like them; how it does elsewhere is not known.")
    return "\n\n".join(said)


def _failed(proven: dict[str, Any]) -> list[str]:
    return [f"{check['variant']}: {check['message']}" for check in proven["checks"] if not check["passed"]]


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])
