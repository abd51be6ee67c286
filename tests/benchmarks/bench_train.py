"""Trained tokens per CPU-second and peak memory: ours against Hugging Face's Trainer with PEFT, and TRL's SFTTrainer.

Real chats and their summaries (`shared/data`), the same LoRA over the same base, the same eight examples in each step.
Each side trains in a process of its own, one after the other, so that its peak memory is its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch

from adapters.inference.types import Prompt
from adapters.recipe import LORA_TARGETS, TrainingSection
from adapters.training.batching import Batch, Encoded, Example, encode
from infra.compute import Compute
from infra.errors import FactoryError
from tests.benchmarks.common import ROOT, Figure, against, base_folder
from tests.benchmarks.texts import rows

ROUNDS = 3
STEPS = 2
BATCH = 8  # per_device_train_batch_size of transformers
SECTION = TrainingSection(seed=0)


def run() -> list[Figure]:
    """Medians of interleaved rounds, each on other examples."""
    folder = base_folder()
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(ROUNDS):
        for side, results in measured.items():
            results.append(_in_a_process(side, folder, number))

    def column(side: str, name: str) -> list[float]:
        return [result[name] for result in measured[side]]

    figures = [
        against(f"speed_vs_{side}", "tokens/CPU-s", column("ours", "speed"), column(side, "speed"))
        for side in SIDES
        if side != "ours"
    ]
    shares = sorted(column("ours", "share_of_peak"))
    precision = "bf16" if Compute().dtype == torch.bfloat16 else "fp32"
    figures.append(Figure(f"share_of_{precision}_peak", "share", shares[len(shares) // 2]))
    for peer in ("hf_trainer_fp32", "hf_trainer_bf16", "trl_packing"):
        name = "memory_vs_hf_trainer" if peer == "hf_trainer_fp32" else f"memory_vs_{peer}"
        figures.append(
            against(name, "MB", column("ours", "megabytes"), column(peer, "megabytes"), higher_is_better=False)
        )
    return figures


def _in_a_process(side: str, folder: Path, number: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_train", side, str(folder), str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise FactoryError(f"{side} failed: {done.stderr.strip().splitlines()[-1]}; see the extra `peers`")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(side: str, folder: Path, number: int) -> dict[str, float]:
    """Tokens per CPU-second, peak megabytes and, of ours, the share of the measured peak, after a step to warm up."""
    from adapters.inference.models import load_tokenizer

    count = BATCH * STEPS
    asked = [
        Example(Prompt("You write short summaries.", f"Summarize this chat.\n\n{row['dialogue']}"), row["summary"])
        for row in rows("summarization/messages.train.jsonl")[: 2 * count * (ROUNDS + 1)]
    ]
    encoded, _ = encode(load_tokenizer(folder), asked, SECTION.max_tokens)
    train = SIDES[side](folder)
    train(encoded[:BATCH])  # first calls choose and compile kernels
    some = encoded[BATCH + number * count :][:count]
    started = time.process_time()
    train(some)
    seconds = time.process_time() - started
    speed = sum(len(example.ids) for example in some) / seconds
    result = {"speed": speed, "megabytes": getrusage(RUSAGE_SELF).ru_maxrss / 1024}
    if side == "ours":
        result["share_of_peak"] = _flops(folder, _batches(some)) / seconds / _peak()
    return result


Train = Callable[[Sequence[Encoded]], None]


def _ours(folder: Path) -> Train:
    from adapters.inference.models import load_model
    from adapters.training.loop import train
    from adapters.training.lora import new_adapter
    from adapters.training.losses import completion_cross_entropy

    model = new_adapter(load_model(folder, Compute().dtype), SECTION.rank, SECTION.alpha)

    def work(encoded: Sequence[Encoded]) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            train(model, _batches(encoded), completion_cross_entropy, SECTION, Path(scratch))

    return work


def _hf_trainer(folder: Path, bf16: bool) -> Train:
    """Transformers' Trainer at its defaults but for the learning rate and the order, which are those of our side."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    from adapters.inference.models import load_tokenizer

    model, collator = _peft_model(folder), DataCollatorForSeq2Seq(load_tokenizer(folder), padding=True)

    def work(encoded: Sequence[Encoded]) -> None:
        labels = [[-100] * e.completion_start + e.ids[e.completion_start :] for e in encoded]
        data = [
            {"input_ids": e.ids, "attention_mask": [1] * len(e.ids), "labels": one}
            for e, one in zip(encoded, labels, strict=True)
        ]
        with tempfile.TemporaryDirectory() as output:
            arguments = TrainingArguments(output, bf16=bf16, train_sampling_strategy="sequential", **_COMMON)
            Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator).train()

    return work


