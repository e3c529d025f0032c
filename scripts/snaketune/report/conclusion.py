"""The conclusion of a run in sentences, the only place that makes them: better than the base, how good, how it is run.

Intervals and p-values in a sentence are of that test alone, so that the two agree; whether something is better or
worse is decided after correction for all tests that were made together, and said in words.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from snaketune.config.products import GGUF, MLX, is_product, products_of
from snaketune.contracts.data import LeakReport
from snaketune.contracts.evaluate import ForgettingPair, MetricComparison, PairComparison, SetScores
from snaketune.contracts.package import Fidelity, ServedPrompts
from snaketune.contracts.report import Command, Conclusion, PilotOutcome, ProductFile, RunFindings, Status
from snaketune.evaluate.metrics import Metric, by_priority, find, one_per_aspect
from snaketune.evaluate.significance import ALPHA
from snaketune.report import by_size
from snaketune.report.formatting import (
    format_difference,
    format_number,
    format_p,
    format_signed,
    format_value,
    metrics_of,
)

LOW_SHARE = 0.5  # below so many exact answers, and so much overlap with the references, a warning stands above the fold
MOST_NOT_SIGNIFICANT = 2  # metrics in a headline that point the other way
Metrics = Mapping[str, Metric]
Comparisons = Mapping[str, MetricComparison]


def deployed_variant(scored: Sequence[str], config: Mapping[str, Any]) -> str | None:
    """The variant that the conclusion is about: the first of package.gguf that was scored, else what is nearest."""
    configured = _configured(config)
    others = sorted(filter(is_product, scored), key=lambda name: name.startswith(MLX))
    return next((name for name in [*configured, *others, "fused", "adapter"] if name in scored), None)


def _configured(config: Mapping[str, Any]) -> list[str]:
    package = config.get("package", {})
    return products_of(package.get("gguf", []), package.get("mlx", []))


def conclude(found: RunFindings) -> Conclusion:
    """The conclusion that a run's files allow."""
    file = _file(found)
    status, sentence = _against_base(found)
    pilot = found.pilot
    if status == "unknown" and pilot and pilot.decision == "no-go" and not found.training.experiments:
        status, sentence = "no-go", f"The pilot says no: {_reasons(pilot)}. Nothing was trained."
    quality, is_low = absolute_quality(found, status)
    return Conclusion(
        status=status,
        sentence=sentence,
        quality=quality,
        quality_is_low=is_low,
        vs_previous=_vs_previous(found),
        by_size=by_size.recommendation(found, {variant.name: variant.title for variant in found.evaluation.variants}),
        warnings=list(warnings(found)),
        file=file.file if file else None,
        bytes=file.bytes if file else None,
        commands=commands(found, file),
        adapter_commands=list(adapter_commands(found)),
    )


def _reasons(pilot: PilotOutcome) -> str:
    return "; ".join(pilot.reasons) or "its criteria were not met"


def _against_base(found: RunFindings) -> tuple[Status, str]:
    evaluation = found.evaluation
    if evaluation.tuned is None:
        return "unknown", "Nothing that was tuned has been scored, so there is no conclusion."
    if evaluation.base is None:
        return "unknown", "The base model was not scored, so there is nothing to compare with."
    pair = evaluation.comparison.pair(evaluation.tuned, evaluation.base) if evaluation.comparison else None
    if pair is None:
        return "unknown", f"{found.run} was not compared with its base model, so there is no conclusion."
    return compare_in_words(found.run, "its base model", pair, metrics_of(found.config))


def _vs_previous(found: RunFindings) -> str | None:
    """The sentence on the run that `compare_with` names, where it was measured."""
    comparison, tuned = found.evaluation.comparison, found.evaluation.tuned
    pair = comparison.pair(tuned, "previous") if comparison else None
    if comparison is None or pair is None:
        return None
    name = found.config.get("compare_with") or "the run before"
    _, sentence = compare_in_words(found.run, name, pair, metrics_of(found.config))
    kept = {each.variant: each.ratio for each in comparison.forgetting.pairs} if comparison.forgetting else {}
    more = forgetting_in_words(kept.get(tuned or ""), kept.get("previous"))
    return f"{sentence} {more}" if more else sentence


