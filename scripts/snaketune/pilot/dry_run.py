"""The whole chain on ten rows before anything long is started: train, save, load again, convert.

A wrong layer name, an architecture that mlx-lm cannot train, an adapter that does not come back as it was saved or that
llama.cpp's converter refuses: each is found here, in a minute, instead of after the night. How fast this machine
packages a model is measured on the way: a part of the merge is made, and a few weights are quantized to each type. For
a large model, how fast llama.cpp reads and answers is measured too, with a small one of each type.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from snaketune.config.products import NEEDS_IMATRIX
from snaketune.contracts.plan import DryRun, DryRunStep, DryRunTiming, GGUFSpeed, Plan
from snaketune.contracts.train import TrainingJob, TrainingOutputs, TrainingSummary
from snaketune.engines import get_exporter, get_trainer, load_model
from snaketune.engines.interface import LoadOptions, LoglikelihoodRequest, MergedTensor
from snaketune.engines.llama_cpp import speed
from snaketune.engines.sixteen_bit import MergedNumbers, Sample, write
from snaketune.errors import TrainingError
from snaketune.files import StrPath, read_json, scratch, write_json
from snaketune.package import gguf_conversion
from snaketune.plan.duration import CONVERTER_SECONDS, MERGED_PER_SECOND, Types
from snaketune.runtime import machine
from snaketune.tokens.chat_template import Rendered
from snaketune.tokens.token_store import TokenStore, write_store
from snaketune.train.batches import nested_subset

ROWS = 10
MAX_STEPS = 2
TOLERANCE = 0.02  # relative; bfloat16 rounds differently in a batch and alone
SAMPLE = 1 << 27  # weights that are merged, 256 MB in 16 bits
LARGEST = SAMPLE // 4  # no embedding of a large vocabulary, which would be all of the sample
LARGE = 2e8  # weights from which answering with a GGUF takes long enough to be measured


@dataclass(frozen=True)
class FilesToMake:
    """What the run will make, by the settings package.gguf and package.imatrix."""

    gguf: Sequence[str]
    imatrix: bool | str


def run(job: TrainingJob, *, plan: StrPath, report: StrPath, threads: int, files: FilesToMake) -> DryRun:
    """Write dry_run.json, one entry a step with what it showed, and return it; a step that fails raises its own error.

    job: the full training, of which ten rows and two steps are made, in a folder that is removed again. What packaging
    and answering take on this machine goes into dry_run/timing.json beside the report.
    """
    steps: list[DryRunStep] = []
    converter, merged = CONVERTER_SECONDS, MERGED_PER_SECOND
    with scratch(report) as folder:
        short = msgspec.structs.replace(
            job,
            train_tokens=str(_rows(job.train_tokens, folder / "train.safetensors", job.seed)),
            valid_tokens=str(_rows(job.valid_tokens, folder / "valid.safetensors", job.seed)),
            config=job.config.for_dry_run(MAX_STEPS),
            outputs=TrainingOutputs.in_folder(folder),
        )
        summary = get_trainer().train(short)
        _say(steps, "train", f"{summary.steps} steps on {ROWS} rows")
        _say(steps, "save and load", _loaded_again(short, summary))
        if job.config.method == "lora":
            lora, adapter = folder / "lora.gguf", short.outputs.adapter
            started = time.monotonic()
            gguf_conversion.export_adapter(
                model=job.model, adapter=adapter, peft=folder / "peft", lora=lora, threads=threads
            )
            converter = time.monotonic() - started
            base = Path(read_json(job.model)["folder"]).expanduser()
            merged = merged_per_second(base, Path(adapter).parent, folder / "merged")
            _say(steps, "convert", f"llama.cpp's converter took the adapter ({lora.stat().st_size:,} bytes)")
        else:
            _say(steps, "convert", f"an adapter of method {job.config.method} is converted only once it is fused")
        answered = gguf_speeds(read_json(plan, type=Plan), files, folder, threads)
    types = Types.of(files.gguf, files.imatrix)
    speeds = DryRunTiming(
        converter_seconds=round(converter, 3),
        merged_per_second=merged,
        quantized_per_second={kind: speed.weights_per_second(kind, imatrix=False) for kind in types.plain},
        calibrated_per_second={kind: speed.weights_per_second(kind, imatrix=True) for kind in types.calibrated},
        gguf=answered,
    )
    write_json(timing(report), speeds)
    found = DryRun(rows=ROWS, steps=steps)
    write_json(report, found)
    return found


def timing(report: StrPath) -> Path:
    """Where the times of a dry run lie that wrote this report."""
    return Path(report).with_suffix("") / "timing.json"


def _rows(store: StrPath, target: Path, seed: int) -> Path:
    """The first ten rows of a store, as a store of their own."""
    rows = TokenStore(store)
    chosen = nested_subset(rows, ROWS, seed)
    pairs = (rows.row(int(row)) for row in chosen)
    write_store(target, [(Rendered(ids.tolist(), trained.tolist()), 1.0) for ids, trained in pairs], rows.virtual_ids)
    return target


def _loaded_again(job: TrainingJob, summary: TrainingSummary) -> str:
    """Compare the loss that the trainer measured with that of the adapter loaded from its file."""
    rows = TokenStore(job.valid_tokens)
    base, adapter = Path(read_json(job.model)["folder"]).expanduser(), Path(job.outputs.adapter).parent
    loaded = load_model(base, LoadOptions(dtype=job.dtype, adapter=adapter))
    found = -sum(loaded.loglikelihood(_requests(rows))) / int(rows.num_target_tokens.sum())
    expected = summary.best_validation_loss
    assert expected is not None  # the base's loss is finite, or the training raises
    if not np.isclose(found, expected, rtol=TOLERANCE):
        raise TrainingError(
            f"the saved adapter has a validation loss of {found:.4f}, and had {expected:.4f} when it was trained",
            where="train",
            why="What would be packaged and used is not what is trained",
            fix="Try train.target_modules all-linear, method lora; if it stays, this architecture cannot be used here",
        )
    return f"validation loss {found:.4f} after loading, {expected:.4f} when trained"


def _requests(rows: TokenStore) -> Sequence[LoglikelihoodRequest]:
    pairs = (rows.row(number) for number in range(len(rows)))
    return [LoglikelihoodRequest(ids.tolist(), trained.tolist()) for ids, trained in pairs]


def _say(steps: list[DryRunStep], step: str, message: str) -> None:
    steps.append(DryRunStep(step=step, message=message))
    print(f"snaketune: dry run, {step}: {message}", file=sys.stderr)


def merged_per_second(base: StrPath, adapter: StrPath, folder: Path) -> float:
    """Weights that are read, merged, rounded, written and hashed in a second.

    base, adapter: folders; folder: where the merged sample goes.
    """
    machine.keep_freed_memory()  # as the steps do
    tensors = dict(_sampled(get_exporter().merge(base, adapter)))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    started = time.monotonic()
    # bfloat16 holds every weight that is finite; rounding to float16 takes up to 2 ns a weight more
    written = write(folder, "bfloat16", shapes, lambda name: _numbers(tensors[name]))
    return written.parameters / max(1e-6, time.monotonic() - started)


def _sampled(tensors: dict[str, MergedTensor]) -> Iterable[tuple[str, MergedTensor]]:
    taken = 0
    for name, tensor in tensors.items():
        size = int(np.prod(tensor.shape))
        if size > LARGEST or taken + size > SAMPLE:
            continue
        taken += size
        yield name, tensor


def _numbers(tensor: MergedTensor) -> MergedNumbers:
    value = tensor.load()
    return MergedNumbers(value.reshape(-1), Sample(value[:1], None))


def gguf_speeds(plan: Plan, files: FilesToMake, folder: Path, threads: int) -> dict[str, GGUFSpeed]:
    """What llama.cpp takes for each weight, by type; nothing for small models, which take no time."""
    if max(planned.parameters for planned in plan.experiments.values()) < LARGE:
        return {}
    kinds = [kind for kind in files.gguf if kind not in NEEDS_IMATRIX]
    return speed.seconds_per_weight(sorted({"f16", *kinds}), folder, threads)
