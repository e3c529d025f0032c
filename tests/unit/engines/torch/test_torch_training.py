"""The torch engine trains what MLX trains, resumes, spreads over processes, and refuses what it cannot do."""

import json
import math
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import tiny_models
import torch
from snaketune.engines.mlx import train as mlx_train
from snaketune.engines.torch import train as torch_train
from snaketune.engines.torch.process_group import TorchProcessGroup, check_workers
from snaketune.errors import ConfigError, ModelError, ResourceError, TrainingError
from snaketune.tokens.token_store import TokenStore
from snaketune.train import trainer
from snaketune.train.batches import MicroBatching, collate
from snaketune.train.metrics_log import TrainingCallback
from snaketune.train.process_group import ProcessGroup
from torch_ranks import TorchRanks
from training_callbacks import StopAt

EXACT = {"dropout": 0.0, "gradient_checkpointing": False}


def trained(tmp_path, name, shape="", **changed):
    """The same training in both engines, as (folder, losses of MLX, losses of torch)."""
    folder = tiny_models.TrainingFolder(tmp_path, shape or "llama")
    mlx_train.train(folder.job(f"{name}-mlx", **changed))
    torch_train.train(folder.job(f"{name}-torch", **changed))
    both = [[line.loss for line in folder.step_metrics(f"{name}-{engine}")] for engine in ("mlx", "torch")]
    return folder, *both


@pytest.mark.parametrize("shape", ["llama", pytest.param("qwen3", marks=pytest.mark.slow), "gemma3"])
def test_first_20_losses_and_the_validation_after_200_steps_are_those_of_mlx(tmp_path, shape, monkeypatch):
    """hidden size 64: mlx-lm rounds the root that gemma's embeddings are multiplied by to bfloat16, 8 is exact."""
    monkeypatch.setitem(tiny_models.CONFIGS, shape, tiny_models.CONFIGS[shape] | {"hidden_size": 64})
    folder, mlx, torch = trained(tmp_path, "long", shape, max_steps=200, eval_steps=200, learning_rate=2e-3, **EXACT)
    np.testing.assert_allclose(torch[:20], mlx[:20], atol=1e-4, rtol=0)
    (_, _), (_, expected) = folder.validations("long-mlx")
    assert folder.validations("long-torch")[-1] == (200, pytest.approx(expected, abs=1e-3))


@pytest.mark.parametrize(
    "changed",
    [{"method": "dora"}, {"method": "full"}, {"rslora": True}, {"packing": True}, {"optimizer": "lion"}],
    ids=lambda one: next(iter(one)),
)
def test_every_method_is_the_same_training_in_both_engines(tmp_path, changed):
    folder, mlx, torch = trained(tmp_path, "one", max_steps=12, **EXACT, **changed)
    np.testing.assert_allclose(torch, mlx, atol=1e-4, rtol=0)
    assert folder.adapter("one-torch").keys() == folder.adapter("one-mlx").keys()


