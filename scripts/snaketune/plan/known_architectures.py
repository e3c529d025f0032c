"""Whether a base can be trained and handed over: whether both its library and llama.cpp's converter know it.

They are asked before anything is trained: what one of them does not know could not be trained, or not be handed over.
Which version would know it is said as far as it can be known without a network: by newer_releases.json, which
`make releases` writes, by the version of transformers that wrote the config.json, and by the other engine's library.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

from snaketune.config.schema import did_you_mean
from snaketune.engines import get_capabilities
from snaketune.engines.interface import ModelLibrary
from snaketune.engines.llama_cpp.convertible import architecture_names, check_tokenizer
from snaketune.errors import ModelError, ResourceError
from snaketune.files import Record, StrPath, read_json
from snaketune.runtime.engine import ENGINES

NEWER_RELEASES = Path(__file__).with_name("newer_releases.json")  # words of a refusal: no result depends on them
CONVERTER = "llama-cpp-python"  # the package that llama.cpp's converter comes with


class NewerReleases(Record, frozen=True, kw_only=True):
    """What came after the pins: the newest release of a package that was looked at, and what each one added.

    added: by release, the names of config.json that no earlier release knows.
    """

    newest: str
    added: dict[str, list[str]]


def check_base(folder: Path) -> None:
    """Raise ModelError for a base that could not be trained, fused or made into a GGUF file."""
    config = read_json(folder / "config.json")
    capabilities = get_capabilities()
    check_architecture(config, folder, capabilities.model_library())
    check_tokenizer(folder)
    capabilities.check_fusable(config, folder)


def check_architecture(config: Mapping[str, object], folder: StrPath, library: ModelLibrary) -> None:
    """Raise ModelError where the converter or the engine's library does not know the model of a config.json."""
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else "none"
    model_type = str(config.get("model_type"))
    trains, converts = model_type in library.model_types, architecture in architecture_names()
    if trains and converts:
        return
    here = _installed(CONVERTER)
    converter = f"llama.cpp's converter (of {CONVERTER} {here})" if here else "llama.cpp's converter"
    unknowing = [name for name, knows in ((library.name, trains), (converter, converts)) if not knows]
    consequences = {
        library.name: "it could not be trained",
        converter: "the trained model could not be made into a GGUF file",
    }
    meant = did_you_mean(architecture, architecture_names()) if trains else ""
    wanted = ({} if trains else {library.package: model_type}) | ({} if converts else {CONVERTER: architecture})
    raise ModelError(
        f"{' and '.join(unknowing)} {'does' if len(unknowing) == 1 else 'do'} not know the architecture {architecture} "
        f"(model_type {model_type}){meant}",
        where=str(folder),
        why=f"So {', and '.join(consequences[name] for name in unknowing)}",
        fix=". ".join(
            [
                *(_other_engines(model_type) if converts else ()),
                *(_release(package, name) for package, name in wanted.items()),
                *_writer(config, wanted),
                "Or choose a base of one of the families in docs/packaging.md",
            ]
        ),
    )


def _other_engines(model_type: str) -> Iterator[str]:
    """Each engine whose library knows a model, as advice."""
    for name in ENGINES:
        with contextlib.suppress(ResourceError):  # of one that is not installed nothing is known
            library = get_capabilities(name).model_library()
            if model_type not in library.model_types:
                continue
            yield f"Set engine: {name}, whose {library.name} knows it"


def _release(package: str, name: str) -> str:
    """Which release of a package knows a model or an architecture, as advice."""
    found = first_release(package, name)
    if found:
        return f"{package} {found} knows it: `make upgrade ONLY={package}` tries whether that version can be taken"
    newest = str(max(Version(_installed(package) or "0"), Version(_newer_releases()[package].newest)))
    return f"No {package} up to {newest} knows it; a later one may: `make upgrade ONLY={package}` tries the newest"


def first_release(package: str, name: str) -> str | None:
    """The first release after the installed one that knows a name of config.json, where that is known."""
    added = _newer_releases()[package].added
    installed = Version(_installed(package) or "0")
    return next((one for one in sorted(added, key=Version) if Version(one) > installed and name in added[one]), None)


def _installed(package: str) -> str | None:
    """The version of a package that this environment has; a conda environment has those of its steps alone."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _newer_releases() -> dict[str, NewerReleases]:
    return read_json(NEWER_RELEASES, dict[str, NewerReleases])


def _writer(config: Mapping[str, object], packages: Iterable[str]) -> Iterator[str]:
    """What the config.json says of the version that knows it: transformers writes its own into it."""
    if "auto_map" in config:
        yield "It brings code of its own (auto_map in its config.json), which is not run here"
        return
    try:
        # what a version in the making knew, its release knows
        writer = Version(Version(str(config.get("transformers_version"))).base_version)
    except InvalidVersion:
        return
    here = Version(version("transformers"))
    if writer > here:
        others = [package for package in packages if package != "transformers"]
        since = f", so look for a {' and a '.join(others)} from then on" if others else ""
        yield f"Its config.json was written by transformers {writer}, which knows it (here: {here}){since}"
