"""Guesses which columns of a table are the prompt and the response, by their names, lengths and what stands in them.

A guess is for a person to read, and is never used by itself: it comes as the line to paste, with a row as the model
would see it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from statistics import median

Row = Mapping[str, object]

MAX_SAMPLE = 200  # rows that are looked at
LONGEST_SHOWN = 300  # characters of a text in the example
# By what a column may be, words that its name is made of; in English, German, Turkish, Hawaiian, Chinese, French,
# Spanish, Portuguese, Italian, Russian, Japanese.
NAMES: dict[str, str] = {
    "prompt": (
        "prompt question questions q instruction instructions query input inputs source src user human request "
        "ask task problem utterance sentence premise document article title headline subject dialogue message "
        "comment review tweet original frage fragen eingabe anfrage aufgabe anweisung quelle quelltext titel "
        "überschrift betreff satz nutzer soru girdi istek komut talimat görev kaynak başlık konu cümle yorum "
        "metin nīnau ninau nīnauele kumu poʻoinoa poo ʻōlelo 问题 提问 问 输入 指令 请求 原文 源文 题目 标题 句子 "
        "用户 質問 入力 指示 demande entrée consigne pregunta entrada instrucción titulo título pergunta domanda "
        "ingresso istruzione titolo вопрос запрос ввод инструкция заголовок "
    ),
    "response": (
        "response responses answer answers a output outputs completion target tgt label labels class category "
        "reply summary abstract body translation reference solution assistant gpt bot model intent sentiment tag "
        "result expected gold correction paraphrase content antwort antworten ausgabe ziel zieltext übersetzung "
        "lösung zusammenfassung etikett klasse kategorie inhalt fließtext ergebnis cevap yanıt yanit çıktı hedef "
        "çeviri çözüm etiket sınıf kategori özet gövde içerik sonuç pane haʻina haina unuhi unuhina 回答 答案 "
        "答复 答 回复 输出 译文 翻译 标签 类别 分类 摘要 正文 内容 解答 助手 応答 出力 答え 訳文 réponse sortie "
        "traduction résumé étiquette respuesta salida traducción resumen etiqueta resposta saída risposta uscita "
        "traduzione ответ вывод перевод метка "
    ),
    "context": "context passage paragraph kontext absatz bağlam 上下文 背景 文章 pōʻaiapili contexte contexto contesto",
    "system": "system systemprompt persona sistem 系统 système sistema",
}
LANGUAGES = set(
    (
        "en eng english de deu ger german deutsch almanca tr tur turkish türkçe türkisch zh chi chinese 中文 汉语 "
        "英文 英语 haw hawaiian ōlelo hawaiʻi hawaii fr fra french français es spa spanish español it ita italian "
        "pt por portuguese ru rus russian ja jpn japanese 日本語 ko kor korean ar ara arabic nl dutch pl polish "
        "englisch ingilizce "
    ).split()
)
SYNTHETIC = {
    "id",
    "uuid",
    "index",
    "idx",
    "url",
    "date",
    "datum",
    "tarih",
    "nr",
    "no",
    "number",
    "编号",
    "序号",
    "split",
}
NOT_A_RESPONSE = {"id", "score", "rating", "length", "len", "date", "time", "url", "count"}
WORD = re.compile(r"[^\W\d_]+(?:[ʻ'’][^\W\d_]+)*")
ROLE_KEYS = ("role", "from", "speaker", "author", "who", "sender")
CONTENT_KEYS = ("content", "value", "text", "message", "says", "utterance")


@dataclass(frozen=True)
class Guess:
    """Settings of a source. columns: all there are; why: what it rests on, in words."""

    columns: list[str]
    fields: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    turn_fields: dict[str, str] = field(default_factory=dict)
    why: str = ""

    def settings(self) -> dict[str, object]:
        """Return what goes into an entry of data.sources."""
        found = {"fields": self.fields, "template": self.template, "turn_fields": self.turn_fields}
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class _Column:
    """What a sample says of a column: lengths in characters, and the share of distinct values."""

    name: str
    words: list[str]
    length: float
    distinct: float
    is_prose: bool


def guess(rows: Iterable[Row], known: Mapping[str, str] | None = None) -> Guess:
    """Guess the settings of a source from a sample of its rows. known: fields that the configuration has, and keep."""
    sample = [row for row, _ in zip(rows, range(MAX_SAMPLE), strict=False)]
    names = list(dict.fromkeys(str(name) for row in sample for name in row))
    conversation = _conversation(sample, names)
    if conversation and not known:
        return conversation
    columns = [column for name in names if (column := _column(name, sample))]
    kept = {ours: theirs for ours, theirs in (known or {}).items() if theirs in names}
    free = [column for column in columns if column.name not in kept.values()]
    for ours, theirs in (known or {}).items():
        if ours not in kept and (near := get_close_matches(theirs, [column.name for column in free], n=1)):
            kept[ours] = near[0]
            free = [column for column in free if column.name != near[0]]
    if kept and not {"prompt", "response"} & kept.keys():
        return Guess(names, kept, why="the names in the file that are nearest to those in `fields`")
    if len(free) == 1 and not kept:
        return Guess(names, {"text": free[0].name}, why="the only column with text")
    return _exchange(names, free, kept)


def _exchange(names: list[str], free: list[_Column], kept: dict[str, str]) -> Guess:
    """Guess prompt and response among the columns that are left."""
    why: list[str] = []
    roles = {ours: _best(free, ours) for ours in ("prompt", "response", "system", "context")}
    response = kept.get("response") or _name(_choose_response(free, roles, kept.get("prompt")))
    rest = [column for column in free if column.name != response]
    prompt = kept.get("prompt") or _name(_choose_prompt(rest, _best(rest, "prompt")))
    if not prompt or not response:
        return Guess(names, kept if len(kept) > 1 else {})
    named = [name for name, ours in ((prompt, "prompt"), (response, "response")) if _says(name, ours)]
    why.append(
        f"the name{'s' * (len(named) > 1)} {', '.join(named)}" if named else "the order and length of the columns"
    )
    fields = kept | {"prompt": prompt, "response": response}
    system = roles["system"]
    if system and system.name not in fields.values():
        fields["system"] = system.name
    context = roles["context"]
    template = None
    if context and context.name not in fields.values() and "prompt" not in kept:
        template = f"{{{context.name}}}\n\n{{{prompt}}}"
        why.append(f"{context.name} is what the prompt is about")
    return Guess(names, fields, template, why=" and ".join(why))


def _name(column: _Column | None) -> str | None:
    return column.name if column else None


def _choose_response(free: list[_Column], roles: Mapping[str, _Column | None], prompt: str | None) -> _Column | None:
    """Return the column with a response's name, or the last of those that hold text and are not the prompt's."""
    named = roles["response"]
    if named and named.name != prompt:
        return named
    prompt_name = prompt or _name(roles["prompt"])
    others = [column for column in free if column.name != prompt_name and not _is_bookkeeping(column)]
    prose = [column for column in others if column.is_prose] or others
    return prose[-1] if prose and (len(prose) > 1 or prompt_name) else None


def _choose_prompt(rest: list[_Column], named: _Column | None) -> _Column | None:
    if named:
        return named
    prose = [column for column in rest if column.is_prose and not _is_bookkeeping(column)]
    return prose[0] if prose else None


def _best(columns: Sequence[_Column], ours: str) -> _Column | None:
    """Return the column whose name says most that it is `ours`; between equals, the one with more distinct values."""
    scored = [(_score(column, ours), column.distinct, -number, column) for number, column in enumerate(columns)]
    best = max(scored, key=lambda one: one[:3], default=None)
    return best[3] if best and best[0] > 0 else None


def _says(name: str, ours: str) -> bool:
    return bool(_words(name) & set(NAMES[ours].split()))


def _score(column: _Column, ours: str) -> float:
    """Return how much a name speaks for what a column may be: all of it, its last word, or any of its words."""
    known = set(NAMES[ours].split())
    hits = [word in known for word in column.words]
    if not any(hits) or (ours == "response" and set(column.words) & NOT_A_RESPONSE):
        return 0
    against = {"prompt": "response", "response": "prompt"}.get(ours)
    rival = set(NAMES[against].split()) if against else set()
    score = 3.0 if all(hits) else 2.0 if hits[-1] else 1.0
    if ours != "response" and not column.is_prose:
        score -= 1.5  # addresses, numbers and dates
    if ours == "response" and not column.is_prose and column.distinct > 0.9 and column.length > 12:
        score -= 1  # codes that differ in each row are no labels
    return score - 0.5 * sum(word in rival for word in column.words)


def _is_bookkeeping(column: _Column) -> bool:
    return bool(set(column.words) & SYNTHETIC)


def _words(name: str) -> set[str]:
    return set(_word_list(name))


def _word_list(name: str) -> list[str]:
    """Return the words of a column's name in small letters: answerText and ANSWER_text are answer, text."""
    spaced = re.sub(r"(?<=[a-zäöüçğış])(?=[A-ZÄÖÜÇĞİŞ])", " ", unicodedata.normalize("NFC", name))
    folded = (
        spaced.replace("İ", "i")
        .replace("I", "ı" if "ı" in spaced else "i")
        .casefold()
        .replace("’", "ʻ")
        .replace("'", "ʻ")
    )
    return WORD.findall(folded.replace("_", " ")) or [folded.strip()]


