"""The demo's task: English number words to Hawaiian, and its base model apart from the weights.

Numbers run from 1 to 999. Two hundred of them are held out of everything, the base's text included, so that what the
tuned model says of them it has worked out. The base model is trained on facts about the other numbers; its tokenizer is
trained on the same text, and its shape is a small llama's.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaketune.files import StrPath, write_json, write_jsonl

LARGEST = 999
HELD_OUT = 200
VALIDATION = 60
INSTRUCTION = "translate to Hawaiian: "

ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
ENGLISH_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
HAWAIIAN = "ʻole kahi lua kolu hā lima ono hiku walu iwa".split()
HAWAIIAN_TENS = "- ʻumi iwakālua kanakolu kanahā kanalima kanaono kanahiku kanawalu kanaiwa".split()
SPECIAL = ("<pad>", "<s>", "</s>", "<user>", "<bot>")
VOCABULARY = 384
TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<user>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<bot>' + message['content'] + '</s>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
)


def english(number: int) -> str:
    """English words for 1 to 999, without "and": 853 is "eight hundred fifty three"."""
    words = []
    hundreds, rest = divmod(number, 100)
    if hundreds:
        words += [ENGLISH[hundreds], "hundred"]
    if rest >= 20:
        words.append(ENGLISH_TENS[rest // 10])
        rest %= 10
    if rest:
        words.append(ENGLISH[rest])
    return " ".join(words)


def hawaiian(number: int) -> str:
    """Hawaiian words for 1 to 999: 853 is "ʻewalu haneli kanalimakūmākolu"."""
    words = []
    hundreds, rest = divmod(number, 100)
    if hundreds:
        words += [f"ʻe{HAWAIIAN[hundreds]}", "haneli"]
    tens, units = divmod(rest, 10)
    if tens:
        words.append(HAWAIIAN_TENS[tens] + (f"kūmā{HAWAIIAN[units]}" if units else ""))
    elif units:
        words.append(f"ʻe{HAWAIIAN[units]}")
    return " ".join(words)


def numbers(seed: int) -> dict[str, list[int]]:
    """The numbers of each split: `test` is held out of everything, `valid` of the adapter's training."""
    order = list(range(1, LARGEST + 1))
    random.Random(seed).shuffle(order)
    return {
        "test": sorted(order[:HELD_OUT]),
        "valid": sorted(order[HELD_OUT : HELD_OUT + VALIDATION]),
        "train": sorted(order[HELD_OUT + VALIDATION :]),
    }


def row(number: int) -> dict[str, str]:
    """One example of the task, as a person would write it."""
    return {"prompt": INSTRUCTION + english(number), "response": hawaiian(number)}


def facts(known: list[int], seed: int) -> Iterator[tuple[str, str]]:
    """Endless statements about known numbers in both languages, each a left side and a right side.

    Two thirds name a number ("853 =" | " eight hundred fifty three"), the rest read one ("ʻelima =" | " 5").
    """
    source = random.Random(seed)
    while True:
        number = source.choice(known)
        draw = source.random()
        words = english(number) if draw < 0.35 or 0.7 <= draw < 0.85 else hawaiian(number)
        left, right = (str(number), words) if draw < 0.7 else (words, str(number))
        yield f"{left} =", f" {right}"


def write_rows(folder: StrPath, seed: int = 1) -> None:
    """Write the demo's three files of rows: what stands in data/demo."""
    for split, members in numbers(seed).items():
        write_jsonl(Path(folder) / f"{split}.jsonl", map(row, members))


def write_tokenizer(folder: Path, known: list[int], seed: int) -> Any:
    """Train a byte-level BPE tokenizer on facts about the known numbers and write it with its chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [left + right for left, right in itertools.islice(facts(known, seed), 4 * len(known))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus + [INSTRUCTION] * 50, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "<pad>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 256,
            "chat_template": TEMPLATE,
        },
    )
    return tokenizer


def write_config(folder: Path) -> dict[str, object]:
    """Write config.json of a 0.7-million-parameter llama that fits the tokenizer; returns it."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "pad_token_id": SPECIAL.index("<pad>"),
        "bos_token_id": SPECIAL.index("<s>"),
        "eos_token_id": SPECIAL.index("</s>"),
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {key: config[key] for key in ("bos_token_id", "eos_token_id")})
    return config
