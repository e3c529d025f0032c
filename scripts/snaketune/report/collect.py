"""Collects what the files of a run say into one record: what the page shows and report.json holds.

Every file but the configuration may be absent, or of a gate that failed; the record names it under `missing` then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config.products import GGUF, MLX
from snaketune.contracts.bake_off import BakeOff
from snaketune.contracts.data import DataReport, LeakReport, ModelManifest, Rejected, SplitReport, TokenReport
from snaketune.contracts.evaluate import Comparison, Prediction, Scores, Selection, VariantScores
from snaketune.contracts.lm_eval import HarnessResults
from snaketune.contracts.package import (
    CalibrationResult,
    Fidelity,
    FusedManifest,
    MLXManifest,
    OllamaCheck,
    ServedPrompts,
    ServingCheck,
    ServingTiming,
)
from snaketune.contracts.plan import PilotDecision, Plan
from snaketune.contracts.report import (
    Curves,
    DataFindings,
    EvaluationFindings,
    ExperimentFindings,
    JsonObject,
    Measurements,
    ModelFindings,
    PilotOutcome,
    ProductFile,
    RejectedRow,
    ReportedVariant,
    RunFindings,
    RunReport,
    TokenFindings,
    TrainingFindings,
)
from snaketune.contracts.train import CurvePoint, TrainingSummary, TrainingTiming
from snaketune.evaluate import seal
from snaketune.evaluate.metrics import METRICS
from snaketune.files import StrPath
from snaketune.report import answers, conclusion, experiments, human_eval
from snaketune.report.forecast_accuracy import stage_seconds
from snaketune.report.run_files import RunFiles

ORDER = ("base", "prompted", "previous", "pilot", "adapter", "fused", "gguf-f32", "gguf-bf16", "gguf-f16")
TOKENS = "data/tokens/*/tokens.json"
MAX_LISTED = 50  # rows left out that are shown one by one
MAX_POINTS = 400  # of one curve
CURVES = ("loss", "validation_loss", "learning_rate", "grad_norm")
NAMES = {
    "base": "base model",
    "prompted": "base with a prompt",
    "pilot": "the pilot's adapter",
    "previous": "the run before",
    "adapter": "tuned adapter",
    "fused": "tuned fused model",
}


def collect(folder: StrPath, declared: Iterable[StrPath] | None = None) -> RunReport:
    """The record of the run in `folder`; declared: the only files to read, None for all that lie there."""
    run = RunFiles(folder, declared)
    found = _findings(run)
    paths = run.glob("votes/*.json")
    ratings = human_eval.aggregate_votes(paths, human_eval.form(found), found.config.get("seed", 1)) if paths else None
    fields = msgspec.structs.asdict(found)
    return RunReport(**fields, human_ratings=ratings, conclusion=conclusion.conclude(found))


def measurements(folder: StrPath) -> Measurements:
    """What was measured while the run in `folder` was made: times and memory, in files that no rule declares."""
    run = RunFiles(folder)
    names = [path.parent.name for path in run.glob("train/*/timing.json")]
    training = {name: run.optional_record(f"train/{name}/timing.json", TrainingTiming) for name in names}
    return Measurements(
        training={name: timing for name, timing in training.items() if timing},
        decision=run.optional_record("pilot/decision.json", PilotDecision),
        serving=run.optional_record("model/timing.json", ServingTiming),
        stages=stage_seconds(run.folder),
        opening=seal.opening_of(run.folder, run.folder / "data" / "test.jsonl"),
    )


def _findings(run: RunFiles) -> RunFindings:
    config = run.json("config.json") or {}
    return RunFindings(
        run=config.get("run", run.name),
        folder=run.folder.as_posix(),
        config=config,
        data=_data(run),
        plan=run.record("plan.json", Plan),
        pilot=_outcome(run.record("pilot/decision.json", PilotDecision)),
        training=_training(run),
        model=_model(run),
        fidelity=run.record("model/fidelity.json", Fidelity),
        evaluation=_evaluation(run, config),
        provenance=run.json("run.json"),
        missing=run.missing,
        damaged=run.damaged,
        bake_off=run.optional_record("evaluation/experiments.json", BakeOff),
    )


def _outcome(decision: PilotDecision | None) -> PilotOutcome | None:
    if decision is None:
        return None
    return PilotOutcome(**{key: getattr(decision, key) for key in PilotOutcome.__struct_fields__})


def _data(run: RunFiles) -> DataFindings:
    tokens = {
        path.parent.name: run.record(path.relative_to(run.folder).as_posix(), TokenReport) for path in run.glob(TOKENS)
    }
    return DataFindings(
        report=run.record("data/report.json", DataReport),
        split=run.record("data/split.json", SplitReport),
        leaks=run.record("data/leaks.json", LeakReport),
        tokens={base: _first_verdicts(found) for base, found in tokens.items() if found},
        rejected=[
            RejectedRow(
                source=row.source,
                line=row.line,
                reason=row.reason,
                detail=row.detail,
                row=answers.shorten(row.row, 300),
            )
            for row in run.records("data/rejected.jsonl", Rejected)[:MAX_LISTED]
        ],
    )


def _first_verdicts(tokens: TokenReport) -> TokenFindings:
    return TokenFindings(
        max_length=tokens.max_length,
        splits=tokens.splits,
        verdicts=tokens.verdicts[:MAX_LISTED],
        listed=len(tokens.verdicts),
    )


def _training(run: RunFiles) -> TrainingFindings:
    selection = run.record("train/selection.json", Selection)
    names = [path.parent.name for path in run.glob("train/*/summary.json")]
    shown = [
        ExperimentFindings(
            name=name,
            summary=run.record(f"train/{name}/summary.json", TrainingSummary),
            curves=_curves(run.records(f"train/{name}/metrics.jsonl", CurvePoint)),
        )
        for name in experiments.select_shown(names, selection)
    ]
    pilot = ExperimentFindings(
        name="pilot",
        summary=run.optional_record("pilot/summary.json", TrainingSummary),
        curves=_curves(run.optional_records("pilot/metrics.jsonl", CurvePoint)),
    )
    return TrainingFindings(
        experiments=shown,
        left_out=len(names) - len(shown),
        setting_effects=experiments.setting_effects(selection),
        selection=selection,
        pilot=pilot,
    )


def _curves(lines: Iterable[CurvePoint]) -> Curves:
    """The points of each curve; a long curve is thinned to MAX_POINTS, its ends kept."""
    curves: Curves = {}
    for line in lines:
        for name in CURVES:
            value = getattr(line, name)
            if value is not None:
                curves.setdefault(name, []).append((line.step, value))
    return {name: _thin(points) for name, points in curves.items()}


def _thin(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= MAX_POINTS:
        return points
    stride = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * stride)] for i in range(MAX_POINTS)]


def _model(run: RunFiles) -> ModelFindings:
    modelfile, card = run.path("model/Modelfile"), run.path("model/README.md")
    read = (run.record(f"model/{path.name}", MLXManifest) for path in run.glob(f"model/{run.name}-{MLX}*.json"))
    folders = [one for one in read if one]
    base = run.optional_record("model/base.json", ModelManifest)
    adapter = run.path("model/adapter/adapter_config.json")
    lora = run.glob(f"model/{run.name}-lora.gguf")
    return ModelFindings(
        files=[
            ProductFile(
                file=path.as_posix(),
                variant=f"{GGUF}{path.stem.removeprefix(f'{run.name}-')}",
                bytes=path.stat().st_size,
            )
            for path in run.glob(f"model/{run.name}-*.gguf")
            if path not in lora
        ]
        + [ProductFile(file=one.folder, variant=f"{MLX}{one.type}", bytes=one.bytes) for one in folders],
        fused=run.record("model/fused.json", FusedManifest),
        modelfile=modelfile.as_posix() if modelfile else None,
        ollama=_ollama_command(modelfile) if modelfile else None,
        card=card.as_posix() if card else None,
        served=run.optional_record("model/served.json", ServingCheck),
        prompts=run.optional_record("model/prompts.json", ServedPrompts),
        in_ollama=_in_ollama(run),
        base_folder=base.folder if base else None,
        base_quantized=bool(base and base.quantize),
        adapter=adapter.parent.as_posix() if adapter else None,
        lora=lora[0].as_posix() if lora else None,
        calibrations={one.type: one.calibration for one in folders if one.calibration} | _imatrix_outcomes(run),
    )


def _imatrix_outcomes(run: RunFiles) -> dict[str, CalibrationResult]:
    """What the importance matrix came to, by the GGUF's type."""
    suffix = ".imatrix.json"
    read = {
        path.name.removeprefix(f"{run.name}-").removesuffix(suffix): run.record(f"model/{path.name}", CalibrationResult)
        for path in run.glob(f"model/{run.name}-*{suffix}")
    }
    return {kind: outcome for kind, outcome in read.items() if outcome}


