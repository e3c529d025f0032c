"""Display of a run on a terminal or in a log, drawn from its events alone; it knows nothing of Snakemake."""
