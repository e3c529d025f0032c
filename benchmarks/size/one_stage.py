"""One stage on one model, in a process of its own: `python one_stage.py STAGE BASE FOLDER` prints one line of JSON.

FOLDER holds what the stages before have left. A stage that begins with `hand_` makes the same product with the tool
that a person would use: mlx_lm.fuse, llama.cpp's converter on the fused folder, llama.cpp's quantizer.
`quantize_<type>` and `hand_quantize_<type>` make that type.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))

from snaketune import files  # noqa: E402
from snaketune.runtime.engine import choose_engine  # noqa: E402
from snaketune.runtime.step import ENGINE_VARIABLE, block_torch, selected_engine  # noqa: E402

if TYPE_CHECKING:
    from snaketune.config.sections import RunConfig

TYPES = ("q8_0", "q4_k_m")
ROWS = 24
TOKENIZED_ROWS = 1000
PROBED_ROWS = 4  # those of a first look; of a random adapter, which gains nothing, all rows would be read
ANSWERED_ROWS, NEW_TOKENS = 8, 32
RANK = 8
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, in which getrusage counts


def prepare(base: Path, folder: Path) -> None:
    """An adapter of random weights on all linear layers, and rows."""
    import families
    import numpy as np
    from real_shapes import tensors as shapes
    from safetensors.numpy import save_file

    draw = np.random.default_rng(7)
    tensors: dict[str, np.ndarray] = {}
    config = files.read_json(base / "config.json")
    for name, shape in shapes(config):
        if name.endswith("proj.weight"):
            outputs, inputs = shape
            stem = name.removesuffix(".weight")
            tensors[f"{stem}.lora_a"] = draw.uniform(-1, 1, (inputs, RANK)).astype(np.float32) / inputs**0.5
            tensors[f"{stem}.lora_b"] = draw.standard_normal((RANK, outputs), dtype=np.float32) * np.float32(2e-4)
    adapter = folder / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    save_file(tensors, adapter / "adapters.safetensors")
    settings = {"rank": RANK, "scale": 4.0, "dropout": 0.0}
    stated = {"fine_tune_type": "lora", "num_layers": config["num_hidden_layers"], "lora_parameters": settings}
    files.write_json(adapter / "adapter_config.json", stated)
    files.write_jsonl(folder / "test.jsonl", families.conversations(ROWS))
    files.write_jsonl(folder / "train.jsonl", families.conversations(TOKENIZED_ROWS))


def fetch(base: Path, folder: Path) -> None:
    from snaketune.model.manifest import BaseConfig, write_manifest

    described = BaseConfig(base=str(base), revision="main")
    write_manifest(folder / "base.json", described, str(base), patterns=("*.json", "*.model", "*.safetensors"))


def tokenize(_: Path, folder: Path) -> None:
    from snaketune.tokens.tokenize import TokenizeConfig, tokenize_splits

    splits = ("train", "valid", "test")
    tokenize_splits(
        rows={split: folder / f"{'train' if split == 'train' else 'test'}.jsonl" for split in splits},
        manifest=folder / "base.json",
        config=msgspec.convert(
            {
                "model": {"chat_template": None, "num_virtual_tokens": 0},
                "data": {"max_length": 2048, "on_too_long": "truncate"},
            },
            TokenizeConfig,
        ),
        stores={split: folder / "tokens" / f"{split}.safetensors" for split in splits},
        report=folder / "tokens" / "tokens.json",
    )


def fuse(_: Path, folder: Path) -> None:
    from snaketune.package import fused_model

    adapter = folder / "adapter" / "adapters.safetensors"
    targets = folder / "fused", folder / "fused.json"
    fused_model.fuse_model(folder / "base.json", adapter, *targets, chat_template=None, dtype="auto")


def convert(_: Path, folder: Path) -> None:
    from snaketune.package import gguf_conversion

    adapter = folder / "adapter" / "adapters.safetensors"
    source = gguf_conversion.merge_source(folder / "fused.json", folder / "base.json", adapter)
    gguf_conversion.convert(folder / "fused", folder / "size-f16.gguf", name="size", merge=source)


def quantize(kind: str, _: Path, folder: Path) -> None:
    from snaketune.engines.llama_cpp import quantize as quantizing

    quantizing.quantize(folder / "size-f16.gguf", folder / f"size-{kind}.gguf", kind, threads=1)


def fidelity(_: Path, folder: Path) -> None:
    from snaketune.package import fidelity as proof

    inputs = proof.FidelityInputs(
        model=folder / "base.json",
        adapter=folder / "adapter" / "adapters.safetensors",
        fused=folder / "fused.json",
        ggufs=[folder / f"size-{kind}.gguf" for kind in ("f16", *TYPES)],
        rows=folder / "test.jsonl",
    )
    settings = proof.FidelitySettings(
        rows=PROBED_ROWS, num_prompts=2, max_new_tokens=32, min_gain_retained=0.9, chat_template=None
    )
    proof.run(inputs, settings, folder / "fidelity.json")


def _configuration(base: Path) -> RunConfig:
    """A configuration with the defaults of the schema and few, short answers."""
    from snaketune.config import schema
    from snaketune.config.sections import RunConfig

    given = {
        "run": "size",
        "model": {"base": str(base)},
        "evaluate": {"max_rows": ANSWERED_ROWS, "max_new_tokens": NEW_TOKENS, "max_hours": None},
    }
    return msgspec.convert(schema.complete(given), RunConfig)


def use_chosen_engine(base: Path) -> None:
    """Let this process compute with the engine that a run over this base has here."""
    config = _configuration(base)
    os.environ[ENGINE_VARIABLE] = choose_engine(config, [config.model]).name
    if selected_engine() != "torch":
        block_torch()


def answer(base: Path, folder: Path) -> None:
    from snaketune.config import experiments
    from snaketune.evaluate import predict, step_config
    from snaketune.evaluate.variants import ModelVariant

    config = _configuration(base)
    variant = ModelVariant(f"gguf-{TYPES[0]}", model=folder / "base.json", gguf=folder / f"size-{TYPES[0]}.gguf")
    settings = step_config.prediction_config(config, experiments.expand(config)[experiments.MAIN], variant.name)
    outputs = predict.PredictionOutputs(predictions=folder / "evaluation" / "predictions.jsonl")
    predict.run(variant, predict.PredictionInputs(rows=folder / "test.jsonl"), outputs, settings)


def score(base: Path, folder: Path) -> None:
    from snaketune.evaluate import score as scoring
    from snaketune.evaluate import step_config

    scoring.run(
        predictions=folder / "evaluation" / "predictions.jsonl",
        scores=folder / "scores.json",
        config=step_config.scoring_config(_configuration(base)),
    )


def hand_fuse(base: Path, folder: Path) -> None:
    target = folder / "hand"
    sys.argv = ["fuse", "--model", str(base), "--adapter-path", str(folder / "adapter"), "--save-path", str(target)]
    if "quantization" in files.read_json(base / "config.json"):
        sys.argv.append("--dequantize")
    runpy.run_module("mlx_lm.fuse", run_name="__main__")


def hand_convert(_: Path, folder: Path) -> None:
    from snaketune.package import gguf_conversion

    # the converter's own options and nothing of a merge: what `convert_hf_to_gguf.py --outtype f16` does
    gguf_conversion.convert(folder / "fused", folder / "hand-f16.gguf", name="hand", outtype="f16")


def hand_quantize(kind: str, _: Path, folder: Path) -> None:
    import ctypes

    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}"), 1
    source, target = folder / "size-f16.gguf", folder / f"hand-{kind}.gguf"
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    assert not failed


STAGES: dict[str, Callable[[Path, Path], None]] = {
    stage.__name__: stage
    for stage in (prepare, fetch, tokenize, fuse, convert, fidelity, answer, score, hand_fuse, hand_convert)
}
for kind in TYPES:
    STAGES |= {f"quantize_{kind}": partial(quantize, kind), f"hand_quantize_{kind}": partial(hand_quantize, kind)}


def _figures(path: str) -> dict[str, int]:
    """The numbers of a file of Linux's /proc, by their names; none elsewhere."""
    lines = Path(path).read_text().splitlines() if Path(path).is_file() else []
    pairs = (line.replace(" kB", "").split(":") for line in lines if ":" in line)
    return {key: int(value) for key, value in pairs if value.strip().isdigit()}


def _own_peak() -> int:
    """Resident bytes of this process at its peak; Linux's getrusage counts those of the process that started it too."""
    own = _figures("/proc/self/status").get("VmHWM")
    return own * 1024 if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def measured(work: Callable[[], None]) -> dict[str, Any]:
    """Run the work and return what it took of this process and of those it started; bytes are those of their calls."""
    started = time.monotonic()
    work()
    wall = time.monotonic() - started
    kinds = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    io = _figures("/proc/self/io")  # what is read through a memory map is not in it
    return {
        "seconds": wall,
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in kinds),
        "system_seconds": sum(one.ru_stime for one in kinds),
        "peak_bytes": max(_own_peak(), kinds[1].ru_maxrss * RSS_UNIT),
        "read": io.get("rchar"),
        "written": io.get("wchar"),
    }


if __name__ == "__main__":
    chosen, base, folder = STAGES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    use_chosen_engine(base)
    print(json.dumps(measured(lambda: chosen(base, folder))))
