"""Measures equal the libraries they come from, on sums of any rows."""

import itertools
import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from snaketune.config.sections import CustomMetricConfig
from snaketune.contracts.evaluate import Prediction
from snaketune.evaluate.metric import common_subsequence, f1, repetition, words
from snaketune.evaluate.metrics import METRICS
from snaketune.evaluate.run_metrics import MetricSettings, enabled_metrics

texts = st.text(alphabet="ab cd.,é ", max_size=25)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)


def lines(said):
    return [
        Prediction(
            id=str(i),
            prompt="",
            answer=answer,
            reference=reference,
            stopped=True,
            logprob=-1.0,
            num_target_tokens=2,
            bytes=4,
        )
        for i, (answer, reference) in enumerate(said)
    ]


def value(name, said):
    metric = METRICS[name]
    return float(metric.aggregate(metric.row_statistics(lines(said)).sum(axis=0)))


@settings(max_examples=150, deadline=None)
@given(pairs)
def test_bleu_chrf_and_ter_equal_sacrebleus_own(said):
    answers, references = [a for a, _ in said], [[r for _, r in said]]
    assert value("bleu", said) == pytest.approx(sacrebleu.corpus_bleu(answers, references).score, abs=1e-9)
    assert value("chrf", said) == pytest.approx(
        sacrebleu.corpus_chrf(answers, references, word_order=2).score, abs=1e-9
    )
    assert value("ter", said) == pytest.approx(sacrebleu.corpus_ter(answers, references).score, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_plain_chrf_equals_sacrebleus_too(said):
    plain = sacrebleu.CHRF()
    stats = np.array(plain._extract_corpus_statistics([a for a, _ in said], [[r for _, r in said]]), float)
    expected = sacrebleu.corpus_chrf([a for a, _ in said], [[r for _, r in said]]).score
    assert float(METRICS["chrf"].aggregate(stats.sum(axis=0))) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_a_corpus_scored_from_many_sums_at_once_equals_each_scored_alone(said):
    for metric in METRICS.values():
        stats = metric.row_statistics(lines(said))
        sums = np.cumsum(stats, axis=0)
        together = metric.aggregate(sums)
        alone = [float(metric.aggregate(one)) for one in sums]
        assert together.tolist() == pytest.approx(alone)


def test_perplexity_is_the_exponential_of_the_mean_surprise_of_all_targets():
    rows = [
        Prediction(id=str(i), prompt="", logprob=logprob, num_target_tokens=targets, bytes=8)
        for i, (logprob, targets) in enumerate([(-3.0, 2), (-5.0, 6)])
    ]
    metric = METRICS["perplexity"]
    assert float(metric.aggregate(metric.row_statistics(rows).sum(axis=0))) == pytest.approx(math.exp(8 / 8))
    metric = METRICS["bits_per_byte"]
    assert float(metric.aggregate(metric.row_statistics(rows).sum(axis=0))) == pytest.approx(8 / math.log(2) / 16)


def test_an_absurdly_bad_model_has_a_finite_perplexity():
    assert math.isfinite(float(METRICS["perplexity"].aggregate(np.array([1e9, 1.0]))))


def test_a_perfect_answer_scores_the_best_of_every_measure():
    same = [("Ein kurzer Satz, nicht mehr.", "Ein kurzer Satz, nicht mehr."), ("Zwei.", "Zwei.")]
    best = {"bleu": 100, "chrf": 100, "ter": 0, "exact_match": 1, "token_f1": 1, "rouge_l": 1, "repetition": 0}
    for name, expected in best.items():
        assert value(name, same) == pytest.approx(expected)


def test_case_and_punctuation_count_in_raw_match_only():
    said = [("the cat", "The cat!")]
    assert value("exact_match", said) == 0
    assert value("exact_match_normalized", said) == 1


def test_characters_of_scripts_without_spaces_are_words():
    assert words("我们走吧。") == ["我", "们", "走", "吧"]
    assert words("Don't panic, Ünïcode!") == ["don", "t", "panic", "ünïcode"]
    assert f1(words("我们走"), words("我们走吧")) == pytest.approx(2 * 3 / 7)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_the_longest_common_subsequence_equals_that_of_the_textbook(one, other):
    table = {(-1, j): 0 for j in range(-1, 13)} | {(i, -1): 0 for i in range(-1, 13)}
    for (i, a), (j, b) in itertools.product(enumerate(one), enumerate(other)):
        table[i, j] = table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
    assert common_subsequence(one, other) == table[len(one) - 1, len(other) - 1]


def test_going_in_circles_counts_as_repetition():
    assert repetition("a b c d a b c d a b c d".split()) == pytest.approx(1 - 4 / 9)
    assert repetition("a b c".split()) == 0


def test_every_configuration_names_how_its_scores_were_made():
    found = enabled_metrics(MetricSettings(bleu_tokenizer="char"))
    assert "tok:char" in found["bleu"].signature
    assert "version:" in found["ter"].signature
    assert "nw:2" in found["chrf"].signature


def test_a_measure_of_ones_own_is_read_from_the_lines():
    custom = {"right": CustomMetricConfig(function="m:f", better="lower")}
    metric = enabled_metrics(MetricSettings(metrics=custom))["right"]
    rows = [Prediction(id=str(value), prompt="", custom_values={"right": value}) for value in (1.0, 0.5)]
    assert metric.better == "lower"
    assert float(metric.aggregate(metric.row_statistics(rows).sum(axis=0))) == 0.75