def compare_in_words(name: str, baseline: str, pair: PairComparison, metrics: Metrics) -> tuple[Status, str]:
    """A paired comparison's status and the sentence that says so, with what got worse beside what got better."""
    tested = _without_style(pair.metrics, metrics)
    better, worse = (_leading(tested, outcome, metrics) for outcome in ("better", "worse"))
    rows = rows_in_words(pair)
    if better and worse:
        parts = f"better in {_phrase(better, tested, metrics)}, and worse in {_phrase(worse, tested, metrics)}"
        status, sentence = "mixed", f"{name} is {parts}, than {baseline} on {rows}."
    elif better or worse:
        status, leading = ("better", better) if better else ("worse", worse or "")
        sentence = f"{name} is {status} than {baseline} on {rows}: {_phrase(leading, tested, metrics)}."
    elif tested:
        status, sentence = "same", _no_difference(name, baseline, rows, tested, metrics)
    else:
        return "unknown", f"{name} and {baseline} share no metric, so there is no conclusion."
    return _as_status(status), " ".join([sentence, *_other_side(status, pair.metrics, metrics)])


def _as_status(status: str) -> Status:
    statuses: dict[str, Status] = {"better": "better", "worse": "worse", "mixed": "mixed", "same": "same"}
    return statuses[status]


def rows_in_words(pair: PairComparison) -> str:
    """`49 test rows (37 questions)`: the second number is that of independent observations, where it differs."""
    rows = f"{pair.rows} test {'row' if pair.rows == 1 else 'rows'}"
    questions = "question" if pair.clusters == 1 else "questions"
    return f"{rows} ({pair.clusters} {questions})" if pair.clusters < pair.rows else rows


def _no_difference(name: str, baseline: str, rows: str, tested: Comparisons, metrics: Metrics) -> str:
    leading = by_priority(tested, metrics)[0]
    metric, entry = find(leading, metrics), tested[leading]
    values = f"{format_value(metric, entry.value)} against {format_value(metric, entry.baseline)}"
    least = entry.minimum_detectable_effect
    if is_too_few(metric, least):
        could = "; so few rows could not have shown any"
    else:
        could = (
            f"; {format_difference(metric, least)} would have been found in four of five such tests" if least else ""
        )
    return f"No difference between {name} and {baseline} that {rows} could show: {metric.in_sentence} {values}{could}."


def is_too_few(metric: Metric, least: float | None) -> bool:
    """Whether the smallest difference that would have been found is larger than any that there can be."""
    return least is not None and metric.upper_bound is not None and least > metric.upper_bound


def _other_side(status: str, compared: Comparisons, metrics: Metrics) -> Iterable[str]:
    """What a headline must not hide: style that got worse, and what points the other way without being significant."""
    style = [name for name in _with_outcome(compared, "worse") if find(name, metrics).aspect == "style"]
    if style:
        yield f"Also worse: {_phrases(by_priority(style, metrics), compared, metrics)}."
    if status != "better":
        return
    against = [
        name
        for name in by_priority(_without_style(compared, metrics), metrics)
        if compared[name].outcome == "no difference shown" and _points_to_worse(find(name, metrics), compared[name])
    ]
    if against:
        text = _phrases(against[:MOST_NOT_SIGNIFICANT], compared, metrics)
        yield f"Worse, though not significantly: {text}."


def _points_to_worse(metric: Metric, entry: MetricComparison) -> bool:
    return (entry.difference < 0) if metric.better == "higher" else (entry.difference > 0)


def forgetting_in_words(ratio: float | None, previous: float | None) -> str | None:
    """A sentence where a run forgot more than the one before it, by the ratios of their perplexities to the base's."""
    if ratio is None or previous is None or ratio <= previous:
        return None
    return (
        f"It has forgotten more: perplexity on general rows is {format_number(ratio)} instead of "
        f"{format_number(previous)} times the base's."
    )


