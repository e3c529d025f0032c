"""What a run writes, and what this machine has."""

from __future__ import annotations

import msgspec
import pytest
from snaketune.config.sections import TrainConfig, section
from snaketune.errors import ResourceError
from snaketune.plan import architecture, resources
from snaketune.runtime import machine

MODEL = architecture.read(
    {
        "hidden_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "vocab_size": 32000,
        "intermediate_size": 4096,
    }
)
TRAIN = section(TrainConfig)


def test_stages_add_up_and_a_base_that_is_here_takes_nothing():
    there, absent = (
        resources.forecast_disk([(MODEL, TRAIN, gone)], ["q8_0", "q4_k_m"], MODEL) for gone in (False, True)
    )
    assert there.base == 0
    assert absent.base == MODEL.parameters * 2
    assert 2 * absent.total == sum(msgspec.structs.astuple(absent))


def test_every_gguf_type_that_is_asked_for_is_counted_and_f16_once():
    one, two = (
        resources.forecast_disk([(MODEL, TRAIN, False)], types, MODEL).gguf for types in (["q8_0"], ["q8_0", "q4_k_m"])
    )
    assert one == pytest.approx(MODEL.parameters * 8.5 / 8, rel=1e-6)
    assert two > one
    assert resources.forecast_disk([(MODEL, TRAIN, False)], ["f16"], MODEL).gguf == 0


def test_of_the_types_with_an_importance_matrix_the_largest_lies_there_twice_for_a_while():
    kinds = ["q8_0", "q2_k", "q3_k_m"]
    once, twice = (
        resources.forecast_disk([(MODEL, TRAIN, False)], kinds, MODEL, made_twice=types).gguf
        for types in ([], ["q2_k", "q3_k_m"])
    )
    assert twice - once == resources.gguf_bytes(MODEL, "q3_k_m")


def test_a_full_disk_is_told_before_anything_is_written():
    stages = resources.forecast_disk([(MODEL, TRAIN, True)], ["q8_0"], MODEL)
    resources.check_disk(stages, 2 * stages.total, "results/a")
    with pytest.raises(ResourceError, match=r"results/a: this run needs .* GB of disk, and 0\.1 GB are free"):
        resources.check_disk(stages, 10**8, "results/a")


@pytest.mark.parametrize(
    ("device", "usable", "because"),
    [
        ({"device": "metal", "name": "Apple M2", "memory": 16 << 30, "working_set": 11 << 30}, 11 << 30, "working set"),
        ({"device": "cuda", "name": "H200", "memory": 100_000}, 90_000, "GPU"),
        ({"device": "cpu", "name": None}, None, "RAM"),
    ],
)
def test_what_may_be_used_is_what_the_device_offers(device, usable, because):
    found = machine.this_machine(machine.DeviceInfo(**device))
    assert because in found.memory_source
    assert 0 < found.usable_memory <= found.memory
    assert usable is None or found.usable_memory == usable


def test_free_disk_is_that_of_a_folder_not_yet_made(tmp_path):
    assert machine.free_disk(tmp_path / "not" / "yet") > 0
