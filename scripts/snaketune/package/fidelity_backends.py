"""The forms that a model takes on its way, each given the same probes: MLX in memory, MLX block by block, llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snaketune.engines import load_model, load_reference_merge
from snaketune.engines.interface import GenerationRequest, LanguageModel, LoadOptions
from snaketune.engines.sampling import Sampling
from snaketune.files import StrPath
from snaketune.package.fidelity_probes import Reading, Sample, considered, read

GREEDY = Sampling()


@dataclass(frozen=True)
class Asking:
    """What every form is asked, how long its answers may be, and whether a float32 copy of it fits into memory."""

    sample: Sample
    stop_ids: frozenset[int]
    limit: int
    fits: bool = True


def probe_folder(
    folder: StrPath,
    asking: Asking,
    *,
    adapter: StrPath | None = None,
    merged_as: str | None = None,
    generate: bool = True,
    reference: bool = False,
) -> Reading:
    """The probes' results for a model folder, in float32.

    merged_as: a 16-bit format that weights merged by other code are rounded to; generate: its greedy completions too;
    reference: whether the likeliest tokens of its completions are kept, for others to be compared with.
    """
    options = LoadOptions(exact=True, adapter=adapter, layer_by_layer=not asking.fits)
    model: LanguageModel = (
        load_reference_merge(folder, options, merged_as) if merged_as else load_model(folder, options)
    )
    try:
        return probe(model, asking, generate=generate and asking.fits, reference=reference and asking.fits)
    finally:
        model.close()


def probe(model: LanguageModel, asking: Asking, *, generate: bool = True, reference: bool = False) -> Reading:
    """The probes' results for a loaded model."""
    reading = read(model, asking.sample)
    if generate:
        reading.answers = greedy(model, asking.sample.prompts, asking)
    if reference:
        pairs = zip(asking.sample.prompts, reading.answers, strict=True)
        reading.considered = [considered(model, prompt, answer) for prompt, answer in pairs]
    return reading


def greedy(model: LanguageModel, prompts: Sequence[Sequence[int]], asking: Asking) -> list[list[int]]:
    """The new ids of each prompt's greedy completion."""
    requests = [GenerationRequest(prompt, asking.limit) for prompt in prompts]
    found = model.generate(requests, stop_ids=asking.stop_ids, sampling=GREEDY)
    return [completion.ids for completion in sorted(found)]