def difference_in_words(metric: Metric, entry: MetricComparison, num_tests: int, other: str = "the base") -> str:
    """`+62 points against the base (45 to 77), p < 0.001: better`; a share's difference is in percentage points."""
    scale, unit = (100, " points") if metric.unit == "share" else (1, "")
    change = f"{format_signed(scale * entry.difference)}{unit} against {other}"
    if entry.low is None or entry.high is None:
        same = "the same in every row" if entry.difference == 0 else entry.outcome
        return f"{change}: {same}"
    interval = f"({format_signed(scale * entry.low)} to {format_signed(scale * entry.high)})"
    return f"{change} {interval}, {format_p(entry.p)}: {_outcome_in_words(metric, entry, num_tests)}"


def _outcome_in_words(metric: Metric, entry: MetricComparison, num_tests: int) -> str:
    """The corrected outcome, so that it does not contradict the interval and the p-value beside it."""
    if entry.outcome != "no difference shown":
        return entry.outcome
    by_test = entry.p < ALPHA
    by_interval = entry.low is not None and entry.high is not None and not entry.low <= 0 <= entry.high
    if by_test and by_interval:
        return f"not significant after correction for {num_tests} tests"
    if by_test != by_interval:
        return "no difference shown, since interval and test disagree"
    least = entry.minimum_detectable_effect
    if is_too_few(metric, least):
        return "no difference shown (so few rows could not have shown any)"
    return f"no difference shown ({format_difference(metric, least)} would have shown)" if least else entry.outcome


def _without_style(compared: Comparisons, metrics: Metrics) -> dict[str, MetricComparison]:
    """The metrics that tell whether answers are right, not how they are given."""
    return {name: entry for name, entry in compared.items() if find(name, metrics).aspect != "style"}


def _with_outcome(compared: Comparisons, outcome: str) -> list[str]:
    return [name for name, entry in compared.items() if entry.outcome == outcome]


def _leading(compared: Comparisons, outcome: str, metrics: Metrics) -> str | None:
    """The metric that says it best, of those with this outcome."""
    return next(iter(by_priority(_with_outcome(compared, outcome), metrics)), None)


def _phrase(name: str, compared: Comparisons, metrics: Metrics) -> str:
    return f"{_values(name, compared, metrics)} ({format_p(compared[name].p)})"


def _phrases(names: Iterable[str], compared: Comparisons, metrics: Metrics) -> str:
    return listed([_values(name, compared, metrics) for name in names])


def _values(name: str, compared: Comparisons, metrics: Metrics) -> str:
    metric, entry = find(name, metrics), compared[name]
    return f"{metric.in_sentence} {format_value(metric, entry.value)} instead of {format_value(metric, entry.baseline)}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def absolute_quality(found: RunFindings, status: Status) -> tuple[str | None, bool]:
    """How good the answers are in themselves, in the measures a person cares about first, and whether that is low."""
    evaluation, metrics = found.evaluation, metrics_of(found.config)
    scores = evaluation.scores_of(evaluation.tuned)
    if scores is None:
        return None, False
    if not evaluation.answered:
        return "The test rows are plain texts, so nothing is known of how good its answers are.", False
    parts = [_score_phrase(name, scores, metrics) for name in _cared_about(found, scores, metrics)]
    parts.append(_exact_phrase(evaluation.exact, evaluation.answered))
    overlap = next((name for name in one_per_aspect(scores.metrics, metrics) if _is_overlap(name, metrics)), None)
    if overlap:
        parts.append(_score_phrase(overlap, scores, metrics) + _of_scale(find(overlap, metrics)))
    is_low = evaluation.exact < LOW_SHARE * evaluation.answered and _overlap_share(overlap, scores, metrics) < LOW_SHARE
    text = "; ".join(parts)
    text = text[0].upper() + text[1:]
    if not is_low:
        return f"{text}.", False
    tail = ": better than its base is not yet good. Read the answers." if status == "better" else ". Read the answers."
    return text + tail, True


def _cared_about(found: RunFindings, scores: SetScores, metrics: Metrics) -> list[str]:
    """The metrics that the configuration itself names: those with a threshold, and custom ones."""
    comparison = found.evaluation.comparison
    named = [result.metric for result in comparison.thresholds] if comparison else []
    named += [name for name in scores.metrics if find(name, metrics).aspect == "task" and name in metrics]
    text = {"exact_match", "chrf"}
    return [name for name in dict.fromkeys(named) if name in scores.metrics and name not in text]


