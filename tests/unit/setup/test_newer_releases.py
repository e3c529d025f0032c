"""`make releases` with real pip against an index on loopback: what each release adds is read from its archive."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import newer_releases
import pins
import pytest
from loopback import serving
from package_index import Index
from snaketune.engines import get_capabilities
from snaketune.files import read_json
from snaketune.plan.known_architectures import NewerReleases

PINNED = pins.chosen((Path(__file__).resolve().parents[3] / pins.CHOSEN).read_text(encoding="utf-8"))
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
BACKEND = """
from pathlib import Path
def prepare_metadata_for_build_wheel(folder, settings=None):
    made = Path(folder, "llama_cpp_python.dist-info"); made.mkdir()
    (made / "METADATA").write_text(Path("PKG-INFO").read_text())
    return made.name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def wheel(index: Path, name: str, version: str, files: dict[str, str]) -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    about = {"METADATA": METADATA.format(name=name, version=version), "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    (index / name).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(index / name / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, content in (files | {f"{stem}.dist-info/{key}": text for key, text in about.items()}).items():
            archive.writestr(path, content)


def source_archive(index: Path, version: str, architectures: list[str]) -> None:
    name = f"llama_cpp_python-{version}"
    listed = f"TEXT_MODEL_MAP: dict[str, str] = {dict.fromkeys(architectures, 'a')}\n"
    files = {"pyproject.toml": PROJECT, "backend.py": BACKEND, "vendor/llama.cpp/conversion/__init__.py": listed}
    files["PKG-INFO"] = METADATA.format(name="llama-cpp-python", version=version)
    (index / "llama-cpp-python").mkdir(parents=True, exist_ok=True)
    with tarfile.open(index / "llama-cpp-python" / f"{name}.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def transformers(index: Path, version: str, model_types: list[str]) -> None:
    pairs = [(name, "AModel") for name in model_types]
    listed = f"MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict({pairs})\n"
    wheel(index, "transformers", version, {"transformers/models/auto/modeling_auto.py": listed})


def test_each_release_after_the_pin_is_listed_with_what_it_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    transformers(index, PINNED["transformers"], ["never_read"])
    transformers(index, "998.0", ["llama", "first", "second"])
    transformers(index, "1000.0", ["llama", "second", "third"])
    remapped = {"mlx_lm/utils.py": 'MODEL_REMAPPING = {"renamed": "llama"}\n', "mlx_lm/models/base.py": ""}
    wheel(index, "mlx-lm", "998.1", remapped | {"mlx_lm/models/fourth.py": "class ModelArgs: ...\n"})
    source_archive(index, "999.0", ["LlamaForCausalLM", "FifthForCausalLM"])
    with serving(Index) as server:
        server.told.append(str(tmp_path))
        for name, value in {
            "CONFIG_FILE": os.devnull,
            "INDEX_URL": f"{server.address}/index",
            "FIND_LINKS": "",
        }.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        newer_releases.main(tmp_path / "found.json")
    found = read_json(tmp_path / "found.json", dict[str, NewerReleases])
    assert found == {
        "transformers": NewerReleases(newest="1000.0", added={"998.0": ["first", "second"], "1000.0": ["third"]}),
        "mlx-lm": NewerReleases(newest="998.1", added={"998.1": ["fourth", "renamed"]}),
        "llama-cpp-python": NewerReleases(newest="999.0", added={"999.0": ["FifthForCausalLM"]}),
    }
    assert "never_read" not in get_capabilities("torch").model_library().model_types
