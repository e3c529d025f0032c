"""The speed of this machine is measured on any weights that a run could write."""

from types import SimpleNamespace

import numpy as np
import pytest
from snaketune.engines.interface import MergedTensor
from snaketune.engines.llama_cpp import speed
from snaketune.pilot import dry_run


def test_weights_beyond_float16_are_measured_like_others(tmp_path, monkeypatch):
    weights = np.full((8, 8), 70_000, np.float32)  # float16 ends at 65,504, and the run may write bfloat16
    exporter = SimpleNamespace(merge=lambda *_: {"weight": MergedTensor((8, 8), lambda: weights)})
    monkeypatch.setattr(dry_run, "get_exporter", lambda: exporter)
    assert dry_run.merged_per_second("base", "adapter", tmp_path) > 0


@pytest.mark.parametrize(("weights", "kinds"), [(1e6, []), (8e9, ["f16", "q4_k_m", "q8_0"])])
def test_llama_cpp_is_timed_for_a_large_model_alone_with_each_type_that_needs_no_matrix(
    weights, kinds, tmp_path, monkeypatch
):
    monkeypatch.setattr(speed, "seconds_per_weight", lambda kinds, *_: dict.fromkeys(kinds))
    experiments = {"small": SimpleNamespace(parameters=10), "main": SimpleNamespace(parameters=weights)}
    files = dry_run.FilesToMake(["q8_0", "iq2_s", "q4_k_m"], "auto")
    found = dry_run.gguf_speeds(SimpleNamespace(experiments=experiments), files, tmp_path, 1)
    assert list(found) == kinds
