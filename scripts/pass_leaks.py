"""Print the summary of the data; stop the run if rows leak between splits (snaketune.data.leakage)."""

import sys
from pathlib import Path

from snaketune.data import leakage, summary
from snaketune.files import read_json, write_text
from snaketune.runtime import step

with step.running(snakemake.log[0]):
    report, split, found = map(read_json, (snakemake.input.report, snakemake.input.split, snakemake.input.leaks))
    rejected = Path(snakemake.input.report).with_name("rejected.jsonl")
    print("\n".join(summary.lines(report, split, found, rejected)), file=sys.stderr)
    leakage.check(snakemake.input.leaks)
    write_text(snakemake.output.passed, "no leak that is to fail this run\n")
