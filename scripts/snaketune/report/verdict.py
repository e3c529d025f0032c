"""The verdict: is the file that will be deployed better than the base, by how much, how surely, and how it is run."""

from __future__ import annotations

import shlex
from typing import Any

from snaketune.report.measures import measure, shown, size

LEADING = ("perplexity", "exact_match", "chrf", "bleu", "bits_per_byte")


def deployed(scored: list[str], settings: dict[str, Any]) -> str | None:
    """The artefact that the verdict is about: the first GGUF type asked for that was scored, else what is nearest."""
    wanted = [f"gguf-{kind}" for kind in settings.get("package", {}).get("gguf", [])]
    others = [name for name in scored if name.startswith("gguf-")]
    for name in [*wanted, *others, "fused", "adapter"]:
        if name in scored:
            return name
    return None


def verdict(facts: dict[str, Any]) -> dict[str, Any]:
    """{"status", "sentence", "cautions", "file", "bytes", "commands"}; status: better, worse, same, unknown, no-go."""
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
    return found | {"status": status, "sentence": sentence}


def _compared(facts: dict[str, Any]) -> tuple[str, str]:
    evaluation = facts["evaluation"]
    scores = {artefact["name"]: artefact for artefact in evaluation["artefacts"]}
    base, tuned = scores.get(evaluation["base"]), scores.get(evaluation["tuned"])
    if tuned is None:
        return "unknown", "Nothing has been scored yet, so there is no verdict."
    if base is None:
        return "unknown", "The base model was not scored, so there is nothing to compare with."
    name = next((it for it in LEADING if it in base["metrics"] and it in tuned["metrics"]), None)
    if name is None:
        return "unknown", "Base and tuned model share no measure, so there is no verdict."
    before, after = base["metrics"][name], tuned["metrics"][name]
    lower = measure(name).better == "lower"
    gained = before["value"] - after["value"] if lower else after["value"] - before["value"]
    rows = tuned.get("rows", 0)
    words = f"{measure(name).title.lower()} {shown(name, after['value'])} instead of {shown(name, before['value'])}"
    if _apart(before, after):
        status = "better" if gained > 0 else "worse"
        return status, f"{facts['run']} is {status} than its base model: {words} on {rows} test rows."
    return "same", f"{facts['run']} shows no difference from its base that {rows} test rows could show: {words}."


def _apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two intervals do not meet; without intervals nothing is claimed."""
    if any(it.get("low") is None or it.get("high") is None for it in (one, other)):
        return False
    return one["high"] < other["low"] or other["high"] < one["low"]


def cautions(facts: dict[str, Any]) -> list[str]:
    """What a reader must know beside the verdict: overridden or failed gates."""
    found = []
    pilot, fidelity = facts.get("pilot") or {}, facts.get("fidelity") or {}
    if pilot.get("decision") == "no-go" and facts["training"]["experiments"]:
        found.append("The pilot said no-go, and the configuration told the run to go on.")
    if fidelity.get("passed") is False:
        found.append("The files are not proven to be the model that was trained: the fidelity check failed.")
    return found


def _file(facts: dict[str, Any]) -> dict[str, Any] | None:
    files = {file["type"]: file for file in facts["model"]["files"]}
    tuned = facts["evaluation"]["tuned"] or ""
    wanted = [tuned.removeprefix("gguf-"), *facts["config"].get("package", {}).get("gguf", [])]
    return next((files[kind] for kind in wanted if kind in files), None)


def commands(facts: dict[str, Any], file: dict[str, Any] | None) -> list[dict[str, str]]:
    """How to run the file: {"title", "command"}."""
    found = []
    if facts["model"]["modelfile"]:
        tag = f"snaketune:{facts['run'].lower()}"
        create = f"ollama create {shlex.quote(tag)} -f {shlex.quote(facts['model']['modelfile'])}"
        found.append({"title": "With Ollama", "command": f"{create}\nollama run {shlex.quote(tag)}"})
    if file:
        found.append({"title": "With llama.cpp", "command": f"llama-cli -m {shlex.quote(file['file'])}"})
    return found


def lines(facts: dict[str, Any]) -> str:
    """The verdict for a terminal."""
    said = facts["verdict"]
    found = [said["sentence"], *said["cautions"]]
    if said["file"]:
        found.append(f"file:   {said['file']} ({size(said['bytes'])})")
    if said["commands"]:
        found.append("run:    " + said["commands"][0]["command"].replace("\n", " && "))
    found.append(f"report: {facts['folder']}/report/index.html")
    return "\n".join(found)
