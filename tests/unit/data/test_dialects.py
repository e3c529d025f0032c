"""Conversations as other tools write them: tags, tool calls, history, weights, segments, preferences, templates."""

import json

import pytest
from unit.data.test_formats import CALL, TOOLS, judged, refused, turns

WEATHER = {"name": "weather", "description": "of a town", "parameters": {"type": "object", "properties": {}}}
SHAREGPT_CALL = {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Ürümqi"}}'}


def test_a_sharegpt_row_with_a_tool_call_becomes_the_conversation_that_templates_read() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "天気は？"},
            SHAREGPT_CALL,
            {"from": "observation", "value": '{"sky": "clear"}'},
            {"from": "gpt", "value": "晴れです。"},
        ],
        "tools": json.dumps([WEATHER]),
        "system": "Answer in Japanese.",
    }
    record = judged(row)
    assert [message["role"] for message in record["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    call = record["messages"][2]
    assert call["content"] == ""
    assert call["tool_calls"] == [
        {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ürümqi"}}, "id": "call00001"}
    ]
    assert record["messages"][3]["tool_call_id"] == "call00001"
    assert record["messages"][3]["content"] == '{"sky": "clear"}'
    assert record["tools"] == [{"type": "function", "function": WEATHER}]


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "arguments": {"x": 1}},
        [{"name": "f", "arguments": {"x": 1}}],
        '{"name": "f", "arguments": "{\\"x\\": 1}"}',
        '[{"name": "f", "parameters": {"x": 1}}]',
        '{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}',
    ],
)
def test_a_call_may_be_text_or_an_object_alone_or_in_a_list(call: object) -> None:
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": call}]}
    assert judged(row)["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}


def test_several_calls_in_one_turn_stay_several() -> None:
    both = json.dumps([{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"y": "z"}}])
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": both}]}
    assert [call["function"]["name"] for call in judged(row)["messages"][1]["tool_calls"]] == ["f", "g"]


def test_a_call_that_is_no_json_and_tools_that_are_none_are_refused() -> None:
    asked = {"from": "human", "value": "q"}
    assert refused({"conversations": [asked, {"from": "function_call", "value": "weather(Hilo)"}]}) == "wrong-type"
    answered = turns(("user", "q"), ("assistant", "a"))
    assert refused({"messages": answered, "tools": "weather"}) == "wrong-type"
    assert "tools" not in judged({"messages": answered, "tools": ""})
    assert "tools" not in judged({"messages": answered, "tools": "[]"})


def test_calls_of_openais_older_form_are_calls() -> None:
    function = {"name": "weather", "arguments": '{"city": "Hilo"}'}
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "function_call": function},
            {"role": "function", "name": "weather", "content": "sun"},
            {"role": "assistant", "content": "sunny"},
        ],
        "functions": [WEATHER],
    }
    record = judged(row)
    assert record["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Hilo"}
    assert record["messages"][2] == {
        "role": "tool",
        "content": "sun",
        "name": "weather",
        "tool_call_id": "call00001",
    }
    assert record["tools"][0]["function"]["name"] == "weather"


def test_any_names_of_turns_and_roles_can_be_given() -> None:
    row = {
        "dialog": [
            {"speaker": "Kundin", "says": "Wo ist mein Paket?"},
            {"speaker": "Beraterin", "says": "Es ist unterwegs."},
        ]
    }
    settings = {
        "fields": {"messages": "dialog"},
        "turn_fields": {"role": "speaker", "content": "says"},
        "roles": {"user": ["Kundin", "Kunde"], "assistant": ["Beraterin"]},
    }
    expected = turns(("user", "Wo ist mein Paket?"), ("assistant", "Es ist unterwegs."))
    assert judged(row, **settings)["messages"] == expected
    assert refused(row, **(settings | {"roles": {}})) == "bad-roles"


def test_history_comes_before_the_prompt_and_is_trained_too() -> None:
    row = {"instruction": "and now?", "input": "", "output": "c", "history": [["first", "a"], ["second", "b"]]}
    expected = turns(
        ("user", "first"), ("assistant", "a"), ("user", "second"), ("assistant", "b"), ("user", "and now?")
    )
    assert judged(row)["messages"] == [*expected, {"role": "assistant", "content": "c"}]
    assert judged(row | {"history": []})["messages"] == turns(("user", "and now?"), ("assistant", "c"))
    assert judged(row | {"history": "none"})["messages"] == turns(("user", "and now?"), ("assistant", "c"))
    assert refused(row | {"past": "none"}, fields={"history": "past"}) == "wrong-type"


