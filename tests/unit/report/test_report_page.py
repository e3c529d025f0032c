"""The page and its facts, for complete, partial and hostile runs."""

from __future__ import annotations

import html as html_text
import json
import re
import shutil
from pathlib import Path

import pytest
from made_run import HOSTILE, make_run
from snaketune import files
from snaketune.report import collect, page, plots

UNREAD = ("test.jsonl", "general.jsonl", "adapter_config.json")  # the report knows what is in them from elsewhere


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("results") / "jessy-v1")


@pytest.fixture
def run(complete: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(complete, tmp_path / "jessy-v1"))


def _written(run: Path, name: str = "report") -> None:
    folder = run / name
    page.run(folder=run, page=folder / "index.html", record=folder / "report.json", form=folder / "human_eval.html")


def test_the_verdict_is_the_pages_first_heading_and_names_the_deployed_file(run: Path) -> None:
    found = collect.collect(run)
    html = page.render(found)
    heading = re.search(r"<h1>(.*?)</h1>", html)
    assert heading is not None
    assert html_text.unescape(heading.group(1)).replace("\u00a0", " ") == found["verdict"]["sentence"]
    assert found["verdict"]["status"] == "better"
    assert found["verdict"]["file"].endswith("jessy-v1-q8_0.gguf")
    assert found["verdict"]["file"] in html


def test_the_same_files_give_the_same_bytes(run: Path) -> None:
    for name in ("one", "two"):
        _written(run, name)
    for name in ("index.html", "report.json", "human_eval.html"):
        assert (run / "one" / name).read_bytes() == (run / "two" / name).read_bytes()


def test_a_page_is_made_whichever_one_file_is_missing_or_damaged(run: Path) -> None:
    names = sorted(path.relative_to(run) for path in run.rglob("*.json*") if path.name not in UNREAD)
    assert len(names) > 15
    for name in names:
        content = (run / name).read_bytes()
        (run / name).write_bytes(b'{"half')
        found = collect.collect(run)
        assert str(name) in found["damaged"]
        (run / name).unlink()
        page.render(collect.collect(run))
        (run / name).write_bytes(content)


def test_a_run_that_stopped_at_its_pilot_says_no_go_and_why(tmp_path: Path) -> None:
    run = make_run(tmp_path / "hopeless")
    for stage in ("train", "model", "evaluation"):
        shutil.rmtree(run / stage)
    files.write_json(run / "pilot/decision.json", {"decision": "no-go", "reasons": ["the loss did not fall"]})
    found = collect.collect(run)
    assert found["verdict"]["status"] == "no-go"
    assert "the loss did not fall" in page.render(found)
    assert "the loss did not fall" in collect.headline(run)


def test_an_overridden_no_go_is_said_beside_the_verdict(run: Path) -> None:
    files.write_json(run / "pilot/decision.json", {"decision": "no-go", "reasons": ["too slow"]})
    assert any("no-go" in caution for caution in collect.collect(run)["verdict"]["cautions"])


def test_hostile_text_is_escaped_wherever_it_comes_from(tmp_path: Path) -> None:
    html = page.render(collect.collect(make_run(tmp_path / "odd", hostile=True)))
    assert html.count("<script") == 1
    assert html.count("</style>") == 1
    assert "<img" not in html
    assert "{{ 7*7 }}" in html
    assert "\x00" not in html
    assert "&lt;script&gt;" in html


def test_a_lone_surrogate_in_an_answer_does_not_stop_the_report(run: Path) -> None:
    path = run / "evaluation/base/predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["answer"] = "half \ud83d of a pair"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _written(run)
    assert "half \ufffd of a pair" in (run / "report/index.html").read_text(encoding="utf-8")


def test_only_declared_files_are_read(run: Path) -> None:
    declared = [path for path in run.rglob("*") if path.is_file() and "adapter" not in path.parts]
    found = collect.collect(run, declared)
    assert [it["name"] for it in found["evaluation"]["artefacts"]] == ["base", "prompted", "gguf-q8_0"]


def test_the_page_of_many_long_rows_stays_under_four_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "long", rows=450, artefacts=("base", "gguf-q8_0"), compared=False)
    path = run / "evaluation/gguf-q8_0/predictions.jsonl"
    lines = list(files.read_jsonl(path))
    files.write_jsonl(path, ({**line, "answer": f"<{HOSTILE}" * 30} for line in lines))
    _written(run)
    assert 2_000_000 < (run / "report/index.html").stat().st_size < 4_000_000


def test_text_rows_have_no_answers_and_are_still_shown(tmp_path: Path) -> None:
    found = collect.collect(make_run(tmp_path / "texts", text_rows=True))
    assert found["evaluation"]["answers"]["rows"][0]["change"] is not None
    assert "bits per byte" in page.render(found)


def test_the_pilots_page_says_go_or_no_go_with_every_criterion(run: Path) -> None:
    found = page.pilot(folder=run, page=run / "pilot/index.html")
    html = (run / "pilot/index.html").read_text(encoding="utf-8")
    assert "The pilot says go" in html
    assert all(html_text.escape(it["says"]) in html for it in found["pilot"]["criteria"])
    no = {
        "decision": "no-go",
        "reasons": ["loss fell: it did not"],
        "criteria": [],
        "likely_cause": "a low learning rate",
    }
    files.write_json(run / "pilot/decision.json", no)
    page.pilot(folder=run, page=run / "pilot/index.html")
    html = (run / "pilot/index.html").read_text(encoding="utf-8")
    assert "The pilot says no: loss fell: it did not" in html


