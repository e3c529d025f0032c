"""The verdict: is the file that will be deployed better than the base, by how much, how surely, and how it is run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from snaketune.evaluate.metrics import Metric, by_priority, find
from snaketune.report.formatting import gap, metrics_of, number, probability, shown, size


def deployed(scored: list[str], settings: dict[str, Any]) -> str | None:
    """The artefact that the verdict is about: the first GGUF type asked for that was scored, else what is nearest."""
    wanted = [f"gguf-{kind}" for kind in settings.get("package", {}).get("gguf", [])]
    others = [name for name in scored if name.startswith("gguf-")]
    for name in [*wanted, *others, "fused", "adapter"]:
        if name in scored:
            return name
    return None


def verdict(facts: dict[str, Any]) -> dict[str, Any]:
    """{"status", "sentence", "since", "cautions", "file", "bytes", "commands"}.

    status: better, worse, mixed, same, unknown, no-go; since: the same against the run that compare_with names.
    """
    file = _file(facts)
    found: dict[str, Any] = {
        "status": "unknown",
        "sentence": "",
        "cautions": cautions(facts),
        "file": file["file"] if file else None,
        "bytes": file["bytes"] if file else None,
        "commands": commands(facts, file),
    }
    status, sentence = _compared(facts)
    pilot = facts.get("pilot") or {}
    if status == "unknown" and pilot.get("decision") == "no-go" and not facts["training"]["experiments"]:
        reasons = "; ".join(str(reason) for reason in pilot.get("reasons", []))
        status, sentence = "no-go", f"The pilot says no: {reasons or 'its criteria were not met'}. Nothing was trained."
    return found | {"status": status, "sentence": sentence, "since": _since(facts)}


def _since(facts: dict[str, Any]) -> str | None:
    """The sentence on the run that `compare_with` names, where it was measured."""
    evaluation, metrics = facts["evaluation"], metrics_of(facts["config"])
    pair = pair_of(evaluation["comparison"], evaluation["tuned"], "previous") if evaluation["tuned"] else None
    if not pair:
        return None
    metrics = metrics_of(facts["config"])
    return judged(facts["run"], facts["config"].get("compare_with") or "the run before", pair, metrics)[1]


def _compared(facts: dict[str, Any]) -> tuple[str, str]:
    evaluation = facts["evaluation"]
    base, tuned = evaluation["base"], evaluation["tuned"]
    if tuned is None:
        return "unknown", "Nothing that was tuned has been scored, so there is no verdict."
    if base is None:
        return "unknown", "The base model was not scored, so there is nothing to compare with."
    pair = pair_of(evaluation["comparison"], tuned, base)
    if pair is None:
        return "unknown", f"{facts['run']} was not compared with its base model, so there is no verdict."
    return judged(facts["run"], "its base model", pair, metrics_of(facts["config"]))


def judged(name: str, against: str, pair: dict[str, Any], metrics: Mapping[str, Metric]) -> tuple[str, str]:
    """A paired comparison's status (better, worse, mixed, same, unknown) and the sentence that says so."""
    rows = f"{pair['rows']} test {'row' if pair['rows'] == 1 else 'rows'}"
    tested = _without_style(pair, metrics)
    better, worse = (_leading(tested, verdict, metrics) for verdict in ("better", "worse"))
    if better and worse:
        said = f"better in {_words(better, tested, metrics)}, and worse in {_words(worse, tested, metrics)}"
        return "mixed", f"{name} is {said}, than {against} on {rows}."
    if better or worse:
        status, leading = ("better", better) if better else ("worse", worse or "")
        return status, f"{name} is {status} than {against} on {rows}: {_words(leading, tested, metrics)}."
    if not tested:
        return "unknown", f"{name} and {against} share no measure, so there is no verdict."
    leading = by_priority(tested, metrics)[0]
    metric = find(leading, metrics)
    limit = tested[leading].get("detectable")
    could = f"; a difference of {gap(metric, limit)} would have been found in four of five such tests" if limit else ""
    values = f"{shown(metric, tested[leading]['value'])} against {shown(metric, tested[leading]['against'])}"
    return (
        "same",
        f"No difference between {name} and {against} that {rows} could show: {metric.in_sentence} {values}{could}.",
    )


def pair_of(comparison: dict[str, Any] | None, artefact: str, against: str) -> dict[str, Any] | None:
    """The paired comparison of two artefacts."""
    for pair in (comparison or {}).get("pairs", []):
        if pair["artefact"] == artefact and pair["against"] == against:
            return pair
    return None