def test_a_turn_of_weight_0_is_kept_and_not_trained() -> None:
    messages = turns(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    messages[1]["weight"], messages[3]["weight"] = 0, 1
    record = judged({"messages": messages})
    assert record["messages"][1] == {"role": "assistant", "content": "a", "trained": False}
    assert record["messages"][3] == {"role": "assistant", "content": "b"}
    messages[3]["weight"] = 0
    assert refused({"messages": messages}) == "no-assistant"
    messages[3]["weight"] = 0.5
    assert refused({"messages": messages}) == "wrong-type"


def test_only_the_last_answer_is_trained_where_the_source_says_so() -> None:
    messages = turns(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    record = judged({"messages": messages}, train_turns="last")
    assert [message.get("trained", True) for message in record["messages"]] == [True, False, True, True]
    assert judged({"prompt": "q", "response": "a"}, train_turns="last")["messages"] == turns(
        ("user", "q"), ("assistant", "a")
    )


def test_segments_become_a_text_whose_pieces_say_whether_they_are_trained() -> None:
    segments = [
        {"label": False, "text": "Q: two?\n"},
        {"label": True, "text": "A: 2</s>"},
        {"label": False, "text": "\n"},
    ]
    assert judged({"segments": segments}) == {
        "text": "Q: two?\nA: 2</s>\n",
        "segments": [[0, 8, 0], [8, 16, 1], [16, 17, 0]],
    }
    assert refused({"segments": segments[:1]}) == "no-assistant"
    assert refused({"segments": [{"label": True}]}) == "wrong-type"


PREFERRED = {"role": "assistant", "content": "good"}


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, {"response": "chosen"}),
        ({"prompt": "q", "chosen": PREFERRED, "rejected": PREFERRED}, {"response": "chosen"}),
        ({"prompt": "q", "chosen": [*turns(("user", "q")), PREFERRED]}, {"response": "chosen"}),
        ({"prompt": turns(("user", "q")), "chosen": [PREFERRED]}, {"response": "chosen"}),
        ({"chosen": [*turns(("user", "q")), PREFERRED]}, {"messages": "chosen"}),
        (
            {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"}},
            {"messages": "conversations", "response": "chosen"},
        ),
    ],
)
def test_the_chosen_answer_of_a_preference_is_the_answer_when_asked_for(row: dict, fields: dict) -> None:
    assert judged(row, fields=fields)["messages"] == turns(("user", "q"), ("assistant", "good"))


def test_a_preference_is_not_taken_for_a_row_unasked() -> None:
    assert refused({"prompt": "q", "chosen": "good", "rejected": "bad"}) == "missing-field"


def test_a_template_puts_fields_into_the_prompt_and_leaves_out_words_before_an_empty_one() -> None:
    settings = {"fields": {"response": "answer"}, "template": "{context}\n\nQuestion: {question} ({year})"}
    row = {"context": "The sun is hot.", "question": "What is?", "answer": "the sun", "year": 2021}
    assert judged(row, **settings)["messages"][0]["content"] == "The sun is hot.\n\nQuestion: What is? (2021)"
    assert judged(row | {"context": ""}, **settings)["messages"][0]["content"] == "Question: What is? (2021)"
    alpaca = {"fields": {"prompt": "instruction", "response": "output"}, "template": "{instruction}\n{input}"}
    assert (
        judged({"instruction": "add", "input": "1 1", "output": "2"}, **alpaca)["messages"][0]["content"] == "add\n1 1"
    )
    assert judged({"instruction": "add", "input": "", "output": "2"}, **alpaca)["messages"][0]["content"] == "add"
    assert refused({"instruction": "add", "output": "2"}, **alpaca) == "missing-field"
    optional = alpaca | {"template": "{instruction}\n{input?}"}
    assert judged({"instruction": "add", "output": "2"}, **optional)["messages"][0]["content"] == "add"
    assert refused({"instruction": " ", "input": "", "output": "2"}, **alpaca) == "empty"


def test_what_a_tool_gives_back_may_be_an_object() -> None:
    messages = [
        *turns(("user", "q")),
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": {"t": 3}},
    ]
    record = judged({"messages": [*messages, *turns(("assistant", "a"))], "tools": TOOLS})
    assert record["messages"][2]["content"] == '{"t": 3}'
