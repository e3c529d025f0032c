"""What a form's settings would take, before anything runs: memory, steps and time, as one changes rank or length.

Exact where the run's rows have been tokenized already. Else every row is taken to be as long as data.max_length: no
training with these settings can need more.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snaketune.config.experiments import Experiment, expand
from snaketune.config.sections import RunConfig
from snaketune.contracts.plan import BatchShape, MemoryForecast, Plan
from snaketune.contracts.train import TrainingTiming
from snaketune.demo import task
from snaketune.engines import get_capabilities
from snaketune.errors import UserError
from snaketune.files import read_json
from snaketune.model import manifest as base_models
from snaketune.plan import architecture, plan, resources
from snaketune.plan.architecture import Architecture
from snaketune.plan.plan import Case
from snaketune.run_definition import MODELS
from snaketune.runtime.machine import Machine, this_machine
from snaketune.tokens.token_store import TokenStore
from snaketune.train.batches import micro_batching_from
from snaketune.ui.project import Project


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The forecast of the first experiment, and how many there are.

    basis: what is known of the rows: `tokens` (exact), `length` (at most), or nothing; why: what is missing, in words.
    seconds: of the training, from earlier trainings on this machine.
    """

    basis: str
    why: str = ""
    experiments: int = 1
    memory: MemoryForecast | None = None
    usable_memory: int = 0
    parameters: int = 0
    trainable_parameters: int = 0
    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class _Base:
    folder: Path
    model: Architecture


def forecast(project: Project, config: RunConfig, rows: int | None) -> Forecast:
    """Forecast the training of the first experiment; rows: training rows, where a check has counted them."""
    experiments = list(expand(config).values())
    experiment = experiments[0]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            base = _base(project, experiment, Path(scratch))
        except UserError as error:
            return Forecast(basis="nothing", why=str(error))
        if base is None:
            missing = f"{experiment.model.base} is not on this machine yet; `snakemake plan` fetches its shape"
            return Forecast(basis="nothing", why=missing)
        machine = this_machine(get_capabilities().describe_device())
        exact = _exact(project, config, experiment, base, machine)
        found = exact or _at_most(config, experiment, base, machine, rows)
    if exact is None:
        found = _timed(found, config, experiment, seconds_per_token(project))
    return msgspec.structs.replace(found, experiments=len(experiments))


def _base(project: Project, experiment: Experiment, scratch: Path) -> _Base | None:
    """The base's shape, from its config.json; None for a hub model that nothing was fetched of."""
    name = experiment.model.base
    known = project.root / MODELS / f"{base_models.plain_key(experiment.model)}.config.json"
    if known.is_file():
        folder = project.root / Path(base_models.read_manifest(known).folder).expanduser()
    elif name == "demo":
        folder = scratch
        task.write_config(folder)
    elif base_models.is_local(name):
        folder = project.path(name)
    else:
        return None
    return _Base(folder, architecture.read_base(folder, experiment.model.quantize))


def _exact(
    project: Project, config: RunConfig, experiment: Experiment, base: _Base, machine: Machine
) -> Forecast | None:
    """The forecast from the tokens of this run's rows, if they are there and of these settings."""
    folder = (
        project.results
        / config.run
        / "data"
        / "tokens"
        / base_models.tokens_key(experiment.model, experiment.train.virtual_tokens)
    )
    report, store = folder / "tokens.json", folder / "train.safetensors"
    written = project.results / config.run / "config.json"
    if not (report.is_file() and store.is_file() and written.is_file()):
        return None
    if msgspec.convert(read_json(written)["data"], type(config.data)) != config.data:
        return None
    case = Case(experiment, base.folder, base.model, TokenStore(store), plan.read_splits(report))
    planned = plan.plan_experiment(case, machine, config.seed)
    speed = seconds_per_token(project)
    return Forecast(
        basis="tokens",
        memory=planned.memory,
        usable_memory=planned.usable_memory,
        parameters=planned.parameters,
        trainable_parameters=planned.trainable_parameters,
        steps=planned.steps,
        seconds=speed * planned.input_tokens * planned.parameters if speed else None,
    )


def _at_most(config: RunConfig, experiment: Experiment, base: _Base, machine: Machine, rows: int | None) -> Forecast:
    train, length = experiment.train, config.data.max_length
    batching = micro_batching_from(train, on_cpu=machine.device == "cpu")
    together = max(1, min(batching.max_rows, batching.max_tokens // length))
    each = architecture.dtype_bytes(base.folder, experiment.model, machine.device)
    memory = resources.forecast_memory(base.model, train, BatchShape(together, length, together * length), each)
    steps = train.max_steps
    if steps is None and rows is not None:
        steps = max(1, round(rows * train.epochs / train.rows_per_step))
    return Forecast(
        basis="length",
        memory=memory,
        usable_memory=int(train.memory_limit * 1e9) if train.memory_limit else machine.usable_memory,
        parameters=base.model.parameters,
        trainable_parameters=resources.trainable(base.model, train),
        steps=steps,
    )


def _timed(found: Forecast, config: RunConfig, experiment: Experiment, speed: float | None) -> Forecast:
    """The forecast with the longest time that its steps can take."""
    if not speed or not found.steps:
        return found
    tokens = found.steps * experiment.train.rows_per_step * config.data.max_length
    return msgspec.structs.replace(found, seconds=speed * tokens * found.parameters)


def seconds_per_token(project: Project) -> float | None:
    """Seconds for each token and parameter of the latest training on this machine; None before there was one."""
    timings = sorted(project.results.glob("*/train/*/timing.json"), key=lambda path: -path.stat().st_mtime)
    for path in timings[:5]:
        planned_file = path.parents[2] / "plan.json"
        try:
            timing = read_json(path, TrainingTiming)
            planned = read_json(planned_file, Plan).experiments[path.parent.name]
        except (UserError, OSError, KeyError, ValueError):
            continue
        if timing.resumed_from == 0 and planned.input_tokens:
            return timing.seconds / planned.input_tokens / planned.parameters
    return None
