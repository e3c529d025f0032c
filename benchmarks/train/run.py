"""Speed, memory and quality of training: `python benchmarks/train/run.py [ROUNDS]` prints a Markdown section.

All sides take turns, each run in a process of its own; medians count. The unit is real tokens (no padding) per
CPU-second on one thread, which other work on the machine disturbs least.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
UPDATES = {"mlx_lm": 7, "mlx_lm_fast": 13, "snaketune": 33, "transformers": 13, "torch": 33, "torch_bfloat16": 33}
NAMES = {
    "mlx_lm": "mlx_lm.lora as installed from PyPI",
    "mlx_lm_fast": "mlx_lm.lora with the same fast BLAS",
    "transformers": "transformers + PEFT, fp32",
    "snaketune": "snaketune",
    "torch": "snaketune, engine: torch",
    "torch_bfloat16": "snaketune, engine: torch, dtype: bfloat16",
}
WANTED_OF_TORCH = {"torch": (1.3, 1.9), "torch_bfloat16": (2.0, 2.8)}  # times the MLX engine, times the plain loop
TARGETS = {"mlx_lm": 20.0, "mlx_lm_fast": 2.2, "transformers": 1.0}
SEEDS = (1, 2, 3)


def run(script: str, *arguments: object, threads: int = 1) -> dict[str, Any]:
    """The JSON line that a side prints last."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    quiet = {"MLX_DISABLE_COMPILE": "1", "HF_HUB_OFFLINE": "1"}
    environment = os.environ | limits | quiet
    done = subprocess.run(
        [sys.executable, HERE / script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{script} {arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


Runs = dict[str, list[dict[str, Any]]]
"""What each side printed, round by round."""


def measure(work: Path, rounds: int) -> tuple[Runs, Runs]:
    """Every side once a round, in an order that turns: on one thread, and next to it on two."""
    sys.path.insert(0, str(HERE))
    import workload

    workload.write_model(work / "model")
    found: Runs = {side: [] for side in NAMES}
    both: Runs = {side: [] for side in NAMES if side != "mlx_lm"}  # a minute a round, and no one compares it
    sides = list(NAMES)
    for turn in range(rounds):
        for side in sides[turn % len(sides) :] + sides[: turn % len(sides)]:
            found[side].append(run("sides.py", side, work, UPDATES[side]))
            print(f"round {turn + 1} of {rounds}: {side} {rate(found[side][-1]):.0f} tokens/CPU-s", file=sys.stderr)
            if side in both:
                both[side].append(run("sides.py", side, work, UPDATES[side], threads=2))
    return found, both


def rate(one: dict[str, Any]) -> float:
    return one["real_tokens"] / one["cpu_seconds"]


def _by_clock(one: dict[str, Any]) -> float:
    return one["real_tokens"] / one["seconds"]


def median(found: list[dict[str, Any]], key: str) -> float:
    return statistics.median(one[key] for one in found)


def table(found: Runs, both: Runs) -> list[str]:
    rates = {side: statistics.median(map(rate, ones)) for side, ones in found.items()}
    peaks = {side: median(ones, "peak_bytes") for side, ones in found.items()}
    lines = [
        "| | real tokens per CPU-second (spread) | snaketune is | wanted | peak memory, MB | tokens/s on two cores |",
        "|---|---|---|---|---|---|",
    ]
    for side, name in NAMES.items():
        spread = [rate(one) for one in found[side]]
        wanted = f"{TARGETS[side]:g} x" if side in TARGETS else ""
        on_both = f"{statistics.median(map(_by_clock, both[side])):.0f}" if side in both else ""
        lines.append(
            f"| {name} | {rates[side]:.0f} ({min(spread):.0f} to {max(spread):.0f}) | "
            f"{rates['snaketune'] / rates[side]:.2f} x | {wanted} | {peaks[side] / 1e6:.0f} | {on_both} |"
        )
    memory = peaks["snaketune"] / peaks["mlx_lm"]
    ours = found["snaketune"]
    lines += [
        "",
        f"Peak memory is {memory:.2f} x that of mlx_lm.lora (wanted: at most 0.75). "
        f"Positions per real token: {median(ours, 'positions_per_token'):.3f} (wanted: at most 1.05; "
        f"mlx_lm.lora: {median(found['mlx_lm_fast'], 'positions_per_token'):.2f}). "
        f"Outside the model: {median(ours, 'overhead'):.1%} of an update's CPU time (wanted: under 2 %). "
        f"From the start of the process to the first update, loading and base validation left out: "
        f"{median(ours, 'start_seconds'):.1f} s; to go on from a checkpoint, written out again, "
        f"{median(ours, 'resume_seconds'):.1f} s (wanted: under 5).",
    ]
    return lines


def torch_sentences(found: Runs, both: Runs) -> list[str]:
    """The torch engine beside the MLX engine and the plain loop, and by the clock on two cores beside one."""
    rates = {side: statistics.median(map(rate, ones)) for side, ones in found.items()}
    lines = [""]
    for side, (of_mlx, of_plain) in WANTED_OF_TORCH.items():
        memory = median(found[side], "peak_bytes") / median(found["transformers"], "peak_bytes")
        gains = [_by_clock(two) / _by_clock(one) for one, two in zip(found[side], both[side], strict=True)]
        lines.append(
            f"{NAMES[side]}: {rates[side] / rates['snaketune']:.2f} x the MLX engine (wanted: {of_mlx:g} x), "
            f"{rates[side] / rates['transformers']:.2f} x the plain loop (wanted: {of_plain:g} x), with "
            f"{memory:.2f} x its peak memory (wanted: at most 0.6). Two cores: "
            f"{statistics.median(gains):.2f} x one by the clock, round by round {min(gains):.2f} to {max(gains):.2f} "
            "(wanted: 1.7 x)."
        )
    return lines


def quality(work: Path) -> list[str]:
    runs = {
        side: [run("quality.py", side, work, seed) for seed in SEEDS]
        for side in ("mlx_lm", "snaketune", "torch", "torch_bfloat16")
    }
    losses = {side: [one["validation_loss"] for one in ones] for side, ones in runs.items()}
    costs = {side: statistics.median(one["cpu_seconds"] for one in runs[side]) for side in ("snaketune", "torch")}
    spread = max(max(ones) - min(ones) for ones in losses.values())
    said = {side: ", ".join(f"{one:.4f}" for one in ones) for side, ones in losses.items()}
    worse = statistics.mean(losses["snaketune"]) - statistics.mean(losses["mlx_lm"])
    return [
        "",
        f"Equal quality (the demo's base and rows, 150 updates of 16 rows, seeds {', '.join(map(str, SEEDS))}): "
        f"validation loss of mlx_lm.lora {said['mlx_lm']}; of snaketune {said['snaketune']}; difference of the means "
        f"{worse:+.4f}, largest spread between seeds {spread:.4f}. With engine: torch {said['torch']}, in bfloat16 "
        f"{said['torch_bfloat16']}. An update of that small model takes {1000 * costs['snaketune']:.0f} ms of CPU time "
        f"with MLX and {1000 * costs['torch']:.0f} ms with torch.",
    ]


def page(rounds: int = 3) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        found, both = measure(work, rounds)
        lines = [
            "## Training",
            "",
            "LoRA of rank 8 on all linear layers of a 15 M-parameter Llama (vocabulary 32,000, random weights), fp32,",
            "batch 4, 2,000 rows of 114 tokens in the mean, at most 512; one thread a side, "
            f"{rounds} rounds in turns, medians.",
            "The first update is left out, start-up and loading too.",
            "",
            *table(found, both),
            *torch_sentences(found, both),
            *quality(work),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
