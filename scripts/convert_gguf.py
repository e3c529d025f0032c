"""Convert the merged model to a 16-bit GGUF file (snaketune.package.gguf_conversion)."""

from pathlib import Path

from snaketune.package import gguf_conversion
from snaketune.runtime import events, progress, step

with step.running(snakemake.log[0]):
    target = Path(snakemake.output.gguf)
    gguf_conversion.convert(
        snakemake.input.fused,
        target,
        name=target.stem.removesuffix("-f16"),
        merge=gguf_conversion.merge_source(snakemake.input.manifest, snakemake.input.model, snakemake.input.adapter),
        threads=snakemake.threads,
    )
    events.report_result(progress.format_bytes(progress.size_of(target)))
