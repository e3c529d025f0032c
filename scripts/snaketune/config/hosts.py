"""Where the workers of a training run: `train.workers` and `train.hosts`, checked and put as mlx.launch wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snaketune.errors import ConfigError
from snaketune.files import read_json

HERE = "127.0.0.1"


def check(train: dict[str, Any], where: str = "train") -> None:
    """Raises ConfigError where a `train` section's workers do not fit its hosts."""
    count, workers = len(listed(train)), train["workers"]
    if workers % count:
        raise ConfigError(
            f"{workers} workers cannot be spread evenly over {count} hosts",
            where=f"{where}.workers",
            fix=f"Set train.workers to {count}, or to a multiple of it",
        )
    if isinstance(train["hosts"], str) and workers != count:
        raise ConfigError(
            f"the hostfile names {count} processes, and train.workers is {workers}",
            where=f"{where}.hosts",
            fix=f"Set train.workers to {count}; a host that runs several is named several times in it",
        )


def names(train: dict[str, Any]) -> list[str]:
    """The host of each worker."""
    found = listed(train)
    return [host for host in found for _ in range(train["workers"] // len(found))]


def launch_arguments(train: dict[str, Any]) -> list[str]:
    """The options of mlx.launch that say where."""
    if isinstance(train["hosts"], str):
        return ["--hostfile", train["hosts"]]
    found = listed(train)
    return ["--hosts", ",".join(found), "-n", str(train["workers"] // len(found))]


def listed(train: dict[str, Any]) -> list[str]:
    """The hosts as they were given; this machine where none were."""
    given = train["hosts"]
    if given is None:
        return [HERE]
    if isinstance(given, list):
        return given
    try:
        found = read_json(Path(given))
        return [host["ssh"] for host in (found["hosts"] if isinstance(found, dict) else found)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"this hostfile cannot be read ({type(error).__name__}: {error})",
            where="train.hosts",
            fix="Give a list of hosts, or a file as `mlx.distributed_config` writes it",
        ) from None
