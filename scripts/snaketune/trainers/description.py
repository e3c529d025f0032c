"""What a trainer says about itself: what it can do, what it does differently, and our settings in its own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from snaketune.config.sections import TrainConfig

Settings = dict[str, object]


@dataclass(frozen=True)
class TrainingPlan:
    """What is to be trained, with everything worked out that a trainer would otherwise decide by itself.

    steps: optimizer steps; warmup_steps: of these, those of the warm-up; rows: training rows; longest: tokens of the
    longest row; num_layers: blocks of the base; dtype: `auto`, `float32`, `bfloat16` or `float16`; target_modules:
    names, None for all linear layers; several_answers: rows of which more than one stretch is trained.
    """

    config: TrainConfig
    steps: int
    warmup_steps: int
    rows: int
    longest: int
    num_layers: int
    dtype: str
    seed: int
    several_answers: int = 0

    @property
    def eval_every(self) -> int:
        """Steps between validations."""
        return min(self.config.eval_interval(self.steps), self.steps)

    @property
    def target_modules(self) -> list[str] | None:
        names = self.config.target_modules
        return None if isinstance(names, str) else names

    @property
    def layers(self) -> list[int] | None:
        """The indices of the blocks that are trained; None for all of them."""
        last = self.config.num_layers
        return None if last is None or last >= self.num_layers else list(range(self.num_layers))[-last:]


@dataclass(frozen=True)
class TrainerDescription:
    """One trainer. Where a mapping holds our values as keys, its own are the values; what is missing it cannot do.

    title: as its makers write it; packages: those whose versions are recorded, its own first; methods: those of
    train.method; resumes: whether an interrupted training goes on; quantized_bases: whether it trains a base that MLX
    has quantized; translate: our settings in its words; differences: what it does otherwise, as sentences without their
    full stops.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    methods: tuple[str, ...]
    optimizers: Mapping[str, str]
    schedules: tuple[str, ...]
    translate: Callable[[TrainingPlan], Settings]
    differences: Callable[[TrainingPlan], list[str]]
    resumes: bool
    early_stopping: bool
    clips: bool
    min_delta: bool = True
    num_layers: bool = True
    rslora: bool = True
    quantized_bases: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package that the trainer is."""
        return self.packages[0]
