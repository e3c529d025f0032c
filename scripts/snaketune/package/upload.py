"""The finished model on the hub: only on request, private unless said, and with the token from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snaketune import files
from snaketune.errors import ConfigError, PackageError, ResourceError
from snaketune.files import StrPath


def run(
    *, card: StrPath, products: Sequence[StrPath], fidelity: StrPath, config: dict[str, Any], uploaded: StrPath
) -> None:
    """Upload the card and the products, files or folders, and write {"repository", "private", "files"}.

    config: {"package": {"upload": {"repository", "private"}}}. A model that failed its fidelity checks stays here.
    The token is read from HF_TOKEN, and written nowhere.
    """
    settings = config["package"]["upload"]
    token = os.environ.get("HF_TOKEN")
    if not settings["repository"]:
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
    if not files.read_json(fidelity)["passed"]:
        raise PackageError(
            "this model failed its fidelity checks, so it is not uploaded", where=str(fidelity), fix="Mend that first"
        )
    names = _upload(settings, token, [Path(card), *map(Path, products)])
    files.write_json(uploaded, {"repository": settings["repository"], "private": settings["private"], "files": names})


def _upload(settings: dict[str, Any], token: str, paths: Sequence[Path]) -> list[str]:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    repository = settings["repository"]
    found = [
        (str(file.relative_to(path.parent if path.is_file() else path)), file)
        for path in paths
        for file in ([path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file()))
    ]
    try:
        api.create_repo(repository, private=settings["private"], exist_ok=True, repo_type="model")
        api.create_commit(
            repository,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file)) for name, file in found],
            commit_message="Model and card from snaketune",
            repo_type="model",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ResourceError(
            f"the hub did not take it ({str(error).splitlines()[0].replace(token, '***')})",
            where=repository,
            fix="See that the token may write there and that the network is up, then run snakemake upload again",
        ) from None
    return [name for name, _ in found]