def _exact_phrase(exact: int, answered: int) -> str:
    if exact == answered:
        return f"all {answered} answers equal their references" if answered > 1 else "the answer equals its reference"
    if exact == 0:
        return f"none of {answered} answers equals its reference"
    few = "only " if exact < LOW_SHARE * answered else ""
    return f"{few}{exact} of {answered} answers {'equals its reference' if exact == 1 else 'equal their references'}"


def _score_phrase(name: str, scores: SetScores, metrics: Metrics) -> str:
    metric = find(name, metrics)
    return f"{metric.in_sentence} is {format_value(metric, scores.metrics[name].value)}"


def _of_scale(metric: Metric) -> str:
    return f" of {format_number(metric.upper_bound)}" if metric.unit == "points" and metric.upper_bound else ""


def _is_overlap(name: str, metrics: Metrics) -> bool:
    return find(name, metrics).aspect == "overlap"


def _overlap_share(name: str | None, scores: SetScores, metrics: Metrics) -> float:
    """The overlap with the references as a share of its scale; 0 where none was measured."""
    if name is None:
        return 0.0
    bound = find(name, metrics).upper_bound
    return scores.metrics[name].value / bound if bound else 0.0


def warnings(found: RunFindings) -> Iterable[str]:
    """What a reader must know beside the conclusion: gates that failed or were overridden, and other doubts."""
    yield from _of_pilot(found)
    yield from _of_fidelity(found.fidelity)
    yield from _of_served_calls(found.model.prompts)
    yield from _of_leaks(found.data.leaks)
    yield from _of_prompt(found)
    yield from _of_time(found)
    yield from _of_forgetting(found)
    yield from _of_thresholds(found)


def _of_pilot(found: RunFindings) -> Iterable[str]:
    pilot = found.pilot
    if pilot and pilot.decision == "no-go" and found.training.experiments:
        if pilot.overridden:
            yield f"The pilot said no-go ({_reasons(pilot)}), and pilot.on_no_go: continue overrode it."
        else:
            yield f"The latest pilot said no-go ({_reasons(pilot)}): this report is older, of another configuration."


def _of_fidelity(fidelity: Fidelity | None) -> Iterable[str]:
    """The checks that failed."""
    if fidelity and not fidelity.passed:
        failed = "; ".join(f"{check.variant}: {check.message}" for check in fidelity.checks if not check.passed)
        yield f"The files are not proven to be the model that was trained. {failed}."


def _of_served_calls(prompts: ServedPrompts | None) -> Iterable[str]:
    """A server that changes calls of tools before its model reads them."""
    others = prompts.with_other_calls() if prompts else []
    if prompts and others:
        right = " or ".join(one.server for one in prompts.with_calls_as_trained())
        yield (
            f"{' and '.join(one.server for one in others)} feeds the model earlier calls of tools otherwise than they "
            f"were trained; serve a model that calls tools with {right or 'another server'}."
        )


def _of_leaks(leaks: LeakReport | None) -> Iterable[str]:
    if leaks and leaks.pairs:
        counts = (f"{count} of {leaks.rows[name]} {name} rows" for name, count in leaks.affected.items() if count)
        yield f"{', '.join(counts)} repeat or belong with rows of another split: the scores may be inflated."


def _of_prompt(found: RunFindings) -> Iterable[str]:
    """A prompt costs nothing; a tuned model that does not beat it was not worth its training."""
    evaluation, metrics = found.evaluation, metrics_of(found.config)
    pair = evaluation.comparison.pair(evaluation.tuned, "prompted") if evaluation.comparison else None
    tested = _without_style(pair.metrics, metrics) if pair else {}
    if not tested or _leading(tested, "better", metrics):
        return
    worse = _leading(tested, "worse", metrics)
    if worse:
        yield f"The base with a prompt and examples alone does better: {_phrase(worse, tested, metrics)}."
    else:
        yield "It is not shown to be better than the base with a prompt and examples alone, which needs no training."


