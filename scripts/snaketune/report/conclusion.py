"""The conclusion of a run: better than the base, how good, what is in doubt, and how it is run.

The sentences on scores are those of `scores_in_words`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from snaketune.config.products import GGUF, MLX, is_product, products_of
from snaketune.contracts.data import LeakReport
from snaketune.contracts.evaluate import ForgettingPair
from snaketune.contracts.lm_eval import HarnessComparison
from snaketune.contracts.package import Fidelity, ServedPrompts
from snaketune.contracts.report import Command, Conclusion, PilotOutcome, ProductFile, RunFindings, Status
from snaketune.evaluate.metric import find
from snaketune.evaluate.significance import ALPHA
from snaketune.report import by_size, scores_in_words
from snaketune.report.formatting import (
    format_number,
    format_value,
    metrics_of,
)


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
    quality, is_low = scores_in_words.absolute_quality(found, status)
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
    return scores_in_words.compare_in_words(found.run, "its base model", pair, metrics_of(found.config))


def _vs_previous(found: RunFindings) -> str | None:
    """The sentence on the run that `compare_with` names, where it was measured."""
    comparison, tuned = found.evaluation.comparison, found.evaluation.tuned
    pair = comparison.pair(tuned, "previous") if comparison else None
    if comparison is None or pair is None:
        return None
    name = found.config.get("compare_with") or "the run before"
    _, sentence = scores_in_words.compare_in_words(found.run, name, pair, metrics_of(found.config))
    kept = {each.variant: each.ratio for each in comparison.forgetting.pairs} if comparison.forgetting else {}
    more = scores_in_words.forgetting_in_words(kept.get(tuned or ""), kept.get("previous"))
    return f"{sentence} {more}" if more else sentence


def warnings(found: RunFindings) -> Iterable[str]:
    """What a reader must know beside the conclusion: gates that failed or were overridden, and other doubts."""
    yield from _of_pilot(found)
    yield from _of_fidelity(found.fidelity)
    yield from _of_served_calls(found.model.prompts)
    yield from _of_leaks(found.data.leaks)
    yield from _of_prompt(found)
    yield from _of_time(found)
    yield from _of_forgetting(found)
    yield from _of_named_tasks(found)
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
    tested = scores_in_words.without_style(pair.metrics, metrics) if pair else {}
    if not tested or scores_in_words.leading_metric(tested, "better", metrics):
        return
    worse = scores_in_words.leading_metric(tested, "worse", metrics)
    if worse:
        phrase = scores_in_words.phrase(worse, tested, metrics)
        yield f"The base with a prompt and examples alone does better: {phrase}."
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


def _of_named_tasks(found: RunFindings) -> Iterable[str]:
    """What lm-eval says against the fused model: metrics without a number, named tasks that are surely worse."""
    results, limit = found.evaluation.lm_eval, found.config.get("evaluate", {}).get("forgetting", {}).get("limit")
    comparisons = results.comparisons if results else []
    named = [one for one in comparisons if one.named]
    judged = found.evaluation.lm_eval_judged
    if not judged and (broken := [f"{one.metric} of {one.task}" for one in comparisons if one.is_broken()]):
        yield (
            f"By lm-eval the fused model has no number where its base has one: {', '.join(broken)}. Its probabilities "
            "are not finite on some text; a lower train.learning_rate is the first thing to try."
        )
    if named and judged:
        yield (
            "Whether this model has forgotten some of what its base could do is not known by lm-eval, whose scores are "
            f"of {judged}: `snakemake lm_eval` scores this one."
        )
    elif worse := [one for one in named if one.is_worse(ALPHA)]:
        listed = ", ".join(_worse_task(one, limit) for one in worse)
        yield f"It has forgotten some of what its base could do, by lm-eval: {listed}."


def _worse_task(one: HarnessComparison, limit: float | None) -> str:
    """`acc of arc_easy is 0.51 instead of 0.58`, and whether that is above the limit of forgetting."""
    ratio, fused, base = one.ratio(), one.fused or 0.0, one.base or 0.0
    above = ", which is above the limit" if limit is not None and ratio is not None and ratio > limit else ""
    return f"{one.metric} of {one.task} is {format_number(fused)} instead of {format_number(base)}{above}"


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

    Ollama has no such way: from 0.34.1 on it takes neither ADAPTER nor a folder. Where the configuration names
    a chat template, it is the fused model's that is taken, since the base's own is not the trained one.
    """
    model = found.model
    base = shlex.quote(model.base_folder) if model.base_folder else None
    if base and model.adapter:
        options = f"--model {base} --adapter-path {shlex.quote(model.adapter)}"
        if model.fused and model.fused.template:
            read = f"import json; print(json.load(open('{model.fused.folder}/tokenizer_config.json'))['chat_template'])"
            command = f'mlx_lm.server {options} --chat-template "$(python -c {shlex.quote(read)})"'
        else:
            command = f"mlx_lm.chat {options}"
        yield Command(title="With MLX", command=command)
    if base and model.lora and not model.base_quantized:  # no GGUF holds such a base as it is
        under = f"{found.folder}/lora-base.gguf"
        serve = f"llama-server -m {shlex.quote(under)} --lora {shlex.quote(model.lora)}"
        yield Command(title="With llama.cpp", command=f"make lora-base RUN={shlex.quote(found.run)}\n{serve}")
    if base and model.lora:
        peft = model.lora.rpartition("/")[0] + "/peft"
        code = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({model.base_folder!r}), "
            f"{peft!r})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({(model.fused.folder if model.fused else model.base_folder)!r})"
        )
        yield Command(title="With transformers", command=code)
