"""Puts a fast BLAS in front of MLX's own on a Linux CPU; call `preload` before anything imports MLX.

MLX's wheel there brings the reference BLAS, 6 to 16 times slower (docs/benchmarks.md). The starting step names the
library that set-up built; the OpenBLAS under it is a package of this environment.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path


def preload() -> str:
    """The name of the BLAS that MLX will find."""
    shim = os.environ.get("SNAKETUNE_BLAS_SHIM", "")
    found = importlib.util.find_spec("scipy_openblas32")
    if sys.platform != "linux" or not shim or found is None or found.origin is None:
        return "MLX's own BLAS"
    for library in (Path(found.origin).parent / "lib").glob("libscipy_openblas*.so"):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(shim, mode=ctypes.RTLD_GLOBAL)
        return Path(shim).name
    return "MLX's own BLAS"
