"""A training in a process of its own: `python -m tests.adapters.training_process BASE SCRATCH OUTPUT [STEP TO DIE AT]`.

Under torchrun's variables (RANK, WORLD_SIZE, ...) it is one of several.
"""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from adapters.inference.models import load_model
from adapters.recipe import TrainingSection
from adapters.training.batching import Batch, Encoded, make_batches
from adapters.training.loop import StepLog, train
from adapters.training.lora import new_adapter
from adapters.training.losses import completion_cross_entropy

SETTINGS = TrainingSection(rank=4, alpha=8.0, learning_rate=1e-2, warmup_share=0.2, seed=4, check_every=2)


def batches() -> list[Batch]:
    """Twelve or so steps, the last batch of one sequence only: one process of two has nothing to do there."""
    encoded = [Encoded([(7 * start + 11 * i) % 20 + 3 for i in range(12 + start % 5)], 4) for start in range(24)]
    return [*make_batches(encoded, 64, 2, seed=1), Batch((encoded[0],))]


def main(base: str, scratch: str, output: str, die_at: int) -> None:
    """Train a tiny model in fp32 and write its LoRA; die without a word after step `die_at`."""
    if "RANK" in os.environ:
        dist.init_process_group("gloo")

    def on_step(log: StepLog) -> None:
        if log.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    model = new_adapter(load_model(Path(base), torch.float32), SETTINGS.rank, SETTINGS.alpha, seed=4)
    steps = batches()
    logs = train(
        model,
        steps,
        completion_cross_entropy,
        SETTINGS,
        Path(scratch),
        on_step,
        checkpoint_seconds=0,
        held_out=steps[:1],
    )
    values = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    values["losses"] = torch.tensor([log.loss for log in logs])
    if int(os.environ.get("RANK", "0")) == 0:
        save_file(values, output)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:4], die_at=int(sys.argv[4]) if len(sys.argv) > 4 else -1)
