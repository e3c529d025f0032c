"""Virtual tokens stand right after the begin token of every conversation, and change nothing else."""

from __future__ import annotations

from pathlib import Path

import families
import numpy as np
import pytest
from snaketune.errors import ModelError
from snaketune.package.tokenizer_files import RenderedBy, write_model_files
from snaketune.tokens import virtual_tokens
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import BaseRows, TokenStore, write_store
from snaketune.tokens.tokenize import FilterConfig, TokenFilter

COUNT = 3
TEMPLATES = ("llama-bpe", "llama-sentencepiece", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "phi3", "smollm")
"""Families with a template and a tokenizer of each kind, with a begin token and without."""
CONVERSATION = [
    {"role": "user", "content": "what is red?"},
    {"role": "assistant", "content": "the red is red."},
    {"role": "user", "content": "and green?"},
    {"role": "assistant", "content": "the green is green."},
]


@pytest.fixture(scope="module", params=TEMPLATES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a family, without weights."""
    folder = tmp_path_factory.mktemp(request.param)
    families.FAMILIES[request.param].tokenizer(folder)
    (folder / "config.json").write_text("{}")
    return folder


def without(ids: list[int], virtual: range) -> list[int]:
    return [token for token in ids if token not in virtual]


def test_a_row_is_the_base_s_with_the_virtual_tokens_after_its_begin_token(base: Path) -> None:
    plain, tuned = Renderer(base), Renderer(base, None, COUNT)
    before, after = plain.conversation(CONVERSATION), tuned.conversation(CONVERSATION)
    begin = plain.tokenizer.bos_token_id
    start = 1 if begin is not None and before.ids[0] == begin else 0
    assert after.ids[start : start + COUNT] == list(tuned.virtual_ids)
    kept = virtual_tokens.kept_positions(after.ids, tuned.virtual_ids)
    assert [after.ids[i] for i in kept] == before.ids
    assert [after.loss_mask[i] for i in kept] == before.loss_mask


def test_a_prompt_is_the_beginning_of_its_conversation(base: Path) -> None:
    tuned = Renderer(base, None, COUNT)
    prompt = tuned.prompt_ids(CONVERSATION[:1])
    assert set(tuned.virtual_ids) <= set(prompt)
    assert tuned.conversation(CONVERSATION[:2]).ids[: len(prompt)] == prompt
    assert tuned.stop_ids == Renderer(base).stop_ids


def test_a_fused_folder_renders_and_tokenizes_as_in_training(base: Path, tmp_path: Path) -> None:
    tuned = Renderer(base, None, COUNT)
    write_model_files(
        base,
        tmp_path,
        config={},
        dtype="float16",
        written=RenderedBy(tuned.template, tuned.stop_ids, tuned.virtual_ids),
    )
    handed_over = Renderer(tmp_path)
    assert handed_over.conversation(CONVERSATION) == tuned.conversation(CONVERSATION)
    assert handed_over.prompt_ids(CONVERSATION[:3]) == tuned.prompt_ids(CONVERSATION[:3])
    assert handed_over.special_tokens == tuned.special_tokens


def test_a_base_that_was_prompt_tuned_is_not_tuned_again_in_this_way(base: Path, tmp_path: Path) -> None:
    tuned = Renderer(base, None, COUNT)
    written = RenderedBy(tuned.template, tuned.stop_ids, tuned.virtual_ids)
    write_model_files(base, tmp_path, config={}, dtype="float16", written=written)
    with pytest.raises(ModelError, match="already"):
        Renderer(tmp_path, None, COUNT)


@pytest.mark.parametrize(
    "template",
    [
        "a\n",
        "\nb",
        "{{ bos_token }}c",
        "{% if bos_token %}{{ bos_token }}{% endif %}d",
        "  {% if bos_token %}{{ bos_token }}{% endif %}e",
        "\r\n\t{%- if bos_token %}{{ bos_token }}{% endif %}f\r\n",
        "g{% if bos_token %}\n  {% endif %}\n  ",
        "h{% if bos_token -%}\n{% endif -%}\n  \n\n",
        "  i\n\n  {# why #}\n",
    ],
)
def test_a_template_writes_the_same_text_around_the_virtual_tokens(template: str) -> None:
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(template).render(bos_token="<s>")
    names = "".join(virtual_tokens.names(2))
    found = environment.from_string(virtual_tokens.in_template(template, 2)).render(bos_token="<s>")
    assert found == ("<s>" + names + text[3:] if text.startswith("<s>") else names + text)


def test_a_template_that_begins_with_an_indented_block_has_one_begin_token_and_then_the_virtual_tokens(
    tmp_path: Path,
) -> None:
    families.FAMILIES["llama-bpe"].tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    indented = tmp_path / "indented.jinja"
    indented.write_text(f"  {{% if true %}}{Renderer(tmp_path).template}{{% endif %}}\n")
    plain, tuned = Renderer(tmp_path, str(indented)), Renderer(tmp_path, str(indented), COUNT)
    before, after = plain.conversation(CONVERSATION).ids, tuned.conversation(CONVERSATION).ids
    assert before[0] == plain.tokenizer.bos_token_id
    assert after == [before[0], *tuned.virtual_ids, *before[1:]]


def test_a_template_that_renders_otherwise_with_virtual_tokens_is_refused(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual_tokens, "TEMPLATE", "other text" + virtual_tokens.TEMPLATE)
    assert Renderer(base).template
    with pytest.raises(ModelError, match="renders a conversation otherwise"):
        Renderer(base, None, COUNT)


def test_a_text_is_not_trained_on_and_is_read_as_the_base_reads_it(base: Path) -> None:
    tuned, row = Renderer(base, None, COUNT), {"text": "red"}
    result = TokenFilter(tuned, FilterConfig(max_length=64, on_too_long="drop")).filter(row)
    assert (result.action, result.rendered) == ("drop", None)
    assert "rows with messages" in result.detail
    assert tuned.record(row) == Renderer(base).record(row)


def test_the_base_reads_the_rows_of_a_store_without_virtual_tokens(base: Path, tmp_path: Path) -> None:
    tuned = Renderer(base, None, COUNT)
    rendered = tuned.conversation(CONVERSATION)
    write_store(tmp_path / "rows.safetensors", [(rendered, 1.0)], tuned.virtual_ids)
    store = TokenStore(tmp_path / "rows.safetensors")
    assert store.virtual_ids == tuned.virtual_ids
    ids, loss_mask = BaseRows(store).row(0)
    assert ids.tolist() == without(rendered.ids, tuned.virtual_ids)
    assert loss_mask.sum() == sum(rendered.loss_mask)
    assert BaseRows(store).lengths.tolist() == [len(rendered.ids) - COUNT]
    assert np.array_equal(store.row(0)[0], rendered.ids)
