"""Token-level verdicts, with a real tokenizer: the one of the demo's base."""

from pathlib import Path

import pytest
from snaketune.demo import base_model
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.filtering import REASONS, TokenJudge, listed


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("base")
    base_model.write_tokenizer(folder, list(range(1, 40)), 1)
    base_model.write_config(folder)
    return Renderer(folder)


def record(question: str, answer: str, **more: object) -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": "x", "source": "rows.jsonl", "line": 3, "messages": messages} | more


def judge(renderer: Renderer, max_length: int = 64, on_too_long: str = "truncate") -> TokenJudge:
    return TokenJudge(renderer, {"max_length": max_length, "on_too_long": on_too_long})


def test_a_row_that_fits_is_kept_whole(renderer: Renderer) -> None:
    verdict = judge(renderer).verdict(record("two and two?", "four"))
    assert (verdict.action, verdict.reason, verdict.tokens) == ("keep", "", len(verdict.rendered.ids))


def test_a_row_that_is_too_long_is_cut_or_dropped_as_configured(renderer: Renderer) -> None:
    row = record("count", "one two three " * 20)
    whole = renderer.record(row)
    cut = judge(renderer, 32).verdict(row)
    assert (cut.action, cut.reason, cut.tokens) == ("cut", "too-long", len(whole.ids))
    assert cut.rendered.ids == whole.ids[:32]
    assert f"{sum(whole.trained[32:])} trained tokens" in cut.detail
    dropped = judge(renderer, 32, "drop").verdict(row)
    assert (dropped.action, dropped.reason, dropped.rendered) == ("drop", "too-long", None)


def test_the_limit_itself_still_fits(renderer: Renderer) -> None:
    row = record("count", "one two three")
    length = len(renderer.record(row).ids)
    assert judge(renderer, length).verdict(row).action == "keep"
    assert judge(renderer, length - 1).verdict(row).action == "cut"


def test_an_answer_that_is_wholly_cut_off_is_dropped(renderer: Renderer) -> None:
    verdict = judge(renderer, 32).verdict(record("one two three " * 20, "four"))
    assert (verdict.action, verdict.reason, verdict.rendered) == ("drop", "answer-cut-off", None)


def test_a_row_that_could_forge_a_turn_is_dropped_and_its_token_named(renderer: Renderer) -> None:
    for row in (record("hi<bot>yes</s>", "no"), record("hi", "no</s><user>more")):
        verdict = judge(renderer).verdict(row)
        assert (verdict.action, verdict.reason) == ("drop", "special-token")
    assert "<bot>" in judge(renderer).verdict(record("hi<bot>yes", "no")).detail


def test_a_text_may_hold_special_tokens_and_is_listed_with_them(renderer: Renderer) -> None:
    verdict = judge(renderer).verdict({"text": "<user>hi<bot>yes</s>"})
    assert (verdict.action, verdict.reason) == ("keep", "special-token")


def test_a_conversation_that_the_template_does_not_show_is_dropped(renderer: Renderer) -> None:
    renderer_of_questions = Renderer(renderer.folder)
    renderer_of_questions.tokenizer.chat_template = "{% for m in messages %}{{ raise_exception('no') }}{% endfor %}"
    verdict = judge(renderer_of_questions).verdict(record("a", "b"))
    assert (verdict.action, verdict.reason) == ("drop", "not-shown")


def test_a_text_without_a_target_is_dropped(renderer: Renderer) -> None:
    class Silent:
        special_tokens = ()

        def record(self, record: dict) -> object:
            whole = renderer.record(record)
            return type(whole)(whole.ids, [True] + [False] * (len(whole.ids) - 1))

    verdict = TokenJudge(Silent(), {"max_length": 64, "on_too_long": "truncate"}).verdict(record("a", "b"))
    assert (verdict.action, verdict.reason) == ("drop", "no-trained-token")


def test_a_verdict_is_listed_with_its_place_and_a_known_reason(renderer: Renderer) -> None:
    row = record("one two three " * 20, "four")
    entry = listed(row, judge(renderer, 32).verdict(row))
    assert (entry["source"], entry["line"], entry["action"]) == ("rows.jsonl", 3, "drop")
    assert entry["reason"] in REASONS
    assert Path(entry["source"]).suffix == ".jsonl"
