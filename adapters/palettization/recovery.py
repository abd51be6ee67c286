"""Accuracy recovery: a LoRA over the palettized base that is distilled from the full-precision base.

Both models read the frozen calibration text; the loss is the divergence of the next-token distributions (Hinton et al.
2015), so that nothing is learnt of the text but how the full-precision base continues it.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.recipe import RecoverySection
from adapters.palettization.release import load_release
from adapters.recipe import TrainingSection
from adapters.training.batching import Batch, Encoded, make_batches
from adapters.training.loop import Loss, StepLog, train
from adapters.training.lora import new_adapter, save_adapter
from adapters.training.losses import selected_logits
from infra.progress import track

STEPS = "steps.json"


def distillation_loss(teacher: Any) -> Loss:
    """Sum over the positions of `loss_mask` of KL(teacher || model) in nats, and their number.

    The teacher is frozen and the text is read several times, so the last hidden states of every sequence are kept
    after its first reading: about a kilobyte a token, where its logits would be a hundred.
    """
    known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def expected(batch: Batch) -> Tensor:
        rows = [row.numpy().tobytes() for row in batch.input_ids.cpu()]
        if any(row not in known for row in rows):
            states = teacher.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            known.update(zip(rows, states, strict=True))
        hidden = torch.stack([known[row] for row in rows])[batch.loss_mask]
        return teacher.get_output_embeddings()(hidden).float().softmax(-1)

    def loss(model: Any, batch: Batch) -> tuple[Tensor, int]:
        targets = expected(batch)
        cross_entropy = F.cross_entropy(selected_logits(model, batch).float(), targets, reduction="sum")
        entropy = torch.special.entr(targets).sum()
        return cross_entropy - entropy, len(targets)

    return loss


def train_recovery(
    base: Path,
    palettized: Path,
    base_digest: str,
    section: RecoverySection,
    output: Path,
    scratch: Path,
    dtype: torch.dtype,
    device: str,
) -> None:
    """Write the recovery adapter (PEFT files) and the log of its training, `steps.json`.

    A training that was killed goes on from its checkpoint in `scratch`.

    Raises:
        FactoryError: the calibration text is too short, or the loss is not finite.
    """
    windows = section.text.windows(load_tokenizer(base))
    sequences = [Encoded(ids, completion_start=1) for ids in windows.tolist()]
    per_epoch = len(make_batches(sequences, section.batch_tokens))
    batches = make_batches(sequences, section.batch_tokens, section.steps / per_epoch, section.seed)
    settings = TrainingSection(
        rank=section.rank,
        alpha=section.alpha,
        learning_rate=section.learning_rate,
        warmup_share=section.warmup_share,
        batch_tokens=section.batch_tokens,
        seed=section.seed,
    )
    model = new_adapter(load_release(palettized, dtype, device), section.rank, section.alpha, seed=section.seed)
    loss = distillation_loss(load_model(base, dtype, device))
    with track("recovery", len(batches)) as step:
        reported = 0

        def report(log: StepLog) -> None:
            nonlocal reported  # steps of a checkpoint are not reported one by one
            step.advance(log.step + 1 - reported, note=f"divergence {log.loss:.3f}")
            reported = log.step + 1

        logs = train(model, batches, loss, settings, scratch, on_step=report)
    save_adapter(model, output, base_digest)
    # Without the seconds: the same inputs give the same bytes.
    steps = [{"step": log.step, "divergence": log.loss, "learning_rate": log.learning_rate} for log in logs]
    (output / STEPS).write_text(json.dumps(steps), "utf-8")
