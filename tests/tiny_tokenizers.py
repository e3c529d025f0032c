"""Tokenizers of the two kinds that families have, trained in a second on a few sentences, as a hub folder has them."""

from __future__ import annotations

import functools
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = (
    "the a of to and in is it you that he was for on are with as his they be at one have this from or had by hot but "
    "some what there we can out other were all your when up use word how said an each she which do their time if will "
    "way about many then them would write like so these her long make thing see him two has look more day could go "
    "come did my sound no most number who over know water than call first people may down side been now find colour "
    "question answer hello world capital france paris language model train adapter river mountain island"
).split()
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN2 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
SPACE = "\u2581"  # how SentencePiece writes a space


def corpus(lines: int = 400, seed: int = 0) -> list[str]:
    """Sentences to train a tokenizer on."""
    draw = random.Random(seed)
    made = []
    for _ in range(lines):
        said = " ".join(draw.choices(WORDS, k=draw.randint(3, 12)))
        made.append(f"{said.capitalize()}, {draw.randint(0, 9999)}! It's {draw.choice(WORDS)}.")
    return [*made, "naïve café Hawaiʻi 数字 🚀 <b> {x: 1}"]


def write_bpe(
    folder: Path,
    *,
    split: str,
    special: Sequence[str],
    begin: str | None,
    end: str,
    template: str | None,
    class_name: str = "PreTrainedTokenizerFast",
    size: int = 400,
) -> int:
    """A byte-level BPE tokenizer; split: LLAMA3, QWEN2, `gpt-2` or `smollm`. Returns the size of its vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    whole_words = split == LLAMA3
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    if split == QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    if split == "gpt-2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif split == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        first = pre_tokenizers.Split(Regex(split), behavior="isolated")
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, last])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        ),
    )
    tokenizer.add_special_tokens(list(special))
    byte_level = processors.ByteLevel(trim_offsets=False)
    if begin:
        adds = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
        tokenizer.post_processor = processors.Sequence([byte_level, adds])
    else:
        tokenizer.post_processor = byte_level
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_config(folder, class_name, begin, end, template, {})
    return tokenizer.get_vocab_size()


@functools.cache
def _sentencepiece(size: int, prefix: bool, control: tuple[str, ...], gemma: bool) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} if gemma else {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=list(control) if gemma else [],
        control_symbols=[] if gemma else list(control),
        bos_piece="<bos>" if gemma else "<s>",
        eos_piece="<eos>" if gemma else "</s>",
        minloglevel=2,
        hard_vocab_limit=False,
        num_threads=1,
        **ids,
    )
    return model.getvalue()


def write_sentencepiece(
    folder: Path,
    *,
    special: Sequence[str],
    template: str | None,
    gemma: bool = False,
    added: Sequence[str] = (),
    class_name: str = "LlamaTokenizer",
    size: int = 480,
    with_model: bool = True,
) -> int:
    """A SentencePiece BPE tokenizer with bytes to fall back on, as tokenizer.model and tokenizer.json.

    special: pieces inside the model; added: special tokens behind it, as fine-tuned models have them. Returns the size
    of the vocabulary.
    """
    import sentencepiece

    raw = _sentencepiece(size, not gemma, tuple(special), gemma)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=raw)
    names = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    begin, end = ("<bos>", "<eos>") if gemma else ("<s>", "</s>")
    marked = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<unk>", "<s>", "</s>"]
    listed = [*marked, *special, *added]
    vocabulary = {name: i for i, name in enumerate([*names, *added])}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [] if gemma else [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    first = {"SpecialToken": {"id": begin, "type_id": 0}}
    stated = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(vocabulary[name], name) for name in listed],
        "normalizer": spaces if gemma else {"type": "Sequence", "normalizers": [prepend, spaces]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {begin: {"id": begin, "ids": [vocabulary[begin]], "tokens": [begin]}},
        },
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": merges_of(names, set(listed)),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(stated, ensure_ascii=False), encoding="utf-8")
    if with_model:
        (folder / "tokenizer.model").write_bytes(raw)
    decoder = {str(vocabulary[name]): {k: v for k, v in _added(0, name).items() if k != "id"} for name in listed}
    more = {"add_bos_token": True, "add_eos_token": False, "unk_token": "<unk>", "added_tokens_decoder": decoder}
    _write_config(folder, class_name, begin, end, template, more)
    return len(vocabulary)


def merges_of(names: list[str], special: set[str]) -> list[list[str]]:
    """The merges that make each piece of two others, in the order of the pieces (which is that of their scores)."""
    known = {name: i for i, name in enumerate(names) if name not in special}
    merges = []
    for name in names:
        if name in special or len(name) < 2 or name.startswith("<0x"):
            continue
        halves = [(name[:i], name[i:]) for i in range(1, len(name))]
        merges += sorted(
            ([left, right] for left, right in halves if left in known and right in known),
            key=lambda pair: (known[pair[0]], known[pair[1]]),
        )
    return merges


def _added(number: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **flags}


def _write_config(
    folder: Path, class_name: str, begin: str | None, end: str, template: str | None, more: dict[str, Any]
) -> None:
    config = {
        "tokenizer_class": class_name,
        "bos_token": begin,
        "eos_token": end,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        **more,
    }
    if template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8")
