"""A source that replaces others: its rows stay, other rows of the same questions give way, and the counts add up."""

from __future__ import annotations

from pathlib import Path

from data_steps import ask, divided, settings, validated, write
from hypothesis import given
from hypothesis import strategies as st

WORDS = "alpha beta gamma delta epsilon zeta eta theta".split()


@given(
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), min_size=1, max_size=20),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True),
)
def test_a_question_of_the_replacing_source_has_its_answer_alone(tmp_path_factory, rows, replaced) -> None:
    folder = tmp_path_factory.mktemp("rows")
    others = write(folder / "others.jsonl", *(ask(f"what is {q} please", f"an answer {a}") for q, a in rows))
    better = write(folder / "better.jsonl", *(ask(f"What is {q}, please?", f"better {q}") for q in replaced))
    data = settings(others, better | {"replaces": True, "split": "test"}, near_duplicates=False, on_leakage="warn")
    report = validated(folder, data)
    assert report["read"] == len(rows) + len(replaced)
    assert report["read"] == sum(report[name] for name in ("kept", "rejected", "duplicates", "near_duplicates"))
    splits = divided(folder, data)
    found = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in splits["test"].values()}
    for question in replaced:
        assert found[f"What is {question}, please?"] == f"better {question}"
    kept = [row["messages"][0]["content"] for side in splits.values() for row in side.values()]
    assert not {f"what is {question} please" for question in replaced} & set(kept)
    assert {f"what is {q} please" for q, _ in rows if q not in replaced} <= set(kept)


def test_order_of_the_sources_does_not_matter(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.jsonl", ask("one question", "old"), ask("another question", "kept"))
    better = write(tmp_path / "better.jsonl", ask("one question", "new")) | {"replaces": True}
    for name, sources in (("first", [plain, better]), ("last", [better, plain])):
        data = settings(*sources)
        validated(tmp_path / name, data)
        rows = [row for side in divided(tmp_path / name, data).values() for row in side.values()]
        assert sorted(row["messages"][1]["content"] for row in rows) == ["kept", "new"]


def test_a_rejected_row_replaces_nothing(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.jsonl", ask("one question", "old"))
    broken = write(tmp_path / "broken.jsonl", ask("one question", "\x00"), ask("other", "fine")) | {"replaces": True}
    report = validated(tmp_path, settings(plain, broken))
    assert report["kept"] == 2
    assert report["rejected"] == 1


def test_a_text_replaces_the_same_text_alone(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.jsonl", {"text": "a long text of its own"}, {"text": "another text entirely"})
    better = write(tmp_path / "better.jsonl", {"text": "a long  text of its own"}) | {"replaces": True, "split": "test"}
    data = settings(plain, better)
    assert validated(tmp_path, data)["duplicates"] == 1
    kept = [row["text"] for side in divided(tmp_path, data).values() for row in side.values()]
    assert sorted(kept) == ["a long  text of its own", "another text entirely"]
