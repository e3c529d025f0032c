"""The configuration that grows out of another tool's one, and what became of each of its keys.

Every key of theirs ends in exactly one list: taken over, written out because their default differs from ours, of no
effect here, or refused. What is in none of the tables of an importer is refused, since nobody can say what it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from snaketune.config.schema_nodes import root

Theirs = Mapping[str, object]  # the keys of another tool's configuration, as their file has them


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A key of theirs that is a key of ours; note: what the value means here, where it is not the same word."""

    key: str
    theirs: object
    ours: str
    value: object
    note: str = ""


class WrittenOut(msgspec.Struct, frozen=True, kw_only=True):
    """What they do without being told, and ours would do otherwise; ours is empty where no key of ours can do it."""

    key: str
    theirs: str
    ours: str
    value: object = None
    note: str = ""


class Unused(msgspec.Struct, frozen=True, kw_only=True):
    """A key that changes no result here, and why leaving it out is safe."""

    key: str
    theirs: object
    why: str


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A key without equivalent. effect: what it changes in the result; is_final: nothing is left without it."""

    key: str
    theirs: object
    effect: str
    fix: str
    is_final: bool = False


@dataclass
class Draft:
    """Settings of ours by section, and the four lists.

    tool: the other tool's name; folder: where its file lies; without: keys that may be lost; later: what can be set
    only once all keys are read.
    """

    tool: str
    folder: Path = Path()
    without: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    written_out: list[WrittenOut] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    template_report: list[str] = field(default_factory=list)
    later: list[Callable[[], None]] = field(default_factory=list)

    def take(self, key: str, theirs: object, ours: str, value: object, note: str = "") -> None:
        """Note that a key is taken over, and set ours."""
        self.set(ours, value)
        self.taken.append(Taken(key=key, theirs=theirs, ours=ours, value=value, note=note))

    def write_out(self, key: str, theirs: str, ours: str, value: object = None, note: str = "") -> None:
        """Write a default of theirs into our configuration; it is listed only where ours differs."""
        if ours:
            self.set(ours, value)
            if value == default_of(ours) and not note:
                return
        self.written_out.append(WrittenOut(key=key, theirs=theirs, ours=ours, value=value, note=note))

    def leave_out(self, key: str, theirs: object, why: str) -> None:
        """Note a key that has no effect here."""
        self.unused.append(Unused(key=key, theirs=theirs, why=why))

    def refuse(self, key: str, theirs: object, effect: str, fix: str, *, is_final: bool = False) -> None:
        """Note a key that cannot be taken over, unless the person has said to go without it."""
        accepted = not is_final and key.partition(" ")[0] in self.without
        if accepted:
            self.written_out.append(
                WrittenOut(key=key, theirs=_plain(theirs), ours="", note=f"left out, as you asked; {effect}")
            )
        else:
            self.refused.append(Refused(key=key, theirs=theirs, effect=effect, fix=fix, is_final=is_final))

    def set(self, path: str, value: object) -> None:
        """Set one key of ours, such as train.rank."""
        section, _, key = path.rpartition(".")
        below = self.settings
        for part in filter(None, section.split(".")):
            inner = below.setdefault(part, {})
            assert isinstance(inner, dict)
            below = inner
        below[key] = value

    def get(self, path: str) -> object:
        """Return what has been set, or the schema's default."""
        below: object = self.settings
        for part in path.split("."):
            if not isinstance(below, dict) or part not in below:
                return default_of(path)
            below = below[part]
        return below

    def is_set(self, path: str) -> bool:
        """Tell whether a key of ours has been set."""
        below: object = self.settings
        for part in path.split("."):
            if not isinstance(below, dict) or part not in below:
                return False
            below = below[part]
        return True


def default_of(path: str) -> object:
    """Return the schema's default of a key of ours."""
    node = root()
    for part in path.split("."):
        node = node.properties[part]
    return None if node.default is msgspec.UNSET else node.default


def _plain(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
