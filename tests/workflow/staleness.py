"""The table of staleness: which jobs each change must rerun. test_staleness.py compares it with `snakemake -n`.

It is written by hand, from what each step takes and what each setting means, never copied from what Snakemake says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

VARIANTS = ("base", "prompted", "adapter", "gguf-q8_0")
ANSWERS = {f"generate_answers:{variant}" for variant in VARIANTS}
SCORES = {f"score_answers:{variant}" for variant in VARIANTS}
TAKE_BASE = {"dry_run_pilot", "train_pilot", "decide_pilot", "train_adapter:main", "select_experiment", "fuse_adapter"}
TAKE_BASE |= {"export_adapter", "check_fidelity", "record_run", *ANSWERS}

# job: the jobs that take its outputs; the pilot's go is a permission, and starts nothing
CONSUMERS: dict[str, set[str]] = {
    "validate_rows": {"split_rows", "pass_leaks", "write_pilot_report", "write_report"},
    "split_rows": {"check_leaks", "pass_leaks", "tokenize_rows", "decide_pilot", "check_fidelity", "write_card"}
    | {"write_modelfile", "write_report", *ANSWERS},
    "check_leaks": {"pass_leaks", "write_report"},
    "fetch_config": {"tokenize_rows", "forecast_run"},
    "fetch_model": TAKE_BASE,
    "quantize_base": TAKE_BASE,
    "tokenize_rows": {
        "forecast_run",
        "dry_run_pilot",
        "train_pilot",
        "decide_pilot",
        "train_adapter:main",
        "write_report",
    },
    "forecast_run": {"dry_run_pilot", "decide_pilot", "write_pilot_report", "write_report"},
    "dry_run_pilot": {"train_pilot", "decide_pilot"},
    "train_pilot": {"decide_pilot", "write_pilot_report"},
    "train_subset:0.5": {"decide_pilot"},
    "decide_pilot": {"pass_pilot", "write_pilot_report", "write_report"},
    "train_adapter:main": {"select_experiment", "write_card", "write_report"},
    "train_adapter:wide": {"select_experiment", "write_card", "write_report"},
    "score_experiment:main:validation": {"select_experiment"},
    "score_experiment:main:test": {"compare_experiments"},
    "compare_experiments": {"write_report"},
    "select_experiment": {"fuse_adapter", "export_adapter", "check_fidelity", "write_card", "write_report"}
    | {"generate_answers:adapter"},
    "export_adapter": {"write_report"},
    "fuse_adapter": {"convert_gguf", "write_modelfile", "check_fidelity", "write_card", "record_run", "write_report"},
    "convert_gguf": {"quantize_gguf:q8_0", "check_fidelity"},
    "quantize_gguf:q8_0": {"write_modelfile", "check_fidelity", "record_run", "write_report"}
    | {"generate_answers:gguf-q8_0"},
    "quantize_mlx:8bit-g32": {"check_fidelity", "record_run", "write_report", "generate_answers:mlx-8bit-g32"},
    "quantize_gguf:q5_k_m": {"check_fidelity", "record_run", "write_report"},
    "collect_imatrix": {"quantize_gguf_imatrix:q5_k_m"},
    "quantize_gguf_imatrix:q5_k_m": {"check_fidelity", "record_run", "write_report"},
    "write_modelfile": {"write_report"},
    "check_fidelity": {"pass_fidelity", "write_card", "write_report"},
    "check_prompts": {"pass_serving", "write_report"},
    "check_serving": {"pass_serving", "write_report"},
    "compare_scores": {"write_card", "write_report"},
    "save_config": {"record_run", "write_report"},
    "record_run": {"write_report"},
}
for _variant in (*VARIANTS, "fused", "previous", "mlx-8bit-g32"):
    CONSUMERS[f"generate_answers:{_variant}"] = {f"score_answers:{_variant}", "compare_scores", "write_report"}
    CONSUMERS[f"score_answers:{_variant}"] = {"compare_scores", "write_report"}


# which jobs need the 16-bit GGUF, which a finished run has no longer; nothing else runs because it is made again
NEED_F16 = {"quantize_gguf:q8_0", "quantize_gguf:q5_k_m", "quantize_gguf_imatrix:q5_k_m", "collect_imatrix"}
NEED_F16 |= {"check_fidelity"}


def with_consumers(starts: Iterable[str]) -> set[str]:
    """These jobs, all that consume their outputs, and the conversion where one of them needs its temporary GGUF."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        job = waiting.pop()
        if job not in found:
            found.add(job)
            waiting += CONSUMERS.get(job, ())
    return found | ({"convert_gguf"} if found & NEED_F16 else set())


# every job of the tiny run
ALL_JOBS = with_consumers({"fetch_config", "fetch_model", "save_config", "validate_rows"})

