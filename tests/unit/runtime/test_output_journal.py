"""The journal of outputs trusts what its step left, and nothing else."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.runtime import locks


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.write_text("made")
    return path


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


def recorded(*outputs: Path) -> locks.OutputJournal:
    journal = locks.OutputJournal(outputs[0].parent / "outputs.jsonl")
    journal.add(outputs)
    return locks.OutputJournal(journal.path)


def test_what_a_step_left_is_known_whatever_its_time_is(output: Path) -> None:
    journal = recorded(output)
    assert journal.is_unmodified(output)
    os.utime(output, (1, 1))
    assert journal.is_unmodified(output)


def test_what_has_another_time_alone_is_read_once(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = recorded(output)
    os.utime(output, (1, 1))
    assert journal.is_unmodified(output)
    journal.save_refreshed_mtimes()
    monkeypatch.setattr(locks, "digest", None)
    assert journal.is_unmodified(output)
    assert locks.OutputJournal(journal.path).is_unmodified(output)


def test_what_was_made_again_since_keeps_its_newer_line(output: Path) -> None:
    journal = recorded(output)
    os.utime(output, (1, 1))
    assert journal.is_unmodified(output)
    output.write_text("made again")
    journal.add([output])
    journal.save_refreshed_mtimes()
    assert locks.OutputJournal(journal.path).is_unmodified(output)


def test_a_changed_output_is_not_known_though_size_stays(output: Path) -> None:
    journal = recorded(output)
    output.write_text("edit")
    assert not journal.is_unmodified(output)
    assert journal.is_modified(output)


def test_an_output_without_a_line_is_neither_known_nor_changed(output: Path) -> None:
    journal = locks.OutputJournal(output.parent / "outputs.jsonl")
    assert not journal.is_unmodified(output)
    assert not journal.is_modified(output)


@pytest.mark.parametrize("change", ["more", "less", "renamed", "edited"])
def test_a_folder_is_known_by_all_its_files(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "fused"
    (folder / "below").mkdir(parents=True)
    (folder / "a.json").write_text("a")
    (folder / "below/b.json").write_text("b")
    journal = recorded(folder)
    (folder / locks.SNAKEMAKE_TIMESTAMP).write_text("")
    assert journal.is_unmodified(folder)
    if change == "more":
        (folder / "c.json").write_text("c")
    elif change == "less":
        (folder / "a.json").unlink()
    elif change == "renamed":
        (folder / "a.json").rename(folder / "d.json")
    else:
        (folder / "below/b.json").write_text("c")
    assert not journal.is_unmodified(folder)


def test_a_torn_last_line_loses_that_line_alone(output: Path) -> None:
    other = output.with_name("other")
    other.write_text("other")
    journal = recorded(output, other)
    journal.path.write_bytes(journal.path.read_bytes()[:-5])
    torn = locks.OutputJournal(journal.path)
    assert torn.is_unmodified(output)
    assert not torn.is_unmodified(other)
    torn.add([other])
    assert locks.OutputJournal(journal.path).is_unmodified(output)
    assert locks.OutputJournal(journal.path).is_unmodified(other)


@given(content=st.binary(max_size=80))
def test_any_bytes_for_a_journal_are_no_reason_to_trust(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    (folder / "output").write_text("made")
    (folder / "outputs.jsonl").write_bytes(content)
    assert not locks.OutputJournal(folder / "outputs.jsonl").is_unmodified(folder / "output")


def test_what_is_kept_aside_is_named_by_its_content_and_kept_once(output: Path) -> None:
    kept = locks.backup_modified(output)
    assert kept.read_text() == "made"
    assert not output.exists()
    output.write_text("made")
    assert locks.backup_modified(output) == kept
    assert kept.read_text() == "made"


def test_what_a_killed_step_left_is_neither_known_nor_taken_for_a_persons_change(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("of the settings before")
    journal = locks.OutputJournal(tmp_path / "outputs.jsonl")
    journal.add([output])
    journal.mark_in_progress([output])
    output.write_text("of the settings now")
    for one in (journal, locks.OutputJournal(journal.path)):
        assert (one.is_unmodified(output), one.is_modified(output)) == (False, False)
