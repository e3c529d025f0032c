"""The tokenizer that mlx-lm makes of a folder: the part `engines.interface.TextReader` of MLX."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_config, load_tokenizer

from snaketune.errors import ModelError
from snaketune.files import StrPath


def load(path: StrPath) -> ServedTokenizer:
    """Load it as mlx_lm.load does, with the ends that its settings name; ModelError where it cannot be."""
    folder = Path(path)
    try:
        return ServedTokenizer(load_tokenizer(folder, eos_token_ids=load_config(folder).get("eos_token_id")))
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ModelError(
            f"mlx-lm cannot load its tokenizer ({str(error).splitlines()[0]})",
            where=str(path),
            fix="Run snakemake again",
        ) from error


class ServedTokenizer:
    """What mlx_lm.generate and mlx_lm.server read text with."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer = tokenizer

    def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """The ids of a text, special tokens by their names."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_bos))

    def bos_token(self) -> int:
        """The id that is put before a text; -1 where there is none."""
        return -1 if self._tokenizer.bos_token_id is None else int(self._tokenizer.bos_token_id)

    def ends_generation(self, token: int) -> bool:
        """Whether generation stops at this token."""
        return token in self._tokenizer.eos_token_ids

    def template(self) -> str | None:
        """The chat template in the folder."""
        return self._tokenizer.chat_template