def _of_time(found: RunFindings) -> Iterable[str]:
    settings = found.config.get("evaluate", {})
    if found.plan is None or settings.get("max_hours") is None:
        return
    allowed = min(settings["max_rows"], found.plan.rows.get("test", 0))
    rows = max((one.scores.rows for one in found.evaluation.variants if one.name != "previous"), default=allowed)
    if rows < allowed:
        yield (
            f"{rows} of {allowed} test rows were answered: more would have taken one model longer than "
            f"evaluate.max_hours ({settings['max_hours']:g}), by the pilot's forecast."
        )


def _of_forgetting(found: RunFindings) -> Iterable[str]:
    pair = forgetting_of(found)
    if pair is None:
        return
    worse = any(entry.outcome == "worse" for entry in pair.metrics.values())
    if worse or pair.within_limit is False:
        above = ", which is above the limit" if pair.within_limit is False else ""
        yield (
            f"It has forgotten some of what its base could do: perplexity on {pair.rows} general rows is "
            f"{format_number(pair.ratio)} times the base's{above}."
        )


def forgetting_of(found: RunFindings) -> ForgettingPair | None:
    """The tuned variant against the base on the general set."""
    comparison = found.evaluation.comparison
    pairs = comparison.forgetting.pairs if comparison and comparison.forgetting else []
    return next((pair for pair in pairs if pair.variant == found.evaluation.tuned), None)


def _of_thresholds(found: RunFindings) -> Iterable[str]:
    metrics, comparison = metrics_of(found.config), found.evaluation.comparison
    missed = [result for result in (comparison.thresholds if comparison else []) if not result.met]
    if missed:
        named = [(find(result.metric, metrics), result.value) for result in missed]
        text = ", ".join(f"{metric.in_sentence} {format_value(metric, value)}" for metric, value in named)
        yield f"{len(missed)} of the configuration's thresholds not met: {text}."


def _file(found: RunFindings) -> ProductFile | None:
    files = {file.variant: file for file in found.model.files}
    names = [found.evaluation.tuned or "", *_configured(found.config)]
    return next((files[name] for name in names if name in files), None)


def commands(found: RunFindings, file: ProductFile | None) -> list[Command]:
    """How to run the file; nothing where a check has found that it is not the model that was trained."""
    if found.fidelity and not found.fidelity.passed:
        return []
    made = []
    if create := found.model.ollama:
        made.append(Command(title="With Ollama", command=f"{create}\nollama run {create.split()[2]}"))
    if file and file.variant.startswith(GGUF):
        made.append(Command(title="With llama.cpp", command=f"llama-cli -m {shlex.quote(file.file)}"))
    best = by_size.better_for_its_size(by_size.by_size(found.model.files, found.fidelity))
    folders = [best[0].file] if best else [each.file for each in found.model.files if each.variant.startswith(MLX)]
    if folders:
        made.append(Command(title="With MLX on a Mac", command=f"mlx_lm.chat --model {shlex.quote(folders[0])}"))
    return made


def adapter_commands(found: RunFindings) -> Iterable[Command]:
    """How the adapter is run over its base without fusing: what changes a model's size by a few megabytes only.

    Ollama has no such way: from 0.34.1 on it takes neither ADAPTER nor a folder to convert.
    """
    model = found.model
    base = shlex.quote(model.base_folder) if model.base_folder else None
    if base and model.adapter:
        adapter = shlex.quote(model.adapter)
        yield Command(title="With MLX", command=f"mlx_lm.chat --model {base} --adapter-path {adapter}")
    if base and model.lora:
        convert = f"python vendor/llama.cpp/convert_hf_to_gguf.py {base} --outtype f16 --outfile base-f16.gguf"
        serve = f"llama-server -m base-f16.gguf --lora {shlex.quote(model.lora)}"
        yield Command(title="With llama.cpp", command=f"{convert}\n{serve}")
    if base and model.lora:
        peft = model.lora.rpartition("/")[0] + "/peft"
        code = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({model.base_folder!r}), "
            f"{peft!r})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({model.base_folder!r})"
        )
        yield Command(title="With transformers", command=code)
