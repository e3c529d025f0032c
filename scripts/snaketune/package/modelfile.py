"""Ollama's Modelfile: the GGUF, the template it was trained with in Go's syntax, where an answer ends, and settings.

https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx

Ollama renders Go templates, the model was trained with a Jinja one. A Jinja template is a program and cannot be
translated in general, but nearly every chat template only puts constant texts around the messages. Those are found by
rendering conversations of marked messages and cutting at the marks, and believed only if conversations of other
lengths, with a system text, with an empty one and with none, come out of them letter by letter. Anything else (a date,
a rule about the content) has no Go template here, and the caller says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snaketune import files
from snaketune.config.sections import OllamaConfig
from snaketune.contracts.data import DataRecord, Message
from snaketune.contracts.package import FusedManifest
from snaketune.files import StrPath
from snaketune.package import gguf_conversion
from snaketune.tokens.chat_template import Renderer

Messages = list[Message]
Render = Callable[[Messages], str]
SYSTEM = "zqsystemzq"


@dataclass(frozen=True)
class ChatFormat:
    """The texts around the messages of a conversation that ends with a user's turn, answer still to come."""

    prefix: str
    """Before the first user message where there is no system text."""
    before_system: str
    after_system: str
    """Around the system text; the second ends where the first user message begins."""
    user_to_assistant: str
    """Between a user message and the answer that follows it in the conversation."""
    assistant_to_user: str
    suffix: str
    """After the last user message: what the model goes on from."""
    shows_empty_system: bool
    """Whether a system message without text is rendered like one with text, or like none."""

    def render(self, messages: Messages) -> str:
        """What the Go template makes of a conversation."""
        system = [message["content"] for message in messages if message["role"] == "system"]
        shown = bool(system) and (self.shows_empty_system or bool(system[0]))
        text = self.before_system + system[0] + self.after_system if shown else self.prefix
        turns = [message for message in messages if message["role"] != "system"]
        for number, message in enumerate(turns, 1):
            after = self.user_to_assistant if message["role"] == "user" else self.assistant_to_user
            text += message["content"] + (self.suffix if number == len(turns) else after)
        return text

    def to_go_template(self) -> str:
        """The same as a template of Go's text/template, over the values that Ollama gives it."""
        system = '(eq (index .Messages 0).Role "system")' if self.shows_empty_system else ".System"
        if_last = "{{ if eq (len (slice $.Messages $i)) 1 }}"
        parts = [
            "{{ if .Messages }}",
            f"{{{{ if {system} }}}}{literal(self.before_system)}{{{{ .System }}}}{literal(self.after_system)}",
            f"{{{{ else }}}}{literal(self.prefix)}{{{{ end }}}}",
            "{{ end }}",
            "{{ range $i, $message := .Messages }}",
            '{{ if eq $message.Role "user" }}{{ $message.Content }}',
            f"{if_last}{literal(self.suffix)}{{{{ else }}}}{literal(self.user_to_assistant)}{{{{ end }}}}",
            '{{ else if eq $message.Role "assistant" }}{{ $message.Content }}',
            f"{if_last}{{{{ else }}}}{literal(self.assistant_to_user)}{{{{ end }}}}",
            "{{ end }}{{ end }}",
        ]
        return "".join(parts)


def literal(text: str) -> str:
    """A constant text in a Go template that stands between triple quotes in a Modelfile."""
    if "{{" in text or "}}" in text or '"' in text:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'{{{{ "{escaped}" }}}}'
    return text


def infer_format(render: Render) -> ChatFormat | None:
    """The format that `render` follows, or None where it follows none.

    render: from messages that end with a user's turn to the text after which the answer is to come; it may raise for
    what the template does not allow.
    """
    try:
        found = _extract_segments(render)
        if found is None:
            return None
        return found if all(found.render(probe) == render(probe) for probe in probe_conversations()) else None
    except Exception as error:  # a template raises what it likes
        if isinstance(error, (KeyboardInterrupt, MemoryError)):
            raise
        return None


def _extract_segments(render: Render) -> ChatFormat | None:
    whole = _between(render(_turns(2)), ["zqu0zq", "zqa0zq", "zqu1zq"])
    with_system = _between(render([_message("system", SYSTEM), *_turns(1)]), [SYSTEM, "zqu0zq"])
    if whole is None or with_system is None:
        return None
    empty = render([_message("system", ""), *_turns(1)])
    return ChatFormat(
        prefix=whole[0],
        before_system=with_system[0],
        after_system=with_system[1],
        user_to_assistant=whole[1],
        assistant_to_user=whole[2],
        suffix=whole[3],
        shows_empty_system=empty == with_system[0] + with_system[1] + "zqu0zq" + whole[3],
    )


def _between(text: str, marks: list[str]) -> list[str] | None:
    """What stands before, between and after the marks, or None unless each stands there once and in this order."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        parts.append(before)
    return [*parts, text]


def probe_conversations() -> list[Messages]:
    """Conversations of one to four questions, without a system text, with one, and with an empty one."""
    system = [None, "Be brief.\nAnswer in French: «oui».", ""]
    return [
        ([] if text is None else [_message("system", text)]) + _turns(count, "What is {} + 1?", "It is\n{}, and 🚀.")
        for text in system
        for count in (1, 2, 3, 4)
    ]


def _turns(count: int, question: str = "zqu{}zq", answer: str = "zqa{}zq") -> Messages:
    """`count` questions with an answer to each but the last."""
    turns = []
    for number in range(count):
        turns += [_message("user", question.format(number)), _message("assistant", answer.format(number))]
    return turns[:-1]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


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
    header = gguf_conversion.read(gguf)
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


def format_of(renderer: Renderer, header: gguf_conversion.GGUFHeader) -> ChatFormat | None:
    """How Ollama is to put messages together: the renderer's own text, less the begin token that llama.cpp adds."""
    begin = renderer.tokenizer.bos_token or ""
    adds = bool(header.metadata.get("tokenizer.ggml.add_bos_token")) and begin

    def render(messages: Messages) -> str:
        text = renderer.rendered_prompt(messages)
        return text.removeprefix(begin) if adds else text

    return infer_format(render)


def _template(renderer: Renderer, header: gguf_conversion.GGUFHeader) -> list[str]:
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


def _context_length(header: gguf_conversion.GGUFHeader) -> int | None:
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