def _without_style(pair: dict[str, Any] | None, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The tests of a pair that tell whether answers are right, not how they are given."""
    tested = (pair or {}).get("metrics", {})
    return {name: it for name, it in tested.items() if find(name, metrics).aspect != "style"}


def _leading(tested: dict[str, Any], verdict: str, metrics: Mapping[str, Metric]) -> str | None:
    """The metric that says it best, of those with this verdict."""
    return next(iter(by_priority(_with(tested, verdict), metrics)), None)


def _with(tested: dict[str, Any], verdict: str) -> Iterable[str]:
    return (name for name, it in tested.items() if it.get("verdict") == verdict)


def _words(name: str, tested: dict[str, Any], metrics: Mapping[str, Metric]) -> str:
    it, metric = tested[name], find(name, metrics)
    sure = probability(it.get("p_corrected", it["p"]))
    return f"{metric.in_sentence} {shown(metric, it['value'])} instead of {shown(metric, it['against'])} ({sure})"


def cautions(facts: dict[str, Any]) -> list[str]:
    """What a reader must know beside the verdict: gates that failed or were overridden, and what else got worse."""
    found = []
    pilot, fidelity = facts.get("pilot") or {}, facts.get("fidelity") or {}
    if pilot.get("decision") == "no-go" and facts["training"]["experiments"]:
        reasons = "; ".join(str(reason) for reason in pilot.get("reasons", []))
        found.append(f"The pilot said no-go ({reasons}), and pilot.on_no_go: continue overrode it.")
    failed = [check for check in fidelity.get("checks", []) if not check.get("passed")]
    if fidelity.get("passed") is False:
        said = "; ".join(f"{check['variant']}: {check['message']}" for check in failed)
        found.append(f"The files are not proven to be the model that was trained. {said}.")
    leaks = facts["data"]["leaks"] or {}
    if leaks.get("pairs"):
        counts = (f"{n} of {leaks['rows'][name]} {name} rows" for name, n in leaks["affected"].items() if n)
        found.append(f"{', '.join(counts)} repeat or belong with rows of another split: the scores may be inflated.")
    evaluation, metrics = facts["evaluation"], metrics_of(facts["config"])
    pair = pair_of(evaluation["comparison"], evaluation["tuned"], evaluation["base"]) if evaluation["tuned"] else None
    tested = (pair or {}).get("metrics", {})
    for name in by_priority(_with(tested, "worse"), metrics):
        if find(name, metrics).aspect == "style":
            found.append(f"Worse than the base: {_words(name, tested, metrics)}.")
    found += [it for it in (_no_better_than_prompt(evaluation, metrics), _forgotten(evaluation)) if it]
    targets = (evaluation["comparison"] or {}).get("targets") or []
    missed = [(it, find(it["metric"], metrics)) for it in targets if not it.get("met")]
    if missed:
        said = ", ".join(f"{metric.in_sentence} {shown(metric, it['value'])}" for it, metric in missed)
        found.append(f"{len(missed)} of the configuration's targets not met: {said}.")
    return found


def _no_better_than_prompt(evaluation: dict[str, Any], metrics: Mapping[str, Metric]) -> str | None:
    """A prompt costs nothing; a tuned model that does not beat it was not worth its training."""
    pair = pair_of(evaluation["comparison"], evaluation["tuned"], "prompted") if evaluation["tuned"] else None
    tested = _without_style(pair, metrics)
    if not tested or _leading(tested, "better", metrics):
        return None
    worse = _leading(tested, "worse", metrics)
    if worse:
        return f"The base with a prompt and examples alone does better: {_words(worse, tested, metrics)}."
    return "It is not shown to be better than the base with a prompt and examples alone, which needs no training."


def _forgotten(evaluation: dict[str, Any]) -> str | None:
    for pair in ((evaluation["comparison"] or {}).get("forgetting") or {}).get("pairs", []):
        worse = any(it.get("verdict") == "worse" for it in pair.get("metrics", {}).values())
        if pair["artefact"] == evaluation["tuned"] and (worse or pair.get("within") is False):
            kept = "" if pair.get("within") is not False else ", which is above the limit"
            return (
                f"It has forgotten some of what its base could do: perplexity on {pair['rows']} general rows is "
                f"{number(pair['ratio'])} times the base's{kept}."
            )
    return None


def _file(facts: dict[str, Any]) -> dict[str, Any] | None:
    files = {file["type"]: file for file in facts["model"]["files"]}
    tuned = facts["evaluation"]["tuned"] or ""
    wanted = [tuned.removeprefix("gguf-"), *facts["config"].get("package", {}).get("gguf", [])]
    return next((files[kind] for kind in wanted if kind in files), None)


def commands(facts: dict[str, Any], file: dict[str, Any] | None) -> list[dict[str, str]]:
    """How to run the file: {"title", "command"}."""
    found = []
    if create := facts["model"]["ollama"]:
        tag = create.split()[2]
        found.append({"title": "With Ollama", "command": f"{create}\nollama run {tag}"})
    if file:
        found.append({"title": "With llama.cpp", "command": f"llama-cli -m {shlex.quote(file['file'])}"})
    return found


def lines(facts: dict[str, Any]) -> str:
    """The verdict for a terminal."""
    said = facts["verdict"]
    found = [said["sentence"], *([said["since"]] if said.get("since") else []), *said["cautions"]]
    if said["file"]:
        found.append(f"file:   {said['file']} ({size(said['bytes'])})")
    if said["commands"]:
        found.append("run:    " + said["commands"][0]["command"].replace("\n", " && "))
    found.append(f"report: {facts['folder']}/report/index.html")
    return "\n".join(found)
