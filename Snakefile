# snaketune: from a person's examples to a small language model that is proven to be better.
#
#   data      check the rows, drop duplicates, split                      rules/data.smk
#   plan      will it fit, how long will it take                          rules/plan.smk
#   pilot     a short training, then go or no-go                          rules/pilot.smk
#   train     the adapter, one for each experiment; the best goes on      rules/train.smk
#   package   fuse, convert to GGUF, quantize, prove it is the same       rules/package.smk
#   evaluate  answer and score the test rows with every product           rules/evaluate.smk
#   report    one page that says what came out                            rules/report.smk
#   (deploy   the model card; on request Ollama and the hub               rules/deploy.smk)
#
# `snakemake` makes the report; `snakemake STAGE` stops at the end of that stage; `snakemake -n` says what would run.


include: "rules/common.smk"
include: "rules/cluster_resources.smk"
include: "rules/data.smk"
include: "rules/model.smk"
include: "rules/plan.smk"
include: "rules/pilot.smk"
include: "rules/train.smk"
include: "rules/package.smk"
include: "rules/evaluate_inputs.smk"
include: "rules/evaluate.smk"
include: "rules/deploy.smk"
include: "rules/report.smk"


# every file that is handed on is named by its stage, so that a lost one is made again
rule all:
    """Everything up to the report."""
    default_target: True
    input:
        rules.data.input,
        rules.plan.input,
        rules.pilot.input,
        rules.train.input,
        rules.package.input,
        rules.evaluate.input,
        rules.report.input,
