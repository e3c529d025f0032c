"""Spreads worker processes over hosts: checks `train.workers` against `train.hosts` and writes mlx.launch's options."""

from __future__ import annotations

from pathlib import Path

from snaketune.errors import ConfigError
from snaketune.files import read_json

LOCALHOST = "127.0.0.1"
Hosts = str | list[str] | None  # a hostfile of mlx.launch, addresses, or this machine


def check_hosts(workers: int, hosts: Hosts, section: str = "train") -> None:
    """Raise ConfigError where so many workers do not fit their hosts."""
    count = len(host_list(hosts))
    if workers % count:
        raise ConfigError(
            f"{workers} workers cannot be spread evenly over {count} hosts",
            where=f"{section}.workers",
            fix=f"Set train.workers to {count}, or to a multiple of it",
        )
    if isinstance(hosts, str) and workers != count:
        raise ConfigError(
            f"the hostfile names {count} processes, and train.workers is {workers}",
            where=f"{section}.hosts",
            fix=f"Set train.workers to {count}; a host that runs several is named several times in it",
        )


def worker_hosts(workers: int, hosts: Hosts) -> list[str]:
    """The host of each worker, by rank."""
    names = host_list(hosts)
    return [host for host in names for _ in range(workers // len(names))]


def launch_arguments(workers: int, hosts: Hosts) -> list[str]:
    """The options of mlx.launch that say where the workers run."""
    if isinstance(hosts, str):
        return ["--hostfile", hosts]
    names = host_list(hosts)
    return ["--hosts", ",".join(names), "-n", str(workers // len(names))]


def host_list(hosts: Hosts) -> list[str]:
    """The hosts as they are given; this machine where none are."""
    if hosts is None:
        return [LOCALHOST]
    if isinstance(hosts, list):
        return hosts
    try:
        content = read_json(Path(hosts))
        return [host["ssh"] for host in (content["hosts"] if isinstance(content, dict) else content)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"this hostfile cannot be read ({type(error).__name__}: {error})",
            where="train.hosts",
            fix="Give a list of hosts, or a file as `mlx.distributed_config` writes it",
        ) from None
