"""Files that the package stage writes, read by the report, the model card and the stages after it."""

from __future__ import annotations

from snaketune.files import Record


class FileFacts(Record, frozen=True, kw_only=True):
    """A file's size in bytes and its hex SHA-256."""

    bytes: int
    sha256: str


class Rounding(Record, frozen=True, kw_only=True):
    """What a 16-bit format would lose of the merged weights, measured on rows of every matrix."""

    error: float
    """Root mean square of the rounding, relative to that of the weights."""
    update_retained: float | None
    """Share of the adapter's update that is left; null where no matrix has an adapter."""
    in_range: bool
    """Whether the format can hold the largest weight."""


class FusedManifest(Record, frozen=True, kw_only=True):
    """model/fused.json: what the folder model/fused holds; written by fuse_adapter."""

    base: str
    """The base model, as `model.base` names it."""
    revision: str | None
    folder: str
    dtype: str
    """The 16-bit number format of the weights in the folder, which is the base's own unless `model.dtype` says."""
    gguf_dtype: str
    """The 16-bit format that loses least of the merged weights; the GGUF is made in it, from the unrounded merge."""
    rounding: dict[str, Rounding]
    """What each 16-bit format loses, by its name."""
    adapter_sha256: str
    drop_prefix: str
    """What the tensors' names begin with in the base, and not here."""
    parameters: int
    template: str | None
    """`model.chat_template`; null for the base's own."""
    stop_ids: list[int]
    files: dict[str, FileFacts]


class CalibrationResult(Record, frozen=True, kw_only=True):
    """What calibrating a quantization came to, on validation rows; losses in nats a target token.

    method: one of package.mlx, or `imatrix` of a GGUF, whose record this is (`<run>-<type>.imatrix.json`, written by
    quantize_gguf_imatrix); kept: whether it had a lower loss than the plain type, and is what the file holds;
    plain_loss: null where the type is not made without; merged_loss: before quantizing; rows: of the training split
    that it was calibrated on.
    """

    method: str
    kept: bool
    loss: float
    plain_loss: float | None
    merged_loss: float
    rows: int
    validation_rows: int


class MergedLoss(Record, frozen=True, kw_only=True):
    """model/merged_loss.json: the loss of the 16-bit GGUF on validation rows, in nats a target token.

    Written by collect_imatrix, once for all types that are rounded with its matrix.
    """

    loss: float
    validation_rows: int


class MLXManifest(Record, frozen=True, kw_only=True, omit_defaults=True):
    """model/<run>-mlx-<type>.json: a quantized folder for MLX; written by quantize_mlx."""

    base: str
    revision: str | None
    folder: str
    type: str
    """As package.mlx names it."""
    dtype: str
    """The 16-bit format of scales and of what is not quantized."""
    quantization: dict[str, object]
    """As config.json holds it: bits, group_size, mode, and of each layer what differs."""
    bits_per_weight: float
    files: dict[str, FileFacts]
    calibration: CalibrationResult | None = None

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(file.bytes for file in self.files.values())


class TokenDifference(Record, frozen=True, kw_only=True):
    """A text that becomes other token ids in the GGUF; at most 80 characters and 24 ids of it."""

    text: str
    expected: list[int]
    found: list[int]


class TokenParity(Record, frozen=True, kw_only=True):
    """How many texts the GGUF's tokenizer makes other ids of than the model's; `composed`: were compared in NFC."""

    texts: int
    differences: int
    composed: int
    examples: list[TokenDifference]


