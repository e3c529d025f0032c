"""A base that a library does not know: refused with the version that would know it, as far as that can be known."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version

import pytest
from packaging.version import Version
from snaketune.engines import get_capabilities
from snaketune.engines.interface import ModelLibrary
from snaketune.engines.llama_cpp.convertible import architecture_names
from snaketune.errors import ModelError
from snaketune.files import read_json
from snaketune.plan import known_architectures
from snaketune.plan.known_architectures import NEWER_RELEASES, NewerReleases
from snaketune.runtime.engine import ENGINES

KNOWN = "AfmoeForCausalLM"  # an architecture that the converter has


def refusal(engine: str, architecture: str, model_type: str, **config: object) -> str:
    described = {"architectures": [architecture], "model_type": model_type, **config}
    library = get_capabilities(engine).model_library()
    with pytest.raises(ModelError) as refused:
        known_architectures.check_architecture(described, "somewhere", library)
    return str(refused.value)


def raised(number: int) -> str:
    """A version of transformers that lies that far before or after the one here."""
    here = Version(version("transformers"))
    return f"{here.major}.{here.minor + number}.0"


@pytest.fixture
def two_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table in the place of the real one, in which each package had two releases after its pin."""
    added = {"997.0": ["late", "LateForCausalLM"], "98.10.0": ["newest", "NewestForCausalLM"]}
    found = dict.fromkeys(("transformers", "mlx-lm", "llama-cpp-python"), NewerReleases(newest="997.0", added=added))
    monkeypatch.setattr(known_architectures, "_newer_releases", lambda: found)


def test_transformers_knows_by_its_source_what_it_knows_imported() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert get_capabilities("torch").model_library().model_types == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@pytest.mark.usefixtures("two_releases")
@pytest.mark.parametrize(("engine", "package"), [("mlx", "mlx-lm"), ("torch", "transformers")])
@pytest.mark.parametrize(("name", "release"), [("late", "997.0"), ("newest", "98.10.0")])
def test_the_release_that_first_knows_a_model_is_named_of_each_that_does_not(
    engine: str, package: str, name: str, release: str
) -> None:
    said = refusal(engine, f"{name.title()}ForCausalLM", name)
    assert f"{package} {release} knows it: `make upgrade ONLY={package}`" in said
    assert f"llama-cpp-python {release} knows it" in said


@pytest.mark.usefixtures("two_releases")
def test_where_no_release_is_known_it_says_up_to_which_there_is_none() -> None:
    said = refusal("torch", KNOWN, "unheard")
    assert "No transformers up to 997.0 knows it" in said
    assert "llama-cpp-python" not in said
    assert "make upgrade" in said


def test_a_release_that_is_not_newer_than_the_one_here_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = version("transformers")
    found = {"transformers": NewerReleases(newest=here, added={here: ["late"], raised(-1): ["late"]})}
    monkeypatch.setattr(known_architectures, "_newer_releases", lambda: found)
    assert f"No transformers up to {here} knows it" in refusal("torch", KNOWN, "late")


@pytest.mark.parametrize("written", [raised(1), f"{raised(1)}.dev0"])
def test_the_version_that_wrote_the_config_is_named_where_it_is_newer(written: str) -> None:
    said = refusal("torch", KNOWN, "unheard", transformers_version=written)
    assert f"was written by transformers {raised(1)}, which knows it" in said
    said = refusal("mlx", "UnheardForCausalLM", "unheard", transformers_version=written)
    assert "so look for a mlx-lm and a llama-cpp-python from then on" in said


@pytest.mark.parametrize("config", [{"transformers_version": raised(-1)}, {"transformers_version": None}, {}])
def test_an_older_writer_or_none_says_nothing(config: dict[str, object]) -> None:
    assert "written by" not in refusal("torch", KNOWN, "unheard", **config)


def test_of_a_model_with_code_of_its_own_the_writer_is_no_promise() -> None:
    own = {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}, "transformers_version": raised(1)}
    said = refusal("torch", KNOWN, "unheard", **own)
    assert "written by" not in said
    assert "code of its own" in said


@pytest.mark.parametrize(
    ("engine", "architecture", "model_type", "other"),
    [("mlx", "BloomForCausalLM", "bloom", "torch"), ("torch", "XverseForCausalLM", "xverse", "mlx")],
)
def test_the_engine_that_knows_the_model_is_named_and_takes_it(
    engine: str, architecture: str, model_type: str, other: str
) -> None:
    assert f"Set engine: {other}" in refusal(engine, architecture, model_type)
    library = get_capabilities(other).model_library()
    config = {"architectures": [architecture], "model_type": model_type}
    known_architectures.check_architecture(config, "somewhere", library)


def test_no_engine_is_advised_where_the_converter_does_not_know_the_model() -> None:
    assert "bloom" in get_capabilities("torch").model_library().model_types
    assert "Set engine" not in refusal("mlx", "UnheardForCausalLM", "bloom")


def test_the_table_names_only_what_the_versions_here_do_not_know() -> None:
    found = read_json(NEWER_RELEASES, dict[str, NewerReleases])
    libraries = {get_capabilities(name).model_library() for name in ENGINES}
    known = {one.package: one for one in libraries}
    known["llama-cpp-python"] = ModelLibrary("llama-cpp-python", version("llama-cpp-python"), architecture_names())
    assert found.keys() == known.keys()
    for package, library in known.items():
        for release, names in found[package].added.items():
            if Version(release) > Version(library.version):
                assert not library.model_types & set(names)


def test_the_refusal_needs_neither_the_other_engine_nor_llama_cpps_package(monkeypatch: pytest.MonkeyPatch) -> None:
    here = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlx_lm" else here(name))

    def installed(package: str) -> str:
        if package == known_architectures.CONVERTER:
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(known_architectures, "version", installed)
    library = get_capabilities("torch").model_library()
    config = {"architectures": ["XverseForCausalLM"], "model_type": "xverse"}
    with pytest.raises(ModelError, match="does not know the architecture XverseForCausalLM"):
        known_architectures.check_architecture(config, "base", library)
