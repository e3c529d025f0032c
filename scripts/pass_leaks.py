"""Print the summary of the data; stop the run if rows leak between splits (snaketune.data.splits)."""

import sys
from pathlib import Path

from snaketune.contracts.data import DataReport, LeakReport, SplitReport
from snaketune.data import splits
from snaketune.data.report import summary_lines, summary_sentence
from snaketune.files import read_json, write_text
from snaketune.runtime import events, step

with step.running(snakemake.log[0]):
    report = read_json(snakemake.input.report, DataReport)
    split = read_json(snakemake.input.split, SplitReport)
    leaks = read_json(snakemake.input.leaks, LeakReport)
    rejected = Path(snakemake.input.report).with_name("rejected.jsonl")
    print("\n".join(summary_lines(report, split, leaks, rejected)), file=sys.stderr)
    splits.check(snakemake.input.leaks)
    events.report_result(summary_sentence(report, split))
    write_text(snakemake.output.passed, "no leak that is to fail this run\n")
