"""What an importer knows of one key of another tool; the import and docs/moving-in.md are both made of these tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from snaketune.config.schema import did_you_mean
from snaketune.importers.draft import Draft, Theirs

Fate = Literal["taken", "unused", "refused"]
Convert = Callable[[Draft, str, object, Theirs], None]  # of a key whose value is more than one value of ours


class KeyRule(msgspec.Struct, frozen=True, kw_only=True):
    """The fate of one key.

    ours: the key of ours; note: what a reader of the table should know; values: theirs that have another name here;
    convert: does the work where a value does not simply pass over; harmless: values with which a refused key changes
    nothing; fix: what to do about a refused one.
    """

    fate: Fate
    ours: str = ""
    note: str = ""
    fix: str = ""
    values: Mapping[object, object] = {}
    harmless: Sequence[object] = ()
    convert: Convert | None = None
    is_final: bool = False


def taken(
    ours: str, note: str = "", values: Mapping[object, object] | None = None, convert: Convert | None = None
) -> KeyRule:
    """Return the rule of a key that ours has too."""
    return KeyRule(fate="taken", ours=ours, note=note, values=values or {}, convert=convert)


def unused(why: str) -> KeyRule:
    """Return the rule of a key that changes no result here."""
    return KeyRule(fate="unused", note=why)


def refused(
    effect: str, fix: str, harmless: Sequence[object] = (), convert: Convert | None = None, *, is_final: bool = False
) -> KeyRule:
    """Return the rule of a key that changes the result and has no equivalent here."""
    return KeyRule(
        fate="refused", note=effect, fix=fix, harmless=(None, False, *harmless), convert=convert, is_final=is_final
    )


def for_keys(names: str, rule: KeyRule) -> dict[str, KeyRule]:
    """Return the same rule for several keys, named in one text."""
    return dict.fromkeys(names.split(), rule)


def apply(table: Mapping[str, KeyRule], theirs: Theirs, draft: Draft) -> None:
    """Put every key of theirs into one of the draft's lists; one without a value counts as not given."""
    for key, value in theirs.items():
        if value is None or value == "":
            continue
        rule = table.get(key)
        if rule is None:
            draft.refuse(
                key,
                value,
                f"{draft.tool} may read it, or pass over it as a slip; what it would change is not known here"
                + did_you_mean(key, table),
                "Correct it, or take it out if the result does not depend on it",
            )
        elif rule.fate == "unused":
            draft.leave_out(key, value, rule.note)
        elif rule.fate == "refused" and any(value is one or value == one for one in rule.harmless):
            draft.leave_out(key, value, "switched off there, and not there at all here")
        elif rule.convert:
            rule.convert(draft, key, value, theirs)
        elif rule.fate == "refused":
            draft.refuse(key, value, rule.note, rule.fix, is_final=rule.is_final)
        else:
            _take(rule, key, value, draft)
    for step in draft.later:
        step()
    draft.later.clear()


def _take(rule: KeyRule, key: str, value: object, draft: Draft) -> None:
    if not rule.values:
        draft.take(key, value, rule.ours, value, rule.note)
        return
    known = value.lower() if isinstance(value, str) else value
    if not isinstance(known, str | int | float | bool) or known not in rule.values:
        draft.refuse(
            key,
            value,
            f"{rule.ours} has nothing like it; known are {', '.join(map(str, rule.values))}",
            f"Choose one of those{did_you_mean(str(value), map(str, rule.values))}",
        )
        return
    ours = rule.values[known]
    note = rule.note if str(ours).lower() != str(known) else ""
    draft.take(key, value, rule.ours, ours, note)


def number(value: object) -> float:
    """Return a number that YAML may have read as text, such as 2e-5."""
    return float(str(value))


def whole(value: object) -> int | float:
    """Return a number without a fraction as an int."""
    found = number(value)
    return int(found) if found == int(found) else found


def first_given(theirs: Theirs, *keys: str) -> object:
    """Return the first of several keys that has a value."""
    return next((theirs[key] for key in keys if theirs.get(key) is not None), None)
