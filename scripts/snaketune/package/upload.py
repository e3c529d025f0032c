"""The finished model on the hub: only on request, private unless said, and with the token from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from snaketune import files
from snaketune.config.sections import UploadConfig
from snaketune.contracts.package import Fidelity, UploadRecord
from snaketune.errors import ConfigError, PackageError, ResourceError
from snaketune.files import StrPath


def upload_model(paths: Sequence[StrPath], settings: UploadConfig, *, fidelity: StrPath, uploaded: StrPath) -> None:
    """Upload files and folders (the card, the GGUF files) and write what was uploaded.

    A model that failed its fidelity checks stays here. The token is read from HF_TOKEN, and written nowhere.
    """
    token = os.environ.get("HF_TOKEN")
    if not settings.repository:
        raise ConfigError(
            "no repository is named",
            where="package.upload.repository",
            fix="Set it to owner/name, such as me/my-model",
        )
    if not token:
        raise ResourceError(
            "there is no token for the hub",
            where="HF_TOKEN",
            fix="Make one with write access at https://huggingface.co/settings/tokens and `export HF_TOKEN=...`",
        )
    if not files.read_json(fidelity, Fidelity).passed:
        raise PackageError(
            "this model failed its fidelity checks, so it is not uploaded", where=str(fidelity), fix="Fix that first"
        )
    names = _upload(settings.repository, settings.private, token, [Path(path) for path in paths])
    record = UploadRecord(repository=settings.repository, private=settings.private, files=names)
    files.write_json(uploaded, record)


def _upload(repository: str, private: bool, token: str, paths: Sequence[Path]) -> list[str]:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    found = [
        (str(file.relative_to(path.parent if path.is_file() else path)), file)
        for path in paths
        for file in ([path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file()))
    ]
    try:
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        api.create_commit(
            repository,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file)) for name, file in found],
            commit_message="Model and card from snaketune",
            repo_type="model",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ResourceError(
            f"the Hub refused the upload ({str(error).splitlines()[0].replace(token, '***')})",
            where=repository,
            fix="See that the token may write there and that the network is up, then run snakemake upload again",
        ) from None
    return [name for name, _ in found]
