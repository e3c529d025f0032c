"""The model card (README.md with the hub's metadata block, from what was measured), and the upload of the model.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md

A model is uploaded only on request, private unless said, and with the token from the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from snaketune import files
from snaketune.config.products import GGUF, is_product
from snaketune.config.sections import Section, SourceConfig, UploadConfig
from snaketune.contracts.data import SplitReport
from snaketune.contracts.evaluate import Comparison, Score, Selection
from snaketune.contracts.package import Fidelity, FusedManifest, UploadRecord
from snaketune.contracts.train import TrainingSummary
from snaketune.errors import ConfigError, PackageError, ResourceError
from snaketune.evaluate.metric import by_priority, find
from snaketune.evaluate.metrics import METRICS
from snaketune.files import StrPath


def upload_model(paths: Sequence[StrPath], settings: UploadConfig, *, fidelity: StrPath, uploaded: StrPath) -> None:
    """Upload files and folders (the card, the GGUF files, the folders for MLX) and write what was uploaded.

    A model that failed its fidelity checks stays here. The token is read from HF_TOKEN, and written nowhere.
    """
    token = os.environ.get("HF_TOKEN")
    if not settings.repository:
        raise ConfigError(
            "no repository is named",
            where="package.upload.repository",
            fix="Set it to owner/name, such as me/my-model",
        )
    if not token:
        raise ResourceError(
            "there is no token for the hub",
            where="HF_TOKEN",
            fix="Make one with write access at https://huggingface.co/settings/tokens and `export HF_TOKEN=...`",
        )
    if not files.read_json(fidelity, Fidelity).passed:
        raise PackageError(
            "this model failed its fidelity checks, so it is not uploaded", where=str(fidelity), fix="Fix that first"
        )
    names = _upload(settings.repository, settings.private, token, [Path(path) for path in paths])
    record = UploadRecord(repository=settings.repository, private=settings.private, files=names)
    files.write_json(uploaded, record)


def _upload(repository: str, private: bool, token: str, paths: Sequence[Path]) -> list[str]:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    found = [
        (str(file.relative_to(path.parent)), file)
        for path in paths
        for file in ([path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file()))
    ]
    try:
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        api.create_commit(
            repository,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file)) for name, file in found],
            commit_message="Model and card from snaketune",
            repo_type="model",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ResourceError(
            f"the Hub refused the upload ({str(error).splitlines()[0].replace(token, '***')})",
            where=repository,
            fix="See that the token may write there and that the network is up, then run snakemake upload again",
        ) from None
    return [name for name, _ in found]


METHODS = {"lora": "a LoRA adapter", "dora": "a DoRA adapter", "full": "full fine-tuning", "prompt": "prompt tuning"}


class StatedTraining(Section, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The keys of `train` that the card states; it is decoded from all that change the adapter."""

    method: Literal["lora", "dora", "full", "prompt"]
    num_virtual_tokens: int
    rank: int
    alpha: float
    learning_rate: float
    lr_scheduler: str


class CardExperiment(Section, frozen=True, kw_only=True):
    """One experiment; summary: the path of its summary.json."""

    experiment: str
    train: StatedTraining
    summary: str


class CardPackage(Section, frozen=True, kw_only=True):
    """The part of `package` that the card depends on."""

    gguf: list[str]
    mlx: list[str]
    name: str
    license: str | None
    language: list[str]


class CardData(Section, frozen=True, kw_only=True):
    """The part of `data` that the card depends on."""

    sources: list[SourceConfig]


class CardConfig(Section, frozen=True, kw_only=True):
    """The settings that the card depends on, with all experiments: only the chosen one is in the card."""

    run: str
    experiments: list[CardExperiment]
    package: CardPackage
    data: CardData


@dataclass(frozen=True)
class CardInputs:
    """Paths: fused.json, fidelity.json, split.json, selection.json and comparison.json."""

    manifest: StrPath
    fidelity: StrPath
    split: StrPath
    selection: StrPath
    comparison: StrPath


def write(inputs: CardInputs, config: CardConfig, card: StrPath) -> None:
    """Write the card. Only what the files say is in it, and of the experiments only the chosen one."""
    chosen = files.read_json(inputs.selection, Selection).experiment
    (trained,) = (one for one in config.experiments if one.experiment == chosen)
    summary = files.read_json(trained.summary, TrainingSummary)
    fused = files.read_json(inputs.manifest, FusedManifest)
    fidelity = files.read_json(inputs.fidelity, Fidelity)
    split = files.read_json(inputs.split, SplitReport)
    parts = [
        _metadata(fused, trained.train, config.package),
        f"# {config.run}\n\n{_about(fused, trained.train, config.package)}",
        "## Files\n\n" + _files(fidelity),
        "## Training\n\n" + _training(summary, split, trained.train, config.data.sources),
    ]
    table = score_table(files.read_json(inputs.comparison, Comparison))
    if table:
        parts.append("## Measured on the test rows\n\n" + table)
    parts.append("## Limits\n\n" + _limits(fidelity))
    files.write_text(card, "\n\n".join(parts) + "\n")


