"""What a bundle says of itself: ro-crate-metadata.json, which workflow systems and repositories of data read.

https://w3id.org/ro/crate/1.1 and its profile for runs of a workflow, https://w3id.org/ro/wfrun/workflow/0.5
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from snaketune.bundle import contents
from snaketune.config.sections import RunConfig
from snaketune.files import dumps, sha256
from snaketune.runtime.provenance import ROOT, RunRecord
from snaketune.version import RELEASED, VERSION

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
    inputs = [_id(name) for name in sorted(members) if name.startswith(contents.INPUTS)]
    results = [_id(name) for name in sorted(members) if name.startswith(contents.RUN)]
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
        "object": [_id(contents.CONFIGURATION), *inputs],
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
