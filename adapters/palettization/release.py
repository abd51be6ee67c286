"""The palettized weights on disk: `palettized.safetensors` beside the model's config and tokenizer.

- Linear layers: `<name>.indices`, uint8 [out, in / vector * bits / 8], packed, the first index in the lowest bits;
  `<name>.lut`, fp16 [out / group_size, 2**bits, vector]. Bits, vector and group size follow from the shapes.
- The embedding: `<name>.values`, int8 [vocabulary, hidden]; `<name>.scales`, fp16 [vocabulary].
- Norms: `<name>.weight`, fp16.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaForCausalLM

from adapters.inference.attention import GROUPED
from adapters.palettization.bits import BitsPerWeight, tensor_bits
from adapters.palettization.codebooks import Palettized, dequantize_rows
from adapters.palettization.layers import EMBEDDING, linear_names, require_llama
from infra.errors import FactoryError

WEIGHTS = "palettized.safetensors"
# What a tokenizer and a config need; weights are not copied, and neither is anything unknown.
_COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True)
class PalettizedModel:
    """All weights of a release as they ship: linear layers, int8 embedding with scales per row, and norms (fp16)."""

    config: Any
    linear: Mapping[str, Palettized]
    embedding: tuple[torch.Tensor, torch.Tensor]
    norms: Mapping[str, torch.Tensor]

    def dense(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """State dict of the Llama that the device computes with, the tied head left out."""
        values, scales = self.embedding
        weights = {f"{name}.weight": layer.dense(dtype) for name, layer in self.linear.items()}
        weights[f"{EMBEDDING}.weight"] = dequantize_rows(values, scales).to(dtype)
        return weights | {name: norm.to(dtype) for name, norm in self.norms.items()}

    def bits_per_weight(self, recovery: Mapping[str, torch.Tensor]) -> BitsPerWeight:
        """The three averages, with the recovery adapter's tensors as they ship."""
        in_linear = sum(layer.shape[0] * layer.shape[1] for layer in self.linear.values())
        in_all = in_linear + self.embedding[0].numel() + sum(norm.numel() for norm in self.norms.values())
        tensors = self.tensors()
        all_bits = tensor_bits(tensors)
        linear_bits = tensor_bits({name: t for name, t in tensors.items() if name.endswith((".indices", ".lut"))})
        return BitsPerWeight(
            linear=linear_bits / in_linear,
            all=all_bits / in_all,
            all_with_recovery=(all_bits + tensor_bits(recovery)) / in_all,
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """The content of `palettized.safetensors`."""
        tensors: dict[str, torch.Tensor] = dict(self.norms)
        tensors[f"{EMBEDDING}.values"], tensors[f"{EMBEDDING}.scales"] = self.embedding
        for name, layer in self.linear.items():
            tensors[f"{name}.indices"] = pack(layer.indices, layer.index_bits)
            tensors[f"{name}.lut"] = layer.lut
        return tensors


def pack(indices: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack uint8 [rows, columns] into [rows, columns * bits / 8], the first index in the lowest bits."""
    stream = (indices.unsqueeze(2) >> torch.arange(bits, dtype=torch.uint8)) & 1
    octets = stream.view(len(indices), -1, 8) << torch.arange(8, dtype=torch.uint8)
    return octets.sum(2, dtype=torch.uint8)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The inverse of `pack`."""
    stream = (packed.unsqueeze(2) >> torch.arange(8, dtype=torch.uint8)) & 1
    indices = stream.view(len(packed), -1, bits) << torch.arange(bits, dtype=torch.uint8)
    return indices.sum(2, dtype=torch.uint8)


def write_weights(model: PalettizedModel, source: Path, output: Path) -> None:
    """Write a release's weights with the config and tokenizer files that lie in `source`."""
    save_file(model.tensors(), output / WEIGHTS)
    for file in _COPIED:
        if (source / file).is_file():
            shutil.copyfile(source / file, output / file)


def read_palettized(folder: Path) -> PalettizedModel:
    """Read what `write_weights` wrote.

    Raises:
        FactoryError: a file is missing or is not what it should be.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
    except (FileNotFoundError, SafetensorError) as error:
        raise FactoryError(f"{folder / WEIGHTS}: {error}; build the base release again") from None
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    require_llama(config)
    try:
        linear = {
            name: _layer(tensors.pop(f"{name}.indices"), tensors.pop(f"{name}.lut"))
            for name in linear_names(config.num_hidden_layers)
        }
        embedding = tensors.pop(f"{EMBEDDING}.values"), tensors.pop(f"{EMBEDDING}.scales")
    except KeyError as error:
        raise FactoryError(f"{folder / WEIGHTS}: no tensor {error}; build the base release again") from None
    return PalettizedModel(config, linear, embedding, norms=tensors)


def _layer(packed: torch.Tensor, lut: torch.Tensor) -> Palettized:
    return Palettized(unpack(packed, (lut.shape[1] - 1).bit_length()), lut)


def load_release(folder: Path, dtype: torch.dtype, device: str = "cpu") -> Any:
    """The palettized base as a Hugging Face model with dense frozen weights, in evaluation mode, without adapter.

    Raises:
        FactoryError: a file is missing or is not what it should be.
    """
    palettized = read_palettized(folder)
    model = LlamaForCausalLM.from_pretrained(
        None,
        config=palettized.config,
        state_dict=palettized.dense(dtype),
        dtype=dtype,
        attn_implementation=GROUPED,
    )
    return model.to(device).eval().requires_grad_(False)
