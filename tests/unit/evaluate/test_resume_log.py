"""A killed evaluation continues where it stopped, and never with the work of another."""

from hypothesis import given
from hypothesis import strategies as st
from snaketune.evaluate.resume_log import Journal


def written(path, facts, fingerprint="one"):
    with Journal(path, fingerprint) as journal:
        for name, fact in facts.items():
            journal.add(name, fact)
    return journal


@given(st.data())
def test_cut_off_at_any_byte_all_whole_facts_come_back_and_more_can_follow(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "unfinished.jsonl"
    facts = {f"row {i}": {"answer": "ä\n" * i} for i in range(4)}
    written(path, facts)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with Journal(path, "one") as journal:
        kept = dict(journal.known)
        assert list(kept.items()) == list(facts.items())[: len(kept)]
        journal.add("more", 1)
    with Journal(path, "one") as journal:
        assert journal.known == kept | {"more": 1}


def test_other_rows_settings_or_weights_begin_anew(tmp_path):
    path = tmp_path / "unfinished.jsonl"
    written(path, {"a": 1})
    assert written(path, {}, "two").known == {}
    assert written(path, {}, "one").known == {}


def test_a_finished_evaluation_leaves_no_journal(tmp_path):
    path = tmp_path / "unfinished.jsonl"
    written(path, {"a": 1}).finish()
    assert not path.exists()