def _column(name: str, sample: Sequence[Row]) -> _Column | None:
    """Return what the sample says of a column, or nothing where it holds no text."""
    texts = [value for row in sample if isinstance(value := row.get(name), str) and value.strip()]
    if not texts or len(texts) < 0.3 * len(sample):
        return None
    return _Column(
        name=name,
        words=_word_list(name),
        length=median(map(len, texts)),
        distinct=len(set(texts)) / len(texts),
        is_prose=sum(_is_prose(text) for text in texts) > 0.5 * len(texts),
    )


def _is_prose(text: str) -> bool:
    """Tell whether a person would read it: letters, and no address, date or code."""
    letters = sum(char.isalpha() for char in text)
    return letters > 0.4 * len(text) and not re.fullmatch(r"\S*[/\d_@]\S*", text)


def _conversation(sample: Sequence[Row], names: Sequence[str]) -> Guess | None:
    """Guess a column of turns, with the names inside them."""
    for name in names:
        turns = [turn for row in sample if isinstance(row.get(name), list) for turn in row[name]]  # type: ignore[attr-defined]
        if not turns or not all(isinstance(turn, dict) for turn in turns):
            continue
        role = next((key for key in ROLE_KEYS if all(key in turn for turn in turns)), None)
        content = next((key for key in CONTENT_KEYS if any(key in turn for turn in turns)), None)
        if role and content:
            usual = (role, content) in (("role", "content"), ("from", "value"))
            inside = {} if usual else {"role": role, "content": content}
            fields = {} if name in ("messages", "conversations") else {"messages": name}
            return Guess(list(names), fields, turn_fields=inside, why=f"{name} holds turns")
    return None


def example(row: Row, found: Guess) -> str:
    """Return a row as the model would see it under a guess: its turns, each under its role."""
    from snaketune.data.conversations import Dialect
    from snaketune.data.readers.raw_row import Rejection
    from snaketune.data.records import Layout, parse_fields

    try:
        content = parse_fields(row, Layout(found.fields, found.template, Dialect(found.turn_fields)))
    except Rejection as reason:
        return f"(this row could not be used: {reason.detail})"
    if "text" in content:
        return _shortened(content["text"])
    return "\n".join(f"{turn['role']}: {_shortened(turn['content'])}" for turn in content["messages"])


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def line(name: str, found: Guess) -> str:
    """Return the entry of data.sources to paste, as YAML on one line."""
    return (
        "- {"
        + ", ".join([f"path: {_yaml(name)}", *(f"{key}: {_flow(value)}" for key, value in found.settings().items())])
        + "}"
    )


def _flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{ours}: {_yaml(theirs)}" for ours, theirs in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _yaml(text: str) -> str:
    """Return a text as it may stand inside of braces in YAML."""
    return text if re.fullmatch(r"[^\W\d_][\w./ -]*[\w]|[^\W\d_]", text) else json.dumps(text, ensure_ascii=False)
