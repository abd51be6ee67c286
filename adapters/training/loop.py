"""The one training loop: a frozen base, a few trainable parameters, and a loss that is passed in.

Notable choices:
- The trainable parameters are fp32 masters; what runs in bf16 is the base's business (`fast_layers`).
- The random state of a step is set from the seed and the step's number, so a training that was killed and goes on
  from a checkpoint computes exactly what an unbroken one does.
- A checkpoint is one safetensors file, replaced by a rename: it is whole or it is the one before.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapters.recipe import TrainingSection
from adapters.training.batching import Batch
from infra.canonical import digest
from infra.errors import FactoryError

Loss = Callable[[Any, Batch], tuple[Tensor, int]]
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class StepLog:
    """One optimiser step: mean loss per counted position before the update, and what it cost."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    positions: int
    seconds: float


OnStep = Callable[[StepLog], None]


def learning_rate_at(step: int, steps: int, settings: TrainingSection) -> float:
    """Linear warm-up over `warmup_share` of the steps, then a cosine down to zero after the last step."""
    warmup = math.ceil(settings.warmup_share * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train(
    model: Any,
    batches: Sequence[Batch],
    loss: Loss,
    settings: TrainingSection,
    scratch: Path,
    on_step: OnStep | None = None,
    checkpoint_every: int = 20,
) -> list[StepLog]:
    """Train what of `model` requires gradients, in place, one AdamW step for each batch; the log of all steps.

    `loss(model, batch)` returns the sum of the losses and how many positions it counted. With a checkpoint of the
    same training in `scratch`, the steps that it holds are not done again; `on_step` is not called for them. The model
    is left in evaluation mode.

    Raises:
        FactoryError: the loss or its gradient is not finite.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    device = next(iter(parameters.values())).device
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    identity = _identity(parameters, batches, settings)
    logs = _restore(scratch / CHECKPOINT, identity, parameters, optimizer)
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(len(logs), len(batches)):
            started = time.perf_counter()
            torch.manual_seed(settings.seed * 1_000_003 + step)
            batch = batches[step]
            optimizer.param_groups[0]["lr"] = learning_rate_at(step, len(batches), settings)
            total, positions = loss(model, batch)
            mean = total / positions
            mean.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), settings.max_grad_norm)
            if not math.isfinite(mean.item()) or not math.isfinite(norm.item()):
                raise FactoryError(
                    f"training step {step + 1}: the loss is {mean.item()}, its gradient's norm {norm.item()}; "
                    "lower training.learning_rate or look at the batch's examples"
                )
            optimizer.step()
            optimizer.zero_grad()
            rate = optimizer.param_groups[0]["lr"]
            seconds = time.perf_counter() - started
            logs.append(StepLog(step, mean.item(), rate, norm.item(), batch.tokens, positions, seconds))
            if len(logs) % checkpoint_every == 0:
                _save(scratch / CHECKPOINT, identity, logs, parameters, optimizer)
            if on_step is not None:
                on_step(logs[-1])
    model.eval()
    return logs


def _identity(parameters: dict[str, Tensor], batches: Sequence[Batch], settings: TrainingSection) -> str:
    """What a checkpoint must agree with to be gone on from."""
    shapes = {name: list(p.shape) for name, p in parameters.items()}
    sizes = [[[len(ids), sum(ids), start] for ids, start in batch.sequences] for batch in batches]
    return digest({"parameters": shapes, "batches": sizes, "settings": settings.digest})


def _save(
    path: Path, identity: str, logs: list[StepLog], parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        tensors[f"{name}|value"] = parameter.detach()
        tensors[f"{name}|first"] = state["exp_avg"]
        tensors[f"{name}|second"] = state["exp_avg_sq"]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"identity": identity, "logs": json.dumps([asdict(log) for log in logs])})
    partial.replace(path)


def _restore(
    path: Path, identity: str, parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> list[StepLog]:
    if not path.is_file():
        return []
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata["identity"] != identity:
            return []
        logs = [StepLog(**log) for log in json.loads(metadata["logs"])]
        for name, parameter in parameters.items():
            parameter.data.copy_(file.get_tensor(f"{name}|value"))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(len(logs)), device=parameter.device),
                "exp_avg": file.get_tensor(f"{name}|first").to(parameter.device),
                "exp_avg_sq": file.get_tensor(f"{name}|second").to(parameter.device),
            }
    return logs
