"""The one training loop: a frozen base, a few trainable parameters, and a loss that is passed in.

Notable choices:
- The trainable parameters are fp32 masters; what runs in bf16 is the base's business (`fast_layers`).
- The random state of a step is set from the seed and the step's number, so a training that was killed and goes on
  from a checkpoint computes exactly what an unbroken one does.
- Under `torch.distributed` each process computes its share of every batch (`distributed`).
"""

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.recipe import TrainingSection
from adapters.training.batching import Batch
from adapters.training.checkpoint import restore_checkpoint, save_checkpoint
from adapters.training.distributed import is_first, own_share, sum_over_processes, wait_for_all
from infra.canonical import digest
from infra.errors import FactoryError

Loss = Callable[[Any, Batch], tuple[Tensor, int]]


@dataclass(frozen=True)
class StepLog:
    """One optimiser step: mean loss per counted position before the update, and what it cost.

    `held_out_loss` is the mean loss after the update over batches that are not trained on, where it was measured;
    `megabytes` the process's peak memory so far.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    positions: int
    seconds: float
    held_out_loss: float | None = None
    megabytes: float = 0.0


OnStep = Callable[[StepLog], None]


def learning_rate_at(step: int, steps: int, settings: TrainingSection) -> float:
    """Linear warm-up over `warmup_share` of the steps, then the schedule: a cosine or a line to zero, or no change."""
    warmup = math.ceil(settings.warmup_share * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    gone = (step - warmup) / (steps - warmup)
    share = {"cosine": 0.5 * (1 + math.cos(math.pi * gone)), "linear": 1 - gone, "constant": 1.0}[settings.schedule]
    return settings.learning_rate * share


def train(
    model: Any,
    batches: Sequence[Batch],
    loss: Loss,
    settings: TrainingSection,
    scratch: Path,
    on_step: OnStep | None = None,
    checkpoint_seconds: float = 10.0,
    held_out: Sequence[Batch] = (),
) -> list[StepLog]:
    """Train what of `model` requires gradients, in place, one AdamW step for each batch; the log of all steps.

    `loss(model, batch)` returns the sum of the losses and how many positions it counted. With a checkpoint of the
    same training in `scratch`, the steps that it holds are not done again; `on_step` is not called for them. One is
    written after the first step that ends `checkpoint_seconds` after the one before. With
    `held_out` batches their loss is taken every `settings.check_every` steps; when it has not fallen for
    `settings.patience` checks the training ends, and in any case with the values of the best check. The model is left
    in evaluation mode.

    Raises:
        FactoryError: the loss or its gradient is not finite.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    device = next(iter(parameters.values())).device
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    identity = _identity(parameters, batches, held_out, settings)
    progress, best = restore_checkpoint(scratch, identity, parameters, optimizer, "logs")
    logs = [StepLog(**log) for log in progress.get("logs", [])]
    saved = time.monotonic()
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(len(logs), len(batches)):
            if _out_of_patience(logs, settings.patience):
                break
            started = time.perf_counter()
            torch.manual_seed(settings.seed * 1_000_003 + step)
            rate = optimizer.param_groups[0]["lr"] = learning_rate_at(step, len(batches), settings)
            mean, positions = _backward(model, batches[step], loss, parameters.values())
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), settings.max_grad_norm).item()
            if not math.isfinite(mean) or not math.isfinite(norm):
                raise FactoryError(
                    f"training step {step + 1}: the loss is {mean}, its gradient's norm {norm}; "
                    "lower training.learning_rate or look at the batch's examples"
                )
            optimizer.step()
            optimizer.zero_grad()
            judged: float | None = None
            if held_out and ((step + 1) % settings.check_every == 0 or step + 1 == len(batches)):
                judged = _held_out_loss(model, held_out, loss, device)
                if judged < min(_held_out_losses(logs), default=math.inf):
                    best = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            seconds, megabytes = time.perf_counter() - started, _peak_megabytes(device)
            tokens = batches[step].tokens
            logs.append(StepLog(step, mean, rate, norm, tokens, positions, seconds, judged, megabytes))
            if is_first() and time.monotonic() - saved >= checkpoint_seconds:
                told = {"logs": [asdict(log) for log in logs]}
                save_checkpoint(scratch, identity, told, parameters, optimizer, best)
                saved = time.monotonic()
            if on_step is not None and is_first():
                on_step(logs[-1])
    for name, value in best.items():
        parameters[name].data.copy_(value)
    model.eval()
    wait_for_all()
    return logs


def _backward(model: Any, batch: Batch, loss: Loss, parameters: Any) -> tuple[float, int]:
    """Put the gradient of a batch's mean loss into the parameters, of all processes; the mean, and its positions."""
    share, weight = own_share(batch)
    total, counted = loss(model, share)
    positions = counted if share is batch else len(batch.targets)
    mean = total * weight / positions
    mean.backward()
    told = mean.detach()
    sum_over_processes([told, *(parameter.grad for parameter in parameters)])
    return told.item(), positions


@torch.no_grad()
def _held_out_loss(model: Any, batches: Sequence[Batch], loss: Loss, device: torch.device) -> float:
    model.eval()
    total, count = 0.0, 0.0
    for share, weight in map(own_share, batches):
        measured, counted = loss(model, share)
        total += weight * measured.item()
        count += weight * counted
    model.train()
    sums = torch.tensor([total, count], dtype=torch.float64, device=device)
    sum_over_processes([sums])  # so that all processes stop at the same step
    return float(sums[0] / sums[1])


def _held_out_losses(logs: Sequence[StepLog]) -> list[float]:
    return [log.held_out_loss for log in logs if log.held_out_loss is not None]


def _out_of_patience(logs: Sequence[StepLog], patience: int) -> bool:
    losses = _held_out_losses(logs)
    return 0 < patience <= len(losses) - 1 - losses.index(min(losses)) if losses else False


def _peak_megabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _identity(
    parameters: Mapping[str, Tensor], batches: Sequence[Batch], held_out: Sequence[Batch], settings: TrainingSection
) -> str:
    """What a checkpoint must agree with to be gone on from."""
    shapes = {name: list(p.shape) for name, p in parameters.items()}
    sizes = [[[len(ids), sum(ids), start] for ids, start in batch.sequences] for batch in (*batches, *held_out)]
    return digest({"parameters": shapes, "batches": sizes, "settings": settings.digest})
