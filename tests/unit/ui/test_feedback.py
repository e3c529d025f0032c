"""Feedback and the next version: what is learned, what is a better reference, and what never reaches training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from snaketune.config import schema
from snaketune.config.sections import load
from snaketune.data import splits, validate
from snaketune.data.records import ValidationConfig
from snaketune.files import read_jsonl, write_jsonl
from snaketune.ui.answering import ModelName
from snaketune.ui.conversations import ChatEntry, append_entry
from snaketune.ui.project import Project
from starlette.testclient import TestClient
from ui_rows import record

RUN = "jessy-v1"


def chat(project: Project, question: str, answer: str = "a wrong answer", after: str = "") -> str:
    entry = ChatEntry(
        id=f"chat{abs(hash(question)) % 10**8}",
        question=question,
        models=[ModelName(RUN, "gguf-q8_0")],
        answers=[answer],
        blind=False,
        after=after,
    )
    append_entry(project.results / RUN, entry)
    return entry.id


def mark(client: TestClient, **given: Any) -> str:
    found = client.post(f"/api/feedback/{RUN}", json={"mark": "corrected", "place": 0, "response": "", **given})
    assert found.status_code == 200, found.text
    return found.json()["use"]


def made(client: TestClient, **given: Any) -> dict[str, Any]:
    found = client.post(f"/api/next/{RUN}", json={"name": "jessy-v2", **given})
    assert found.status_code == 200, found.text
    return found.json()


def divided(project: Project, configuration: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a configuration by split, as the data stage divides them."""
    config = load(schema.complete(yaml.safe_load((project.root / configuration).read_text())))
    folder = project.root / "divided"
    folder.mkdir(exist_ok=True)
    fields = {name: getattr(config.data, name) for name in ValidationConfig.__struct_fields__}
    validate.run(ValidationConfig(**fields), folder / "records", folder / "rejected", folder / "report", config.seed)
    files = {name: folder / f"{name}.jsonl" for name in ("train", "valid", "test")}
    splits.run(
        splits.SplitRowsConfig(split=config.data.split, seed=config.seed), folder / "records", files, folder / "split"
    )
    return {name: list(read_jsonl(path)) for name, path in files.items()}


def question_of(row: dict[str, Any]) -> str:
    return next(turn["content"] for turn in row["messages"] if turn["role"] == "user")


def test_a_corrected_chat_answer_is_learned_by_the_next_version(client: TestClient, project: Project) -> None:
    identifier = chat(project, "Which color has the sky on a clear day?")
    assert mark(client, origin="chat", id=identifier, response="Blue.") == "training"
    version = made(client, weight=4)
    assert version["learned"] == 1
    rows = divided(project, version["configuration"])
    learned = [row for row in rows["train"] if question_of(row).startswith("Which color")]
    assert [row["messages"][-1]["content"] for row in learned] == ["Blue."]
    assert learned[0]["weight"] == 4
    assert "sky" not in json.dumps([rows["test"], rows["valid"]])


@pytest.mark.parametrize("spelled", ["{}", "  {}", "{}!", "{} ?"])
def test_a_correction_of_a_test_question_never_reaches_training(
    client: TestClient, project: Project, spelled: str
) -> None:
    question = question_of(record(4))
    identifier = chat(project, spelled.format(question))
    assert mark(client, origin="chat", id=identifier, response="A BETTER REFERENCE") == "reference"
    other = chat(project, "Is this a question of its own?")
    mark(client, origin="chat", id=other, response="It is.")
    version = made(client)
    assert (version["learned"], version["references"]) == (1, 1)
    rows = divided(project, version["configuration"])
    assert not [row for row in rows["train"] + rows["valid"] if question_of(row).strip(" !?") == question]
    tested = [row for row in rows["test"] if question_of(row) == question]
    assert [row["messages"][-1]["content"] for row in tested] == ["A BETTER REFERENCE"]


def test_the_same_test_rows_are_kept_out_of_every_later_version(client: TestClient, project: Project) -> None:
    tested = {question_of(record(number)) for number in range(40)}
    mark(client, origin="test", id="row-006", response="BETTER")
    identifier = chat(project, "Something that nobody has asked before, is it?")
    mark(client, origin="chat", id=identifier, response="Yes.")
    rows = divided(project, made(client)["configuration"])
    assert tested <= {question_of(row) for row in rows["test"]}
    assert not tested & {question_of(row) for row in rows["train"] + rows["valid"]}
    categories = {question_of(row): row["category"] for row in rows["test"]}
    assert categories[question_of(record(3))] == "even"


