"""Collects an importance matrix: how large the inputs of each weight matrix of a GGUF are, as llama.cpp computes them.

llama.cpp calls back for every operation before it computes it, and again with the result. The second operand of a
matrix product is what the weights are multiplied with, so the sums here are those of llama.cpp's own program
`llama-imatrix`, which reads them in the same way. Operands are read out of ggml's public structure `ggml_tensor`
(ggml.h), after its size has been compared with the one that the library says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import Llama
from llama_cpp._ggml import libggml

from snaketune.engines.interface import LoadOptions
from snaketune.engines.llama_cpp.gguf_model import open_gguf
from snaketune.errors import PackageError
from snaketune.files import StrPath
from snaketune.runtime.progress import progress

DIMENSIONS, SOURCES, NAME_BYTES, OPERATION_PARAMETERS = 4, 10, 64, 16
OBJECT_BYTES = 32  # of struct ggml_object, which ggml_tensor_overhead counts too
FLOAT32 = 0  # GGML_TYPE_F32
PRODUCT, PRODUCT_BY_EXPERT = b"MUL_MAT", b"MUL_MAT_ID"


class Tensor(ctypes.Structure):
    """ggml's `struct ggml_tensor`."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("shape", ctypes.c_int64 * DIMENSIONS),
    ("strides", ctypes.c_size_t * DIMENSIONS),
    ("operation", ctypes.c_int),
    ("parameters", ctypes.c_int32 * OPERATION_PARAMETERS),
    ("flags", ctypes.c_int32),
    ("operands", ctypes.POINTER(Tensor) * SOURCES),
    ("viewed", ctypes.c_void_p),
    ("view_offset", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * NAME_BYTES),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]
TensorPointer = ctypes.POINTER(Tensor)
for _name, _arguments, _result in (
    ("ggml_tensor_overhead", [], ctypes.c_size_t),
    ("ggml_nbytes", [TensorPointer], ctypes.c_size_t),
    ("ggml_op_name", [ctypes.c_int], ctypes.c_char_p),
    ("ggml_backend_tensor_get", [TensorPointer, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t], None),
):
    _function = getattr(libggml, _name)
    _function.argtypes, _function.restype = _arguments, _result


@dataclass
class Importance:
    """Of one tensor: the sum of each input's square, shape (matrices, inputs), and how many inputs each matrix had.

    There is one matrix, or one for each expert.
    """

    squares: np.ndarray
    counts: np.ndarray

    def mean_squares(self) -> np.ndarray:
        """What the quantizer takes, flat; 1 for an expert that no token was sent to, as in llama.cpp's quantizer."""
        counts = self.counts[:, None]
        means = np.divide(self.squares, counts, out=np.ones_like(self.squares), where=counts > 0)
        return np.ascontiguousarray(means, np.float32).ravel()


def collect(path: StrPath, rows: Sequence[Sequence[int]], *, threads: int) -> dict[str, Importance]:
    """Read `rows` (token ids) with the model in a GGUF, on the CPU; returns the importance by the tensors' names.

    Each row is a sequence of its own. The matrices of the blocks are collected and not the head, as in llama.cpp.
    """
    if ctypes.sizeof(Tensor) + OBJECT_BYTES != libggml.ggml_tensor_overhead():
        raise PackageError(
            "the installed llama.cpp is not the one that this version can read activations of",
            where="package.imatrix",
            fix="Run `make setup`, or set package.imatrix: false",
        )
    longest = max(map(len, rows))
    llama = open_gguf(path, LoadOptions(context_length=longest, threads=threads, exact=True))
    collector = _Collector()
    context = _open_context(llama, longest, collector)
    try:
        for row in progress(rows, "collecting activations"):
            _read(context, row)
            if collector.error:
                raise collector.error
    finally:
        llama_cpp.llama_free(context)
        llama.close()
    return dict(sorted(collector.found.items()))


def _open_context(llama: Llama, tokens: int, collector: _Collector) -> Any:
    """A context for one sequence, which tells the collector of each operation."""
    settings = llama_cpp.llama_context_params.from_buffer_copy(llama.context_params)
    settings.n_ctx = settings.n_batch = settings.n_ubatch = tokens
    settings.cb_eval = collector.callback
    context = llama_cpp.llama_init_from_model(llama.model, settings)
    if not context:
        raise PackageError(
            f"llama.cpp has no memory for {tokens} tokens", fix="Close other programs, or set package.imatrix: false"
        )
    return context


def _read(context: Any, ids: Sequence[int]) -> None:
    """Decode one sequence. All tokens ask for logits, so that the last block computes all of them."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    try:
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        failed = llama_cpp.llama_decode(context, batch)
    finally:
        llama_cpp.llama_batch_free(batch)
    if failed:
        raise PackageError(
            f"llama.cpp could not read {len(ids)} tokens (code {failed})",
            where="package.imatrix",
            fix="If memory is short, close other programs; otherwise set package.imatrix: false",
        )


class _Collector:
    """Adds up the squares of the inputs of every matrix product that llama.cpp computes."""

    def __init__(self) -> None:
        self.found: dict[str, Importance] = {}
        self.error: Exception | None = None
        self.callback = llama_cpp.llama_cpp.ggml_backend_sched_eval_callback(self._call)

    def _call(self, address: int, is_question: bool, _data: int) -> bool:
        """Answer whether a result is of interest, and then take it; an error is kept, since C cannot pass it on."""
        try:
            tensor = ctypes.cast(address, TensorPointer).contents
            if is_question:
                return _is_of_a_block(tensor)
            self._add(tensor)
        except Exception as error:
            self.error = error
            return False
        return True

    def _add(self, product: Tensor) -> None:
        weights, inputs = product.operands[0].contents, _values(product.operands[1])
        name = weights.name.decode()
        matrices = weights.shape[2]
        if name not in self.found:
            empty = np.zeros((matrices, inputs.shape[-1]))
            self.found[name] = Importance(empty, np.zeros(matrices, np.int64))
        kept = self.found[name]
        if libggml.ggml_op_name(product.operation) == PRODUCT_BY_EXPERT:
            experts = _values(product.operands[2], np.int32)[0, 0]  # tokens x experts of each
            # tokens x inputs that differ by expert (or one for all) x numbers
            each = np.broadcast_to(inputs[0], (*experts.shape, inputs.shape[-1]))
            for expert in np.unique(experts):
                chosen = each[experts == expert].astype(np.float64)
                kept.squares[expert] += np.square(chosen).sum(0)
                kept.counts[expert] += len(chosen)
        else:
            flat = inputs.reshape(matrices, -1, inputs.shape[-1]).astype(np.float64)
            kept.squares += np.square(flat).sum(1)
            kept.counts += flat.shape[1]


def _is_of_a_block(product: Tensor) -> bool:
    """Whether this is a product with a weight matrix of a block, of inputs in float32."""
    operation = libggml.ggml_op_name(product.operation)
    if operation not in (PRODUCT, PRODUCT_BY_EXPERT):
        return False
    weights, inputs = product.operands[0].contents, product.operands[1].contents
    return bool(weights.name.startswith(b"blk.") and inputs.type == FLOAT32)


def _values(pointer: Any, kind: type = np.float32) -> np.ndarray:
    """A copy of a tensor's values, its dimensions in numpy's order: the innermost last."""
    tensor = pointer.contents
    size = libggml.ggml_nbytes(pointer)
    content = (ctypes.c_char * size)()
    libggml.ggml_backend_tensor_get(pointer, content, 0, size)
    return np.ndarray(tuple(tensor.shape)[::-1], kind, content, strides=tuple(tensor.strides)[::-1])
