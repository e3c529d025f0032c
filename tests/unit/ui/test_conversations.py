"""Asking and judging: names stay hidden until the vote, votes are kept as files, logs of clients become feedback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_copies import HOSTILE, RunCopies, write_report
from snaketune.files import read_json
from snaketune.report import collect, human_eval
from snaketune.ui.answering import ModelName
from snaketune.ui.client_log import read_log
from snaketune.ui.conversations import ChatEntry, Conversations, append_entry, read_chat, shown, tally, turns_before
from snaketune.ui.project import Project
from starlette.testclient import TestClient
from ui_rows import record

A, B = ModelName("v1", "gguf-q8_0"), ModelName("v1", "base")


def entry(number: int, models: list[ModelName], vote: int | str | None, *, blind: bool = True) -> ChatEntry:
    return ChatEntry(id=f"{number}", question="?", models=models, answers=["x", "y"], blind=blind, vote=vote)


def test_names_are_shown_after_the_vote_and_never_before() -> None:
    one = entry(1, [A, B], None)
    assert shown(one).names is None
    one.vote = "tie"
    assert shown(one).names == ["v1: gguf-q8_0", "v1: base"]
    assert shown(entry(2, [A, B], None, blind=False)).names is not None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, "tie", None])), max_size=30))
def test_votes_count_for_the_model_behind_the_place(votes: list[tuple[bool, int | str | None]]) -> None:
    entries = [entry(n, [A, B] if first else [B, A], vote) for n, (first, vote) in enumerate(votes)]
    found = {one.name: one for one in tally(entries)}
    given_votes = [(first, vote) for first, vote in votes if vote is not None]
    wins = sum((vote == 0) == first for first, vote in given_votes if vote != "tie")
    if given_votes:
        assert found["v1: gguf-q8_0"].wins == wins
        assert found["v1: base"].compared == len(given_votes)
    else:
        assert found == {}


def test_a_later_question_goes_on_with_each_models_own_answers(project: Project) -> None:
    first, second = entry(1, [A, B], None), entry(2, [A, B], None)
    second.after, second.question, second.answers = "1", "and then?", ["xx", "yy"]
    third = Conversations(project).follow("why?", second)
    assert (third.models, third.after, third.blind) == ([A, B], "2", True)
    known = {one.id: one for one in (first, second)}
    for place, answers in enumerate((["x", "xx"], ["y", "yy"])):
        turns = turns_before(known, third, place)
        assert [turn["content"] for turn in turns] == ["?", answers[0], "and then?", answers[1]]
    second.vote = 1
    assert not Conversations(project).follow("why?", second).blind


def test_a_question_after_one_that_is_not_there_is_refused(client: TestClient) -> None:
    assert client.post("/api/ask/jessy-v1", json={"question": "?", "after": "none"}).status_code == 422


def test_of_two_lines_about_a_question_the_last_counts_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    append_entry(tmp_path, entry(1, [A, B], None))
    append_entry(tmp_path, entry(1, [A, B], 1))
    with open(tmp_path / "chat.jsonl", "ab") as out:
        out.write(b'{"id": "2", "quest')
    assert [(one.id, one.vote) for one in read_chat(tmp_path)] == [("1", 1)]


def test_a_model_that_is_not_there_cannot_be_asked(client: TestClient) -> None:
    for run, variant in (("jessy-v1", "gguf-q8_0"), ("../x", "base"), ("jessy-v1", "../../secret")):
        asked = {"question": "?", "models": [{"run": run, "variant": variant}]}
        assert client.post("/api/ask/jessy-v1", json=asked).status_code == 422


@pytest.fixture
def judged(run_copies: RunCopies, project: Project) -> str:
    folder = run_copies.make(project.results / "judged", rows=30)
    write_report(folder)
    return "judged"


def test_votes_on_the_page_say_what_the_reports_form_would_say(
    client: TestClient, project: Project, judged: str
) -> None:
    folder = project.results / judged
    form = human_eval.form(collect.collect(folder))
    for rater in ("Ada", "Bo/../b"):
        given_form = client.get(f"/api/judge/{judged}", params={"rater": rater}).json()
        assert {item["id"] for item in given_form["items"]} == {item.id for item in form.items}
        for item in given_form["items"][:12]:
            left = human_eval.tuned_is_left(form.fingerprint, item["id"])
            choice = "left" if left == (rater == "Ada") else "right"
            vote = {"rater": rater, "preference": {"id": item["id"], "choice": choice, "comment": ""}}
            assert client.post(f"/api/judge/{judged}/vote", json=vote).status_code == 200
    result = client.get(f"/api/judge/{judged}/result").json()
    assert result["raters"] == ["Ada", "Bo/../b"]
    assert result["votes"] == 24
    files = sorted((folder / "votes").glob("*.json"))
    assert len(files) == 2
    assert {path.parent for path in files} == {folder / "votes"}
    found = human_eval.aggregate_votes(files, form, seed=1)
    assert found.refused == []
    assert found.preference is not None
    assert result["preference"]["tuned"] == found.preference.tuned


def test_a_changed_vote_counts_once_and_a_vote_on_nothing_is_refused(
    client: TestClient, project: Project, judged: str
) -> None:
    item = client.get(f"/api/judge/{judged}", params={"rater": "Ada"}).json()["items"][0]["id"]
    for choice in ("left", "right", "tie"):
        vote = {"rater": "Ada", "preference": {"id": item, "choice": choice}}
        client.post(f"/api/judge/{judged}/vote", json=vote)
    again = client.get(f"/api/judge/{judged}", params={"rater": "Ada"}).json()
    assert [(one["id"], one["choice"]) for one in again["preferences"]] == [(item, "tie")]
    refused = client.post(
        f"/api/judge/{judged}/vote", json={"rater": "Ada", "preference": {"id": "none", "choice": "tie"}}
    )
    assert refused.status_code == 422
    assert client.get(f"/api/judge/{judged}", params={"rater": " "}).status_code == 422
    (path,) = (project.results / judged / "votes").glob("*.json")
    assert len(read_json(path)["preferences"]) == 1


def openai(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {
        "request": {
            "model": "jessy",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
        },
        "response": {"choices": [{"message": {"role": "assistant", "content": answer}}]},
        **more,
    }


LOGGED = [
    openai("one?", "1", feedback="thumbs_up"),
    openai("two?", "22", thumb="down"),
    openai("three?", "33", correction="3"),
    openai("four?", "4"),
    {"prompt": "five?", "completion": "55", "rating": -1},
    {
        "messages": [{"role": "user", "content": "six?"}, {"role": "assistant", "content": "6"}],
        "feedback": {"score": 1},
    },
    {"messages": [{"role": "user", "content": "seven?"}], "response": HOSTILE, "thumb": "👎"},
]


def test_answers_of_a_clients_log_come_with_their_marks() -> None:
    lines = [json.dumps(one).encode() for one in LOGGED] + [b"not json", b"[1]", b'{"prompt": "no answer"}', b""]
    found = read_log(b"\n".join(lines), "jessy")
    marks = [(row.messages[-1]["content"], row.answer, row.mark) for row in found.rows]
    assert marks == [
        ("one?", "1", "good"),
        ("two?", "22", "bad"),
        ("three?", "33", "corrected"),
        ("five?", "55", "bad"),
        ("six?", "6", "good"),
        ("seven?", HOSTILE, "bad"),
    ]
    assert found.rows[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert found.rows[0].variant == "jessy"
    assert (found.unmarked, found.unusable_count) == (1, 3)
    assert [one.line for one in found.unusable] == [8, 9, 10]


def test_a_log_is_taken_in_once_and_its_answers_can_be_corrected(client: TestClient) -> None:
    content = "\n".join(json.dumps(one) for one in LOGGED)
    assert client.post("/api/logs/jessy-v1", content=content).json()["added"] == 6
    again = client.post("/api/logs/jessy-v1", content=content).json()
    assert (again["added"], again["known"]) == (0, 6)
    waiting = client.get("/api/feedback/jessy-v1", params={"origin": "log"}).json()["rows"]
    assert [row["mark"] for row in waiting[:3]] == ["bad", "bad", "bad"]
    said = {"origin": "log", "id": waiting[0]["row"], "mark": "corrected", "response": "2"}
    assert client.post("/api/feedback/jessy-v1", json=said).json()["use"] == "training"
    assert client.get("/api/improve/jessy-v1").json()["uses"] == {"training": 4, "marked": 2}


def test_a_logged_test_question_is_a_better_reference(client: TestClient) -> None:
    question = record(5)["messages"][0]["content"]
    content = json.dumps(openai(question, "wrong", correction="RIGHT"))
    assert client.post("/api/logs/jessy-v1", content=content).json()["added"] == 1
    assert client.get("/api/improve/jessy-v1").json()["uses"] == {"reference": 1}


@given(st.binary(max_size=200))
def test_whatever_a_log_holds_it_is_read_or_named(content: bytes) -> None:
    found = read_log(content, "jessy")
    lines = [line for line in content.splitlines() if line.strip()]
    assert len(found.rows) + found.unmarked + found.unusable_count == len(lines)


def test_failures_are_grouped_with_the_worst_first(client: TestClient) -> None:
    found = client.get("/api/improve/jessy-v1").json()
    assert (found["total"], found["right"]) == (40, 20)
    assert [(group["category"], group["rows"]) for group in found["groups"]] == [("odd", 20)]
    lost = [group["lost"] for group in found["groups"]]
    assert lost == sorted(lost, reverse=True)
    rows = client.get("/api/improve/jessy-v1/rows", params={"kind": found["groups"][0]["kind"]}).json()
    assert rows["total"] == 20
    scores = [row["failure"]["score"] for row in rows["rows"]]
    assert scores == sorted(scores)
    near = client.get("/api/improve/jessy-v1/nearest", params={"id": "row-004"}).json()["rows"]
    assert len(near) == 3
    assert near[0]["similarity"] >= near[1]["similarity"] >= near[2]["similarity"]
