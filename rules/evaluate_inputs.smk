# What goes into and out of the rule that answers the test rows, by variant; apart from evaluate.smk because
# `snakemake --lint` wants rules and functions in files of their own.
#
# gives    GENERAL_SET, variant_inputs, answer_files, lm_eval_rows
# reads    CHOSEN_ADAPTER and CHOSEN_BASE (train.smk), PILOT, rules.pass_pilot, rules.decide_pilot,
#          rules.train_pilot (pilot.smk), rules.fuse_adapter (package.smk), rules.split_rows (data.smk)
GENERAL_SET = CONFIG["evaluate"]["forgetting"]["rows"]


def variant_inputs(wildcards):
    """What a variant is made of; `adapter` and `adapter_config` are the two files of the adapter's folder."""
    inputs = {"rows": rules.split_rows.output.test, "model": CHOSEN_BASE, "go": permission(rules.pass_pilot.output.go)}
    inputs["decision"] = permission(rules.decide_pilot.output.decision)
    if CONFIG["data"]["split"]["sealed"]:
        inputs["opened"] = ancient(f"{RUN}/evaluation/opened.json")
    if GENERAL_SET:
        inputs["general"] = GENERAL_SET
    if wildcards.variant.startswith("gguf-"):
        inputs["gguf"] = this_run.gguf(wildcards.variant.removeprefix("gguf-"))
    elif wildcards.variant.startswith("mlx-"):
        inputs["fused"] = f"{this_run.mlx_folder(wildcards.variant.removeprefix('mlx-'))}.json"
    elif wildcards.variant == "prompted":
        inputs["train"] = rules.split_rows.output.train
    elif wildcards.variant == "fused":
        inputs["fused"] = rules.fuse_adapter.output.manifest
    elif wildcards.variant == "previous":
        inputs["fused"] = exit_on_user_error(evaluate_settings.previous_model, this_run.config)
    elif wildcards.variant == "pilot":
        inputs["model"] = manifest(PILOT.model)
        inputs["adapter"] = rules.train_pilot.output.adapter
        inputs["adapter_config"] = rules.train_pilot.output.adapter_config
    elif wildcards.variant == "adapter":
        inputs["adapter"] = CHOSEN_ADAPTER
        inputs["adapter_config"] = CHOSEN_ADAPTER_CONFIG
    return inputs


def answer_files(folder):
    """What generate_answers writes there."""
    outputs = {"predictions": ensure(f"{folder}/predictions.jsonl", non_empty=True)}
    if GENERAL_SET:
        outputs["general"] = ensure(f"{folder}/general.jsonl", non_empty=True)
    if CONFIG["evaluate"]["prompts"]:
        outputs["prompts"] = f"{folder}/prompts.jsonl"
    return outputs


def lm_eval_rows(wildcards):
    """The test rows; a run that lm-evaluation-harness cannot compare is refused before it is trained."""
    exit_on_user_error(this_run.check_lm_eval)
    return rules.split_rows.output.test
