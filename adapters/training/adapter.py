"""The training stage: a feature's examples and a base release in, the feature's adapter out."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from adapters.inference.models import load_tokenizer
from adapters.palettization.release import load_release
from adapters.recipe import TrainingSection
from adapters.training.batching import Example, encode, make_batches
from adapters.training.loop import StepLog, train
from adapters.training.lora import continue_adapter, save_adapter
from adapters.training.losses import completion_cross_entropy
from infra.progress import track

ADAPTER = "adapter"
REPORT = "training.json"


def train_adapter(
    release_folder: Path,
    examples: Sequence[Example],
    section: TrainingSection,
    base_digest: str,
    output: Path,
    scratch: Path,
    device: str = "cpu",
) -> None:
    """Train an adapter over the palettized base, from its recovery adapter on; base weights and activations in bf16.

    Writes `adapter/` (PEFT's files) and `training.json` (examples used and left out, tokens, seconds, and each step's
    loss). A training that was killed goes on from its checkpoint in `scratch`.

    Raises:
        FactoryError: no example fits, the recovery adapter's rank is above the recipe's, or the loss is not finite.
    """
    tokenizer = load_tokenizer(release_folder)
    longest = min(section.max_tokens, section.batch_tokens)
    encoded, left_out = encode(tokenizer, examples, longest)
    batches = make_batches(encoded, section.batch_tokens, section.epochs, section.seed)
    base = load_release(release_folder, torch.bfloat16, device)
    model = continue_adapter(
        base, release_folder / "recovery", section.rank, section.alpha, section.dropout, section.seed
    )
    with track("training", len(batches)) as step:

        def report(log: StepLog) -> None:
            step.reach(log.step + 1, note=f"loss {log.loss:.3f}")

        logs = train(model, batches, completion_cross_entropy, section, scratch, on_step=report)
    save_adapter(model, output / ADAPTER, base_digest)
    tokens = sum(log.tokens for log in logs)
    seconds = sum(log.seconds for log in logs)
    summary = {
        "examples": len(encoded),
        "left_out": left_out,
        "max_tokens": longest,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "steps": [asdict(log) for log in logs],
    }
    (output / REPORT).write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
