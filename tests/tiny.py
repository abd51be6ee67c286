"""A tiny random Llama with a tokenizer of its own, made in a second: the base model of the fast tests."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adapters.inference.models import load_model
from adapters.palettization.calibration import write_calibration
from adapters.palettization.palettize import write_palettized
from adapters.palettization.recipe import CalibrationSection, PalettizationSection, SensitivitiesSection
from adapters.palettization.release import load_release
from adapters.palettization.sensitivities import SENSITIVITIES, write_sensitivities
from adapters.palettization.text import FrozenText
from adapters.training.lora import new_adapter, save_adapter

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "the a train meeting is late today please call me about your garden and we will see you at noon tomorrow"


def make_tiny_base(folder: Path, seed: int = 0, hidden: int = 64, layers: int = 2) -> Path:
    """Write a random Llama (grouped-query attention, tied embedding, 512 tokens) in Hugging Face's layout."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=fast.bos_token_id,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def make_tiny_release(folder: Path) -> Path:
    """Palettize a tiny base, write a recovery adapter of rank 4 that changes something, and return the release."""
    base = make_tiny_base(folder / "base")
    linear = {n: m.weight for n, m in load_model(base, torch.float32).named_modules() if n.endswith("_proj")}
    save_file({name: torch.ones_like(weight) for name, weight in linear.items()}, folder / SENSITIVITIES)
    release = folder / "release"
    release.mkdir()
    write_palettized(base, folder, folder, PalettizationSection(), release, "cpu")
    recovery = new_adapter(load_release(release, torch.float32), 4, 8.0, seed=1)
    for name, parameter in recovery.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    save_adapter(recovery, release / "recovery", "cd" * 32)
    return release


def write_fisher(base: Path, text: FrozenText, folder: Path) -> None:
    """Write calibration windows of `text` and the sensitivities on them into one folder."""
    write_calibration(base, CalibrationSection(text=text), folder, torch.float32, "cpu")
    write_sensitivities(base, folder, SensitivitiesSection(tokens=text.tokens), folder, torch.float32, "cpu")
