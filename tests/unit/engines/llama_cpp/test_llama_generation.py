"""A GGUF's answers are llama.cpp's own, whatever was asked before."""

import pytest
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest, LoadOptions
from snaketune.engines.llama_cpp import generation, gguf_model
from snaketune.tokens.chat_template import Renderer
from tiny_models import manifest_of

GREEDY = Sampling()
PROMPTS = ("Once upon a time", "Once upon a time there was a", "Tom and Lily", "The dog", "Tom and Lily")


@pytest.fixture(scope="module")
def prompts(stories):
    renderer = Renderer(stories)
    return [renderer.encode_prompt(text) for text in PROMPTS]


@pytest.fixture(scope="module")
def llama(stories_gguf):
    return gguf_model.open_gguf(stories_gguf, LoadOptions(context_length=512))


def said(llama, prompts, sampling=GREEDY, stop_ids=frozenset({1}), seeds=None, limit=20):
    seeds = seeds or range(len(prompts))
    requests = [GenerationRequest(prompt, limit, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    return {number: (new, stopped) for number, new, stopped in generation.generate(llama, requests, stop_ids, sampling)}


def test_greedy_completions_equal_llama_cpps_own(prompts, llama, stories_gguf):
    from llama_cpp import Llama

    plain = Llama(str(stories_gguf), n_ctx=512, verbose=False, n_threads=1)
    found = said(llama, prompts)
    for number, prompt in enumerate(prompts):
        expected = []
        for token in plain.generate(prompt, temp=0.0, repeat_penalty=1.0):
            if token == 1 or len(expected) == 20:
                break
            expected.append(token)
        assert found[number][0] == expected


def test_completions_end_at_any_stop_token_or_at_the_limit(prompts, llama):
    free = said(llama, prompts[:1], stop_ids=set())[0]
    assert len(free[0]) == 20
    assert not free[1]
    stopped = said(llama, prompts[:1], stop_ids={free[0][7]})[0]
    assert stopped[1]
    assert stopped[0] == free[0][: free[0].index(free[0][7])]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.2)])
def test_streamed_tokens_are_those_of_the_completion(prompts, llama, sampling):
    whole = said(llama, prompts[:2], sampling)
    for number, prompt in enumerate(prompts[:2]):
        request = GenerationRequest(prompt, 20, number)
        assert list(generation.stream(llama, request, frozenset({1}), sampling)) == whole[number][0]


def test_completions_do_not_depend_on_the_order_of_prompts(prompts, llama):
    found = said(llama, prompts)
    assert found[2] == found[4]
    assert said(llama, prompts[::-1])[0] == found[4]


def test_sampled_completion_depends_on_its_seed_alone(prompts, llama):
    sampling = Sampling(temperature=1.0, top_p=0.95, top_k=50)
    found = said(llama, prompts, sampling, seeds=[7, 8, 9, 10, 9])
    assert found[2] == found[4]
    assert said(llama, prompts[3:4], sampling, seeds=[10])[0] == found[3]
    assert said(llama, prompts, sampling, seeds=[1, 2, 3, 4, 5]) != found


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "qwen3", "phi3"])
def test_batched_generation_with_a_shared_prefix_equals_single_prompts(family, tmp_path):
    import families
    import numpy as np
    from snaketune.package import gguf_conversion

    folder = families.build(tmp_path / "m", family, dtype="float32")
    gguf_conversion.convert(folder, tmp_path / "m.gguf", name="m", outtype="f32", threads=1)
    llama = gguf_model.open_gguf(tmp_path / "m.gguf", LoadOptions(context_length=256))
    rng = np.random.default_rng(1)
    beginning = rng.integers(10, 300, 90).tolist()  # gemma3's window is 64 here
    prompts = [beginning + rng.integers(10, 300, n).tolist() for n in (3, 30, 1, 12, 60, 7, 7, 19, 44, 2, 5)]
    together = said(llama, prompts, stop_ids=set(), limit=10)
    assert together == {i: said(llama, [prompt], stop_ids=set(), limit=10)[0] for i, prompt in enumerate(prompts)}


@pytest.mark.slow
def test_gguf_lora_over_a_gguf_changes_its_completions(tmp_path):
    import families
    from snaketune.files import write_json
    from snaketune.package import gguf_conversion

    folder = families.build(tmp_path / "m", "llama-bpe", dtype="float32")
    gguf_conversion.convert(folder, tmp_path / "m.gguf", name="m", outtype="f32", threads=1)
    adapter = families.adapt(folder, tmp_path / "a", rows=families.conversations(6), updates=10)
    write_json(tmp_path / "m.json", manifest_of(folder))
    lora = tmp_path / "lora.gguf"
    gguf_conversion.export_adapter(
        model=tmp_path / "m.json", adapter=adapter / "adapters.safetensors", peft=tmp_path / "peft", lora=lora
    )
    asked = [Renderer(folder).prompt_ids(row["messages"][:1]) for row in families.conversations(4)]
    plain, adapted = (
        said(
            gguf_model.open_gguf(tmp_path / "m.gguf", LoadOptions(context_length=256, adapter=over)),
            asked,
            stop_ids=set(),
        )
        for over in (None, lora)
    )
    assert plain != adapted
