"""A process of its own, in which one of llama.cpp's converters runs unmodified; never imported.

Started by `gguf_conversion.py`.

Usage: converter_process.py LLAMA_CPP_FOLDER SCRIPT PRE [option ...]. PRE is `-`, or the name of the pre-tokenizer to
write if, and only if, the converter's table of hashes does not have the tokenizer's.
"""

import runpy
import sys
from pathlib import Path


def load_transformers_without_torch() -> None:
    """Have transformers, of which the converters use configurations and tokenizers, remember that there is no torch.

    Where it finds torch it loads its models' code and torch's compiler too: two of the five seconds of a conversion.
    """
    sys.modules["torch"] = None  # type: ignore[assignment]  # documented: None makes an import fail at once
    from transformers.utils import is_torch_available

    assert not is_torch_available()  # it keeps its first answer
    del sys.modules["torch"]


def main() -> None:
    folder, script, pre = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]
    load_transformers_without_torch()
    if pre != "-":
        from conversion import base

        known = base.TextModel.get_vocab_base_pre

        def named(self, tokenizer):  # type: ignore[no-untyped-def]
            try:
                return known(self, tokenizer)
            except NotImplementedError:
                return pre

        base.TextModel.get_vocab_base_pre = named
    sys.argv = [str(folder / script), *sys.argv[4:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
