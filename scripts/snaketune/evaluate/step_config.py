"""The settings that each step of the evaluation depends on. The Snakefile imports it, so it imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from snaketune.config.experiments import Experiment
from snaketune.config.products import is_product, products_of
from snaketune.config.schema import did_you_mean
from snaketune.config.sections import FewShotConfig, ForgettingConfig, GenerationConfig, RunConfig, Section
from snaketune.contracts.evaluate import SelectionMetric
from snaketune.errors import ConfigError
from snaketune.evaluate.metrics import METRICS
from snaketune.evaluate.run_metrics import MetricSettings, enabled_metrics
from snaketune.evaluate.thresholds import checked_names, usable_metric
from snaketune.files import sha256

LOSS = "validation_loss"  # what select.metric names by default; it needs no answers
UNTRAINED = ("base", "prompted")
"""Variants that no training has changed."""


def variants(config: RunConfig) -> list[str]:
    """The model variants to evaluate, each once and the base first.

    `gguf` becomes the first type of package.gguf, `mlx` all types of package.mlx; a product of another type than those
    made is a ConfigError; the run that compare_with names comes in as `previous`.
    """
    made = products_of(config.package.gguf, config.package.mlx)
    short = {"gguf": made[:1], "mlx": products_of([], config.package.mlx)}
    names = [each for name in config.evaluate.models for each in short.get(name, [name])]
    names += ["previous"] if config.compare_with else []
    for name in names:
        if is_product(name) and name not in made:
            kind, _, wanted = name.partition("-")
            raise ConfigError(
                f"{name} is not made{did_you_mean(name, made)}",
                where="evaluate.models",
                fix=f"Add {wanted} to package.{kind}, or name one of {', '.join(made)}",
            )
    return sorted(dict.fromkeys(names), key=lambda name: name != "base")


def check_metrics(config: RunConfig) -> None:
    """Refuse names that no metric has, or that cannot be meant where they stand, before anything runs.

    These are custom metrics under the name of another, `similarity` without its model, and names in select.metric and
    evaluate.thresholds that are unknown or have no better direction.
    """
    for name in config.evaluate.metrics:
        if name in METRICS or name in (LOSS, "similarity"):
            raise ConfigError(
                f"{name} is a metric of snaketune's own", where=f"evaluate.metrics.{name}", fix="Choose another name"
            )
    if config.data.split.sealed and config.evaluate.experiments:
        raise ConfigError(
            "sealed test rows cannot be scored for every experiment",
            where="data.split.sealed",
            why="evaluate.experiments compares all of them on the test rows, and the best of many is chosen by these",
            fix="Set one of the two to false",
        )
    metrics = enabled_metrics(MetricSettings.of(config.evaluate))
    for where, names in (
        ("select.metric", [config.select.metric]),
        ("evaluate.thresholds", list(config.evaluate.thresholds)),
    ):
        if "similarity" in names and "similarity" not in metrics:
            raise ConfigError(
                "similarity needs an embedding model",
                where=where,
                fix="Set evaluate.similarity to the GGUF file of one, or choose another metric",
            )
    if config.select.metric != LOSS:
        usable_metric(config.select.metric, metrics, "select.metric", also=[LOSS])
    checked_names(config.evaluate.thresholds, metrics)


def selection_metric(config: RunConfig) -> SelectionMetric:
    """What select.metric names; validation_loss is no metric of answers."""
    if config.select.metric == LOSS:
        return SelectionMetric(name=LOSS, label="validation loss", better="lower")
    metric = enabled_metrics(MetricSettings.of(config.evaluate))[config.select.metric]
    assert metric.better != "neither"  # check_metrics has refused it
    return SelectionMetric(name=metric.name, label=metric.in_sentence, better=metric.better)


def previous_model(config: RunConfig) -> str:
    """The manifest of the fused model of the run that compare_with names; ConfigError where there is none."""
    path = f"results/{config.compare_with}/model/fused.json"
    if not Path(path).is_file():
        raise ConfigError(
            f'there is no finished run "{config.compare_with}" ({path} is missing)',
            where="compare_with",
            why="This run is to be compared with that one's model",
            fix="Name a run whose fused model is still in results, or set compare_with to null",
        )
    return path


def similarity_model(config: RunConfig) -> str | None:
    """The file of the embedding model, where one is configured; ConfigError where it is missing."""
    path = config.evaluate.similarity
    if path and not Path(path).is_file():
        raise ConfigError(
            f"there is no file {path}",
            where="evaluate.similarity",
            why="Semantic similarity needs a local embedding model, as GGUF",
            fix="Correct the path, or leave the key out",
        )
    return path


class PredictionConfig(Section, frozen=True, kw_only=True):
    """What the predictions of a variant depend on, apart from files; few_shot is that of `prompted` only."""

    max_rows: int
    max_new_tokens: int
    max_hours: float | None
    turns: Literal["last", "all"]
    generation: GenerationConfig
    prompts: list[str]
    few_shot: FewShotConfig | None
    chat_template: str | None
    num_virtual_tokens: int
    dtype: str
    seed: int


def prediction_config(config: RunConfig, experiment: Experiment, variant: str) -> PredictionConfig:
    """The settings of a variant's predictions; experiment: that it is made from, where its manifest says nothing."""
    evaluate = config.evaluate
    return PredictionConfig(
        max_rows=evaluate.max_rows,
        max_new_tokens=evaluate.max_new_tokens,
        max_hours=evaluate.max_hours,
        turns=evaluate.turns,
        generation=evaluate.generation,
        prompts=evaluate.prompts,
        few_shot=evaluate.few_shot if variant == "prompted" else None,
        chat_template=experiment.model.chat_template,
        num_virtual_tokens=0 if variant in UNTRAINED else experiment.train.virtual_tokens,
        dtype=experiment.model.dtype,
        seed=config.seed,
    )


class ScoringConfig(Section, frozen=True, kw_only=True):
    """What the scores of given predictions depend on; custom_code: a hash of the file of each custom metric."""

    settings: MetricSettings
    custom_code: dict[str, str | None]
    seed: int


def scoring_config(config: RunConfig) -> ScoringConfig:
    """The settings of the scores of all variants."""
    custom = config.evaluate.metrics
    return ScoringConfig(
        settings=MetricSettings.of(config.evaluate),
        custom_code={name: _custom_code(one.function) for name, one in custom.items()},
        seed=config.seed,
    )


class ComparisonConfig(Section, frozen=True, kw_only=True):
    """What the comparison of given predictions depends on."""

    settings: MetricSettings
    thresholds: dict[str, float]
    forgetting: ForgettingConfig
    seed: int


def comparison_config(config: RunConfig) -> ComparisonConfig:
    """The settings of the comparison of all variants."""
    evaluate = config.evaluate
    return ComparisonConfig(
        settings=MetricSettings.of(evaluate),
        thresholds=evaluate.thresholds,
        forgetting=evaluate.forgetting,
        seed=config.seed,
    )


def _custom_code(function: str) -> str | None:
    """The hash of the file that a function lies in, where that is below the folder snakemake runs in."""
    path = Path(function.split(":")[0].replace(".", "/")).with_suffix(".py")
    return sha256(path) if path.is_file() else None
