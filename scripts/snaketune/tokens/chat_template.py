"""From a conversation to token ids and the mask of trained tokens: the one rendering that every stage uses.

What the model sees in training, in evaluation, in llama.cpp and in Ollama must be the same ids, so all of it comes
from here: the model's own chat template (or the one that the configuration names), run by transformers in its
sandbox, and the model's own tokenizer. Every assistant turn is trained, end-of-turn token included, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from snaketune.contracts.data import DataRecord, Message, ModelManifest
from snaketune.errors import DataError, ModelError
from snaketune.files import read_json
from snaketune.model import untrusted_files
from snaketune.runtime.step import no_garbage_collected
from snaketune.tokens import template_files, virtual_tokens
from snaketune.tokens.template_files import NAMED

PROBE = "snaketune-probe"
EXCHANGE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE})
RENDERING_SECONDS = 10  # a conversation takes milliseconds
FAULTS_OF_A_TEMPLATE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What the expressions of a template raise, which Jinja passes on as they are."""

Messages = Sequence[Mapping[str, object]]  # turns, as contracts.data.Message says


@dataclass(frozen=True)
class Rendered:
    """One row as the model reads it: `ids[i]` is a target, predicted from the ids before it, where `loss_mask[i]`."""

    ids: list[int]
    loss_mask: list[bool]