PILOT = {"dry_run_pilot", "train_pilot", "decide_pilot"}
TRAINING = {"forecast_run", "train_adapter:main", *PILOT}
MODELFILE = {"write_modelfile"}
CARD = {"write_card"}
FIDELITY = {"check_fidelity"}
COMPARED = {"compare_scores"}

Row = tuple[dict[str, Any], set[str]]

# How to read a row:  "train.rank": ({"rank": 5}, TRAINING)
# - the key of the schema, and the values that the test writes into its section of a finished run's configuration;
# - the jobs that take the setting themselves. All jobs that consume their outputs follow by themselves (CONSUMERS);
# - save_config, which holds all settings, is in every row without being written down;
# - an empty set: nothing but the saved configuration and the pages changes. Every job that is not reached must not run.
# A new key of the schema without a row fails. Files have no rows: a traced run notes which files of the project each
# step opens, and a changed file must rerun the steps that opened it.
RERUNS: dict[str, Row] = {
    "run": ({"run": "other"}, ALL_JOBS - {"fetch_config", "fetch_model"}),
    "seed": ({"seed": 2}, {"validate_rows"}),
    "compare_with": ({"compare_with": "older"}, {"generate_answers:previous"}),
    "engine": ({"engine": "torch"}, TRAINING | {"forecast_run", "fuse_adapter", "export_adapter", *FIDELITY, *ANSWERS}),
    "threads": ({"threads": 2}, set()),  # the last digits may differ: not worth a night
    "model.base": ({"base": "other-base"}, {"fetch_config", "fetch_model"}),
    "model.revision": ({"revision": "v2"}, {"fetch_config", "fetch_model"}),
    "model.dtype": ({"dtype": "bfloat16"}, TRAINING | {"fuse_adapter", *ANSWERS}),
    "model.chat_template": ({"chat_template": "chatml"}, {"tokenize_rows", "fuse_adapter", *FIDELITY, *ANSWERS}),
    "model.quantize": ({"quantize": {"bits": 8, "group_size": 32}}, {"forecast_run", "quantize_base"}),
    "data.sources": ({"sources": [{"path": "rows.jsonl", "weight": 2}]}, {"validate_rows"}),
    "data.system": ({"system": "Be brief."}, {"validate_rows"}),
    "data.min_characters": ({"min_characters": 2}, {"validate_rows"}),
    "data.max_characters": ({"max_characters": 9000}, {"validate_rows"}),
    "data.max_rejected": ({"max_rejected": 0.2}, {"validate_rows"}),
    "data.max_lost": ({"max_lost": 0.9}, {"forecast_run"}),
    "data.near_duplicates": ({"near_duplicates": 0.9}, {"validate_rows"}),
    "data.shingles": ({"shingles": "words"}, {"validate_rows"}),
    "data.split.train": ({"split": {"train": 0.7, "valid": 0.1, "test": 0.2}}, {"split_rows"}),
    "data.split.valid": ({"split": {"train": 0.7, "valid": 0.2, "test": 0.1}}, {"split_rows"}),
    "data.split.test": ({"split": {"train": 0.6, "valid": 0.1, "test": 0.3}}, {"split_rows"}),
    # what was answered before stays: the seal is a permission, and opened for the same adapter
    "data.split.sealed": ({"split": {"sealed": True}}, {"open_test_rows", "check_fidelity", "record_run"}),
    "data.split.exact": ({"split": {"exact": True}}, {"split_rows"}),
    "data.on_leakage": ({"on_leakage": "warn"}, {"check_leaks"}),
    "data.max_length": ({"max_length": 60}, {"tokenize_rows", *FIDELITY}),
    "data.on_too_long": ({"on_too_long": "drop"}, {"tokenize_rows"}),
    "pilot.rows": ({"rows": 24}, {"train_pilot"}),
    "pilot.max_steps": ({"max_steps": 5}, {"train_pilot"}),
    "pilot.max_hours": ({"max_hours": 9}, {"decide_pilot"}),
    "pilot.on_no_go": ({"on_no_go": "stop"}, {"decide_pilot"}),
    "pilot.learning_curve": ({"learning_curve": [0.5, 1.0]}, {"train_subset:0.5"}),
    "pilot.sample": ({"sample": 5}, {"decide_pilot"}),
    "train.method": ({"method": "dora"}, TRAINING),
    "train.num_virtual_tokens": (
        {"method": "prompt", "num_virtual_tokens": 4, "rank": 16, "alpha": 32},  # a rank of one's own would be refused
        {"tokenize_rows", "fuse_adapter", *FIDELITY, *ANSWERS} | TRAINING,
    ),
    "train.rank": ({"rank": 5}, TRAINING),
    "train.alpha": ({"alpha": 9}, TRAINING),
    "train.rslora": ({"rslora": True}, TRAINING),
    "train.dropout": ({"dropout": 0.2}, TRAINING),
    "train.target_modules": ({"target_modules": ["q_proj"]}, TRAINING),
    "train.num_layers": ({"num_layers": 1}, TRAINING),
    "train.train_on_prompts": ({"train_on_prompts": True}, TRAINING),
    "train.epochs": ({"epochs": 2}, TRAINING),
    "train.max_steps": ({"max_steps": 13}, TRAINING),
    "train.batch_size": ({"batch_size": 2}, TRAINING),
    "train.gradient_accumulation_steps": ({"gradient_accumulation_steps": 2}, TRAINING),
    "train.packing": ({"packing": True}, TRAINING),
    "train.trainer": ({"trainer": "trl"}, TRAINING),
    "train.gradient_checkpointing": ({"gradient_checkpointing": True}, TRAINING),
    "train.optimizer": ({"optimizer": "adam"}, TRAINING),
    "train.learning_rate": ({"learning_rate": 2e-2}, TRAINING),
    "train.weight_decay": ({"weight_decay": 0.02}, TRAINING),
    "train.max_grad_norm": ({"max_grad_norm": 2}, TRAINING),
    "train.lr_scheduler": ({"lr_scheduler": "linear"}, TRAINING),
    "train.min_lr_ratio": ({"min_lr_ratio": 0.1}, TRAINING),
    "train.warmup_steps": ({"warmup_steps": 3}, TRAINING),
    "train.eval_steps": ({"eval_steps": 6}, TRAINING),
    "train.early_stopping_patience": ({"early_stopping_patience": 3}, TRAINING),
    "train.early_stopping_min_delta": ({"early_stopping_min_delta": 0.01}, TRAINING),
    "train.max_tokens_per_micro_batch": ({"max_tokens_per_micro_batch": 512}, TRAINING),
    "train.max_nonfinite_steps": ({"max_nonfinite_steps": 11}, TRAINING),
    "train.workers": ({"workers": 2}, TRAINING),
    "train.hosts": ({"workers": 1, "hosts": ["127.0.0.1"]}, set()),
    "train.fsdp": ({"workers": 2, "fsdp": True}, TRAINING),
    "train.worker_timeout": ({"worker_timeout": 60}, set()),
    "train.memory_limit": ({"memory_limit": 4}, {"forecast_run"}),
    "train.save_total_limit": ({"save_total_limit": 3}, set()),
    "train.report_to": ({"report_to": "tensorboard"}, set()),
    "train.notify.command": ({"notify": {"command": "true"}}, set()),
    "experiments": (
        {"experiments": {"main": {"rank": 4}, "wide": {"rank": 6}}},
        {"forecast_run", "train_adapter:wide"},
    ),
    "grid": (
        {"grid": {"rank": [4, 6]}},  # the first point is the settings that were, under another name
        {"forecast_run", "train_adapter:rank-4", "train_adapter:rank-6", "select_experiment", *CARD},
    ),
    "select.metric": ({"metric": "exact_match"}, {"score_experiment:main:validation"}),
    "select.tolerance": ({"tolerance": 0.01}, {"select_experiment"}),
    "package.gguf": ({"gguf": ["q8_0", "q5_k_m"]}, {"quantize_gguf:q5_k_m", *CARD}),
    "package.imatrix": (
        {"imatrix": True, "gguf": ["q8_0", "q5_k_m"]},  # q8_0 reads none, and stays
        {"collect_imatrix", "quantize_gguf_imatrix:q5_k_m", *CARD},
    ),
    "package.mlx": ({"mlx": ["8bit-g32"]}, {"quantize_mlx:8bit-g32", *CARD}),
    "package.adapter": ({"adapter": False}, set()),
    "package.bundle": ({"bundle": ["products"]}, set()),  # only on request
    "package.serve_check": ({"serve_check": True}, {"check_serving", "check_prompts"}),
    "package.min_gain_retained": ({"min_gain_retained": 0.8}, FIDELITY),
    "package.fidelity.rows": ({"fidelity": {"rows": 5}}, FIDELITY),
    "package.fidelity.num_prompts": ({"fidelity": {"num_prompts": 3}}, FIDELITY),
    "package.fidelity.max_new_tokens": ({"fidelity": {"max_new_tokens": 7}}, FIDELITY),
    "package.name": ({"name": "jessy"}, MODELFILE | CARD),
    "package.license": ({"license": "mit"}, CARD),
    "package.language": ({"language": ["en"]}, CARD),
    "package.upload.repository": ({"upload": {"repository": "me/it"}}, set()),  # only on request, as the next two
    "package.upload.private": ({"upload": {"private": False}}, set()),
    "package.serve_timeout": ({"serve_timeout": 60}, set()),
    "package.ollama.temperature": ({"ollama": {"temperature": 0.1}}, MODELFILE),
    "package.ollama.top_p": ({"ollama": {"top_p": 0.5}}, MODELFILE),
    "package.ollama.top_k": ({"ollama": {"top_k": 10}}, MODELFILE),
    "package.ollama.num_ctx": ({"ollama": {"num_ctx": 512}}, MODELFILE),
    "evaluate.models": ({"models": ["base", "prompted", "adapter", "gguf", "fused"]}, {"generate_answers:fused"}),
    "evaluate.experiments": ({"experiments": True}, {"score_experiment:main:test"}),
    "evaluate.lm_eval_tasks": ({"lm_eval_tasks": ["arc_easy"]}, set()),  # on request
    "evaluate.max_rows": ({"max_rows": 13}, ANSWERS),
    "evaluate.max_new_tokens": ({"max_new_tokens": 9}, ANSWERS),
    "evaluate.max_hours": ({"max_hours": 3}, ANSWERS),
    "evaluate.turns": ({"turns": "all"}, ANSWERS),
    "evaluate.generation.temperature": ({"generation": {"temperature": 0.5}}, ANSWERS),
    "evaluate.generation.top_p": ({"generation": {"top_p": 0.5}}, ANSWERS),
    "evaluate.generation.top_k": ({"generation": {"top_k": 5}}, ANSWERS),
    "evaluate.generation.repetition_penalty": ({"generation": {"repetition_penalty": 1.1}}, ANSWERS),
    "evaluate.generation.repetition_context": ({"generation": {"repetition_context": 32}}, ANSWERS),
    "evaluate.few_shot.system": ({"few_shot": {"system": "Be brief."}}, {"generate_answers:prompted"}),
    "evaluate.few_shot.num_examples": ({"few_shot": {"num_examples": 2}}, {"generate_answers:prompted"}),
    "evaluate.prompts": ({"prompts": ["hello?"]}, ANSWERS),
    "evaluate.bleu_tokenizer": ({"bleu_tokenizer": "char"}, SCORES),
    "evaluate.metrics": ({"metrics": {"words": {"function": "own:words"}}}, SCORES),
    "evaluate.similarity": ({"similarity": "near.gguf"}, SCORES),
    "evaluate.thresholds": ({"thresholds": {"perplexity": 3.0}}, COMPARED),
    "evaluate.forgetting.rows": ({"forgetting": {"rows": None}}, ANSWERS | COMPARED),
    "evaluate.forgetting.limit": ({"forgetting": {"limit": 0.1}}, COMPARED),
    "evaluate.on_missed_threshold": ({"on_missed_threshold": "stop"}, {"pass_thresholds"}),
}
# key: jobs that are no longer wanted after the change
NO_LONGER_WANTED = {
    "train.method": {"export_adapter"},
    "train.num_virtual_tokens": {"export_adapter"},
    "grid": {"train_adapter:main"},
}

