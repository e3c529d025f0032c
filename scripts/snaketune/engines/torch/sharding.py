"""FSDP: the frozen weights of the blocks spread over the processes, each of which fetches a block while it computes it.

Adapters stay whole in every process, and so do embedding, head and norms outside the blocks. The next block is fetched
while one is computed, so two are held whole. The training itself is that of `train.workers` without it. Fetching is
collective, so all processes pass the same number of micro-batches through the model; one that has fewer rows makes up
for it with batches of no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from snaketune.engines.torch import lora
from snaketune.train.batches import Batch
from snaketune.train.process_group import PeerLostError, ProcessGroup

NO_ROW = Batch(np.zeros((1, 1), np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32), 0)


def shard(model: PreTrainedModel, group: ProcessGroup, device: torch.device) -> None:
    """Spread a model's blocks, which are on the CPU, and move its other parts to the device."""
    mesh = init_device_mesh(device.type, (group.world_size,))
    inside: set[int] = set()
    for block in lora.blocks(model):
        trained = {one for one in block.parameters() if one.requires_grad}
        inside |= {id(part) for part in block.modules()}
        for one in trained:
            one.data = one.data.to(device)
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    # the root of all blocks: each would be one of its own, with streams of its own, and none would be fetched ahead
    fully_shard(model.base_model, mesh=mesh, ignored_params=set(model.parameters()))
    for part in model.modules():
        if id(part) not in inside:
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                tensor.data = tensor.data.to(device)


@contextmanager
def fetching(group: ProcessGroup) -> Iterator[None]:
    """Run a sharded model, which waits for the other processes; raises PeerLostError when one of them is gone.

    A collective operation inside the model fails as a DistBackendError from NCCL, and as a bare RuntimeError from gloo.
    """
    group.is_waiting = True
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise PeerLostError(str(error)) from error
        raise
    finally:
        group.is_waiting = False


def in_step(batches: Iterator[Batch], group: ProcessGroup) -> Iterator[Batch]:
    """The batches of this process, and batches of no row until the last process has given its last one."""
    while True:
        batch = next(batches, None)
        if group.all_reduce_max(int(batch is not None)) == [0]:
            return
        yield NO_ROW if batch is None else batch
