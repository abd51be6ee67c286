"""Trained tokens per CPU-second: ours against Hugging Face's Trainer with PEFT at its defaults.

The same examples (our own chats and their summaries, twice over a system prompt), the same LoRA, the real base model.
The peer trains in fp32, 8 examples a step in random order, padded to the longest, loss over completions only.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from adapters.inference.models import load_model, load_tokenizer
from adapters.inference.types import Prompt
from adapters.recipe import LORA_TARGETS, TrainingSection
from adapters.training.batching import Encoded, Example, encode, make_batches
from adapters.training.loop import train
from adapters.training.lora import new_adapter
from adapters.training.losses import completion_cross_entropy
from tests.benchmarks.common import Figure, against, base_folder, dialogues, per_cpu_second

ROUNDS = 3
EXAMPLES = 16
SECTION = TrainingSection(batch_tokens=2048, seed=0)


def run() -> list[Figure]:
    """Medians of interleaved rounds, each on other examples."""
    folder = base_folder()
    tokenizer = load_tokenizer(folder)
    asked = [
        Example(Prompt("You write short summaries.", f"Summarize this chat.\n\n{r.input}"), r.targets[0])
        for r in dialogues((ROUNDS + 1) * EXAMPLES)
    ]
    encoded, _ = encode(tokenizer, asked, SECTION.max_tokens)
    ours = new_adapter(load_model(folder, torch.bfloat16), SECTION.rank, SECTION.alpha)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=SECTION.rank, lora_alpha=SECTION.alpha, target_modules=list(LORA_TARGETS)
    )
    peer = get_peft_model(base, config)
    _train_ours(ours, encoded[-8:])  # first calls choose and compile kernels
    _train_peer(peer, encoded[-8:], tokenizer)
    our_speed, peer_speed = [], []
    for number in range(ROUNDS):
        some = encoded[number * EXAMPLES : (number + 1) * EXAMPLES]
        our_speed.append(per_cpu_second(lambda some=some: _train_ours(ours, some)))
        peer_speed.append(per_cpu_second(lambda some=some: _train_peer(peer, some, tokenizer)))
    return [against("speed_vs_hf_trainer_fp32", "tokens/CPU-s", our_speed, peer_speed)]


def _train_ours(model: Any, encoded: list[Encoded]) -> int:
    batches = make_batches(encoded, SECTION.batch_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        return sum(log.tokens for log in train(model, batches, completion_cross_entropy, SECTION, Path(scratch)))


def _train_peer(model: Any, encoded: list[Encoded], tokenizer: Any) -> int:
    rows = [
        {
            "input_ids": example.ids,
            "attention_mask": [1] * len(example.ids),
            "labels": [-100] * example.completion_start + example.ids[example.completion_start :],
        }
        for example in encoded
    ]
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, num_train_epochs=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True
        )
        collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator).train()
    return sum(len(example.ids) for example in encoded)
