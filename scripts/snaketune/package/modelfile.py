"""Ollama's Modelfile: the GGUF, the template it was trained with in Go's syntax, where an answer ends, and settings.

https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config.sections import OllamaConfig
from snaketune.contracts.data import DataRecord
from snaketune.contracts.package import FusedManifest
from snaketune.files import StrPath
from snaketune.package import gguf_file, go_template
from snaketune.tokens.chat_template import Renderer

NO_TEMPLATE = (
    "# The chat template of this model has no counterpart in Ollama's template language that could be shown to be the",
    "# same. Ollama runs the one inside the GGUF instead, if it is new enough; that is not proven to be the same text.",
)
WITH_TOOLS = (
    "# This model was trained with tools, which Ollama's template language states in ways of its own. So there is no",
    "# TEMPLATE here: Ollama runs the one inside the GGUF, if it is new enough; that is not proven to be the same.",
)
NO_CHAT = ("# This model was trained on plain text and has no chat template: use /api/generate with `raw: true`.",)


@dataclass(frozen=True)
class ModelfileSettings:
    """The run, which is the model's tag in Ollama, the model's name, its parameters, and `data.system`."""

    run: str
    name: str | None
    parameters: OllamaConfig
    system: str | None


def write_modelfile(
    manifest: StrPath, gguf: StrPath, rows: StrPath, settings: ModelfileSettings, modelfile: StrPath
) -> None:
    """Write the Modelfile for `gguf`, which is in the same folder.

    manifest: of the fused model; rows: what it was trained on. The last line on stderr is the command that creates the
    model in Ollama.
    """
    fused = files.read_json(manifest, FusedManifest)
    renderer = Renderer(fused.folder)
    header = gguf_file.read(gguf)
    command = create_command(settings.name, settings.run, modelfile)
    lines = [f"# {command}", f"FROM ./{Path(gguf).name}"]
    system, tools = trained_with(rows)
    lines += WITH_TOOLS if tools and renderer.template else _template(renderer, header)
    lines += [f"PARAMETER stop {quoted(stop)}" for stop in stops(renderer)]
    parameters = msgspec.structs.asdict(settings.parameters)
    parameters["num_ctx"] = min(parameters["num_ctx"], _context_length(header) or parameters["num_ctx"])
    lines += [f"PARAMETER {name} {value}" for name, value in sorted(parameters.items())]
    system = settings.system or system
    if system:
        lines.append(f"SYSTEM {quoted(system)}")
    lines += _license(Path(fused.folder))
    files.write_text(modelfile, "\n".join(lines) + "\n")
    print(command, file=sys.stderr)


def trained_with(rows: StrPath) -> tuple[str | None, bool]:
    """The system text that all training rows have in common, or None; and whether any of them uses tools."""
    texts: set[str | None] = set()
    tools = False
    for row in files.read_jsonl(rows):
        messages = row.get("messages", [])
        first = messages[0] if messages else {}
        texts.add(first["content"] if first.get("role") == "system" else None)
        tools = tools or uses_tools(row)
        if tools and len(texts) > 1:
            break
    return (texts.pop() if len(texts) == 1 else None), tools


def uses_tools(row: DataRecord) -> bool:
    """Whether a row offers tools, calls one or has the answer of one."""
    turns = row.get("messages", [])
    return bool(row.get("tools")) or any(turn["role"] == "tool" or turn.get("tool_calls") for turn in turns)


def create_command(name: str | None, run: str, modelfile: StrPath) -> str:
    """What to type so that Ollama has this version beside the earlier ones: the run is the tag."""
    return f"ollama create {name or 'snaketune'}:{run} -f {modelfile}"


def format_of(renderer: Renderer, header: gguf_file.GGUFHeader) -> go_template.ChatFormat | None:
    """How Ollama is to put messages together: the renderer's own text, less the begin token that llama.cpp adds."""
    begin = renderer.tokenizer.bos_token or ""
    adds = bool(header.metadata.get("tokenizer.ggml.add_bos_token")) and begin

    def render(messages: go_template.Messages) -> str:
        text = renderer.prompt_text(messages)
        return text.removeprefix(begin) if adds else text

    return go_template.infer_format(render)


def _template(renderer: Renderer, header: gguf_file.GGUFHeader) -> list[str]:
    if not renderer.template:
        return [*NO_CHAT, 'TEMPLATE """{{ .Prompt }}"""']
    found = format_of(renderer, header)
    if found is None:
        return list(NO_TEMPLATE)
    return [f'TEMPLATE """{found.to_go_template()}"""']


def stops(renderer: Renderer) -> list[str]:
    """The texts at which an answer ends."""
    names = renderer.tokenizer.convert_ids_to_tokens(sorted(renderer.stop_ids))
    return [name for name in names if name]


def _context_length(header: gguf_file.GGUFHeader) -> int | None:
    """The longest conversation that the model was made for, in tokens."""
    architecture = header.metadata.get("general.architecture")
    return header.metadata.get(f"{architecture}.context_length")


def _license(folder: Path) -> list[str]:
    for name in ("LICENSE", "LICENSE.txt"):
        path = folder / name
        if path.is_file():
            return [f"LICENSE {quoted(path.read_text(encoding='utf-8', errors='replace').strip())}"]
    return []


def quoted(text: str) -> str:
    """A value as a Modelfile holds it: in triple quotes where one line would not do."""
    if "\n" in text or '"' in text:
        return '"""' + text.replace('"""', "'''") + '"""'
    return f'"{text}"'
