"""What is compared with what, and what is said of it."""

import csv
import json

import msgspec
import numpy as np
import pytest
from snaketune.config import sections
from snaketune.contracts.evaluate import Comparison, Prediction
from snaketune.errors import ConfigError, EvaluationError
from snaketune.evaluate import compare, score, step_config, thresholds
from snaketune.evaluate.metrics import METRICS
from snaketune.evaluate.run_metrics import MetricSettings, enabled_metrics
from snaketune.evaluate.significance import NORMAL
from snaketune.files import read_json, write_jsonl

WORDS = "river mountain island question answer hello world paris language model".split()


def lines(rows=40, right=0.0, logprob=-20.0, seed=0, **more):
    """Answers of which a share is right; the rest are other words."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(rows):
        reference = " ".join(WORDS[(i * 3 + k) % 10] for k in range(6))
        answer = reference if rng.random() < right else " ".join(rng.choice(WORDS, 6))
        noise = float(rng.normal(0, 1))
        line = {
            "id": f"r{i}",
            "prompt": f"question {i}?",
            "reference": reference,
            "answer": answer,
            "new_tokens": 6,
            "stopped": True,
        }
        found.append(line | {"logprob": logprob + noise, "num_target_tokens": 7, "bytes": len(reference)} | more)
    return found


def config(**evaluate):
    return sections.load({"run": "x", "evaluate": evaluate})


def run(folder, artefacts, general=None, **evaluate):
    whole = config(**evaluate)
    for name, found in artefacts.items():
        write_jsonl(folder / name / "predictions.jsonl", found)
        score.run(
            predictions=folder / name / "predictions.jsonl",
            scores=folder / name / "scores.json",
            config=step_config.scoring_config(whole),
        )
    for name, found in (general or {}).items():
        write_jsonl(folder / name / "general.jsonl", found)
    compare.run(
        predictions=[folder / name / "predictions.jsonl" for name in artefacts],
        scores=[folder / name / "scores.json" for name in artefacts],
        general=[folder / name / "general.jsonl" for name in general or {}],
        comparison=folder / "comparison.json",
        table=folder / "comparison.csv",
        config=step_config.comparison_config(whole),
    )
    return read_json(folder / "comparison.json", Comparison)


def pair(found, variant, baseline="base"):
    compared = found.pair(variant, baseline)
    assert compared is not None
    return compared


def test_each_is_compared_with_the_base_the_file_with_the_adapter_and_with_what_must_be_beaten():
    names = ["base", "prompted", "adapter", "fused", "gguf-q8_0", "gguf-q4_k_m", "previous"]
    assert compare.comparison_pairs(names) == [
        ("prompted", "base"),
        ("adapter", "base"),
        ("fused", "base"),
        ("gguf-q8_0", "base"),
        ("gguf-q4_k_m", "base"),
        ("previous", "base"),
        ("gguf-q8_0", "adapter"),
        ("gguf-q4_k_m", "adapter"),
        ("gguf-q8_0", "prompted"),
        ("gguf-q8_0", "previous"),
    ]
    assert compare.comparison_pairs(["base"]) == []
    assert compare.comparison_pairs(["adapter"]) == []


def test_a_tuned_model_that_is_better_is_called_better_and_its_equal_file_no_different(tmp_path):
    tuned = lines(right=0.8, logprob=-8, seed=1)
    found = run(tmp_path, {"base": lines(), "adapter": tuned, "gguf-q8_0": tuned})
    better = pair(found, "gguf-q8_0").metrics
    assert all(better[name].outcome == "better" for name in ("perplexity", "exact_match", "bleu", "chrf", "ter"))
    assert all(entry.outcome == "no difference shown" for entry in pair(found, "gguf-q8_0", "adapter").metrics.values())
    assert pair(found, "gguf-q8_0").rows == 40
    assert pair(found, "gguf-q8_0", "adapter").metrics["chrf"].minimum_detectable_effect is None


def test_the_other_way_round_it_is_worse(tmp_path):
    found = run(tmp_path, {"base": lines(right=0.8, logprob=-8, seed=1), "adapter": lines()})
    assert pair(found, "adapter").metrics["ter"].outcome == "worse"
    assert pair(found, "adapter").metrics["ter"].difference > 0


def test_differences_lie_in_their_intervals_and_no_corrected_p_is_below_its_own(tmp_path):
    found = run(
        tmp_path, {"base": lines(seed=3), "adapter": lines(right=0.2, seed=4), "gguf-q4_k_m": lines(right=0.1, seed=5)}
    )
    for compared in found.pairs:
        for entry in compared.metrics.values():
            assert entry.low <= entry.difference <= entry.high
            assert entry.difference == pytest.approx(entry.value - entry.baseline)
            assert entry.p <= entry.p_corrected <= 1
    assert found.num_tests == sum(len(compared.metrics) for compared in found.pairs)


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    artefacts = {"base": lines(), "adapter": lines(right=0.5, seed=2)}
    run(tmp_path / "a", artefacts)
    run(tmp_path / "b", artefacts)
    for name in ("comparison.json", "comparison.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_models_of_other_tokens_are_not_compared_by_perplexity(tmp_path):
    found = run(tmp_path, {"base": lines(), "adapter": lines(seed=1), "previous": lines(seed=2, num_target_tokens=9)})
    assert "perplexity" not in pair(found, "previous").metrics
    assert "bits_per_byte" in pair(found, "previous").metrics


def test_answers_to_other_rows_are_not_compared(tmp_path):
    other = [line | {"reference": "something else"} for line in lines()]
    with pytest.raises(EvaluationError, match="did not answer the same rows"):
        run(tmp_path, {"base": lines(), "adapter": other})


def test_rows_with_one_question_are_one_cluster_in_scores_and_tests(tmp_path):
    """Ten questions of four rows each, which are all right together or all wrong: ten observations, not forty."""

    def shared(found, right):
        clustered = [line | {"cluster": f"r{i // 4}", "prompt": f"question {i // 4}?"} for i, line in enumerate(found)]
        return [line | {"answer": line["reference"]} if i // 4 < right else line for i, line in enumerate(clustered)]

    apart = [{key: value for key, value in line.items() if key != "cluster"} for line in shared(lines(), 6)]
    together = run(tmp_path / "together", {"base": shared(lines(), 0), "adapter": shared(lines(), 6)})
    naive = run(tmp_path / "apart", {"base": lines(), "adapter": apart})
    assert (pair(together, "adapter").rows, pair(together, "adapter").clusters) == (40, 10)
    assert (together.variants["adapter"].rows, together.variants["adapter"].clusters) == (40, 10)
    for name in ("exact_match", "chrf", "token_f1"):
        of_clusters, of_rows = pair(together, "adapter").metrics[name], pair(naive, "adapter").metrics[name]
        assert of_clusters.p > 10 * of_rows.p, name
        assert of_clusters.high - of_clusters.low > 1.5 * (of_rows.high - of_rows.low), name
        of_cluster, of_row = together.variants["adapter"].metrics[name], naive.variants["adapter"].metrics[name]
        assert of_cluster.high - of_cluster.low > 1.4 * (of_row.high - of_row.low), name


def test_no_interval_claims_certainty_where_no_row_varies(tmp_path):
    alike = [line | {"reference": "red green blue white", "answer": "nothing of it"} for line in lines(37)]
    found = run(tmp_path, {"base": alike, "adapter": alike})
    for name, found_score in found.variants["base"].metrics.items():
        assert found_score.low is None or found_score.low < found_score.high, name
    scores = found.variants["base"].metrics
    assert scores["token_f1"].value == 0
    assert (scores["token_f1"].low, scores["token_f1"].high) == pytest.approx((0, 0.0941), abs=1e-4)
    assert scores["repetition"].high == pytest.approx(scores["exact_match"].high)
    assert pair(found, "adapter").metrics["bleu"].high == pytest.approx(9.41, abs=1e-2)
    assert pair(found, "adapter").metrics["bleu"].low == pytest.approx(-9.41, abs=1e-2)
    assert pair(found, "adapter").metrics["perplexity"].low is None


def test_the_table_holds_every_metric_of_every_pair(tmp_path):
    found = run(tmp_path, {"base": lines(), "zeta": lines(right=0.5, seed=2), "adapter": lines(right=0.7, seed=3)})
    with open(tmp_path / "comparison.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert list(rows[0]) == list(compare.COLUMNS)
    assert len(rows) == found.num_tests
    for row in rows:
        entry = pair(found, row["variant"], row["baseline"]).metrics[row["metric"]]
        assert float(row["difference"]) == entry.difference
        assert float(row["p_corrected"]) == entry.p_corrected
        assert row["outcome"] == entry.outcome


def test_turns_of_one_conversation_count_as_one_row(tmp_path):
    many = [line | {"row": f"c{i // 4}"} for i, line in enumerate(lines(right=0.5))]
    found = run(tmp_path, {"base": [line | {"row": f"c{i // 4}"} for i, line in enumerate(lines())], "adapter": many})
    assert pair(found, "adapter").rows == 10
    assert pair(found, "adapter").metrics["exact_match"].test == "paired approximate randomization"


def test_categories_are_scored_apart(tmp_path):
    rows = [line | {"category": "ab"[i % 2]} for i, line in enumerate(lines(right=1.0))]
    for line in rows[::2]:
        line["answer"] = "no"
    found = run(tmp_path, {"base": rows}).variants["base"]
    assert found.categories["a"].metrics["exact_match"].value == 0
    assert found.categories["b"].metrics["exact_match"].value == 1
    assert found.categories["a"].rows == 20


def test_texts_are_scored_by_probability_alone(tmp_path):
    texts = [{k: v for k, v in line.items() if k not in ("answer", "stopped")} for line in lines()]
    found = run(tmp_path, {"base": texts}).variants["base"]
    assert set(found.metrics) == {"perplexity", "bits_per_byte"}


def test_bleu_is_left_out_where_no_reference_has_the_four_words_it_counts(tmp_path):
    short = [line | {"reference": "eono haneli ekahi", "answer": "eono haneli ekahi"} for line in lines()]
    found = run(tmp_path, {"base": short, "adapter": short}, thresholds={"bleu": 30})
    assert "bleu" not in found.variants["base"].metrics | pair(found, "adapter").metrics
    assert found.variants["base"].metrics["chrf"].value == 100
    assert found.thresholds[0].met is None
    short[7]["reference"] = "one two three four"
    assert "bleu" in run(tmp_path, {"base": short}).variants["base"].metrics


def test_a_function_of_ones_own_is_a_measure_like_any_other(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def short(line):\n    return len(line['answer']) < 30\n")
    monkeypatch.chdir(tmp_path)
    own = {"short": {"function": "mine:short", "better": "lower"}}
    brief = [line | {"answer": "brief"} for line in lines()]
    found = run(tmp_path, {"base": lines(), "adapter": brief}, metrics=own, thresholds={"short": 0.5})
    assert found.variants["adapter"].metrics["short"].value == 1
    assert pair(found, "adapter").metrics["short"].outcome == "worse"
    assert found.thresholds[0].met is False


@pytest.mark.parametrize(
    ("code", "function", "said"),
    [
        ("", "mine2:missing", "cannot be imported"),
        ("", "nowhere_at_all:f", "cannot be imported"),
        ("def f(line):\n    return 1 / 0\n", "mine4:f", "failed on row r0"),
        ("def f(line):\n    return float('nan')\n", "mine5:f", "says nan of row r0"),
    ],
)
def test_a_function_that_fails_is_named_with_its_key_and_row(tmp_path, monkeypatch, code, function, said):
    (tmp_path / f"{function.split(':')[0]}.py").write_text(code) if code or "nowhere" not in function else None
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, EvaluationError), match=said) as caught:
        run(tmp_path, {"base": lines()}, metrics={"own": {"function": function}})
    assert caught.value.where == "evaluate.metrics.own"


def test_targets_are_met_or_not_by_the_recommended_file(tmp_path):
    tuned = lines(right=0.8, logprob=-8, seed=1)
    found = run(
        tmp_path, {"base": lines(), "gguf-q8_0": tuned}, thresholds={"perplexity": 4, "bleu": 99.5, "exact_match": 0.5}
    )
    assert [(one.metric, one.variant, one.met) for one in found.thresholds] == [
        ("perplexity", "gguf-q8_0", True),
        ("bleu", "gguf-q8_0", False),
        ("exact_match", "gguf-q8_0", True),
    ]
    with pytest.raises(EvaluationError, match=r"bleu of gguf-q8_0 is .*, the target is 99\.5"):
        thresholds.check(tmp_path / "comparison.json", tmp_path / "passed")
    assert not (tmp_path / "passed").exists()
    run(tmp_path, {"base": lines(), "gguf-q8_0": tuned}, thresholds={"perplexity": 4})
    thresholds.check(tmp_path / "comparison.json", tmp_path / "passed")
    assert (tmp_path / "passed").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"perplexty": 3}, 'did you mean "perplexity"'),
        ({"bleu": 0.6}, "0 to 100"),
        ({"token_f1": 60}, "0 to 1, .* Write 0.6 for 60 %"),
        ({"length_ratio": 1}, "no better direction"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        thresholds.checked_names(given, enabled_metrics(MetricSettings()))


def test_what_was_forgotten_is_measured_on_the_general_set_and_may_be_limited(tmp_path):
    artefacts = {"base": lines(), "adapter": lines(right=0.5, seed=1)}
    general = {"base": lines(logprob=-10, seed=5), "adapter": lines(logprob=-14, seed=6)}
    found = run(tmp_path, artefacts, general, forgetting={"limit": 1.2})
    forgotten = found.forgetting.pairs[0]
    assert forgotten.ratio == pytest.approx(np.exp(4 / 7), rel=0.1)
    assert forgotten.metrics["perplexity"].outcome == "worse"
    assert forgotten.within_limit is False
    with pytest.raises(EvaluationError, match=r"general set is 1\.\d\d times the base's, the limit is 1\.2"):
        thresholds.check(tmp_path / "comparison.json", tmp_path / "passed")


def test_without_a_general_set_nothing_is_said_of_forgetting(tmp_path):
    assert run(tmp_path, {"base": lines()}).forgetting is None


def test_three_lucky_rows_are_no_improvement_however_much_longer_the_other_answers_are(tmp_path):
    long = [line | {"answer": "z " * 40} for line in lines(200)]
    lucky = [line | {"answer": line["reference"] if i < 3 else "z"} for i, line in enumerate(long)]
    entry = pair(run(tmp_path, {"base": long, "adapter": lucky}), "adapter").metrics["chrf"]
    assert entry.p_corrected < 0.05
    assert entry.low <= 0 < entry.difference
    assert entry.outcome == "no difference shown"


def test_too_few_rows_say_so_instead_of_no_difference(tmp_path):
    found = run(tmp_path, {"base": lines(8, seed=1), "adapter": lines(8, right=0.3, seed=2)})
    entry = pair(found, "adapter").metrics["exact_match"]
    assert entry.outcome == "no difference shown"
    assert entry.minimum_detectable_effect > abs(entry.difference)


def test_a_planted_improvement_is_found_as_often_as_the_power_calculation_says(monkeypatch):
    monkeypatch.setattr(compare, "PERMUTATIONS", 400)
    monkeypatch.setattr(compare, "RESAMPLES", 200)
    metric, found, foreseen = METRICS["token_f1"], 0, []
    for trial in range(200):
        base = lines(60, seed=trial)
        rng = np.random.default_rng(1000 + trial)
        tuned = [line | {"answer": line["reference"]} if rng.random() < 0.12 else line for line in base]
        pair = compare.PairedPredictions("a", "b", *(msgspec.convert(x, list[Prediction]) for x in (tuned, base)))
        entry = compare.compare_metric(metric, pair, seed=trial)
        found += entry.p < compare.ALPHA
        true = 0.12 * (1 - entry.baseline)
        error = (entry.minimum_detectable_effect or 1e9) / (NORMAL.inv_cdf(0.975) + NORMAL.inv_cdf(0.8))
        foreseen.append(NORMAL.cdf(true / error - NORMAL.inv_cdf(0.975)))
    assert found / 200 == pytest.approx(np.mean(foreseen), abs=0.08)
    assert 0.5 < found / 200 < 1


def test_a_comparison_is_strict_json(tmp_path):
    run(tmp_path, {"base": lines(logprob=-1e9), "adapter": lines()})
    json.loads((tmp_path / "comparison.json").read_text(), parse_constant=lambda name: pytest.fail(name))
