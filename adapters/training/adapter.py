"""The training stage: a feature's examples and a base release in, the feature's adapter out."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from adapters.inference.models import load_tokenizer
from adapters.palettization.release import load_release
from adapters.recipe import TrainingSection
from adapters.training.batching import Encoded, Example, encode, make_batches
from adapters.training.distributed import is_first, processes, shard_base
from adapters.training.loop import StepLog, train
from adapters.training.lora import continue_adapter, new_adapter, save_adapter
from adapters.training.losses import completion_cross_entropy
from infra.compute import Compute

ADAPTER = "adapter"
REPORT = "training.json"
# Told of each step, and of how many there will be at most.
OnStep = Callable[[StepLog, int], None]


def train_adapter(
    release_folder: Path,
    examples: Sequence[Example],
    section: TrainingSection,
    base_digest: str,
    output: Path,
    scratch: Path,
    device: str = "cpu",
    earlier: Path | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Train an adapter over the palettized base, from where `section.start` says; `earlier` is the version it names.

    Writes `adapter/` (PEFT's files) and `training.json` (examples used and left out, tokens, seconds, and each step's
    loss). A training that was killed goes on from its checkpoint in `scratch`. Under `torch.distributed` all processes
    call this, and the first one writes.

    Raises:
        FactoryError: no example fits, the recovery adapter's rank is above the recipe's, or the loss is not finite.
    """
    tokenizer = load_tokenizer(release_folder)
    longest = min(section.max_tokens, section.batch_tokens)
    encoded, left_out = encode(tokenizer, examples, longest)
    learnt, judged = split_by_prompt(encoded, section.held_out_share, section.seed)
    batches = make_batches(
        learnt, section.batch_tokens, section.epochs, section.seed, section.packing, section.token_budget
    )
    held_out = make_batches(judged, section.batch_tokens, packed=section.packing) if judged else []
    dtype = Compute(device, section.precision).dtype
    sharded = section.sharded and processes() > 1
    base = load_release(release_folder, dtype, "cpu" if sharded else device)
    lora = (section.rank, section.alpha, section.dropout, section.seed, section.target_modules)
    if section.start == "scratch":
        model = new_adapter(base, *lora)
    else:
        model = continue_adapter(base, earlier or release_folder / "recovery", *lora)
    if sharded:
        model = shard_base(model, device)

    def report(log: StepLog) -> None:
        if on_step is not None:
            on_step(log, len(batches))

    logs = train(model, batches, completion_cross_entropy, section, scratch, on_step=report, held_out=held_out)
    if not is_first():
        return
    save_adapter(model, output / ADAPTER, base_digest)
    tokens = sum(log.tokens for log in logs)
    seconds = sum(log.seconds for log in logs)
    summary = {
        "examples": len(learnt),
        "held_out_examples": len(judged),
        "left_out": left_out,
        "max_tokens": longest,
        "devices": processes(),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "steps": [asdict(log) for log in logs],
    }
    (output / REPORT).write_text(json.dumps(summary, indent=1) + "\n", "utf-8")


def split_by_prompt(encoded: Sequence[Encoded], share: float, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """The examples that are learnt, and those of `share` of the prompts, which only say when to stop; drawn by `seed`.

    A prompt with several completions is on one side: what was learnt of one would make the loss on another look good.
    """
    prompts = [tuple(ids[:start]) for ids, start in encoded]
    order = list(dict.fromkeys(prompts))
    random.Random(seed).shuffle(order)
    chosen = set(order[: int(len(order) * share)])
    sides: tuple[list[Encoded], list[Encoded]] = [], []
    for example, prompt in zip(encoded, prompts, strict=True):
        sides[prompt in chosen].append(example)
    return sides