def _trl(folder: Path) -> Train:
    """TRL's SFTTrainer with packing, without its default of computing activations twice to save memory."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from adapters.inference.models import load_tokenizer

    model, tokenizer = _peft_model(folder), load_tokenizer(folder)

    def work(encoded: Sequence[Encoded]) -> None:
        masks = [[0] * e.completion_start + [1] * (len(e.ids) - e.completion_start) for e in encoded]
        data = Dataset.from_dict({"input_ids": [e.ids for e in encoded], "completion_mask": masks})
        with tempfile.TemporaryDirectory() as output:
            # Two rows of 1,024 tokens are about as many examples as the eight of the others.
            packing = {"packing": True, "per_device_train_batch_size": 2, "gradient_checkpointing": False}
            arguments = SFTConfig(output, max_length=1024, **(_COMMON | packing))
            SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer).train()

    return work


_COMMON: dict[str, Any] = {
    "num_train_epochs": 1,
    "learning_rate": SECTION.learning_rate,
    "per_device_train_batch_size": BATCH,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}
SIDES: dict[str, Callable[[Path], Train]] = {
    "ours": _ours,
    "hf_trainer_fp32": lambda folder: _hf_trainer(folder, bf16=False),
    "hf_trainer_bf16": lambda folder: _hf_trainer(folder, bf16=True),
    "trl_packing": _trl,
}


def _peft_model(folder: Path) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rank, alpha = SECTION.rank, SECTION.alpha
    return get_peft_model(
        base, LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=list(LORA_TARGETS))
    )


def _batches(encoded: Sequence[Encoded]) -> list[Batch]:
    return [Batch(tuple(encoded[begin : begin + BATCH])) for begin in range(0, len(encoded), BATCH)]


def _flops(folder: Path, batches: Sequence[Batch]) -> float:
    """What the packed steps have to multiply, forward and back: frozen weights, LoRA, attention, output matrix."""
    from adapters.inference.packed_attention import visible
    from adapters.training.packing import pack

    config = json.loads((folder / "config.json").read_text("utf-8"))
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, head = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    keys = config["num_key_value_heads"] * head
    attention = [(width, width), (width, keys), (width, keys), (width, width)]
    mlp = [(width, inner), (width, inner), (inner, width)]

    def linear(shapes: list[tuple[int, int]]) -> int:
        return sum(4 * i * o + 6 * SECTION.rank * (i + o) for i, o in shapes)

    total = 0.0
    for batch in batches:
        row = pack(batch.sequences)
        tokens, learnt = len(row.ids), len(row.learnt)
        pairs = int(visible(row.segments, row.ids.device).sum())
        total += layers * (tokens * linear(attention) + pairs * heads * head * 12)
        total += ((layers - 1) * tokens + learnt) * linear(mlp) + learnt * 4 * width * config["vocab_size"]
        total -= 2 * tokens * width * (width + 2 * keys)  # nothing is trained below the first layer
    return total


def _peak() -> float:
    """Floating-point operations per CPU-second of the best product of the layers' size, in our precision."""
    rates = []
    for k, n in ((576, 1536), (1536, 576)):
        x, weight = (torch.randn(size, k, dtype=Compute().dtype) for size in (2048, n))
        for _ in range(20):
            started = time.process_time()
            torch.nn.functional.linear(x, weight)
            rates.append(2 * 2048 * k * n / (time.process_time() - started))
    return max(rates)


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
