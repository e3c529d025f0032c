"""A process of its own, in which one of llama.cpp's converters runs unmodified; never imported.

Started by `gguf_conversion.py`.

Usage: converter_process.py LLAMA_CPP_FOLDER SCRIPT INSTEAD [option ...]. INSTEAD is `gguf_conversion.Instead` as JSON:
the pre-tokenizer to write if, and only if, the converter's table of hashes does not have the tokenizer's, and the base
and the adapter whose merge is converted in the place of the folder's weights, which are the same rounded to 16 bits.
"""

import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load_transformers_without_torch() -> None:
    """Have transformers, of which the converters use configurations and tokenizers, remember that there is no torch.

    Where it finds torch it loads its models' code and torch's compiler too: two of the five seconds of a conversion.
    """
    sys.modules["torch"] = None  # type: ignore[assignment]  # documented: None makes an import fail at once
    from transformers.utils import is_torch_available

    assert not is_torch_available()  # it keeps its first answer
    del sys.modules["torch"]


def main() -> None:
    folder, script, instead = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    load_transformers_without_torch()
    merged = merged_tensors(instead["merge"]) if instead["merge"] else {}
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]
    if instead["pretokenizer"]:
        name_pretokenizer(instead["pretokenizer"])
    if merged:
        replace_tensors(merged, instead["merge"]["outtype"], by_chance=instead["merge"]["by_chance"])
    sys.argv = [str(folder / script), *sys.argv[4:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


def merged_tensors(source: dict[str, str]) -> Mapping[str, object]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from snaketune.engines import get_exporter
    from snaketune.runtime import machine

    machine.keep_freed_memory()
    return get_exporter().merge(source["base"], source["adapter"], drop_prefix=source["drop_prefix"])


def name_pretokenizer(pre: str) -> None:
    from conversion import base

    known = base.TextModel.get_vocab_base_pre

    def named(self, tokenizer):  # type: ignore[no-untyped-def]
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            return pre

    base.TextModel.get_vocab_base_pre = named


def replace_tensors(merged: Mapping[str, object], outtype: str, *, by_chance: bool) -> None:
    import torch
    from conversion import base

    from snaketune.engines.sixteen_bit import dithered

    dtype = {"f16": "float16", "bf16": "bfloat16"}[outtype]

    def load(tensor: Any) -> Any:
        exact = tensor.load()
        is_rounded = by_chance and exact.ndim > 1  # vectors stay float32
        return torch.from_numpy(dithered(exact, dtype) if is_rounded else exact)

    indexed = base.ModelBase.index_tensors

    def lazily(tensor: Any) -> Any:
        meta = base.LazyTorchTensor.meta_with_dtype_and_shape(torch.float32, tensor.shape)
        return base.LazyTorchTensor(meta=meta, args=(), func=lambda: load(tensor))

    def index_merged(self, *args, **named):  # type: ignore[no-untyped-def]
        tensors = indexed(self, *args, **named)
        missing = sorted(set(tensors) - set(merged))
        if missing:
            raise ValueError(f"the merge has no tensors {missing[:3]}")
        return {name: lambda tensor=merged[name]: lazily(tensor) for name in tensors}

    base.ModelBase.index_tensors = index_merged


main()