def _metadata(fused: FusedManifest, train: StatedTraining, package: CardPackage) -> str:
    """The block that the hub reads. A base on the own disk has no page to link to, so it is left out."""
    facts: dict[str, str | list[str]] = {
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["mlx", "gguf", *(["lora"] if train.method in ("lora", "dora") else [])],
    }
    if fused.revision:
        facts["base_model"] = fused.base
        facts["base_model_relation"] = "finetune"
    if package.license:
        facts["license"] = package.license
    if package.language:
        facts["language"] = package.language
    return "---\n" + yaml.safe_dump(facts, sort_keys=True, allow_unicode=True) + "---"


def _about(fused: FusedManifest, train: StatedTraining, package: CardPackage) -> str:
    base = fused.base + (f" at revision {fused.revision}" if fused.revision else "")
    method = METHODS[train.method]
    sentences = [f"{base}, tuned with {method} and merged; {fused.parameters:,} parameters in {fused.dtype}."]
    if not package.license:
        sentences.append("No license was stated when it was made; that of the base and of the data applies.")
    return " ".join(sentences)


def _files(fidelity: Fidelity) -> str:
    retained = {check.variant: check.value for check in reversed(fidelity.checks) if check.check == "gain"}
    rows = []
    for name, facts in fidelity.variants.items():
        if not is_product(name) or facts.kl is None:
            continue
        types = ", ".join(f"{count} {kind}" for kind, count in (facts.tensor_types or {}).items())
        gain = retained.get(name)
        share = "not measurable" if gain is None else f"{gain:.1%}"
        same = f"{facts.greedy_same} of {facts.greedy_total}"
        rows.append([name.removeprefix(GGUF), _size(facts.bytes or 0), types, f"{facts.kl:.2g}", same, share])
    head = ["type", "size", "tensors", "KL to the 16-bit model", "same greedy answers", "share of the gain kept"]
    return _table(head, rows)


def _training(summary: TrainingSummary, split: SplitReport, train: StatedTraining, sources: list[SourceConfig]) -> str:
    before, after = (_number(loss, ".4f") for loss in (summary.base_validation_loss, summary.best_validation_loss))
    rows = [
        ["data", ", ".join(_source(source) for source in sources)],
        ["rows", ", ".join(f"{count:,} {name}" for name, count in split.rows.items())],
        ["steps", f"{summary.steps:,}"],
        ["epochs", _number(summary.epochs, ".3g")],
        ["target tokens", f"{summary.num_target_tokens:,}"],
        ["validation loss", f"{before} to {after}"],
        ["learning rate", f"{train.learning_rate:g}, {train.lr_scheduler}"],
    ]
    if train.method == "prompt":
        rows.append(["virtual tokens", f"{train.num_virtual_tokens}"])
    elif train.method != "full":
        rows.append(["rank, alpha", f"{train.rank}, {train.alpha:g}"])
    return _table(["", ""], rows)


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _source(source: SourceConfig) -> str:
    """The name of a data source that may be published: a hub id, or a file's name without its folder."""
    return Path(source.path).name if source.path else source.hub or ""


def score_table(comparison: Comparison) -> str:
    """A table of metrics (all but those of style) and variants, with 95 % intervals where the comparison has them."""
    measured: Mapping[str, Mapping[str, Score]] = {name: scores.metrics for name, scores in comparison.variants.items()}
    known = dict.fromkeys(name for scores in measured.values() for name in scores)
    rows = []
    for name in by_priority(known, METRICS):
        metric = find(name, METRICS)
        if metric.aspect != "style":
            label = f"{metric.label} ({comparison.directions.get(name, metric.better)} is better)"
            rows.append([label, *(_value(scores.get(name)) for scores in measured.values())])
    return _table(["", *measured], rows) if rows else ""


def _value(score: Score | None) -> str:
    if score is None:
        return ""
    value = f"{score.value:.4g}"
    if score.low is None or score.high is None:
        return value
    return f"{value} ({score.low:.4g} to {score.high:.4g})"


def _limits(fidelity: Fidelity) -> str:
    failed = [f"{check.variant}: {check.message}" for check in fidelity.checks if not check.passed]
    read = [facts.rows for name, facts in fidelity.variants.items() if is_product(name) and facts.rows is not None]
    fewest = min(read, default=fidelity.rows)
    rows = f"{fewest} to {fidelity.rows}" if fewest < fidelity.rows else f"{fidelity.rows}"
    compared = (
        f"All files were compared with the trained adapter on {rows} test rows "
        f"({'up to ' if fewest < fidelity.rows else ''}{fidelity.answer_tokens:,} answer tokens); the checks "
        + ("passed." if fidelity.passed else "FAILED: " + "; ".join(failed) + ".")
    )
    reach = "It was tuned on the data above and measured on rows like them; how it does elsewhere is not known."
    return f"{compared}\n\n{reach}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])
