"""Quantizes the merged model for MLX: the part `engines.interface.ProductQuantizer`, with mlx-lm's own calibrations.

The weights come from base and adapter, merged in float32 and not rounded to 16 bits in between; the fused folder gives
the architecture alone. A calibrated model is kept only where it has a lower loss on validation rows than a plain one.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx_lm.quant.awq import AWQ_MODEL_CONFIGS, awq_quantize, update_config
from mlx_lm.quant.dwq import dwq_quantize
from mlx_lm.quant.dynamic_quant import estimate_sensitivities, estimate_threshold
from mlx_lm.utils import compute_bits_per_weight, load_model, quantize_model, save_model

from snaketune.config.products import MLXType
from snaketune.contracts.package import CalibrationResult
from snaketune.engines.interface import CalibrationRows, LoglikelihoodRequest, MergeFolders, QuantizedWeights
from snaketune.engines.mlx import language_model, merging
from snaketune.errors import ConfigError
from snaketune.files import StrPath

DWQ_LEARNING_RATES = (1e-6, 1e-5, 1e-4)  # mlx-lm's default, and larger ones for small models, whose scales are larger
DWQ_BATCH = 4
SEGMENT = 512  # tokens of a piece of text that sensitivities and activations are measured on, at most
MAX_SEGMENTS = 32
DYNAMIC_EXTRA_BITS = 0.5  # a weight: the most that `dynamic` may spend over the plain type
NEXT_BITS = {2: 3, 3: 4, 4: 5, 5: 6, 6: 8}
DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16}


class Model(NamedTuple):
    """A model and its config.json, which says how it is quantized."""

    module: nn.Module
    config: dict[str, Any]

    def loss(self, rows: Sequence[LoglikelihoodRequest]) -> float:
        """Nats a target token."""
        targets = sum(sum(row.loss_mask[1:]) for row in rows)
        return -sum(language_model.loglikelihoods(self.module, rows)) / max(1, targets)

    def copied(self) -> Model:
        """A copy that can be changed, in float32."""
        module = copy.deepcopy(self.module)
        module.set_dtype(mx.float32)
        return Model(module, copy.deepcopy(self.config))

    def with_dtype(self, dtype: str) -> Model:
        """Scales, biases and what is not quantized in a 16-bit format."""
        self.module.set_dtype(DTYPES[dtype])
        mx.eval(self.module.parameters())
        return self


def quantize(
    source: MergeFolders, kind: MLXType, target: StrPath, *, dtype: str, calibration: CalibrationRows | None
) -> QuantizedWeights:
    """Write the merge, quantized as `kind` says, as safetensors into the folder `target`."""
    with contextlib.redirect_stdout(sys.stderr):  # mlx-lm prints what it does
        return _quantize(source, kind, Path(target), dtype, calibration)


def _quantize(
    source: MergeFolders, kind: MLXType, folder: Path, dtype: str, calibration: CalibrationRows | None
) -> QuantizedWeights:
    merged = _merged(source)
    plain = _plain(merged, kind).with_dtype(dtype)
    kept, outcome = plain, None
    if kind.calibration and calibration is not None:
        calibrated = [model.with_dtype(dtype) for model in CALIBRATED[kind.calibration](merged, kind, calibration)]
        losses = [model.loss(calibration.valid) for model in [plain, *calibrated]]
        best = min(range(len(losses)), key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)
        kept = [plain, *calibrated][best]
        outcome = CalibrationResult(
            method=kind.calibration,
            kept=best > 0,
            loss=round(min(losses[1:]), 6),
            plain_loss=round(losses[0], 6),
            merged_loss=round(merged.loss(calibration.valid), 6),
            rows=len(calibration.train),
            validation_rows=len(calibration.valid),
        )
    bits = compute_bits_per_weight(kept.module)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, kept.module, donate_model=True)
    names = sorted(path.name for path in folder.iterdir())
    return QuantizedWeights(names, kept.config["quantization"], round(bits, 4), outcome)


def _merged(source: MergeFolders) -> Model:
    """The merge in float32 where the adapter changed it, its weights still to be computed."""
    module, config = load_model(Path(source.fused), lazy=True)
    weights = merging.merge(source.base, source.adapter, source.drop_prefix).tensors
    if hasattr(module, "sanitize"):
        weights = module.sanitize(weights)
    module.load_weights(list(weights.items()))
    module.eval()
    return Model(module, config)


def _plain(merged: Model, kind: MLXType) -> Model:
    module = copy.deepcopy(merged.module)
    return Model(*quantize_model(module, merged.config, kind.group_size, kind.bits, mode=kind.mode))


def _dwq(merged: Model, kind: MLXType, calibration: CalibrationRows) -> list[Model]:
    """Scales and biases trained to give the unquantized model's distribution, at several learning rates."""
    longest = max(map(len, calibration.train))
    rows = [(list(ids), 0) for ids in calibration.train]
    batch = min(DWQ_BATCH, len(rows))
    found = []
    for rate in DWQ_LEARNING_RATES:
        student = _plain(merged, kind)
        dwq_quantize(
            student.module,
            lambda ids, *_, **__: merged.module(ids),
            optimizers.Adam(learning_rate=rate, bias_correction=True),
            rows,
            rows[:batch],
            batch_size=batch,
            max_seq_length=longest,
            seed=calibration.seed,
            dtype=mx.float32,
        )
        student.module.eval()
        found.append(student)
    return found


def _dynamic(merged: Model, kind: MLXType, calibration: CalibrationRows) -> list[Model]:
    """More bits for the layers in which fewer cost most, half a bit a weight more in all."""
    high = NEXT_BITS[kind.bits]
    widths = (kind.bits, kind.group_size, high, kind.group_size)
    module, config = merged.copied()
    found = dict(estimate_sensitivities(module, _segments(calibration.train), *widths))
    target = kind.bits_per_weight() + DYNAMIC_EXTRA_BITS
    threshold = estimate_threshold(module, found, target, *widths)

    def choose(path: str, layer: nn.Module) -> bool | dict[str, int]:
        if not hasattr(layer, "to_quantized"):
            return False
        return {"bits": high, "group_size": kind.group_size} if found[path] > threshold else True

    return [Model(*quantize_model(module, config, kind.group_size, kind.bits, quant_predicate=choose))]


def _awq(merged: Model, kind: MLXType, calibration: CalibrationRows) -> list[Model]:
    """Weights scaled and clipped for the activations of the training rows."""
    recipe = AWQ_MODEL_CONFIGS.get(merged.config["model_type"])
    if recipe is None:
        raise ConfigError(
            f"mlx-lm has no AWQ for models of type {merged.config['model_type']}",
            where="package.mlx",
            why=f"It knows {', '.join(sorted(AWQ_MODEL_CONFIGS))}",
            fix="Name dwq or dynamic instead",
        )
    module, config = merged.copied()
    segments, widths = _segments(calibration.train), (kind.group_size, kind.bits)
    awq_quantize(module, segments, recipe, *widths, *widths)  # the embedding like the rest
    return [Model(module, update_config(module, config))]


def _segments(rows: Sequence[Sequence[int]]) -> mx.array:
    """The rows as pieces of text of one length, shape (pieces, tokens)."""
    ids = np.concatenate([np.asarray(row, np.int32) for row in rows])
    length = min(SEGMENT, len(ids))
    count = min(MAX_SEGMENTS, len(ids) // length)
    return mx.array(ids[: count * length].reshape(count, length))


Calibration = Callable[[Model, MLXType, CalibrationRows], list[Model]]
CALIBRATED: dict[str, Calibration] = {"dwq": _dwq, "dynamic": _dynamic, "awq": _awq}