def test_a_failed_fidelity_check_stands_beside_the_verdict_and_in_its_section(run: Path) -> None:
    record = files.read_json(run / "model/fidelity.json")
    record["passed"] = record["checks"][1]["passed"] = False
    record["checks"][1]["message"] = "12.0 % of the gain is kept"
    files.write_json(run / "model/fidelity.json", record)
    found = collect.collect(run)
    assert any("12.0 % of the gain is kept" in caution for caution in found["verdict"]["cautions"])
    assert page.render(found).replace("\u00a0", " ").count("12.0 % of the gain is kept") == 2


def test_forecast_and_outcome_stand_side_by_side(run: Path) -> None:
    rows = {it["what"]: it for it in collect.collect(run)["outcomes"]}
    assert (rows["Training time"]["forecast"], rows["Training time"]["outcome"]) == (30.0, 28.4)
    assert rows["Training time"]["ratio"] == pytest.approx(28.4 / 30, abs=1e-4)
    assert rows["Packaging"]["outcome"] == 7.0
    assert rows["Answering the test rows"]["outcome"] == 21.0


def test_targets_are_shown_as_met_or_missed(tmp_path: Path) -> None:
    targets = {"evaluate": {"thresholds": {"perplexity": 3.0, "exact_match": 0.99}}}
    found = collect.collect(make_run(tmp_path / "strict", more=targets))
    html = page.render(found)
    assert '<td class="yes">met</td>' in html
    assert '<td class="no">not met</td>' in html
    assert any("targets not met: exact match" in caution for caution in found["verdict"]["cautions"])


def test_a_small_loss_of_general_skill_is_said_beside_the_verdict(run: Path) -> None:
    found = collect.collect(run)
    assert any("forgotten some" in caution for caution in found["verdict"]["cautions"])
    assert "12 general rows" in page.render(found)


@pytest.mark.parametrize(("gain", "status"), [(0.8, "better"), (0.05, "same")])
def test_the_verdict_claims_no_more_than_the_paired_test(tmp_path: Path, gain: float, status: str) -> None:
    run = make_run(tmp_path / "honest", gain=gain, rows=30)
    comparison = files.read_json(run / "evaluation/comparison.json")
    for pair in comparison["pairs"]:  # answers alone: the invented likelihoods always rise a little
        for name in ("perplexity", "bits_per_byte"):
            pair["metrics"].pop(name)
    files.write_json(run / "evaluation/comparison.json", comparison)
    found = collect.collect(run)["verdict"]
    assert found["status"] == status
    assert "30 test rows" in found["sentence"]
    assert ("could show" in found["sentence"]) == (status == "same")


def test_worse_in_one_measure_and_better_in_another_is_called_neither(run: Path) -> None:
    path = run / "evaluation/comparison.json"
    comparison = files.read_json(path)
    for pair in comparison["pairs"]:
        pair["metrics"]["perplexity"]["verdict"] = "worse"
    files.write_json(path, comparison)
    found = collect.collect(run)["verdict"]
    assert found["status"] == "mixed"
    assert "better in exact match" in found["sentence"]
    assert "worse in answer perplexity" in found["sentence"]


def test_the_headline_is_the_verdict_the_file_and_the_command(run: Path) -> None:
    _written(run)
    lines = collect.headline(run).splitlines()
    found = collect.collect(run)["verdict"]
    assert lines[0] == found["sentence"]
    assert found["file"] in lines[-3]
    assert "ollama create" in lines[-2]
    assert lines[-1].endswith("report/index.html")


def test_pictures_are_the_same_bytes_and_take_their_colours_from_the_page(run: Path) -> None:
    experiments = collect.collect(run)["training"]["experiments"]
    svg = plots.loss_curves(experiments, "a")
    assert svg == plots.loss_curves(experiments, "a")
    assert not re.search(r"#0102", svg)
    assert "var(--series-0)" in svg
    assert 'aria-label="Loss by update' in svg
    assert not set(re.findall(r'id="([^"]+)"', svg)) & set(
        re.findall(r'id="([^"]+)"', plots.loss_curves(experiments, "b"))
    )


def test_an_experiments_name_is_escaped_in_the_picture(run: Path) -> None:
    experiments = collect.collect(run)["training"]["experiments"]
    for name in ("<script>alert(1)</script>", "$x^2$"):
        svg = plots.loss_curves([{**experiments[0], "name": name}, {**experiments[0], "name": "other"}], "a")
        assert "<script>" not in svg
        assert html_text.escape(name, quote=False) in svg


def test_the_run_that_compare_with_names_is_answered_under_the_verdict(tmp_path: Path) -> None:
    artefacts = ("base", "previous", "gguf-q8_0")
    found = collect.collect(make_run(tmp_path / "v3", artefacts=artefacts, more={"compare_with": "v2"}, gain=0.9))
    assert "v2" in found["verdict"]["since"]
    assert html_text.escape(found["verdict"]["since"]) in page.render(found).replace("\u00a0", " ")
