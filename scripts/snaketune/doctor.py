"""Says what this machine has for the workflow, what each thing is for, and how to get what is missing: `make doctor`.

Engines are asked in processes of their own, since MLX and torch are not loaded together, and one that breaks must not
take the page with it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from snaketune.runtime.machine import DeviceInfo, free_disk, this_machine

PROJECT = Path(__file__).resolve().parents[2]
SECONDS_TO_ANSWER = 120.0
DISK_FOR_A_RUN = 10e9  # bytes: a model of 2 billion parameters with its fused copy and two GGUF files
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ON_MAC = sys.platform == "darwin"


@dataclass(frozen=True)
class Finding:
    """What was found of one thing (None: it is missing), what it is needed for, and how to get it.

    required: without it the chain does not run.
    """

    name: str
    found: str | None
    purpose: str
    get: str = ""
    required: bool = False

    def lines(self, width: int) -> list[str]:
        """Return the finding for a screen: the thing and its purpose, and how to get it where it is missing."""
        mark = "ok" if self.found else ("MISSING" if self.required else "-")
        text = self.found or f"not found. For {self.purpose}. {self.get}".strip()
        if self.found:
            text += f"  ({self.purpose})"
        first = f"{mark:<8}{self.name:<17}"
        return textwrap.wrap(text, max(50, width), initial_indent=first, subsequent_indent=" " * len(first))


def _ask(command: Sequence[str]) -> str | None:
    """Run a program and return its first line, None where it is missing or fails."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, cwd=PROJECT)
        printed = (done.stdout or done.stderr).strip()
        return printed.splitlines()[0].strip() if done.returncode == 0 and printed else None
    return None


