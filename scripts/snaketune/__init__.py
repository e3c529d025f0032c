"""snaketune's library: from a person's rows to a small model that is proven to be better.

Each folder is one room: `data` (rows and splits), `model` (bases, templates, tokens), `plan` and `pilot` (know before
you spend), `train` (what training needs apart from MLX), `package` (fuse, GGUF, Modelfile), `evaluate` (scores and how
sure they are), `report` (pages). Only `mlx_engine` imports MLX and only `llama_engine` imports llama.cpp. Nothing here
knows of Snakemake: the scripts beside this folder join the two.
"""
