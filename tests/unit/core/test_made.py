"""What lies where a step left something is told from what somebody else put there."""

import os
from pathlib import Path

from snaketune.made import Journal


def test_only_what_a_step_left_untouched_is_known(tmp_path: Path) -> None:
    kept, edited, strange = (tmp_path / name for name in ("kept", "edited", "strange"))
    for path in (kept, edited, strange):
        path.write_text("made")
    journal = Journal(tmp_path / "outputs.jsonl")
    journal.add([kept, edited, tmp_path / "missing"])
    os.utime(kept, (1, 1))  # touched, as by a copy, is not changed
    edited.write_text("mine")
    for one in (journal, Journal(journal.path)):
        assert (one.knows(kept), one.changed(kept)) == (True, False)
        assert (one.knows(edited), one.changed(edited)) == (False, True)
        assert (one.knows(strange), one.changed(strange)) == (False, False)


def test_what_a_killed_step_left_is_neither_known_nor_taken_for_a_persons_change(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("of the settings before")
    journal = Journal(tmp_path / "outputs.jsonl")
    journal.add([output])
    journal.forget([output])
    output.write_text("of the settings now")
    for one in (journal, Journal(journal.path)):
        assert (one.knows(output), one.changed(output)) == (False, False)


def test_a_line_torn_by_a_kill_is_passed_over_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("made")
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"path": "a", "byt')
    Journal(path).add([output])
    assert Journal(path).knows(output)
    assert set(Journal(path).lines) == {str(output)}