class VariantFidelity(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One variant's measurements; a key is absent where it was not measured.

    The distances are between next-token distributions of this variant and of its baseline at the same positions.
    """

    baseline: str | None = None
    """The variant that it is compared with: adapter or fused."""
    max_dlogp: float | None = None
    """Largest difference of a log-probability, in nats."""
    most_dlogp: float | None = None
    """What the largest difference at a position stays below at nine of ten positions, in nats."""
    mean_dlogp: float | None = None
    kl: float | None = None
    """Kullback-Leibler divergence, in nats a position."""
    top1: float | None = None
    """Share of positions at which both have the same likeliest token, 0 to 1."""
    positions: int | None = None
    not_finite: int | None = None
    """Positions whose distribution holds NaN or infinity."""
    greedy_same: int | None = None
    """Greedy completions that are the baseline's; of `greedy_total`."""
    greedy_total: int | None = None
    divergence_margin: float | None = None
    """Largest margin (nats) of the adapter's token over this variant's where their greedy completions first differ."""
    greedy_as_adapter: int | None = None
    """Greedy completions that are the adapter's; of `greedy_total`."""
    bytes: int | None = None
    tensor_types: dict[str, int] | None = None
    """How many tensors of each type the GGUF holds, the commonest first; of a folder for MLX how many layers."""
    tokens: TokenParity | None = None
    template: int | None = None
    """Conversations that the GGUF's chat template renders differently."""
    modelfile: int | None = None
    """Prompts that the Modelfile's template renders differently."""
    rows: int | None = None
    """Test rows whose responses were read: of a large model fewer than others', where fewer decided about this file."""
    answer_logprob: float | None = None
    """Sum of the log-probabilities (nats) of these rows' reference responses; absent where it is not finite."""
    gain_retained: float | None = None
    """Share of the adapter's gain over its base in these rows; absent where there is none."""


class FidelityCheck(Record, frozen=True, kw_only=True):
    """One check of one variant, with what was found and what is allowed."""

    check: str
    """loads, tokens, template, modelfile, stops, logprobs or gain."""
    variant: str
    value: float | None
    limit: float
    passed: bool
    message: str


class Fidelity(Record, frozen=True, kw_only=True):
    """model/fidelity.json: whether each file is the model that was trained; written by check_fidelity."""

    passed: bool
    rows: int
    """Test rows that base and adapter have read."""
    rows_allowed: int
    """Rows that `package.fidelity.rows` allows: more than `rows` where fewer decided about a large model."""
    prompts: int
    answer_tokens: int
    layer_by_layer: bool
    """Whether the models were too large for memory in float32, so that few rows and no prompts were used."""
    variants: dict[str, VariantFidelity]
    checks: list[FidelityCheck]


class ServingCheck(Record, frozen=True, kw_only=True, omit_defaults=True):
    """model/served.json: whether the GGUF can be served; written by check_serving."""

    file: str
    passed: bool
    message: str
    prompts: int | None = None
    same_sequential: int | None = None
    """Answers, requested one at a time, that are those of the evaluation."""
    same_concurrent: int | None = None
    """The same of answers requested eight at once."""


class PromptDifference(Record, frozen=True, kw_only=True):
    """A conversation as it was trained, and as a server feeds it to its model."""

    expected: str
    found: str


class ServerPrompts(Record, frozen=True, kw_only=True):
    """How many prompts a server feeds its model otherwise than trained; problem: why it could not be asked.

    calls, different_calls: those of them with tools, and of these the ones fed otherwise.
    """

    server: str
    prompts: int
    differences: int
    problem: str | None
    examples: list[PromptDifference]
    calls: int = 0
    different_calls: int = 0

    @property
    def conversations(self) -> int:
        """Prompts without tools."""
        return self.prompts - self.calls

    @property
    def different_conversations(self) -> int:
        """Prompts without tools that are fed otherwise than trained."""
        return self.differences - self.different_calls


class ServedPrompts(Record, frozen=True, kw_only=True):
    """model/prompts.json: what each server that is here feeds its model; written by check_prompts."""

    servers: list[ServerPrompts]

    def with_other_calls(self) -> list[ServerPrompts]:
        """The servers that feed the model calls of tools otherwise than trained."""
        return [one for one in self.servers if one.different_calls]

    def with_calls_as_trained(self) -> list[ServerPrompts]:
        """The servers that feed the model calls of tools as trained."""
        return [one for one in self.servers if one.calls and not one.different_calls and not one.problem]


class ServingLatency(Record, frozen=True, kw_only=True):
    """Latencies in seconds; a streamed chunk counts as a token."""

    first_token_seconds: float
    p50_seconds: float
    p95_seconds: float
    tokens_per_second: float


class ServingTiming(Record, frozen=True, kw_only=True):
    """model/timing.json: how fast the server is; differs from run to run."""

    load_seconds: float
    memory_bytes: int | None
    sequential: ServingLatency
    concurrent: ServingLatency


class OllamaCheck(Record, frozen=True, kw_only=True, omit_defaults=True):
    """model/ollama.json: the model in Ollama, or why it is not there; written by register_ollama."""

    model: str | None
    message: str
    file: str | None = None
    prompts: int | None = None
    same: int | None = None
    predictions: str | None = None
    """The SHA-256 of the evaluation's answers that were compared with."""
    fed: ServerPrompts | None = None
    """What it feeds the model, compared with what was trained."""


class UploadRecord(Record, frozen=True, kw_only=True):
    """model/uploaded.json: what was uploaded to the hub; written by upload_model."""

    repository: str
    private: bool
    files: list[str]
