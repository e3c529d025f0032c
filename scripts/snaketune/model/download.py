"""Downloads a base model from the Hub at a pinned revision, and writes the manifest of any base."""

from __future__ import annotations

from pathlib import Path

from snaketune.contracts.data import ModelManifest
from snaketune.errors import ModelError
from snaketune.files import StrPath, read_json
from snaketune.model.manifest import SMALL, WEIGHTS, BaseConfig, is_local, local_files, write_manifest
from snaketune.runtime.progress import watching


def fetch(model: BaseConfig, folder: str | Path, *, weights: bool, commit: str | None = None) -> str:
    """Download a Hub model's small files, or its weights too, into `folder`; returns the commit.

    commit: the exact commit to take instead of the `revision` of the `model` section. A download that was cut off
    resumes. Raises ModelError that says what to do: log in, accept a license, correct a name.
    """
    import huggingface_hub
    from huggingface_hub import errors

    base = model.base
    revision = commit or model.revision
    try:
        commit = commit or huggingface_hub.model_info(base, revision=revision).sha
        with watching(folder, "downloading"):
            huggingface_hub.snapshot_download(
                base, revision=commit, local_dir=folder, allow_patterns=[*SMALL, *(WEIGHTS if weights else ())]
            )
    except (OSError, errors.HTTPError) as error:  # the Hub's own errors are of these, too
        raise _download_error(error, base, revision) from None
    if weights and not any(Path(folder).glob(WEIGHTS[0])):
        raise ModelError(
            f"{base} has no safetensors weights",
            where="model.base",
            why="Other formats can run code when they are loaded",
            fix="Choose a conversion of it, for instance under mlx-community/",
        )
    return str(commit)


def _download_error(error: Exception, base: str, revision: str) -> ModelError:
    """What a failed download means to the user."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{base}"
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"the hub asks for your consent to the license of {base}",
            where="model.base",
            fix=f"Accept it on {page}, then log in with `hf auth login` and run snakemake again",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(
            f'{base} has no revision "{revision}"', where="model.revision", fix=f"See {page}/commits/main"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"model {base} was not found on the hub, or you do not have access",
            where="model.base",
            fix=f"Check the name on {page}; if it is private, log in with `hf auth login`",
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code if error.response is not None else "no"
        forbidden = status in (401, 403)
        return ModelError(
            f"the hub refused {base} (status {status})",
            where="model.base",
            fix=f"Accept the license on {page} and log in with `hf auth login`" if forbidden else "Try again later",
        )
    return ModelError(
        f"{base} is not on this machine and the hub cannot be reached ({type(error).__name__})",
        where="model.base",
        fix="Connect and run snakemake again (the download resumes), or set model.base to a folder that holds a copy",
    )


def fetch_config(model: BaseConfig, manifest: StrPath) -> ModelManifest:
    """Write the manifest of a base's small files (configuration, tokenizer, template), fetched if need be.

    manifest: `<models>/<key>.config.json`; a hub model's files go to `<models>/<key>/`.
    """
    folder, commit = _folder(model, _here(manifest, ".config.json")), None
    if _is_hub(model):
        commit = fetch(model, folder, weights=False)
    return write_manifest(manifest, model, str(folder), patterns=SMALL, commit=commit)


def fetch_model(model: BaseConfig, manifest: StrPath) -> ModelManifest:
    """Write the manifest of the whole base, weights included: `<models>/<key>.json`.

    A hub model is taken at the commit that `<key>.config.json` beside it names, so that both describe one state.
    """
    folder, commit = _folder(model, _here(manifest, ".json")), None
    if _is_hub(model):
        commit = read_json(Path(manifest).with_suffix(".config.json"), ModelManifest).commit
        fetch(model, folder, weights=True, commit=commit)
    return write_manifest(manifest, model, str(folder), patterns=SMALL + WEIGHTS, commit=commit)


def _is_hub(model: BaseConfig) -> bool:
    return model.base != "demo" and not is_local(model.base)


def _here(manifest: StrPath, ending: str) -> Path:
    """The folder beside a manifest that has its name."""
    return Path(str(manifest).removesuffix(ending))


def _folder(model: BaseConfig, here: Path) -> Path:
    if model.base != "demo" and is_local(model.base):
        local_files(model.base)
        return Path(model.base).expanduser()
    return here
