"""The device that PyTorch computes on, its number formats, and the memory that it holds."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def best_device() -> torch.device:
    """CUDA where there is a card, else Apple's MPS, else the CPU; a worker process has the card of its local rank."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_dtype(dtype: str, device: torch.device, stored: str | None = None) -> torch.dtype | str:
    """What weights are loaded as: `auto` is float32 on a CPU, where half precision may be slow, and elsewhere the
    model's own; `stored` is the model's own everywhere.

    stored: the format that config.json names. Gradients are often below float16's range, so `auto` takes bfloat16 for
    it, and float32 on a card that does not compute in bfloat16.
    """
    if dtype == "stored":
        return "auto"
    if dtype != "auto":
        return DTYPES[dtype]
    if device.type == "cpu":
        return torch.float32
    if stored != "float16":
        return "auto"
    narrow = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if narrow else torch.float32


def peak_memory(device: torch.device) -> int:
    """Bytes that the engine has held at most: of the card's memory, of the process where there is no card."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if (found := re.search(r"VmHWM:\s*(\d+) kB", _text(STATUS))) is not None:
        return int(found[1]) * 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024)


def forget_peak(device: torch.device) -> None:
    """Let the peak begin anew, where the system can.

    While weights are loaded their file is mapped into memory beside them. It counts as resident, though the system
    takes it back whenever it needs the memory.
    """
    if device.type == "cpu" and CLEAR_REFS.is_file():
        with contextlib.suppress(OSError):  # a container may refuse it; the peak is then that of loading, too
            CLEAR_REFS.write_text("5", encoding="ascii")  # man 5 proc: resets VmHWM


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace") if path.is_file() else ""


def set_memory_limit(gigabytes: float | None, device: torch.device) -> None:
    """Hand a limit to CUDA's allocator; there is none to set elsewhere."""
    if gigabytes is not None and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), device)
