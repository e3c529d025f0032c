"""Importing this module keeps torch out of the process.

transformers, which mlx-lm uses for tokenizers, imports torch wherever it is installed, and torch costs seconds and
hundreds of megabytes. It is installed for llama.cpp's converter alone, which runs in a process of its own.
"""

import os
import sys

sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # documented: None makes an import fail at once
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would advise to install torch
