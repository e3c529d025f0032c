"""Axolotl's data sets, chat templates and tokens as sources, splits and a template of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from snaketune.importers.draft import Draft, Taken, Theirs
from snaketune.importers.key_rules import KeyRule, for_keys, number, refused, taken, unused
from snaketune.importers.places import Source, as_mapping, place, take_split
from snaketune.importers.shared_rules import take_number_of_rows

OUR_TEMPLATES = {
    "alpaca": "alpaca",
    "chatml": "chatml",
    "gemma": "gemma",
    "llama3": "llama-3",
    "mistral": "mistral",
    "mistral_v1": "mistral",
    "mistral_v2v3": "mistral",
}
"""Axolotl's templates that stand among ours; any other name is that of a family, whose models bring it themselves."""
ALPACA_PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
ALPACA_INPUT = "{instruction}\n\n### Input:\n{input?}"
KNOWN_ROLES = {
    "user": {"user", "human"},
    "assistant": {"assistant", "gpt", "model"},
    "system": {"system"},
    "tool": {"tool"},
}
ANOTHER_ROW = "rows are rendered by a prompt of Axolotl's own"
KNOWN_TOKENS = {"<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>"}
REWRITE = "Name the columns in `fields` and the words around them in `template`, or write the rows as messages"

DATASET_TABLE: dict[str, KeyRule] = {
    "path": taken("data.sources[].path or hub", "a name that is no file here is a data set of the hub"),
    "type": taken(
        "data.sources[].fields", "alpaca, chat_template, sharegpt, completion, input_output; others are refused"
    ),
    "split": taken("data.sources[].hub_split, limit", "train[:5%] and train[:500] become a sample of that size"),
    "name": taken("data.sources[].subset"),
    "revision": taken("data.sources[].revision"),
    "data_files": taken("data.sources[].path", "in a local folder; of a hub data set refused"),
    "ds_type": taken("data.sources[].format", "where the file's name does not tell"),
    "field": taken("data.sources[].fields.text", "of type completion"),
    "field_messages": taken("data.sources[].fields.messages"),
    "field_system": taken("data.sources[].fields.system"),
    "field_tools": taken("data.sources[].fields.tools"),
    "message_property_mappings": taken("data.sources[].turn_fields"),
    "message_field_role": taken("data.sources[].turn_fields.role"),
    "message_field_content": taken("data.sources[].turn_fields.content"),
    "message_field_training": taken("data.sources[].turn_fields.weight", "false is a weight of 0"),
    "roles": taken("data.sources[].roles"),
    "chat_template": taken("model.chat_template"),
    "roles_to_train": taken("", "[assistant] only, which is what is trained here; others are refused"),
    "train_on_eos": taken("", "turn only, which is what is trained here; others are refused"),
    "train_on_eot": taken("", "turn only, which is what is trained here; others are refused"),
    **for_keys("trust_remote_code preprocess_shards conversation", unused("no part of the rows")),
    "field_thinking": refused("a column of thoughts before the answer", "Write them into the answers"),
    "template_thinking_key": unused("field_thinking says it"),
    "split_thinking": refused("thoughts are told apart from the answer", "Write the answers without them"),
    "drop_system_message": refused("system turns are left out", "Take them out of the rows"),
    "message_field_training_detail": refused("parts of a turn are trained", "Use rows of segments (input_output)"),
    "shards": refused("a part of the rows is read", "Set `limit` to the share"),
    "shards_idx": refused("which part of the rows is read", "Set `limit` to the share"),
}

Kind = Callable[[Draft, str, Theirs, Source], None]


