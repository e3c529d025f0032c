"""Copies of the project to run workflows in, and a configuration whose whole chain takes half a minute."""

from __future__ import annotations

import compileall
import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import families
from snaketune.runtime.code_digest import code_digest

ROOT = Path(__file__).resolve().parents[1]
PARTS = "Snakefile config.yaml rules scripts schemas envs profiles presets report data setup".split()
TINY = """
run: tiny
model: {base: tiny-base}
data:
  sources: [{path: rows.jsonl}]
  max_length: 64
pilot: {rows: 20, max_steps: 4, on_no_go: continue, sample: 4}
train:
  max_steps: 12
  batch_size: 4
  gradient_accumulation_steps: 1
  rank: 4
  alpha: 8
  learning_rate: 1e-2
  warmup_steps: 2
  eval_steps: 4
  gradient_checkpointing: false
package: {gguf: [q8_0], fidelity: {rows: 6, num_prompts: 2, max_new_tokens: 8}}
evaluate: {max_rows: 12, max_new_tokens: 8}
"""

# what the machine and the moment decide, not the settings
MEASURED = re.compile(
    r"(^|/)(logs|benchmarks|checkpoints|report|\..*)/"
    r"|(^|/)(\..*|.*timing\.jsonl?|events(\.old)?\.jsonl|run\.json|pilot/(decision\.json|index\.html))$"
)


# half-made files of another test process
HALF_MADE = shutil.ignore_patterns("*.pyc.*", ".*.tmp")


@functools.cache
def _compile_and_digest() -> None:
    """Leave bytecode and digests of the code beside it; a copy without them takes two seconds to make its own."""
    for folder in ("scripts", "rules"):
        compileall.compile_dir(ROOT / folder, quiet=2)
    for script in (ROOT / "scripts").glob("*.py"):
        code_digest(script)


class Project:
    """A copy of the workflow in a folder of its own; the set-up (.venv, vendor) is shared with the original."""

    def __init__(self, folder: Path, configuration: str | None = None) -> None:
        self.folder = folder
        self.configuration = configuration

    @classmethod
    def copied(cls, folder: Path, configuration: str | None = None) -> Project:
        _compile_and_digest()
        folder.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=HALF_MADE)
            else:
                shutil.copy2(source, folder / part)
        (folder / "vendor").symlink_to(ROOT / "vendor")
        return cls(folder, configuration)

    def twin(self, folder: Path) -> Project:
        """A copy of this project with its results, modification times included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.configuration)

    def linked_twin(self, folder: Path) -> Project:
        """The same, with files that share their content with this project's: replace them, never write into them.

        A link costs a tenth of a copy, and a deleted one nothing: some file systems look for a free place for each new
        file among all that were deleted of late.
        """
        copied = shutil.ignore_patterns(".snakemake")  # Snakemake writes into its own files
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=os.link, ignore=copied)
        shutil.copytree(self.folder / ".snakemake", folder / ".snakemake")
        return Project(folder, self.configuration)

    def snakemake(self, *arguments: str, timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
        chosen = ["--configfile", self.configuration] if self.configuration else []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        modules = [
            str(self.folder / "scripts"),
            *filter(None, [environment.get("PYTHONPATH")]),
        ]  # this copy's own plugin
        return subprocess.run(
            ["snakemake", *arguments, *chosen],
            cwd=self.folder,
            env=os.environ | {"PATH": path} | environment | {"PYTHONPATH": os.pathsep.join(modules)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def stale(self, *arguments: str) -> set[str]:
        """The rules that `snakemake -n` would run, the targets without a script left out."""
        said = self.snakemake("-n", "-p", *arguments)
        assert said.returncode == 0, said.stdout
        return rules_in(said.stdout)

    def products(self) -> dict[str, bytes]:
        """Every file of the run that only its settings, data and code decide."""
        (run,) = (path.parent for path in (self.folder / "results").glob("*/config.json"))
        files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items() if not MEASURED.search(name)}

    def different(self, other: Project) -> list[str]:
        """The products that are not the same bytes in both, those that one of them lacks included."""
        one, two = self.products(), other.products()
        return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))

    def write(self, name: str, text: str) -> None:
        """Put a new file in the place of what is there, which may share its content with another project's."""
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text(encoding="utf-8")
        assert old in text, f"{name} does not hold {old!r}"
        self.write(name, text.replace(old, new, 1))


def rules_in(said: str) -> set[str]:
    """The rules of the first table of job counts that Snakemake prints."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total ", said, re.MULTILINE | re.DOTALL)
    rules = {line.split()[0] for line in table[1].splitlines() if line.strip()} if table else set()
    return rules - {"all", "data", "plan", "pilot", "train", "package", "evaluate", "report"}


def tiny(folder: Path) -> Project:
    """A project with a random base of 60 thousand parameters and sixty rows."""
    project = Project.copied(folder, "tiny.yaml")
    families.build(folder / "tiny-base", "llama-bpe", dtype="float32")
    project.write("tiny.yaml", TINY)
    draw = random.Random(1)
    words = "hot cold red blue river mountain house cat dog tree night day sun moon stone water".split()
    rows = []
    for number in range(60):
        asked = " ".join(draw.sample(words, 4))
        rows.append({"prompt": f"question {number} about {asked}?", "response": f"it is {asked.split()[0]} {number}."})
    project.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return project
