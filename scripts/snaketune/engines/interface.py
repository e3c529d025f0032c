"""What an engine offers to the rest of the library, as Protocols; `snaketune.engines` finds one by its name.

An engine is a package beside this file (`mlx`, `torch`, `llama_cpp`) with one module for each part that it has:

    language_model.py    load(path, options) -> AdaptedModel     (of llama.cpp: gguf_model.py -> GGUFModel)
    train.py             Trainer: train
    export.py            Exporter: fuse, merge, peft_adapter; Quantizer: quantize_base
    product.py           ProductQuantizer: quantize (mlx alone)
    served_tokenizer.py  load(path) -> ServedTokenizer (mlx alone)
    reference_merge.py   ReferenceMerger: load
    capabilities.py      Capabilities: what fits and what does not, the device

A part is a module, so that a step depends on the parts that it uses and on no others: a change of an engine's
generation does not make its trainings stale. Everything that crosses this border is a plain Python value or a numpy
array. Token ids go in and come out; no engine tokenizes.

The words are those of lm-evaluation-harness (`LM.loglikelihood`, `LM.generate_until`, requests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from snaketune.config.products import MLXType
from snaketune.contracts.data import ModelManifest
from snaketune.contracts.package import CalibrationResult, Rounding
from snaketune.engines.decoding import Sampling
from snaketune.files import StrPath
from snaketune.runtime.machine import DeviceInfo

if TYPE_CHECKING:
    import numpy as np

    from snaketune.contracts.train import TrainingJob, TrainingSummary
    from snaketune.train.metrics_log import TrainingCallback


class LoglikelihoodRequest(NamedTuple):
    """A row to score. `ids` and `loss_mask` have the row's length; the first token is never scored."""

    ids: Sequence[int]
    loss_mask: Sequence[bool]


class GenerationRequest(NamedTuple):
    """A prompt to continue by at least one and at most `max_new_tokens` tokens; `seed` is that of its draws."""

    prompt_ids: Sequence[int]
    max_new_tokens: int
    seed: int = 0


