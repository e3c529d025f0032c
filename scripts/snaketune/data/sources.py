"""The files of a source, in a fixed order: a file, a folder, a glob, or one split of a data set of the Hub."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from snaketune.config.sections import SourceConfig
from snaketune.errors import ConfigError, DataError
from snaketune.files import read_json

COMPRESSIONS = (".gz", ".zst")
FORMATS_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "xlsx",
}
SPREADSHEETS = (".xls", ".xlsb", ".ods", ".numbers")  # not read
SAVED_SPLITS, SAVED_STATE = "dataset_dict.json", "state.json"  # of datasets' save_to_disk
TEXT_FORMATS = ("pairs", "parallel")  # containers that a file's name does not give away


def files(sources: Sequence[SourceConfig]) -> list[str]:
    """Every local file of the configured sources, each once, in the configured order; DataError for a missing one.

    A source on the hub has no local file before it is fetched, and adds none.
    """
    found: dict[str, None] = {}
    for number, source in enumerate(sources):
        for path in expand_paths(source, f"data.sources[{number}]"):
            found[path] = None
        if source.target_path:
            found[at_home(source.target_path)] = None
    return list(found)


def at_home(path: str) -> str:
    """A path with a leading ~ written out."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


def display_name(source: SourceConfig) -> str:
    """What a person calls a source: its path, or its name on the hub."""
    return source.path or source.hub or "a source"


