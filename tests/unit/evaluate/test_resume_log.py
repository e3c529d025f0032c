"""A killed evaluation continues where it stopped, and never with the work of another."""

from hypothesis import given
from hypothesis import strategies as st
from snaketune.evaluate.predict import ResumeLog


def written(path, entries, fingerprint="one"):
    with ResumeLog(path, fingerprint) as log:
        for name, entry in entries.items():
            log.add(name, entry)
    return log


@given(st.data())
def test_log_cut_off_at_any_byte_keeps_its_whole_entries_and_takes_more(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "unfinished.jsonl"
    entries = {f"row {i}": {"answer": "ä\n" * i} for i in range(4)}
    written(path, entries)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with ResumeLog(path, "one") as log:
        kept = dict(log.entries)
        assert list(kept.items()) == list(entries.items())[: len(kept)]
        log.add("more", 1)
    with ResumeLog(path, "one") as log:
        assert log.entries == kept | {"more": 1}


def test_log_with_another_fingerprint_is_discarded(tmp_path):
    path = tmp_path / "unfinished.jsonl"
    written(path, {"a": 1})
    assert written(path, {}, "two").entries == {}
    assert written(path, {}, "one").entries == {}


def test_finished_log_is_deleted(tmp_path):
    path = tmp_path / "unfinished.jsonl"
    written(path, {"a": 1}).finish()
    assert not path.exists()