class Completion(NamedTuple):
    """What a model generated for the request at `request_index`; `ids` are the new tokens without the stop token."""

    request_index: int
    ids: list[int]
    stopped: bool
    """Whether a stop token ended it; otherwise it reached its limit."""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded. An engine ignores what has no meaning for it, and says so below.

    dtype: `auto`, `float32`, `bfloat16` or `float16`; auto is what suits the machine. A GGUF has its own types.
    adapter: over the model: a folder in mlx-lm's format, for llama.cpp a GGUF LoRA.
    context_length: tokens that the longest request needs, prompt and completion; only llama.cpp reserves memory for it.
    threads: only llama.cpp is told; MLX decides for itself.
    exact: computes everything in float32, for llama.cpp its keys and values too. float16 there alone moves
    log-probabilities by up to 0.2 where a model is very sure of itself.
    layer_by_layer: keeps one block at a time in memory. Such a model has `next_token_logprobs` alone.
    """

    dtype: str = "auto"
    adapter: StrPath | None = None
    context_length: int = 0
    threads: int = 1
    exact: bool = False
    layer_by_layer: bool = False


class LanguageModel(Protocol):
    """A loaded model. Log-probabilities are natural logarithms (nats)."""

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[float]:
        """The sum over a row's masked tokens of ln p(token | all tokens before it), row by row in the given order.

        0.0 for a row without a masked token. A row must fit into the context. A damaged model gives NaN or infinity,
        which is not an error here. Raises EvaluationError when the engine fails, for instance for want of memory.
        """
        ...

    def generate(
        self, requests: Sequence[GenerationRequest], *, stop_ids: Set[int], sampling: Sampling
    ) -> Iterator[Completion]:
        """Completions in the order in which they end, each exactly once.

        A completion depends on its own request alone, not on the others or their order. Raises EvaluationError when the
        engine fails.
        """
        ...

    def stream(self, request: GenerationRequest, *, stop_ids: Set[int], sampling: Sampling) -> Iterator[int]:
        """The tokens of one completion as they are drawn, without the stop token: those that `generate` gives."""
        ...

    def next_token_logprobs(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """For each row, ln p(next token | ids up to and including a position) over the whole vocabulary.

        positions: for each row at least one, ascending. Yields float32 arrays of shape (len(positions[i]), vocabulary),
        one at a time, because all together may not fit into memory.
        """
        ...

    def close(self) -> None:
        """Free the memory; the model cannot be used after that."""
        ...


class AdaptedModel(LanguageModel, Protocol):
    """A model of an engine that trains, perhaps with an adapter over it."""

    def adapter_norm_ratio(self) -> float | None:
        """Frobenius norm of the adapter's update over that of the weights that it changes; None without an adapter.

        After prompt tuning it is the norm of the longest learned vector over that of a row of the embedding.
        """
        ...

    def without_adapter(self) -> AbstractContextManager[bool]:
        """The same model as its base, within a `with` block; False where it is not: then the base must be loaded.

        So it is for a full fine-tune, which has changed the weights themselves. After prompt tuning the model is its
        base wherever no virtual token occurs, so rows must have none.
        """
        ...


class TextReader(Protocol):
    """How a product reads text, with the tokenizer that it carries."""

    def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """The ids that it makes of a text, special tokens by their names."""
        ...

    def bos_token(self) -> int:
        """The id that it puts before a text where the file says so; -1 where there is none."""
        ...

    def ends_generation(self, token: int) -> bool:
        """Whether it stops at this token."""
        ...


class GGUFModel(LanguageModel, TextReader, Protocol):
    """A model from a GGUF file, which carries a tokenizer of its own."""


class ServedTokenizer(TextReader, Protocol):
    """The tokenizer that mlx-lm makes of a folder."""

    def template(self) -> str | None:
        """The chat template in the folder."""
        ...


class ModelLoader(Protocol):
    """The part `language_model` of an engine."""

    def load(self, path: StrPath, options: LoadOptions = ...) -> LanguageModel:
        """Load a model: a folder in Hugging Face format, for llama.cpp a GGUF file.

        Raises ModelError (PackageError for a GGUF) when it cannot be loaded or the adapter does not fit.
        """
        ...


@dataclass(frozen=True)
class FusedWeights:
    """The weights that `Exporter.fuse` wrote: their 16-bit format, the files' names and the number of parameters.

    digests: hex SHA-256 of the files that were hashed while they were written; rounding: what each 16-bit format would
    lose of the merged weights, where it was measured; config: what config.json must say otherwise than the base's.
    """

    dtype: str
    files: list[str]
    parameters: int
    digests: dict[str, str] = field(default_factory=dict)
    rounding: dict[str, Rounding] = field(default_factory=dict)
    config: dict[str, object] = field(default_factory=dict)


class MergedTensor(NamedTuple):
    """A tensor of a merged model: its shape, and a function that computes it in float32, to be called once."""

    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter in PEFT's layout: float32 tensors by PEFT's names, and its adapter_config.json."""

    tensors: dict[str, np.ndarray]
    config: dict[str, Any]


class Exporter(Protocol):
    """The part `export` of an engine: from what it trains to formats that other programs read."""

    def fuse(
        self, base: StrPath, adapter: StrPath, target: StrPath, *, dtype: str = "auto", drop_prefix: str = ""
    ) -> FusedWeights:
        """Merge an adapter folder into the base folder; write safetensors with Hugging Face names into `target`.

        Computed in float32 and rounded once; a quantized base is dequantized. dtype: `float16`, `bfloat16`, or what
        suits the base. drop_prefix: left out of the tensors' names. Raises ModelError for an adapter that does not fit,
        PackageError for weights that are not finite in 16 bits.
        """
        ...

    def merge(self, base: StrPath, adapter: StrPath, *, drop_prefix: str = "") -> dict[str, MergedTensor]:
        """The same tensors by name, before they are rounded: a GGUF is made from these."""
        ...

    def peft_adapter(self, adapter: StrPath) -> PeftAdapter:
        """An adapter folder in PEFT's layout; raises PackageError for one that PEFT's LoRA cannot express."""
        ...


class ReferenceMerger(Protocol):
    """The part `reference_merge` of an engine: what a fused model is compared with."""

    def load(self, path: StrPath, options: LoadOptions, dtype: str) -> LanguageModel:
        """Load a model with its adapter merged by code of its own, independent of `Exporter.fuse`.

        All weights are rounded to `dtype`, a 16-bit format; the model computes in float32.
        """
        ...


