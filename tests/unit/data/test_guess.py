"""The guess of a table's columns: thirty tables with headers that people use, none taken wrongly in silence."""

from __future__ import annotations

import random

import pytest
from snaketune.data import guess as guesses
from snaketune.data.guess import Guess, guess
from snaketune.data.records import Layout, parse_fields

WORDS = {
    "de": "der Fluss fließt unter einer alten Brücke durch die kleine Stadt am Hang".split(),
    "tr": "küçük bir kedi büyük bahçede güneşin altında sessizce uyuyor şimdi".split(),
    "haw": "he nani ka lā ma luna o ke kai a me nā mauna kiʻekiʻe".split(),
    "zh": "今天 天气 很 好 我们 去 河边 看 山 和 水".split(),
    "en": "the small boat crosses a wide river under the bright morning sky".split(),
}


def text(language: str, count: int, seed: int) -> str:
    draw = random.Random(f"{language}{count}{seed}")
    words = [draw.choice(WORDS[language]) for _ in range(count)]
    return ("" if language == "zh" else " ").join(words)


def table(columns: dict[str, str]) -> list[dict[str, object]]:
    """Rows under these names. Each value says what stands there: language and number of words, or a kind of code."""
    rows = []
    for number in range(24):
        row: dict[str, object] = {}
        for name, kind in columns.items():
            if kind == "id":
                row[name] = f"{number:05d}-af3{number}"
            elif kind == "url":
                row[name] = f"https://example.org/{number}"
            elif kind == "score":
                row[name] = f"{number / 7:.2f}"
            elif kind == "date":
                row[name] = f"2024-03-{number + 1:02d}"
            elif kind.startswith("label"):
                row[name] = ("positive", "negative", "neutral")[number % 3]
            else:
                language, count = kind.split(":")
                row[name] = text(language, int(count), number * 31 + len(name))
        rows.append(row)
    return rows


TABLES: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"Frage": "de:8", "Antwort": "de:20"}, {"prompt": "Frage", "response": "Antwort"}),
    ({"id": "id", "Antwort": "de:20", "Frage": "de:8"}, {"prompt": "Frage", "response": "Antwort"}),
    ({"Nr": "id", "Eingabe": "de:9", "Ausgabe": "de:9", "Datum": "date"}, {"prompt": "Eingabe", "response": "Ausgabe"}),
    ({"Aufgabe": "de:12", "Lösung": "de:5"}, {"prompt": "Aufgabe", "response": "Lösung"}),
    ({"Quelltext": "en:9", "Übersetzung": "de:9"}, {"prompt": "Quelltext", "response": "Übersetzung"}),
    ({"Titel": "de:4", "Inhalt": "de:40"}, {"prompt": "Titel", "response": "Inhalt"}),
    ({"soru": "tr:7", "cevap": "tr:18"}, {"prompt": "soru", "response": "cevap"}),
    ({"Kaynak": "en:8", "Hedef": "tr:8"}, {"prompt": "Kaynak", "response": "Hedef"}),
    ({"girdi": "tr:9", "çıktı": "tr:9", "puan": "score"}, {"prompt": "girdi", "response": "çıktı"}),
    ({"yorum": "tr:20", "etiket": "label"}, {"prompt": "yorum", "response": "etiket"}),
    ({"BAŞLIK": "tr:4", "METİN GÖVDE": "tr:40"}, {"prompt": "BAŞLIK", "response": "METİN GÖVDE"}),
    ({"nīnau": "haw:7", "pane": "haw:15"}, {"prompt": "nīnau", "response": "pane"}),
    ({"Nīnau": "haw:7", "Haʻina": "haw:15", "Moʻolelo": "haw:60"}, {"prompt": "Nīnau", "response": "Haʻina"}),
    (
        {"L1 Hawaiian_Text": "haw:10", "Reference_Translation": "en:10"},
        {"prompt": "L1 Hawaiian_Text", "response": "Reference_Translation"},
    ),
    ({"Hawaiian": "haw:9", "English": "en:9"}, {"prompt": "Hawaiian", "response": "English"}),
    ({"问题": "zh:8", "答案": "zh:20"}, {"prompt": "问题", "response": "答案"}),
    ({"编号": "id", "原文": "zh:9", "译文": "en:9"}, {"prompt": "原文", "response": "译文"}),
    ({"指令": "zh:6", "输出": "zh:25"}, {"prompt": "指令", "response": "输出"}),
    ({"标题": "zh:4", "正文": "zh:40"}, {"prompt": "标题", "response": "正文"}),
    ({"句子": "zh:9", "类别": "label"}, {"prompt": "句子", "response": "类别"}),
    ({"source": "en:9", "target": "de:9"}, {"prompt": "source", "response": "target"}),
    ({"src_text": "en:9", "tgt_text": "tr:9", "score": "score"}, {"prompt": "src_text", "response": "tgt_text"}),
    ({"input": "en:15", "label": "label"}, {"prompt": "input", "response": "label"}),
    ({"label": "label", "text": "en:25"}, {"prompt": "text", "response": "label"}),
    ({"title": "en:5", "body": "en:60", "url": "url"}, {"prompt": "title", "response": "body"}),
    (
        {"user_query": "en:8", "assistant_reply": "en:20", "rating": "score"},
        {"prompt": "user_query", "response": "assistant_reply"},
    ),
    (
        {"QuestionText": "en:8", "AnswerText": "en:20", "CreatedAt": "date"},
        {"prompt": "QuestionText", "response": "AnswerText"},
    ),
    ({"article": "en:60", "summary": "en:12"}, {"prompt": "article", "response": "summary"}),
    (
        {"persona": "en:6", "utterance": "en:9", "response": "en:9"},
        {"prompt": "utterance", "response": "response", "system": "persona"},
    ),
    ({"poem": "en:50"}, {"text": "poem"}),
]


