"""The presets with what they need, by the plan's own arithmetic; writes the table of docs/presets.md.

`python benchmarks/plan/presets.py` (a second, no network). The shapes are those of the published models. Hours are not
computed: they hang on the machine, and nothing was trained on a Mac here; what others reported stands in the table.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import accuracy
from recipes import MODELS, shape
from snaketune.config import presets, schema, sections
from snaketune.contracts.plan import BatchShape
from snaketune.demo import task
from snaketune.plan import architecture, resources
from snaketune.runtime.progress import format_bytes

PAGE = accuracy.ROOT / "docs" / "presets.md"
SHORT = 256  # tokens of an ordinary row of questions and answers
BITS_16, BITS_4 = None, 4.5


def demo_architecture() -> architecture.Architecture:
    """The demo's own base."""
    with tempfile.TemporaryDirectory() as folder:
        return architecture.read(task.write_config(Path(folder)))


# base: its shape and bits
BASES: dict[str, tuple[architecture.Architecture, float | None]] = {
    "demo": (demo_architecture(), BITS_16),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        architecture.read(shape("llama", 576, 30, 9, 3, 64, 1536, 49152, True)),
        BITS_16,
    ),
    "mlx-community/Qwen2.5-1.5B-Instruct-bf16": (
        architecture.read(shape("qwen2", 1536, 28, 12, 2, 128, 8960, 151936, True)),
        BITS_16,
    ),
    "mlx-community/gemma-2-2b-it-4bit": (architecture.read(MODELS["gemma-2-2b"]), BITS_4),
    "mlx-community/gemma-3-4b-it-4bit": (architecture.read(MODELS["gemma-3-4b"]), BITS_4),
    "mlx-community/Meta-Llama-3.1-8B-Instruct-bf16": (architecture.read(MODELS["Llama-3.1-8B"]), BITS_16),
}
HOURS = {
    "rehearsal": "two minutes for 1,000 steps on two cores of an AMD EPYC",
    "gemma-2-2b-mac-16gb": "6 to 8 h for 3,243 rows, three epochs (M2, 16 GB)",
    "llama-3.1-8b-mac-64gb": "1,300 tokens/s: 50 min for 1,000 steps of 18 rows of 220 tokens (M4 Max, 64 GB)",
    "gemma-3-4b-translation-mac-128gb": "0.6 to 1 steps/s of 1 or 2 pairs: 1 h for an epoch of 3,000 (M1 Ultra)",
}


def row(name: str) -> str:
    """One line of the table."""
    path = presets.PRESETS / f"{name}.yaml"
    config = sections.load(schema.read(path))
    model, bits = BASES[config.model.base]
    model = model.with_bits(bits) if bits else model
    train = config.train
    longest, short = (
        resources.forecast_memory(model, train, BatchShape(train.batch_size, length, train.batch_size * length // 2), 2)
        for length in (config.data.max_length, min(SHORT, config.data.max_length))
    )
    disk = resources.forecast_disk([(model, train, True)], list(config.package.gguf), model)
    return (
        f"| `{name}` | {purpose(path)} | {config.model.base} | {format_bytes(short.total)}, "
        f"{format_bytes(longest.total)} | {format_bytes(disk.total)} | {HOURS.get(name, 'the pilot says')} |"
    )


def purpose(path: Path) -> str:
    """The first sentence of a preset's comment."""
    comment = " ".join(line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    first = re.match(r"(.+?)\. ", f"{comment} ")
    return first[1] if first else comment


def table() -> str:
    """The whole table."""
    lines = [
        f"| preset | for | base | memory: rows of {SHORT} tokens, all rows of `data.max_length` | disk "
        "| hours that others reported |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(row, presets.names())])


if __name__ == "__main__":
    accuracy.put("presets", table(), page=PAGE)
