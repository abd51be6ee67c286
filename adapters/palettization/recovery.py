"""Accuracy recovery: a LoRA over the palettized base that is distilled from the full-precision base."""

import json
from pathlib import Path

import torch

from adapters.palettization.calibration import read_calibration
from adapters.palettization.distillation import distil
from adapters.palettization.recipe import RecoverySection
from adapters.palettization.release import load_release
from adapters.training.lora import new_adapter, save_adapter

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
    model = new_adapter(load_release(palettized, dtype, device), section.rank, section.alpha, seed=section.seed)
    logs = distil("recovery", model, base, windows, section, scratch, dtype, device)
    save_adapter(model, output, base_digest)
    # Without the seconds: the same inputs give the same bytes.
    steps = [{"step": log.step, "divergence": log.loss, "learning_rate": log.learning_rate} for log in logs]
    (output / STEPS).write_text(json.dumps(steps), "utf-8")
