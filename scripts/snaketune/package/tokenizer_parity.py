"""Whether a product reads text exactly as the tokenizer that the model was trained with."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import jinja2

from snaketune.contracts.data import Message
from snaketune.contracts.package import TokenDifference, TokenParity
from snaketune.engines.interface import TextReader
from snaketune.package.modelfile import ChatFormat
from snaketune.tokens.chat_template import Renderer

PROBES = (
    "Hello  world\n\n 12345 it's WE'LL naïve café \t x",
    " a space first",
    "two spaces last  ",
    "The capital of France is Paris.",
    "1 12 123 1234 12345 3.14159 1,000,000 2026-11-21",
    "数字 123 и текст\r\n  конец ",
    "line one\r\nline two\r\n\r\nline four",
    "Hawaiʻi, Kauaʻi, ʻōlelo, maʻi",
    "🚀 emoji 👩‍👩‍👧 and 🇩🇪",
    "e\u0301 (combining) \u00e9 (composed) \ufb01 ligature",
    "a<b> {x: 1}!!!...  [INST] <<SYS>> ###",
    "def f(x):\n\treturn x ** 2  # tab\n",
    "\n",
    "\n\n\n",
    "\u200bzero width\u00a0no-break",
    "ALL CAPS camelCase snake_case kebab-case",
)
MAX_EXAMPLES = 5


def probe_texts(renderer: Renderer) -> list[str]:
    """The fixed texts, and each of the model's special tokens alone and inside a sentence."""
    special = [token for token in renderer.special_tokens if token.strip()][:64]
    return [*PROBES, *special, *(f"before{token}after {token} end" for token in special)]


def token_differences(reader: TextReader, renderer: Renderer, texts: Sequence[str]) -> TokenParity:
    """Compare the ids that a product and the model's tokenizer make of texts.

    Texts go in without a begin token, special tokens by their names. llama.cpp does not compose characters (e and a
    combining acute stay two), so where the tokenizer does, composed text is compared, and `composed` counts the texts
    that were not composed already.
    """
    normalizer = renderer.tokenizer.backend_tokenizer.normalizer
    composes = normalizer is not None and "NFC" in str(normalizer)
    composed = [unicodedata.normalize("NFC", text) if composes else text for text in texts]
    examples: list[TokenDifference] = []
    different = 0
    for text in composed:
        expected = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        found = reader.tokenize(text, add_bos=False)
        if list(found) != list(expected):
            different += 1
            if len(examples) < MAX_EXAMPLES:
                examples.append(TokenDifference(text=text[:80], expected=list(expected)[:24], found=list(found)[:24]))
    changed = sum(before != after for before, after in zip(texts, composed, strict=True))
    return TokenParity(texts=len(texts), differences=different, composed=changed, examples=examples)


def bos_token_parity(reader: TextReader, renderer: Renderer) -> tuple[int | None, int | None]:
    """The id that the tokenizer and that the product puts before a text, or None; a wrong one shifts every answer."""
    expected = renderer.tokenizer("a")["input_ids"][:1] == [renderer.tokenizer.bos_token_id]
    found = reader.tokenize("a", add_bos=True)[:1] == [reader.bos_token()]
    return renderer.tokenizer.bos_token_id if expected else None, reader.bos_token() if found else None


def template_differences(template: str | None, renderer: Renderer, conversations: Sequence[list[Message]]) -> int:
    """How many conversations the chat template in a product renders differently from the one that was trained with."""
    if not conversations:
        return 0
    if template is None:
        return len(conversations)
    different = 0
    for messages in conversations:
        try:
            found = renderer.conversation_text(messages, template=template)
        except jinja2.TemplateError:
            found = None
        different += found != renderer.conversation_text(messages)
    return different


def format_differences(
    found: ChatFormat | None, renderer: Renderer, conversations: Sequence[list[Message]]
) -> int | None:
    """How many prompts the Modelfile's template renders differently from the renderer; None without a template.

    Leading and trailing spaces of a message are left out: Go's templates cannot strip them, Jinja's often do.
    """
    if found is None:
        return None
    begin = renderer.tokenizer.bos_token or ""
    different = 0
    for messages in conversations:
        turns: list[Message] = [{**message, "content": (message["content"] or "").strip()} for message in messages]
        while turns and turns[-1]["role"] != "user":
            turns.pop()
        if turns:
            different += found.render(turns).removeprefix(begin) != renderer.rendered_prompt(turns).removeprefix(begin)
    return different


def missing_stop_tokens(reader: TextReader, renderer: Renderer) -> list[str]:
    """The tokens with which the template ends an answer and at which the product does not stop."""
    if not renderer.template:
        return []
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = renderer.conversation(turns)
    token = row.ids[max(i for i, hit in enumerate(row.loss_mask) if hit)]
    if token not in renderer.stop_ids:
        return []
    return [] if reader.ends_generation(token) else [renderer.tokenizer.convert_ids_to_tokens(token)]
