"""Load a causal language model and its tokenizer from a local folder, nothing else."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters.inference.attention import GROUPED
from infra.errors import FactoryError


def load_model(folder: Path, dtype: torch.dtype, device: str = "cpu") -> Any:
    """A model in evaluation mode with frozen weights.

    Raises:
        FactoryError: the folder holds no model.
    """
    if not (folder / "config.json").is_file():
        raise FactoryError(f"{folder}: no config.json, so no model; name a folder in Hugging Face's layout")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=GROUPED, local_files_only=True
    )
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that lies beside a model."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
