"""Where numbers go besides metrics.jsonl: one small interface, and TensorBoard and Weights & Biases behind it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from snaketune.errors import ConfigError


class Tracker(Protocol):
    """Takes the numbers of an update as they come. A resumed run sends some of them a second time."""

    def log(self, update: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class Nowhere:
    """Tracking switched off."""

    def log(self, update: int, numbers: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._writer = _needed("tensorboardX").SummaryWriter(str(folder))

    def log(self, update: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, update)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A W&B run that goes on when the training does; who and where to comes from W&B's own environment variables."""

    def __init__(self, folder: Path, identity: str, settings: dict[str, Any]) -> None:
        self._run = _needed("wandb").init(
            project="snaketune", dir=str(folder), id=identity, resume="allow", config=settings
        )

    def log(self, update: int, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=update)

    def close(self) -> None:
        self._run.finish()


def tracker(name: str | None, folder: Path, identity: str, settings: dict[str, Any]) -> Tracker:
    """The tracker of this name, writing below `folder`; identity names the training."""
    if name == "tensorboard":
        return TensorBoard(folder / "tensorboard")
    if name == "wandb":
        return WeightsAndBiases(folder, identity, settings)
    return Nowhere()


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{module} is not installed", where="train.report_to", fix=f"Run `pip install {module}`, or set it to null"
        ) from None
