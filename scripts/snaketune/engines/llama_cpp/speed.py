"""How fast this machine quantizes with llama.cpp, reads and answers: measured on weights that are drawn."""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import Llama

from snaketune.contracts.plan import GGUFSpeed
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest, LoadOptions
from snaketune.engines.llama_cpp import generation, gguf_model
from snaketune.engines.llama_cpp.quantize import quantize

GGML_TYPES = 43  # of ggml's enum ggml_type in the pinned version
TIMED_ROWS, TIMED_WIDTH, TIMES = 64, 4096, 4  # of the matrix whose quantization is timed, and how often
READ, ALONE, TOGETHER = 256, 16, 6  # tokens of a row, and new tokens of one answer and of each of a batch
F16 = 1  # ggml's number of the type
F32 = 0
ALIGNMENT = 32
VOCABULARY = 512
DRAWN = 1 << 22  # numbers; all matrices are made of them


@dataclass(frozen=True)
class DrawnShape:
    """A Llama of random weights; as it stands, one that no processor's own memory holds."""

    width: int = 2048
    inner: int = 8192
    heads: int = 32
    kv_heads: int = 8
    layers: int = 2

    def settings(self) -> dict[str, str | int | float]:
        """The keys of its header, without a vocabulary."""
        return {
            "general.architecture": "llama",
            "llama.context_length": 2 * READ,
            "llama.embedding_length": self.width,
            "llama.block_count": self.layers,
            "llama.feed_forward_length": self.inner,
            "llama.attention.head_count": self.heads,
            "llama.attention.head_count_kv": self.kv_heads,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.vocab_size": VOCABULARY,
            "tokenizer.ggml.model": "no_vocab",
        }

    def tensors(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """The name of each tensor, and its rows and their width."""
        width, keys = self.width, self.width // self.heads * self.kv_heads
        yield "token_embd.weight", (VOCABULARY, width)
        yield "output_norm.weight", (1, width)
        for layer in range(self.layers):
            for name, shape in {
                "attn_norm": (1, width),
                "attn_q": (width, width),
                "attn_k": (keys, width),
                "attn_v": (keys, width),
                "attn_output": (width, width),
                "ffn_norm": (1, width),
                "ffn_gate": (self.inner, width),
                "ffn_up": (self.inner, width),
                "ffn_down": (width, self.inner),
            }.items():
                yield f"blk.{layer}.{name}.weight", shape


LARGE = DrawnShape()


def weights_per_second(type_name: str, *, imatrix: bool) -> float:
    """How many weights a thread of this machine quantizes in a second, to the type that most of such a file has.

    imatrix: with an importance matrix, which takes up to three times as long.
    """
    library = ctypes.CDLL(str(next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))))
    library.ggml_type_name.restype = ctypes.c_char_p
    sizes = [ctypes.c_int64] * 3  # the first number, rows, their width
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *sizes, ctypes.c_void_p]
    numbers = {(library.ggml_type_name(number) or b"").decode().lower(): number for number in range(GGML_TYPES)}
    weights = np.random.default_rng(1).standard_normal((TIMED_ROWS, TIMED_WIDTH), dtype=np.float32)
    quantized = np.zeros(weights.nbytes, np.uint8)
    alike = np.ones(TIMED_WIDTH, np.float32)
    source, target, importance = weights.ctypes.data, quantized.ctypes.data, alike.ctypes.data if imatrix else None
    number = _main_type(type_name, numbers)
    library.ggml_quantize_init(number)  # tables that are made once
    library.ggml_quantize_chunk(number, source, target, 0, 1, TIMED_WIDTH, importance)
    times = []
    for _ in range(TIMES):  # other programs can only make it slower
        started = time.perf_counter()
        library.ggml_quantize_chunk(number, source, target, 0, TIMED_ROWS, TIMED_WIDTH, importance)
        times.append(time.perf_counter() - started)
    return weights.size / min(times)


def _main_type(type_name: str, numbers: dict[str, int]) -> int:
    """ggml's number of the type that most tensors of such a file have: q4_k of q4_k_m, iq3_s of iq3_m."""
    family = type_name.rpartition("_")[0]
    named = [type_name, family, f"{family}_s"]
    return next((numbers[name] for name in named if name in numbers), numbers["q8_0"])


def seconds_per_weight(
    types: Iterable[str], folder: Path, threads: int, shape: DrawnShape = LARGE
) -> dict[str, GGUFSpeed]:
    """What llama.cpp takes with a file of each type, for each weight; a model that is drawn is written to `folder`."""
    source = folder / "drawn-f16.gguf"
    weights = write_drawn_model(source, shape)
    found = {}
    for kind in types:
        path = source
        if kind != "f16":
            path = folder / f"drawn-{kind}.gguf"
            quantize(source, path, kind, threads=threads)
        llama = gguf_model.open_gguf(path, LoadOptions(context_length=2 * READ, threads=threads))
        try:
            found[kind] = _speed(llama, weights)
        finally:
            llama.close()
    return found


def _speed(llama: Llama, weights: int) -> GGUFSpeed:
    row = [number % VOCABULARY for number in range(READ)]

    def read() -> None:
        list(gguf_model.next_token_logprobs(llama, [row], [[READ - 1]]))

    def answer(rows: int, tokens: int) -> None:
        requests = [GenerationRequest([1 + number, 2], tokens) for number in range(rows)]
        list(generation.generate(llama, requests, frozenset(), Sampling()))

    read()  # the file is in memory after that
    batch = generation.BATCH
    return GGUFSpeed(
        read=_seconds(read) / READ / weights,
        alone=_seconds(lambda: answer(1, ALONE)) / ALONE / weights,
        together=_seconds(lambda: answer(batch, TOGETHER)) / (batch * TOGETHER) / weights,
    )


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write_drawn_model(path: Path, shape: DrawnShape) -> int:
    """Write a model as a 16-bit GGUF and return how many weights it has; ggml's docs/gguf.md describes the format."""
    tensors, settings = dict(shape.tensors()), shape.settings()
    drawn = np.random.default_rng(1).standard_normal(DRAWN, dtype=np.float32) * np.float32(0.02)
    pool = np.resize(drawn.astype(np.float16), max(rows * width for rows, width in tensors.values()))
    header = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(settings))]
    header += [_string(key) + _value(value) for key, value in settings.items()]
    offset = 0
    for name, (rows, width) in tensors.items():
        is_vector = rows == 1
        dimensions = (width,) if is_vector else (width, rows)
        layout = f"<I{len(dimensions)}QIQ"
        kind = F32 if is_vector else F16
        header.append(_string(name) + struct.pack(layout, len(dimensions), *dimensions, kind, offset))
        offset += _padded(rows * width * (4 if is_vector else 2))
    written = b"".join(header)
    with open(path, "wb") as out:
        out.write(written.ljust(_padded(len(written)), b"\0"))
        for rows, width in tensors.values():
            values = np.ones(width, np.float32) if rows == 1 else pool[: rows * width]
            out.write(values.tobytes().ljust(_padded(values.nbytes), b"\0"))
    return sum(rows * width for rows, width in tensors.values())


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value: str | float) -> bytes:
    """A value with the number of its type before it."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    return struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
