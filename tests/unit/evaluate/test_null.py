"""The tests of a comparison keep their level on the answers of a real model, and on published systems."""

import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import sacrebleu
from snaketune.contracts.evaluate import Prediction
from snaketune.evaluate import compare, significance
from snaketune.evaluate.metrics import METRICS
from tools import MISSING, STORIES, STORIES_MODEL

OPENINGS = (
    "Once upon a time there was a {}. The {}",
    "One day a little {} went to the park. It",
    "Tom had a big {}. He liked to",
    "The {} was very sad because",
)
NOUNS = ("dog", "cat", "bird", "ball", "girl", "boy", "tree", "fish", "bear", "car")


def prediction(answer, reference, name=""):
    return Prediction(id=name, prompt="", answer=answer, reference=reference, stopped=True)


@pytest.mark.slow
@STORIES_MODEL.needed
def test_two_answer_sets_of_one_model_are_called_different_in_at_most_7_percent_of_500_trials(monkeypatch):
    """Not in any measure after correction, and not by a single measure without."""
    monkeypatch.setattr(compare, "PERMUTATIONS", 999)
    monkeypatch.setattr(compare, "RESAMPLES", 100)
    pools = answers_of_one_model(draws=30)
    rng = np.random.default_rng(7)
    any_measure, chrf = 0, 0
    for trial in range(500):
        ours, theirs = [], []
        for name, pool in pools.items():
            one, other, reference = rng.choice(len(pool), 3, replace=False)
            ours.append(prediction(pool[one], pool[reference], name))
            theirs.append(prediction(pool[other], pool[reference], name))
        (found,) = compare.compare_pairs([compare.PairedPredictions("a", "b", ours, theirs)], METRICS, trial)
        any_measure += any(entry.outcome != "no difference shown" for entry in found.metrics.values())
        chrf += found.metrics["chrf"].p < compare.ALPHA
    print(f"called different: in any measure {any_measure} of 500, by chrF++ uncorrected {chrf} of 500")
    assert any_measure <= 35
    assert chrf <= 35


def answers_of_one_model(draws):
    """Openings of stories, and so many sampled continuations of each."""
    from snaketune.engines import load_model
    from snaketune.engines.decoding import Sampling
    from snaketune.engines.interface import GenerationRequest
    from snaketune.tokens.chat_template import Renderer

    renderer = Renderer(STORIES)
    model = load_model(STORIES)
    asked = [opening.format(noun, noun) for opening in OPENINGS for noun in NOUNS]
    prompts = [renderer.encode_prompt(text) for text in asked for _ in range(draws)]
    requests = [GenerationRequest(prompt, 24, seed) for seed, prompt in enumerate(prompts)]
    found = model.generate(requests, stop_ids={1}, sampling=Sampling(temperature=1.0))
    said = {number: renderer.decode(new) for number, new, _ in found}
    return {text: [said[i * draws + k] for k in range(draws)] for i, text in enumerate(asked)}


class OnlyText(pickle.Unpickler):
    """Reads lists, tuples and text, and nothing that could run."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name}")


@pytest.fixture(scope="module")
def wmt17(tmp_path_factory):
    """WMT 2017's English to German systems and their reference, as sacrebleu's own tests have them."""
    import bz2

    folder = tmp_path_factory.mktemp("sacrebleu")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "sacrebleu==2.6.0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"{MISSING}sacrebleu's example systems (connect to a package index: pip downloads them)")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        packed = archive.extractfile("sacrebleu-2.6.0/test/wmt17_en_de_systems.pkl.bz2")
        assert packed is not None
        systems = OnlyText(bz2.BZ2File(packed)).load()
    *named, (_, references) = systems
    return named, references[0]


@pytest.mark.slow
def test_published_systems_score_as_sacrebleu_scores_them(wmt17):
    named, reference = wmt17
    for name, answers in named[:3]:
        lines = [prediction(a, r) for a, r in zip(answers, reference, strict=True)]
        theirs = {
            "bleu": sacrebleu.corpus_bleu(answers, [reference]).score,
            "chrf": sacrebleu.corpus_chrf(answers, [reference], word_order=2).score,
        }
        if name == named[0][0]:
            theirs["ter"] = sacrebleu.corpus_ter(answers, [reference]).score
        for measure, expected in theirs.items():
            metric = METRICS[measure]
            assert float(metric.aggregate(metric.row_statistics(lines).sum(axis=0))) == pytest.approx(
                expected, abs=1e-9
            ), name


@pytest.mark.slow
def test_p_values_of_published_systems_are_those_of_sacrebleus_paired_test(wmt17):
    from sacrebleu.significance import PairedTest

    named, reference = wmt17
    some = [named[0], *named[2:9]]
    _, scores = PairedTest(some, {"BLEU": sacrebleu.BLEU()}, [reference], test_type="ar", n_samples=10_000)()
    expected = {name: result.p_value for name, result in zip(scores["System"], scores["BLEU"], strict=True)}
    metric = METRICS["bleu"]
    stats = [metric.row_statistics([prediction(a, r) for a, r in zip(s, reference, strict=True)]) for _, s in some]
    for (name, _), ours in zip(some[1:], stats[1:], strict=True):
        p = significance.randomization_p(ours, stats[0], metric.aggregate, 10_000, 1)
        assert p == pytest.approx(expected[name], abs=0.015), name
