"""Data parallelism: several processes, each with its share of every batch, and one sum of gradients.

With `torch.distributed` initialised (`torchrun`, `accelerate launch`) a training computes what one process
would, up to rounding: each process knows the whole batch, so losses are divided by the positions of all.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from adapters.training.batching import Batch


def _size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return _size() == 1 or dist.get_rank() == 0


def own_share(batch: Batch) -> Batch:
    """What of a batch this process computes; it may be nothing."""
    return batch if _size() == 1 else replace(batch, sequences=batch.sequences[dist.get_rank() :: _size()])


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if _size() > 1:
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def wait_for_all() -> None:
    """Return when every process has come here."""
    if _size() > 1:
        dist.barrier()
