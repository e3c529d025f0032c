"""Answers made many at a time are the answers made one by one."""

import json

import families
import numpy as np
import pytest
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest
from snaketune.engines.mlx import language_model, loading

GREEDY = Sampling()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    made = {}

    def model(family):
        if family not in made:
            folder = families.build(tmp_path_factory.mktemp("models") / family, family)
            vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
            made[family] = loading.load(folder, dtype="float32").model, vocabulary
        return made[family]

    return model


def requests(prompts, limit=6, first_seed=0):
    return [GenerationRequest(prompt, limit, seed) for seed, prompt in enumerate(prompts, first_seed)]


def said(model, prompts, sampling=GREEDY, stop_ids=frozenset({3}), limit=6):
    found = language_model.generate(model, requests(prompts, limit), stop_ids, sampling)
    return {number: (new, stopped) for number, new, stopped in found}


def prompts_of(vocabulary, shared=0, count=5):
    rng = np.random.default_rng(2)
    beginning = rng.integers(5, vocabulary, shared).tolist()
    return [beginning + rng.integers(5, vocabulary, length).tolist() for length in rng.integers(1, 25, count)]


def alone(model, prompt, limit, stop_ids):
    """Greedy by definition: the whole sequence through the model for every token."""
    import mlx.core as mx

    ids = list(prompt)
    while len(ids) - len(prompt) < limit:
        token = int(mx.argmax(model(mx.array([ids]))[0, -1]).item())
        if token in stop_ids:
            return ids[len(prompt) :], True
        ids.append(token)
    return ids[len(prompt) :], False


@pytest.mark.parametrize("family", ["llama-bpe", "qwen3", "gemma3"])
def test_greedy_completions_do_not_depend_on_batching_or_a_shared_prefix(family, tiny):
    model, vocabulary = tiny(family)
    for shared in (0, 80):  # gemma3's window is 64 here
        prompts = prompts_of(vocabulary, shared)
        stop_ids = {alone(model, prompts[0], 5, set())[0][-1]}
        together = said(model, prompts, stop_ids=stop_ids)
        assert together == {i: alone(model, prompt, 6, stop_ids) for i, prompt in enumerate(prompts)}
        assert together[0][1]


def test_sampled_completion_depends_on_its_own_seed_alone(tiny):
    model, vocabulary = tiny("llama-bpe")
    prompts = prompts_of(vocabulary, count=6)
    sampling = Sampling(temperature=1.0, top_p=0.9, top_k=40)
    together = said(model, prompts, sampling)
    assert together == said(model, prompts, sampling)
    rest = language_model.generate(model, requests(prompts[3:], first_seed=3), {3}, sampling)
    assert {number + 3: (new, stopped) for number, new, stopped in rest} == {i: together[i] for i in (3, 4, 5)}
    again = language_model.generate(model, requests(prompts, first_seed=10), {3}, sampling)
    assert {number: (new, stopped) for number, new, stopped in again} != together


def test_strong_repetition_penalty_lets_no_token_repeat(tiny):
    model, vocabulary = tiny("llama-bpe")
    penalised = Sampling(repetition_penalty=1e6, repetition_context=500)
    for new, _ in said(model, prompts_of(vocabulary, 30), penalised, stop_ids=set()).values():
        assert len(set(new)) == len(new)


def test_each_request_keeps_its_own_max_new_tokens(tiny):
    model, vocabulary = tiny("llama-bpe")
    prompts = prompts_of(vocabulary, count=5)
    asked = [GenerationRequest(prompt, limit) for limit, prompt in enumerate(prompts, 1)]
    found = language_model.generate(model, asked, set(), GREEDY)
    assert {number: (len(new), stopped) for number, new, stopped in found} == {i: (i + 1, False) for i in range(5)}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_ragged_prefill_is_supported_by_every_family_but_gemma2(family, tiny):
    model, _ = tiny(family)
    assert language_model.supports_ragged_prefill(model) == (family != "gemma2")


def test_ragged_prefill_is_refused_where_a_batch_is_masked_wrongly(tiny):
    import mlx.nn as nn

    model, _ = tiny("llama-bpe")

    class FirstRowForAll(nn.Module):
        """Answers every row of a batch as if it were the first one."""

        def __init__(self):
            super().__init__()
            self.inner = model
            self.layers = model.layers

        def __call__(self, ids, cache=None):
            import mlx.core as mx

            found = model(ids, cache=cache)
            return mx.broadcast_to(found[:1], found.shape)

    assert not language_model.supports_ragged_prefill(FirstRowForAll())


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, top_k=20)])
def test_streamed_tokens_are_those_of_the_completion(tiny, sampling):
    model, vocabulary = tiny("llama-bpe")
    prompts = prompts_of(vocabulary, count=3)
    whole = {}
    for number, request in enumerate(requests(prompts)):
        (whole[number],) = language_model.generate(model, [request], frozenset({3}), sampling)
    streams = [language_model.stream(model, request, frozenset({3}), sampling) for request in requests(prompts)]
    found = [[] for _ in streams]
    waiting = dict(enumerate(streams))
    while waiting:  # in turn, as answers side by side are shown
        for number, stream in list(waiting.items()):
            token = next(stream, None)
            if token is None:
                del waiting[number]
            else:
                found[number].append(token)
    assert found == [whole[number].ids for number in range(len(prompts))]


def test_whether_rows_can_be_read_together_is_not_measured_for_a_single_one(tiny, monkeypatch):
    model, vocabulary = tiny("llama-bpe")
    measured = []
    monkeypatch.setattr(language_model, "supports_ragged_prefill", lambda _: not measured.append(1))
    loaded = language_model.MLXModel(model)
    (first, *_), counts = prompts_of(vocabulary), []
    for prompts in ([first], [first, first]):
        found = loaded.generate(requests(prompts), stop_ids={3}, sampling=GREEDY)
        assert all((new, stopped) == alone(model, first, 6, {3}) for _, new, stopped in found)
        counts.append(len(measured))
    assert counts == [0, 1]
