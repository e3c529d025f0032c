"""The speed of this machine is measured on any weights that a run could write."""

from types import SimpleNamespace

import numpy as np
from snaketune.engines.interface import MergedTensor
from snaketune.pilot import dry_run


def test_weights_beyond_float16_are_measured_like_others(tmp_path, monkeypatch):
    weights = np.full((8, 8), 70_000, np.float32)  # float16 ends at 65,504, and the run may write bfloat16
    exporter = SimpleNamespace(merge=lambda *_: {"weight": MergedTensor((8, 8), lambda: weights)})
    monkeypatch.setattr(dry_run, "get_exporter", lambda: exporter)
    assert dry_run.merged_per_second("base", "adapter", tmp_path) > 0