def is_right(columns: dict[str, str], expected: dict[str, str]) -> bool:
    return guess(table(columns)).fields == expected


def test_of_thirty_tables_at_least_twenty_seven_are_right() -> None:
    assert len(TABLES) == 30
    wrong = [
        (list(columns), guess(table(columns)).fields) for columns, expected in TABLES if not is_right(columns, expected)
    ]
    assert len(wrong) <= 3, wrong


def test_the_order_of_rows_and_of_columns_beside_the_two_changes_nothing() -> None:
    rows = table({"Frage": "de:8", "Antwort": "de:20", "Quelle": "url", "Datum": "date"})
    turned = [dict(reversed(row.items())) for row in reversed(rows)]
    assert guess(rows).fields == guess(turned).fields == {"prompt": "Frage", "response": "Antwort"}


def test_a_context_goes_into_the_prompt() -> None:
    found = guess(table({"context": "en:40", "question": "en:8", "answer": "en:4"}))
    assert found.template == "{context}\n\n{question}"
    assert found.fields["response"] == "answer"


def test_turns_are_found_with_the_names_inside_them() -> None:
    rows = [{"dialog": [{"speaker": "user", "text": "q"}, {"speaker": "assistant", "text": "a"}]} for _ in range(3)]
    found = guess(rows)
    assert found.fields == {"messages": "dialog"}
    assert found.turn_fields == {"role": "speaker", "content": "text"}
    assert guesses.example(rows[0], found) == "user: q\nassistant: a"


@pytest.mark.parametrize("columns", [{"id": "id", "url": "url"}, {"score": "score", "date": "date"}])
def test_a_table_without_text_is_not_guessed(columns: dict[str, str]) -> None:
    assert guess(table(columns)).fields == {}


def test_what_the_configuration_says_rightly_is_kept_and_a_slip_is_corrected() -> None:
    rows = table({"Frage": "de:8", "Antwort": "de:20", "Thema": "de:2"})
    assert guess(rows, {"prompt": "Thema", "response": "Antwrot"}).fields == {"prompt": "Thema", "response": "Antwort"}


@pytest.mark.parametrize(("columns", "expected"), TABLES[:20])
def test_the_line_to_paste_is_yaml_that_reads_every_row(columns: dict[str, str], expected: dict[str, str]) -> None:
    import yaml

    rows = table(columns)
    found = guess(rows)
    (entry,) = yaml.safe_load(guesses.line("data/my rows.csv", found))
    assert entry["path"] == "data/my rows.csv"
    assert entry["fields"] == found.fields
    for row in rows:
        parse_fields(row, Layout(entry["fields"], entry.get("template")))
    if "prompt" in expected:
        assert guesses.example(rows[0], found).startswith(("user: ", "system: "))


def test_a_long_text_is_shortened_in_the_example() -> None:
    row = {"q": "why? " * 500, "a": "so"}
    shown = guesses.example(row, Guess(["q", "a"], {"prompt": "q", "response": "a"}))
    assert max(map(len, shown.split("\n"))) < 320


def test_the_library_has_no_word_for_two_columns_of_an_exchange() -> None:
    prompts, responses = (set(guesses.NAMES[ours].split()) for ours in ("prompt", "response"))
    assert not prompts & responses