def take_datasets(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take the list of data sets over, each as one source."""
    _take(draft, key, value, {})


def take_validation_sets(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take the data sets of the validation over."""
    _take(draft, key, value, {"split": "valid"})


def _take(draft: Draft, key: str, value: object, more: Source) -> None:
    known = draft.get("data.sources")
    sources: list[object] = list(known) if draft.is_set("data.sources") and isinstance(known, list) else []
    for index, one in enumerate(value if isinstance(value, list) else [value]):
        where = f"{key}[{index}]"
        for source in _sources(draft, where, as_mapping(one)):
            sources.append(source | more)
            ours = f"data.sources[{len(sources) - 1}]"
            draft.taken.append(Taken(key=where, theirs=one, ours=ours, value=source | more))
    if sources:
        draft.set("data.sources", sources)


def _sources(draft: Draft, where: str, given: Theirs) -> list[Source]:
    """Return the sources that one data set becomes."""
    source = place(str(given.get("path", "")), draft.folder)
    if source is None or not given.get("path"):
        draft.refuse(f"{where}.path", given.get("path"), "rows that lie in a cloud storage", FETCH, is_final=True)
        return []
    places = _places(draft, where, given, source)
    _layout(draft, where, given, places[0])
    if given.get("split"):
        take_split(draft, f"{where}.split", given["split"], places[0])
    for key, ours in (("name", "subset"), ("revision", "revision")):
        if given.get(key) and "hub" in source:
            places[0][ours] = given[key]
    _check_rest(draft, where, given)
    shared = {name: value for name, value in places[0].items() if name not in ("path", "hub")}
    return [shared | {name: one[name] for name in ("path", "hub") if name in one} for one in places]


FETCH = "Copy it to this machine and name the file"


def _places(draft: Draft, where: str, given: Theirs, source: Source) -> list[Source]:
    """Return one source for each file that a data set names, or the data set itself."""
    files = given.get("data_files")
    names = [str(one) for one in files] if isinstance(files, list) else [str(files)] if files else []
    if not names:
        return [source]
    if "hub" in source:
        draft.refuse(f"{where}.data_files", files, "some files of a hub data set are read", FETCH)
        return [source]
    folder = Path(str(source["path"]))
    if not folder.is_dir():  # `path: json` and the like: only the files count
        return [{"path": name} for name in names]
    return [{"path": str(folder / name)} for name in names]


def _layout(draft: Draft, where: str, given: Theirs, source: Source) -> None:
    """Set what the `type` of a data set says of its rows."""
    kind = given.get("type")
    if isinstance(kind, dict):
        _own_prompt(draft, where, kind, source)
        return
    name = str(kind or "").partition(".")[0] if str(kind).startswith("chat_template") else str(kind or "")
    layout = KINDS.get(name)
    if layout:
        layout(draft, where, given, source)
    else:
        draft.refuse(f"{where}.type", kind, ANOTHER_ROW, REWRITE, is_final=True)


def _alpaca(draft: Draft, where: str, _given: Theirs, source: Source) -> None:
    source["fields"] = {"prompt": "instruction", "response": "output"}
    source["template"] = ALPACA_INPUT
    if not draft.is_set("model.chat_template"):
        draft.set("model.chat_template", "alpaca")
        draft.set("data.system", ALPACA_PREAMBLE)
    draft.write_out(
        f"{where}.type",
        "rows of type alpaca are rendered by Alpaca's own prompt, whatever chat template the base has",
        "model.chat_template",
        draft.get("model.chat_template"),
        "the finished model carries that template too, which theirs does not; for rows with an input, Alpaca's first "
        'sentence also says ", paired with an input that provides further context", which is left out here',
    )


def _chat(draft: Draft, where: str, given: Theirs, source: Source) -> None:
    fields = {"messages": given.get("field_messages") or "messages"}
    if given.get("type") == "sharegpt":
        fields = {"messages": given.get("field_messages") or "conversations"}
    for theirs, ours in (("field_system", "system"), ("field_tools", "tools")):
        if given.get(theirs):
            fields[ours] = given[theirs]
    if fields != {"messages": "messages"}:
        source["fields"] = fields
    turn = {ours: name for ours, name in as_mapping(given.get("message_property_mappings")).items() if ours != name}
    turn |= {
        ours: given[theirs]
        for theirs, ours in (
            ("message_field_role", "role"),
            ("message_field_content", "content"),
            ("message_field_training", "weight"),
        )
        if given.get(theirs)
    }
    unknown = turn.keys() - {"role", "content", "weight"}
    if unknown:
        draft.refuse(
            f"{where}.message_property_mappings", turn, f"further parts of a turn: {', '.join(unknown)}", REWRITE
        )
    elif turn:
        source["turn_fields"] = turn
    roles = {ours: names for ours, names in as_mapping(given.get("roles")).items() if _is_new(ours, names)}
    if roles:
        source["roles"] = roles
    if given.get("chat_template"):
        take_template(draft, f"{where}.chat_template", given["chat_template"], given)


def _is_new(ours: str, names: object) -> bool:
    return not (isinstance(names, list) and set(map(str, names)) <= KNOWN_ROLES.get(ours, set()))


def _completion(draft: Draft, where: str, given: Theirs, source: Source) -> None:
    if given.get("field", "text") != "text":
        source["fields"] = {"text": given["field"]}
    draft.write_out(
        f"{where}.type",
        "texts longer than sequence_len are cut into several rows",
        "",
        note="here data.on_too_long decides; cut long texts into rows of at most data.max_length tokens beforehand",
    )


def _segments(_draft: Draft, _where: str, _given: Theirs, _source: Source) -> None:
    return  # a row with `segments` is told by its field


def _own_prompt(draft: Draft, where: str, kind: Theirs, source: Source) -> None:
    """Take a `type` over that names columns itself."""
    fields = {
        ours: str(kind.get(theirs) or usual)
        for ours, theirs, usual in (
            ("prompt", "field_instruction", "instruction"),
            ("response", "field_output", "output"),
        )
    }
    if kind.get("field_system"):
        fields["system"] = str(kind["field_system"])
    source["fields"] = fields
    for key in ("format", "no_input_format", "system_prompt", "system_format"):
        if kind.get(key):
            draft.refuse(
                f"{where}.type.{key}",
                kind[key],
                "the words around a prompt, in the place of a chat template",
                OWN_WORDS,
            )


OWN_WORDS = (
    "Put words that belong to the question into `template`; what marks the turns is the chat template's business"
)

KINDS: dict[str, Kind] = {
    "alpaca": _alpaca,
    "alpaca:instruct": _alpaca,
    "chat_template": _chat,
    "sharegpt": _chat,
    "completion": _completion,
    "input_output": _segments,
}
ONLY_VALUE: dict[str, tuple[object, ...]] = {
    "roles_to_train": (["assistant"], ["gpt"], ["assistant", "gpt"]),
    "train_on_eos": ("turn",),
    "train_on_eot": ("turn",),
}


def _check_rest(draft: Draft, where: str, given: Theirs) -> None:
    """Refuse or leave out the remaining keys of a data set."""
    for key, value in given.items():
        rule = DATASET_TABLE.get(key)
        if value is None:
            continue
        if rule is None:
            draft.refuse(f"{where}.{key}", value, "what this key of a data set changes is not known here", REWRITE)
        elif key in ONLY_VALUE and value not in ONLY_VALUE[key]:
            draft.refuse(
                f"{where}.{key}",
                value,
                "which tokens are trained: here every assistant turn is, with its end-of-turn token, and nothing else",
                "Give turns that are not to be trained `weight: 0` in the rows",
            )
        elif rule.fate == "refused" and value not in rule.harmless:
            draft.refuse(f"{where}.{key}", value, rule.note, rule.fix)
        elif rule.fate == "unused":
            draft.leave_out(f"{where}.{key}", value, rule.note)


def take_validation_share(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take the size of the validation over: a share of the rows, or a number of them."""
    share = number(value)
    if share >= 1:
        draft.later.append(lambda: take_number_of_rows(draft, key, share))
    elif share:
        draft.take(key, value, "data.split.valid", share)
    else:
        draft.leave_out(key, value, "no validation there; see the list of defaults")


def take_too_long(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take over what becomes of rows longer than sequence_len."""
    if value in ("drop", "truncate"):
        draft.take(key, value, "data.on_too_long", value)
    else:
        draft.take(key, value, "data.on_too_long", "drop", "tokens.json lists every row that was too long")


def take_template(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take the name of a chat template over: one of ours, or the base's own."""
    name = str(value)
    fallback = name.removeprefix("tokenizer_default_fallback_")
    if name == "jinja":
        return
    if name == "tokenizer_default" or fallback != name:
        draft.take(key, value, "model.chat_template", None, "the base's own")
    elif name in OUR_TEMPLATES:
        draft.take(key, value, "model.chat_template", OUR_TEMPLATES[name])
    else:
        draft.take(
            key,
            value,
            "model.chat_template",
            None,
            "the base's own, which this family's instruction-tuned models bring; a base without one stops the run",
        )


def take_jinja(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Take a template over that is a file; one that is written into the configuration is refused."""
    found = place(str(value), draft.folder) if "\n" not in str(value) else None
    if found and "path" in found and Path(str(found["path"])).is_file():
        draft.take(key, value, "model.chat_template", found["path"])
    else:
        draft.refuse(
            key,
            value,
            "the chat template",
            "Write it into a file of its own, such as template.jinja, and set model.chat_template to that file's name",
        )


def take_special_tokens(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    """Leave a pad token out; refuse the tokens that begin and end an answer."""
    tokens = value if isinstance(value, dict) else {}
    if set(tokens) <= {"pad_token"}:
        draft.leave_out(key, value, "padding takes no part in the loss or in attention, whatever token it is")
    else:
        hint = " (these look like the model's own)" if set(map(str, tokens.values())) <= KNOWN_TOKENS else ""
        draft.refuse(
            key,
            value,
            f"the tokens that begin and end an answer; here they are the model's own{hint}",
            "If they are the base's own, import without this key; if not, change them in the base's tokenizer first",
        )