def _ollama_command(modelfile: Path) -> str | None:
    """The command that a Modelfile names in its first line."""
    with open(modelfile, encoding="utf-8", errors="replace") as lines:
        first = lines.readline().removeprefix("#").strip()
    return first if first.startswith("ollama create ") else None


def _evaluation(run: RunFiles, config: JsonObject) -> EvaluationFindings:
    names = sorted((path.parent.name for path in run.glob("evaluation/*/scores.json")), key=variant_order)
    read = {name: run.record(f"evaluation/{name}/scores.json", Scores) for name in names}
    scores = {name: found.without_custom_values() for name, found in read.items() if found}
    predictions = {name: run.records(f"evaluation/{name}/predictions.jsonl", Prediction) for name in scores}
    tuned = conclusion.deployed_variant(list(scores), config)
    base = "base" if "base" in scores else None
    answered, exact = _exact_answers(predictions.get(tuned or "", []))
    lm_eval = run.optional_record("lm_eval/results.json", HarnessResults)
    return EvaluationFindings(
        variants=[ReportedVariant(name=name, title=title(name), scores=found) for name, found in scores.items()],
        base=base,
        tuned=tuned,
        answered=answered,
        exact=exact,
        comparison=run.record("evaluation/comparison.json", Comparison),
        answers=answers.side_by_side(predictions, base=base, tuned=tuned, seed=config.get("seed", 1)),
        prompts=answers.free_prompts(_prompts(run, scores)),
        lm_eval=lm_eval,
        lm_eval_judged=_judged_otherwise(run, lm_eval) if lm_eval and lm_eval.comparisons else None,
    )


