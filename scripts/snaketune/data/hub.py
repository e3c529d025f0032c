"""Data sets of the Hugging Face hub as a source: a pinned revision, one split, its files read like any others."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snaketune.data.sources import CONTAINERS, suffix
from snaketune.errors import DataError

CARD = "README.md"


def fetched(source: dict[str, Any], where: str) -> list[tuple[str, str]]:
    """The files of the split, downloaded: (local path, name that records.jsonl gives it).

    source: `hub` (its id, or a local folder of the same layout), `revision`, `subset`, `hub_split`. Raises DataError
    with what to do when it cannot be had.
    """
    name = source["hub"]
    if Path(name).is_dir():
        folder, label = Path(name), name
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        return [(str(folder / one), f"{label}/{one}") for one in chosen(names, _card(folder), source, where)]
    return _downloaded(source, where)


def _downloaded(source: dict[str, Any], where: str) -> list[tuple[str, str]]:
    import huggingface_hub
    from huggingface_hub import errors

    name = source["hub"]
    asked: dict[str, Any] = {"repo_type": "dataset", "revision": source["revision"]}
    try:
        info = huggingface_hub.dataset_info(name, revision=source["revision"])
        asked["revision"] = info.sha
        names = sorted(one.rfilename for one in info.siblings or [])
        card = Path(str(huggingface_hub.snapshot_download(name, **asked, allow_patterns=[CARD])))
        wanted = chosen(names, _card(card), source, where)
        folder = Path(str(huggingface_hub.snapshot_download(name, **asked, allow_patterns=wanted)))
    except errors.RevisionNotFoundError:
        raise DataError(
            f'the data set {name} has no revision "{source["revision"]}"', where=f"{where}.revision"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"the hub knows no data set {name}, or you may not see it",
            where=f"{where}.hub",
            fix="Check the name; if it is private or gated, accept its terms and log in with `hf auth login`",
        ) from None
    except (OSError, errors.HTTPError) as error:
        raise DataError(
            f"the data set {name} cannot be fetched ({type(error).__name__})",
            where=f"{where}.hub",
            fix="Connect and run snakemake again, or set `path` to a folder that holds a copy",
        ) from None
    return [(str(folder / one), f"{name}@{str(info.sha)[:12]}/{one}") for one in wanted]


def chosen(names: Iterable[str], card: dict[str, Any], source: dict[str, Any], where: str) -> list[str]:
    """The data files of the wanted split: as the data set's card says, or else by the split's name in theirs."""
    wanted, subset = source["hub_split"], source["subset"]
    files = [name for name in names if suffix(name) in CONTAINERS and not name.startswith(".")]
    configurations = card.get("configs") or []
    told = [one for one in configurations if one.get("data_files") and subset in (None, one.get("config_name"))]
    if subset is None and len(told) > 1:
        told = [one for one in told if one.get("default") or one.get("config_name") == "default"] or told[:1]
    patterns = [pattern for one in told for pattern in _patterns(one["data_files"], wanted)]
    if patterns:
        found = [name for name in files if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    else:
        word = re.compile(rf"(^|[/_.-]){re.escape(wanted)}([/_.-]|$)")
        found = [name for name in files if word.search(name) and (not subset or name.startswith(f"{subset}/"))]
    if not found:
        shown = ", ".join(files[:8]) or "none"
        raise DataError(
            f'{source["hub"]} has no data file of the split "{wanted}"' + (f' of "{subset}"' if subset else ""),
            where=f"{where}.hub_split",
            fix=f"Its data files are: {shown}",
        )
    return found


def _patterns(data_files: Any, wanted: str) -> list[str]:
    """The paths of a split in a card's data_files: a text, a list, or a list of {split, path}."""
    if isinstance(data_files, str):
        return [data_files] if wanted == "train" else []
    found: list[str] = []
    for one in data_files if isinstance(data_files, list) else []:
        if isinstance(one, str):
            found += [one] if wanted == "train" else []
        elif one.get("split") == wanted:
            found += one["path"] if isinstance(one["path"], list) else [one["path"]]
    return found


def _card(folder: Path) -> dict[str, Any]:
    """The YAML head of a data set's card, or nothing."""
    import yaml

    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    return head if isinstance(head, dict) else {}
