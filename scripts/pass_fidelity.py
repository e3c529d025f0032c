"""Stop the run if a file is not the model that was trained (snaketune.package.fidelity)."""

from snaketune import files
from snaketune.package import fidelity
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    passed = fidelity.require_passed(snakemake.input.fidelity)
    events.report_result(passed.strip())
    files.write_text(snakemake.output.passed, passed)
