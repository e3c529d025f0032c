"""Compare what each server feeds its model with what was trained (snaketune.package.served_prompts)."""

import json

from snaketune.model.manifest import read_manifest
from snaketune.package import served_prompts
from snaketune.runtime import events, step
from snaketune.tokens.chat_template import renderer_of

with step.running(snakemake.log[0]):
    config = json.loads(snakemake.params.config)
    found = served_prompts.check(
        served_prompts.Products(snakemake.input.gguf, served_prompts.folder_of(snakemake.input.manifest)),
        renderer_of(read_manifest(snakemake.input.model), config["model"]["chat_template"]),
        snakemake.output.prompts,
        timeout=config["package"]["serve_timeout"],
    )
    events.report_result(
        ", ".join(f"{one.server}: {one.prompts - one.differences} of {one.prompts}" for one in found.servers)
    )
