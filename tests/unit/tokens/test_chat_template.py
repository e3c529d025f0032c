"""One rendering: what is trained, and what a template is told so that it says the same everywhere and every day."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import families
import msgspec
import pytest
from snaketune.contracts.data import ModelManifest, ReadAs
from snaketune.errors import DataError, ModelError
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.template_files import NAMED, TEMPLATES, settled, template_sha256

TALK = [
    {"role": "user", "content": "what is one?"},
    {"role": "assistant", "content": "it is this."},
    {"role": "user", "content": "and two?"},
    {"role": "assistant", "content": "it is that."},
]


def test_template_digest_is_that_of_the_chosen_experiments_template(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    manifest = ModelManifest(
        base="any", revision=None, commit=None, folder=str(tmp_path), quantize=None, files={}, read_as=None
    )
    assert template_sha256(manifest, None) is None
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "its own"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert template_sha256(manifest, None) == digest("its own")
    (tmp_path / "chat_template.jinja").write_text("beside it")
    assert template_sha256(manifest, None) == digest("beside it")
    named = template_sha256(manifest, "alpaca")
    assert named == digest((TEMPLATES / "alpaca.jinja").read_text().rstrip("\n"))
    with_alpaca, with_its_own = (
        msgspec.structs.replace(manifest, read_as=ReadAs(chat_template=name, dtype="auto")) for name in ("alpaca", None)
    )
    assert template_sha256(with_alpaca, "chatml") == named
    assert template_sha256(with_its_own, "chatml") == digest("beside it")


def renderer(folder: Path, family: str, template: str | None = None, named: str | None = None) -> Renderer:
    """The tokenizer of a family, with its own chat template or another one in its place."""
    families.FAMILIES[family].tokenizer(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if template is not None:
        path.write_text(json.dumps(config | {"chat_template": families.TEMPLATES[template]}), encoding="utf-8")
    return Renderer(folder, named)


def trained(made: Renderer, messages: list[dict[str, Any]]) -> str:
    shown = made.conversation(messages)
    return made.tokenizer.decode([token for token, hit in zip(shown.ids, shown.loss_mask, strict=True) if hit])


@pytest.mark.parametrize("family", families.FAMILIES)
def test_answers_and_their_ends_are_trained_and_nothing_else(family: str, tmp_path: Path) -> None:
    made = renderer(tmp_path, family)
    said = trained(made, TALK)
    end = families.FAMILIES[family].stop
    assert [part.strip() for part in said.split(end)] == ["it is this.", "it is that.", ""]
    assert "what" not in said
    assert made.tokenizer.convert_tokens_to_ids(end) in made.stop_ids


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_prompt_is_the_beginning_of_its_conversation(family: str, tmp_path: Path) -> None:
    made = renderer(tmp_path, family)
    prompt, whole = made.prompt_ids(TALK[:3]), made.conversation(TALK).ids
    assert whole[: len(prompt)] == prompt


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_tokenizer_is_read_as_tokenizer_json_states_it(family: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    made = renderer(tmp_path, family)
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    special = next(token for token in made.special_tokens if token != "<unk>")
    for text in ("hello world", f"{special}hello", " hello\n", f"a{special} b"):
        assert (
            made.tokenizer(text, add_special_tokens=False)["input_ids"]
            == plain.encode(text, add_special_tokens=False).ids
        )


def test_a_template_that_asks_for_the_date_says_the_same_every_day(tmp_path: Path) -> None:
    made = renderer(tmp_path, "llama-bpe", template="llama31")
    assert "Today Date: 26 Jul 2024\n" in made.conversation_text(TALK)
    assert made.template is not None
    assert "strftime_now(" not in made.template


def test_a_template_that_can_ask_for_thoughts_asks_for_none(tmp_path: Path) -> None:
    made = renderer(tmp_path, "qwen3")
    assert made.rendered_prompt(TALK[:1]).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert "think" not in trained(made, TALK)
    assert settled(made.template) == made.template


def test_thoughts_that_the_template_drops_never_shift_what_is_trained(tmp_path: Path) -> None:
    made = renderer(tmp_path, "qwen3")
    thinking = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nit is that."}
    said = trained(made, [*TALK[:3], thinking])
    assert said.split("<|im_end|>") == ["it is this.", thinking["content"], ""]
    # of an earlier turn it keeps the answer alone
    with pytest.raises(DataError, match="does not show assistant turn 2"):
        made.conversation([TALK[0], thinking, *TALK[2:]])


def test_an_empty_system_text_is_not_folded_into_the_question(tmp_path: Path) -> None:
    made = renderer(tmp_path, "gemma2")
    assert made.folds_system
    assert made.rendered_prompt([{"role": "system", "content": ""}, TALK[0]]) == made.rendered_prompt(TALK[:1])
    assert "S\n\nwhat is one?" in made.rendered_prompt([{"role": "system", "content": "S"}, TALK[0]])


def test_a_template_whose_answers_end_with_no_token_of_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no token that this model has"):
        renderer(tmp_path, "llama-bpe", named="chatml")


def test_a_template_error_never_advises_the_template_that_is_set(tmp_path: Path) -> None:
    """An end token that counts as a single word is not found right after one; that no template changes."""
    renderer(tmp_path, "llama-bpe")
    path = tmp_path / "tokenizer.json"
    made = json.loads(path.read_text(encoding="utf-8"))
    for token in made["added_tokens"]:
        token["single_word"] = token["content"] == "<|eot_id|>"
    path.write_text(json.dumps(made), encoding="utf-8")
    for named in ("alpaca", "zephyr"):
        with pytest.raises(ModelError, match=r"its own end token '<\|eot_id\|>'") as raised:
            Renderer(tmp_path, named)
        assert "Use alpaca" not in str(raised.value)
        assert "Use zephyr" not in str(raised.value)


FAULTY = (
    "{{ 'a' + 1 }}",
    "{{ 1 // 0 }}",
    "{{ messages[0].content.split(1) }}",
    "{{ raise_exception('no') }}",
    "{% if %}",
)


def put_template(folder: Path, text: str) -> None:
    families.FAMILIES["qwen2"].tokenizer(folder)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("text", FAULTY)
def test_a_template_that_fails_on_every_row_is_refused_whatever_it_raises(text: str, tmp_path: Path) -> None:
    put_template(tmp_path, text)
    with pytest.raises(ModelError, match="fails on one question and one answer"):
        Renderer(tmp_path, None)


@pytest.mark.parametrize("text", FAULTY[:-1])
def test_a_row_on_which_the_template_fails_says_why_whatever_it_raises(text: str, tmp_path: Path) -> None:
    put_template(
        tmp_path, "{% if messages[0].content == 'odd' %}" + text + "{% endif %}" + families.TEMPLATES["chatml"]
    )
    made = Renderer(tmp_path, None)
    good = [{"role": "user", "content": "even"}, TALK[1]]
    assert not isinstance(made.record_or_reason({"messages": good}), str)
    assert isinstance(made.record_or_reason({"messages": [{"role": "user", "content": "odd"}, TALK[1]]}), str)


def test_a_tokenizer_without_an_end_token_is_named_as_such(tmp_path: Path) -> None:
    renderer(tmp_path, "llama-bpe")
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["eos_token"]
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="names no end token"):
        Renderer(tmp_path, "alpaca")


@pytest.mark.parametrize(
    ("named", "family"),
    [
        ("alpaca", "smollm"),
        ("chatml", "qwen2"),
        ("gemma", "gemma2"),
        ("llama-3", "llama-bpe"),
        ("mistral", "mistral"),
        ("zephyr", "llama-sentencepiece"),
    ],
)
def test_a_named_template_trains_answers_and_their_ends(named: str, family: str, tmp_path: Path) -> None:
    assert named in NAMED
    made = renderer(tmp_path, family, named=named)
    parts = trained(made, TALK).split(families.FAMILIES[family].stop)
    assert [part.strip() for part in parts] == ["it is this.", "it is that.", ""]
