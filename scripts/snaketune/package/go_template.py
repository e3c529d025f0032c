"""A chat template as the few constant texts between its messages, read off what it renders; and as a Go template.

Ollama renders Go templates, the model was trained with a Jinja one. A Jinja template is a program and cannot be
translated in general, but nearly every chat template only puts constant texts around the messages. Those are found by
rendering conversations of marked messages and cutting at the marks, and believed only if conversations of other
lengths, with a system text, with an empty one and with none, come out of them letter by letter. Anything else (a date,
a rule about the content) has no Go template here, and the caller says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snaketune.contracts.data import Message

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
