"""The page and its findings, for complete, partial and hostile runs."""

from __future__ import annotations

import csv
import html as html_text
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from project_copy import Project
from run_copies import HOSTILE, RunCopies, edit, repeat_experiment, rescore, write_report
from snaketune import files
from snaketune.contracts.package import OllamaCheck, ServedPrompts, ServerPrompts
from snaketune.contracts.report import RunReport
from snaketune.report import collect, formatting, outcome, page

# the report knows what is in them from elsewhere
UNREAD = ("test.jsonl", "train.jsonl", "valid.jsonl", "records.jsonl", "general.jsonl", "adapter_config.json")


@pytest.fixture(scope="module")
def complete(run_copies: RunCopies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_copies.make(tmp_path_factory.mktemp("results") / "jessy-v1")


@pytest.fixture
def run(complete: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(complete, tmp_path / "jessy-v1"))


def render(run: Path) -> str:
    """The page as a reader sees its text."""
    html = page.render(collect.collect(run), collect.measurements(run))
    return html_text.unescape(html).replace("\u00a0", " ")


def test_page_of_the_finished_run_draws_the_lengths_that_its_data_report_counts(finished: Project) -> None:
    folder = finished.folder / "results/tiny"
    counted = files.read_json(folder / "data/report.json")["lengths"]["histogram"]
    assert sum(each["rows"] for each in counted) == files.read_json(folder / "data/report.json")["kept"]
    html = (folder / "report/index.html").read_text(encoding="utf-8")
    picture = re.search(r'<svg[^>]*aria-label="How many rows have which length.*?</svg>', html, re.DOTALL)
    assert picture is not None
    assert all(f">{each['from']}+<" in picture.group() for each in counted)


def test_report_json_of_the_finished_run_is_read_back_as_its_record(finished: Project) -> None:
    report = files.read_json(finished.folder / "results/tiny/report/report.json", RunReport)
    assert report.missing == []
    assert report.damaged == []
    assert report.run == "tiny"
    assert {variant.name for variant in report.evaluation.variants} >= {"base", "adapter", "gguf-q8_0"}
    assert report.model.lora == "results/tiny/model/tiny-lora.gguf"
    assert report.model.lora not in [file.file for file in report.model.files]


def test_outside_yardsticks_have_a_row_for_each_metric_with_errors_where_they_are_known(run: Path) -> None:
    of_rows = {"task": "snaketune_it", "metric": "exact_match", "base": 0.125, "base_stderr": 0.0625, "fused": 0.625}
    of_rows |= {"fused_stderr": 0.03125, "documents": 16, "difference": 0.5, "difference_stderr": 0.25, "p": 0.0455}
    of_corpus = {"task": "snaketune_it", "metric": "chrf", "base": 2.25, "base_stderr": None, "fused": 12.2}
    of_corpus |= {"fused_stderr": None, "documents": 0, "difference": 9.95, "difference_stderr": None, "p": None}
    own = {"named": False, "higher_is_better": True, "p_corrected": None}
    of_texts = {"task": "wikitext", "metric": "word_perplexity", "base": 30.5, "base_stderr": None, "fused": 31.5}
    of_texts |= {"fused_stderr": None, "documents": 62, "difference": 1.0, "difference_stderr": None, "p": 0.046}
    of_texts |= {"named": True, "higher_is_better": False, "p_corrected": 0.091}
    found = {"version": "0.4.13", "message": "lm-eval 0.4.13 on snaketune_it, wikitext"}
    files.write_json(
        run / "lm_eval" / "results.json", found | {"comparisons": [of_rows | own, of_corpus | own, of_texts]}
    )
    table = render(run).partition("By lm-evaluation-harness")[2].partition("</table>")[0]
    cells = [re.sub(r"<[^>]+>", " ", row).split() for row in table.split("<tr>")[2:]]
    assert [row[1] for row in cells] == ["exact_match", "chrf", "word_perplexity"]
    assert cells[0].count("±") == 3
    assert {"0.125", "0.625", "0.500", "16"} <= set(cells[0])
    assert "±" not in cells[1]
    assert cells[1][2:] == ["2.25", "12.2", "9.95", "–"]
    assert " ".join(cells[2][2:]) == "30.5 31.5 1 p = 0.046, corrected p = 0.091 62"


def test_what_ollama_answered_and_was_fed_stands_beside_the_other_servers(run: Path) -> None:
    same = ServerPrompts(server="mlx_lm.server", prompts=12, differences=0, problem=None, examples=[])
    other = msgspec.structs.replace(same, server="Ollama", differences=5)
    answers = files.sha256(next(run.glob("evaluation/*/predictions.jsonl")))
    found = OllamaCheck(
        model="snaketune:it", message="9 of 10 answers through Ollama are those", predictions=answers, fed=other
    )
    files.write_json(run / "model/ollama.json", found)
    for servers in ([], [same]):
        files.write_json(run / "model/prompts.json", ServedPrompts(servers=servers))
        html = render(run)
        assert "9 of 10 answers through Ollama are those." in html
        table = html.partition("Does a server feed the model")[2].partition("</table>")[0]
        rows = [re.sub(r"<[^>]+>", " ", row).split() for row in table.split("<tr>")[2:]]
        assert [row[:4] for row in rows][-1] == ["Ollama", "7", "of", "12"]
        assert len(rows) == len(servers) + 1
    files.write_json(run / "model/ollama.json", msgspec.structs.replace(found, predictions="of another model"))
    assert "answers through Ollama" not in render(run)
    files.write_json(run / "model/ollama.json", OllamaCheck(model=None, message="it is not installed here."))
    assert "it is not installed here.</p>" in render(run)


def test_conclusion_is_the_first_heading_and_names_the_deployed_file(run: Path) -> None:
    report = collect.collect(run)
    html = render(run)
    heading = re.search(r"<h1>(.*?)</h1>", html)
    assert heading is not None
    assert heading.group(1) == report.conclusion.sentence
    assert report.conclusion.status == "better"
    assert report.conclusion.file is not None
    assert report.conclusion.file.endswith("jessy-v1-q8_0.gguf")
    assert report.conclusion.file in html


def test_the_same_files_give_the_same_bytes(run: Path) -> None:
    for name in ("one", "two"):
        write_report(run, name)
    for name in ("index.html", "report.json", "human_eval.html", "experiments.csv"):
        assert (run / "one" / name).read_bytes() == (run / "two" / name).read_bytes()


def test_report_json_holds_nothing_that_the_moment_decides(run: Path) -> None:
    write_report(run, "before")
    for path in run.rglob("timing.json"):
        edit(path, lambda timing: timing.update({key: 99.5 for key in timing if isinstance(timing[key], float)}))
    for path in (run / "benchmarks").glob("*.tsv"):
        files.write_text(path, path.read_text(encoding="utf-8").replace("\n0.", "\n77."))
    edit(run / "pilot/decision.json", lambda made: made["forecast"].update(hours=7.5, hours_low=7.0, hours_high=8.0))
    write_report(run, "after")
    assert (run / "before/index.html").read_bytes() != (run / "after/index.html").read_bytes()
    for name in ("report.json", "experiments.csv", "human_eval.html"):
        assert (run / "before" / name).read_bytes() == (run / "after" / name).read_bytes()


def test_page_is_made_whichever_one_file_is_missing_or_damaged(run: Path) -> None:
    shutil.rmtree(run / "report")
    names = sorted(path.relative_to(run) for path in run.rglob("*.json*") if path.name not in UNREAD)
    names = [
        name for name in names if name.parts[0] in ("train", "evaluation", "data", "model") or len(name.parts) == 1
    ]
    read = [name for name in names if name.suffix in (".json", ".jsonl") and _is_read(run, name)]
    assert len(read) > 15
    for name in read:
        content = (run / name).read_bytes()
        (run / name).write_bytes(b'{"half')
        assert render(run)
        (run / name).unlink()
        assert render(run)
        (run / name).write_bytes(content)


def _is_read(run: Path, name: Path) -> bool:
    """Whether damage to the file is noticed."""
    content = (run / name).read_bytes()
    (run / name).write_bytes(b'{"half')
    try:
        return str(name) in collect.collect(run).damaged
    finally:
        (run / name).write_bytes(content)


def decide(run: Path, **changes: object) -> None:
    """Change the pilot's decision of a run."""
    path = run / "pilot/decision.json"
    files.write_json(path, {"overridden": False} | files.read_json(path) | changes)


def test_run_that_stopped_at_its_pilot_says_no_go_and_why(run: Path) -> None:
    for stage in ("train", "model", "evaluation"):
        shutil.rmtree(run / stage)
    decide(run, decision="no-go", reasons=["the loss did not fall"])
    shutil.rmtree(run / "report")
    assert collect.collect(run).conclusion.status == "no-go"
    assert "the loss did not fall" in render(run)
    assert "the loss did not fall" in collect.collect(run).conclusion.sentence


def test_overridden_no_go_is_a_warning(run: Path) -> None:
    decide(run, decision="no-go", reasons=["too slow"], overridden=True)
    assert any("overrode" in warning for warning in collect.collect(run).conclusion.warnings)


def test_report_of_other_settings_says_after_a_no_go_that_it_is_older(run: Path) -> None:
    write_report(run)
    before = (run / "report/index.html").read_text(encoding="utf-8")
    assert "older than the last pilot" not in before
    decide(run, decision="no-go", reasons=["loss fell: it did not"])
    page.pilot(folder=run, page=run / "pilot/index.html", base="tiny-base")
    older = (run / "report/index-older.html").read_text(encoding="utf-8")
    assert "This report is older than the last pilot" in older
    assert older.index("This report is older") < older.index("<h1>")
    assert not (run / "report/index.html").exists()
    assert "report/index-older.html" in (run / "pilot/index.html").read_text(encoding="utf-8")
    write_report(run)
    assert "older than the last pilot" not in (run / "report/index.html").read_text(encoding="utf-8")


def test_report_stays_where_it_is_after_a_go_and_after_an_overridden_no_go(run: Path) -> None:
    write_report(run)
    for changes in ({"decision": "go"}, {"decision": "no-go", "overridden": True}):
        decide(run, **changes)
        page.pilot(folder=run, page=run / "pilot/index.html", base="tiny-base")
        assert (run / "report/index.html").is_file()
        assert "older" not in (run / "pilot/index.html").read_text(encoding="utf-8")


def test_hostile_text_is_escaped_wherever_it_comes_from(run_copies: RunCopies, tmp_path: Path) -> None:
    run = run_copies.make(tmp_path / "odd", hostile=True)
    html = page.render(collect.collect(run), collect.measurements(run))
    assert html.count("<script") == 1
    assert html.count("</style>") == 1
    assert "<img" not in html
    assert "{{ 7*7 }}" in html
    assert "\x00" not in html
    assert "&lt;script&gt;" in html


def test_lone_surrogate_in_an_answer_does_not_stop_the_report(run: Path) -> None:
    path = run / "evaluation/base/predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["answer"] = "half \ud83d of a pair"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(run)
    assert "half \ufffd of a pair" in (run / "report/index.html").read_text(encoding="utf-8")


def test_only_declared_files_are_read(run: Path) -> None:
    declared = [path for path in run.rglob("*") if path.is_file() and "adapter" not in path.parts]
    variants = collect.collect(run, declared).evaluation.variants
    assert [variant.name for variant in variants] == ["base", "prompted", "gguf-q8_0"]


def test_page_of_many_long_rows_stays_under_four_megabytes(run_copies: RunCopies, tmp_path: Path) -> None:
    run = run_copies.make(tmp_path / "long", rows=450, variants=("base", "gguf-q8_0"), compared=False)
    path = run / "evaluation/gguf-q8_0/predictions.jsonl"
    lines = list(files.read_jsonl(path))
    files.write_jsonl(path, ({**line, "answer": f"<{HOSTILE}" * 30} for line in lines))
    write_report(run)
    assert 2_000_000 < (run / "report/index.html").stat().st_size < 4_000_000


def test_text_rows_have_no_answers_and_are_still_shown(run_copies: RunCopies, tmp_path: Path) -> None:
    run = run_copies.make(tmp_path / "texts", text=True)
    report = collect.collect(run)
    assert report.evaluation.answers.rows[0].change is not None
    assert "nothing is known of how good" in (report.conclusion.quality or "")
    assert "bits per byte" in render(run)


def test_pilot_page_says_go_or_no_go_with_every_criterion(run: Path) -> None:
    page.pilot(folder=run, page=run / "pilot/index.html", base="tiny-base")
    html = html_text.unescape((run / "pilot/index.html").read_text(encoding="utf-8")).replace("\u00a0", " ")
    assert "The pilot says go" in html
    criteria = files.read_json(run / "pilot/decision.json")["criteria"]
    assert len(criteria) > 3
    assert all(criterion["message"] in html for criterion in criteria)
    decide(run, decision="no-go", reasons=["loss fell: it did not"], criteria=[], likely_cause="a low rate")
    page.pilot(folder=run, page=run / "pilot/index.html", base="tiny-base")
    html = (run / "pilot/index.html").read_text(encoding="utf-8")
    assert "The pilot says no: loss fell: it did not" in html


def test_failed_fidelity_check_is_a_warning_and_stands_in_its_section(run: Path) -> None:
    def fail(record: dict[str, Any]) -> None:
        record["passed"] = record["checks"][1]["passed"] = False
        record["checks"][1]["message"] = "12.0 % of the gain is kept"

    edit(run / "model/fidelity.json", fail)
    conclusion = collect.collect(run).conclusion
    assert any("12.0 % of the gain is kept" in warning for warning in conclusion.warnings)
    assert conclusion.commands == []  # nobody should run it
    assert render(run).count("12.0 % of the gain is kept") == 2


def test_rows_that_were_read_are_those_of_all_files_or_from_the_fewest_to_the_most(run: Path) -> None:
    def read(fewest: int) -> None:
        def change(record: dict[str, Any]) -> None:
            record["rows"] = 12
            for variant in record["variants"].values():
                variant["rows"] = 12
            variant["rows"] = fewest

        edit(run / "model/fidelity.json", change)

    read(12)
    assert "reads the same 12 test rows, and" in render(run)
    read(4)
    assert "reads the same 4 to 12 test rows, as many as decide, and" in render(run)


def test_forecast_and_outcome_stand_side_by_side(run: Path) -> None:
    edit(run / "pilot/decision.json", lambda made: made["forecast"]["seconds"].update(train=30.0))
    edit(run / "train/main/timing.json", lambda timing: timing.update(seconds=28.4))
    for name in ("fuse_adapter", "convert_gguf", "quantize_gguf-q8_0"):
        files.write_text(run / f"benchmarks/{name}.tsv", "s\th:m:s\tmax_rss\n3.5\t0:00:02\t312.5\n")
    rows = {
        row.quantity: row
        for row in page.view_models.page_values(collect.collect(run), collect.measurements(run))["forecast"]
    }
    assert (rows["Training time"].forecast, rows["Training time"].outcome) == (30.0, 28.4)
    assert rows["Training time"].ratio == pytest.approx(28.4 / 30, abs=1e-4)
    assert rows["Packaging"].outcome == 10.5
    assert rows["Answering the test rows"].outcome is not None


def test_thresholds_are_shown_as_met_or_missed(run_copies: RunCopies, tmp_path: Path) -> None:
    thresholds = {"evaluate": {"thresholds": {"perplexity": 3.0, "exact_match": 0.99}}}
    run = run_copies.make(tmp_path / "strict", more=thresholds)
    html = render(run)
    assert '<td class="yes">met</td>' in html
    assert '<td class="no">not met</td>' in html
    assert any("thresholds not met: exact match" in warning for warning in collect.collect(run).conclusion.warnings)


def test_small_loss_of_general_skill_is_a_warning(run: Path) -> None:
    assert any("forgotten some" in warning for warning in collect.collect(run).conclusion.warnings)
    assert "12 general rows" in render(run)


@pytest.mark.parametrize(("gain", "status"), [(0.8, "better"), (0.05, "same")])
def test_conclusion_claims_no_more_than_the_paired_test(
    run_copies: RunCopies, tmp_path: Path, gain: float, status: str
) -> None:
    run = run_copies.make(tmp_path / "honest", gain=gain, rows=30)

    def answers_alone(comparison: dict[str, Any]) -> None:  # the invented likelihoods always rise a little
        for pair in comparison["pairs"]:
            for name in ("perplexity", "bits_per_byte"):
                pair["metrics"].pop(name)

    edit(run / "evaluation/comparison.json", answers_alone)
    conclusion = collect.collect(run).conclusion
    assert conclusion.status == status
    assert "30 test rows" in conclusion.sentence
    assert ("could show" in conclusion.sentence) == (status == "same")


def test_outcome_is_the_conclusion_the_file_and_the_command(run: Path) -> None:
    report = write_report(run)
    lines = outcome.outcome_lines(run)
    assert lines[0] == report.conclusion.sentence
    assert report.conclusion.quality in lines[1]
    assert str(report.conclusion.file) in lines[-3]
    assert "ollama create" in lines[-2]
    assert lines[-1].endswith("report/index.html")


def test_interrupted_run_names_no_file_of_an_earlier_state(run: Path) -> None:
    everything = outcome.stage_lines(run, ["data", "pilot", "package", "evaluate"])
    assert len(everything) == 5
    made = outcome.stage_lines(run, ["data", "pilot", "package", "evaluate"], {"validate_rows", "fuse_adapter"})
    assert [line.rpartition("/")[2] for line in made] == ["report.json", "rejected.jsonl"]


def test_pictures_are_the_same_bytes_and_take_their_colors_from_the_page(run: Path) -> None:
    experiments = collect.collect(run).training.experiments
    svg = formatting.loss_curves(experiments, "a")
    assert svg == formatting.loss_curves(experiments, "a")
    assert not re.search(r"#0102", svg)
    assert "var(--series-0)" in svg
    assert 'aria-label="Loss by step' in svg
    assert not set(re.findall(r'id="([^"]+)"', svg)) & set(
        re.findall(r'id="([^"]+)"', formatting.loss_curves(experiments, "b"))
    )


def test_name_of_an_experiment_is_escaped_in_the_picture(run: Path) -> None:
    (experiment,) = collect.collect(run).training.experiments
    for name in ("<script>alert(1)</script>", "$x^2$"):
        named = [msgspec.structs.replace(experiment, name=each) for each in (name, "other")]
        svg = formatting.loss_curves(named, "a")
        assert "<script>" not in svg
        assert html_text.escape(name, quote=False) in svg


def test_legend_of_long_names_leaves_the_plot_its_width(run: Path) -> None:
    """Four names of a grid in one row once squeezed the plot to a fifth of its width."""
    (experiment,) = collect.collect(run).training.experiments
    names = [f"rank-{rank}_learning_rate-{rate}_dropout-0.05" for rank in (8, 16) for rate in (0.002, 0.0005)]
    widths = []
    for shown in (["a", "b"], names):
        svg = formatting.loss_curves([msgspec.structs.replace(experiment, name=name) for name in shown], "a")
        grid = [float(x) for x in re.findall(r"M ([\d.]+) [\d.]+ *\nL [\d.]+ [\d.]+", svg)]
        lines = re.findall(r"M ([\d.]+) ([\d.]+) *\nL ([\d.]+) ([\d.]+) *\n", svg)
        widths.append(max(float(x2) - float(x1) for x1, y1, x2, y2 in lines if y1 == y2))
        assert grid
        assert all(name in svg for name in shown)
    assert widths[1] > 0.95 * widths[0]


def test_run_that_compare_with_names_is_answered_under_the_conclusion(run_copies: RunCopies, tmp_path: Path) -> None:
    variants = ("base", "previous", "gguf-q8_0")
    run = run_copies.make(tmp_path / "v3", variants=variants, more={"compare_with": "v2"}, gain=0.9)
    found = collect.collect(run).conclusion.vs_previous
    assert found is not None
    assert "v2" in found
    assert found in render(run)


def test_experiments_stand_in_a_table_beside_the_page(run: Path) -> None:
    names = ["zeta", "alpha", "mid"]  # in the order of their ranking, not of the alphabet
    repeat_experiment(run, names)
    write_report(run)
    with open(run / "report/experiments.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["experiment"] for row in rows] == names
    assert [row["chosen"] for row in rows] == ["True", "False", "False"]
    assert [row["settings.rank"] for row in rows] == ["4", "5", "6"]
    assert rows[0]["settings.note"] == "a, b"
    assert float(rows[0]["validation_loss"]) < float(rows[2]["validation_loss"])


def test_predictions_changed_by_hand_are_scored_anew(run: Path) -> None:
    path = run / "evaluation/gguf-q8_0/predictions.jsonl"
    files.write_jsonl(path, [line | {"answer": "no"} for line in files.read_jsonl(path)])
    rescore(run)
    assert collect.collect(run).evaluation.exact == 0
