"""Formats: what each becomes, told apart row by row, and the reason where it becomes nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.data.deduplication import CONTROLS, fold, is_blank, normalize
from snaketune.data.readers.raw_row import REJECTION_REASONS, Rejection
from snaketune.data.records import Layout, RecordBuilder, ValidationConfig, parse_fields
from unit.data.data_steps import settings

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Hilo"}'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def judged(row: dict, **source: object) -> dict:
    return builder(source).record(row)


def builder(source: dict, **data: object) -> RecordBuilder:
    section = {"sources": [{"path": "rows.jsonl"} | source], "min_characters": 1, "max_characters": 1000} | data
    complete = settings(*section.pop("sources"), **section)
    config = msgspec.convert({name: complete[name] for name in ValidationConfig.__struct_fields__}, ValidationConfig)
    return RecordBuilder(config.sources[0], config)


def refused(row: dict, **source: object) -> str:
    with pytest.raises(Rejection) as raised:
        judged(row, **source)
    assert raised.value.code in REJECTION_REASONS
    return raised.value.code


def turns(*pairs: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response": "a"},
        {"prompt": "q", "completion": "a"},
        {"question": "q", "answer": "a"},
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": "", "output": "a", "text": "q and a"},
        {"messages": turns(("user", "q"), ("assistant", "a"))},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, *turns(("assistant", "a"))]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": turns(("user", "q"), ("assistant", "a"))},
    ],
)
def test_every_format_of_one_question_becomes_the_same_conversation(row: dict) -> None:
    assert judged(row) == {"messages": turns(("user", "q"), ("assistant", "a"))}


def test_an_input_follows_its_instruction_and_a_system_text_goes_first() -> None:
    row = {"instruction": "add", "input": "1 1", "output": "2", "system": "be brief"}
    assert judged(row)["messages"] == turns(("system", "be brief"), ("user", "add\n\n1 1"), ("assistant", "2"))


def test_the_configured_system_text_is_added_to_rows_that_have_none() -> None:
    judge = builder({}, system="be kind")
    own = {"messages": turns(("system", "own"), ("user", "q"), ("assistant", "a"))}
    assert judge.record(own)["messages"][0]["content"] == "own"
    assert judge.record({"prompt": "q", "response": "a"})["messages"][0]["content"] == "be kind"
    assert judge.record({"text": "t"}) == {"text": "t"}


def test_a_conversation_with_tools_keeps_its_calls_their_results_and_the_descriptions() -> None:
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "assistant", "content": "it is sunny"},
    ]
    record = judged({"messages": messages, "tools": TOOLS})
    assert record["tools"] == TOOLS
    assert record["messages"][1]["content"] == ""
    assert record["messages"][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Hilo"}}
    assert record["messages"][2] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}
    assert refused({"messages": [*messages[:1], {"role": "assistant", "content": None}]}) == "wrong-type"
    assert refused({"messages": messages[:3]}) == "bad-roles"
    assert refused({"messages": [*messages[:2], *messages[3:]]}) == "bad-roles"


def test_names_of_fields_can_be_mapped_and_are_named_as_the_user_does() -> None:
    fields = {"prompt": "frage", "response": "antwort"}
    assert judged({"frage": "q", "antwort": "a", "prompt": "else"}, fields=fields)["messages"][0]["content"] == "q"
    with pytest.raises(Rejection, match="`antwort`"):
        parse_fields({"frage": "q"}, Layout(fields))


def test_labels_are_constant_or_taken_from_a_field() -> None:
    row = {"prompt": "q", "response": "a", "topic": 7, "author": None}
    record = judged(row, category={"field": "topic"}, group={"field": "author"}, weight=0.5)
    assert record["category"] == "7"
    assert "group" not in record
    assert record["weight"] == 0.5
    assert judged(row, category="law")["category"] == "law"
    assert refused(row | {"topic": ["a"]}, category={"field": "topic"}) == "wrong-type"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "\u200b\u00a0\ufeff", "response": "a"}, "empty"),
        ({"prompt": "q", "response": "a\x1b[0m"}, "control-characters"),
        ({"prompt": "q", "response": "a\x85b"}, None),
        ({"prompt": "q" * 600, "response": "a" * 600}, "too-long"),
        ({"messages": []}, "empty"),
        ({"messages": ["hi"]}, "wrong-type"),
        ({"messages": [{"content": "x"}]}, "missing-field"),
        ({"messages": turns(("user", "q"), ("assistant", " "))}, "empty"),
        ({"messages": turns(("system", ""), ("user", "q"), ("assistant", "a"))}, None),
        ({"messages": turns(("user", "q"), ("assistant", "a"), ("assistant", "b"))}, "bad-roles"),
        ({"messages": turns(("user", "q"), ("assistant", "a")), "tools": "none"}, "wrong-type"),
        ({"response": "a"}, "missing-field"),
        ({}, "unknown-format"),
    ],
)
def test_rows_get_their_reason(row: dict, code: str | None) -> None:
    if code:
        assert refused(row) == code
    else:
        judged(row)


def test_a_control_character_inside_a_tool_call_is_found() -> None:
    call = {"function": {"name": "f", "arguments": {"a": "\x00"}}}
    assert refused({"messages": [*turns(("user", "q")), {"role": "assistant", "tool_calls": [call]}]}) == (
        "control-characters"
    )


@given(st.text())
def test_normal_text_is_normal_again_and_loose_text_has_single_spaces(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)
    if not CONTROLS.search(text):
        assert fold(text) == " ".join(fold(text).split(" ")).strip(" ") or not fold(text)
        assert "\n" not in fold(text)
        assert "  " not in fold(text)
    if not is_blank(text) and text.isascii():
        assert fold(text)


def test_composed_and_decomposed_letters_are_the_same_for_comparing_only() -> None:
    assert normalize("e\u0301t\u00e9") == normalize("\u00e9te\u0301")
    assert judged({"prompt": "e\u0301", "response": "a"})["messages"][0]["content"] == "e\u0301"