def _python(code: str, interpreter: str = sys.executable) -> str | None:
    """Run code in a Python of its own and return the last line that it prints."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = [interpreter, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, cwd=PROJECT)
        printed = done.stdout.strip().splitlines()
        return printed[-1] if done.returncode == 0 and printed else None
    return None


def python_and_packages() -> list[Finding]:
    """Look at Python, and whether the packages are those of requirements.txt."""
    pins = re.findall(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    versions: dict[str, str | None] = {}
    for name, _ in pins:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    optional = () if sys.platform == "linux" else ("scipy-openblas32",)
    wrong = {
        name: f"{name} {versions[name] or 'missing'}, pinned {pin}"
        for name, pin in pins
        if name not in optional and (versions[name] or "").partition("+")[0] != pin
    }
    packages = "; ".join(wrong.values())
    right = f"{len(versions)} as pinned, snakemake {versions['snakemake']}"
    return [
        Finding("Python", platform.python_version(), f"everything; {sys.executable}", required=True),
        Finding("packages", right, "everything")
        if not wrong
        else Finding("packages", None, f"everything: {packages}", "Run `make setup`.", required=True),
    ]


def engines() -> list[Finding]:
    """Look at what trains and what runs GGUF files, each with the device that it computes on."""
    describe = (
        "from snaketune.engines import get_capabilities\n"
        "found = get_capabilities({engine!r}).describe_device()\n"
        "import importlib.metadata as m\n"
        "print(m.version({package!r}), 'on', found.device, found.name or '')"
    )
    found = [
        Finding(
            f"engine {engine}",
            _python(describe.format(engine=engine, package=package)),
            "training, generation, fusing",
            "Run `make setup`.",
            required=engine == "mlx",
        )
        for engine, package in (("mlx", "mlx"), ("torch", "torch"))
        if (PROJECT / "scripts" / "snaketune" / "engines" / engine / "capabilities.py").is_file()
    ]
    llama = _python(
        "import llama_cpp as found; gpu = found.llama_supports_gpu_offload()\n"
        "print(found.__version__, 'on', 'gpu' if gpu else 'cpu')"
    )
    version = PROJECT / "vendor" / "llama.cpp" / "VERSION"
    converter = version.read_text(encoding="utf-8").strip() if version.is_file() else None
    again = "Run `make setup`."
    return [
        *found,
        Finding("engine llama_cpp", llama, "scoring and quantizing GGUF files", again, required=True),
        Finding("converter", converter and f"of {converter}", "making GGUF files", again, required=True),
        nvidia(),
    ]


def nvidia() -> Finding:
    """Look for an NVIDIA card, and whether torch can use it."""
    query = shutil.which("nvidia-smi") or "/usr/lib/wsl/lib/nvidia-smi"  # WSL has it there, and on no path
    card = _ask([query, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    build = _python("import torch; print(torch.version.cuda or 'none')") if card else None
    if card and build in (None, "none"):
        card += "; torch here is the CPU build: `make setup ENGINE=torch` gets the one with CUDA"
    elif card:
        card += f"; torch has CUDA {build}"
    return Finding("NVIDIA card", card, "training with engine: torch", "Without one the CPU or Apple's GPU trains.")


def matrix_speed() -> Finding:
    """Measure how fast MLX multiplies matrices, and say by which library.

    On a CPU it is measured for each core, by CPU time, so that a busy machine does not seem slow.
    """
    code = (
        "import snaketune.engines.mlx, time\n"
        "from snaketune.engines.mlx.capabilities import describe_device, preload\n"
        "import mlx.core as mx\n"
        "on_cpu = describe_device().device == 'cpu'\n"
        "clock = time.process_time if on_cpu else time.perf_counter\n"
        "a = mx.random.normal((1024, 1024)); mx.eval(a); best = 1e9\n"
        "for _ in range(6):\n"
        "    start = clock(); mx.eval(a @ a); best = min(best, clock() - start)\n"
        "print(f'{2 * 1024**3 / best / 1e9:.0f} GFLOP/s', 'a core,' if on_cpu else 'in all,', preload())"
    )
    purpose = "speed of training: float32 matrices of 1024 x 1024; MLX's own BLAS on a Linux CPU reaches about 6 a core"
    return Finding("BLAS", _python(code), purpose, "Run `make setup`, or install libopenblas.")


def resources() -> list[Finding]:
    """Look at memory and disk."""
    free = free_disk(PROJECT / "results")
    ram = this_machine(DeviceInfo(device="cpu")).memory
    memory = f"{ram / 1e9:.0f} GB, {min(ram, psutil.virtual_memory().available) / 1e9:.0f} GB of it free now"
    disk = f"{free / 1e9:.0f} GB free"
    return [
        Finding("memory", memory, "`snakemake plan` says what a training takes"),
        Finding("disk", disk, "models and results; a model of 2 billion parameters takes about 10 GB")
        if free > DISK_FOR_A_RUN
        else Finding("disk", None, f"models and results: only {disk}", "Free 10 GB, or link results/ to another disk."),
    ]


def tools() -> list[Finding]:
    """Look at the programs that single steps or the tests use."""
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    driven = browser if browser and shutil.which("chromedriver") else None
    compilers = [name for name in ("cc", "c++") if shutil.which(name)]
    return [
        Finding(
            "compilers",
            ", ".join(compilers) if len(compilers) == 2 else None,
            "building llama.cpp",
            "xcode-select --install" if ON_MAC else "apt install build-essential",
        ),
        _tool("ccache", ["ccache", "--version"], "building llama.cpp again in less time"),
        _tool("git", ["git", "--version"], "the commit in run.json"),
        _tool("Ollama", ["ollama", "--version"], "`snakemake register_ollama` and running the model", "ollama.com"),
        Finding("browser", driven, "tests of the pages", _install("chromium chromium-driver", "--cask chromium")),
        _tool("Go", ["go", "version"], "tests of Ollama's templates", _install("golang-go", "go")),
        _tool("Slurm", ["sbatch", "--version"], "profiles/slurm: runs on a cluster", "docs/cluster.md"),
    ]


def _install(debian: str, brew: str) -> str:
    return f"brew install {brew}" if ON_MAC else f"apt install {debian}"


def _tool(name: str, command: list[str], purpose: str, get: str = "") -> Finding:
    return Finding(name, _ask(command), purpose, get or _install(command[0], command[0]))


def trainers() -> list[Finding]:
    """Look at the field's trainers, each in an environment of its own."""
    here = sorted(folder for folder in (PROJECT / ".trainers").glob("*") if folder.is_dir())
    purpose, get = "train.trainer in the configuration", "`make trainer NAME=...` makes it; builtin needs none."
    found = [
        Finding(f"trainer {path.name}", _python("print('works')", f"{path}/bin/python"), purpose, get) for path in here
    ]
    return found or [Finding("trainers", None, purpose, get)]


def examine() -> list[Finding]:
    """Return all findings, in the order in which they are shown."""
    return [*python_and_packages(), *engines(), matrix_speed(), *resources(), *tools(), *trainers()]


def main() -> int:
    """Print the findings; 1 where something is missing without which the chain does not run."""
    width = min(shutil.get_terminal_size().columns, 120)
    print(f"snaketune in {PROJECT} ({platform.system()} {platform.machine()})")
    findings = examine()
    for finding in findings:
        print("\n".join(finding.lines(width)))
    missing = [finding.name for finding in findings if finding.required and not finding.found]
    print(f"Missing: {', '.join(missing)}." if missing else "Everything is here that a run needs.")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