class Renderer:
    """A base model's tokenizer and chat template.

    folder: the model in Hugging Face format; template: None for the model's own, a name of `NAMED`, or a Jinja file;
    num_virtual_tokens: of prompt tuning, which stand at the beginning of every conversation; virtual_ids: their ids.
    """

    def __init__(self, folder: str | Path, template: str | None = None, num_virtual_tokens: int = 0) -> None:
        self.folder = Path(folder)
        self.tokenizer = _tokenizer(self.folder)
        self.virtual_ids = virtual_tokens.add_to_tokenizer(self.tokenizer, num_virtual_tokens, folder)
        self.named = template
        plain = template_files.settled(
            template_files.read_named(template) or template_files.own_template(self.tokenizer)
        )
        self.template = virtual_tokens.in_template(plain, num_virtual_tokens) if plain else None
        if self.template:
            self.tokenizer.chat_template = self.template
        self.special_tokens: dict[str, int] = {
            token.content: number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        self._special_ids = frozenset(self.special_tokens.values())
        self._adds_bos = self.tokenizer.bos_token_id is not None and (
            self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        )
        self.folds_system = bool(self.template) and not self._has_system_role()
        self.stop_ids: frozenset[int] = frozenset(self._stop_ids())
        if plain and self.virtual_ids:
            self._check_virtual_tokens(plain)

    def record(self, record: Mapping[str, object]) -> Rendered:
        """A row of records.jsonl, whichever kind it is."""
        row = cast(DataRecord, record)
        if "segments" in row:
            return self.segments(row["text"], row["segments"])
        if "text" in row:
            return self.text(row["text"])
        return self.conversation(row["messages"], row.get("tools"))

    def record_or_reason(self, record: Mapping[str, object]) -> Rendered | str:
        """A row, or in words why it has no rendering: the chat template refuses it, or shows it otherwise."""
        import jinja2

        try:
            return self.record(record)
        except (DataError, jinja2.TemplateError) as error:
            return (str(error).splitlines() or [type(error).__name__])[0]

    def text(self, text: str) -> Rendered:
        """Plain text between the model's own begin and end tokens; every token but the first is a target."""
        ids = self._encoded(text)["input_ids"]
        end = self.tokenizer.eos_token_id
        if end is not None and (not ids or ids[-1] != end or len(ids) == 1):
            ids = [*ids, end]
        return Rendered(ids, [False] + [True] * (len(ids) - 1))

    def segments(self, text: str, pieces: Sequence[Sequence[int]]) -> Rendered:
        """A text that was rendered by hand: each of its pieces is tokenized on its own, and trained or not."""
        ids: list[int] = []
        loss_mask: list[bool] = []
        for start, end, is_target in pieces:
            piece = self._encoded(text[start:end], add_special_tokens=False)["input_ids"]
            ids += piece
            loss_mask += [bool(is_target)] * len(piece)
        return Rendered(*self._with_bos(ids, loss_mask))

    def conversation(self, messages: Messages, tools: list[Any] | None = None, *, only_last: bool = False) -> Rendered:
        """A whole conversation; the tokens of its assistant turns, or `only_last` the last one's, are trained.

        An assistant turn with `trained` = False is never trained.
        """
        turns = self._folded(messages)
        last = max((turn for turn, message in enumerate(turns) if message["role"] == "assistant"), default=-1)
        whole = self._render(turns, tools, generation=False)
        encoded = self._encoded(whole, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        loss_mask = [False] * len(ids)
        cursor = 0
        for turn, message in enumerate(turns):
            if message["role"] != "assistant":
                continue
            start, end = self._span(turns, turn, tools, whole, cursor)
            cursor = end
            if (turn == last or not only_last) and is_trained(messages[turn - len(turns)]):
                self._mark(loss_mask, ids, offsets, whole, start, end)
        return Rendered(*self._with_bos(ids, loss_mask))

    def prompt_ids(self, messages: Messages, tools: list[Any] | None = None) -> list[int]:
        """The ids after which the model is to answer: a conversation that ends with a user's or a tool's turn."""
        return self.encode_prompt(self.rendered_prompt(messages, tools))

    def rendered_prompt(self, messages: Messages, tools: list[Any] | None = None) -> str:
        return self._render(self._folded(messages), tools, generation=True)

    def conversation_text(
        self, messages: Messages, tools: list[Any] | None = None, *, template: str | None = None
    ) -> str:
        """A whole conversation as the template writes it, or as another Jinja text in its place would."""
        return self._render(self._folded(messages), tools, generation=False, template=template)

    def encode_prompt(self, text: str) -> list[int]:
        ids = self._encoded(text, add_special_tokens=False)["input_ids"]
        return self._with_bos(ids, [])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _encoded(self, text: str, **options: Any) -> Any:
        """What the tokenizer makes of a text; its engine panics, which is no Exception, where a pattern gives up."""
        try:
            return self.tokenizer(text, **options)
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise ModelError(
                f"its tokenizer fails on a text of {len(text):,} characters that begins {text[:40]!r}",
                where=str(self.folder),
                fix="Leave that row out, or use another base",
            ) from None

    def _with_bos(self, ids: list[int], loss_mask: list[bool]) -> tuple[list[int], list[bool]]:
        """llama.cpp puts the begin token first wherever the tokenizer does, even where the template leaves it out."""
        begin = self.tokenizer.bos_token_id
        if self._adds_bos and ids[:1] != [begin]:
            return [begin, *ids], [False, *loss_mask]
        return ids, loss_mask

    def _render(
        self,
        messages: Messages,
        tools: list[Any] | None,
        generation: bool,
        template: str | None = None,
    ) -> str:
        if not self.template:
            raise ModelError(
                "this base model has no chat template, and the data have questions and answers",
                where="model.chat_template",
                why="Without one there is no telling where a question ends and its answer begins",
                fix=f"Name one ({', '.join(NAMED)}, or a Jinja file), or use the model's instruction-tuned sibling",
            )
        import jinja2

        try:
            with untrusted_files.time_limit(RENDERING_SECONDS, "the chat template", where=str(self.folder)):
                return self.tokenizer.apply_chat_template(
                    list(messages),
                    tools=tools,
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=generation,
                )
        except FAULTS_OF_A_TEMPLATE as error:
            raise jinja2.TemplateRuntimeError(f"{type(error).__name__}: {error}") from error

    def _folded(self, given: Messages) -> list[Message]:
        """The messages as the template sees them.

        A system text is moved into the first user turn where the template has no system role.
        """
        messages = [cast(Message, _without_trained(message)) for message in given]
        if self.folds_system and messages and messages[0]["role"] == "system":
            system, rest = messages[0], messages[1:]
            if not (system["content"] or "").strip():
                return rest
            if rest and rest[0]["role"] == "user":
                first: Message = {**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}
                return [first, *rest[1:]]
        return messages

    def _has_system_role(self) -> bool:
        import jinja2

        try:
            rendered = self._render(
                [{"role": "system", "content": PROBE}, {"role": "user", "content": "a"}], None, generation=True
            )
        except jinja2.TemplateError:
            return False
        return PROBE in rendered

    def _span(
        self, messages: list[Message], turn: int, tools: list[Any] | None, whole: str, cursor: int
    ) -> tuple[int, int]:
        """Character span of an assistant turn in the whole text: from where the model takes over to its last word."""
        before = self._render(messages[:turn], tools, generation=True)
        content = (messages[turn].get("content") or "").strip()
        start = len(before) if whole.startswith(before) else -1
        if not content or messages[turn].get("tool_calls"):  # what the template made of it
            until = self._render(messages[: turn + 1], tools, generation=False).rstrip()
            if until.startswith(before):
                end = self._before_end_of_turn(until, len(before))
                # A template may write the tools elsewhere once more turns follow, as Mistral's does.
                found = (
                    start if start >= 0 and whole.startswith(until) else whole.find(until[len(before) : end], cursor)
                )
                if found >= 0 and end > len(before):
                    return found, found + end - len(before)
        found = whole.find(content, max(start, cursor)) if content else -1
        if found < 0:
            raise DataError(
                f"the chat template does not show assistant turn {turn + 1} as it is written",
                why="What would be trained could not be told apart from the rest",
                fix="Set model.chat_template to another template, or leave such rows out",
            )
        return (start if start >= 0 else found), found + len(content)

    def _before_end_of_turn(self, text: str, start: int) -> int:
        for token in self.special_tokens:
            if text.endswith(token) and len(text) - len(token) > start:
                return len(text) - len(token)
        return len(text)

    def _mark(
        self, loss_mask: list[bool], ids: list[int], offsets: list[tuple[int, int]], whole: str, start: int, end: int
    ) -> None:
        """Mark the tokens of a span, and what follows it up to its end-of-turn token if only spaces stand between."""
        inside = [i for i, (left, right) in enumerate(offsets) if left >= start and left < end and right > left]
        for i in inside:
            loss_mask[i] = True
        after = inside[-1] + 1 if inside else next((i for i, (left, _) in enumerate(offsets) if left >= end), len(ids))
        for i in range(after, len(ids)):
            if ids[i] in self._special_ids:
                loss_mask[after : i + 1] = [True] * (i + 1 - after)
                return
            if whole[offsets[i][0] : offsets[i][1]].strip():
                return

    def _stop_ids(self) -> set[int]:
        """The ids at which an answer ends: those the model's own files name, and the one its template writes."""
        import jinja2

        found: set[int] = set()
        for name in ("config.json", "generation_config.json"):
            path = self.folder / name
            named = read_json(path).get("eos_token_id") if path.is_file() else None
            found.update(named if isinstance(named, list) else [named] if named is not None else [])
        if self.tokenizer.eos_token_id is not None:
            found.add(self.tokenizer.eos_token_id)
        if self.template:
            try:
                shown = self.conversation(EXCHANGE)
            except jinja2.TemplateError as error:
                raise template_files.unusable(self.tokenizer, error) from None
            last = max((i for i, one in enumerate(shown.loss_mask) if one), default=-1)
            if last < 0 or shown.ids[last] not in self._special_ids:
                raise template_files.no_end_of_turn(self.tokenizer, self.folder, self.named, shown.ids)
            found.add(shown.ids[last])
        return found

    def _check_virtual_tokens(self, plain: str) -> None:
        """Raise ModelError where the template writes more than the virtual tokens into what `plain` renders."""
        text = self.conversation_text(EXCHANGE, template=plain)
        expected = virtual_tokens.in_text(text, self.tokenizer.bos_token, len(self.virtual_ids))
        if self.conversation_text(EXCHANGE) != expected:
            raise ModelError(
                "the chat template renders a conversation otherwise once virtual tokens stand before it",
                where="model.chat_template",
                why="The tuned model would not be the base with learned tokens and nothing else",
                fix="Use another chat template, or train.method: lora",
            )


def renderer_of(base: ModelManifest, configured: str | None) -> Renderer:
    """The renderer of a base as the chosen experiment read it; configured: `model.chat_template`, where none was."""
    if base.read_as is None:
        return Renderer(base.folder, configured)
    return Renderer(base.folder, base.read_as.chat_template, base.read_as.num_virtual_tokens)


def is_trained(message: Mapping[str, object]) -> bool:
    """Whether a turn is an answer that is to be learned."""
    return message["role"] == "assistant" and bool(message.get("trained", True))


def _without_trained(message: Mapping[str, object]) -> Mapping[str, object]:
    return {key: value for key, value in message.items() if key != "trained"} if "trained" in message else message


def _tokenizer(folder: Path) -> Any:
    """The tokenizer exactly as tokenizer.json states it.

    Through a model's own class, transformers 5 builds it anew and in places otherwise: LlamaTokenizer drops the space
    that the file, and llama.cpp with it, puts after a special token.
    """
    with no_garbage_collected():
        import transformers

        # to import AutoTokenizer reads the sources of all models, and imports PyTorch where it may
        is_fast = (folder / "tokenizer.json").is_file()
        reader = transformers.PreTrainedTokenizerFast if is_fast else transformers.AutoTokenizer
    try:
        tokenizer = reader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"its tokenizer cannot be read ({str(error).splitlines()[0]})",
            where=str(folder),
            fix="The folder needs tokenizer.json (or tokenizer.model) and tokenizer_config.json",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError("its tokenizer has no fast version", where=str(folder), fix="Add a tokenizer.json")
    return tokenizer
