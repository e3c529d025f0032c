"""Write run.json: versions, code, inputs, seeds, model (snaketune.runtime.provenance)."""

import json

from snaketune.contracts.data import ModelManifest
from snaketune.files import read_json
from snaketune.runtime import provenance, step
from snaketune.tokens.template_files import template_sha256

with step.running(snakemake.log[0]):
    model = json.loads(snakemake.params.config)["model"]
    manifest = read_json(snakemake.input.model, ModelManifest)
    inputs = provenance.RunInputs(
        config=snakemake.input.config,
        sources=list(snakemake.input.sources),
        model=snakemake.input.model,
        template_sha256=template_sha256(manifest, model["chat_template"]),
        fused=snakemake.input.get("fused"),
        opened=snakemake.input.get("opened") or None,
        products=tuple(snakemake.input.get("products", ())),
    )
    provenance.write_run_record(inputs, snakemake.output.record)
