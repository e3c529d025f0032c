"""A model folder that is damaged or made to mislead is refused with a reason, and nothing in it is run."""

import contextlib
import json
import os
import signal
import struct
import time
from pathlib import Path

import families
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from snaketune.errors import ModelError
from snaketune.model import manifest as base
from snaketune.model import untrusted_files
from snaketune.model.manifest import BaseConfig
from snaketune.tokens import tokenize
from snaketune.tokens.chat_template import Renderer

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16), "none": np.ones((0, 2))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    safetensors.numpy.save_file(TENSORS, path, {"format": "mlx"})
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "model.safetensors"


def with_header(header: object, tensors: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def test_a_sound_file_is_read_as_the_library_reads_it(whole: bytes, scratch: Path) -> None:
    scratch.write_bytes(whole)
    assert {name: about["shape"] for name, about in untrusted_files.check_safetensors(scratch).items()} == {
        name: list(tensor.shape) for name, tensor in TENSORS.items()
    }


BROKEN = {
    "cut in the tensors": (lambda whole: whole[:-4], "holds 28 bytes of tensors where its header describes 32"),
    "cut in the header": (lambda whole: whole[:20], "cut short"),
    "cut in its length": (lambda whole: whole[:5], "cut short: 5 bytes"),
    "nothing at all": (lambda _: b"", "cut short: 0 bytes"),
    "bytes after the end": (lambda whole: whole + b"more", "holds 36 bytes"),
    "a header larger than the file": (lambda whole: struct.pack("<Q", 1 << 60) + whole[8:], "cut short"),
    "a header that is no JSON": (lambda _: struct.pack("<Q", 4) + b"{{{{", "not JSON"),
    "a header nested without end": (
        lambda _: struct.pack("<Q", 2_000_000) + b"[" * 2_000_000,
        "not JSON",
    ),
    "a header that is a list": (lambda _: with_header([]), "not a JSON object"),
    "a tensor that begins past the end": (
        lambda _: with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [96, 100]}}, bytes(4)),
        "begins at byte 96 instead of 0",
    ),
    "two tensors in one place": (
        lambda _: with_header(
            {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, bytes(4)
        ),
        "tensor 'b' begins at byte 0 instead of 4",
    ),
    "a shape larger than its bytes": (
        lambda _: with_header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, bytes(4)),
        "has 4 bytes where its shape",
    ),
    "a shape below zero": (
        lambda _: with_header({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)),
        "does not describe tensor 'a'",
    ),
    "a number format that is none": (
        lambda _: with_header({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "does not describe tensor 'a'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_what_is_wrong_in_it(name: str, whole: bytes, scratch: Path) -> None:
    scratch.write_bytes(BROKEN[name][0](whole))
    with pytest.raises(ModelError, match=BROKEN[name][1]):
        untrusted_files.check_safetensors(scratch)


@given(data=st.data())
def test_whatever_the_library_refuses_is_refused_here_in_one_sentence(
    data: st.DataObject, whole: bytes, scratch: Path
) -> None:
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(bytes(mutated[: data.draw(st.integers(len(mutated) - 3, len(mutated)))]))
    try:
        untrusted_files.check_safetensors(scratch)
    except ModelError:
        return
    with safetensors.safe_open(scratch, "numpy") as opened:
        assert all(name is not None for name in opened.keys())  # noqa: SIM118 - an open file is no dict


@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    with contextlib.suppress(ModelError):
        assert isinstance(untrusted_files.check_safetensors(scratch), dict)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    families.build(folder, "llama-bpe")
    return folder


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def manifest(folder: Path) -> None:
    section = BaseConfig(base=str(folder), revision="main")
    base.write_manifest(folder.parent / "base.json", section, str(folder), patterns=base.SMALL + base.WEIGHTS)


def test_a_sound_model_of_each_kind_is_taken(model: Path) -> None:
    manifest(model)
    tokenize.probe_tokenizer(model, None)


def test_code_that_comes_with_a_model_is_never_run(model: Path) -> None:
    (model / "own.py").write_text(f"open({str(model / 'ran')!r}, 'w')")
    change(model / "config.json", model_file="own.py")
    with pytest.raises(ModelError, match=r"names a program of its own, 'own\.py'.*never run"):
        manifest(model)
    change(model / "config.json", model_file=None, auto_map={"AutoModel": "own.Model", "AutoTokenizer": "own.Tok"})
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tok", None]})
    Renderer(model)
    assert not (model / "ran").exists()


@pytest.mark.parametrize("content", ["[]", "{", "null", "[" * 100_000])
def test_a_configuration_that_is_no_json_object_is_refused(content: str, model: Path) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        manifest(model)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for a in range(99999) %}{% for b in range(99999) %}{% set ns.n = ns.n + 1 %}"
        "{% endfor %}{% endfor %}{{ ns.n }}",
    ],
    ids=["loops", "loops that count"],
)
def test_a_template_that_never_ends_is_ended(template: str, model: Path) -> None:
    (model / "chat_template.jinja").write_text(template)
    change(model / "tokenizer_config.json", chat_template=template)
    started = time.monotonic()
    with pytest.raises(ModelError, match="on a few texts took longer than 1 second"):
        tokenize.probe_tokenizer(model, None, seconds=1)
    assert time.monotonic() - started < 30


def test_a_template_that_hangs_on_one_row_only_is_ended_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(model)
    monkeypatch.setattr("snaketune.tokens.chat_template.RENDERING_SECONDS", 0.5)
    renderer.template = renderer.tokenizer.chat_template = (
        "{% if messages[0].content == 'hang' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
        "{% endfor %}{% endif %}well"
    )
    assert renderer.rendered_prompt([{"role": "user", "content": "go"}]) == "well"
    with pytest.raises(ModelError, match=r"the chat template took longer than 0\.5 seconds"):
        renderer.rendered_prompt([{"role": "user", "content": "hang"}])


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_reaches_for_python_is_stopped_by_the_sandbox(
    attack: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jinja2

    monkeypatch.chdir(tmp_path)
    renderer = Renderer(model)
    renderer.template = renderer.tokenizer.chat_template = attack
    with pytest.raises(jinja2.TemplateError):
        renderer.rendered_prompt([{"role": "user", "content": "a"}])
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_with_a_pattern_that_never_ends_is_refused(model: Path) -> None:
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": r"(a|a|aa)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"trying its tokenizer .* crashed"):
        tokenize.probe_tokenizer(model, None)
    with pytest.raises(ModelError, match="its tokenizer fails on a text of 3,001 characters"):
        Renderer(model).text("a" * 3000 + "!")


def test_a_template_that_takes_all_memory_is_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_files, "MAX_EXTRA_BYTES", 256 << 20)
    doubled = "{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}"
    (model / "chat_template.jinja").write_text(doubled)

    def work() -> None:
        Renderer(model)

    untrusted_files.probe_in_subprocess(
        work, "this", where="", seconds=60
    )  # the fork meets its MemoryError, this process lives


def test_a_process_that_crashes_is_told_from_one_that_hangs() -> None:
    with pytest.raises(ModelError, match="was ended by signal 9"):
        untrusted_files.probe_in_subprocess(lambda: os.kill(os.getpid(), signal.SIGKILL), "this", where="", seconds=10)
