"""Several processes on one training: each computes its share of every batch, and gradients are summed.

With `torch.distributed` initialised a training computes what one process would, up to rounding (and to dropout, which
draws other numbers): each process knows the whole batch, so losses are divided by the positions of all. The base can be
sharded: each process keeps a part of every layer's frozen weights and gathers the whole while a layer is computed. The
LoRA is in every process, since it is small.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from adapters.training.batching import Batch


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return processes() == 1 or dist.get_rank() == 0


def own_share(batch: Batch) -> tuple[Batch, float]:
    """What of a batch this process computes, and the weight of its loss.

    A share without sequences is one sequence of weight 0: all processes have to come to what they do together.
    """
    if processes() == 1:
        return batch, 1.0
    mine = batch.sequences[dist.get_rank() :: processes()]
    return replace(batch, sequences=mine or batch.sequences[:1]), float(bool(mine))


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if processes() > 1:
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def wait_for_all() -> None:
    """Return when every process has come here."""
    if processes() > 1:
        dist.barrier()


def shard_base(model: Any, device: str) -> Any:
    """Spread the frozen weights of a PEFT model's layers over the processes (FSDP2); returns the model, on `device`.

    Attention and MLP are units of their own, because a packed row goes through the last layer part by part. Embedding
    and norms are in every process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (processes(),))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in model.get_base_model().get_decoder().layers:
        for part in (layer.self_attn, layer.mlp):
            fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    return model.to(device)
