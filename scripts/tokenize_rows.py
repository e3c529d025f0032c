"""Render the splits with the chat template and tokenize them once (snaketune.tokens.tokenize)."""

import json

from snaketune.runtime import step

SPLITS = ("train", "valid", "test")

with step.running(snakemake.log[0]):
    from snaketune.tokens.tokenize import tokenize_splits

    tokenize_splits(
        rows={split: snakemake.input[split] for split in SPLITS},
        manifest=snakemake.input.model,
        config=json.loads(snakemake.params.config),
        stores={split: snakemake.output[split] for split in SPLITS},
        verdicts=snakemake.output.report,
    )
