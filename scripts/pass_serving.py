"""Stop the run if the GGUF could not be served as it was trained (snaketune.package.serving)."""

from snaketune import files
from snaketune.package import served_prompts, serving
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    passed = serving.require_passed(snakemake.input.served) + served_prompts.require_same(snakemake.input.prompts)
    events.report_result(f"tried in llama.cpp's server: {passed.splitlines()[0]}")
    files.write_text(snakemake.output.passed, passed)
