"""Stop the run if the GGUF could not be served (snaketune.package.serving)."""

from snaketune import files
from snaketune.package import serving
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    passed = serving.require_passed(snakemake.input.served)
    events.report_result(f"llama.cpp's server: {passed.strip()}")
    files.write_text(snakemake.output.passed, passed)