def expand_paths(source: SourceConfig, where: str) -> list[str]:
    """The files of one source: its path itself, the data files in that folder, or the matches of that glob, sorted."""
    path = source.path
    if bool(path) == bool(source.hub):
        raise ConfigError("a source needs either a path or a hub data set", where=where, fix="Give it one of them")
    if not path:
        return []
    if bool(source.target_path) != (source.format == "parallel"):
        raise ConfigError(
            "`format: parallel` and `target_path` belong together",
            where=where,
            fix="Give `path` the file of the source language, `target_path` that of the other, and `format: parallel`",
        )
    path = at_home(path)
    for name in filter(None, (path, at_home(source.target_path or ""))):
        if not Path(name).exists() and not (name == path and glob.has_magic(name)):
            raise missing_file_error(name, where)
    if Path(path).is_file():
        return [path]
    if Path(path).is_dir() and (saved := _saved_files(Path(path), source.hub_split, where)):
        found = saved
        kind = "no Arrow file in this folder of save_to_disk"
    elif Path(path).is_dir():
        found = sorted(str(file) for file in _data_files(Path(path), source.format))
        kind = "no data file in this folder"
    else:
        # Path.glob takes no absolute pattern.
        found = sorted(name for name in glob.glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207
        kind = "no file matches this glob"
    if not found:
        known = ", ".join(FORMATS_BY_SUFFIX)
        raise DataError(
            f"{kind}: {path}",
            where=f"{where}.path",
            fix=f"Data files end in {known}, each optionally followed by {' or '.join(COMPRESSIONS)}",
        )
    return found


class DataFile(NamedTuple):
    """A file of a source: where it lies, how to read it, and what records.jsonl calls it."""

    path: str
    file_format: str
    name: str


def data_files(source: SourceConfig, where: str) -> Iterator[DataFile]:
    """The files of one source; those of a hub data set are fetched."""
    found = download_split(source, where) if source.hub else [(path, path) for path in expand_paths(source, where)]
    for path, name in found:
        yield DataFile(path, file_format(path, source.format), name)


def _saved_files(folder: Path, split: str, where: str) -> list[str]:
    """The Arrow files of a folder that `save_to_disk` of datasets wrote, of one split if it has several.

    Empty for any other folder. Such a folder also holds JSON files, which describe the rows and are none.
    """
    if (folder / SAVED_SPLITS).is_file():
        names = read_json(folder / SAVED_SPLITS).get("splits", [])
        if split not in names:
            raise DataError(
                f'this saved data set has no split "{split}"',
                where=f"{where}.hub_split",
                fix=f"Its splits are: {', '.join(map(str, names))}",
            )
        folder = folder / split
    if not (folder / SAVED_STATE).is_file():
        return []
    return [str(folder / one["filename"]) for one in read_json(folder / SAVED_STATE).get("_data_files", [])]


def _data_files(folder: Path, file_format: str) -> Iterator[Path]:
    """The files of a folder, at any depth, that hold rows by their name; hidden ones are passed over."""
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        suits = (
            data_suffix(file.name) == ".txt"
            if file_format in TEXT_FORMATS
            else data_suffix(file.name) in FORMATS_BY_SUFFIX
        )
        if file.is_file() and suits and not hidden:
            yield file


def data_suffix(name: str) -> str:
    """The ending that tells the format, in small letters, a compression's own ending left out."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def file_format(path: str, chosen: str) -> str:
    """How a file is to be read: as the configuration says, or as its name tells."""
    if chosen != "auto":
        return chosen
    known = FORMATS_BY_SUFFIX.get(data_suffix(path))
    if known:
        return known
    if data_suffix(path) in SPREADSHEETS:
        raise DataError(
            f"spreadsheets of this kind ({data_suffix(path)}) are not read",
            where=path,
            fix="In your spreadsheet program: save it as .xlsx or as CSV UTF-8, and name that file here",
        )
    raise DataError(
        f"how to read {path} cannot be told from its name",
        where=path,
        fix="Set this source's `format`, for instance `pairs` for a text file of alternating prompt and answer lines; "
        f"or give the file one of the endings {', '.join(FORMATS_BY_SUFFIX)}",
    )


def missing_file_error(path: str, where: str) -> DataError:
    """The message for a path that is not there, with the nearest name in its folder."""
    from difflib import get_close_matches

    folder, name = Path(path).parent, Path(path).name
    if Path(path).is_symlink():
        return DataError(
            f"{path} is a link to {Path(path).readlink()}, which is not there",
            where=f"{where}.path",
            fix="Put that file back, for instance by mounting its disk, or make the link again",
        )
    names = [one.name for one in folder.iterdir() if one.exists()] if folder.is_dir() else []
    near = get_close_matches(name, names, n=1)
    hint = f" (did you mean {folder / near[0]}?)" if near else ""
    absent = "" if folder.is_dir() else f"; there is no folder {folder} either"
    return DataError(
        f"there is no file {path}{hint}{absent}",
        where=f"{where}.path",
        fix="Give the path from the folder in which snakemake is run, or an absolute path",
    )


def sample_rows(total: int, limit: float, seed: int, source: int) -> set[int]:
    """Return the numbers, from 0, of the rows to read out of `total`.

    limit: how many, or below 1 which share; source: its number, so that two sources are not sampled alike. Each row has
    a keyed hash and those with the smallest are taken, so a smaller limit takes a part of what a larger one does.
    """
    count = min(total, round(limit * total) if limit < 1 else int(limit))
    if limit < 1 and total:
        count = max(1, count)
    if count == total:
        return set(range(total))
    key = f"{seed}/{source}".encode()
    hashes = ((hashlib.blake2b(b"%d" % row, key=key, digest_size=8).digest(), row) for row in range(total))
    return {row for _, row in heapq.nsmallest(count, hashes)}


CARD = "README.md"


class Card(TypedDict, total=False):
    """The part of a data set's card that names its files; written by a stranger."""

    configs: list[Any]


def download_split(source: SourceConfig, where: str) -> list[tuple[str, str]]:
    """The files of the split, downloaded: (local path, name that records.jsonl gives it).

    source: `hub` (its id, or a local folder of the same layout), `revision`, `subset`, `hub_split`. Raises DataError
    with what to do when it cannot be had.
    """
    name = source.hub or ""
    if Path(name).is_dir():
        folder, label = Path(name), name
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        return [(str(folder / one), f"{label}/{one}") for one in select_data_files(names, _card(folder), source, where)]
    return _downloaded(source, where)


def _downloaded(source: SourceConfig, where: str) -> list[tuple[str, str]]:
    import huggingface_hub
    from huggingface_hub import errors

    name = source.hub or ""
    request: dict[str, Any] = {"repo_type": "dataset", "revision": source.revision}
    try:
        info = huggingface_hub.dataset_info(name, revision=source.revision)
        request["revision"] = info.sha
        names = sorted(one.rfilename for one in info.siblings or [])
        card = Path(str(huggingface_hub.snapshot_download(name, **request, allow_patterns=[CARD])))
        wanted = select_data_files(names, _card(card), source, where)
        folder = Path(str(huggingface_hub.snapshot_download(name, **request, allow_patterns=wanted)))
    except errors.RevisionNotFoundError:
        raise DataError(f'the data set {name} has no revision "{source.revision}"', where=f"{where}.revision") from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"data set {name} was not found on the hub, or you do not have access",
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


def select_data_files(names: Iterable[str], card: Card, source: SourceConfig, where: str) -> list[str]:
    """The data files of the wanted split: as the data set's card says, or else by the split's name in theirs."""
    wanted, subset = source.hub_split, source.subset
    files = [name for name in names if data_suffix(name) in FORMATS_BY_SUFFIX and not name.startswith(".")]
    configurations = card.get("configs") or []
    matching_configs = [
        one for one in configurations if one.get("data_files") and subset in (None, one.get("config_name"))
    ]
    if subset is None and len(matching_configs) > 1:
        matching_configs = [
            one for one in matching_configs if one.get("default") or one.get("config_name") == "default"
        ] or matching_configs[:1]
    patterns = [pattern for one in matching_configs for pattern in _patterns(one["data_files"], wanted)]
    if patterns:
        found = [name for name in files if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    else:
        word = re.compile(rf"(^|[/_.-]){re.escape(wanted)}([/_.-]|$)")
        found = [name for name in files if word.search(name) and (not subset or name.startswith(f"{subset}/"))]
    if not found:
        shown = ", ".join(files[:8]) or "none"
        raise DataError(
            f'{source.hub} has no data file of the split "{wanted}"' + (f' of "{subset}"' if subset else ""),
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


def _card(folder: Path) -> Card:
    """The YAML head of a data set's card, or nothing."""
    import yaml

    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    configs = head.get("configs") if isinstance(head, dict) else None
    return {"configs": configs} if isinstance(configs, list) else {}
