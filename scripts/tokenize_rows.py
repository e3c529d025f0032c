"""Render the splits with the base's own template and tokenise them once: snaketune.model.tokens."""

import json

from snaketune import step

SPLITS = ("train", "valid", "test")

with step.running(snakemake.log[0]):
    from snaketune.model.tokens import tokenize_splits

    tokenize_splits(
        rows={split: snakemake.input[split] for split in SPLITS},
        manifest=snakemake.input.model,
        config=json.loads(snakemake.params.config),
        stores={split: snakemake.output[split] for split in SPLITS},
        verdicts=snakemake.output.verdicts,
    )
