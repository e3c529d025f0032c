"""LLaMA-Factory's own renderings of a conversation, compared with the chat template of the base that is trained.

LLaMA-Factory does not train with a model's chat template but with a rendering of its own under that family's name.
Where the two differ, the same rows are other tokens; the page of an import shows where.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from snaketune.importers.draft import Draft

BOS, EOS, CONTENT = "{bos}", "{eos}", "{content}"
CHATML_USER = "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
CHATML_SYSTEM = "<|im_start|>system\n{content}<|im_end|>\n"
GEMMA_USER = "<start_of_turn>user\n{content}<end_of_turn>\n<start_of_turn>model\n"
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """How they write each kind of turn; ours: the name that this template has among ours, if it stands there."""

    user: str
    assistant: str = CONTENT + EOS
    system: str = CONTENT
    prefix: str = ""
    default_system: str = ""
    system_in_user: bool = False
    thought: str = ""
    ours: str = ""


CHATML = Rendering(user=CHATML_USER, assistant="{content}<|im_end|>\n", system=CHATML_SYSTEM, ours="chatml")
GEMMA = Rendering(
    prefix=BOS,
    user=GEMMA_USER,
    assistant="{content}<end_of_turn>\n",
    system="{content}\n\n",
    system_in_user=True,
    ours="gemma",
)
PHI = Rendering(
    user="<|user|>\n{content}<|end|>\n<|assistant|>\n",
    assistant="{content}<|end|>\n",
    system="<|system|>\n{content}<|end|>\n",
)
RENDERINGS: dict[str, Rendering] = {
    "alpaca": Rendering(
        user="### Instruction:\n{content}\n\n### Response:\n",
        assistant="{content}{eos}\n\n",
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n",
        ours="alpaca",
    ),
    "chatml": CHATML,
    "deepseek3": Rendering(prefix=BOS, user="<｜User｜>{content}<｜Assistant｜>"),
    "default": Rendering(
        user="Human: {content}{eos}\nAssistant:", assistant="{content}{eos}\n", system="System: {content}{eos}\n"
    ),
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "llama2": Rendering(
        user="{bos}[INST] {content} [/INST]", system="<<SYS>>\n{content}\n<</SYS>>\n\n", system_in_user=True
    ),
    "llama3": Rendering(
        prefix=BOS,
        user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        assistant="{content}<|eot_id|>",
        system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
        ours="llama-3",
    ),
    "mistral": Rendering(
        prefix=BOS,
        user="[INST] {content}[/INST]",
        assistant=" {content}{eos}",
        system="{content}\n\n",
        system_in_user=True,
        ours="mistral",
    ),
    "phi": PHI,
    "phi4": Rendering(
        user="<|im_start|>user<|im_sep|>{content}<|im_end|><|im_start|>assistant<|im_sep|>",
        assistant="{content}<|im_end|>",
        system="<|im_start|>system<|im_sep|>{content}<|im_end|>",
    ),
    "qwen": msgspec.structs.replace(
        CHATML, default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
    "qwen3": msgspec.structs.replace(CHATML, thought=EMPTY_THOUGHT),
    "qwen3_nothink": CHATML,
    "vicuna": Rendering(
        user="USER: {content} ASSISTANT:",
        default_system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ),
    "yi": CHATML,
    "zephyr": Rendering(
        user="<|user|>\n{content}{eos}<|assistant|>\n",
        system="<|system|>\n{content}{eos}",
        default_system="You are Zephyr, a helpful assistant.",
        ours="zephyr",
    ),
}
"""By the name of their template."""

Turns = list[dict[str, str]]


def _turns(*texts: str, system: str = "") -> Turns:
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + turns


CONVERSATIONS: dict[str, Turns] = {
    "a question and its answer": _turns("Which river runs through Basel?", "The Rhine."),
    "with a system text": _turns("Wie spät ist es?", "Kurz nach drei.", system="Answer in German."),
    "two questions": _turns("2 + 2?", "4", "And twice that?", "8"),
    "three questions and a system text": _turns("a", "b", "c", "d", "e", "f", system="Be brief."),
    "Chinese": _turns("水的沸点是多少？", "在标准大气压下是一百摄氏度。"),
    "an emoji and accents": _turns("Ça va ? 🙂", "Très bien, merci ! 🙂"),
    "several lines": _turns("Write a poem.\n\nTwo lines.", "The sea is wide,\nthe boat is small."),
    "code": _turns("Print the list.", "```python\nfor one in items:\n    print(one)\n```"),
    "spaces at the ends": _turns("  indented question ", " an answer that begins with a space"),
    "numbers": _turns("1234567 * 89", "109876463"),
    "a long answer": _turns("Count.", " ".join(map(str, range(60)))),
    "one letter": _turns("x", "y"),
}
"""What two renderings are compared on."""


class Ids(NamedTuple):
    """Token ids and which of them are trained."""

    ids: list[int]
    loss_mask: list[bool]


def take(draft: Draft, key: str, name: str, base: str) -> None:
    """Decide which chat template stands in the place of theirs, and compare the two where the base is at hand."""
    rendering = RENDERINGS.get(name)
    folder = local_folder(base)
    if folder is None:
        draft.take(key, name, "model.chat_template", None, "the base's own; a base without one stops the run")
        draft.template_report.append(
            f"Not compared: {base} is not on this machine. Fetch it (`snakemake plan`), and import once more to see "
            f"whether LLaMA-Factory's `{name}` writes the same tokens."
        )
        return
    own = _own_template(folder)
    ours = None if own else rendering.ours if rendering and rendering.ours else None
    if not own and not ours:
        draft.refuse(
            key,
            name,
            "this base has no chat template of its own, and theirs of this name is not among ours",
            "Write it as a Jinja file and name that in model.chat_template, or use the instruction-tuned sibling",
        )
        return
    draft.take(key, name, "model.chat_template", ours, "the base's own" if own else "the base has none of its own")
    if rendering is None:
        draft.template_report.append(
            f"Not compared: how LLaMA-Factory's `{name}` writes a conversation is not known here."
        )
        return
    if ours and rendering.default_system and not draft.is_set("data.system"):
        draft.write_out("default_system", "of the template", "data.system", rendering.default_system.strip())
    draft.template_report += compare(folder, ours, rendering)


def local_folder(base: str) -> Path | None:
    """Return the folder of a base with its tokenizer, if it is on this machine."""
    folder = Path(base).expanduser()
    if (folder / "tokenizer_config.json").is_file():
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, "tokenizer_config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _own_template(folder: Path) -> str | None:
    from snaketune.tokens.chat_template import Renderer

    return Renderer(folder).template


def compare(folder: Path, ours: str | None, rendering: Rendering) -> list[str]:
    """Return lines that say where the two renderings differ on the twelve conversations, in Markdown."""
    from snaketune.tokens.chat_template import Renderer

    renderer = Renderer(folder, ours)
    lines, same = [], 0
    for title, turns in CONVERSATIONS.items():
        theirs = render(rendering, renderer.tokenizer, turns)
        mine = renderer.conversation(turns)
        difference = _difference(theirs, Ids(mine.ids, mine.loss_mask), renderer.tokenizer)
        same += not difference
        if difference:
            lines.append(f"- {title}: {difference}")
    head = f"Of {len(CONVERSATIONS)} conversations, {same} are the same tokens in both, with the same ones trained."
    return [head, *lines]


def render(rendering: Rendering, tokenizer: object, turns: Turns) -> Ids:
    """Return a conversation as they render it: every turn is tokenized on its own, and answers are trained whole."""
    system, rest = rendering.default_system, turns
    if turns[0]["role"] == "system":
        system, rest = turns[0]["content"], turns[1:]
    ids: list[int] = []
    loss_mask: list[bool] = []
    for number, turn in enumerate(rest):
        before = rendering.prefix if number == 0 else ""
        if turn["role"] == "assistant":
            text = rendering.assistant.replace(CONTENT, rendering.thought + turn["content"])
        else:
            head = rendering.system.replace(CONTENT, system) if system and number == 0 else ""
            content = turn["content"]
            if rendering.system_in_user:
                content, head = head + content, ""
            text = before + head + rendering.user.replace(CONTENT, content)
        piece = _encode(tokenizer, text)
        ids += piece
        loss_mask += [turn["role"] == "assistant"] * len(piece)
    return Ids(ids, loss_mask)


def _encode(tokenizer: object, text: str) -> list[int]:
    """Return ids of a text in which {bos} and {eos} stand for the tokenizer's own."""
    ids: list[int] = []
    for number, part in enumerate(text.replace(EOS, BOS + EOS).split(BOS)):
        rest = part
        if part.startswith(EOS):
            ids += _special(tokenizer, "eos_token_id")
            rest = part.removeprefix(EOS)
        elif number:
            ids += _special(tokenizer, "bos_token_id")
        if rest:
            ids += tokenizer.encode(rest, add_special_tokens=False)  # type: ignore[attr-defined]
    return ids


def _special(tokenizer: object, name: str) -> list[int]:
    found = getattr(tokenizer, name)
    return [] if found is None else [found]


def _difference(theirs: Ids, ours: Ids, tokenizer: object) -> str:
    """Return where two renderings part, in words; nothing where they are the same."""
    if theirs.ids == ours.ids:
        extra = [
            token
            for token, one, other in zip(theirs.ids, theirs.loss_mask, ours.loss_mask, strict=True)
            if one != other
        ]
        return f"the same tokens, of which {_shown(tokenizer, extra)} is trained in one only" if extra else ""
    at = next(
        (i for i, (one, other) in enumerate(zip(theirs.ids, ours.ids, strict=False)) if one != other),
        min(len(theirs.ids), len(ours.ids)),
    )
    return (
        f"from token {at + 1} on, theirs goes on {_shown(tokenizer, theirs.ids[at : at + 6])} "
        f"and here it is {_shown(tokenizer, ours.ids[at : at + 6])}"
    )


def _shown(tokenizer: object, ids: list[int]) -> str:
    if not ids:
        return "with nothing"
    return "`" + repr(tokenizer.decode(ids))[1:-1].replace("`", "'") + "`"  # type: ignore[attr-defined]
