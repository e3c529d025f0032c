"""What came of new versions, in words: which package, from which version to which, what broke, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pins import Change
from scratch import Failure, Outcome

SHOWN = 5  # failures of a check on the terminal; the page has all
WIDTH = 160  # characters of an error


@dataclass(frozen=True)
class Attempt:
    """Holds what came of some new versions, tried together."""

    changes: tuple[Change, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Tell whether nothing broke."""
        return all(one.passed for one in self.outcomes)

    @property
    def broken(self) -> list[str]:
        """Name the checks that broke."""
        return [one.check for one in self.outcomes if not one.passed]

    @property
    def name(self) -> str:
        """Name the versions that were tried."""
        return ", ".join(f"{one.package} {one.new}" for one in self.changes)


def terminal(together: Attempt, alone: Sequence[Attempt]) -> str:
    """Return the table of packages and the first failures of each check."""
    rows = [("package", "pinned", "newest", "outcome"), *_rows(together, alone)]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    for title, outcome in _broken(together, alone):
        lines += ["", f"{title}: {outcome.check}"]
        lines += [f"  {one.where}\n      {_short(one)}" for one in outcome.failures[:SHOWN]]
        if len(outcome.failures) > SHOWN:
            lines.append(f"  and {len(outcome.failures) - SHOWN} more")
    return "\n".join([*lines, *(["", f"snaketune: {hint}"] if (hint := _hint(together, alone)) else [])])


def markdown(together: Attempt, alone: Sequence[Attempt], machine: str) -> str:
    """Return the page about an upgrade."""
    skipped = sum(one.skipped for one in together.outcomes)
    lines = ["# New versions, tried", "", f"On {machine}. Checks: {', '.join(one.check for one in together.outcomes)}."]
    lines += [f"{skipped} tests were skipped, because what they need is not here."] if skipped else []
    lines += ["", "| package | pinned | newest | outcome |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(together, alone)]
    for title, outcome in _broken(together, alone):
        lines += ["", f"## {title}: {outcome.check}", "", "| broke | first line of the error |", "|---|---|"]
        lines += [f"| `{one.where}` | {_cell(_short(one))} |" for one in outcome.failures]
    return "\n".join([*lines, *(["", hint] if (hint := _hint(together, alone)) else []), ""])


def _rows(together: Attempt, alone: Sequence[Attempt]) -> Iterator[tuple[str, str, str, str]]:
    verdicts = {attempt.changes[0].package: attempt for attempt in alone}
    for change in together.changes:
        yield change.package, change.old, change.new, _verdict(verdicts.get(change.package, together), bool(alone))


def _verdict(attempt: Attempt, is_alone: bool) -> str:
    if attempt.passed:
        return f"alone {' and '.join(one.check for one in attempt.outcomes)} hold" if is_alone else "holds"
    return f"breaks {', '.join(attempt.broken)}{' alone' if is_alone else ''}"


def _broken(together: Attempt, alone: Sequence[Attempt]) -> Iterator[tuple[str, Outcome]]:
    """What broke for each package alone; what broke together where no package alone breaks that check."""
    explained = {name for attempt in alone for name in attempt.broken}
    for attempt in (together, *alone):
        for outcome in attempt.outcomes:
            if not outcome.passed and (attempt is not together or outcome.check not in explained):
                yield attempt.name if attempt in alone or len(attempt.changes) == 1 else "all together", outcome


def _hint(together: Attempt, alone: Sequence[Attempt]) -> str:
    """The command for the packages that broke nothing alone, where others did."""
    whole = [attempt.changes[0].package for attempt in alone if attempt.passed]
    if together.passed or not whole or len(whole) == len(alone):
        return ""
    return f'these broke nothing alone; to try and raise them without the others: make upgrade ONLY="{" ".join(whole)}"'


def _short(failure: Failure) -> str:
    return failure.error if len(failure.error) <= WIDTH else f"{failure.error[: WIDTH - 3]}..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
