"""One stage on one model, in a process of its own: `python one_stage.py STAGE BASE FOLDER` prints one line of JSON.

FOLDER holds what the stages before have left. A stage that begins with `hand_` makes the same product with the tool
that a person would use: mlx_lm.fuse, llama.cpp's converter on the fused folder, llama.cpp's quantizer.
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))

from snaketune import files  # noqa: E402
from snaketune.runtime.step import block_torch  # noqa: E402

TYPE = "q8_0"
ROWS = 24
RANK = 8


def prepare(base: Path, folder: Path) -> None:
    """An adapter of random weights on all linear layers, and test rows."""
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


def fetch(base: Path, folder: Path) -> None:
    from snaketune.config.sections import BaseConfig
    from snaketune.model.manifest import write_manifest

    described = BaseConfig(base=str(base), revision="main")
    write_manifest(folder / "base.json", described, str(base), patterns=("*.json", "*.model", "*.safetensors"))


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


def quantize(_: Path, folder: Path) -> None:
    from snaketune.engines.llama_cpp import quantize as quantizing

    quantizing.quantize(folder / "size-f16.gguf", folder / f"size-{TYPE}.gguf", TYPE, threads=1)


def fidelity(_: Path, folder: Path) -> None:
    from snaketune.package import fidelity as proof

    inputs = proof.FidelityInputs(
        model=folder / "base.json",
        adapter=folder / "adapter" / "adapters.safetensors",
        fused=folder / "fused.json",
        ggufs=[folder / "size-f16.gguf", folder / f"size-{TYPE}.gguf"],
        rows=folder / "test.jsonl",
    )
    settings = proof.FidelitySettings(
        rows=ROWS, num_prompts=8, max_new_tokens=32, min_gain_retained=0.9, chat_template=None
    )
    proof.run(inputs, settings, folder / "fidelity.json")


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


def hand_quantize(_: Path, folder: Path) -> None:
    import ctypes

    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, 1
    source, target = folder / "hand-f16.gguf", folder / f"hand-{TYPE}.gguf"
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    assert not failed


STAGES: dict[str, Callable[[Path, Path], None]] = {
    stage.__name__: stage
    for stage in (prepare, fetch, fuse, convert, quantize, fidelity, hand_fuse, hand_convert, hand_quantize)
}


def measured(work: Callable[[], None]) -> dict[str, Any]:
    """Run the work and return what it took of this process and of those it started; bytes are those of their calls."""
    started = time.monotonic()
    work()
    wall = time.monotonic() - started
    kinds = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    accounted = Path("/proc/self/io")  # of Linux; what is read through a memory map is not in it
    lines = accounted.read_text().splitlines() if accounted.is_file() else []
    io = {key: int(value) for key, value in (line.split(": ") for line in lines)}
    return {
        "seconds": wall,
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in kinds),
        "system_seconds": sum(one.ru_stime for one in kinds),
        "peak_bytes": max(one.ru_maxrss for one in kinds) * unit,
        "read": io.get("rchar"),
        "written": io.get("wchar"),
    }


if __name__ == "__main__":
    block_torch()
    chosen, base, folder = STAGES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    print(json.dumps(measured(lambda: chosen(base, folder))))
