"""From a `model` section to a manifest: the demo and local folders stay where they are, a hub model is brought here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snaketune.files import StrPath, read_json
from snaketune.model import hub
from snaketune.model.manifest import SMALL, WEIGHTS, is_local, local_files, write_manifest


def fetch_config(model: dict[str, Any], manifest: StrPath) -> dict[str, Any]:
    """Write the manifest of a base's small files (configuration, tokenizer, template), fetched if need be.

    manifest: `<models>/<key>.config.json`; a hub model's files go to `<models>/<key>/`.
    """
    folder, commit = _folder(model, _here(manifest, ".config.json")), None
    if _is_hub(model):
        commit = hub.fetch(model, folder, weights=False)
    return write_manifest(manifest, model, str(folder), patterns=SMALL, commit=commit)


def fetch_model(model: dict[str, Any], manifest: StrPath) -> dict[str, Any]:
    """Write the manifest of the whole base, weights included: `<models>/<key>.json`.

    A hub model is taken at the commit that `<key>.config.json` beside it names, so that both describe one state.
    """
    folder, commit = _folder(model, _here(manifest, ".json")), None
    if _is_hub(model):
        commit = read_json(Path(manifest).with_suffix(".config.json"))["commit"]
        hub.fetch(model, folder, weights=True, commit=commit)
    return write_manifest(manifest, model, str(folder), patterns=SMALL + WEIGHTS, commit=commit)


def _is_hub(model: dict[str, Any]) -> bool:
    return model["base"] != "demo" and not is_local(model["base"])


def _here(manifest: StrPath, ending: str) -> Path:
    """The folder beside a manifest that has its name."""
    return Path(str(manifest).removesuffix(ending))


def _folder(model: dict[str, Any], here: Path) -> Path:
    if model["base"] != "demo" and is_local(model["base"]):
        local_files(model["base"])
        return Path(model["base"]).expanduser()
    return here
