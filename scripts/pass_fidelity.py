"""Stop the run if a file is not the model that was trained (snaketune.package.fidelity)."""

from snaketune import files
from snaketune.package import fidelity
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    files.write_text(snakemake.output.passed, fidelity.require_passed(snakemake.input.fidelity))
