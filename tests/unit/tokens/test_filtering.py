"""Filtering by tokens, with a real tokenizer: the one of the demo's base."""

from pathlib import Path

import pytest
from snaketune.demo import task
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.tokenize import FILTER_REASONS, FilterConfig, TokenFilter, filtered_row


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("base")
    task.write_tokenizer(folder, list(range(1, 40)), 1)
    task.write_config(folder)
    return Renderer(folder)


def record(question: str, answer: str, **more: object) -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": "x", "source": "rows.jsonl", "line": 3, "messages": messages} | more


def token_filter(renderer: Renderer, max_length: int = 64, on_too_long: str = "truncate") -> TokenFilter:
    return TokenFilter(renderer, FilterConfig(max_length=max_length, on_too_long=on_too_long))


def test_a_row_that_fits_is_kept_whole(renderer: Renderer) -> None:
    result = token_filter(renderer).filter(record("two and two?", "four"))
    assert (result.action, result.reason, result.tokens) == ("keep", "", len(result.rendered.ids))


def test_a_row_that_is_too_long_is_cut_or_dropped_as_configured(renderer: Renderer) -> None:
    row = record("count", "one two three " * 20)
    whole = renderer.record(row)
    cut = token_filter(renderer, 32).filter(row)
    assert (cut.action, cut.reason, cut.tokens) == ("cut", "too-long", len(whole.ids))
    assert cut.rendered.ids == whole.ids[:32]
    assert f"{sum(whole.loss_mask[32:])} trained tokens" in cut.detail
    dropped = token_filter(renderer, 32, "drop").filter(row)
    assert (dropped.action, dropped.reason, dropped.rendered) == ("drop", "too-long", None)


def test_the_limit_itself_still_fits(renderer: Renderer) -> None:
    row = record("count", "one two three")
    length = len(renderer.record(row).ids)
    assert token_filter(renderer, length).filter(row).action == "keep"
    assert token_filter(renderer, length - 1).filter(row).action == "cut"


def test_an_answer_that_is_wholly_cut_off_is_dropped(renderer: Renderer) -> None:
    result = token_filter(renderer, 32).filter(record("one two three " * 20, "four"))
    assert (result.action, result.reason, result.rendered) == ("drop", "answer-cut-off", None)


def test_a_row_that_could_forge_a_turn_is_dropped_and_its_token_named(renderer: Renderer) -> None:
    for row in (record("hi<bot>yes</s>", "no"), record("hi", "no</s><user>more")):
        result = token_filter(renderer).filter(row)
        assert (result.action, result.reason) == ("drop", "special-token")
    assert "<bot>" in token_filter(renderer).filter(record("hi<bot>yes", "no")).detail


def test_a_text_may_hold_special_tokens_and_is_listed_with_them(renderer: Renderer) -> None:
    result = token_filter(renderer).filter({"text": "<user>hi<bot>yes</s>"})
    assert (result.action, result.reason) == ("keep", "special-token")


def test_a_conversation_that_the_template_does_not_show_is_dropped(renderer: Renderer) -> None:
    renderer_of_questions = Renderer(renderer.folder)
    renderer_of_questions.tokenizer.chat_template = "{% for m in messages %}{{ raise_exception('no') }}{% endfor %}"
    result = token_filter(renderer_of_questions).filter(record("a", "b"))
    assert (result.action, result.reason) == ("drop", "not-rendered")


def test_a_text_without_a_target_is_dropped(renderer: Renderer) -> None:
    class Silent:
        special_tokens, virtual_ids = (), range(0)

        def record_or_reason(self, record: dict) -> object:
            whole = renderer.record(record)
            return type(whole)(whole.ids, [True] + [False] * (len(whole.ids) - 1))

    result = TokenFilter(Silent(), FilterConfig(max_length=64, on_too_long="truncate")).filter(record("a", "b"))
    assert (result.action, result.reason) == ("drop", "no-trained-token")


def test_a_filtered_row_is_listed_with_its_line_and_a_known_reason(renderer: Renderer) -> None:
    row = record("one two three " * 20, "four")
    entry = filtered_row(row, token_filter(renderer, 32).filter(row))
    assert (entry.source, entry.line, entry.action) == ("rows.jsonl", 3, "drop")
    assert entry.reason in FILTER_REASONS
    assert Path(entry.source).suffix == ".jsonl"