def test_a_correction_that_is_nearly_a_test_question_is_held_back(client: TestClient, project: Project) -> None:
    long = " ".join(f"Why is stone number {number} of the old bridge so cold in the morning?" for number in range(9))
    answer = " ".join(f"Stone {number} lies in the shadow of the garden until noon." for number in range(9))
    turns = [{"role": "user", "content": long}, {"role": "assistant", "content": answer}]
    test_row = record(0) | {"messages": turns}
    path = project.results / RUN / "data/test.jsonl"
    write_jsonl(path, [test_row, *(record(number) for number in range(1, 40))])
    near = chat(project, long.replace("number 4 of", "number four of"))
    mark(client, origin="chat", id=near, response=answer)
    far = chat(project, "What is the name of the harbor?")
    mark(client, origin="chat", id=far, response="Copper.")
    version = made(client)
    assert (version["learned"], version["held_back"]) == (1, 1)
    learned = list(read_jsonl(project.root / "data/feedback/jessy-v2.train.jsonl"))
    assert [row["messages"][0]["content"] for row in learned] == ["What is the name of the harbor?"]


def test_a_validation_question_gets_a_better_reference_in_its_split(client: TestClient, project: Project) -> None:
    identifier = chat(project, question_of(record(104)))
    assert mark(client, origin="chat", id=identifier, response="BETTER") == "reference"
    version = made(client)
    rows = divided(project, version["configuration"])
    found = [row for row in rows["valid"] if question_of(row) == question_of(record(104))]
    assert [row["messages"][-1]["content"] for row in found] == ["BETTER"]
    assert not [row for row in rows["train"] if question_of(row) == question_of(record(104))]


def test_of_two_corrections_of_one_answer_the_later_counts(client: TestClient, project: Project) -> None:
    identifier = chat(project, "How many stones are in the river?")
    mark(client, origin="chat", id=identifier, response="Ten.")
    mark(client, origin="chat", id=identifier, response="Twelve.")
    made(client)
    (row,) = read_jsonl(project.root / "data/feedback/jessy-v2.train.jsonl")
    assert row["messages"][-1]["content"] == "Twelve."


def test_a_corrected_later_answer_is_learned_with_its_conversation_and_the_answers_before_it_are_not(
    client: TestClient, project: Project
) -> None:
    first = chat(project, "Is the paper blue?", "It is a lantern.")
    second = chat(project, "And the lantern?", "It is paper.", after=first)
    mark(client, origin="chat", id=second, response="It is copper.")
    made(client)
    (row,) = read_jsonl(project.root / "data/feedback/jessy-v2.train.jsonl")
    said = [(turn["content"], turn.get("weight")) for turn in row["messages"]]
    assert said == [
        ("Is the paper blue?", None),
        ("It is a lantern.", 0),
        ("And the lantern?", None),
        ("It is copper.", None),
    ]


def test_answers_marked_right_are_learned_only_where_wanted(client: TestClient, project: Project) -> None:
    right = chat(project, "Is the window open?", "No, it is closed.")
    mark(client, origin="chat", id=right, mark="good")
    wrong = chat(project, "Is the garden green?", "It is a letter.")
    mark(client, origin="chat", id=wrong, mark="bad")
    assert client.post(f"/api/next/{RUN}", json={"name": "none", "with_good": False}).status_code == 422
    assert not (project.root / "none.yaml").exists()
    assert made(client)["learned"] == 1


@pytest.mark.parametrize("response", ["", "   ", "\u200b"])
def test_an_empty_correction_is_refused_and_nothing_is_written(
    client: TestClient, project: Project, response: str
) -> None:
    identifier = chat(project, "Is it cold?")
    refused = client.post(
        f"/api/feedback/{RUN}", json={"origin": "chat", "id": identifier, "mark": "corrected", "response": response}
    )
    assert refused.status_code == 422
    assert not Path("data/feedback/jessy-v1.jsonl").exists()


def test_the_new_configuration_compares_with_the_last_run_and_names_its_sources(
    client: TestClient, project: Project
) -> None:
    identifier = chat(project, "Is it late?")
    mark(client, origin="chat", id=identifier, response="No.")
    version = made(client)
    written = yaml.safe_load((project.root / "jessy-v2.yaml").read_text())
    assert written["compare_with"] == RUN
    paths = [source["path"] for source in written["data"]["sources"]]
    assert paths == ["data/rows.jsonl", "data/feedback/jessy-v2.train.jsonl", "data/feedback/jessy-v2.test.jsonl"]
    assert version["command"] == "snakemake --configfile jessy-v2.yaml"
    again = client.post(f"/api/next/{RUN}", json={"name": "jessy-v2"})
    assert again.status_code == 422


def test_rows_of_a_text_a_tool_and_an_untrained_turn_come_back_as_they_were() -> None:
    from snaketune.data.records import Layout, parse_fields
    from snaketune.ui.next_version import _as_row

    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1", "trained": False},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
    ]
    for content in (
        {"messages": conversation},
        {"text": "a plain text"},
        {"text": "asked: answered", "segments": [[0, 7, 0], [7, 15, 1]]},
    ):
        assert parse_fields(_as_row(content), Layout()) == content
