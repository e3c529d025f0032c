"""Speed of answering and scoring: `python benchmarks/evaluate/run.py [ROUNDS]` prints a Markdown section.

Sides that are compared alternate, each run in a process of its own, and the fastest round counts: another job on the
machine can only make a run slower.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import workload

THREADS = 2
SIDES = {
    "Answers, MLX: batches against one prompt after another (mlx-lm's generate_step)": (
        "answers:ours",
        "answers:one-by-one",
    ),
    "Answers to prompts with 256 tokens in common, MLX: computed once against each time": (
        "answers-shared:ours",
        "answers-shared:unshared",
    ),
    "Answers, llama.cpp f32: ours against llama-cpp-python's generate": ("answers:llama-ours", "answers:llama-own"),
    "Answers, llama.cpp q8_0: ours against llama-cpp-python's generate": (
        "answers-q8:llama-ours",
        "answers-q8:llama-own",
    ),
    "Answers with 256 tokens in common, llama.cpp f32: ours against llama-cpp-python's": (
        "answers-shared:llama-ours",
        "answers-shared:llama-own",
    ),
    "Scores, MLX: ours against the logits of every position": ("score:score", "score:whole"),
    "Scores, MLX: ours against padded batches of 16": ("score:score", "score:padded"),
    "Scores, llama.cpp f32: ours against eval with logits_all": ("score:llama-score", "score:llama-eval"),
}


def main(rounds: int) -> None:
    print(f"## Answering and scoring\n\n15 M parameters, random weights, fp32, {THREADS} threads a side.\n")
    print("| what | tokens a CPU-second, ours / other | ratio | ratio by the clock | the same |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        workload.build(folder / "model")
        workload.convert(folder / "model", folder / "f32.gguf")
        workload.quantized(folder / "f32.gguf", folder / "q8_0.gguf", "q8_0")
        for title, sides in SIDES.items():
            runs = [[workload.run(side, folder, THREADS) for side in sides] for _ in range(rounds)]
            ours, other = (min((run[k] for run in runs), key=lambda one: one["cpu"]) for k in (0, 1))
            fast, slow = ours["tokens"] / ours["cpu"], other["tokens"] / other["cpu"]
            wall = [min(run[k]["wall"] / run[k]["tokens"] for run in runs) for k in (0, 1)]
            cells = (
                title,
                f"{fast:.0f} / {slow:.0f}",
                f"{fast / slow:.1f}",
                f"{wall[1] / wall[0]:.1f}",
                same(ours, other),
            )
            print(f"| {' | '.join(cells)} |", flush=True)


def same(ours: dict, other: dict) -> str:
    """How many answers are equal, or how far scores are apart."""
    pairs = list(zip(ours["result"], other["result"], strict=True))
    if isinstance(pairs[0][0], list):
        return f"{sum(one == two for one, two in pairs)} of {len(pairs)}"
    return f"{max(abs(one - two) / abs(two) for one, two in pairs):.0e} apart"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
