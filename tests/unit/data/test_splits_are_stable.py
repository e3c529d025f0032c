"""Splits: whole clusters on one side, unmoved by growth and order, near their shares, leaks found."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from snaketune.contracts.data import DataReport, LeakReport, SplitReport
from snaketune.data import report, splits
from snaketune.errors import ConfigError, DataError
from snaketune.files import read_json
from unit.data.data_steps import ask, checked, divided, settings, sides, validated, write

WORDS = "red green blue stone river cloud walks sings under over seven nine small old new house".split()
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join)


@st.composite
def data_sets(draw: st.DrawFn) -> list[dict]:
    """Rows that repeat, resemble and share questions and groups with each other more than real ones do."""
    rows: list[dict] = []
    for _ in range(draw(st.integers(2, 30))):
        kind = draw(st.sampled_from(["new", "new", "near", "other answer"]))
        old = draw(st.sampled_from(rows)) if rows else None
        if old is None or kind == "new":
            row = ask(draw(sentences), draw(sentences))
        elif kind == "near":
            row = old | {"response": old["response"] + " " + draw(st.sampled_from(WORDS))}
        else:
            row = ask(old["prompt"], draw(sentences))
        rows.append(row | {"author": draw(st.sampled_from([None] * 4 + list("abc")))})
    return rows


def sides_of(rows: list[dict], **data: object) -> dict[str, tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / "rows.jsonl", *rows) | {"group": {"field": "author"}}
        return sides(Path(folder) / "out", settings(source, **data))


@pytest.mark.parametrize("near", [0.85, False])
@given(rows=data_sets(), random_=st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=25, deadline=None)
def test_shuffling_the_input_changes_no_rows_side(near: object, rows: list[dict], random_: random.Random) -> None:
    shuffled = random_.sample(rows, len(rows))
    before, after = sides_of(rows, near_duplicates=near), sides_of(shuffled, near_duplicates=near)
    if not near:
        assert before == after
    assert all(after[key][0] == side for key, (side, _) in before.items() if key in after)


@given(rows=data_sets(), more=data_sets())
@hypothesis_settings(max_examples=25, deadline=None)
def test_growth_moves_no_row_whose_cluster_did_not_change(rows: list[dict], more: list[dict]) -> None:
    before = sides_of(rows, near_duplicates=False)
    after = sides_of(rows + more[: max(1, len(rows) // 10)], near_duplicates=False)
    clusters = [{name: {key for key, (_, one) in found.items() if one == name} for _, name in found.values()}
                for found in (before, after)]  # fmt: skip
    for key, (side, name) in before.items():
        if clusters[0][name] == clusters[1][after[key][1]]:
            assert after[key][0] == side


@given(rows=data_sets())
@hypothesis_settings(max_examples=25, deadline=None)
def test_our_own_split_has_no_leak(rows: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / "rows.jsonl", *rows) | {"group": {"field": "author"}}
        data = settings(source, split={"train": 0.4, "valid": 0.3, "test": 0.3})
        out = Path(folder) / "out"
        sides(out, data)
        assert checked(out, data)["pairs"] == 0


def many(count: int, **more: object) -> list[dict]:
    questions = (f"what is said of item {n * n + 7} in chapter {n}?" for n in range(count))
    return [ask(question, f"it is {n * 37 % 1009} long", **more) for n, question in enumerate(questions)]


def test_shares_are_met_to_within_sampling_error_in_every_category(tmp_path: Path) -> None:
    rows = [row | {"kind": str(n % 3)} for n, row in enumerate(many(3000))]
    source = write(tmp_path / "rows.jsonl", *rows) | {"category": {"field": "kind"}}
    validated(tmp_path, settings(source))
    found = divided(tmp_path, settings(source))
    for kind in "012":
        counts = {side: sum(row["category"] == kind for row in rows.values()) for side, rows in found.items()}
        assert sum(counts.values()) == 1000
        assert abs(counts["train"] - 800) < 4 * (1000 * 0.8 * 0.2) ** 0.5
        assert abs(counts["test"] - 100) < 4 * (1000 * 0.1 * 0.9) ** 0.5


def test_exact_splits_meet_the_counts_in_every_category(tmp_path: Path) -> None:
    rows = [row | {"kind": "a" if n < 20 else "b"} for n, row in enumerate(many(50))]
    data = settings(write(tmp_path / "rows.jsonl", *rows) | {"category": {"field": "kind"}}, split={"exact": True})
    validated(tmp_path, data)
    found = divided(tmp_path, data)
    for kind, count in (("a", 20), ("b", 30)):
        counts = [sum(row["category"] == kind for row in found[side].values()) for side in ("train", "valid", "test")]
        assert counts == [count * 8 // 10, count // 10, count // 10]


def test_another_seed_makes_another_split(tmp_path: Path) -> None:
    data = settings(write(tmp_path / "rows.jsonl", *many(200)))
    validated(tmp_path, data)
    assert divided(tmp_path, data, seed=1)["test"].keys() != divided(tmp_path, data, seed=2)["test"].keys()


def test_the_train_rows_of_a_smaller_share_are_among_those_of_a_larger(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", *many(300))
    small, large = (settings(source, split={"train": t, "valid": 0.1, "test": 0.9 - t}) for t in (0.5, 0.8))
    validated(tmp_path, small)
    assert divided(tmp_path, small)["train"].keys() <= divided(tmp_path, large)["train"].keys()


def test_rows_of_a_source_with_a_split_stay_there_and_draw_their_kin_with_them(tmp_path: Path) -> None:
    rows = many(60)
    own = write(tmp_path / "test.jsonl", *rows[:20]) | {"split": "test"}
    rest = write(
        tmp_path / "rest.jsonl", *rows[20:], *(row | {"response": "something else altogether"} for row in rows[:20])
    )
    data = settings(own, rest)
    validated(tmp_path, data)
    found = divided(tmp_path, data)
    assert sum(row["source"] == own["path"] for row in found["test"].values()) == 20
    assert sum(row["messages"][-1]["content"].startswith("something") for row in found["test"].values()) == 20
    assert checked(tmp_path, data)["pairs"] == 0


@pytest.mark.parametrize("test_first", [True, False])
@pytest.mark.parametrize("near", [0.85, False])
def test_a_free_row_gives_way_to_its_copy_whose_side_is_chosen(test_first: bool, near: object, tmp_path: Path) -> None:
    rows = many(30)
    own = write(tmp_path / "test.jsonl", *rows[:5]) | {"split": "test"}
    free = write(tmp_path / "rest.jsonl", *rows)
    data = settings(*([own, free] if test_first else [free, own]), near_duplicates=near)
    report = validated(tmp_path, data)
    assert (report["kept"], report["duplicates"], report["near_duplicates"]) == (30, 5, 0)
    assert sum(row["source"] == own["path"] for row in divided(tmp_path, data)["test"].values()) == 5


def test_splits_that_so_few_rows_cannot_fill_are_a_warning(tmp_path: Path) -> None:
    data = settings(write(tmp_path / "rows.jsonl", *many(1)))
    validated(tmp_path, data)
    divided(tmp_path, data)
    assert len(read_json(tmp_path / "split.json")["warnings"]) == 2


def test_shares_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    data = settings(write(tmp_path / "rows.jsonl", *many(3)))
    data["split"]["train"] = 0.9
    validated(tmp_path, data)
    with pytest.raises(ConfigError, match=r"add up to 1\.1, not 1"):
        divided(tmp_path, data)


LONG = " ".join(f"the {WORDS[n % 16]} {WORDS[n * 5 % 16]} number {n}" for n in range(20))


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        (ask("Where is the mill?", "By the river."), ask("Where is   the\nmill?", "By the river."), "the same row"),
        (ask("Where is the mill?", "By the river."), ask("where is the mill", "Who knows."), "the same question"),
        (ask("Where?", "There."), ask("where", "there"), "the same row but for capitals and punctuation"),
        (ask(f"Tell me: {LONG}", "Yes."), ask(f"Tell me: {LONG} please", "Yes."), "nearly the same row"),
        (ask("A?", "One.", author="x"), ask("Entirely other?", "Two.", author="x"), "the same group"),
    ],
)  # fmt: skip
def test_a_leak_in_a_users_own_split_is_found_and_named(left: dict, right: dict, why: str, tmp_path: Path) -> None:
    fill = many(40)
    group = {"group": {"field": "author"}}
    train = write(tmp_path / "mine/train.jsonl", *fill[:20], left) | {"split": "train"} | group
    test = write(tmp_path / "mine/test.jsonl", *fill[20:], right) | {"split": "test"} | group
    data = settings(train, test)
    validated(tmp_path, data)
    divided(tmp_path, data)
    found = checked(tmp_path, data)
    assert found["by"] == {why: 1}
    with pytest.raises(DataError) as raised:
        splits.check(tmp_path / "leaks.json")
    assert f"{train['path']}:21" in str(raised.value)
    assert f"{test['path']}:21" in str(raised.value)
    checked(tmp_path, data | {"on_leakage": "warn"})
    splits.check(tmp_path / "leaks.json")


def test_leaking_rows_are_counted_in_each_split_not_as_pairs(tmp_path: Path) -> None:
    """One training question that nine validation rows repeat is a single listed pair, and nine scores that are lost."""
    fill = many(40)
    same = [ask("Who keeps the ferry?", f"Answer {word}, and nobody else.") for word in WORDS[:10]]
    near = [ask(f"Tell me: {LONG}", "Yes."), ask(f"Tell me: {LONG} please", "Yes.")]
    sources = [
        write(tmp_path / "mine/valid.jsonl", *fill[:10], *same[1:]) | {"split": "valid"},
        write(tmp_path / "mine/train.jsonl", *fill[10:30], same[0], near[0]) | {"split": "train"},
        write(tmp_path / "mine/test.jsonl", *fill[30:], near[1]) | {"split": "test"},
    ]
    data = settings(*sources)
    validated(tmp_path, data)
    divided(tmp_path, data)
    found = checked(tmp_path, data)
    assert found["pairs"] == 2
    assert found["rows"] == {"train": 22, "valid": 19, "test": 11}
    assert found["affected"] == {"train": 2, "valid": 9, "test": 1}
    with pytest.raises(DataError, match="2 of 22 train rows, 9 of 19 valid rows and 1 of 11 test rows"):
        splits.check(tmp_path / "leaks.json")
    kinds = {"report": DataReport, "split": SplitReport, "leaks": LeakReport}
    files = [read_json(tmp_path / f"{name}.json", kind) for name, kind in kinds.items()]
    lines = report.summary_lines(*files, "rejected.jsonl")
    assert "9 of 19 valid" in lines[4]
    assert [line for line in lines if line.startswith("remark") and "share their question with another answer" in line]
