"""Rows with tool calls, weights and segments as token ids: those of transformers, with what is trained marked."""

from pathlib import Path
from typing import Any

import families
import pytest
from snaketune.data.records import Layout, parse_fields
from snaketune.tokens.chat_template import Rendered, Renderer
from unit.tokens.test_chat_template import renderer

WEATHER = {
    "name": "weather_at",
    "description": "Says what the weather is.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Does it rain in Tromsø?"},
        {"from": "function_call", "value": '{"name": "weather_at", "arguments": {"place": "Tromsø", "days": [1, 2]}}'},
        {"from": "observation", "value": '{"rain": true}'},
        {"from": "gpt", "value": "Yes, it rains."},
        {"from": "human", "value": "Thank you."},
        {"from": "gpt", "value": "You are welcome."},
    ],
    "tools": f"[{str(WEATHER).replace(chr(39), chr(34))}]",
    "system": "Be brief.",
}
CALL = {"name": "weather_at", "arguments": {"place": "Tromsø", "days": [1, 2]}}
OPENAI: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Does it rain in Tromsø?"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "call00001", "function": CALL}]},
    {"role": "tool", "content": '{"rain": true}', "tool_call_id": "call00001"},
    {"role": "assistant", "content": "Yes, it rains."},
    {"role": "user", "content": "Thank you."},
    {"role": "assistant", "content": "You are welcome."},
]
SHAPES = {
    "qwen25-tools": ("qwen2", "<tool_call>\n", "<|im_end|>"),
    "llama31-tools": ("llama-bpe", '{"name"', "<|eot_id|>"),
    "mistral-tools": ("mistral", "[TOOL_CALLS]", "</s>"),
}


def trained_text(made: Renderer, shown: Rendered) -> str:
    return made.tokenizer.decode([token for token, hit in zip(shown.ids, shown.loss_mask, strict=True) if hit])


@pytest.mark.parametrize("template", SHAPES)
def test_a_sharegpt_row_with_tools_has_the_ids_that_transformers_gives_the_same_messages(
    template: str, tmp_path: Path
) -> None:
    family, opening, end = SHAPES[template]
    made = renderer(tmp_path, family, template)
    content = parse_fields(SHAREGPT, Layout())
    shown = made.record(content)
    tools = [{"type": "function", "function": WEATHER}]
    expected = made.tokenizer.apply_chat_template(
        OPENAI, tools=tools, chat_template=families.TEMPLATES[template], tokenize=True, return_dict=False
    )
    assert shown.ids == expected
    learned = trained_text(made, shown)
    assert learned.count(end) == 3
    assert opening in learned
    assert "Tromsø" in learned
    assert "Yes, it rains." in learned
    for read_only in ("Thank you", "rain in", "Be brief", '"rain"', "Says what"):
        assert read_only not in learned


@pytest.mark.parametrize("template", SHAPES)
def test_an_answer_of_weight_0_is_read_and_not_trained(template: str, tmp_path: Path) -> None:
    family, _, end = SHAPES[template]
    made = renderer(tmp_path, family, template)
    messages = [dict(turn) for turn in OPENAI if turn["role"] in ("user", "assistant") and "tool_calls" not in turn]
    whole = made.record(parse_fields({"messages": messages}, Layout()))
    messages[1]["weight"] = 0
    part = made.record(parse_fields({"messages": messages}, Layout()))
    assert part.ids == whole.ids
    assert "Yes, it rains." in trained_text(made, whole)
    assert trained_text(made, part).strip() == f"You are welcome.{end}"
    last = made.record(parse_fields({"messages": messages}, Layout(only_last=True)))
    assert last == part


def test_segments_are_tokenized_one_by_one_and_trained_as_they_say(tmp_path: Path) -> None:
    made = renderer(tmp_path, "llama-bpe")
    pieces = [("the question is ", False), ("this<|eot_id|>", True), (" and", False), ("that<|eot_id|>", True)]
    row = {"segments": [{"text": text, "label": label} for text, label in pieces]}
    shown = made.record(parse_fields(row, Layout()))
    by_hand = [made.tokenizer.bos_token_id]
    for text, _ in pieces:
        by_hand += made.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert shown.ids == by_hand
    assert trained_text(made, shown) == "this<|eot_id|>that<|eot_id|>"


@pytest.mark.parametrize("template", ["qwen25-tools"])
def test_a_call_after_a_text_of_the_same_turn_is_trained_too(template: str, tmp_path: Path) -> None:
    made = renderer(tmp_path, SHAPES[template][0], template)
    messages = [dict(turn) for turn in OPENAI]
    messages[2] = messages[2] | {"content": "I will look."}
    shown = made.record(parse_fields({"messages": messages, "tools": [WEATHER]}, Layout()))
    learned = trained_text(made, shown)
    assert "I will look.\n<tool_call>" in learned
    assert learned.count("<|im_end|>") == 3
