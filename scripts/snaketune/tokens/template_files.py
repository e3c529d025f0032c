"""Chat templates as texts: those that come with this project, the one that a configuration names, a base's own.

And what is said of one that cannot be used.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snaketune.contracts.data import ModelManifest
from snaketune.errors import ModelError
from snaketune.files import read_json

RESOURCES = ("templates",)
TEMPLATES = Path(__file__).with_name(RESOURCES[0])
NAMED = tuple(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
ENDING_WITH_EOS = ("alpaca", "zephyr")  # templates that end an answer with whatever the model's end token is
DAY = datetime.date(2024, 7, 26)  # the day that Llama 3's own template falls back on
NOW = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


def settled(template: str | None) -> str | None:
    """A template that renders a conversation to the same text every day, and without room for thoughts.

    With today's date in it the same rows would be other tokens tomorrow, so a fixed one takes its place. The answers in
    the data are what the model is to say, so a template that can ask for thoughts first is told not to. Both are
    written into the template itself, which goes into the fused model, the GGUF and the Modelfile.
    """
    if not template:
        return None
    template = NOW.sub(lambda call: repr(DAY.strftime(call[2])), template)
    fixed = "{%- set enable_thinking = false -%}"
    return fixed + template if "enable_thinking" in template and not template.startswith(fixed) else template


def read_named(named: str | None) -> str | None:
    """The Jinja text of a template that the configuration names; None for the model's own."""
    if named is None:
        return None
    path = TEMPLATES / f"{named}.jinja" if named in NAMED else Path(named)
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        raise ModelError(
            f'there is no chat template "{named}"',
            where="model.chat_template",
            fix=f"Use {', '.join(NAMED)}, or the path of a Jinja file",
        ) from None


def template_sha256(manifest: ModelManifest, configured: str | None) -> str | None:
    """SHA-256 of the chat template that a base (its manifest) is read with; None without one.

    The template named by the chosen experiment, else by `model.chat_template` as configured, else the base's own.
    """
    text = read_named(manifest.read_as.chat_template if manifest.read_as else configured)
    if text is None:
        text = _template_in(Path(manifest.folder).expanduser())
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def _template_in(folder: Path) -> str | None:
    """The chat template of a model folder, read without its tokenizer."""
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    found = read_json(settings).get("chat_template") if settings.is_file() else None
    if isinstance(found, list):  # several, by name
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def own_template(tokenizer: Any) -> str | None:
    """The chat template of a loaded tokenizer; its default one where it names several."""
    found = tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found


def no_end_of_turn(tokenizer: Any, folder: Path, named: str | None, ids: Sequence[int]) -> ModelError:
    """The message for a template whose answers end with nothing that the model could learn to stop at.

    folder: the model's; named: the template that the configuration names; ids: an exchange as it was rendered.
    """
    end = tokenizer.eos_token
    why = "The model could not learn where to stop, and every answer would run on to its limit"
    if end and tokenizer.eos_token_id not in ids and end in tokenizer.decode(ids):
        return ModelError(
            f"the tokenizer does not recognize its own end token {end!r} right after a word",
            where=str(folder),
            why=why,
            fix="No chat template can help: use another base, or this one with a tokenizer.json that lists "
            f"{end!r} among its added tokens as special, not normalized and not a single word",
        )
    others = [name for name in ENDING_WITH_EOS if name != named]
    return ModelError(
        "the chat template ends an answer with no token that this model has for it",
        where="model.chat_template",
        why=why,
        fix=f"Use {' or '.join(others)}, which {'end' if others[1:] else 'ends'} an answer with the model's own "
        "end token",
    )


def unusable(tokenizer: Any, error: Exception) -> ModelError:
    """The message for a template that fails on a plain question and its answer."""
    no_end = not tokenizer.eos_token
    return ModelError(
        f"the chat template fails on one question and one answer ({error})",
        where="model.chat_template",
        why="It would fail on every row",
        fix="This tokenizer names no end token: set eos_token in its tokenizer_config.json"
        if no_end
        else "Use another chat template",
    )