# file: jobs that read it only with other settings or data, so that the traced run could not see it
NOT_TRACED: dict[str, set[str]] = {
    "scripts/snaketune/data/readers/table_rows.py": {"validate_rows"},  # CSV, Excel and Parquet
    "scripts/snaketune/engines/llama_cpp/gguf_model.py": SCORES,  # semantic similarity
    "scripts/snaketune/engines/mlx/reference_merge.py": {"check_fidelity"},  # of a bfloat16 base
    "scripts/snaketune/engines/mlx/served_tokenizer.py": {"check_fidelity"},  # of a folder for MLX (package.mlx)
    "scripts/snaketune/train/metrics_log.py": {"forecast_run"},  # only for the type of an argument
    # only for the types of arguments; it is loaded where there is an adapter
    "scripts/snaketune/contracts/train.py": {"forecast_run", "generate_answers:base", "generate_answers:prompted"}
    | {"score_answers:base", "score_answers:prompted"},
}
PAGES = {"write_pilot_report", "write_report"}
# file: jobs that read it for a forecast alone, and need not run again for it
CHANGES_FORECAST_ONLY: dict[str, set[str]] = {"data/general.jsonl": {"decide_pilot"}}
# beginning of a path: jobs that track all files below it together, since they may read any
READ_AS_ONE: dict[str, set[str]] = {
    **dict.fromkeys(
        (f"report/{name}" for name in ("page.", "pilot.", "runs.", "style.", "human_eval.", "sections/")), PAGES
    ),
    "scripts/snaketune/tokens/templates/": {"tokenize_rows", "forecast_run", "check_fidelity", *PILOT, *ANSWERS},
}
