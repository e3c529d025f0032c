"""Render the splits with the chat template and tokenize them once (snaketune.tokens.tokenize)."""

import msgspec
from snaketune.contracts.data import SPLITS
from snaketune.runtime import step

with step.running(snakemake.log[0], wildcards=snakemake.wildcards):
    from snaketune.tokens.tokenize import TokenizeConfig, tokenize_splits

    tokenize_splits(
        rows={split: snakemake.input[split] for split in SPLITS},
        manifest=snakemake.input.model,
        config=msgspec.json.decode(snakemake.params.config, type=TokenizeConfig),
        stores={split: snakemake.output[split] for split in SPLITS},
        report=snakemake.output.report,
    )
