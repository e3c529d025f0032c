"""Bases have one name each, and their manifests notice what changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from snaketune.config.sections import ModelConfig
from snaketune.errors import ModelError
from snaketune.model import download
from snaketune.model import manifest as base
from snaketune.model.manifest import BaseConfig

MODEL = {"base": "demo", "revision": "main", "dtype": "auto", "chat_template": None}


def section(**keys: Any) -> ModelConfig:
    return ModelConfig(**{**MODEL, "quantize": None, **keys})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "base"
    home.mkdir()
    (home / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (home / "tokenizer.json").write_text("{}")
    (home / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return home


def test_each_base_and_revision_has_a_key_of_its_own(folder: Path) -> None:
    ids = [("org/name", "main"), ("org/name", "v2"), ("other/name", "main"), (str(folder), "main"), ("demo", "main")]
    keys = [base.model_key(section(base=name, revision=revision)) for name, revision in ids]
    assert len(set(keys)) == len(keys)
    assert all("/" not in key and not key.startswith(".") for key in keys)


def test_a_local_base_has_one_key_whatever_the_revision(folder: Path) -> None:
    one, two = (base.model_key(section(base=str(folder), revision=revision)) for revision in ("main", "v2"))
    assert one == two


def test_a_template_gives_the_tokens_another_key_but_not_the_model() -> None:
    plain, named = section(), section(chat_template="alpaca")
    assert base.model_key(plain) == base.model_key(named)
    assert base.tokens_key(plain) != base.tokens_key(named)


def test_each_template_gives_the_tokens_of_one_base_a_key_of_their_own() -> None:
    names = [None, "alpaca", "chatml", "alpaca.jinja", "mine/alpaca.jinja", "yours/alpaca.jinja"]
    keys = [base.tokens_key(section(chat_template=name)) for name in names]
    assert len(set(keys)) == len(keys)
    assert all("/" not in key for key in keys)


def test_a_manifest_describes_every_file_and_a_changed_size_is_found(folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "base-x.json"
    download.fetch_model(BaseConfig(base=str(folder), revision="main"), manifest)
    assert set(base.read_manifest(manifest).files) == {"config.json", "tokenizer.json", "model.safetensors"}
    (folder / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(ModelError, match=r"model\.safetensors has 4 bytes instead of 10"):
        base.read_manifest(manifest)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        base.read_manifest(manifest)


def test_the_manifest_of_the_small_files_does_not_need_the_weights_content(folder: Path, tmp_path: Path) -> None:
    made = download.fetch_config(BaseConfig(base=str(folder), revision="main"), tmp_path / "x.config.json")
    assert set(made.files) == {"config.json", "tokenizer.json"}


def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (folder / "extra.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelError, match=r"extra\.json is a link"):
        download.fetch_model(BaseConfig(base=str(folder), revision="main"), tmp_path / "x.json")


@pytest.mark.parametrize(("name", "words"), [("./nowhere", "no folder"), ("/", "no model in Hugging Face format")])
def test_a_folder_that_is_no_model_is_refused_in_words(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        base.local_files(name)


def test_pickled_weights_are_named_as_the_reason(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can run code"):
        base.local_files(str(folder))
