"""LLaMA-Factory's registry of data sets, dataset_info.json, as sources of ours."""

from __future__ import annotations

import json
from pathlib import Path

from snaketune.config.schema import did_you_mean
from snaketune.importers import llama_factory_templates
from snaketune.importers.draft import Draft, Taken, Theirs
from snaketune.importers.key_rules import KeyRule, refused, taken, unused
from snaketune.importers.places import SAMPLE, Source, as_mapping

REGISTRY = "dataset_info.json"
OTHER_TOOLS_ROWS = "rows of this kind are for another objective, or hold images, sound or video"
LEAVE_OUT_SET = "Take this set out of `dataset`"
ALPACA_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
OUR_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "tool_call",
    "system_tag": "system",
}
USUAL_ROLES = {
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt"),
    "tool": ("tool", "observation", "function"),
    "tool_call": ("function_call",),
    "system": ("system",),
}

REGISTRY_TABLE: dict[str, KeyRule] = {
    "file_name": taken("data.sources[].path"),
    "hf_hub_url": taken("data.sources[].hub"),
    "subset": taken("data.sources[].subset"),
    "split": taken("data.sources[].hub_split", "of a hub data set"),
    "num_samples": taken("data.sources[].limit", "a random sample, as there"),
    "formatting": taken("data.sources[].fields", "alpaca, sharegpt, openai"),
    "columns.prompt": taken("data.sources[].fields.prompt", "or text, where there is no response"),
    "columns.query": taken("data.sources[].template", "follows the prompt on a new line, as there"),
    "columns.response": taken("data.sources[].fields.response"),
    "columns.history": taken("data.sources[].fields.history"),
    "columns.messages": taken("data.sources[].fields.messages"),
    "columns.system": taken("data.sources[].fields.system"),
    "columns.tools": taken("data.sources[].fields.tools", "JSON text, as there"),
    "tags.role_tag": taken("data.sources[].turn_fields.role"),
    "tags.content_tag": taken("data.sources[].turn_fields.content"),
    **{f"tags.{tag}": taken(f"data.sources[].roles.{ours}") for tag, ours in OUR_ROLES.items()},
    "ms_hub_url": unused("hf_hub_url or file_name is read; a set of ModelScope alone is refused"),
    "om_hub_url": unused("hf_hub_url or file_name is read; a set of another hub alone is refused"),
    "folder": refused("a folder of the hub data set", "Copy that folder to this machine and name it as file_name"),
    "script_url": refused("a script that makes the rows", "Run it, and name the file that it writes"),
    "cloud_file_name": refused("rows in a cloud storage", "Copy the file to this machine"),
    "ranking": refused("pairs of a better and a worse answer", "Use stage: sft, or set fields: {response: chosen}"),
    "columns.images": refused("images", LEAVE_OUT_SET),
    "columns.videos": refused("videos", LEAVE_OUT_SET),
    "columns.audios": refused("sound", LEAVE_OUT_SET),
    "columns.kto_tag": refused("answers that are marked good or bad", LEAVE_OUT_SET),
    "columns.chosen": refused("pairs of a better and a worse answer", LEAVE_OUT_SET),
    "columns.rejected": refused("pairs of a better and a worse answer", LEAVE_OUT_SET),
}


