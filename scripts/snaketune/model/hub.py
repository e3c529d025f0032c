"""Base models from the Hugging Face hub: a pinned revision, a resumed download, and errors in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snaketune.errors import ModelError
from snaketune.model.manifest import SMALL, WEIGHTS


def fetch(model: dict[str, Any], folder: str | Path, *, weights: bool, commit: str | None = None) -> str:
    """Bring a hub model's small files, or its weights too, into `folder`; returns the commit it stands at.

    commit: the exact commit to take instead of the `revision` of the `model` section. A download that was cut off
    goes on where it stopped. Raises ModelError that says what to do: log in, accept a licence, mend a name.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    base = model["base"]
    revision = commit or model["revision"]
    page = f"{constants.ENDPOINT}/{base}"
    try:
        commit = commit or huggingface_hub.model_info(base, revision=revision).sha
        huggingface_hub.snapshot_download(
            base, revision=commit, local_dir=folder, allow_patterns=[*SMALL, *(WEIGHTS if weights else ())]
        )
    except errors.GatedRepoError:
        raise ModelError(
            f"the hub asks for your consent to the licence of {base}",
            where="model.base",
            fix=f"Accept it on {page}, then log in with `hf auth login` and run snakemake again",
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(
            f'{base} has no revision "{revision}"', where="model.revision", fix=f"See {page}/commits/main"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"the hub knows no model {base}, or you may not see it",
            where="model.base",
            fix=f"Check the name on {page}; if it is private, log in with `hf auth login`",
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        forbidden = status in (401, 403)
        raise ModelError(
            f"the hub refused {base} (status {status})",
            where="model.base",
            fix=f"Accept the licence on {page} and log in with `hf auth login`" if forbidden else "Try again later",
        ) from None
    except (OSError, errors.HTTPError) as error:
        raise ModelError(
            f"{base} is not on this machine and the hub cannot be reached ({type(error).__name__})",
            where="model.base",
            fix="Connect and run snakemake again (the download goes on where it stopped), or set model.base to a "
            "folder that holds a copy",
        ) from None
    if weights and not any(Path(folder).glob(WEIGHTS[0])):
        raise ModelError(
            f"{base} has no safetensors weights",
            where="model.base",
            why="Other formats can run code when they are loaded",
            fix="Choose a conversion of it, for instance under mlx-community/",
        )
    return str(commit)
