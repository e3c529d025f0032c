"""snaketune's library: from a person's examples to a small language model that is proven to be better.

Each folder is one room. `contracts` holds the types of the files that pass between steps, `config` the configuration,
`runtime` how a step runs, `data` rows and splits, `model` base models, `tokens` chat templates and token stores,
`train` what training needs apart from an engine, `engines` what loads a model (`mlx`, `torch`, `llama_cpp`), `trainers`
the trainers of the field, each in a process of its own, `plan` and `pilot` what a run will take and whether it is worth
it, `package` fusing and GGUF, `evaluate` scores and their certainty, `importers` other tools' configurations, `report`
pages, `display` the terminal, `ui` the local page. Only `engines/mlx` imports MLX, only `engines/torch` PyTorch and
only `engines/llama_cpp` llama.cpp; drivers of trainers run elsewhere. Nothing here knows of Snakemake: the scripts
beside this folder join the two.
"""