def take_folder(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Note where the registry lies; the data sets are read from there."""
    draft.leave_out(key, value, "the files of its sets are named one by one in data.sources")


def take_datasets(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    """Take the sets that `dataset` names over."""
    _take(draft, key, value, theirs, {})


def take_validation_sets(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    """Take the sets that `eval_dataset` names over."""
    _take(draft, key, value, theirs, {"split": "valid"})


def _take(draft: Draft, key: str, value: object, theirs: Theirs, more: Source) -> None:
    registry, folder = _registry(draft, theirs)
    known = draft.get("data.sources")
    sources: list[object] = list(known) if draft.is_set("data.sources") and isinstance(known, list) else []
    names = [str(one).strip() for one in (value if isinstance(value, list) else str(value).split(","))]
    for name in names:
        entry = registry.get(name)
        if entry is None:
            _unknown(draft, key, name, registry, folder)
            continue
        source = _source(draft, name, as_mapping(entry), folder)
        if source is not None:
            sources.append(source | more)
            ours = f"data.sources[{len(sources) - 1}]"
            draft.taken.append(Taken(key=f"{key}: {name}", theirs=entry, ours=ours, value=source | more))
    if sources:
        draft.set("data.sources", sources)


def _registry(draft: Draft, theirs: Theirs) -> tuple[Theirs, Path]:
    """Return the registry and the folder of its files."""
    given = theirs.get("dataset_dir", "data")
    if isinstance(given, dict):  # the registry itself
        return given, Path("data")
    for folder in (Path(str(given)), draft.folder / str(given), draft.folder, draft.folder.parent / str(given)):
        path = folder.expanduser() / REGISTRY
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                draft.refuse(REGISTRY, str(path), f"it is not valid JSON ({error})", "Correct it", is_final=True)
                return {}, folder
            return as_mapping(found), folder
    return {}, Path(str(given))


def _unknown(draft: Draft, key: str, name: str, registry: Theirs, folder: Path) -> None:
    if registry:
        effect = f"{folder / REGISTRY} has no such set{did_you_mean(name, registry)}"
        fix = "Correct the name"
    else:
        effect = f"there is no {REGISTRY} in {folder}, so what this set is cannot be told"
        fix = "Run the import where their folder of data is, or set dataset_dir to it"
    draft.refuse(f"{key}: {name}", name, effect, fix, is_final=True)


def _source(draft: Draft, name: str, entry: Theirs, folder: Path) -> Source | None:
    """Return the source that one entry of the registry becomes; None where it cannot be read."""
    columns, tags = as_mapping(entry.get("columns")), as_mapping(entry.get("tags"))
    flat = {key: value for key, value in entry.items() if key not in ("columns", "tags")}
    flat |= {f"columns.{key}": value for key, value in columns.items()}
    flat |= {f"tags.{key}": value for key, value in tags.items()}
    for key, value in flat.items():
        rule = REGISTRY_TABLE.get(key)
        if rule is None:
            draft.refuse(
                f"dataset: {name}: {key}",
                value,
                "what this key of the registry changes is not known here",
                "Take it out",
            )
        elif rule.fate == "refused" and value not in rule.harmless:
            draft.refuse(f"dataset: {name}: {key}", value, rule.note, rule.fix, is_final=key != "folder")
            return None
    source = _where(entry, folder)
    if source is None:
        draft.refuse(
            f"dataset: {name}", entry, "rows of another hub than Hugging Face's", "Copy them here", is_final=True
        )
        return None
    formatting = entry.get("formatting", "alpaca")
    if formatting == "alpaca":
        _alpaca(columns or ALPACA_COLUMNS, source)
    elif formatting in ("sharegpt", "openai"):
        _conversation(columns, tags, str(formatting), source)
    else:
        draft.refuse(f"dataset: {name}: formatting", formatting, OTHER_TOOLS_ROWS, LEAVE_OUT_SET, is_final=True)
        return None
    if entry.get("num_samples"):
        source["limit"] = entry["num_samples"]
    return source


def _where(entry: Theirs, folder: Path) -> Source | None:
    """Return the file that is there, else the hub's name: they prefer the hub, but a copy at hand is the same rows."""
    if entry.get("hf_hub_url"):
        source: Source = {"hub": entry["hf_hub_url"]}
        for theirs, ours in (("subset", "subset"), ("split", "hub_split")):
            if entry.get(theirs):
                source[ours] = entry[theirs]
        return source
    if entry.get("file_name"):
        return {"path": str(folder / str(entry["file_name"]))}
    return None


def _alpaca(columns: Theirs, source: Source) -> None:
    """Set the columns of rows with an instruction, an input and an output; a column they do not name is not read."""
    prompt, query, response = (columns.get(key) for key in ("prompt", "query", "response"))
    if prompt and not response and not query:
        if prompt != "text":
            source["fields"] = {"text": prompt}
        return
    fields = {ours: columns[ours] for ours in ("prompt", "response", "system", "history", "tools") if columns.get(ours)}
    source["fields"] = fields
    if query and prompt:  # a row may lack the query
        source["template"] = f"{{{prompt}}}\n{{{query}?}}"


def _conversation(columns: Theirs, tags: Theirs, formatting: str, source: Source) -> None:
    """Set the columns and tags of rows with a list of turns; once tags are named, those left out are not there."""
    fields: dict[str, object] = {"messages": columns.get("messages") or "conversations"}
    fields |= {ours: columns[ours] for ours in ("system", "tools") if columns.get(ours)}
    source["fields"] = fields
    named = dict(tags) if tags else dict(SHAREGPT_TAGS)
    turn = {ours: named[tag] for ours, tag in (("role", "role_tag"), ("content", "content_tag")) if named.get(tag)}
    if turn not in ({"role": "from", "content": "value"}, {"role": "role", "content": "content"}):
        source["turn_fields"] = turn
    roles = {
        ours: [name] for tag, ours in OUR_ROLES.items() if (name := named.get(tag)) and name not in USUAL_ROLES[ours]
    }
    if roles:
        source["roles"] = roles
    del formatting  # of an OpenAI file, tool calls are told by their own field


def take_limit(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Remember max_samples; it holds for each set, so it is set once all are known."""
    draft.later.append(lambda: _limit(draft, key, value))


def _limit(draft: Draft, key: str, value: object) -> None:
    for source in _sources(draft):
        limit = source.get("limit")
        source["limit"] = min(limit, value) if isinstance(limit, int) and isinstance(value, int) else value
    draft.taken.append(Taken(key=key, theirs=value, ours="data.sources[].limit", value=value))
    draft.write_out(key, f"the first {value} rows of each set", "", note=SAMPLE)


def take_mask_history(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take over that only the last answer of a conversation is trained."""
    if not value:
        draft.leave_out(key, value, "every answer is trained, as there")
        return
    draft.later.append(lambda: _mask_history(draft, key, value))


def _mask_history(draft: Draft, key: str, value: object) -> None:
    for source in _sources(draft):
        source["train_turns"] = "last"
    draft.taken.append(Taken(key=key, theirs=value, ours="data.sources[].train_turns", value="last"))


def _sources(draft: Draft) -> list[Source]:
    found = draft.get("data.sources") if draft.is_set("data.sources") else []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def take_template(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    """Take the base's own chat template in the place of their rendering, and compare the two where the base is here."""
    llama_factory_templates.take(draft, key, str(value), str(theirs.get("model_name_or_path")))
