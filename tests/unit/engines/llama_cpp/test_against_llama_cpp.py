"""Private names of llama-cpp-python that the engine relies on, and what it needs of them."""

import llama_cpp
from snaketune.engines.interface import LoadOptions
from snaketune.engines.llama_cpp import gguf_model, quantize


def test_a_loaded_model_keeps_its_adapter_under_the_name_that_generation_reads(stories_gguf) -> None:
    llama = gguf_model.open_gguf(stories_gguf, LoadOptions(context_length=64))
    assert llama._lora_adapter is None
    assert isinstance(llama.lora_scale, float)
    assert llama_cpp.llama_adapter_lora_p_ctypes * 1  # a type of which arrays can be made


def test_the_log_callback_that_quantizing_restores_is_llama_cpps_own() -> None:
    from llama_cpp._logger import llama_log_callback

    assert isinstance(llama_log_callback, llama_cpp.llama_log_callback)
    assert quantize.llama_log_callback is llama_log_callback
