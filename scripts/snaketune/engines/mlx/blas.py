"""A fast BLAS under MLX on a Linux CPU.

MLX's wheel there bundles the reference BLAS (6 GFLOP/s a core where OpenBLAS reaches 100). libmlx calls three of its
functions, so a library that defines them, loaded into the global namespace before MLX, takes their place. Set-up
builds one over scipy-openblas32 (setup/blas_shim.c); the system's libopenblas does as well.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import sys
from pathlib import Path

SHIM = Path(__file__).resolve().parents[4] / "vendor" / "libblas_shim.so"
WARNING = (
    "snaketune: no fast BLAS found, so MLX uses its reference one on this CPU: training is 6 to 16 times slower. "
    "Run `make setup`, or install libopenblas."
)


@functools.cache
def preload() -> str:
    """Put a fast BLAS in front of MLX's own; returns its name, or why none was needed or found.

    Has no effect once `mlx.core` is loaded, so it runs when this package is first imported.
    """
    if sys.platform != "linux":
        return "the platform's own"
    if importlib.util.find_spec("mlx_cuda") or importlib.util.find_spec("mlx_cuda13"):
        return "not needed with CUDA"
    for name in (_bundled(), ctypes.util.find_library("openblas")):
        if name:
            try:
                ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
                return Path(name).name
            except OSError:
                continue
    print(WARNING, file=sys.stderr)
    return "MLX's reference BLAS"


def _bundled() -> str | None:
    """Path of the set-up's shim, with the OpenBLAS it forwards to already loaded; None where it is not built."""
    found = importlib.util.find_spec("scipy_openblas32")
    if not SHIM.is_file() or found is None or found.origin is None:
        return None
    library = next((Path(found.origin).parent / "lib").glob("libscipy_openblas*.so"), None)
    if library is None:
        return None
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return str(SHIM)
