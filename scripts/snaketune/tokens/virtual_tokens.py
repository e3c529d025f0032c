"""Virtual tokens: the places of the vectors that prompt tuning learns, as special tokens after those of a tokenizer.

A learned vector is the embedding of such a token, so a program that knows nothing of prompt tuning computes with it as
with any other: llama.cpp, Ollama, transformers, mlx-lm. The chat template writes the tokens at the beginning of every
conversation, right after the begin token where there is one. A model in which none of them occurs is the base.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from snaketune.errors import ModelError
from snaketune.files import StrPath

SETTINGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
"""Of each token, as tokenizer.json and tokenizer_config.json hold them."""
TEMPLATE = (
    "{% set rendered %}TEMPLATE{% endset %}"
    "{% if bos_token and rendered.startswith(bos_token) %}{{ bos_token }}TOKENS{{ rendered[bos_token|length:] }}"
    "{% else %}TOKENS{{ rendered }}{% endif %}"
)


def names(count: int) -> list[str]:
    """The texts of so many virtual tokens."""
    return [f"<|virtual_{number}|>" for number in range(count)]


def add_to_tokenizer(tokenizer: Any, count: int, folder: StrPath) -> range:
    """Add so many virtual tokens to a tokenizer of transformers; returns their ids.

    Raises ModelError for a tokenizer that has such tokens already.
    """
    from transformers import AddedToken

    added = names(count)
    if added and added[0] in tokenizer.get_vocab():
        raise ModelError(
            f"its tokenizer has {added[0]} already: it was made by prompt tuning",
            where=str(folder),
            why="The new vectors would stand in the place of those that this model was tuned with",
            fix="Tune the base that it was made from, or train LoRA on this one",
        )
    tokenizer.add_tokens([AddedToken(name, **SETTINGS) for name in added], special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(added)
    return range(ids[0], ids[0] + count) if added else range(0)


def in_template(template: str, count: int) -> str:
    """A chat template that writes the virtual tokens at the beginning of what it renders, after the begin token."""
    if not count:
        return template
    inner = re.sub(r"\r\n?", "\n", template).removesuffix("\n")  # as Jinja reads a template's lines
    if re.search(r"\n[^\S\n]+\Z", inner):
        inner += "{{ '' }}"  # else these spaces would be the indent of the block after them, which is left out
    # The newline is left out, as any after a block; so the first line stays one, whose indent is left out.
    return TEMPLATE.replace("TOKENS", "".join(names(count))).replace("TEMPLATE", f"\n{inner}")


def in_text(text: str, begin: str | None, count: int) -> str:
    """A conversation of the base with the virtual tokens after its begin token: what `in_template` is to render."""
    start = len(begin) if begin and text.startswith(begin) else 0
    return text[:start] + "".join(names(count)) + text[start:]


def in_tokenizer_json(tokenizer_json: Mapping[str, object], ids: range) -> dict[str, object]:
    """A parsed tokenizer.json with the virtual tokens among its added ones."""
    added = [{"id": number, "content": name} | SETTINGS for number, name in zip(ids, names(len(ids)), strict=True)]
    known = cast(list[object], tokenizer_json.get("added_tokens", []))
    return {**tokenizer_json, "added_tokens": [*known, *added]}


def kept_positions(ids: Sequence[int], virtual_ids: range) -> list[int]:
    """The positions of a row that hold no virtual token: what the base reads."""
    return [position for position, token in enumerate(ids) if int(token) not in virtual_ids]
