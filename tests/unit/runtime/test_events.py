"""events.jsonl takes whole lines from many processes at once, and a reader sees each of them once."""

import multiprocessing
import os
import re
from pathlib import Path

import msgspec
import pytest
from snaketune.errors import COMMAND_VARIABLE, DataError, StoppedError, typed_command
from snaketune.runtime import events, step
from snaketune.runtime.events import Event, EventFile, EventReader, Progress

ROOT = Path(__file__).resolve().parents[3]


def an_event(message: str, state: events.State = "warning") -> Event:
    return Event(time=1.5, run="zürich", state=state, step="train_adapter", message=message)


def append_many(path: Path, name: str) -> None:
    file = EventFile(path)
    for number in range(200):
        file.append(an_event(f"{name} {number} " + "x" * (number % 90)))


def test_lines_of_four_processes_are_whole_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "zürich" / "events.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, name)) for name in ("tuna", "eel", "carp", "bass")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [event.message.split()[:2] for event in EventReader(path).read()]
    assert len(path.read_bytes().splitlines()) == 800
    for name in ("tuna", "eel", "carp", "bass"):
        assert [number for by, number in found if by == name] == [str(number) for number in range(200)]


def test_reader_waits_for_the_end_of_a_line_and_leaves_out_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read() == []
    line = msgspec.json.encode(an_event("first")) + b"\n"
    path.write_bytes(line[:20])
    assert reader.read() == []
    path.write_bytes(line)
    assert [event.message for event in reader.read()] == ["first"]
    with open(path, "ab") as out:
        out.write(line[:30])  # its writer was killed
    EventFile(path).append(an_event("second"))
    assert [event.message for event in reader.read()] == ["second"]
    assert reader.read() == []


def test_reader_begins_anew_when_the_file_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventFile(path).append(an_event("old"))
    reader = EventReader(path)
    reader.skip_to_end()
    path.rename(tmp_path / "events.old.jsonl")
    EventFile(path).append(an_event("new, and longer than what was there before"))
    assert [event.message[:3] for event in reader.read()] == ["new"]


def test_large_file_is_set_aside_and_a_small_one_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EventFile(tmp_path / "events.jsonl")
    file.append(an_event("first"))
    file.set_aside_if_large()
    assert file.path.exists()
    monkeypatch.setattr(events, "MAX_BYTES", 10)
    file.set_aside_if_large()
    assert not file.path.exists()
    assert (tmp_path / "events.old.jsonl").exists()


def test_full_disk_loses_the_event_and_ends_nothing() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    EventFile("/dev/full").append(an_event("lost"))


def test_step_writes_its_start_its_progress_and_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lyon" / "events.jsonl"
    monkeypatch.setenv(events.EVENTS_VARIABLE, str(path))
    with step.running(tmp_path / "quantize_gguf-q4_k_m.log", wildcards={"type": "q4_k_m"}):
        for number in range(1000):
            events.report_progress(Progress(activity="quantizing", done=number, total=1000))
        events.report_progress(Progress(activity="hashing", done=0))
        events.report_warning("the file is larger than before")
        events.report_result("812 kB")
    found = EventReader(path).read()
    assert [event.state for event in found] == ["started", "progress", "progress", "warning", "finished"]
    assert {event.job for event in found} == {("quantize_gguf", (("type", "q4_k_m"),))}
    assert {event.run for event in found} == {"lyon"}
    assert found[-1].message == "812 kB"
    assert "812 kB" in (tmp_path / "quantize_gguf-q4_k_m.log").read_text()


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (DataError("the row is empty", where="b.jsonl:3"), "failed", "b.jsonl:3: the row is empty."),
        (ZeroDivisionError(), "failed", "internal error; see the traceback in"),
        (StoppedError("the training was stopped after step 7"), "stopped", "the training was stopped after step 7."),
        (KeyboardInterrupt(), "stopped", "split_rows was stopped"),
    ],
)
def test_step_that_fails_says_why_in_its_last_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str, words: str
) -> None:
    monkeypatch.setenv(events.EVENTS_VARIABLE, str(tmp_path / "events.jsonl"))
    with pytest.raises(SystemExit), step.running(tmp_path / "split_rows.log"):
        raise error
    last = EventReader(tmp_path / "events.jsonl").read()[-1]
    assert last.state == state
    assert words in last.message


def test_command_that_goes_on_is_the_one_that_make_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMMAND_VARIABLE, raising=False)
    assert typed_command(["pilot", "--configfile", "mein projekt.yaml"]) == (
        "snakemake pilot --configfile 'mein projekt.yaml'"
    )
    monkeypatch.setenv(COMMAND_VARIABLE, "make")
    assert typed_command([]) == "make"


def test_step_below_a_display_writes_to_its_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(events.EVENTS_VARIABLE, str(tmp_path / "events.jsonl"))
    monkeypatch.setenv(events.DISPLAY_VARIABLE, "1")

    def fail() -> None:
        os.write(2, b"from a library in C\n")
        raise DataError("no rows")

    with pytest.raises(SystemExit), step.running(tmp_path / "split_rows.log"):
        fail()
    assert capfd.readouterr().err == ""
    assert (tmp_path / "split_rows.log").read_text() == "from a library in C\nsnaketune: no rows.\n"


@pytest.mark.parametrize("record", [Event, Progress])
def test_documentation_names_every_field(record: type[msgspec.Struct]) -> None:
    text = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    for name in record.__struct_fields__:
        assert re.search(rf"`{name}`", text), name


def test_example_in_the_documentation_is_what_the_types_read() -> None:
    text = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\{.*\}$", text, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        msgspec.json.decode(line, type=Event)