def _prompts(run: RunFiles, scores: Mapping[str, VariantScores]) -> dict[str, list[Prediction]]:
    return {name: run.optional_records(f"evaluation/{name}/prompts.jsonl", Prediction) for name in scores}


def _judged_otherwise(run: RunFiles, results: HarnessResults) -> str | None:
    """What lm-eval judged, in words, where that is not the model and the test rows of now."""
    if results.judged is None:
        return "a model that the file does not name"
    model, rows = run.path("model/fused.json"), run.path("data/test.jsonl")
    if model is None or files.sha256(model) != results.judged.model:
        return "an older model"
    return None if rows and files.sha256(rows) == results.judged.rows else "other test rows"


def _in_ollama(run: RunFiles) -> OllamaCheck | None:
    """What Ollama answered, on request; None where that was a model of before."""
    found = run.optional_record("model/ollama.json", OllamaCheck)
    if found is None or found.model is None:
        return found
    answers = {files.sha256(path) for path in run.glob("evaluation/*/predictions.jsonl")}
    return found if found.predictions in answers else None


def _exact_answers(predictions: Sequence[Prediction]) -> tuple[int, int]:
    """How many predictions have an answer and a reference, and how many answers equal their reference."""
    metric = METRICS["exact_match"]
    scorable = metric.scorable(predictions)
    return len(scorable), round(float(metric.row_statistics(scorable)[:, 0].sum())) if scorable else 0


def title(variant: str) -> str:
    """What a variant is called on the page."""
    if variant.startswith(GGUF):
        return f"tuned {variant.removeprefix(GGUF).upper()} GGUF"
    if variant.startswith(MLX):
        return f"tuned {variant.removeprefix(MLX)} MLX"
    return NAMES.get(variant, variant)


def variant_order(name: str) -> tuple[int, int, str]:
    """A key that sorts variants from the base along the chain to the smallest file."""
    if name in ORDER:
        return ORDER.index(name), 0, name
    bits = re.search(r"(?:gguf|mlx)-\D*(\d+)", name)
    return len(ORDER), -int(bits.group(1)) if bits else 0, name