def test_gradient_checkpointing_changes_no_loss(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    for name, checkpointing in (("kept", False), ("again", True)):
        torch_train.train(folder.job(name, max_steps=6, dropout=0.3, gradient_checkpointing=checkpointing))
    assert folder.metrics("kept") == folder.metrics("again")


@pytest.mark.parametrize(
    ("engine", "words"), [(mlx_train, "1. a 4-bit base"), (torch_train, "1. engine: mlx with a 4-bit base")]
)
def test_out_of_memory_error_names_four_bits_that_the_engine_computes_in(tmp_path, engine, words):
    folder = tiny_models.TrainingFolder(tmp_path)
    job = folder.job(max_steps=2, batch_size=1, gradient_checkpointing=True)
    with pytest.raises(ResourceError) as caught:
        engine.train(job, StopAt(1, MemoryError("no memory")))
    assert words in str(caught.value)


class Interrupt(TrainingCallback):
    """Ends a training as a kill would, after a checkpoint."""

    def __init__(self, at):
        self.at = at

    def on_checkpoint(self, step):
        if step >= self.at:
            raise KeyboardInterrupt


BEFORE_VALIDATION, AFTER_VALIDATION, BETWEEN_VALIDATIONS = (math.inf, 0.0, 5), (math.inf, math.inf, 5), (-1.0, 0.0, 7)
"""What the clock of a quick or slow machine decides: after how many seconds a checkpoint is due, before a validation
after how many times the seconds of writing one; and the step of the last checkpoint."""


@pytest.mark.parametrize(
    ("optimizer", "clock"),
    [
        ("adamw", AFTER_VALIDATION),
        ("lion", BETWEEN_VALIDATIONS),
        ("muon", BEFORE_VALIDATION),
        ("muon", AFTER_VALIDATION),
        ("adafactor", BEFORE_VALIDATION),
    ],
)
def test_resumed_training_ends_in_the_same_bytes_whatever_the_clock_says(tmp_path, monkeypatch, optimizer, clock):
    folder = tiny_models.TrainingFolder(tmp_path)
    options = {"max_steps": 12, "eval_steps": 5, "dropout": 0.2, "optimizer": optimizer}
    torch_train.train(folder.job("whole", **options))
    interval, share, at = clock
    monkeypatch.setattr(trainer, "MIN_CHECKPOINT_INTERVAL", interval)
    monkeypatch.setattr(trainer, "MAX_CHECKPOINT_INTERVAL", interval)
    monkeypatch.setattr(trainer, "SHARE_BEFORE_VALIDATION", share)
    with pytest.raises(KeyboardInterrupt):
        torch_train.train(folder.job("halved", **options), Interrupt(at))
    torch_train.train(folder.job("halved", **options))
    for file in ("adapters.safetensors", "metrics.jsonl", "summary.json", "adapter_config.json"):
        assert (tmp_path / "halved" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_training_on_two_processes_equals_that_on_one(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path, train=23)
    options = {"epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 3e-3} | EXACT
    torch_train.train(folder.job("one", **options))
    torch_train.train(folder.job("two", workers=2, **options))
    one, two = folder.adapter("one"), folder.adapter("two")
    assert one.keys() == two.keys()
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, atol=1e-5, rtol=0)


DORA, CHECKPOINTED = {"method": "dora"}, {"gradient_checkpointing": True}
APART = [pytest.param(one, marks=pytest.mark.slow) for one in (DORA, CHECKPOINTED)]  # what fails together, fails apart


@pytest.mark.parametrize("changed", [{}, DORA | CHECKPOINTED, *APART], ids=str)
def test_training_with_spread_weights_equals_that_on_one_process(tmp_path, changed):
    """23 rows over two processes: their numbers of micro-batches differ, in steps and in validations."""
    folder = tiny_models.TrainingFolder(tmp_path, train=23)
    options = {"epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 3e-3} | EXACT | changed
    one = torch_train.train(folder.job("one", **options))
    two = torch_train.train(folder.job("two", workers=2, fsdp=True, **options))
    assert two.best_validation_loss == pytest.approx(one.best_validation_loss, abs=1e-5)
    assert (two.trainable_parameters, two.total_parameters) == (one.trainable_parameters, one.total_parameters)
    alone, spread = folder.adapter("one"), folder.adapter("two")
    assert alone.keys() == spread.keys()
    for name, weights in alone.items():
        np.testing.assert_allclose(spread[name], weights, atol=1e-5, rtol=0)


HELD = """
import sys
from torch.distributed import destroy_process_group
from snaketune.engines.torch import loading, lora, sharding
from snaketune.engines.torch.device import best_device
from snaketune.engines.torch.process_group import TorchProcessGroup
group = TorchProcessGroup(best_device(), timeout=60.0)
model = loading.load(sys.argv[1], dtype="float32", to_device=False)
sharding.shard(model, group, best_device())
blocks = [one for block in lora.blocks(model) for one in block.parameters()]
if group.is_main:
    print(sum(one.to_local().numel() for one in blocks), sum(one.numel() for one in blocks))
destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks() -> Iterator[TorchRanks]:
    made = TorchRanks()
    yield made
    made.close()


def test_a_process_holds_its_part_of_the_spread_weights(tmp_path, ranks):
    base = tiny_models.write_model(tmp_path / "model").with_suffix("")
    program = tmp_path / "held.py"
    program.write_text(HELD)
    main, other = ranks.run(program, str(base))
    assert (main.exit_code, other.exit_code) == (0, 0), main.errors[-2000:] + other.errors[-2000:]
    held, whole = map(int, main.said.split())
    assert held == pytest.approx(whole / 2, rel=0.01)


PREFETCHED = """
import sys
from pathlib import Path
import numpy as np
import tiny_models
from torch.distributed import destroy_process_group
from torch.profiler import ProfilerActivity, profile
from snaketune.engines.torch import lora, train
from snaketune.engines.torch.device import best_device
from snaketune.engines.torch.process_group import TorchProcessGroup
from snaketune.train.batches import Batch
group = TorchProcessGroup(best_device(), timeout=60.0)
folder = tiny_models.TrainingFolder.reopen(Path(sys.argv[1]))
model = train.TorchTrainableModel(folder.job(workers=2, fsdp=True), folder.folder / "model", group)
batch = Batch(np.ones((1, 5), np.int32), np.arange(1, 5, dtype=np.int32), np.ones(4, np.int32), 4)
with profile(activities=[ProfilerActivity.CPU]) as seen:
    model.train_step(1, [batch], 4, 1e-3)
if group.is_main:
    print(len(lora.blocks(model.model)), *(one.name.split()[-1] for one in seen.events() if "_prefetch" in one.name))
destroy_process_group()
"""


def test_a_block_of_spread_weights_is_fetched_while_the_one_after_it_goes_backward(tmp_path, ranks):
    folder = tiny_models.TrainingFolder(tmp_path)
    program = tmp_path / "prefetched.py"
    program.write_text(PREFETCHED)
    main, other = ranks.run(program, str(folder.folder))
    assert (main.exit_code, other.exit_code) == (0, 0), main.errors[-2000:] + other.errors[-2000:]
    num_blocks, *fetched = main.said.split()
    assert fetched == [f"layers.{block}" for block in reversed(range(int(num_blocks) - 1))]


LATE = """
import os, sys, time
from pathlib import Path
import tiny_models
import torch
from snaketune.engines.torch import worker
from snaketune.train.process_group import PeerLostError
folder, done = tiny_models.TrainingFolder.reopen(Path(sys.argv[1])), Path(sys.argv[1], "done")
worker.BACKEND_PATIENCE = 1.0
group = worker.join(folder.job(workers=2, worker_timeout=3.0))
try:
    while not group.is_main and not done.exists():
        time.sleep(0.05)
    if group.is_main:
        group.all_reduce_(torch.zeros(1))
except PeerLostError as error:
    print(error, flush=True)
done.touch()
os._exit(0)
"""


def test_backend_waits_for_a_late_process_as_long_as_the_launcher_and_a_little_longer(tmp_path, ranks):
    folder = tiny_models.TrainingFolder(tmp_path)
    program = tmp_path / "late.py"
    program.write_text(LATE)
    waiting, _ = ranks.run(program, str(folder.folder))
    assert "4000ms" in waiting.said, waiting.said + waiting.errors[-2000:]


class Reduced(Exception):
    """Ends a training at a collective operation on a tensor of a floating-point format."""


class DevicesSeen(TorchProcessGroup):
    """Stands for two processes: raises Reduced with the device of the tensor that it is to reduce."""

    def __init__(self):
        ProcessGroup.__init__(self, rank=0, world_size=2)

    def reduce_numbers(self, _operation, numbers):
        return list(numbers)

    def all_reduce_(self, tensor):
        raise Reduced(tensor.device)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_validation_loss_is_reduced_on_the_device_of_the_model(tmp_path, device):
    """NCCL reduces nothing that is on the CPU. A meta device stands for a card: no value is read before the sum."""
    folder = tiny_models.TrainingFolder(tmp_path)
    model = torch_train.TorchTrainableModel(folder.job(), tmp_path / "model", DevicesSeen())
    model.model.to(device)
    with pytest.raises(Reduced) as reduced:
        model.validation_losses(iter([]))
    assert reduced.value.args == (torch.device(device),)


@pytest.mark.parametrize(("num_workers", "num_cards"), [(2, 1), (9, 8)])
def test_more_workers_than_cards_of_a_machine_are_refused_with_the_number_that_it_has(
    monkeypatch, num_workers, num_cards
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_cards)
    check_workers(num_cards)
    with pytest.raises(ConfigError, match=rf"{num_workers} workers .* fewer cards \({num_cards}\)") as error:
        check_workers(num_workers)
    assert error.value.where == "train.workers"
    assert f"train.workers to {num_cards}" in error.value.fix


def test_several_torch_workers_on_apple_gpus_are_refused_with_the_engine_that_can(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"train\.workers: .* engine: mlx"):
        check_workers(1)


def test_error_in_a_torch_worker_is_the_error_of_the_training(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    with pytest.raises(ConfigError, match="has no linear layer"):
        torch_train.train(folder.job("two", workers=2, target_modules=["nothing"]))


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_sixteen_bits_train_to_nearly_the_loss_of_float32(tmp_path, narrow):
    folder = tiny_models.TrainingFolder(tmp_path)
    options = {"max_steps": 60, "eval_steps": 60} | EXACT
    whole, half = (
        torch_train.train(folder.job(dtype, dtype=dtype, **options)).best_validation_loss
        for dtype in ("float32", narrow)
    )
    assert half == pytest.approx(whole, rel=0.02)
    assert {str(one.dtype) for one in folder.adapter(narrow).values()} == {"float32"}


def test_gradient_in_float16_keeps_a_token_that_is_one_of_a_million(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    batch = collate(TokenStore(folder.folder / "train.safetensors"), np.arange(2), MicroBatching(2, 1000))
    norms = []
    for dtype in ("float32", "float16"):
        job = folder.job(dtype=dtype, **EXACT)
        model = torch_train.TorchTrainableModel(job, folder.folder / "model", ProcessGroup())
        norms.append(float(model.train_step(1, [batch], 1_000_000, 0.0).grad_norm))
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_whole_model_in_float16_is_refused(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    with pytest.raises(ConfigError, match="does not train whole models in float16"):
        torch_train.train(folder.job(dtype="float16", method="full"))


def test_step_that_is_not_finite_is_skipped_and_too_many_end_the_training(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    with pytest.raises(TrainingError, match="were not finite 2 times in a row"):
        torch_train.train(folder.job(max_steps=50, learning_rate=1e30, max_nonfinite_steps=2, warmup_steps=0))


def test_base_with_weights_of_other_names_is_refused_with_its_folder(tmp_path):
    folder = tiny_models.TrainingFolder(tmp_path)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "no-such-model"}))
    with pytest.raises(ModelError, match="the model cannot be loaded") as error:
        torch_train.train(folder.job())
    assert error.value.where == str(tmp_path / "model")


LOST = """
import os, signal, sys
from pathlib import Path
import numpy as np
import tiny_models
from snaketune.engines.torch import train
from snaketune.engines.torch.device import best_device
from snaketune.engines.torch.process_group import TorchProcessGroup
from snaketune.train.batches import Batch
from snaketune.train.process_group import PeerLostError
group = TorchProcessGroup(best_device(), timeout=60.0)
folder = tiny_models.TrainingFolder.reopen(Path(sys.argv[1]))
model = train.TorchTrainableModel(folder.job(workers=2, fsdp=True), folder.folder / "model", group)
if not group.is_main:
    setattr(model.loss, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
batch = Batch(np.ones((1, 5), np.int32), np.arange(1, 5, dtype=np.int32), np.ones(4, np.int32), 4)
try:
    if sys.argv[2] == "backward":
        model.train_step(1, [batch], 4, 1e-3)
    else:
        model.validation_losses(iter([batch]))
except PeerLostError:
    print("lost", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("within", ["backward", "value"])
def test_a_process_that_dies_while_the_others_fetch_from_it_is_lost_and_no_defect_of_theirs(tmp_path, ranks, within):
    folder = tiny_models.TrainingFolder(tmp_path)
    program = tmp_path / "lost.py"
    program.write_text(LOST)
    left, killed = ranks.run(program, str(folder.folder), within)
    assert killed.exit_code == -signal.SIGKILL, killed.errors[-2000:]
    assert left.said == "lost\n", left.errors[-2000:]
