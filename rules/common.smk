# Shared by the files beside this one: the validated settings of this run, the names of its files, and the two params that say
# when a step is stale: `config`, the settings it depends on as one string, and `code`, a digest of its script, the
# library modules that it reaches and its environment file.
import re
import sys
from pathlib import Path

sys.path[:0] = [str(Path(workflow.basedir, part)) for part in ("scripts", "rules")]

import mended
import records
from snaketune.config import schema as configuration
from snaketune.runtime.code_digest import code_digest
from snaketune.errors import UserError
from snaketune.data import sources as data_sources
from snaketune.evaluate import step_config as evaluate_settings
from snaketune.model import manifest as base_models
from snaketune.tokens import chat_template
from snaketune.config import experiments as train_experiments
from snaketune.train.checkpoints import WITHOUT_EFFECT


def settled(given, files):
    """The complete settings: config.yaml when no --configfile is given, and what --config adds."""
    if not files:
        own = configuration.read(Path(workflow.basedir, "config.yaml"))
        snakemake.utils.update_config(own, given)
        given = own
    return configuration.complete(given)


def or_exit(make, *arguments):
    """A mistake in the settings ends the run with its sentences, before anything is built."""
    try:
        return make(*arguments)
    except UserError as error:
        print(f"snaketune: {error}", file=sys.stderr)
        raise SystemExit(1) from None


CONFIG = or_exit(settled, config, workflow.overwrite_configfiles)
config.clear()
config.update(CONFIG)

RESULTS = "results"
RUN = f"{RESULTS}/{CONFIG['run']}"
MODELS = f"{RESULTS}/models"
SPLITS = ("train", "valid", "test")
SOURCES = or_exit(data_sources.files, CONFIG["data"]["sources"])
EXPERIMENTS = or_exit(train_experiments.expand, CONFIG)
BASES = {base_models.model_key(one["model"]): one["model"] for one in EXPERIMENTS.values()}
PLAIN = {base_models.plain_key(model): model | {"quantize": None} for model in BASES.values()}
TOKENS = {base_models.tokens_key(one["model"]): one["model"] for one in EXPERIMENTS.values()}
SIMILARITY = or_exit(evaluate_settings.similarity_model, CONFIG)
GPU = int(sys.platform == "darwin")  # one training or answering at a time where they share the one GPU


def settings_text(**parts):
    """The settings that a step depends on, as one canonical string."""
    return configuration.canonical(parts)


def settings(**parts):
    """The same as a function: in plain strings Snakemake would take the braces of a system prompt for wildcards."""
    text = settings_text(**parts)
    return lambda wildcards: text


def only(section, *keys):
    return {key: section[key] for key in keys}


def without(section, *keys):
    return {key: value for key, value in section.items() if key not in keys}


def code(step, environment):
    """The digest of a step's code."""
    here = Path(workflow.basedir)
    return code_digest(here / "scripts" / f"{step}.py", here / "envs" / f"{environment}.yaml")


def stores(model):
    """The token stores of a base, by split."""
    return {split: f"{RUN}/data/tokens/{base_models.tokens_key(model)}/{split}.safetensors" for split in SPLITS}


def template_file(model):
    """The Jinja file that a base's template comes from, if it is a file of the person's own."""
    named = model["chat_template"]
    return [named] if named and named not in chat_template.NAMED else []


def any_of(names):
    """A regular expression for one of some names."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"


def base_inputs(key, weights):
    """What a base is made from, as far as it lies on this machine."""
    model = PLAIN[key]
    if model["base"] == "demo":
        return rules.build_demo.output
    if base_models.is_local(model["base"]):
        files = or_exit(base_models.local_files, model["base"])
        return [file for file in files if weights or not file.endswith(".safetensors")]
    return [] if not weights else f"{MODELS}/{key}.config.json"


def adapter_files(name):
    return [f"{RUN}/train/{experiment}/{name}" for experiment in EXPERIMENTS]


def experiments_in_order(*neutral):
    """The experiments as a list, without the named keys of `train`: in a JSON object they would be sorted by name."""
    return [
        {"experiment": name, "train": without(one["train"], *neutral), "model": one["model"]}
        for name, one in EXPERIMENTS.items()
    ]


def gguf(kind):
    return f"{RUN}/model/{CONFIG['run']}-{kind}.gguf"


def artefact_inputs(wildcards):
    """What an artefact is made of; `adapter` names the two files of the adapter's folder."""
    made = {"rows": rules.split_rows.output.test, "model": BASE, "go": ancient(rules.pass_pilot.output.go)}
    made |= {"general": GENERAL} if GENERAL else {}
    if wildcards.artefact.startswith("gguf-"):
        made["gguf"] = gguf(wildcards.artefact.removeprefix("gguf-"))
    elif wildcards.artefact == "prompted":
        made["train"] = rules.split_rows.output.train
    elif wildcards.artefact == "fused":
        made["fused"] = rules.fuse_adapter.output.manifest
    elif wildcards.artefact == "previous":
        made["fused"] = or_exit(evaluate_settings.previous, CONFIG)
    elif wildcards.artefact == "pilot":
        made["model"] = f"{MODELS}/{base_models.model_key(FIRST['model'])}.json"
        made["adapter"] = rules.train_pilot.output.adapter
        made["adapter_config"] = rules.train_pilot.output.adapter_config
    elif wildcards.artefact == "adapter":
        made["adapter"] = rules.select_experiment.output.adapter
        made["adapter_config"] = rules.select_experiment.output.adapter_config
    return made


def answer_files(folder):
    """What generate_answers writes there."""
    made = {"predictions": ensure(f"{folder}/predictions.jsonl", non_empty=True)}
    made |= {"general": ensure(f"{folder}/general.jsonl", non_empty=True)} if GENERAL else {}
    made |= {"prompts": f"{folder}/prompts.jsonl"} if CONFIG["evaluate"]["prompts"] else {}
    return made


mended.mend(workflow, RESULTS, CONFIG["run"], records.mend(RESULTS))


wildcard_constraints:
    experiment=train_experiments.SAFE_NAME.pattern,  # of a thousand, their names would be read at every match
    type="[A-Za-z0-9_]+",
