"""Memory and disk of this machine, as far as a training may use them, and how a process keeps its memory."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from pathlib import Path

from snaketune.files import Record, StrPath

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
SHARE_OF_RAM = 0.9  # the rest belongs to the system and to this process's own libraries


class Machine(Record, frozen=True):
    """A machine as the plan sees it. Bytes; a training may take `usable_memory`, which `memory_source` explains."""

    name: str
    device: str
    memory: int
    usable_memory: int
    memory_source: str


class DeviceInfo(Record, frozen=True, kw_only=True):
    """The device that an engine computes on; sizes in bytes, where the engine knows them."""

    device: str
    """cpu, metal or cuda."""
    name: str | None = None
    memory: int | None = None
    working_set: int | None = None
    """What the accelerator recommends to use at most."""


def this_machine(device: DeviceInfo) -> Machine:
    """Return this machine, given what its engine says of the device (`engines.interface.Capabilities.describe_device`).

    On a Mac it is MLX's recommended working set, on an NVIDIA GPU its memory, else the RAM that this process may have.
    """
    ram = ram_bytes()
    if device.working_set:
        memory, usable, source = ram, device.working_set, "MLX's recommended working set of the unified memory"
    elif device.memory:
        memory, usable, source = device.memory, int(device.memory * SHARE_OF_RAM), "90 % of the GPU's memory"
    else:
        memory, usable, source = ram, int(ram * SHARE_OF_RAM), "90 % of the RAM that this process may have"
    name = device.name or platform.processor() or platform.machine()
    return Machine(f"{platform.system()} {platform.machine()}, {name}", device.device, memory, usable, source)


def ram_bytes() -> int:
    """Return the RAM in bytes, or a container's smaller limit."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            ram = min(ram, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return ram


def free_disk(folder: StrPath) -> int:
    """Return the free bytes on the disk where `folder` is or will be."""
    path = Path(folder).resolve()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def keep_freed_memory() -> bool:
    """Have malloc reuse what was freed, from now on in this whole process; False where the C library is not glibc.

    glibc takes every large array from the system and gives it back at once, and the kernel clears each page again: half
    of the time of a merge. The process keeps the most that it holds at one time, and some of what lies between arrays.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    never_trim = -1
    return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, never_trim))
