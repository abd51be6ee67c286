"""Distillation from the full-precision base: the loss that recovery and tuned tables share, and its batches.

Both models read the calibration windows; the loss is the divergence of the next-token distributions (Hinton et al.
2015), so that nothing is learnt of the text but how the full-precision base continues it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.inference.models import load_model
from adapters.palettization.recipe import RecoverySection, TuningSection
from adapters.recipe import TrainingSection
from adapters.training.batching import Batch, Encoded, make_batches
from adapters.training.loop import Loss, StepLog, train
from adapters.training.losses import completion_divergence, selected_hidden
from infra.progress import track


def distil(
    label: str,
    model: Any,
    base: Path,
    windows: Tensor,
    section: TuningSection | RecoverySection,
    scratch: Path,
    dtype: torch.dtype,
    device: str,
) -> list[StepLog]:
    """Train what of `model` requires gradients towards the model in `base`, as the section says; the log of all steps.

    A training that was killed goes on from its checkpoint in `scratch`.

    Raises:
        FactoryError: the loss is not finite.
    """
    batches = distillation_batches(windows, section.batch_tokens, section.steps, section.seed)
    settings = TrainingSection(
        learning_rate=section.learning_rate,
        warmup_share=section.warmup_share,
        batch_tokens=section.batch_tokens,
        seed=section.seed,
    )
    loss = distillation_loss(load_model(base, dtype, device))
    with track(label, len(batches)) as step:

        def report(log: StepLog) -> None:
            step.reach(log.step + 1, note=f"divergence {log.loss:.3f}")

        return train(model, batches, loss, settings, scratch, on_step=report)


def distillation_batches(windows: Tensor, batch_tokens: int, steps: int, seed: int) -> list[Batch]:
    """`steps` batches of windows [windows, window], which are read over and over in a new order each time."""
    sequences = [Encoded(ids, completion_start=1) for ids in windows.tolist()]
    per_epoch = len(make_batches(sequences, batch_tokens))
    return make_batches(sequences, batch_tokens, steps / per_epoch, seed)


def distillation_loss(teacher: Any) -> Loss:
    """Sum over all positions of KL(teacher || model) in nats, and their number.

    The teacher is frozen and the text is read several times, so the last hidden states of every sequence are kept
    after its first reading: about a kilobyte a token, where its logits would be a hundred.
    """
    known: dict[tuple[int, ...], Tensor] = {}

    @torch.no_grad()
    def hidden(batch: Batch) -> Tensor:
        texts = [tuple(sequence.ids) for sequence in batch.sequences]
        if any(text not in known for text in texts):
            states = selected_hidden(teacher, batch).split([len(text) - 1 for text in texts])
            known.update(zip(texts, states, strict=True))
        return torch.cat([known[text] for text in texts])

    def loss(model: Any, batch: Batch) -> tuple[Tensor, int]:
        return completion_divergence(model, batch, hidden(batch), teacher.get_output_embeddings().weight)

    return loss
