"""mlx-lm's YAML or command line of mlx_lm.lora: the table of its options, and what several of them say together."""

from __future__ import annotations

import shlex
from pathlib import Path

from snaketune.importers.draft import Draft, Taken, Theirs
from snaketune.importers.key_rules import KeyRule, apply, for_keys, number, refused, taken, unused, whole
from snaketune.importers.places import Source, as_mapping, place, take_split

TOOL = "mlx-lm"
SWITCHES = ("train", "test", "grad_checkpoint", "mask_prompt", "trust_remote_code")
SHORT = {"-c": "config"}
DEFAULT_SCALE = 20.0
DEFAULT_RANK = 8


def _quantized_name(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "model.base", value)


def _method(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    if value in ("lora", "dora", "full"):
        draft.take(key, value, "train.method", value)
    else:
        draft.refuse(key, value, "another way of training", "Use lora, dora or full", is_final=True)


def _iterations(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    each = int(number(theirs.get("grad_accumulation_steps") or 1))
    steps = max(1, int(number(value)) // each)
    note = f"{value} micro-batches, {each} to a step" if each > 1 else ""
    draft.take(key, value, "train.max_steps", steps, note)


def _layers(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    count = int(number(value))
    draft.take(key, value, "train.num_layers", count if count > 0 else None, "" if count > 0 else "-1 is all of them")


def _evaluations(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    each = int(number(theirs.get("grad_accumulation_steps") or 1))
    draft.take(key, value, "train.eval_steps", max(1, int(number(value)) // each), "in steps" if each > 1 else "")


def _masked(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    draft.take(key, value, "train.train_on_prompts", not value, "the other way round")


def _lora(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    given = as_mapping(value)
    rank = int(number(given.get("rank", DEFAULT_RANK)))
    scale = number(given.get("scale", DEFAULT_SCALE))
    draft.take(f"{key}.rank", given.get("rank", "not given: 8"), "train.rank", rank)
    draft.take(
        f"{key}.scale", given.get("scale", "not given: 20"), "train.alpha", whole(scale * rank), "scale is alpha / rank"
    )
    draft.take(f"{key}.dropout", given.get("dropout", "not given: 0"), "train.dropout", given.get("dropout", 0.0))
    keys = given.get("keys")
    if isinstance(keys, list):
        short = sorted({str(one).rpartition(".")[2] for one in keys}, key=lambda one: str(keys).index(one))
        draft.take(f"{key}.keys", keys, "train.target_modules", short, "by the last part of their names")
    for other in given.keys() - {"rank", "scale", "dropout", "keys"}:
        draft.refuse(f"{key}.{other}", given[other], "what it changes is not known here", "Take it out")
    del theirs


def _schedule(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    given = as_mapping(value)
    name = given.get("name")
    arguments = given.get("arguments")
    parts = [number(one) for one in arguments] if isinstance(arguments, list) else []
    warmup = whole(given.get("warmup") or 0)
    peak = number(theirs.get("learning_rate") or 1e-5)
    if name == "cosine_decay" and len(parts) >= 2:
        _set_schedule(draft, f"{key}.name", name, "cosine", parts[0], parts[2] if len(parts) > 2 else 0.0)
    elif name == "linear_schedule" and len(parts) == 3:
        _set_schedule(draft, f"{key}.name", name, "linear", parts[0], parts[1])
    else:
        draft.refuse(key, value, "the course of the learning rate", "Use cosine_decay or linear_schedule")
        return
    if parts[0] != peak:
        draft.write_out(
            "learning_rate",
            f"the schedule's own rate wins over {peak:g}",
            "train.learning_rate",
            parts[0],
            "the first argument of the schedule",
        )
    draft.take(f"{key}.warmup", warmup, "train.warmup_steps", warmup)
    if number(given.get("warmup_init") or 0):
        draft.write_out(f"{key}.warmup_init", str(given["warmup_init"]), "", note="the warm-up begins at 0 here")


def _set_schedule(draft: Draft, key: str, theirs: object, ours: str, start: float, end: float) -> None:
    draft.take(key, theirs, "train.lr_scheduler", ours, "it ends with the training; theirs at its own number of steps")
    draft.set("train.min_lr_ratio", round(end / start, 6) if start else 0)


def _data(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    found = place(str(value), draft.folder) or {"hub": str(value)}
    sources: list[object] = []
    folder = Path(str(found.get("path", "")))
    for split in ("train", "valid", "test"):
        if "hub" in found:
            sources.append({"hub": found["hub"], "hub_split": split, "split": split})
        elif (folder / f"{split}.jsonl").is_file():
            sources.append({"path": str(folder / f"{split}.jsonl"), "split": split})
    if not sources:
        sources.append({"path": str(folder / "train.jsonl"), "split": "train"})
    draft.set("data.sources", sources)
    draft.taken.append(Taken(key=key, theirs=value, ours="data.sources", value=sources))


def _hub(draft: Draft, key: str, value: object, _theirs: Theirs) -> None:
    sources: list[object] = []
    for number_, given in enumerate(value if isinstance(value, list) else [value]):
        one = as_mapping(given)
        fields = {
            ours: one[theirs]
            for theirs, ours in (
                ("prompt_feature", "prompt"),
                ("completion_feature", "response"),
                ("chat_feature", "messages"),
                ("text_feature", "text"),
            )
            if one.get(theirs)
        }
        for split in ("train", "valid", "test"):
            if not one.get(f"{split}_split"):
                continue
            source: Source = {"hub": one.get("path") or one.get("name"), "split": split}
            if fields:
                source["fields"] = fields
            take_split(draft, f"{key}.{split}_split", one[f"{split}_split"], source)
            sources.append(source)
            ours = f"data.sources[{len(sources) - 1}]"
            draft.taken.append(Taken(key=f"{key}[{number_}].{split}_split", theirs=given, ours=ours, value=source))
        for other in one.keys() - HUB_KEYS:
            draft.refuse(f"{key}.{other}", one[other], "what it changes is not known here", "Take it out")
    draft.set("data.sources", sources)


HUB_KEYS = {
    *("path name train_split valid_split test_split prompt_feature completion_feature".split()),
    *("chat_feature text_feature mask_prompt".split()),
}


def _optimizer_settings(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    chosen = as_mapping(as_mapping(value).get(str(theirs.get("optimizer", "adam"))))
    for name, one in chosen.items():
        if name == "weight_decay":
            draft.take(f"{key}.{name}", one, "train.weight_decay", whole(one))
        elif (name, one) in ((("bias_correction"), True), ("eps", 1e-8)) or (name, one) == ("betas", [0.9, 0.999]):
            draft.leave_out(f"{key}.{name}", one, "it is so here as well")
        else:
            draft.refuse(f"{key}.{name}", one, "a setting of the optimizer that is fixed here", "Take it out")


TABLE: dict[str, KeyRule] = {
    "model": taken("model.base", convert=_quantized_name),
    "fine_tune_type": taken("train.method", convert=_method),
    "data": taken("data.sources", "train.jsonl, valid.jsonl and test.jsonl, each with its split", convert=_data),
    "hf_dataset": taken("data.sources", "its features become fields", convert=_hub),
    "optimizer": taken("train.optimizer", "", {name: name for name in ("adam", "adamw", "muon", "sgd", "adafactor")}),
    "optimizer_config": taken("train.weight_decay", "other settings are refused", convert=_optimizer_settings),
    "learning_rate": taken(
        "train.learning_rate", convert=lambda d, k, v, _: d.take(k, v, "train.learning_rate", whole(v))
    ),
    "lr_schedule": taken("train.lr_scheduler", "with its warm-up and its end", convert=_schedule),
    "batch_size": taken("train.batch_size"),
    "grad_accumulation_steps": taken("train.gradient_accumulation_steps"),
    "iters": taken("train.max_steps", "micro-batches there, steps here", convert=_iterations),
    "num_layers": taken("train.num_layers", "-1 is null", convert=_layers),
    "lora_parameters": taken("train.rank, alpha, dropout, target_modules", "alpha is scale x rank", convert=_lora),
    "max_seq_length": taken("data.max_length"),
    "mask_prompt": taken("train.train_on_prompts", "the other way round", convert=_masked),
    "grad_checkpoint": taken("train.gradient_checkpointing"),
    "steps_per_eval": taken("train.eval_steps", convert=_evaluations),
    "seed": taken("seed"),
    "report_to": taken("train.report_to", convert=lambda d, k, v, t: _report(d, k, v, t)),
    "resume_adapter_file": refused("the training goes on from an adapter", "Fuse that adapter into the base first"),
    "trust_remote_code": unused("code of a model's repository is never run here"),
    **for_keys(
        "train test adapter_path save_every steps_per_report test_batches project_name wandb config "
        "clear_cache_threshold val_batches",
        unused("where files go and what is printed; every validation row is used here, so the loss is more exact"),
    ),
}


def _report(draft: Draft, key: str, value: object, theirs: Theirs) -> None:
    from snaketune.importers.shared_rules import report_to

    report_to(draft, key, value, theirs)


DEFAULTS: dict[str, tuple[str, str, object]] = {
    "num_layers": ("the last 16", "train.num_layers", 16),
    "batch_size": ("4", "train.batch_size", 4),
    "grad_accumulation_steps": ("1", "train.gradient_accumulation_steps", 1),
    "iters": ("1000", "train.max_steps", 1000),
    "learning_rate": ("1e-5", "train.learning_rate", 1e-5),
    "optimizer": ("adam", "train.optimizer", "adam"),
    "max_seq_length": ("2048", "data.max_length", 2048),
    "grad_checkpoint": ("off", "train.gradient_checkpointing", False),
    "mask_prompt": ("off: prompts are trained on", "train.train_on_prompts", True),
    "steps_per_eval": ("200", "train.eval_steps", 200),
    "fine_tune_type": ("lora", "train.method", "lora"),
    "seed": ("0", "seed", 0),
}


def import_config(theirs: Theirs, draft: Draft) -> None:
    """Fill the draft from the options of mlx_lm.lora."""
    apply(TABLE, theirs, draft)
    for key, (words, ours, value) in DEFAULTS.items():
        if theirs.get(key) is None:
            draft.write_out(key, words, ours, value)
    if theirs.get("lora_parameters") is None:
        draft.write_out("lora_parameters.rank", "8", "train.rank", DEFAULT_RANK)
        draft.write_out(
            "lora_parameters.scale", "20", "train.alpha", DEFAULT_SCALE * DEFAULT_RANK, "alpha is scale x rank"
        )
        draft.write_out("lora_parameters.dropout", "0", "train.dropout", 0)
    if theirs.get("lr_schedule") is None:
        draft.write_out("lr_schedule", "none: the rate stays", "train.lr_scheduler", "constant")
        draft.write_out("lr_schedule.warmup", "none", "train.warmup_steps", 0)
    if not draft.is_set("train.weight_decay"):
        decay = 0.01 if draft.get("train.optimizer") in ("adamw", "muon") else 0
        draft.write_out("weight_decay", f"{decay:g} with this optimizer", "train.weight_decay", decay)
    if draft.get("train.optimizer") in ("adam", "adamw"):
        draft.write_out(
            "bias_correction", "off: the first steps are larger", "", note="Adam's bias correction is always on here"
        )
    draft.write_out("clipping", "gradients are not clipped", "train.max_grad_norm", None)
    draft.write_out(
        "early stopping", "none", "train.early_stopping_patience", None, "the adapter of the best validation is kept"
    )
    _splits(draft)


def _splits(draft: Draft) -> None:
    """Write out the splits that the data do not come with."""
    found = draft.get("data.sources")
    splits = {one.get("split") for one in found if isinstance(one, dict)} if isinstance(found, list) else set()
    valid, test = (0.0 if "valid" in splits else 0.05), (0.0 if "test" in splits else 0.1)
    draft.set("data.split", {"train": round(1 - valid - test, 6), "valid": valid, "test": test})
    if "test" not in splits:
        draft.write_out(
            "test rows", "none", "data.split.test", test, "held out, so that something can be said of the result"
        )
        for one in found if isinstance(found, list) else []:
            if isinstance(one, dict) and one.get("split") == "train":
                del one["split"]
    draft.write_out(
        "near duplicates", "kept", "data.near_duplicates", False, "exact copies of a row are always removed here"
    )


def command_line(text: str) -> dict[str, object]:
    """Return the options of a command line such as `mlx_lm.lora --model ... --train`."""
    words = shlex.split(text.replace("\\\n", " "))
    start = next((i for i, word in enumerate(words) if word.startswith("-") and word not in ("-m",)), len(words))
    found: dict[str, object] = {}
    key = ""
    for word in words[start:]:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
            name, _, value = word.partition("=")
            key = SHORT.get(name, name.lstrip("-").replace("-", "_"))
            found[key] = True if key in SWITCHES else _value(value) if value else None
        elif key:
            found[key] = _value(word)
    return found


def _value(word: str) -> object:
    try:
        return whole(word)
    except ValueError:
        return word
