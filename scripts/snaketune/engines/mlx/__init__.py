"""The only room that imports MLX.

Importing anything in here first puts a fast BLAS in place and, on a CPU, switches off MLX's just-in-time compiler,
which would call a C++ compiler for every new shape and gains nothing there. Both must happen before `mlx.core` loads.
"""

import os
import sys

from snaketune.engines.mlx import capabilities

BLAS = capabilities.preload()
if sys.platform == "linux":
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
