"""What this machine really has for a training: the device's memory and the disk, as far as they may be used."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snaketune.files import Record, StrPath

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
SHARE_OF_RAM = 0.9  # the rest belongs to the system and to this process's own libraries


@dataclass(frozen=True)
class Machine:
    """A machine as the plan sees it. Bytes; `usable` is what a training may take, `because` says where that is from."""

    name: str
    device: str
    memory: int
    usable: int
    because: str

    def record(self) -> dict[str, Any]:
        return asdict(self)


class DeviceInfo(Record, frozen=True, kw_only=True):
    """The device that an engine computes on; sizes in bytes, where the engine knows them."""

    device: str
    """cpu, metal or cuda."""
    name: str | None = None
    memory: int | None = None
    working_set: int | None = None
    """What the accelerator recommends to use at most."""


def this_machine(device: DeviceInfo) -> Machine:
    """This machine, given what its engine says of the device (`engines.interface.Capabilities.describe_device`).

    On a Mac it is MLX's recommended working set, on an NVIDIA GPU its memory, else the RAM that this process may have.
    """
    ram = _ram()
    if device.working_set:
        memory, usable, because = ram, device.working_set, "MLX's recommended working set of the unified memory"
    elif device.memory:
        memory, usable, because = device.memory, int(device.memory * SHARE_OF_RAM), "90 % of the GPU's memory"
    else:
        memory, usable, because = ram, int(ram * SHARE_OF_RAM), "90 % of the RAM that this process may have"
    name = device.name or platform.processor() or platform.machine()
    return Machine(f"{platform.system()} {platform.machine()}, {name}", device.device, memory, usable, because)


def _ram() -> int:
    """RAM in bytes, or a container's smaller share of it."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            ram = min(ram, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return ram


def free_disk(folder: StrPath) -> int:
    """Free bytes on the disk where `folder` is, or will be."""
    path = Path(folder).resolve()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
