"""Accuracy recovery: a LoRA over the palettized base that is distilled from the full-precision base."""

import json
from pathlib import Path

import torch

from adapters.inference.models import load_model
from adapters.palettization.calibration import read_calibration
from adapters.palettization.distillation import distillation_batches, distillation_loss
from adapters.palettization.recipe import RecoverySection
from adapters.palettization.release import load_release
from adapters.recipe import TrainingSection
from adapters.training.loop import StepLog, train
from adapters.training.lora import new_adapter, save_adapter
from infra.progress import track

STEPS = "steps.json"


def train_recovery(
    base: Path,
    palettized: Path,
    calibration: Path,
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
        FactoryError: there is too little calibration text, or the loss is not finite.
    """
    windows = read_calibration(calibration, section.tokens)
    batches = distillation_batches(windows, section.batch_tokens, section.steps, section.seed)
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

        def report(log: StepLog) -> None:
            step.reach(log.step + 1, note=f"divergence {log.loss:.3f}")

        logs = train(model, batches, loss, settings, scratch, on_step=report)
    save_adapter(model, output, base_digest)
    # Without the seconds: the same inputs give the same bytes.
    steps = [{"step": log.step, "divergence": log.loss, "learning_rate": log.learning_rate} for log in logs]
    (output / STEPS).write_text(json.dumps(steps), "utf-8")