class Quantizer(Protocol):
    """The part `export` of an engine, as far as it quantizes a base."""

    def quantize_base(
        self, manifest: StrPath, model: dict[str, Any], folder: StrPath, quantized_manifest: StrPath
    ) -> ModelManifest:
        """Quantize the base of a manifest as `model["quantize"]` says, into `folder`, and write its manifest.

        Raises ModelError for a base that is quantized already and for sizes that the engine does not have.
        """
        ...


@dataclass(frozen=True)
class MergeFolders:
    """The folders that a merge comes from, and what is left out of its tensors' names; fused: the same in 16 bits."""

    base: StrPath
    adapter: StrPath
    fused: StrPath
    drop_prefix: str = ""


@dataclass(frozen=True)
class CalibrationRows:
    """What a calibrated quantization reads: token ids of training rows, and validation rows that judge it."""

    train: Sequence[Sequence[int]]
    valid: Sequence[LoglikelihoodRequest]
    seed: int


@dataclass(frozen=True)
class QuantizedWeights:
    """What `ProductQuantizer.quantize` wrote: the files' names, `quantization` of config.json, and the outcome."""

    files: list[str]
    quantization: dict[str, object]
    bits_per_weight: float
    calibration: CalibrationResult | None


class ProductQuantizer(Protocol):
    """The part `product` of MLX: quantized folders to hand over."""

    def quantize(
        self, source: MergeFolders, kind: MLXType, target: StrPath, *, dtype: str, calibration: CalibrationRows | None
    ) -> QuantizedWeights:
        """Quantize the unrounded merge into safetensors in `target`.

        dtype: the 16-bit format of scales and of what is not quantized. calibration: for a type that asks for it; what
        it gives is kept only if its loss on the validation rows is lower.
        """
        ...


class Trainer(Protocol):
    """The part `train` of an engine."""

    def train(self, job: TrainingJob, callback: TrainingCallback | None = None) -> TrainingSummary:
        """Train as the job says, write its outputs, and return the summary, which is also in summary.json.

        What is in the outputs depends on the job alone: the same bytes for the same job on the same machine, however
        often the training was interrupted. It resumes from the newest complete checkpoint of the same job. Raises
        TrainingError where it cannot go on (it diverged, was stopped by a signal, has no rows), ConfigError for a
        setting that does not fit the model, ResourceError for want of memory.
        """
        ...


class ModelLibrary(NamedTuple):
    """The library that an engine's models come from, and what it knows; model_types: as config.json names them."""

    package: str
    version: str
    model_types: frozenset[str]

    @property
    def name(self) -> str:
        """The package with its version."""
        return f"{self.package} {self.version}"


class FourBitBase(NamedTuple):
    """What to set for a base that memory holds in four bits, as words for a person, and the mode that it then has."""

    words: str
    mode: str


class Capabilities(Protocol):
    """The part `capabilities` of an engine: facts about it that a forecast needs, without loading a model."""

    LOSS_SLICE_BYTES: int
    """float32 logits that the loss computes at once."""
    FLAT_CHUNK: int
    """Weights that an optimizer step works through at once."""
    COMPLETION_BATCH: int
    """Completions that are generated at once."""
    ATTENTION_IN_TILES: bool
    """Whether attention's probabilities are never held whole, where its scores are not capped and rows not packed."""

    def check_fusable(self, config: dict[str, Any], folder: StrPath) -> None:
        """Raise ModelError if a model with this config.json (in `folder`) cannot be fused."""
        ...

    def model_library(self) -> ModelLibrary:
        """The library that the engine's models come from."""
        ...

    def check_shardable(self, quantized: bool) -> None:
        """Raise ConfigError if the engine cannot spread a base's weights over workers; quantized: whether it is."""
        ...

    def describe_device(self) -> DeviceInfo:
        """The device that the engine computes on."""
        ...

    def keeps_quantized(self, mode: str, device: str, /) -> bool:
        """Whether a base quantized in this mode stays so in the memory of a device (`cpu`, `cuda` or `metal`)."""
        ...

    def four_bit_base(self, device: str, /) -> FourBitBase:
        """How a base is held in four bits on a device (`cpu`, `cuda` or `metal`)."""
        ...
