"""What a bundle of a run holds, on request what it was made from and the products too, and what it says of itself.

ro-crate-metadata.json is for workflow systems and repositories of data: https://w3id.org/ro/crate/1.1 and its profile
for runs of a workflow, https://w3id.org/ro/wfrun/workflow/0.5.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from snaketune.config.sections import RunConfig
from snaketune.errors import ConfigError
from snaketune.files import StrPath, dumps, read_jsonl, sha256
from snaketune.runtime.provenance import ROOT, RunRecord
from snaketune.version import RELEASED, VERSION

RUN, INPUTS = "run/", "inputs/"
CONFIGURATION = f"{RUN}config.json"
ROWS = f"{RUN}data/rows.csv"
RECORDS = (
    "config.json",
    "run.json",
    "plan.json",
    "data/*.json",
    "data/tokens/*/tokens.json",
    "pilot/*.json",
    "pilot/metrics.jsonl",
    "train/selection.json",
    "train/*/*.json",
    "train/*/metrics.jsonl",
    "model/*.json",
    "model/Modelfile",
    "model/README.md",
    "evaluation/comparison.*",
    "evaluation/experiments.json",
    "evaluation/opened.json",
    "lm_eval/results.json",
    "evaluation/*/scores.json",
    "report/*",
)
WITH_ROWS = ("data/*.jsonl", "evaluation/*/*.jsonl")
PRODUCTS = ("model/*.gguf", "model/peft/*", "model/*-mlx-*/*", "train/*/adapters.safetensors")
# what the machine and the moment decide, not the settings; lm-eval is asked for and has an environment of its own
MEASURED = re.compile(
    r"run/(run\.json|.*timing\.jsonl?|pilot/(decision\.json|index\.html)|report/.*"
    r"|evaluation/opened\.json|lm_eval/results\.json)"
)
NOT_HANDED_ON = re.compile(r"(^|/)(\.|model/(ollama|uploaded)\.json)|\.passed$|/events")
SPLITS = ("train", "valid", "test")


def members(folder: StrPath, *, inputs: Sequence[StrPath] | None, products: bool) -> dict[str, Path | bytes]:
    """The members of the bundle of the run in `folder`, by name.

    inputs: the files that the run was made from, by paths relative to the project; None to leave them and all rows out.
    """
    run = Path(folder)
    patterns = [*RECORDS, *(WITH_ROWS if inputs is not None else ()), *(PRODUCTS if products else ())]
    found: dict[str, Path | bytes] = {
        f"{RUN}{path.relative_to(run).as_posix()}": path
        for pattern in patterns
        for path in run.glob(pattern)
        if path.is_file() and not NOT_HANDED_ON.search(path.relative_to(run).as_posix())
    }
    found[ROWS] = "".join(_row_digests(run)).encode()
    for path in inputs or ():
        found[f"{INPUTS}{inside(path)}"] = Path(path)
    return found


def inside(path: StrPath) -> str:
    """A path relative to the project, which an archive can hold; ConfigError for another one."""
    parts = PurePosixPath(Path(path).as_posix())
    if parts.is_absolute() or ".." in parts.parts:
        raise ConfigError(
            f"{path} lies outside of the project",
            where="package.bundle",
            why="A bundle puts its inputs where the configuration looks for them, and elsewhere there is no such place",
            fix="Copy it into the project and name it there, or leave `inputs` out of package.bundle",
        )
    return parts.as_posix()


def _row_digests(run: Path) -> Iterator[str]:
    """A line of CSV for each row of each split: what tells a row from every other one, but not the row."""
    yield "split,id,sha256\n"
    for split in SPLITS:
        for row in read_jsonl(run / "data" / f"{split}.jsonl"):
            yield f"{split},{row['id']},{hashlib.sha256(msgspec.json.encode(row, order='sorted')).hexdigest()}\n"


def is_measured(name: str) -> bool:
    """Whether a member differs from run to run of the same configuration, since it holds times or the machine."""
    return bool(MEASURED.fullmatch(name))


METADATA = "ro-crate-metadata.json"
WORKFLOW = "#snaketune"
PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
FORMATS = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".html": "text/html",
    ".md": "text/markdown",
    ".gguf": "application/octet-stream",
    ".safetensors": "application/octet-stream",
}
Entity = dict[str, object]


def metadata(config: RunConfig, record: RunRecord, members: Mapping[str, Path | bytes]) -> bytes:
    """The metadata of a bundle with these members. Its date is that of the code, since outputs hold no clock."""
    files = [_file(name, member) for name, member in sorted(members.items())]
    inputs = [_id(name) for name in sorted(members) if name.startswith(INPUTS)]
    results = [_id(name) for name in sorted(members) if name.startswith(RUN)]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"snaketune run {config.run}",
        "description": f"{record.model.base} tuned on {len(record.sources)} data files: configuration, digests of the "
        "rows, versions, records, scores and report",
        "datePublished": _code_date(record.code.commit),
        "license": config.package.license or "no license was stated",
        "conformsTo": [_id(profile) for profile in PROFILES],
        "hasPart": [_id(name) for name in sorted(members)],
        "mainEntity": _id(WORKFLOW),
        "mentions": [_id("#run")],
    }
    workflow: Entity = {
        "@id": WORKFLOW,
        "@type": ["SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "snaketune",
        "version": VERSION,
        "identifier": record.code.commit or record.code.digest,
        "programmingLanguage": _id("#snakemake"),
    }
    action: Entity = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"run {config.run}",
        "instrument": _id(WORKFLOW),
        "object": [_id(CONFIGURATION), *inputs],
        "result": results,
    }
    language: Entity = {
        "@id": "#snakemake",
        "@type": "ComputerLanguage",
        "name": "Snakemake",
        "version": record.versions.get("snakemake", ""),
        "url": "https://snakemake.github.io",
    }
    about: Entity = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": _id("./"),
        "conformsTo": [_id("https://w3id.org/ro/crate/1.1")],
    }
    profiles = [{"@id": profile, "@type": "CreativeWork"} for profile in PROFILES]
    graph = [about, root, workflow, language, action, *profiles, *files]
    return dumps({"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}).encode()


def _id(name: str) -> Entity:
    return {"@id": name}


def _file(name: str, member: Path | bytes) -> Entity:
    size = len(member) if isinstance(member, bytes) else member.stat().st_size
    found: Entity = {"@id": name, "@type": "File", "contentSize": str(size)}
    if not isinstance(member, bytes):
        found["sha256"] = sha256(member)
    kind = FORMATS.get(Path(name).suffix)
    return found | ({"encodingFormat": kind} if kind else {})


def _code_date(commit: str | None) -> str:
    if commit is None:
        return RELEASED
    command = ["git", "-C", str(ROOT), "show", "-s", "--format=%cs", commit]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or RELEASED
    except (OSError, subprocess.CalledProcessError):
        return RELEASED
