"""Number formats of devices; a measurement of memory never ends what it measures."""

from pathlib import Path

import pytest
import torch
from snaketune.engines.torch import device


def test_a_system_that_does_not_let_the_peak_begin_anew_leaves_it_as_it_was(monkeypatch):
    refusing = Path("/proc/self/status")  # is a file, and takes no writing: not from root either
    if not refusing.is_file():
        pytest.skip("no /proc here")
    with pytest.raises(OSError, match="Invalid argument"):
        refusing.write_text("5", encoding="ascii")
    monkeypatch.setattr(device, "CLEAR_REFS", refusing)
    device.forget_peak(torch.device("cpu"))
    assert device.peak_memory(torch.device("cpu")) > 0


@pytest.mark.parametrize(
    ("kind", "stored", "computes_in_bfloat16", "expected"),
    [
        ("cpu", "float16", True, torch.float32),
        ("cuda", "bfloat16", True, "auto"),
        ("cuda", "float32", False, "auto"),
        ("cuda", None, True, "auto"),
        ("cuda", "float16", True, torch.bfloat16),
        ("cuda", "float16", False, torch.float32),
        ("mps", "float16", False, torch.bfloat16),
    ],
)
def test_model_is_loaded_in_its_own_format_unless_that_is_float16_or_the_device_a_cpu(
    monkeypatch, kind, stored, computes_in_bfloat16, expected
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: computes_in_bfloat16)
    assert device.load_dtype("auto", torch.device(kind), stored) == expected
    assert device.load_dtype("float16", torch.device(kind), stored) == torch.float16
    assert device.load_dtype("stored", torch.device(kind), stored) == "auto"
