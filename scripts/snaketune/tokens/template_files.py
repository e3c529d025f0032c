"""Chat templates as texts: those that come with this project, the one that a configuration names, a base's own."""

from __future__ import annotations

import datetime
import hashlib
import re
from pathlib import Path

from snaketune.contracts.data import ModelManifest
from snaketune.errors import ModelError
from snaketune.files import read_json

RESOURCES = ("templates",)
TEMPLATES = Path(__file__).with_name(RESOURCES[0])
NAMED = tuple(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
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
